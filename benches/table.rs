//! How long does it take to find a node, to make one known and to forget it, alone and
//! beside other threads?

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plyfs::config::plan::MountPlan;
use plyfs::layer::open::open_layers;
use plyfs::node::stack::Stack;
use plyfs::node::{Node, Place, Tree};
use plyfs::sys::fs::S_IFREG;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const NODES: u64 = 100_000;
const FIRST: u64 = 1_000;

fn tree(dir: &std::path::Path) -> Tree {
    let plan = MountPlan::new(dir.join("mnt"), vec![dir.to_owned()]);
    let layers = open_layers(&plan).expect("a directory is a layer");
    Tree::new(layers, 16, false).expect("one layer is a tree")
}

fn learn(tree: &Tree, ino: u64) {
    let make = || Node::new(ino, S_IFREG, Place::Gone, Stack::upper_only(ino));
    let (reference, _) = tree.intern(ino, make);
    reference.told();
}

fn nodes(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = tree(dir.path());
    for ino in FIRST..FIRST + NODES {
        learn(&tree, ino);
    }
    let mut group = c.benchmark_group("table");
    for others in [0, 1, 3] {
        let stop = AtomicBool::new(false);
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..others {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let ino = FIRST + next.fetch_add(7, Ordering::Relaxed) % NODES;
                        black_box(tree.table.get(ino));
                    }
                });
            }
            group.bench_function(BenchmarkId::new("get, beside threads", others), |b| {
                let mut ino = FIRST;
                b.iter(|| {
                    ino = FIRST + (ino * 31 + 7) % NODES;
                    tree.table.get(black_box(ino))
                });
            });
            stop.store(true, Ordering::Relaxed);
        });
    }
    group.bench_function("learn and forget", |b| {
        b.iter(|| {
            learn(&tree, FIRST + NODES);
            tree.forget(FIRST + NODES, 1);
        });
    });
    group.finish();
}

criterion_group!(benches, nodes);
criterion_main!(benches);
