//! Interchange: plyfs and the kernel's overlayfs take turns at one upper. A union of the
//! kernel's alone runs beside them, and every operation must do the same there.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::PoisonError;

use super::run::MOUNTS;
use super::support::skip;
use super::{Settings, can_run, play};

/// Lines of a turn.
const LEG: usize = 30;

fn take_turns(words: &str) {
    if !can_run() {
        return;
    }
    let mut settings = Settings::read(60, 120);
    settings.length.leg = Some(LEG);
    if settings.words.is_empty() {
        settings.words = words.into();
    }
    play(&settings);
}

#[test]
fn plyfs_and_the_kernel_take_turns_at_one_upper() {
    take_turns("");
}

#[test]
fn they_take_turns_at_one_upper_with_user_xattrs() {
    take_turns("userxattr,redirect_dir=off,index=off,metacopy=off");
}

/// The same as root of a user namespace, where neither program has any privilege outside.
#[test]
fn they_take_turns_in_a_user_namespace() {
    if !can_run() || skip::in_user_namespace() || !skip::has_tool("unshare") {
        return;
    }
    let _alone = MOUNTS.write().unwrap_or_else(PoisonError::into_inner);
    let own = std::env::current_exe().expect("a test has a path");
    let mut child = Command::new("unshare")
        .args(["--user", "--mount", "sh", "-c"])
        .arg("read -r go; exec \"$0\" --exact \"$1\" --nocapture")
        .arg(own)
        .arg("interchange::they_take_turns_at_one_upper_with_user_xattrs")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    // Every id is itself: what is compared are programs, not maps. The namespace is there once
    // its maps can be written.
    let maps = format!("/proc/{}", child.id());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    for map in ["uid_map", "gid_map"] {
        let file = format!("{maps}/{map}");
        while let Err(e) = std::fs::write(&file, "0 0 65536") {
            assert!(std::time::Instant::now() < end, "{file}: {e}");
            std::thread::yield_now();
        }
    }
    let mut go = child.stdin.take().expect("it was piped");
    go.write_all(b"go\n").expect("the shell reads");
    drop(go);
    let out = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&out.stdout);
    println!("{said}");
    assert!(out.status.success(), "{}", out.status);
    assert!(said.contains("scripts of"), "nothing was played");
}
