//! Interchange: plyfs and the kernel's overlayfs take turns at one upper. A union of the
//! kernel's alone runs beside them, and every operation must do the same there.

use super::{Settings, can_run, namespace, play};

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

#[test]
fn they_take_turns_at_one_upper_that_had_parts_of_files() {
    take_turns("partial=0");
}

/// The same as root of a user namespace, where neither program has any privilege outside.
#[test]
fn they_take_turns_in_a_user_namespace() {
    namespace::run_test("interchange::they_take_turns_at_one_upper_with_user_xattrs");
}
