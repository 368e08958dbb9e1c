//! Making new files and directories.

use super::{Ground, Group, Work, Workload, grouped};
use crate::bench::data::{SMALL, Sizes};
use std::fs;
use std::io;

/// Where new files go.
pub(super) const NEW: &str = "new";

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let some = grouped(sizes.some_files());
    vec![
        Workload::new(
            Group::Making,
            "create",
            format!("create+write 4 KiB+close, {some} files"),
            create,
        )
        .after(make_room),
        Workload::new(
            Group::Making,
            "mkdir",
            format!("mkdir, {some} directories"),
            make_dirs,
        )
        .after(make_room),
        Workload::new(
            Group::Making,
            "remove-new",
            format!("unlink of {some} new files"),
            remove_new,
        )
        .after(|ground| {
            make_room(ground)?;
            create(ground).map(drop)
        }),
    ]
}

pub(super) fn make_room(_: &Ground) -> io::Result<()> {
    fs::create_dir_all(NEW)
}

fn names(ground: &Ground) -> Vec<String> {
    (0..ground.sizes.some_files())
        .map(|i| format!("{NEW}/n{i}"))
        .collect()
}

fn create(ground: &Ground) -> io::Result<Work> {
    let (names, content) = (names(ground), [7; SMALL]);
    Work::timed(names.len(), || {
        names.iter().try_for_each(|name| fs::write(name, content))
    })
    .map(|work| work.of_bytes(names.len() * SMALL))
}

fn make_dirs(ground: &Ground) -> io::Result<Work> {
    let names = names(ground);
    Work::timed(names.len(), || names.iter().try_for_each(fs::create_dir))
}

fn remove_new(ground: &Ground) -> io::Result<Work> {
    let names = names(ground);
    Work::timed(names.len(), || names.iter().try_for_each(fs::remove_file))
}
