//! What is fetched before it is read: it is there, and it is what is there.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::lab::Lab;
use super::support::mount::Mounted;
use super::support::patience::{await_that, holds_within};
use super::support::skip;
use super::support::sys;

fn open(file: &Path) -> OwnedFd {
    sys::open(file.as_os_str().as_encoded_bytes(), libc::O_RDONLY, 0).expect("it opens")
}

/// Drops `file` from memory; whether that is possible.
fn cool(file: &Path) -> bool {
    let fd = open(file);
    sys::drop_from_memory(&fd).expect("it can be dropped");
    !sys::is_in_memory(&fd).expect("the kernel tells")
}

fn is_in_memory(file: &Path) -> bool {
    sys::is_in_memory(&open(file)).expect("the kernel tells")
}

/// Two layers with files `d/f0` to `d/f39`, every other in the second; where each is.
fn files(lab: &Lab) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let lowers = vec![lab.dir("l0"), lab.dir("l1")];
    for lower in &lowers {
        fs::create_dir(lower.join("d")).expect("d can be made");
    }
    let files = (0..40).map(|i| lowers[i % 2].join(format!("d/f{i}")));
    let files: Vec<_> = files.collect();
    for (i, file) in files.iter().enumerate() {
        fs::write(file, vec![i as u8; 5000]).expect("a lower file");
    }
    (lowers, files)
}

#[test]
fn the_files_that_come_next_are_in_memory_before_they_are_read() {
    let Some(lab) = Lab::new() else { return };
    let (lowers, files) = files(&lab);
    let last = files.last().expect("there are some");
    let read = |mounted: &Mounted, i: usize| {
        let data = fs::read(mounted.path().join(format!("d/f{i}"))).expect("it is read");
        assert_eq!(data, vec![i as u8; 5000]);
    };
    // The disk can be so quick that one of the three has not waited for it.
    for attempt in 0..10 {
        let mounted = lab.mount(&format!("ahead{attempt}"), &lowers);
        if !files.iter().all(|file| cool(file)) || !sys::would_wait(&open(last)) {
            return skip::skipped("needs a disk, and a filesystem that tells what waits for it");
        }
        (0..3).for_each(|i| read(&mounted, i));
        if !holds_within(Duration::from_secs(1), || is_in_memory(&files[3])) {
            continue;
        }
        for file in &files[4..8] {
            let what = format!("{} is fetched", file.display());
            await_that(&what, || is_in_memory(file));
        }
        assert!(!is_in_memory(&files[30]), "not more than a few at first");
        (3..40).for_each(|i| read(&mounted, i));
        return;
    }
    panic!("nothing was fetched ten times");
}

/// The names and the data of all files in `dir`.
fn look(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("it can be listed") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().expect("its type").is_dir() {
            let below = look(&entry.path()).into_iter();
            all.extend(below.map(|(path, data)| (format!("{name}/{path}"), data)));
        } else if let Ok(data) = fs::read(entry.path()) {
            all.insert(name, data);
        }
    }
    all
}

#[test]
fn a_tree_that_changes_while_much_is_fetched_ahead_is_shown_as_it_is() {
    let Some(lab) = Lab::new() else { return };
    let lowers = vec![lab.dir("l0"), lab.dir("l1")];
    let mut expected = BTreeMap::new();
    for d in 0..12 {
        for f in 0..60 {
            let lower = &lowers[f % 2].join(format!("d{d}"));
            fs::create_dir_all(lower).expect("a lower directory");
            fs::write(lower.join(format!("f{f}")), format!("{d} {f}")).expect("a lower file");
            expected.insert(format!("d{d}/f{f}"), format!("{d} {f}").into_bytes());
        }
    }
    let mut stack = lab.stack("changing", &lowers);
    // All that is read counts as having waited for a disk.
    stack.variables = vec![("PLYFS_FAULT_WAITS", "1")];
    let mounted = lab.mount_stack("changing", &stack);
    let top = mounted.path();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut walks = 0;
                    while !is_over.load(Ordering::Relaxed) || walks == 0 {
                        look(top);
                        walks += 1;
                    }
                })
            })
            .collect();
        for round in 0..20 {
            let of = |d: usize, f: usize| (format!("d{d}/f{f}"), top.join(format!("d{d}/f{f}")));
            let d = round % 12;
            let (gone, path) = of(d, round);
            fs::remove_file(path).expect("a lower file is removed");
            expected.remove(&gone);
            let (changed, path) = of(d, round + 20);
            fs::write(path, "changed").expect("a lower file is changed");
            expected.insert(changed, b"changed".to_vec());
            let (old, path) = of(d, round + 40);
            let (new, new_path) = (format!("d{d}/g{round}"), top.join(format!("d{d}/g{round}")));
            fs::rename(path, new_path).expect("a lower file is renamed");
            let data = expected.remove(&old).expect("it was there");
            expected.insert(new, data);
            fs::create_dir(top.join(format!("n{round}"))).expect("a directory is made");
            fs::write(top.join(format!("n{round}/x")), "new").expect("a file is made");
            expected.insert(format!("n{round}/x"), b"new".to_vec());
        }
        is_over.store(true, Ordering::Relaxed);
        for walker in walkers {
            walker.join().expect("a walker walks");
        }
    });
    assert_eq!(look(top), expected);
}
