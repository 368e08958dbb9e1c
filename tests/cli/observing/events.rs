//! The events: who did what to which path; together they are what the upper holds.

use super::{Observed, lines, shorts};
use crate::support::{skip, sys};
use crate::tools::{await_that, stdout, told};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

#[test]
fn every_cause_is_told_by_its_name() {
    let Some(observed) = Observed::new() else {
        return;
    };
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        observed.0.write(&format!("low/{name}"), "0123456789");
    }
    fs::create_dir(observed.path("low/dir")).expect("mkdir");
    observed.mount(&[]);
    let ops = [
        ("printf x >> a", "whole file a by write"),
        (": > b", "whole file b by truncate"),
        ("chmod 600 c", "meta file c by chmod"),
        ("printf x >> c", "data file c by write"),
        ("chown 1:1 d", "meta file d by chown"),
        ("touch -d @1 e", "meta file e by utimens"),
        ("ln f f2", "meta file f by link"),
        ("fallocate -l 20 g", "whole file g by fallocate"),
        ("rm h", "whiteout h by unlink"),
        ("echo > h", "whiteout_gone h by create"),
        ("mkdir dir/new", "meta directory dir by mkdir"),
        ("cp a a.new; mv a.new j", "covered j by rename"),
    ];
    let mut want = Vec::new();
    for (script, event) in ops {
        observed.shell(&format!("cd mnt; {script}"));
        want.push(event.to_owned());
        if script == "ln f f2" {
            want.push("redirect f by link".to_owned());
        }
    }
    let file = observed.path("mnt/i");
    let open = sys::open(file.as_os_str().as_bytes(), libc::O_RDWR, 0).expect("open");
    sys::mmap_store(&open, 0, b"stored").expect("a store");
    drop(open);
    want.push("whole file i by mmap".to_owned());
    let events = observed.events();
    assert_eq!(shorts(&events), want);
    let of = |path: &str| {
        let found = events.iter().find(|event| event["path"] == path);
        found
            .unwrap_or_else(|| panic!("no event of {path}"))
            .clone()
    };
    assert_eq!(
        (&of("a")["bytes"], &of("b")["bytes"]),
        (&10.into(), &0.into())
    );
    assert_eq!(of("c")["command"], "chmod");
    assert_eq!(of("f")["target"], Value::Null);
    assert!(
        events
            .iter()
            .all(|event| event["time"].as_f64() > Some(1.6e9))
    );
    let numbers: Vec<_> = events.iter().filter_map(|e| e["number"].as_u64()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    observed.unmount();
}

#[test]
fn hard_links_and_deep_paths_are_told_by_the_name_that_was_used() {
    let Some(observed) = Observed::new() else {
        return;
    };
    observed.shell("mkdir -p low/a/b/c; echo 12345 > low/a/b/c/one; ln low/a/b/c/one low/two");
    observed.mount(&[]);
    observed.shell("cd mnt; chmod 600 a/b/c/one; echo x >> two; cd a/b; mv c d; rm d/one");
    let want = [
        "meta directory a by chmod",
        "meta directory a/b by chmod",
        "meta directory a/b/c by chmod",
        "meta file a/b/c/one by chmod",
        // By which of its names the file is written, the kernel does not say.
        "data file - by write",
        "redirect a/b/d by rename",
        "whiteout a/b/c by rename",
        "whiteout a/b/d/one by unlink",
    ];
    assert_eq!(shorts(&observed.events()), want);
    observed.unmount();
}

#[test]
fn names_that_are_no_text_are_told_in_hexadecimal_too() {
    let Some(observed) = Observed::new() else {
        return;
    };
    let name = OsStr::from_bytes(b"a\xff\n\"\\");
    fs::write(observed.path("low").join(name), "x").expect("a file");
    observed.mount(&[]);
    fs::remove_file(observed.path("mnt").join(name)).expect("unlink");
    let events = observed.events();
    assert_eq!(events[0]["path"], "a\u{fffd}\n\"\\");
    assert_eq!(events[0]["path_hex"], "61ff0a225c");
    observed.unmount();
}

