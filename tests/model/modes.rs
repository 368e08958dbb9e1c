//! The oracle over mounts with other options: the same scripts, judged the same.

use std::process::Command;
use std::time::Duration;

use super::run::Ending;
use super::support::mount::{plyfs_binary, run};
use super::support::skip;
use super::{Settings, can_run, play};

/// Plays scripts with `words` in plyfs's `-o`.
fn play_with(words: &str) {
    if can_run() {
        let mut settings = Settings::read(80, 200);
        settings.words = words.into();
        play(&settings);
    }
}

#[test]
fn marks_in_files_do_what_the_kernels_marks_do() {
    play_with("marks=files");
}

/// What the kernel does with `trusted.` xattrs only.
#[test]
fn redirects_and_index_in_user_xattrs_do_what_the_kernels_do() {
    play_with("userxattr");
}

/// Each mounts the other's upper at the end, the kernel with `userxattr`.
#[test]
fn plain_user_xattrs_are_the_kernels() {
    play_with("userxattr,redirect_dir=off,index=off,metacopy=off");
}

/// Scripts whose uppers are settled at the end; see `Game::settle`.
fn settle_with(words: &str) {
    if !can_run() {
        return;
    }
    let mut help = Command::new(plyfs_binary());
    help.arg("--help");
    let verbs = run(&mut help, Duration::from_secs(10)).expect("plyfs runs");
    if !String::from_utf8_lossy(&verbs.stdout).contains("settle") {
        return skip::skipped("needs plyfs settle");
    }
    let mut settings = Settings::read(60, 200);
    settings.words = words.into();
    settings.ending = Ending::Settle;
    play(&settings);
}

#[test]
fn the_kernel_shows_a_settled_upper_without_any_feature() {
    settle_with("");
}

#[test]
fn the_kernel_shows_a_settled_upper_with_user_xattrs() {
    settle_with("userxattr");
}
