//! Differences that last: the kernel's side is brought to where plyfs's is, so that the rest of
//! the script can be compared. Each has its reason.

use super::execute::{Step, path};
use super::game::Game;
use super::side::Side;
use super::support::layers::number;
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

    /// xfs, btrfs and tmpfs do nothing in a truncate(2) to the same size: mtime, setuid and
    /// capabilities stay. An open(2) with O_TRUNC changes them, FUSE makes one request of the
    /// two, and plyfs always does all of it. The kernel's side does it over another size.
    pub fn forgive_truncation(&mut self, step: &Step<'_>) {
        let word = step.words[1];
        let mtime = |side: &Side| {
            let stat = match step.verb() {
                "truncate" => side.inside(|| sys::stat(path(word))),
                _ => side.hands.file(word).and_then(sys::fstat),
            };
            stat.map(|s| tree::time(s.mtime))
        };
        let recent = Ok("recent".to_string());
        if mtime(&self.other) == recent && mtime(&self.kernel) != recent {
            let longer = (number(step.words[2]) + 1).to_string();
            let words = vec![step.verb(), word, &longer];
            let detour = Step { words, ..*step };
            let outcomes = [self.kernel.perform(&detour), self.kernel.perform(step)];
            assert!(outcomes.iter().all(Result::is_ok), "{word}: {outcomes:?}");
        }
    }
}
