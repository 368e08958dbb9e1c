//! Hard links of a lower layer: one file where that can be recorded, else files apart.

use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::sys::{self, Stat};
use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

const LINKED: &[&str] = &[
    "file d",
    "link e d",
    "link f d",
    "symlink s nowhere",
    "link t s",
    "fifo p",
    "link q p",
];

fn stat(base: &Path, path: &str) -> Stat {
    sys::lstat(at(base, path)).unwrap_or_else(|e| panic!("{path}: {}", sys::errno_name(e)))
}

/// The number that a listing gives for each name is the one that `stat` gives.
fn listed_as_stat(base: &Path) {
    let lines = shell(base, "ls -i");
    for line in lines.lines() {
        let (ino, name) = line.trim().split_once(' ').expect("number and name");
        assert_eq!(ino, stat(base, name).ino.to_string(), "{name}");
    }
}

#[test]
fn hard_links_that_no_index_holds_together_are_files_apart() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, LINKED);
    let stack = lab.stack("apart", &[l]).words("index=off");
    let mounted = lab.mount_stack("apart", &stack);
    let m = mounted.path();
    let inos: HashSet<u64> = ["d", "e", "f", "s", "t", "p", "q"]
        .iter()
        .map(|name| stat(m, name).ino)
        .collect();
    assert_eq!(inos.len(), 7);
    let before = stat(m, "e").ino;
    shell(m, "chmod 600 d; rm d; echo more >> e; mv f g");
    assert_eq!(stat(m, "e").ino, before);
    assert_eq!(stat(m, "g").mode & 0o777, 0o644);
    listed_as_stat(m);
    let want = shell(m, "cat e; echo; cat g; rm g; ls");
    mounted.unmount().expect("unmount");
    let mounted = lab.mount_stack("apart", &stack);
    let m = mounted.path();
    assert!(want.starts_with(&shell(m, "cat e")), "{want}");
    assert!(want.ends_with(&shell(m, "ls")), "{want}");
}

#[test]
fn links_of_what_takes_no_user_xattrs_can_be_changed_and_removed() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, LINKED);
    let stack = lab.stack("user", &[l]).words("userxattr");
    let mounted = lab.mount_stack("user", &stack);
    let m = mounted.path();
    let before = stat(m, "s").ino;
    shell(m, "chown -h 5 s; rm t; mv p r; ln r z; chown 5 q");
    assert_eq!(stat(m, "s").ino, before);
    listed_as_stat(m);
    // Regular files take user xattrs, and so stay one file.
    shell(m, "echo more >> d; cmp d e; rm d");
    assert_eq!(stat(m, "e").nlink, 2);
    let want = shell(m, "ls; readlink s; stat -c '%n %u %F' *");
    mounted.unmount().expect("unmount");
    let mounted = lab.mount_stack("user", &stack);
    assert_eq!(
        shell(mounted.path(), "ls; readlink s; stat -c '%n %u %F' *"),
        want
    );
    shell(mounted.path(), "cmp e f");
}

/// As overlayfs does: a deletion takes no inode of the upper.
#[test]
fn whiteouts_are_links_of_one_and_none_is_left_in_work() {
    let Some(lab) = Lab::new() else { return };
    let layer = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["file a", "file b", "dir d", "file d/c"],
    );
    let mounted = lab.mount("shared", &[layer]);
    shell(mounted.path(), "rm -r a b d");
    drop(mounted);
    let whiteouts = ["a", "b", "d"].map(|name| {
        let stat = std::fs::symlink_metadata(lab.upper("shared").join(name)).expect("a whiteout");
        assert!(
            stat.file_type().is_char_device() && stat.rdev() == 0,
            "{name}"
        );
        stat.ino()
    });
    assert_eq!(whiteouts, [whiteouts[0]; 3]);
    let work = lab.path("w-shared/work");
    let left = || {
        std::fs::read_dir(&work)
            .expect("the work directory")
            .count()
    };
    let started = Instant::now();
    while left() > 0 {
        // umount(2) does not wait for the daemon.
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{} left",
            left()
        );
        std::thread::yield_now();
    }
}
