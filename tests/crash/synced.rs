//! What one sync makes durable, and what it must not tear: the disk as it is right after.

use std::path::Path;
use std::process::Command;

use crate::disk::LoopDevice;
use crate::inside::Files;
use crate::recording::{Mounted, Site, make_base};
use crate::support::backing::{Backing, Kind};
use crate::support::{skip, sys};

/// What is done before the filesystem commits, what after that, the file that is looked at, and what
/// is done to it once the power is back.
type Case = (
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    &'static str,
);

const FDATASYNC: &[Case] = &[
    // A write where the copy has its data already: nothing but the name is new.
    (
        &[],
        &["write d/f 0", "fdatasync d/f"],
        "d/f",
        "write d/f 9000",
    ),
    (
        &[],
        &["write big 300000", "fdatasync big"],
        "big",
        "chmod big",
    ),
    // The data comes to a file that was copied up without.
    (
        &["chmod d/f"],
        &["write d/f 0", "fdatasync d/f"],
        "d/f",
        "chmod d/f",
    ),
    (
        &["chmod d/g"],
        &["write d/h 0", "fdatasync d/h"],
        "d/h",
        "write d/g 2",
    ),
    // As long as the name is new to the disk.
    (
        &["write d/f 0"],
        &["write d/f 5000", "fdatasync d/f"],
        "d/f",
        "chmod d/f",
    ),
];

/// The directory brings its new names to the disk, on btrfs without what they are names of.
const DIRECTORY: &[Case] = &[
    (
        &["create d/n"],
        &["chmod d/f", "fsync d"],
        "d/f",
        "chown d/f",
    ),
    (
        &["create d/n"],
        &["chmod d/f", "fsync d"],
        "d/f",
        "write d/f 4000",
    ),
    (
        &["create d/n"],
        &["chmod d/f", "fsync d"],
        "d/f",
        "truncate d/f 12000",
    ),
    (
        &["create n"],
        &["chmod big", "fsync "],
        "big",
        "rename big moved",
    ),
    // Another name for a file of several brings its data up, unchanged.
    (
        &["create d/n"],
        &["chmod d/g", "link d/g d/more", "fsync d"],
        "d/g",
        "write d/g 3",
    ),
];

fn try_case(kind: Kind, tune: &[&str], backing: &Backing, case: &Case) {
    let (before, act, path, then) = case;
    let dir = backing.dir("case");
    let site = Site::of_plyfs(backing);
    let Some(base) = make_base(kind, &dir, &site) else {
        return;
    };
    let (image, cut) = (dir.join("image"), dir.join("cut"));
    base.save(&image);
    if !tune.is_empty() {
        let tuned = Command::new("tune2fs").args(tune).arg(&image).output();
        let tuned = tuned.expect("tune2fs can be run");
        assert!(tuned.status.success(), "{tuned:?}");
    }
    let device = LoopDevice::new(&image, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, device.path(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let union = site.open().unwrap_or_else(|e| panic!("{e}"));
    let perform = |lines: &[&str]| {
        for line in lines {
            union.perform(line).unwrap_or_else(|e| panic!("{e}"));
        }
    };
    perform(before);
    commit(&site.mount);
    perform(act);
    let wanted = union.files().unwrap_or_else(|e| panic!("{e}"));
    std::fs::copy(&image, &cut).expect("an image can be copied");
    perform(&[then]);
    let after = union.files().unwrap_or_else(|e| panic!("{e}"));
    drop(union);
    drop(mounted);
    drop(device);
    let device = LoopDevice::new(&cut, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, device.path(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let union = site.open().unwrap_or_else(|e| panic!("{e}"));
    let seen = union.files().unwrap_or_else(|e| panic!("{e}"));
    let name = format!("/{path}");
    let of = |files: &Files, name: &str| files[name].data.clone().expect("a regular file");
    let told = |what: &str, seen: &[u8], wanted: &[u8]| {
        let differ = seen.iter().zip(wanted).position(|(a, b)| a != b);
        assert!(
            seen == wanted,
            "{}, {before:?} {act:?}: {path} {what} has {} bytes of {}, other ones from {differ:?}",
            kind.name(),
            seen.len(),
            wanted.len()
        );
    };
    told("", &of(&seen, &name), &of(&wanted, &name));
    // It is as good as any other.
    union.perform(then).unwrap_or_else(|e| panic!("{e}"));
    let seen = union.files().unwrap_or_else(|e| panic!("{e}"));
    let name = then
        .strip_prefix("rename big ")
        .map_or(name, |to| format!("/{to}"));
    told(then, &of(&seen, &name), &of(&after, &name));
    drop(union);
    drop(mounted);
    drop(device);
}

fn commit(mount: &Path) {
    let dir = sys::open(mount.as_os_str().as_encoded_bytes(), libc::O_RDONLY, 0);
    dir.and_then(|dir| sys::syncfs(&dir))
        .expect("a filesystem can be synced");
}

fn run_on(kind: Kind, tune: &[&str], cases: &[Case]) {
    let tool = format!("mkfs.{}", kind.name());
    if !sys::is_root() || !skip::has_filesystem(kind.name()) || !skip::has_tool(&tool) {
        skip::skipped("needs root and the filesystem");
        return;
    }
    let Some(backing) = Backing::sized(Kind::Tmpfs, 2 << 30) else {
        return;
    };
    for case in cases {
        try_case(kind, tune, &backing, case);
    }
}

#[test]
fn fdatasync_of_a_copied_up_file_syncs_its_name_on_ext4() {
    run_on(Kind::Ext4, &[], FDATASYNC);
}

#[test]
fn fdatasync_of_a_copied_up_file_syncs_its_name_on_xfs() {
    run_on(Kind::Xfs, &[], FDATASYNC);
}

#[test]
fn fdatasync_of_a_copied_up_file_syncs_its_name_on_btrfs() {
    run_on(Kind::Btrfs, &[], FDATASYNC);
}

/// Where the journal does not keep the order, each copy is synced before it gets its name, and then
/// fdatasync by itself has nothing to do.
#[test]
fn fdatasync_of_a_copy_that_was_synced_syncs_its_name() {
    let options = [
        "-o",
        "journal_data_writeback",
        "-E",
        "mount_opts=journal_async_commit",
    ];
    run_on(Kind::Ext4, &options, FDATASYNC);
}

#[test]
fn a_synced_directory_shows_no_torn_copy_on_ext4() {
    run_on(Kind::Ext4, &[], DIRECTORY);
}

#[test]
fn a_synced_directory_shows_no_torn_copy_on_xfs() {
    run_on(Kind::Xfs, &[], DIRECTORY);
}

#[test]
fn a_synced_directory_shows_no_torn_copy_on_btrfs() {
    run_on(Kind::Btrfs, &[], DIRECTORY);
}
