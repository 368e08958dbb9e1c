//! Looking after an upper that is not mounted: `plyfs check` and `plyfs settle`.

mod check;
mod fuzz;
mod kill;
mod settle;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use support::lab::{Lab, shell};
use support::layers::MarkFormat;
use support::mount::{Stack, plyfs_binary, run};
use support::tree::{self, Tree};

/// Longer than any call here may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A kernel mount that follows no note of anybody's.
pub const PLAINEST: &str = "redirect_dir=nofollow,metacopy=off,index=off,xino=off";

/// `plyfs VERB` on the layers of `stack`.
pub fn verb_command(stack: &Stack, verb: &str, more: &[&str]) -> Command {
    let mut command = Command::new(plyfs_binary());
    command.arg(verb);
    for lower in &stack.lowers {
        command.arg("--lower").arg(lower);
    }
    if let Some((upper, work)) = &stack.upper {
        command.arg("--upper").arg(upper).arg("--work").arg(work);
    }
    if !stack.words.is_empty() {
        command.args(["-o", &stack.words]);
    }
    command.args(more);
    command
}

fn verb(stack: &Stack, verb: &str, more: &[&str]) -> Output {
    run(&mut verb_command(stack, verb, more), LIMIT).expect("plyfs ends in time")
}

fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Settles; it must succeed. What it said.
pub fn settle(stack: &Stack, more: &[&str]) -> String {
    let out = verb(stack, "settle", more);
    assert!(out.status.success(), "settle: {}", stderr(&out));
    assert_eq!(stderr(&out), "");
    stdout(&out)
}

/// Checks; the upper must be sound.
pub fn assert_sound(stack: &Stack) {
    let out = verb(stack, "check", &[]);
    assert!(out.status.success(), "{}{}", stdout(&out), stderr(&out));
    assert_eq!(stdout(&out).lines().count(), 1, "{}", stdout(&out));
}

/// The tree at `at` without what differs between any two mounts.
pub fn view(at: &Path) -> Tree {
    let mut view = tree::read(at);
    for node in view.values_mut() {
        // overlayfs by itself lists other numbers than it tells where layers lie on one
        // filesystem and xino is off.
        node.trouble.retain(|line| !line.starts_with("d_ino"));
    }
    view
}

/// Two views are the same, the hard links too.
pub fn assert_same(what: &str, wanted: (&str, &Tree), got: (&str, &Tree)) {
    let lines = tree::differences(wanted, got);
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
    assert_eq!(tree::groups(wanted.1), tree::groups(got.1), "{what}: links");
}

/// A lower layer with something of every kind.
pub const LOWER: &[&str] = &[
    "dir d 750",
    "dir d/sub",
    "dir d/sub/deep",
    "file d/sub/deep/z 640 1000:1000 1.5 20000 0+20000+3",
    "xattr d/sub/deep/z user.note 1",
    "file d/a",
    "file d/b",
    "link d/h d/b",
    "link other d/b",
    "dir e",
    "file e/f",
    "symlink e/s ../d/a",
    "fifo e/fifo",
    "dir moved",
    "file moved/m",
    "dir moved/in",
    "file moved/in/n",
    "dir gone",
    "file gone/g",
    "file top",
];

/// Everything that leaves something in an upper which a plain overlayfs does not read.
pub const CHANGES: &str = "
    echo more >> d/b; rm d/a
    mv moved elsewhere; mv d/sub e/sub2; rm e/sub2/deep/z; echo new > e/sub2/deep/new
    mv elsewhere/in in; mkdir elsewhere/in
    chmod 600 e/f; rm -r gone; mkdir gone; echo x > gone/new
    mkdir fresh; ln d/b fresh/link; mv top fresh/top
";

/// A stack with those changes made by plyfs, and what it showed at the end.
pub fn changed(lab: &Lab, name: &str) -> (Stack, Tree) {
    lab.layer("l", MarkFormat::Overlay, LOWER);
    let stack = lab.stack(name, &[lab.path("l")]);
    let mounted = lab.mount_stack(name, &stack);
    shell(mounted.path(), CHANGES);
    let seen = view(mounted.path());
    mounted.unmount().expect("it unmounts");
    (stack, seen)
}
