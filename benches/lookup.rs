//! How long does the union itself take for a request, without the kernel and FUSE?

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plyfs::config::plan::MountPlan;
use plyfs::merge::inomap::ROOT;
use plyfs::union::Union;
use std::fs;
use std::hint::black_box;
use std::path::Path;

/// So many lower layers, with one file in the lowest of them.
fn union(dir: &Path, layers: usize) -> Union {
    let lowers: Vec<_> = (0..layers).map(|i| dir.join(format!("l{i}"))).collect();
    for lower in &lowers {
        fs::create_dir(lower).expect("a layer can be made");
    }
    fs::write(dir.join(format!("l{}/file", layers - 1)), "x").expect("a file can be made");
    Union::open(&MountPlan::new(dir.join("mnt"), lowers)).expect("directories are layers")
}

fn requests(c: &mut Criterion) {
    for layers in [1, 5, 50] {
        let dir = tempfile::tempdir().expect("a directory");
        let union = union(dir.path(), layers);
        let mut group = c.benchmark_group("union");
        group.bench_function(BenchmarkId::new("lookup and forget, layers", layers), |b| {
            b.iter(|| {
                union
                    .lookup(ROOT, black_box(b"file"))
                    .map(|found| found.is_some())
            });
        });
        group.bench_function(BenchmarkId::new("lookup of nothing, layers", layers), |b| {
            b.iter(|| {
                union
                    .lookup(ROOT, black_box(b"none"))
                    .map(|found| found.is_some())
            });
        });
        let entry = union.lookup(ROOT, b"file").expect("it can be looked up");
        let entry = entry.expect("it is there");
        let ino = entry.attr.ino;
        group.bench_function(BenchmarkId::new("getattr, layers", layers), |b| {
            b.iter(|| union.getattr(black_box(ino)));
        });
        let mut buffer = [0; 4096];
        group.bench_function(BenchmarkId::new("read, layers", layers), |b| {
            b.iter(|| union.read(black_box(ino), 0, &mut buffer, 0));
        });
        group.finish();
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
