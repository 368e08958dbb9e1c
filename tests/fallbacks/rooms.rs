//! Uppers on real filesystems that overlayfs refuses or that lack much.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::scenario::Day;
use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{Mounted, Stack, Subject, run};
use super::support::{skip, sys};

/// A filesystem that is mounted for one test.
struct Room(PathBuf);

impl Room {
    /// What `command`, a line for the shell in `lab`'s directory, mounts at `room` there. `None`,
    /// with the reason printed, where the machine has not got it.
    fn new(lab: &Lab, command: &str) -> Option<Room> {
        let at = lab.dir("room");
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", command]).current_dir(at.parent()?);
        let out = run(&mut shell, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"));
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            skip::skipped(&format!("`{command}`: {}", said.trim()));
            return None;
        }
        Some(Room(at))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let at = self.0.as_os_str().as_encoded_bytes();
        if sys::umount(at, 0).is_err() {
            let gone = sys::umount(at, libc::MNT_DETACH);
            eprintln!("{}: busy, detached: {gone:?}", self.0.display());
        }
    }
}

#[test]
fn ramfs_which_has_no_xattrs() {
    let Some(lab) = Lab::new() else { return };
    let Some(room) = Room::new(&lab, "mount -t ramfs ramfs room") else {
        return;
    };
    Day::new(&lab, room.path()).passes();
}

#[test]
fn what_xattrs_say_is_lost_or_the_copy_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let Some(room) = Room::new(&lab, "mount -t ramfs ramfs room") else {
        return;
    };
    let lower = lab.layer(
        "lower",
        MarkFormat::Overlay,
        &["file a", "file b", "file c"],
    );
    // What libcap calls cap_net_raw+ep.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (file, name, value) in [
        ("a", "user.color", &b"red"[..]),
        ("b", "security.selinux", b"u:r:t:s0"),
        ("c", "security.capability", &capability),
    ] {
        let set = sys::lsetxattr(at(&lower, file), name, value, 0);
        assert_eq!(set, Ok(()), "{name}");
    }
    let upper = room.path().join("u");
    let stack = Stack::new(&[lower]).upper(&upper, &room.path().join("w"));
    let mounted = lab.mount_stack("m", &stack);
    let path = |name: &str| at(mounted.path(), name);
    assert_eq!(sys::lgetxattr(path("a"), "user.color"), Ok(b"red".to_vec()));
    shell(mounted.path(), "printf more >> a; printf more >> b");
    let gone = sys::lgetxattr(path("a"), "user.color");
    assert_eq!(gone, Err(libc::EOPNOTSUPP));
    assert_eq!(sys::truncate(path("c"), 1), Err(libc::EOPNOTSUPP));
    assert_eq!(sys::lstat(path("c")).map(|stat| stat.size), Ok(10));
    mounted.unmount().unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn ext4_without_xattrs_and_without_types_in_its_directories() {
    let Some(lab) = Lab::new() else { return };
    let command = "truncate -s 64M image
        mkfs.ext4 -q -O ^ext_attr,^filetype,^dir_index,^has_journal image
        mount -o loop image room";
    let Some(room) = Room::new(&lab, command) else {
        return;
    };
    Day::new(&lab, room.path()).passes();
}

#[test]
fn exfat_which_has_neither_links_nor_nodes_nor_owners() {
    let Some(lab) = Lab::new() else { return };
    if !skip::has_tool("mount.exfat-fuse") || !skip::has_tool("mkfs.exfat") {
        return;
    }
    let command = "truncate -s 64M image
        mkfs.exfat image
        device=$(losetup --find --show image)
        mount.exfat-fuse $device room; losetup --detach $device";
    let Some(room) = Room::new(&lab, command) else {
        return;
    };
    // Its times are even seconds, and all modes are the same.
    let day = Day::new(&lab, room.path()).without_links().without_nodes();
    day.without_modes().forgiving(&["mode", "mtime"]).passes();
}

/// A union whose upper is for the other one's upper: by `subject`, with these words.
fn union_of(lab: &Lab, subject: Subject, words: &str) -> Option<Mounted> {
    if subject == Subject::FuseOverlayfs && !skip::has_tool("fuse-overlayfs") {
        return None;
    }
    let stack = Stack::new(&[lab.dir("below")]).upper(&lab.dir("below-u"), &lab.dir("below-w"));
    let room = lab.try_mount("room", &stack.words(words), subject);
    Some(room.unwrap_or_else(|e| panic!("{e}")))
}

/// Devices 0:0 cannot be made there.
#[test]
fn another_union() {
    for (subject, words) in [
        (Subject::Plyfs, "allow_other,suid,dev,marks=overlay"),
        (Subject::Kernel, ""),
    ] {
        let Some(lab) = Lab::new() else { return };
        if let Some(room) = union_of(&lab, subject, words) {
            Day::new(&lab, room.path()).passes();
            room.unmount().unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn a_union_that_takes_no_marks_is_refused() {
    for subject in [Subject::Plyfs, Subject::FuseOverlayfs] {
        let Some(lab) = Lab::new() else { return };
        let Some(room) = union_of(&lab, subject, "") else {
            continue;
        };
        let upper = room.path().join("u");
        let stack = Stack::new(&[lab.dir("lower")]).upper(&upper, &room.path().join("w"));
        let refusal = lab.try_mount("day", &stack, Subject::Plyfs).err();
        let said = refusal.expect("nothing is mounted");
        assert!(said.contains("marks cannot be written there"), "{said}");
        assert!(said.contains("/room/w"), "{said}");
        room.unmount().unwrap_or_else(|e| panic!("{e}"));
    }
}
