//! How long does it take to decide where a name lives, layer by layer?

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plyfs::merge::resolve::{Sighting, resolve};
use std::convert::Infallible;
use std::hint::black_box;

fn at_last(layers: usize, found: Sighting) -> impl Fn(usize) -> Result<Sighting, Infallible> {
    move |layer| {
        Ok(if layer + 1 == layers {
            found
        } else {
            Sighting::Nothing
        })
    }
}

fn names(c: &mut Criterion) {
    for (question, found) in [
        ("missing", Sighting::Nothing),
        ("file in the lowest", Sighting::NonDirectory),
        ("whiteout in the lowest", Sighting::Whiteout),
    ] {
        let mut group = c.benchmark_group(format!("resolve/{question}"));
        for layers in [1, 5, 50, 500] {
            group.bench_function(BenchmarkId::from_parameter(layers), |b| {
                b.iter(|| {
                    resolve(0..black_box(layers), at_last(layers, found), |_, _| {
                        Ok(false)
                    })
                });
            });
        }
        group.finish();
    }
}

fn merged(c: &mut Criterion) {
    let mut group = c.benchmark_group("resolve/directory in all");
    for layers in [1, 5, 50, 500] {
        group.bench_function(BenchmarkId::from_parameter(layers), |b| {
            b.iter(|| {
                resolve(
                    0..black_box(layers),
                    |_| Ok::<_, Infallible>(Sighting::Directory),
                    |_, _| Ok(false),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, names, merged);
criterion_main!(benches);
