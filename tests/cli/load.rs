//! The daemon ended while several processes use the union.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::skip;
use crate::tools::{Stage, await_that, has_ended, send, stderr, told};

const WORKERS: usize = 4;

/// Processes that use the union, each running a script in a loop in its own directory.
struct Load {
    workers: Vec<Option<Child>>,
    stop: PathBuf,
}

impl Load {
    /// `step` is run again and again in `mnt/N`, with `$n` the round and `$done` a file
    /// outside of the union; a line of the latter is one more completed operation.
    fn start(stage: &Stage, step: &str) -> Load {
        let stop = stage.path("stop");
        let workers = (0..WORKERS)
            .map(|worker| {
                let script =
                    format!("n=0; while [ ! -e \"$stop\" ]; do n=$((n+1))\n{step}\ndone; exit 0");
                let child = Command::new("sh")
                    .args(["-c", &script])
                    .current_dir(stage.path(&format!("mnt/{worker}")))
                    .env("stop", &stop)
                    .env("done", stage.path(&format!("done{worker}")))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("sh starts");
                Some(child)
            })
            .collect();
        Load { workers, stop }
    }

    /// Lets the workers end by themselves; what they said.
    fn finish(&mut self) -> Vec<Output> {
        std::fs::write(&self.stop, "").expect("a file can be written");
        let taken = self.workers.iter_mut().filter_map(Option::take);
        taken
            .map(|child| child.wait_with_output().expect("it ends"))
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in self.workers.iter_mut().flatten() {
            // A test has failed already: what is still running must not outlive it.
            if child.kill().is_ok() {
                child.wait().ok();
            }
        }
    }
}

/// A mounted union with a directory of a lower layer for each worker, in which there are
/// `count` times the files `mN`, `kN`, `tN` and the directories `lN`, each with a file `f`.
fn with_files(count: usize) -> Option<Stage> {
    if !skip::can_mount() {
        return None;
    }
    let stage = Stage::new();
    for worker in 0..WORKERS {
        stage.scratch.dir(&format!("low/{worker}"));
        for n in 1..=count {
            stage.scratch.dir(&format!("low/{worker}/l{n}"));
            for file in ["m", "k", "t", "l"] {
                let inner = if file == "l" { "/f" } else { "" };
                stage.write(&format!("low/{worker}/{file}{n}{inner}"), "low\n");
            }
        }
        stage.write(&format!("done{worker}"), "");
    }
    Some(stage)
}

const MOUNT: [&str; 10] = [
    "mount",
    "--log-file",
    "log",
    "--lower",
    "low",
    "--upper",
    "up",
    "--work",
    "work",
    "mnt",
];

fn completed(stage: &Stage, worker: usize) -> usize {
    stage.read(&format!("done{worker}")).lines().count()
}

#[test]
fn a_signal_under_load_of_processes_leaves_no_mount_and_then_no_process() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let Some(stage) = with_files(0) else { return };
        stage.quietly(&MOUNT);
        let pid = stage.daemon("mnt");
        let step = "echo $n > f$n && test \"$(cat f$n)\" = $n && mv f$n g && echo $n >> g &&
            test \"$(cat g)\" = \"$n\n$n\" && echo $n >> \"$done\" || exit 1";
        let mut load = Load::start(&stage, step);
        let reach = |rounds: [usize; WORKERS]| {
            (0..WORKERS).all(|worker| completed(&stage, worker) > rounds[worker])
        };
        await_that("the load has begun", || reach([5; WORKERS]));
        send(pid, signal);
        await_that("the mount is gone", || stage.mounted("mnt").is_none());
        await_that("the log says that it is detached", || {
            stage.read("log").contains("still in use: detached")
        });
        let now = std::array::from_fn(|worker| completed(&stage, worker) + 5);
        await_that("those inside go on", || reach(now));
        assert!(!has_ended(pid));
        for out in load.finish() {
            assert!(out.status.success(), "signal {signal}: {}", told(&out));
        }
        await_that("the daemon ends", || has_ended(pid));
        for worker in 0..WORKERS {
            let last = completed(&stage, worker);
            let found = stage.read(&format!("up/{worker}/g"));
            assert_eq!(found, format!("{last}\n{last}\n"), "signal {signal}");
        }
        stage.quietly(&MOUNT);
        stage.quietly(&["umount", "mnt"]);
    }
}

