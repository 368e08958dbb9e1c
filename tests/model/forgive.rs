//! Differences that last: the kernel's side is brought to where plyfs's is, so that the rest of
//! the script can be compared. Each has its reason.

use std::os::fd::OwnedFd;

use super::execute::{Step, path};
use super::game::Game;
use super::support::{sys, tree};

impl Game {
    /// A rename that fails changes the mtime of parents in the kernel's union, and nothing in
    /// plyfs's. The kernel's are put back.
    pub fn forgive_parents(&self, paths: &[&str]) {
        for word in paths {
            let parent = word.rsplit_once('/').map_or(".", |(parent, _)| parent);
            let (Ok(theirs), Ok(ours)) = (self.kernel.lstat(parent), self.other.lstat(parent))
            else {
                continue;
            };
            if theirs.mtime != ours.mtime && tree::time(theirs.mtime) == "recent" {
                let times = [sys::OMIT, ours.mtime];
                let put_back = self.kernel.inside(|| sys::utimens(path(parent), times));
                assert!(put_back.is_ok(), "{parent}: {put_back:?}");
            }
        }
    }

    /// xfs, btrfs and tmpfs keep mtime in a truncate(2) to the same size, and set it in an
    /// open(2) with O_TRUNC; FUSE makes one request of the two, and plyfs always sets it.
    pub fn forgive_truncation(&self, step: &Step<'_>) {
        let word = step.words[1];
        let touch = |theirs: &OwnedFd, ours: &OwnedFd| {
            let recent = |fd| sys::fstat(fd).is_ok_and(|s| tree::time(s.mtime) == "recent");
            if recent(ours) && !recent(theirs) {
                sys::futimens(theirs, [sys::OMIT, sys::NOW])
            } else {
                Ok(())
            }
        };
        let outcome = if step.verb() == "truncate" {
            let open = || sys::open(path(word), libc::O_RDONLY, 0);
            self.kernel
                .inside(open)
                .and_then(|theirs| touch(&theirs, &self.other.inside(open)?))
        } else {
            let (theirs, ours) = (self.kernel.hands.file(word), self.other.hands.file(word));
            theirs.and_then(|theirs| touch(theirs, ours?))
        };
        assert!(outcome.is_ok(), "{word}: {outcome:?}");
    }
}
