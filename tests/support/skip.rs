//! When a test cannot run here: it says so, and under CI the want of FUSE is a failure.

use std::path::PathBuf;
use std::process::Command;

/// True where these tests can mount; else prints the reason.
pub fn can_mount() -> bool {
    let reason = if !super::sys::is_root() {
        "needs root"
    } else if !std::path::Path::new("/dev/fuse").exists() {
        "needs /dev/fuse"
    } else {
        return true;
    };
    skipped(reason);
    assert!(
        std::env::var_os("CI").is_none_or(|v| v != "true"),
        "CI=true, and this test cannot run: {reason}"
    );
    false
}

/// Whether this is root of a user namespace: nobody's root outside.
pub fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Where `tool` is in PATH.
pub fn find_tool(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(tool))
        .find(|at| at.exists())
}

/// True where `tool` is in PATH; else prints the reason.
pub fn has_tool(tool: &str) -> bool {
    let found = find_tool(tool).is_some();
    if !found {
        skipped(&format!("needs the program {tool}"));
    }
    found
}

/// True where the kernel has `filesystem`, loading its module if need be.
pub fn has_filesystem(filesystem: &str) -> bool {
    let listed = || {
        std::fs::read_to_string("/proc/filesystems")
            .is_ok_and(|all| all.split_whitespace().any(|word| word == filesystem))
    };
    if !listed() {
        let loaded = Command::new("modprobe").arg(filesystem).output();
        if !loaded.is_ok_and(|out| out.status.success()) || !listed() {
            skipped(&format!("needs the filesystem {filesystem}"));
            return false;
        }
    }
    true
}

pub fn skipped(why: &str) {
    println!("skipped: {why}");
}
