//! What was fetched ahead needs no system call, or fewer, when it is read.

use super::desk::Desk;
use super::support::backing::{Backing, Kind};
use super::support::skip;

/// The tree `t`: six directories with three files of each of two layers, and nine files.
fn tree(layer: usize) -> Vec<String> {
    let dirs = (0..6).flat_map(|d| {
        let files = (0..3).map(move |f| format!("file t/d{d}/{layer}{f} 4096"));
        std::iter::once(format!("dir t/d{d}")).chain(files)
    });
    let files = (0..9).filter(|f| f % 2 == layer);
    let files = files.map(|f| format!("file t/f{f} 4096"));
    std::iter::once("dir t".to_owned())
        .chain(dirs)
        .chain(files)
        .collect()
}

fn desk() -> Option<(Backing, Desk)> {
    if !skip::can_mount() {
        return None;
    }
    let backing = Backing::new(Kind::Ext4)?;
    let (top, bottom) = (tree(0), tree(1));
    let top: Vec<&str> = top.iter().map(String::as_str).collect();
    let bottom: Vec<&str> = bottom.iter().map(String::as_str).collect();
    let desk = Desk::new(&backing.dir("desk"), &top, &bottom);
    Some((backing, desk))
}

#[test]
fn a_file_that_was_fetched_ahead_is_open_already() {
    let Some((_backing, desk)) = desk() else {
        return;
    };
    let files = desk.names("t", false);
    assert_eq!(files.len(), 9);
    desk.on_a_slow_disk(|desk| files.iter().take(3).for_each(|file| desk.read(file)));
    let fetched = desk.fetched_ahead();
    assert_eq!((fetched.files, fetched.bytes), (6, 6 * 4096));
    for file in &files {
        let calls = desk.count(|desk| desk.read(file));
        assert_eq!(
            calls.into_iter().collect::<Vec<_>>(),
            [("preadv2", 1)],
            "{file}"
        );
    }
}

#[test]
fn a_directory_that_was_fetched_ahead_is_read_already() {
    let Some((_backing, desk)) = desk() else {
        return;
    };
    let dirs = desk.names("t", true);
    assert_eq!(dirs.len(), 6);
    desk.on_a_slow_disk(|desk| {
        for dir in dirs.iter().take(3) {
            assert_eq!(desk.list(dir), 8);
        }
    });
    let reads = |dir: &String| {
        let calls = desk.count(|desk| assert_eq!(desk.list(dir), 8));
        calls.contains_key("getdents64")
    };
    let read: Vec<bool> = dirs.iter().skip(3).map(reads).collect();
    // Two are fetched at first.
    assert_eq!(read, [false, false, true]);
    let fetched = desk.fetched_ahead();
    assert_eq!((fetched.directories, fetched.entries), (2, 12));
}