#[test]
fn who_did_it_is_the_process_that_asked() {
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    let pid = observed.shell("echo more >> mnt/one; echo $$");
    let events = observed.events();
    assert_eq!(events[0]["pid"].to_string(), pid.trim());
    assert_eq!(events[0]["command"], "sh");
    observed.unmount();
}

#[test]
fn a_follower_gets_all_and_ends_well_with_the_mount() {
    let Some(observed) = Observed::new() else {
        return;
    };
    for i in 0..500 {
        observed.0.write(&format!("low/in/f{i}"), "x");
    }
    for way in ["umount", "kill"] {
        observed.mount(&["-o", "volatile"]);
        observed.shell("touch mnt/in/f0");
        let child = observed.follow();
        observed.shell("touch mnt/in/*; rm mnt/in/*");
        if way == "umount" {
            observed.unmount();
        } else {
            await_that("all is written", || {
                observed.stat()["events"]["written"] == 1000
            });
            crate::tools::send(observed.0.daemon("mnt"), libc::SIGKILL);
        }
        let out = child.wait_with_output().expect("it ends");
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{}",
            told(&out)
        );
        if way == "umount" {
            let told = shorts(&lines(&stdout(&out)));
            assert_eq!(told.len(), 1000);
            let whiteouts = told
                .iter()
                .filter(|line| line.starts_with("whiteout "))
                .count();
            assert_eq!(whiteouts, 500);
        } else {
            observed.unmount();
        }
        fs::remove_dir_all(observed.path("up")).expect("the upper goes");
        fs::remove_dir_all(observed.path("work")).expect("work goes");
        observed.0.scratch.dir("up/in");
        observed.0.scratch.dir("work");
    }
}

#[test]
fn only_what_is_wanted_is_told() {
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    observed.shell("chmod 600 mnt/one; chmod 600 mnt/two");
    let out = observed.call(&["events", "--no-follow", "--since", "1", "mnt"]);
    assert_eq!(shorts(&lines(&stdout(&out))), ["meta file two by chmod"]);
    let out = observed.call(&["events", "--no-follow", "--since", "99", "mnt"]);
    assert!(
        out.status.success() && out.stdout.is_empty(),
        "{}",
        told(&out)
    );
    observed.unmount();
}

/// What the events say the upper holds.
#[derive(Debug, Default)]
struct Replay {
    whiteouts: BTreeSet<PathBuf>,
    opaque: BTreeSet<PathBuf>,
    copied: BTreeSet<PathBuf>,
    /// What hides something of a lower layer though nothing was copied.
    replaced: BTreeSet<PathBuf>,
}

impl Replay {
    fn forget(&mut self, path: &Path) {
        let sets = [
            &mut self.whiteouts,
            &mut self.opaque,
            &mut self.copied,
            &mut self.replaced,
        ];
        for set in sets {
            set.retain(|other| !other.starts_with(path));
        }
    }

    fn play(events: &[Value]) -> Replay {
        let mut replay = Replay::default();
        for event in events {
            let path = PathBuf::from(event["path"].as_str().expect("a path"));
            match event["event"].as_str().expect("a word") {
                "copyup" => drop(replay.copied.insert(path)),
                "whiteout" => {
                    replay.forget(&path);
                    replay.whiteouts.insert(path);
                }
                "whiteout_gone" | "covered" => {
                    replay.forget(&path);
                    replay.replaced.insert(path);
                }
                "opaque" => drop(replay.opaque.insert(path)),
                other => panic!("{other} of {}", path.display()),
            }
        }
        replay
    }
}

