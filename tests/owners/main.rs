//! Owners: shown by a map, all as one, or kept in xattrs; with real changes of ids.
//!
//! `PLYFS_FUSE_OVERLAYFS` names the programs, with colons between, whose stores are read and
//! who read those of plyfs.

mod idmapped;
mod kept;
mod maps;
mod privileges;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod words;

use std::path::Path;
use support::lab::shell;

/// Tools that the scripts of these tests use.
pub fn has_tools() -> bool {
    ["setpriv", "setfacl", "getfacl", "setfattr", "getfattr"]
        .iter()
        .all(|tool| support::skip::has_tool(tool))
}

/// An ordinary user whom every system has: fusermount3 asks for the name.
pub const USER: u32 = 1;

/// True where that user may mount; else prints the reason.
pub fn user_can_mount() -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata("/dev/fuse").map(|found| found.permissions().mode());
    let open = mode.is_ok_and(|mode| mode & 0o006 == 0o006);
    if !open {
        support::skip::skipped("/dev/fuse is not for everyone here");
    }
    open && support::skip::has_tool("fusermount3")
}

/// `uid:gid` of the files named, in order.
pub fn owners(at: &Path, names: &str) -> String {
    shell(at, &format!("stat -c %u:%g {names}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs `snippet` in `at` with the uid and gid `id` and no other groups.
pub fn shell_as(id: u32, at: &Path, snippet: &str) -> String {
    let quoted = snippet.replace('\'', "'\\''");
    shell(
        at,
        &format!("setpriv --reuid {id} --regid {id} --clear-groups sh -ec '{quoted}'"),
    )
}

/// What the script says to stderr, and whether it ended well.
pub fn fails(at: &Path, snippet: &str) -> String {
    shell(
        at,
        &format!("LC_ALL=C; export LC_ALL; ( {snippet} ) 2>&1 && echo WELL || true"),
    )
}
