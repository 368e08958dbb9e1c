//! A full disk: the caller hears of it, and nothing else happened.

use super::support::backing::{Backing, Kind};
use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{PLYFS_WORDS, Stack, copies_at_open};
use super::support::{sys, tree};
use std::os::fd::OwnedFd;

#[test]
fn a_copy_up_that_does_not_fit_leaves_no_trace() {
    let Some(lab) = Lab::new() else { return };
    let Some(small) = Backing::sized(Kind::Ext4, 16 << 20) else {
        return;
    };
    let big = (40u64 << 20).to_string();
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "dir d",
            &format!("file d/big {big}"),
            "file d/small",
            "file h1",
            &format!("file h2 {big}"),
            "link h3 h2",
        ],
    );
    let stack = Stack::new(std::slice::from_ref(&l))
        .upper(&small.path().join("u"), &small.path().join("w"))
        .words(&format!("{PLYFS_WORDS},partial=off"));
    let mounted = lab.mount_stack("full", &stack);
    let m = mounted.path();
    let view = tree::read(m);
    let same = |when: &str| {
        let mut lines = tree::differences(("before", &view), ("after", &tree::read(m)));
        // A parent that was copied up is the same directory to everyone.
        lines.retain(|l| !l.contains("atime"));
        assert!(lines.is_empty(), "{when}: {lines:#?}");
    };
    let big = at(m, "d/big");
    let fd = open_and_fail_to_write(&big);
    same("after a write");
    // A change of mode needs no room for the data; a link of an indexed file does, since
    // it cannot note where the data is.
    sys::chmod(at(m, "h2"), 0o600).expect("chmod");
    sys::chmod(at(m, "h2"), 0o644).expect("chmod");
    assert_eq!(sys::link(at(m, "h3"), at(m, "h4")), Err(libc::ENOSPC));
    drop(open_and_fail_to_write(&at(m, "h3")));
    same("after chmod, link and a write to what has its metadata in the upper");
    assert_eq!(sys::truncate(&big, 1 << 20), Ok(()), "cut short, it fits");
    assert_eq!(sys::lstat(&big).map(|s| s.size), Ok(1 << 20));
    drop(fd);
    // The room is back: nothing was left lying in work.
    shell(
        m,
        "echo more >> d/small; head -c 6000000 /dev/zero > new; rm new d/big",
    );
    mounted.unmount().expect("it unmounts");
    let files: Vec<_> = tree::read(&small.path().join("w"))
        .into_iter()
        .filter(|(path, node)| node.stat.is_file() && !path.windows(5).any(|w| w == b"index"))
        .collect();
    assert!(
        files.iter().all(|(_, n)| n.stat.size < 4096),
        "big temporaries are left: {files:?}"
    );
}

/// Opening copies nothing, and a write has no room; where opening copies, it has none.
fn open_and_fail_to_write(path: &[u8]) -> Option<OwnedFd> {
    let opened = sys::open(path, libc::O_RDWR, 0);
    if copies_at_open() {
        assert_eq!(opened.err(), Some(libc::ENOSPC));
        return None;
    }
    let fd = opened.expect("opening copies nothing");
    assert_eq!(sys::pwrite(&fd, b"x", 100), Err(libc::ENOSPC));
    Some(fd)
}

#[test]
fn a_full_upper_can_be_emptied() {
    let Some(lab) = Lab::new() else { return };
    let Some(small) = Backing::sized(Kind::Ext4, 8 << 20) else {
        return;
    };
    let l = lab.layer("l", MarkFormat::Overlay, &["dir d", "file d/f"]);
    let stack = Stack::new(&[l]).upper(&small.path().join("u"), &small.path().join("w"));
    let mounted = lab.mount_stack("fill", &stack);
    let m = mounted.path();
    let out = shell(
        m,
        "head -c 20000000 /dev/zero > fill 2>&1 || echo full; test -s fill && echo some",
    );
    assert!(out.contains("full") && out.contains("some"), "{out}");
    shell(m, "rm fill; echo x > new; rm -r d; mkdir d");
    assert_eq!(shell(m, "ls -A; ls -A d; cat new"), "d\nnew\nx\n");
}

#[test]
fn room_that_was_made_can_be_used_at_once() {
    let Some(lab) = Lab::new() else { return };
    let Some(small) = Backing::sized(Kind::Ext4, 8 << 20) else {
        return;
    };
    let l = lab.layer("l", MarkFormat::Overlay, &["file f"]);
    let stack = Stack::new(&[l]).upper(&small.path().join("u"), &small.path().join("w"));
    let mounted = lab.mount_stack("reuse", &stack);
    let made = "head -c 20000000 /dev/zero > fill 2>/dev/null || rm fill; mkdir d && echo x > new \
                && ln -s x link && echo more >> new && rm -r d new link && echo made";
    for _ in 0..20 {
        assert_eq!(shell(mounted.path(), made), "made\n");
    }
}
