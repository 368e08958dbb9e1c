//! How long the first change of a lower file takes.

use super::{Ground, Group, Work, Workload, bytes, grouped};
use crate::bench::data::{CHANGED, COPY_SIZES, Changed, SMALL, Set, Sizes};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let mut all: Vec<_> = COPY_SIZES
        .into_iter()
        .map(|(name, size, count)| {
            let count = sizes.count(count, 1);
            Workload::new(
                Group::CopyUp,
                format!("copyup-{name}"),
                format!("copy-up of {}: open, write a byte, close", bytes(size)),
                move |_| change_each(name, size, count),
            )
            .changing(Set::Sizes)
        })
        .collect();
    let some = sizes.some_files();
    all.push(
        Workload::new(
            Group::CopyUp,
            "first-write",
            format!(
                "first write to {} lower files opened before",
                grouped(some.min(OPEN_MAX))
            ),
            first_write,
        )
        .changing(Set::Small),
    );
    all.extend(CHANGED.map(|changed| {
        let size = bytes(changed.bytes);
        let sparse = if changed.sparse { ", sparse" } else { "" };
        Workload::new(
            Group::CopyUp,
            format!("change-{}", changed.size),
            format!("first change of {size}{sparse}: open, write a byte, close"),
            move |_| change(changed, "file", changed.bytes),
        )
        .changing(Set::Changed(changed))
        // Whatever a mount tries out once has been.
        .after(move |_| change(changed, "first", SMALL).map(drop))
        .on_request()
    }));
    all
}

fn change(changed: Changed, name: &str, size: usize) -> io::Result<Work> {
    let path = format!("{}/{name}", Set::Changed(changed).dir());
    Work::timed(1, || {
        let file = OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(b"x", size as u64 / 2)
    })
}

/// How many files are held open at once.
const OPEN_MAX: usize = 500;

fn change_each(name: &str, size: usize, count: usize) -> io::Result<Work> {
    let names: Vec<_> = (0..count)
        .map(|i| format!("{}/{name}/f{i}", Set::Sizes.dir()))
        .collect();
    Work::timed(count, || {
        names.iter().try_for_each(|name| {
            let file = OpenOptions::new().write(true).open(name)?;
            file.write_all_at(b"x", size as u64 / 2)
        })
    })
}

fn first_write(ground: &Ground) -> io::Result<Work> {
    let names = super::read::some_files(&ground.sizes);
    let files: Vec<File> = names
        .iter()
        .take(OPEN_MAX)
        .map(|name| OpenOptions::new().read(true).write(true).open(name))
        .collect::<io::Result<_>>()?;
    let content = [7; SMALL];
    let start = Instant::now();
    for file in &files {
        file.write_all_at(&content, 0)?;
    }
    Ok(Work {
        elapsed: start.elapsed(),
        ops: files.len(),
        bytes: files.len() * SMALL,
    })
}
