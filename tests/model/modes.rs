//! The oracle over mounts with other options: the same scripts, judged the same.

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

/// The kernel asks before it opens a file.
#[test]
fn copying_up_at_open_does_what_the_kernel_does() {
    play_with("copyup=open");
}

#[test]
fn files_that_are_passed_through_do_what_the_kernels_do() {
    if skip::in_user_namespace() {
        return skip::skipped("passing files through needs root of the machine");
    }
    play_with("io=passthrough");
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

/// Every copy-up is one of the blocks that are written, and now one mount and now another gives
/// files the rest of their data, or none does; see `Side::mount`.
#[test]
fn files_that_are_copied_up_in_parts_do_what_the_kernels_do() {
    play_with("partial=0");
}

#[test]
fn parts_with_user_xattrs_do_what_the_kernels_files_do() {
    play_with("partial=0,userxattr");
}
