//! How long does it take to merge the listings of a directory, to find a name in the
//! result, and to change it?

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plyfs::merge::listing::{CookieKey, Entry, Listing, Merger};
use plyfs::merge::name::Name;
use std::hint::black_box;

const FILE: u8 = 8;

fn entry(number: usize) -> Entry {
    Entry {
        name: Name::new(format!("entry-{number:07}").as_bytes()).expect("a name"),
        ino: number as u64 + 2,
        kind: FILE,
        lower: None,
    }
}

/// What a layer has, and what it hides.
type Layer = (Vec<Entry>, Vec<Name>);

/// `names` names, dealt out evenly to so many layers; a tenth of them is deleted in the
/// topmost.
fn dealt(names: usize, layers: usize) -> Vec<Layer> {
    (0..layers)
        .map(|layer| {
            let deleted = |number: &usize| layer == 0 && number.is_multiple_of(10);
            let here = (0..names)
                .filter(|number| number % layers == layer && !deleted(number))
                .map(entry);
            let hides = (0..names).filter(deleted).map(|number| entry(number).name);
            (here.collect(), hides.collect())
        })
        .collect()
}

fn merge(key: &CookieKey, layers: Vec<Layer>) -> Listing {
    let mut merger = Merger::new(key);
    for (entries, hides) in layers {
        merger.layer(entries, hides);
    }
    merger.finish()
}

fn merging(c: &mut Criterion) {
    let key = CookieKey::default();
    let mut group = c.benchmark_group("listing/merge");
    for (names, layers) in [
        (1_000, 1),
        (1_000, 5),
        (10_000, 5),
        (10_000, 50),
        (100_000, 5),
    ] {
        group.throughput(Throughput::Elements(names as u64));
        let id = BenchmarkId::from_parameter(format!("{names} names, {layers} layers"));
        group.bench_function(id, |b| {
            b.iter_batched(
                || dealt(names, layers),
                |layers| merge(&key, layers),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn using(c: &mut Criterion) {
    let key = CookieKey::default();
    let mut group = c.benchmark_group("listing/use");
    for names in [1_000, 100_000] {
        let mut listing = merge(&key, dealt(names, 5));
        let known = entry(names / 2 + 1).name;
        group.bench_function(BenchmarkId::new("known name", names), |b| {
            b.iter(|| listing.get(&key, black_box(&known)).is_some());
        });
        group.bench_function(BenchmarkId::new("missing name", names), |b| {
            b.iter(|| listing.get(&key, black_box(b"missing")).is_some());
        });
        group.bench_function(BenchmarkId::new("page of 100", names), |b| {
            let middle = listing
                .after(0)
                .nth(names / 2)
                .map_or(0, |(cookie, _)| cookie);
            b.iter(|| listing.after(black_box(middle)).take(100).count());
        });
        group.bench_function(BenchmarkId::new("add and remove", names), |b| {
            b.iter_batched(
                || entry(names + 7),
                |entry| {
                    let name = entry.name.clone();
                    listing.insert(&key, entry);
                    listing.remove(&key, &name)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, merging, using);
criterion_main!(benches);
