//! The daemon: when it is ready, what it lets go of, how it ends.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::mount::{run, umount_when_free};
use crate::support::{skip, sys};
use crate::tools::{
    LIMIT, Stage, as_user, await_that, can_play_user, has_ended, send, stderr, told,
};

const MOUNT: [&str; 8] = [
    "mount", "--lower", "low", "--upper", "up", "--work", "work", "mnt",
];

/// `f_type` of FUSE.
const FUSE: i64 = 0x6573_5546;

/// A mounted union, or `None` where there can be none.
fn mounted() -> Option<Stage> {
    if !skip::can_mount() {
        return None;
    }
    let stage = Stage::new();
    stage.quietly(&MOUNT);
    Some(stage)
}

#[test]
fn the_mount_answers_when_the_starter_ends_and_nothing_was_said() {
    // `quietly` reads stderr to its end: a daemon that kept it would hang here.
    let Some(stage) = mounted() else { return };
    let path = stage.path("mnt");
    let found = sys::statfs(path.as_os_str().as_encoded_bytes()).expect("statfs");
    assert_eq!(found.f_type as i64, FUSE);
    assert_eq!(stage.mounted("mnt").expect("mounted").1, "fuse.plyfs");
    assert_eq!(stage.read("mnt/one"), "1");
    stage.write("mnt/new", "n");
    stage.quietly(&["umount", "mnt"]);
    assert_eq!(stage.read("up/new"), "n");
}

#[test]
fn the_daemon_keeps_nothing_of_its_starter() {
    let Some(stage) = mounted() else { return };
    let pid = stage.daemon("mnt");
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).expect("a link");
    assert_eq!(link("cwd"), Path::new("/"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(stream), Path::new("/dev/null"));
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let rest = stat.rsplit(") ").next().expect("the fields after the name");
    let session: u32 = rest
        .split(' ')
        .nth(3)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert_eq!(session, pid, "it leads a session of its own");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a line");
    let numbers: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "the file limit is raised: {files}");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn after_umount_the_daemon_is_gone_and_the_layers_are_free() {
    let Some(stage) = mounted() else { return };
    for _ in 0..10 {
        let pid = stage.daemon("mnt");
        stage.quietly(&["umount", "mnt"]);
        assert_eq!(stage.mounted("mnt"), None);
        assert!(has_ended(pid));
        stage.quietly(&MOUNT);
    }
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn a_new_mount_waits_for_the_old_daemon_to_let_go() {
    let Some(stage) = mounted() else { return };
    for i in 0..10 {
        stage.write(&format!("mnt/f{i}"), "x");
        // umount(2) returns before the daemon has ended.
        umount_when_free(&stage.path("mnt")).expect("umount");
        stage.quietly(&MOUNT);
        assert_eq!(stage.read(&format!("mnt/f{i}")), "x");
    }
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn each_termination_signal_unmounts_and_ends_the_daemon() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let Some(stage) = mounted() else { return };
        let pid = stage.daemon("mnt");
        send(pid, signal);
        await_that("the daemon ends", || has_ended(pid));
        assert_eq!(stage.mounted("mnt"), None, "signal {signal}");
    }
}

/// A union whose daemon writes `log`, with a file held open in it.
fn busy() -> Option<(Stage, u32, std::fs::File)> {
    if !skip::can_mount() {
        return None;
    }
    let stage = Stage::new();
    stage.quietly(&[&["mount", "--log-file", "log"], &MOUNT[1..]].concat());
    let pid = stage.daemon("mnt");
    let held = std::fs::File::open(stage.path("mnt/one")).expect("a file in the union");
    Some((stage, pid, held))
}

#[test]
fn a_busy_union_is_detached_at_a_signal_and_served_to_its_last_user() {
    let Some((stage, pid, held)) = busy() else {
        return;
    };
    send(pid, libc::SIGTERM);
    await_that("the mount is gone", || stage.mounted("mnt").is_none());
    let text = std::io::read_to_string(&held).expect("it is still served");
    assert_eq!(text, "1");
    assert!(!has_ended(pid));
    await_that("the log says so", || {
        stage.read("log").contains("still in use: detached")
    });
    drop(held);
    await_that("the daemon ends", || has_ended(pid));
}

#[test]
fn a_second_signal_does_not_wait_for_users() {
    let Some((stage, pid, held)) = busy() else {
        return;
    };
    send(pid, libc::SIGTERM);
    await_that("the mount is gone", || stage.mounted("mnt").is_none());
    send(pid, libc::SIGTERM);
    await_that("the daemon ends", || has_ended(pid));
    let read = std::io::read_to_string(&held);
    assert!(read.is_err(), "nobody serves it any more: {read:?}");
}

