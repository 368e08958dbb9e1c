//! Many layers, layers on other filesystems, unions of unions, unions that cannot be written.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::backing::{Backing, Kind};
use super::support::lab::{Lab, at, build, outline, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{Stack, Subject};
use super::support::{skip, sys, tree};

#[test]
fn five_hundred_layers_are_one_tree() {
    let Some(lab) = Lab::new() else { return };
    let lowers: Vec<PathBuf> = (0..500)
        .map(|i| {
            let (own, over) = (format!("file own{i}"), format!("file shared/in{i}"));
            let size = format!("file same {}", i + 1);
            let mut lines = vec!["dir shared", &own, &over, &size];
            // Every tenth layer deletes what the next one below brings.
            let (gone, deleted) = (
                format!("whiteout own{}", i + 1),
                format!("whiteout shared/in{}", i + 1),
            );
            if i % 10 == 0 {
                lines.extend([gone.as_str(), deleted.as_str()]);
            }
            let name = format!("l{i}");
            lab.layer(&name, MarkFormat::Overlay, &lines)
        })
        .collect();
    let mounted = lab.mount("many", &lowers);
    let m = mounted.path();
    let count = |dir: &str| sys::list(at(m, dir)).expect("it can be listed").len();
    assert_eq!(count("."), 450 + 2);
    assert_eq!(count("shared"), 450);
    assert_eq!(
        sys::lstat(at(m, "same")).map(|s| s.size),
        Ok(1),
        "the topmost wins"
    );
    assert_eq!(sys::lstat(at(m, "own1")).err(), Some(libc::ENOENT));
    assert_eq!(sys::lstat(at(m, "own499")).map(|s| s.size), Ok(10));
    shell(
        m,
        "echo x >> own499; rm own2; rm -r shared; mkdir shared; ls shared | wc -l | grep -qx 0",
    );
    mounted.unmount().expect("it unmounts");
    let stack = lab.stack("many", &lowers);
    let again = lab.mount_stack("many", &stack);
    assert_eq!(
        shell(
            again.path(),
            "ls shared; wc -c < own499; ls own2 2>/dev/null || echo gone"
        ),
        "12\ngone\n"
    );
}

#[test]
fn a_read_only_union_refuses_every_change() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d", "file d/f", "file f", "symlink s f"],
    );
    let before = tree::read(&l);
    for lowers in [vec![l.clone()], vec![lab.dir("empty"), l.clone()]] {
        let mounted = lab
            .try_mount("ro", &Stack::new(&lowers), Subject::Plyfs)
            .expect("a union without an upper mounts");
        let m = mounted.path();
        assert_eq!(outline(m), outline(&l));
        let erofs = Err(libc::EROFS);
        let f = at(m, "f");
        assert_eq!(sys::open(&f, libc::O_WRONLY, 0).map(drop), erofs);
        assert_eq!(
            sys::open(at(m, "new"), libc::O_CREAT | libc::O_WRONLY, 0o644).map(drop),
            erofs
        );
        assert_eq!(sys::truncate(&f, 0), erofs);
        assert_eq!(sys::mkdir(at(m, "new"), 0o755), erofs);
        assert_eq!(sys::unlink(&f), erofs);
        assert_eq!(sys::rmdir(at(m, "d")), erofs);
        assert_eq!(sys::rename(&f, at(m, "g"), 0), erofs);
        assert_eq!(sys::link(&f, at(m, "g")), erofs);
        assert_eq!(sys::symlink("x", at(m, "g")), erofs);
        assert_eq!(sys::chmod(&f, 0o600), erofs);
        assert_eq!(sys::lchown(&f, 1, 1), erofs);
        assert_eq!(sys::utimens(&f, [sys::NOW, sys::NOW]), erofs);
        assert_eq!(sys::lsetxattr(&f, "user.x", b"1", 0), erofs);
        assert_eq!(sys::access(&f, libc::W_OK), erofs);
        mounted.unmount().expect("it unmounts");
    }
    let changes = tree::differences(("before", &before), ("after", &tree::read(&l)));
    assert!(changes.is_empty(), "{changes:#?}");
}

/// A script that touches every kind of file in every way, and what it must leave.
const WORK: &str = "echo more >> f; rm d/gone; mv d/a d/b; ln f hard; chmod 600 d/b; mkdir d/new; \
                    echo n > d/new/n; rm -r whole; mkdir whole; mv g h; truncate -s 3 sized";
const LINES: &[&str] = &[
    "dir d",
    "file d/a 5000",
    "file d/gone",
    "file f",
    "file g 70000",
    "dir whole",
    "file whole/x",
    "file sized 100",
    "symlink s f",
    "fifo p",
];

