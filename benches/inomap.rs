//! How long does it take to tell the union's inode number of a real file?

use criterion::{Criterion, criterion_group, criterion_main};
use plyfs::merge::inomap::{InoMap, RealId};
use std::hint::black_box;

/// An inode number that does not fit beside the device's.
const IRREGULAR: u64 = u64::MAX - 5;

fn numbers(c: &mut Criterion) {
    let mut map = InoMap::default();
    for dev in 1..=5 {
        map.assign(RealId { dev, ino: 1 });
    }
    let odd = RealId {
        dev: 3,
        ino: IRREGULAR,
    };
    map.assign(odd);
    c.bench_function("inomap/regular", |b| {
        b.iter(|| map.get(black_box(RealId { dev: 3, ino: 77 })));
    });
    c.bench_function("inomap/irregular", |b| b.iter(|| map.get(black_box(odd))));
    c.bench_function("inomap/apart, known", |b| {
        b.iter(|| map.assign_apart(black_box(7), black_box(b"a-hard-link")));
    });
}

criterion_group!(benches, numbers);
criterion_main!(benches);