/// One round of changes of every kind; each is noted when it is completed.
const CHANGES: &str = "
    ok() { echo \"$*\" >> \"$done\"; }
    echo $n > f$n && ok new f$n || exit
    echo more >> m$n && ok more m$n || exit
    rm k$n && ok gone k$n || exit
    mv l$n r$n && ok moved r$n || exit
    : > t$n && ok empty t$n || exit
    mkdir d$n && ok dir d$n || exit
    mv f$n d$n/f && ok into d$n || exit
    ln d$n/f h$n && ok linked h$n || exit
    test $n -lt 400 || exit";

/// Whether what was noted holds, where nothing that was done later changed it.
fn holds(here: &Path, what: &str, name: &str, last: bool) -> Result<(), String> {
    let number = &name[1..];
    let read = |name: &str| std::fs::read_to_string(here.join(name)).map_err(|e| e.to_string());
    let equals = |name: &str, text: &str| match read(name)? {
        found if found == text => Ok(()),
        found => Err(format!("{name}: {found:?}")),
    };
    let is_gone = |name: String| match here.join(&name).symlink_metadata() {
        Ok(_) => Err(format!("{name} is there")),
        Err(_) => Ok(()),
    };
    match what {
        // The last one may have been moved since by what was never noted.
        "new" if last => equals(name, &format!("{number}\n"))
            .or_else(|_| equals(&format!("d{number}/f"), &format!("{number}\n"))),
        "new" => is_gone(name.to_owned()),
        "more" => equals(name, "low\nmore\n"),
        "gone" => is_gone(name.to_owned()),
        "moved" => equals(&format!("{name}/f"), "low\n").and(is_gone(format!("l{number}"))),
        "empty" => equals(name, ""),
        "dir" if here.join(name).is_dir() => Ok(()),
        "into" => equals(&format!("{name}/f"), &format!("{number}\n")),
        "linked" => equals(name, &format!("{number}\n")),
        _ => Err(format!("{what} {name}")),
    }
}

#[test]
fn after_a_kill_under_load_a_new_mount_shows_every_completed_operation() {
    let Some(stage) = with_files(400) else { return };
    stage.quietly(&MOUNT);
    let pid = stage.daemon("mnt");
    let mut load = Load::start(&stage, CHANGES);
    await_that("the load has begun", || {
        (0..WORKERS).all(|worker| completed(&stage, worker) > 40)
    });
    send(pid, libc::SIGKILL);
    await_that("the daemon ends", || has_ended(pid));
    load.finish();

    let out = stage.call(&MOUNT);
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert!(
        stderr(&out).contains("a mount there has lost its daemon; unmount it first"),
        "{}",
        told(&out)
    );
    stage.quietly(&["umount", "mnt"]);
    assert_eq!(stage.mounted("mnt"), None);

    stage.quietly(&MOUNT);
    (0..WORKERS).for_each(|worker| assert_holds(&stage, worker));
    stage.quietly(&["umount", "mnt"]);
}

fn assert_holds(stage: &Stage, worker: usize) {
    let notes = stage.read(&format!("done{worker}"));
    let notes: Vec<_> = notes.lines().collect();
    assert!(notes.len() > 40);
    let last_new = notes.iter().rposition(|note| note.starts_with("new"));
    let is_into = |note: &&str| note.starts_with("into");
    for (i, note) in notes.iter().enumerate() {
        let (what, name) = note.split_once(' ').expect("two words");
        let last = last_new == Some(i) && !notes[i..].iter().any(is_into);
        let here = stage.path(&format!("mnt/{worker}"));
        if let Err(e) = holds(&here, what, name, last) {
            panic!("worker {worker}: {note:?}, completed before the kill, does not hold: {e}");
        }
    }
}