fn works_on(lab: &Lab, name: &str, lowers: &[PathBuf], plain: &Path) {
    build(plain, MarkFormat::Overlay, LINES);
    let before: Vec<_> = lowers.iter().map(|l| tree::read(l)).collect();
    let mounted = lab.mount(name, lowers);
    assert_eq!(
        outline(mounted.path()),
        outline(plain),
        "{name}: the first view"
    );
    shell(mounted.path(), WORK);
    shell(plain, WORK);
    assert_eq!(outline(mounted.path()), outline(plain), "{name}: live");
    mounted.unmount().expect("it unmounts");
    let again = lab.mount(name, lowers);
    assert_eq!(
        outline(again.path()),
        outline(plain),
        "{name}: after a remount"
    );
    again.unmount().expect("it unmounts");
    for (lower, before) in lowers.iter().zip(&before) {
        let changes = tree::differences(("before", before), ("after", &tree::read(lower)));
        assert!(changes.is_empty(), "{name}: a lower changed: {changes:#?}");
    }
}

#[test]
fn lowers_may_lie_on_other_filesystems() {
    let Some(lab) = Lab::new() else { return };
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Tmpfs] {
        let Some(backing) = Backing::sized(kind, 1 << 30) else {
            continue;
        };
        let (top, bottom) = (backing.dir("top"), backing.dir("bottom"));
        build(&bottom, MarkFormat::Overlay, LINES);
        build(&top, MarkFormat::Overlay, &["dir d"]);
        let local = lab.layer(
            &format!("local-{}", kind.name()),
            MarkFormat::Overlay,
            &["dir d"],
        );
        works_on(
            &lab,
            &format!("on-{}", kind.name()),
            &[top, local, bottom],
            &lab.path(&format!("p-{}", kind.name())),
        );
    }
}

#[test]
fn uppers_may_lie_on_other_filesystems() {
    for kind in [Kind::Xfs, Kind::Btrfs, Kind::Tmpfs] {
        let (Some(lab), Some(here)) = (Lab::on(kind), Lab::new()) else {
            continue;
        };
        let lower = here.layer("l", MarkFormat::Overlay, LINES);
        works_on(&lab, "upper", &[lower], &here.path("plain"));
    }
}

#[test]
fn a_squashfs_may_be_a_lower() {
    let Some(lab) = Lab::new() else { return };
    if !skip::has_filesystem("squashfs") || !skip::has_tool("mksquashfs") {
        return;
    }
    let tree = lab.layer("tree", MarkFormat::Overlay, LINES);
    let (image, at) = (lab.path("image"), lab.dir("squash"));
    let packed = Command::new("mksquashfs")
        .arg(&tree)
        .arg(&image)
        .args(["-quiet", "-no-progress"])
        .output();
    assert!(packed.is_ok_and(|o| o.status.success()), "mksquashfs works");
    let mounted = Command::new("mount")
        .args(["-o", "loop,ro"])
        .arg(&image)
        .arg(&at)
        .status();
    assert!(
        mounted.is_ok_and(|s| s.success()),
        "the image can be mounted"
    );
    works_on(&lab, "squashfs", &[at], &lab.path("plain"));
}

#[test]
fn a_union_may_be_a_layer_of_a_union() {
    let Some(lab) = Lab::new() else { return };
    let (a, b) = (
        lab.layer("a", MarkFormat::Overlay, &["dir d", "whiteout extra"]),
        lab.path("b"),
    );
    let mut lines = LINES.to_vec();
    lines.push("file extra");
    build(&b, MarkFormat::Overlay, &lines);
    let inner = lab.mount("inner", &[a.clone(), b.clone()]);
    works_on(
        &lab,
        "on-plyfs",
        &[inner.path().to_owned()],
        &lab.path("plain1"),
    );
    let kernel = lab.mount_kernel("kernel", &lab.stack("kernel", &[a, b]));
    works_on(
        &lab,
        "on-overlayfs",
        &[kernel.path().to_owned()],
        &lab.path("plain2"),
    );
}

/// No mark can be written inside another plyfs mount, where marks are escaped or refused.
#[test]
fn an_upper_that_takes_no_marks_is_refused_with_its_name() {
    let Some(lab) = Lab::new() else { return };
    let base = lab.layer("base", MarkFormat::Overlay, &["dir home"]);
    let outer = lab.mount("outer", &[base]);
    let lower = lab.layer("l", MarkFormat::Overlay, LINES);
    let (upper, work) = (outer.path().join("home/u"), outer.path().join("home/w"));
    let stack = Stack::new(&[lower]).upper(&upper, &work);
    let refused = lab
        .try_mount("inner", &stack, Subject::Plyfs)
        .expect_err("it cannot work");
    assert!(
        refused.contains("home/") && refused.contains("marks"),
        "{refused}"
    );
    assert_eq!(refused.lines().count(), 1, "{refused}");
}

#[test]
fn one_layer_alone_and_an_empty_one_are_unions_too() {
    let Some(lab) = Lab::new() else { return };
    let empty = lab.dir("empty");
    let mounted = lab.mount("alone", &[empty]);
    shell(
        mounted.path(),
        "mkdir d; echo x > d/f; ln d/f g; rm d/f; mv d e; cat g",
    );
    let upper = lab.upper("alone");
    assert_eq!(
        outline(mounted.path()),
        outline(&upper),
        "a pure upper needs no mark"
    );
}
