//! What btrfs by itself does to names in a power cut, without any union: the reason for
//! `src/layer/log_tree.rs`, and for the order of changes that the power-cut test does not ask for there.
//!
//! A directory that was synced is logged with its names. What is moved from there or to there
//! afterwards is taken out of the log, but what came in its place is not put into it until the
//! directory is synced again, or the filesystem commits (`btrfs_log_new_name` in
//! fs/btrfs/tree-log.c).

use std::path::Path;

use crate::disk::LoopDevice;
use crate::recording::Mounted;
use crate::support::backing::{Backing, Kind};
use crate::support::{skip, sys};

fn at(base: &Path, below: &str) -> Vec<u8> {
    let path = base.join(below);
    path.as_os_str().as_encoded_bytes().to_vec()
}

fn sync(base: &Path, below: &str) {
    let open = sys::open(at(base, below), libc::O_RDONLY, 0);
    open.and_then(|fd| sys::fsync(&fd)).expect("fsync");
}

/// The types of `names` after a power cut, of which the last thing before was an fsync of a file
/// that has nothing to do with what `act` does; `None` where there is no btrfs.
fn after_a_cut(act: impl Fn(&Path), names: &[&str]) -> Option<Vec<Option<u32>>> {
    if !sys::is_root() || !skip::has_filesystem("btrfs") || !skip::has_tool("mkfs.btrfs") {
        skip::skipped("needs root and btrfs");
        return None;
    }
    let backing = Backing::sized(Kind::Tmpfs, 1 << 30)?;
    let (image, cut) = (backing.path().join("image"), backing.path().join("cut"));
    let m = backing.dir("mnt");
    std::fs::File::create(&image)
        .and_then(|f| f.set_len(128 << 20))
        .expect("an image can be made");
    let made = std::process::Command::new("mkfs.btrfs")
        .args(["-q", "-K"])
        .arg(&image)
        .output()
        .expect("mkfs can be run");
    assert!(made.status.success(), "{made:?}");
    let device = LoopDevice::new(&image, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(Kind::Btrfs, device.path(), &m).unwrap_or_else(|e| panic!("{e}"));
    for dir in ["from", "from/d", "to", "work"] {
        sys::mkdir(at(&m, dir), 0o755).expect("mkdir");
    }
    sys::mknod(at(&m, "to/white"), libc::S_IFCHR, 0).expect("mknod");
    std::fs::write(m.join("tick"), "1").expect("a file can be written");
    let all = sys::open(at(&m, ""), libc::O_RDONLY, 0);
    all.and_then(|fd| sys::syncfs(&fd)).expect("syncfs");
    act(&m);
    std::fs::write(m.join("tick"), "2").expect("a file can be written");
    sync(&m, "tick");
    std::fs::copy(&image, &cut).expect("an image can be copied");
    drop(mounted);
    drop(device);
    let device = LoopDevice::new(&cut, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(Kind::Btrfs, device.path(), &m).unwrap_or_else(|e| panic!("{e}"));
    let kind = |name: &&str| {
        let stat = sys::lstat(at(&m, name)).ok()?;
        Some(stat.mode & libc::S_IFMT)
    };
    let found = names.iter().map(kind).collect();
    drop(mounted);
    drop(device);
    Some(found)
}

fn touch(m: &Path, below: &str) {
    std::fs::write(m.join(below), "").expect("a file can be made");
}

#[test]
fn btrfs_keeps_a_renamed_directory_and_may_lose_its_whiteout() {
    let act = |m: &Path| {
        touch(m, "from/new");
        sync(m, "from");
        let flags = libc::RENAME_WHITEOUT;
        sys::rename(at(m, "from/d"), at(m, "to/d"), flags).expect("rename");
    };
    let Some(found) = after_a_cut(act, &["from/d", "to/d"]) else {
        return;
    };
    println!("renamed with RENAME_WHITEOUT: [old, new] is {found:x?}");
    assert_eq!(found[1], Some(libc::S_IFDIR), "the directory is not lost");
    assert_ne!(found[0], Some(libc::S_IFDIR), "nor there twice");
}

#[test]
fn btrfs_may_lose_a_new_directory_and_the_whiteout_that_it_replaced() {
    let act = |m: &Path| {
        touch(m, "to/new");
        sync(m, "to");
        sys::mkdir(at(m, "work/d"), 0o755).expect("mkdir");
        let flags = libc::RENAME_EXCHANGE;
        sys::rename(at(m, "work/d"), at(m, "to/white"), flags).expect("rename");
    };
    let Some(found) = after_a_cut(act, &["to/white", "work/d"]) else {
        return;
    };
    println!("exchanged with RENAME_EXCHANGE: [whiteout's name, other] is {found:x?}");
    // A kernel that keeps them both has mended it.
    assert_ne!(found[0], Some(libc::S_IFREG));
    assert_ne!(
        found[1],
        Some(libc::S_IFDIR),
        "it is not back where it was made"
    );
}

#[test]
fn btrfs_may_lose_a_synced_file_and_the_whiteout_that_replaced_it() {
    let act = |m: &Path| {
        touch(m, "from/file");
        sync(m, "from/file");
        sys::mknod(at(m, "work/w"), libc::S_IFCHR, 0).expect("mknod");
        sys::rename(at(m, "work/w"), at(m, "from/file"), 0).expect("rename");
    };
    let Some(found) = after_a_cut(act, &["from/file", "work/w"]) else {
        return;
    };
    println!("a whiteout over a file: [its name, other] is {found:x?}");
    assert_ne!(found[0], Some(libc::S_IFDIR));
    assert_eq!(found[1], None, "it is not back where it was made");
}

#[test]
fn btrfs_may_bring_a_synced_file_without_what_was_done_before() {
    let act = |m: &Path| {
        touch(m, "from/first");
        touch(m, "to/second");
        sync(m, "to/second");
    };
    let Some(found) = after_a_cut(act, &["from/first", "to/second"]) else {
        return;
    };
    println!("made, made and synced: [first, second] is {found:x?}");
    assert_eq!(found[1], Some(libc::S_IFREG), "what was synced is there");
}

#[test]
fn btrfs_may_bring_a_synced_file_back_where_its_directory_was() {
    let act = |m: &Path| {
        sys::rename(at(m, "from/d"), at(m, "to/d"), 0).expect("rename");
        touch(m, "to/d/file");
        sync(m, "to/d/file");
    };
    let Some(found) = after_a_cut(act, &["from/d/file", "to/d/file"]) else {
        return;
    };
    println!("synced in a moved directory: [old place, new place] is {found:x?}");
    let places = found.iter().filter(|kind| **kind == Some(libc::S_IFREG));
    assert_eq!(places.count(), 1, "it is in one of the two");
}
