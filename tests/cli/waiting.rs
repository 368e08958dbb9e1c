//! What waits for a disk holds up nobody else.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::child::Ending;
use crate::support::mount::plyfs_binary;
use crate::support::{skip, sys};
use crate::tools::{Stage, await_that};

/// More than there are threads that read requests.
const SYNCS: usize = 4;
const MICROSECONDS: u32 = 3_000_000;

fn threads_called(name: &str, pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.trim_end() == name)
        .count()
}

#[test]
fn others_are_answered_while_all_readers_have_something_to_sync() {
    if !skip::can_mount() {
        return;
    }
    if !skip::has_tool("strace") {
        return skip::skipped("needs strace");
    }
    let stage = Stage::new();
    let mut strace = Command::new("strace");
    strace
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync,fdatasync",
            "-e",
        ])
        .arg(format!("inject=fsync,fdatasync:delay_enter={MICROSECONDS}"))
        .arg(plyfs_binary())
        .args([
            "mount",
            "--foreground",
            "--lower",
            "low",
            "--upper",
            "up",
            "--work",
            "work",
        ])
        .arg("mnt")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    stage.tidy(&mut strace);
    let mut strace = Ending::spawn(&mut strace).expect("strace starts");
    await_that("it is mounted", || stage.find_daemon("mnt").is_some());
    let daemon = stage.daemon("mnt");
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        for i in 0..SYNCS {
            let path = stage.path(&format!("mnt/new{i}"));
            let ended = &ended;
            scope.spawn(move || {
                let path = path.as_os_str().as_encoded_bytes();
                let open = sys::open(path, libc::O_CREAT | libc::O_RDWR, 0o644).expect("open");
                sys::pwrite(&open, b"data", 0).expect("write");
                sys::fsync(&open).expect("fsync");
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        await_that("readers have left syncs to others", || {
            threads_called("fsync", daemon) >= SYNCS - 1
        });
        assert!(!stage.path("mnt/none").exists());
        std::fs::write(stage.path("mnt/other"), "written").expect("a file can be written");
        assert_eq!(
            ended.load(Ordering::SeqCst),
            0,
            "it was answered before they ended"
        );
    });
    assert_eq!(ended.load(Ordering::SeqCst), SYNCS);
    stage.quietly(&["umount", "mnt"]);
    assert!(strace.wait().expect("it ends").success());
}
