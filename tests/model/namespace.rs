//! A test of this binary once more, as root of a user namespace.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::can_run;
use super::run::MOUNTS;
use super::support::skip;

/// Runs the test called `name`, in which something has to be played.
pub fn run_test(name: &str) {
    if !can_run() || skip::in_user_namespace() || !skip::has_tool("unshare") {
        return;
    }
    let _alone = MOUNTS.write().unwrap_or_else(PoisonError::into_inner);
    let own = std::env::current_exe().expect("a test has a path");
    let mut child = Command::new("unshare")
        .args(["--user", "--mount", "sh", "-c"])
        .arg("read -r go; exec \"$0\" --exact \"$1\" --nocapture")
        .arg(own)
        .arg(name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    map_ids(&child);
    let mut go = child.stdin.take().expect("it was piped");
    go.write_all(b"go\n").expect("the shell reads");
    drop(go);
    let out = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&out.stdout);
    println!("{said}");
    assert!(out.status.success(), "{}", out.status);
    assert!(
        said.contains("scripts of") || said.contains("skipped: "),
        "nothing was played"
    );
}

/// Every id is itself: what is compared are programs, not maps. The namespace is there once its
/// maps can be written.
fn map_ids(child: &Child) {
    let end = Instant::now() + Duration::from_secs(10);
    for map in ["uid_map", "gid_map"] {
        let file = format!("/proc/{}/{map}", child.id());
        while let Err(e) = std::fs::write(&file, "0 0 65536") {
            assert!(Instant::now() < end, "{file}: {e}");
            std::thread::yield_now();
        }
    }
}
