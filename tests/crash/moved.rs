//! Marks that change places on btrfs, which logs what is synced apart from the rest: the disk as it
//! is right after something else was synced shows the state of one moment.

use std::path::Path;

use crate::disk::LoopDevice;
use crate::inside::{File, Files};
use crate::recording::{Mounted, Site, do_line, make_base, tick};
use crate::support::backing::{Backing, Kind};
use crate::support::bytes::digest;
use crate::support::skip;
use crate::workload::Union;

/// What is done, ending with a sync.
const MOVES: &[&[&str]] = &[
    &["write d/f 0", "rename d/f e/f", "create n", "fsync n"],
    &[
        "create n",
        "fsync n",
        "exchange m e",
        "rename m/in e/n2",
        "write n 0",
        "fsync n",
    ],
    &[
        "mkdir dd",
        "rename e/in dd/in",
        "write dd/in/x 1",
        "fsync dd/in/x",
    ],
    &[
        "write d/f 0",
        "fsync d/f",
        "unlink d/f",
        "create n",
        "fsync n",
    ],
    &[
        "create e/n",
        "fsync e",
        "unlink e/y",
        "mkdir e/y",
        "create n",
        "fsync n",
    ],
    &[
        "write e/y 0",
        "fsync e/y",
        "unlink top",
        "rename e/y top",
        "create n",
        "fsync n",
    ],
    &[
        "mkdir dd",
        "rename e/low dd/low",
        "fsync dd/low",
        "rename dd d2",
        "fsync d2/low",
    ],
    &["link d/f d/l", "fsync d/l", "rename below d/f", "fsync d/l"],
];

/// Everything that is shown, one line each.
fn told(files: &Files) -> Vec<String> {
    let line = |(path, file): (&String, &File)| {
        let data = file.data.as_ref().map(|d| digest(d));
        format!("{path} {} {data:x?}", file.what)
    };
    files.iter().map(line).collect()
}

/// Does `act` on a disk, and cuts the power; what was to be seen before and after each line, and
/// what is seen.
fn cut_after(backing: &Backing, act: &[&str]) -> Option<(Vec<Vec<String>>, Vec<String>)> {
    let dir = backing.dir("case");
    let site = Site::of_plyfs(backing);
    let base = make_base(Kind::Btrfs, &dir, &site)?;
    let (image, cut) = (dir.join("image"), dir.join("cut"));
    base.save(&image);
    let mut states = Vec::new();
    on_disk(&image, &site, |union| {
        for line in ["sync"].iter().chain(act) {
            do_line(union, &site, line).unwrap_or_else(|e| panic!("{e}"));
            states.push(told(&union.files().unwrap_or_else(|e| panic!("{e}"))));
        }
        // A file beside the union: what is in the log comes to the disk.
        tick(&site.mount.join("tick"));
        std::fs::copy(&image, &cut).expect("an image can be copied");
    });
    let mut seen = Vec::new();
    on_disk(&cut, &site, |union| {
        seen = told(&union.files().unwrap_or_else(|e| panic!("{e}")));
    });
    Some((states, seen))
}

/// Opens the union on the disk `image`.
fn on_disk(image: &Path, site: &Site, act: impl FnOnce(&dyn Union)) {
    let device = LoopDevice::new(image, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(Kind::Btrfs, device.path(), &site.mount);
    let mounted = mounted.unwrap_or_else(|e| panic!("{e}"));
    let union = site.open().unwrap_or_else(|e| panic!("{e}"));
    act(&*union);
    drop(union);
    drop(mounted);
    drop(device);
}

fn difference(seen: &[String], wanted: &[String]) -> String {
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    format!(
        "{:?} instead of {:?}",
        only(seen, wanted),
        only(wanted, seen)
    )
}

/// What is wrong after each of `MOVES`, with the sync at the end or `without`.
fn try_all(without: bool) -> Vec<String> {
    if !skip::can_mount() || !skip::has_filesystem("btrfs") || !skip::has_tool("mkfs.btrfs") {
        return Vec::new();
    }
    let Some(backing) = Backing::sized(Kind::Tmpfs, 2 << 30) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for act in MOVES {
        let act = &act[..act.len() - usize::from(without)];
        let Some((states, seen)) = cut_after(&backing, act) else {
            continue;
        };
        let last = states.last().expect("there is a state before all");
        if seen != *last && !(without && states.contains(&seen)) {
            wrong.push(format!("{act:?}: {}", difference(&seen, last)));
        }
    }
    wrong
}

#[test]
fn a_move_with_a_mark_is_done_or_not_done_when_others_sync_on_btrfs() {
    let wrong = try_all(true);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_sync_after_a_move_with_a_mark_brings_the_move_along_on_btrfs() {
    let wrong = try_all(false);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