/// What is really there.
fn upper(observed: &Observed) -> Replay {
    let mut real = Replay::default();
    let root = observed.path("up");
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let below = path.strip_prefix(&root).expect("below").to_owned();
            let found = fs::symlink_metadata(&path).expect("it is there");
            let bytes = path.as_os_str().as_bytes();
            if found.file_type().is_char_device() && found.rdev() == 0 {
                real.whiteouts.insert(below);
                continue;
            }
            if sys::lgetxattr(bytes, "trusted.overlay.opaque") == Ok(b"y".to_vec()) {
                real.opaque.insert(below.clone());
            }
            let is_below = |low: &&str| observed.path(low).join(&below).symlink_metadata().is_ok();
            if ["low", "low2"].iter().any(is_below) {
                real.copied.insert(below);
            }
            if found.is_dir() {
                dirs.push(path);
            }
        }
    }
    real
}

#[test]
fn the_events_of_a_checkout_add_up_to_what_the_upper_holds() {
    if !skip::has_tool("git") {
        return;
    }
    let Some(observed) = Observed::new() else {
        return;
    };
    // One layer has the repository, the other above it a part of the worktree.
    let script = "
        export HOME=$PWD/home GIT_CONFIG_NOSYSTEM=1
        git config --global user.email a@b; git config --global user.name n
        git config --global core.checkStat minimal; git config --global gc.auto 0
        rm -r low2/* low/*; rmdir up/in; cd low2; git init -q -b main .
        for d in a b c gone; do mkdir -p $d/sub; for i in $(seq 20); do
            seq $i > $d/f$i; seq $i > $d/sub/g$i; done; done
        echo to be a directory > swap; ln -s a/f1 link; chmod +x a/f1
        git add -A; git commit -qm one
        git rm -qr gone b/sub; git rm -q swap; mkdir -p swap new/deep gone2
        for i in $(seq 20); do echo two >> a/f$i; echo new > new/deep/n$i; done
        echo in > swap/file; git mv c/f3 c/moved; chmod -x a/f1; ln -sf a/f2 link
        git add -A; git commit -qm two; git checkout -q HEAD~1
        mkdir -p ../low/a ../low/b; cp -a a/f1 a/f2 ../low/a; cp -a b/sub ../low/b";
    observed.shell(script);
    observed.mount(&[]);
    observed.shell("export HOME=$PWD/home; cd mnt; git status --short; git checkout -q main");
    assert_eq!(
        observed.shell("cd mnt; git -c safe.directory='*' status --short"),
        ""
    );
    let events = observed.events();
    let told = Replay::play(&events);
    let stat = observed.stat();
    observed.unmount();
    let real = upper(&observed);
    assert_eq!(told.whiteouts, real.whiteouts, "{told:?}");
    assert_eq!(told.opaque, real.opaque, "{told:?}");
    let both: BTreeSet<_> = told.copied.union(&told.replaced).cloned().collect();
    // Who is in the upper and below it was copied there, or put in the place of another.
    let missing: Vec<_> = real.copied.difference(&both).collect();
    assert!(
        missing.is_empty(),
        "no event of {missing:?}: {:#?}",
        shorts(&events)
    );
    let gone: Vec<_> = both.difference(&real.copied).collect();
    assert!(
        gone.is_empty(),
        "not in the upper: {gone:?}: {:#?}",
        shorts(&events)
    );
    let hidden = ["b/sub", "c/f3", "gone"].map(PathBuf::from);
    assert_eq!(told.whiteouts, BTreeSet::from(hidden));
    assert!(told.replaced.len() > 20, "{told:#?}");
    // The sums are those of the events.
    let copied = |part: &str| events.iter().filter(|e| e["part"] == part).count() as u64;
    let sum = |part: &str| -> u64 {
        let causes = stat["copyups"].as_object().expect("an object").values();
        causes.filter_map(|cause| cause[part].as_u64()).sum()
    };
    for part in ["meta", "data", "whole", "partial"] {
        assert_eq!(sum(part), copied(part), "{part}");
    }
    let bytes: u64 = events.iter().filter_map(|e| e["bytes"].as_u64()).sum();
    assert_eq!(sum("bytes"), bytes);
}