#[test]
fn a_signal_under_load_leaves_no_mount_and_no_process() {
    let Some(stage) = mounted() else { return };
    let pid = stage.daemon("mnt");
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (stage, stop) = (&stage, &stop);
                scope.spawn(move || {
                    let mut written = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let file = stage.path(&format!("mnt/{writer}-{written}"));
                        if std::fs::write(file, "load").is_err() {
                            break;
                        }
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        await_that("the load has begun", || stage.path("up/3-5").exists());
        send(pid, libc::SIGTERM);
        await_that("the mount is gone", || stage.mounted("mnt").is_none());
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer ends"))
            .sum::<usize>()
    });
    await_that("the daemon ends", || has_ended(pid));
    assert!(written > 5);
    assert_eq!(stage.read("up/3-5"), "load");
}

#[test]
fn a_busy_union_is_not_unmounted_unless_lazily() {
    let Some((stage, pid, held)) = busy() else {
        return;
    };
    let out = stage.call(&["umount", "mnt"]);
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert_eq!(
        stderr(&out),
        "plyfs: mount point mnt: it is in use; end what uses it (fuser -vm shows it), or detach \
         it with --lazy\n"
    );
    assert!(stage.mounted("mnt").is_some());
    stage.quietly(&["umount", "--lazy", "mnt"]);
    assert_eq!(stage.mounted("mnt"), None);
    assert!(!has_ended(pid));
    drop(held);
    await_that("the daemon ends", || has_ended(pid));
}

#[test]
fn a_dead_mount_is_named_as_such_and_can_be_unmounted() {
    let Some(stage) = mounted() else { return };
    stage.write("mnt/done", "x");
    let pid = stage.daemon("mnt");
    send(pid, libc::SIGKILL);
    await_that("the daemon ends", || has_ended(pid));
    let out = stage.call(&MOUNT);
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert_eq!(
        stderr(&out),
        format!(
            "plyfs: mount point {}: a mount there has lost its daemon; unmount it first: \
             fusermount3 -u, or umount\n",
            stage.path("mnt").display()
        )
    );
    stage.quietly(&["umount", "mnt"]);
    stage.quietly(&MOUNT);
    assert_eq!(stage.read("mnt/done"), "x");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn in_the_foreground_it_serves_until_it_is_unmounted() {
    if !skip::can_mount() {
        return;
    }
    let stage = Stage::new();
    let mut child = stage
        .plyfs(&[&["mount", "--foreground"], &MOUNT[1..]].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("plyfs starts");
    // Until then it looks at the mount itself, which is in use meanwhile.
    await_that("it is ready", || stage.find_daemon("mnt").is_some());
    assert_eq!(stage.read("mnt/one"), "1");
    assert!(child.try_wait().expect("its status").is_none());
    stage.quietly(&["umount", "mnt"]);
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{}", told(&out));
    assert_eq!(
        (out.stdout.len(), out.stderr.len()),
        (0, 0),
        "{}",
        told(&out)
    );
}

#[test]
fn a_mount_that_is_refused_leaves_nothing_mounted() {
    if !skip::can_mount() || !skip::has_tool("unshare") {
        return;
    }
    let stage = Stage::new();
    // A filesystem type of this length is refused by the kernel, after all our checks.
    let long = "x".repeat(5000);
    let out = stage.call(&[
        "mount",
        "--lower",
        "low",
        "-o",
        &format!("subtype={long}"),
        "mnt",
    ]);
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert_eq!(stderr(&out).lines().count(), 1, "{}", told(&out));
    assert_eq!(stage.mounted("mnt"), None);
    stage.quietly(&MOUNT);
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn an_ordinary_user_mounts_and_unmounts_through_fusermount() {
    if !can_play_user() || !skip::has_tool("fusermount3") {
        return;
    }
    let stage = Stage::new();
    for dir in ["up", "work", "mnt", "low/one"] {
        stage.give(dir);
    }
    for end in ["umount", "signal"] {
        let out = run(&mut stage.plyfs_as_user(&MOUNT), LIMIT).expect("it ends in time");
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{}",
            told(&out)
        );
        let pid = stage.daemon("mnt");
        let copy = format!(
            "echo more >> '{0}/one'; cat '{0}/one'",
            stage.path("mnt").display()
        );
        let mut shell = as_user("sh");
        shell.args(["-c", &copy]);
        let out = run(&mut shell, LIMIT).expect("it ends in time");
        assert!(
            String::from_utf8_lossy(&out.stdout).contains("more"),
            "{}",
            told(&out)
        );
        if end == "umount" {
            let mut umount = stage.plyfs_as_user(&["umount", "mnt"]);
            let out = run(&mut umount, LIMIT).expect("it ends in time");
            assert!(
                out.status.success() && out.stderr.is_empty(),
                "{}",
                told(&out)
            );
            assert!(has_ended(pid));
        } else {
            send(pid, libc::SIGTERM);
            await_that("the daemon ends", || has_ended(pid));
        }
        assert_eq!(stage.mounted("mnt"), None, "{end}");
    }
    assert_eq!(stage.read("low/one"), "1");
    assert!(stage.read("up/one").contains("more"));
}
