//! Many threads on few names: whatever the order, the promises hold at the end.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use support::bytes::escape;
use support::lab::{Lab, at, build, shell};
use support::layers::MarkFormat;
use support::rng::Rng;
use support::sys::{self, errno_name};
use support::tree::{self, Tree};

const THREADS: u64 = 8;

fn rounds() -> u64 {
    std::env::var("PLYFS_RACE_ROUNDS")
        .map_or(1500, |v| v.parse().expect("PLYFS_RACE_ROUNDS is a number"))
}

/// What may be answered when somebody else was faster.
const HONEST: &[i32] = &[
    libc::ENOENT,
    libc::EEXIST,
    libc::ENOTEMPTY,
    libc::EISDIR,
    libc::ENOTDIR,
    libc::EINVAL,
    libc::EXDEV,
    libc::EBUSY,
    libc::EPERM,
    libc::ENODATA,
    libc::ENXIO,
    libc::ELOOP,
];

/// Runs `work(thread, rng)` on all threads at once.
fn together(seed: u64, work: impl Fn(u64, &mut Rng) + Sync) {
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                let mut rng = Rng::new(seed * 1000 + thread);
                barrier.wait();
                work(thread, &mut rng);
            });
        }
    });
}

fn honest<T>(what: &str, result: sys::Res<T>) {
    if let Err(e) = result {
        assert!(HONEST.contains(&e), "{what}: {}", errno_name(e));
    }
}

/// Three layers with marks, in which every name of the race exists somewhere.
fn layers(lab: &Lab) -> Vec<PathBuf> {
    vec![
        lab.layer(
            "l0",
            MarkFormat::Overlay,
            &[
                "dir a",
                "whiteout a/c",
                "file b",
                "dir c",
                "opaque c",
                "file c/a",
            ],
        ),
        lab.layer(
            "l1",
            MarkFormat::Files,
            &[
                "dir a",
                "file a/a 5000",
                "file a/c",
                "whiteout d",
                "dir b",
                "file b/a",
            ],
        ),
        lab.layer(
            "l2",
            MarkFormat::Overlay,
            &[
                "dir a",
                "file a/b",
                "link a/d a/b",
                "dir a/e",
                "file a/e/a",
                "file c 90000",
                "dir d",
                "file d/a",
                "dir e",
                "file e/a",
                "link e/b e/a",
            ],
        ),
    ]
}

fn some_path(rng: &mut Rng) -> String {
    let names = ["a", "b", "c", "d", "e"];
    let first = *rng.pick(&names);
    match rng.below(5) {
        0 | 1 => first.into(),
        2 | 3 => format!("{first}/{}", rng.pick(&names)),
        _ => format!("{first}/{}/{}", rng.pick(&names), rng.pick(&names)),
    }
}

fn one_step(m: &Path, rng: &mut Rng) {
    let (name, other) = (some_path(rng), some_path(rng));
    let (p, q) = (at(m, &name), at(m, &other));
    let calm = libc::O_NONBLOCK;
    match rng.below(16) {
        0 | 1 => honest(
            "create",
            sys::open(&p, libc::O_CREAT | libc::O_RDWR | calm, 0o644),
        ),
        2 => honest("mkdir", sys::mkdir(&p, 0o755)),
        3 => honest("unlink", sys::unlink(&p)),
        4 => honest("rmdir", sys::rmdir(&p)),
        5 | 6 => honest("rename", sys::rename(&p, &q, 0)),
        7 => honest("exchange", sys::rename(&p, &q, libc::RENAME_EXCHANGE)),
        8 => honest(
            "rename without replacing",
            sys::rename(&p, &q, libc::RENAME_NOREPLACE),
        ),
        9 => honest("link", sys::link(&p, &q)),
        10 => honest("symlink", sys::symlink("nowhere", &p)),
        11 => honest("chmod", sys::chmod(&p, 0o755)),
        12 => honest("setxattr", sys::lsetxattr(&p, "user.race", b"1", 0)),
        13 => {
            let listed = sys::list(&p);
            if let Ok(entries) = &listed {
                let mut names: Vec<_> = entries.iter().map(|e| &e.name).collect();
                names.sort();
                names.dedup();
                assert_eq!(
                    names.len(),
                    entries.len(),
                    "a name is listed twice in {name}"
                );
            }
            honest("list", listed);
        }
        14 => honest("truncate", sys::truncate(&p, 100)),
        _ => match sys::open(&p, libc::O_RDWR | calm, 0) {
            Err(e) => honest::<()>("open", Err(e)),
            Ok(fd) => {
                honest("write", sys::pwrite(&fd, b"race", rng.below(5000)));
                honest("fstat", sys::fstat(&fd));
            }
        },
    }
}

