//! Shrunk scripts that once failed; each must agree with the kernel's overlayfs for good.

use super::case::Case;
use super::run::Runner;
use super::support::backing::{Backing, Kind};
use super::support::mount::Subject;

/// Runs `text` on ext4 and fails with the differences.
fn agrees(text: &str) {
    if !super::can_run() {
        return;
    }
    let Some(backing) = Backing::new(Kind::Ext4) else {
        return;
    };
    let dir = backing.dir("regression");
    // The runner changes the root of its thread, so that it gets one.
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| Runner::new(dir, Subject::Plyfs).run(&Case::parse(text)))
            .join()
            .expect("the runner does not panic")
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// A file given as text: the one case in the file named by `PLYFS_ORACLE_CASE`, if any.
#[test]
fn a_case_from_a_file_agrees() {
    if let Some(path) = std::env::var_os("PLYFS_ORACLE_CASE") {
        agrees(&std::fs::read_to_string(path).expect("the case can be read"));
    }
}
