//! `settle` is killed at every one of its system calls that change something: the view is
//! what it was, and settling again ends well.
//!
//! `PLYFS_SETTLE_STRIDE` tries every n-th k only (7).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::lab::{Lab, shell};
use crate::support::layers::MarkFormat;
use crate::support::mount::{Stack, Subject, run};
use crate::support::skip;
use crate::support::tree::Tree;
use crate::{CHANGES, LIMIT, LOWER, PLAINEST, assert_sound, settle, verb_command, view};

/// The calls that change something.
const CALLS: &str = "mkdirat,mknodat,symlinkat,linkat,unlinkat,renameat2,openat,pwrite64,copy_file_range,ftruncate,\
                     fchownat,utimensat,setxattr,lsetxattr,removexattr,lremovexattr,ioctl,fsync,syncfs";

/// What the changes below copy the attributes of alone.
const FILLED: [&[u8]; 2] = [b"e/f", b"fresh/top"];

/// The times of directories, and of files that are given their data, may be those of the
/// moment of the kill, and the copies below are read.
fn without_times(mut view: Tree) -> Tree {
    for (path, node) in &mut view {
        node.stat.atime = (0, 0);
        if node.stat.is_dir() || FILLED.contains(&&**path) {
            node.stat.mtime = (0, 0);
        }
    }
    view
}

/// The entry of the index and its count go one after the other.
fn without_counts(view: &Tree) -> Tree {
    let mut view = view.clone();
    for node in view.values_mut() {
        node.stat.nlink = 0;
    }
    view
}

/// A changed upper to copy, with marks in two formats.
fn prepare(lab: &Lab) -> (Stack, Tree) {
    lab.layer("l", MarkFormat::Overlay, LOWER);
    let stack = lab.stack("a", &[lab.path("l")]);
    let mounted = lab.mount_stack("a", &stack);
    shell(mounted.path(), CHANGES);
    mounted.unmount().expect("it unmounts");
    shell(&lab.upper("a"), "rm top; touch .wh.top gone/.wh..wh..opq");
    let mounted = lab.mount_stack("a", &stack);
    let wanted = without_times(view(mounted.path()));
    mounted.unmount().expect("it unmounts");
    (stack, wanted)
}

/// A copy of the upper and its index, `name`d. An index only holds in its own filesystem and
/// inodes, so hard links are copied as such.
fn copy(lab: &Lab, name: &str) -> Stack {
    shell(
        &lab.path(""),
        &format!("rm -rf c-{name}; mkdir c-{name}; cp -a --reflink=never u-a w-a c-{name}/"),
    );
    let at = |part: &str| lab.path(&format!("c-{name}/{part}"));
    Stack::new(&[lab.path("l")]).upper(&at("u-a"), &at("w-a"))
}

fn count_calls(lab: &Lab, more: &[&str]) -> BTreeMap<String, u32> {
    let stack = copy(lab, "count");
    let log = lab.path("calls");
    let plain = verb_command(&stack, "settle", more);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&log);
    command.arg(plain.get_program()).args(plain.get_args());
    let out = run(&mut command, LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", crate::stderr(&out));
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(log).expect("strace's log").lines() {
        let call = line
            .split_once(' ')
            .and_then(|(_, rest)| rest.trim().split_once('('));
        if let Some((call, _)) = call
            && CALLS.split(',').any(|c| c == call)
        {
            *counts.entry(call.to_owned()).or_default() += 1;
        }
    }
    counts
}

fn shown(lab: &Lab, stack: &Stack, words: &str) -> Tree {
    let stack = stack.clone().words(words);
    let mounted = lab.mount_stack("look", &stack);
    let seen = without_times(view(mounted.path()));
    mounted.unmount().expect("it unmounts");
    seen
}

fn kill_everywhere(lab: &Lab, wanted: &Tree, more: &[&str]) {
    let stride: usize =
        std::env::var("PLYFS_SETTLE_STRIDE").map_or(7, |v| v.parse().expect("a number"));
    let to_user = more.contains(&"--userxattr");
    let mut kills = 0;
    for (call, count) in count_calls(lab, more) {
        for k in (1..=count).step_by(stride) {
            let stack = copy(lab, "kill");
            let plain = verb_command(&stack, "settle", more);
            let mut command = Command::new("strace");
            let inject = format!("inject={call}:signal=KILL:when={k}");
            command.args(["-f", "-qq", "-e", &inject, "-o", "/dev/null"]);
            command.arg(plain.get_program()).args(plain.get_args());
            let out = run(&mut command, LIMIT).expect("it ends in time");
            kills += u32::from(!out.status.success());
            let what = format!("killed at {call} {k}");
            let changed_over = Path::new(&stack.upper.as_ref().expect("an upper").1)
                .join("settling")
                .exists();
            // Between the two namespaces only settling again is allowed.
            if !to_user || !changed_over && !out.status.success() {
                let seen = shown(lab, &stack, "allow_other,suid,dev");
                same(&what, &without_counts(wanted), &without_counts(&seen));
            }
            if changed_over {
                let mounted = lab.try_mount("half", &stack, Subject::Plyfs);
                assert!(mounted.is_err_and(|e| e.contains("settle was interrupted")));
            }
            settle(&stack, more);
            let words = if to_user { "userxattr" } else { "dev" };
            same(&what, wanted, &shown(lab, &stack, words));
            let plainest = match to_user {
                true => format!("userxattr,{}", PLAINEST.replace("metacopy=off,", "")),
                false => PLAINEST.to_owned(),
            };
            let mounted = lab.mount_kernel("k", &stack.clone().words(&plainest));
            same(&what, wanted, &without_times(view(mounted.path())));
            mounted.unmount().expect("it unmounts");
            assert_sound(&stack.clone().words(words));
        }
    }
    println!("{kills} kills");
    assert!(kills > 10, "settle was killed {kills} times");
}

fn same(what: &str, wanted: &Tree, got: &Tree) {
    crate::assert_same(what, ("before", wanted), ("after", got));
}

#[test]
fn a_kill_while_settling_changes_nothing_that_is_seen() {
    if !skip::can_mount() || !skip::has_tool("strace") {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    let (_, wanted) = prepare(&lab);
    kill_everywhere(&lab, &wanted, &[]);
}

#[test]
fn a_kill_while_the_namespace_changes_loses_no_mark() {
    if !skip::can_mount() || !skip::has_tool("strace") {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    let (_, wanted) = prepare(&lab);
    kill_everywhere(&lab, &wanted, &["--userxattr"]);
}
