//! Reading directories that are long, that change, and that are read from the middle.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::support::lab::{Lab, at};
use super::support::layers::MarkFormat;
use super::support::sys::{self, Dirent};

const COUNT: usize = 3000;

/// A directory `d` of 3,000 names, every third from each of two lowers and the upper.
fn crowd(lab: &Lab) -> Vec<PathBuf> {
    let lowers = vec![lab.dir("l0"), lab.dir("l1")];
    for (i, layer) in lowers.iter().chain([&lab.dir("u-crowd")]).enumerate() {
        std::fs::create_dir(layer.join("d")).expect("d can be made");
        for n in (0..COUNT).filter(|n| n % 3 == i) {
            std::fs::write(layer.join(format!("d/file{n:04}")), "x").expect("a file of d");
        }
    }
    lowers
}

fn open(path: &[u8]) -> std::os::fd::OwnedFd {
    sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("a directory can be opened")
}

fn names(entries: &[Dirent]) -> Vec<String> {
    entries
        .iter()
        .map(|e| String::from_utf8_lossy(&e.name).into_owned())
        .collect()
}

#[test]
fn a_long_directory_is_listed_once_whatever_the_buffer() {
    let Some(lab) = Lab::new() else { return };
    let mounted = lab.mount("crowd", &crowd(&lab));
    for size in [48, 100, 1000, 4096, 1 << 20] {
        let dir = open(&at(mounted.path(), "d"));
        let mut all = Vec::new();
        loop {
            let part = sys::getdents(&dir, size).expect("it can be read");
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        let seen = names(&all);
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(
            (seen.len(), distinct.len()),
            (COUNT + 2, COUNT + 2),
            "with {size} bytes"
        );
    }
}

#[test]
fn telldir_and_seekdir_come_back_to_the_same_entry() {
    let Some(lab) = Lab::new() else { return };
    let mounted = lab.mount("crowd", &crowd(&lab));
    let dir = open(&at(mounted.path(), "d"));
    let mut all = Vec::new();
    loop {
        let part = sys::getdents(&dir, 4096).expect("it can be read");
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    for i in (0..all.len() - 1).rev().step_by(37) {
        sys::lseek(&dir, all[i].next, libc::SEEK_SET).expect("seekdir");
        let next = sys::getdents(&dir, 100).expect("it can be read");
        assert_eq!(next[0], all[i + 1], "after entry {i}");
    }
    // The same cookies on another descriptor, after the first is closed: nothing hangs on a handle.
    drop(dir);
    let other = open(&at(mounted.path(), "d"));
    sys::lseek(&other, all[1500].next, libc::SEEK_SET).expect("seekdir");
    let rest = sys::read_rest(&other).expect("it can be read");
    assert_eq!(rest.len(), COUNT + 2 - 1501);
}

#[test]
fn deleting_while_reading_skips_nothing() {
    let Some(lab) = Lab::new() else { return };
    let mounted = lab.mount("crowd", &crowd(&lab));
    let dir = open(&at(mounted.path(), "d"));
    let mut deleted = 0;
    loop {
        let part = sys::getdents(&dir, 700).expect("it can be read");
        if part.is_empty() {
            break;
        }
        for name in names(&part).iter().filter(|n| !n.starts_with('.')) {
            sys::unlink(at(mounted.path(), &format!("d/{name}")))
                .expect("what was listed is there");
            deleted += 1;
        }
    }
    assert_eq!(deleted, COUNT);
    sys::rmdir(at(mounted.path(), "d")).expect("nothing is left");
}

#[test]
fn creating_and_renaming_while_reading_repeats_nothing() {
    let Some(lab) = Lab::new() else { return };
    let mounted = lab.mount("crowd", &crowd(&lab));
    let m = mounted.path();
    let dir = open(&at(m, "d"));
    let mut seen = names(&sys::getdents(&dir, 3000).expect("it can be read"));
    for i in 0..500 {
        sys::open(
            at(m, &format!("d/new{i}")),
            libc::O_CREAT | libc::O_WRONLY,
            0o644,
        )
        .expect("create");
        sys::rename(
            at(m, &format!("d/file{:04}", i * 2)),
            at(m, &format!("d/moved{i}")),
            0,
        )
        .expect("rename");
    }
    seen.extend(names(&sys::read_rest(&dir).expect("it can be read")));
    for n in (1..1000).step_by(2).chain(1000..COUNT) {
        let name = format!("file{n:04}");
        assert_eq!(seen.iter().filter(|s| **s == name).count(), 1, "{name}");
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "a name came twice");
    sys::lseek(&dir, 0, libc::SEEK_SET).expect("rewinddir");
    let now = names(&sys::read_rest(&dir).expect("it can be read"));
    assert_eq!(
        now.len(),
        COUNT + 500,
        "rewinddir shows the directory as it is"
    );
}

#[test]
fn d_ino_and_d_type_are_what_stat_says() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "dir d",
            "file d/f",
            "symlink d/s f",
            "fifo d/p",
            "dir d/e",
            "file d/h1",
            "link d/h2 d/h1",
            "node d/c 20644 0:0 1.5 259",
        ],
    );
    let mounted = lab.mount("dino", &[l]);
    let m = mounted.path();
    let check = || {
        for entry in sys::list(at(m, "d")).expect("it can be listed") {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let stat = sys::lstat(at(m, &format!("d/{name}"))).expect("what is listed is there");
            assert_eq!(entry.ino, stat.ino, "{name}");
            assert_eq!(u32::from(entry.kind) << 12, stat.kind(), "{name}");
        }
    };
    check();
    for name in ["f", "p", "e", "h1", "c"] {
        let before = sys::lstat(at(m, &format!("d/{name}"))).expect("lstat").ino;
        sys::lchown(at(m, &format!("d/{name}")), 3, 3).expect("chown");
        let after = sys::lstat(at(m, &format!("d/{name}"))).expect("lstat").ino;
        assert_eq!(before, after, "{name}: copy-up keeps st_ino");
        check();
    }
    let parent = sys::lstat(m.as_os_str().as_encoded_bytes())
        .expect("lstat")
        .ino;
    let d = sys::lstat(at(m, "d")).expect("lstat").ino;
    let dots = sys::getdents(&open(&at(m, "d")), 4096).expect("it can be read");
    for (name, ino) in [(&b"."[..], d), (b"..", parent)] {
        let entry = dots
            .iter()
            .find(|e| e.name == name)
            .expect("both dots are listed");
        assert_eq!(entry.ino, ino, "{}", String::from_utf8_lossy(name));
    }
}