/// Every file's link count is the number of its names, and numbers are not shared.
fn sound(view: &Tree) {
    let mut wrong = Vec::new();
    let mut names: BTreeMap<u64, Vec<&Vec<u8>>> = BTreeMap::new();
    for (path, node) in view {
        for trouble in &node.trouble {
            wrong.push(format!("/{}: {trouble}", escape(path)));
        }
        names.entry(node.stat.ino).or_default().push(path);
    }
    for (ino, paths) in &names {
        let first = &view[paths[0]];
        let shown: Vec<String> = paths.iter().map(|p| escape(p)).collect();
        if first.stat.is_dir() && paths.len() > 1 {
            wrong.push(format!("directories share st_ino {ino}: {shown:?}"));
        }
        if !first.stat.is_dir() && first.stat.nlink != paths.len() as u64 {
            wrong.push(format!("st_nlink {} of {shown:?}", first.stat.nlink));
        }
        if paths.iter().any(|p| view[*p].stat.mode != first.stat.mode) {
            wrong.push(format!("one st_ino, two files: {shown:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn any_operations_at_once_leave_a_sound_tree() {
    let Some(lab) = Lab::new() else { return };
    let lowers = layers(&lab);
    let pristine: Vec<Tree> = lowers.iter().map(|l| tree::read(l)).collect();
    for seed in 0..3 {
        let name = format!("any{seed}");
        let stack = lab.stack(&name, &lowers);
        let mounted = lab.mount_stack(&name, &stack);
        let m = mounted.path();
        together(seed, |_, rng| {
            for _ in 0..rounds() {
                one_step(m, rng);
            }
        });
        let live = tree::read(m);
        sound(&live);
        mounted.unmount().expect("it unmounts");
        let again = lab.mount_stack(&name, &stack);
        let after = tree::read(again.path());
        sound(&after);
        let changes = tree::differences(("live", &live), ("remounted", &after));
        assert!(changes.is_empty(), "seed {seed}: {changes:#?}");
    }
    for (lower, before) in lowers.iter().zip(&pristine) {
        let changes = tree::differences(("before", before), ("after", &tree::read(lower)));
        assert!(changes.is_empty(), "a lower changed: {changes:#?}");
    }
}

#[test]
fn many_first_writes_of_one_file_make_one_copy() {
    let Some(lab) = Lab::new() else { return };
    let size = 4u64 << 20;
    for round in 0..5 {
        let layer = lab.path(&format!("big{round}"));
        let line = format!("file d/f {size}");
        build(
            &layer,
            MarkFormat::Overlay,
            &["dir d", &line, "link d/g d/f"],
        );
        let name = format!("copy{round}");
        let mounted = lab.mount(&name, std::slice::from_ref(&layer));
        let m = mounted.path();
        together(round, |thread, rng| {
            let path = if thread % 2 == 0 { "d/f" } else { "d/g" };
            let fd = sys::open(at(m, path), libc::O_RDWR, 0).expect("open");
            for i in 0..8 {
                let offset = (i * THREADS + thread) * 65_536 + rng.below(1000);
                assert_eq!(sys::pwrite(&fd, &[thread as u8; 64], offset), Ok(64));
                let seen = sys::pread(&fd, 64, offset).expect("read");
                assert_eq!(
                    seen, [thread as u8; 64],
                    "its own write, thread {thread} at {offset}"
                );
            }
        });
        // All that was not written is the lower's.
        let original = std::fs::read(layer.join("d/f")).expect("the lower");
        let copy = std::fs::read(m.join("d/f")).expect("the copy");
        assert_eq!(copy.len(), original.len());
        let changed = copy.iter().zip(&original).filter(|(a, b)| a != b).count();
        assert!(changed <= 64 * 64, "{changed} bytes changed");
        assert!(changed > 50 * 64, "{changed} bytes changed");
        let (f, g) = (
            sys::lstat(at(m, "d/f")).expect("f"),
            sys::lstat(at(m, "d/g")).expect("g"),
        );
        assert_eq!((f.ino, f.nlink), (g.ino, 2));
    }
}

#[test]
fn of_many_creators_exactly_one_wins() {
    let Some(lab) = Lab::new() else { return };
    let mounted = lab.mount("win", &layers(&lab));
    let m = mounted.path();
    let wins: Vec<std::sync::atomic::AtomicU64> = (0..300).map(|_| Default::default()).collect();
    let count = |i: usize, won: bool| {
        wins[i].fetch_add(u64::from(won), std::sync::atomic::Ordering::Relaxed);
    };
    together(9, |thread, _| {
        for i in 0..300 {
            let p = at(m, &format!("a/new{i}"));
            let made = match (thread + i as u64) % 4 {
                0 => sys::mkdir(&p, 0o755),
                1 => sys::symlink("x", &p),
                2 => sys::link(at(m, "e/a"), &p),
                _ => sys::open(&p, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o644).map(drop),
            };
            count(i, made.is_ok());
            assert!(made.is_ok() || made == Err(libc::EEXIST), "{made:?}");
        }
    });
    for (i, n) in wins.iter().enumerate() {
        assert_eq!(n.load(std::sync::atomic::Ordering::Relaxed), 1, "a/new{i}");
    }
    sound(&tree::read(m));
}

#[test]
fn directories_moved_into_each_other_make_no_loop() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.dir("empty");
    let mounted = lab.mount("loop", &[l]);
    let m = mounted.path();
    shell(m, "mkdir -p p/a p/b p/c q/a q/b q/c; touch p/a/f q/b/f");
    together(4, |_, rng| {
        let names = [
            "p", "q", "p/a", "p/b", "p/c", "q/a", "q/b", "q/c", "p/a/x", "q/b/x", "p/c/a",
        ];
        for _ in 0..rounds() {
            let (from, to) = (*rng.pick(&names), *rng.pick(&names));
            honest(
                "move",
                sys::rename(at(m, from), at(m, to), if rng.chance(30) { 2 } else { 0 }),
            );
        }
    });
    let view = tree::read(m);
    sound(&view);
    let files = view.values().filter(|n| n.stat.is_file()).count();
    assert_eq!(files, 2, "moving loses nothing");
}

#[test]
fn deleting_and_making_one_tree_at_once_works() {
    let Some(lab) = Lab::new() else { return };
    let mounted = lab.mount("tree", &layers(&lab));
    let m = mounted.path();
    together(5, |thread, rng| {
        for i in 0..40 {
            let dir = rng.pick(&["a", "d", "e"]);
            if thread % 2 == 0 {
                let gone = std::fs::remove_dir_all(m.join(dir));
                let code = gone.err().and_then(|e| e.raw_os_error());
                assert!(code.is_none_or(|c| HONEST.contains(&c)), "{code:?}");
            } else {
                honest("mkdir", sys::mkdir(at(m, dir), 0o755));
                honest(
                    "create",
                    sys::open(
                        at(m, &format!("{dir}/{thread}-{i}")),
                        libc::O_CREAT | libc::O_WRONLY,
                        0o644,
                    ),
                );
            }
        }
    });
    shell(m, "rm -rf a d e; mkdir a d e");
    let view = tree::read(m);
    sound(&view);
    for dir in ["a/", "d/", "e/"] {
        assert!(
            !view.keys().any(|p| p.starts_with(dir.as_bytes())),
            "{dir} is new and empty"
        );
    }
}

/// Two directories change places while one of them, by a descriptor, gets other modes and
/// xattrs: nothing of that may come to the other. (With files the kernel sees to it: it locks
/// them for both.)
#[test]
fn a_change_goes_to_its_directory_and_not_to_what_took_its_name() {
    let Some(lab) = Lab::new() else { return };
    let lines = ["dir d", "dir d/changed", "dir d/still"];
    let layer = lab.layer("pair", MarkFormat::Overlay, &lines);
    let mounted = lab.mount("pair", std::slice::from_ref(&layer));
    let open = |name| {
        let path = at(mounted.path(), name);
        let fd = sys::open(&path, libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("open");
        (path, fd)
    };
    let ((a, changed), (b, still)) = (open("d/changed"), open("d/still"));
    let before = sys::fstat(&still).expect("fstat");
    together(6, |thread, _| {
        for i in 0..4 * rounds() {
            match thread % 4 {
                0 => honest("exchange", sys::rename(&a, &b, libc::RENAME_EXCHANGE)),
                1 => honest("xattr", sys::fsetxattr(&changed, "user.race", b"1", 0)),
                _ => honest("chmod", sys::fchmod(&changed, 0o700 | (i as u32 % 2) << 3)),
            }
        }
    });
    let after = sys::fstat(&still).expect("fstat");
    assert_eq!((after.ino, after.mode), (before.ino, before.mode));
    let at_a = sys::lstat(&a).expect("lstat").ino == after.ino;
    let names = sys::llistxattr(if at_a { &a } else { &b }).expect("its xattrs");
    assert!(names.is_empty(), "{names:?}");
}
