//! One large file, read and written.

use super::{Ground, Group, Work, Workload, bytes, create, grouped};
use crate::bench::data::{Random, SMALL, Set, Sizes};
use crate::sys::memory::Mapping;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

/// What is read and written at once, in sequence.
const CHUNK: usize = 1 << 20;

/// The file that is written.
const WRITTEN: &str = "new/written";

fn path() -> String {
    format!("{}/file", Set::Large.dir())
}

/// How large the file is that is written here and there.
fn written_bytes(sizes: &Sizes) -> usize {
    (sizes.large_bytes() / 4).max(CHUNK)
}

fn random_ops(sizes: &Sizes) -> usize {
    sizes.count(50_000, 1000)
}

fn syncs(sizes: &Sizes) -> usize {
    sizes.count(500, 20)
}

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let large = bytes(sizes.large_bytes());
    let written = bytes(written_bytes(sizes));
    let ops = grouped(random_ops(sizes));
    let new = |name: &str, title: String, measure: fn(&Ground) -> io::Result<Work>| {
        Workload::new(Group::Data, name, title, measure)
    };
    vec![
        new(
            "seq-read-first",
            format!("{large} read in sequence, cold"),
            read_all,
        )
        .on(Set::Large)
        .cold(),
        new(
            "seq-read-again",
            format!("{large} read in sequence, again"),
            read_all,
        )
        .on(Set::Large)
        .after(|ground| read_all(ground).map(drop)),
        new(
            "seq-read-upper",
            format!("{written} of the upper read in sequence"),
            read_written,
        )
        .after(|ground| prepare_written(ground).and_then(|()| read_written(ground).map(drop))),
        new(
            "seq-write",
            format!("{large} written in sequence"),
            write_all,
        )
        .after(create::make_room),
        new(
            "rand-read",
            format!("{ops} random reads of 4 KiB, warm"),
            random_reads,
        )
        .on(Set::Large)
        .after(|ground| read_all(ground).map(drop)),
        new(
            "rand-write",
            format!("{ops} random writes of 4 KiB"),
            random_writes,
        )
        .after(prepare_written),
        new(
            "mmap-read",
            format!("{large} read through mmap, warm"),
            read_mapped,
        )
        .on(Set::Large)
        .after(|ground| read_all(ground).map(drop)),
        new(
            "mmap-write",
            format!("{ops} random bytes written through mmap, and msync"),
            write_mapped,
        )
        .after(prepare_written),
        new(
            "fsync",
            format!("4 KiB write + fsync, {}", grouped(syncs(sizes))),
            write_and_sync,
        )
        .after(prepare_written),
    ]
}

fn read_all(ground: &Ground) -> io::Result<Work> {
    read_whole(&path(), ground.sizes.large_bytes())
}

fn read_written(ground: &Ground) -> io::Result<Work> {
    read_whole(WRITTEN, written_bytes(&ground.sizes))
}

fn read_whole(path: &str, expected: usize) -> io::Result<Work> {
    let mut buffer = vec![0; CHUNK];
    let work = Work::timed(1, || {
        let mut file = File::open(path)?;
        let mut total = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => total += n,
            }
        }
        if total == expected {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{total} bytes read instead of {expected}"
        )))
    })?;
    Ok(work.of_bytes(expected))
}

fn write_sized(name: &str, size: usize) -> io::Result<()> {
    let chunk = vec![7; CHUNK];
    let mut file = File::create(name)?;
    let mut left = size;
    while left > 0 {
        let some = chunk.get(..left.min(CHUNK)).unwrap_or_default();
        file.write_all(some)?;
        left -= some.len();
    }
    Ok(())
}

fn write_all(ground: &Ground) -> io::Result<Work> {
    let size = ground.sizes.large_bytes();
    let work = Work::timed(1, || write_sized(WRITTEN, size))?;
    Ok(work.of_bytes(size))
}

fn prepare_written(ground: &Ground) -> io::Result<()> {
    create::make_room(ground)?;
    write_sized(WRITTEN, written_bytes(&ground.sizes))?;
    File::open(WRITTEN)?.sync_all()
}

/// So many places of 4 KiB in a file of `size` bytes.
fn places(count: usize, size: usize) -> Vec<u64> {
    let mut random = Random::new(3);
    let blocks = (size / SMALL).max(1) as u64;
    (0..count)
        .map(|_| (random.next() >> 11) % blocks * SMALL as u64)
        .collect()
}

fn random_reads(ground: &Ground) -> io::Result<Work> {
    let places = places(random_ops(&ground.sizes), ground.sizes.large_bytes());
    let mut buffer = [0; SMALL];
    let file = File::open(path())?;
    Work::timed(places.len(), || {
        places
            .iter()
            .try_for_each(|at| file.read_exact_at(&mut buffer, *at))
    })
    .map(|work| work.of_bytes(places.len() * SMALL))
}

fn random_writes(ground: &Ground) -> io::Result<Work> {
    let places = places(random_ops(&ground.sizes), written_bytes(&ground.sizes));
    let content = [8; SMALL];
    let file = OpenOptions::new().write(true).open(WRITTEN)?;
    Work::timed(places.len(), || {
        places
            .iter()
            .try_for_each(|at| file.write_all_at(&content, *at))
    })
    .map(|work| work.of_bytes(places.len() * SMALL))
}

fn read_mapped(ground: &Ground) -> io::Result<Work> {
    let size = ground.sizes.large_bytes();
    let file = File::open(path())?;
    let work = Work::timed(1, || {
        let mapping = Mapping::new(&file, size, false)?;
        let sum = (0..size)
            .step_by(SMALL)
            .fold(0u64, |sum, at| sum + u64::from(mapping.read(at)));
        std::hint::black_box(sum);
        Ok(())
    })?;
    Ok(work.of_bytes(size))
}

fn write_mapped(ground: &Ground) -> io::Result<Work> {
    let size = written_bytes(&ground.sizes);
    let places = places(random_ops(&ground.sizes), size);
    let file = OpenOptions::new().read(true).write(true).open(WRITTEN)?;
    Work::timed(places.len(), || {
        let mapping = Mapping::new(&file, size, true)?;
        for at in &places {
            mapping.write(usize::try_from(*at).unwrap_or_default(), 8);
        }
        Ok(mapping.sync()?)
    })
}

fn write_and_sync(ground: &Ground) -> io::Result<Work> {
    let places = places(syncs(&ground.sizes), written_bytes(&ground.sizes));
    let content = [9; SMALL];
    let file = OpenOptions::new().write(true).open(WRITTEN)?;
    Work::timed(places.len(), || {
        places.iter().try_for_each(|at| {
            file.write_all_at(&content, *at)?;
            file.sync_all()
        })
    })
}
