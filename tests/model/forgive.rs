//! Differences that last: lines are left out, or the kernel's side is brought to where plyfs's is,
//! so that the rest of the script can be compared. Each has its reason.

use std::os::fd::OwnedFd;

use super::execute::{Step, path};
use super::game::Game;
use super::side::Side;
use super::support::layers::number;
use super::support::mount::Subject;
use super::support::{sys, tree};

impl Game {
    /// Lines that one of the two cannot do right in this kind of mount; they are left out.
    pub fn is_beyond_compare(&self, step: &Step<'_>, before: &[sys::Res<sys::Stat>]) -> bool {
        match step.verb() {
            "link" => self.plain && links_a_special(before),
            "rename" => self.confined && may_be_one_file(before),
            // Where it clones, the kernel stops at the last whole block; a partly copied file
            // is copied by the kernel, all of it.
            "copyrange" => self.other.mixes && !number(step.words[5]).is_multiple_of(4096),
            // The write that brings a store to the upper takes setuid away, for the daemon has
            // no privilege over the upper's filesystem: the safe side.
            "mmap" => {
                let file = self.kernel.hands.file(step.words[1]).and_then(sys::fstat);
                self.confined && file.is_ok_and(|s| s.mode & (libc::S_ISUID | libc::S_ISGID) != 0)
            }
            _ => false,
        }
    }

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

    /// Opening for writing a file whose data is in a lower layer still copies the data up in the
    /// kernel's union, and changes its mtime by that. It is put back; where the kernel has the
    /// other side's turn, there too.
    pub fn forgive_opening(&mut self, step: &Step<'_>) {
        let (theirs, ours) = (
            self.kernel.mtime_of_subject(step),
            self.other.mtime_of_subject(step),
        );
        let (Ok(theirs), Ok(ours)) = (theirs, ours) else {
            return;
        };
        let is_recent = |t| tree::time(t) == "recent";
        let outcome = match (is_recent(theirs), is_recent(ours)) {
            (true, false) => self.kernel.set_mtime_of_subject(step, ours),
            (false, true) if self.other.subject == Subject::Kernel => {
                self.other.set_mtime_of_subject(step, theirs)
            }
            _ => Ok(()),
        };
        assert!(outcome.is_ok(), "{}: {outcome:?}", step.words[1]);
    }

    /// btrfs leaves the mtime where a hole is punched into a hole. A partly copied file gets
    /// zeros written there, which changes it. So does the kernel's side then.
    pub fn forgive_punching(&mut self, step: &Step<'_>) {
        let (theirs, ours) = (
            self.kernel.mtime_of_subject(step),
            self.other.mtime_of_subject(step),
        );
        if let (Ok(theirs), Ok(ours)) = (theirs, ours)
            && self.other.mixes
            && tree::time(theirs) != "recent"
            && tree::time(ours) == "recent"
        {
            let set = self.kernel.set_mtime_of_subject(step, ours);
            assert!(set.is_ok(), "{}: {set:?}", step.words[1]);
        }
    }

    /// xfs, btrfs and tmpfs do nothing in a truncate(2) to the same size: mtime, setuid and
    /// capabilities stay. An open(2) with O_TRUNC changes them, FUSE makes one request of the
    /// two, and plyfs always does all of it. The kernel's side does it over another size.
    pub fn forgive_truncation(&mut self, step: &Step<'_>) {
        let word = step.words[1];
        let changed = |side: &Side| {
            side.on_subject(step, |fd| {
                let capable = sys::fgetxattr(fd, "security.capability").is_ok();
                sys::fstat(fd).map(|s| (tree::time(s.mtime), s.mode, capable))
            })
        };
        let (other, kernel) = (changed(&self.other), changed(&self.kernel));
        let is_recent = other.as_ref().is_ok_and(|(mtime, ..)| mtime == "recent");
        if is_recent && other != kernel {
            let longer = (number(step.words[2]) + 1).to_string();
            let words = vec![step.verb(), word, &longer];
            let detour = Step { words, ..*step };
            let outcomes = [self.kernel.perform(&detour), self.kernel.perform(step)];
            assert!(outcomes.iter().all(Result::is_ok), "{word}: {outcomes:?}");
        }
    }
}

impl Side {
    /// Runs `work` on the file that the line opened, or that its path leads to.
    fn on_subject<T>(
        &self,
        step: &Step<'_>,
        work: impl Fn(&OwnedFd) -> sys::Res<T>,
    ) -> sys::Res<T> {
        if step.on_slot() {
            return self.hands.file(step.words[1]).and_then(work);
        }
        let flags = libc::O_RDONLY | libc::O_NOATIME | libc::O_NONBLOCK;
        self.inside(|| work(&sys::open(path(step.words[1]), flags, 0)?))
    }

    fn mtime_of_subject(&self, step: &Step<'_>) -> sys::Res<sys::Time> {
        self.on_subject(step, |fd| sys::fstat(fd).map(|s| s.mtime))
    }

    fn set_mtime_of_subject(&self, step: &Step<'_>, time: sys::Time) -> sys::Res<()> {
        self.on_subject(step, |fd| sys::futimens(fd, [sys::OMIT, time]))
    }
}

/// Whether the file to be linked can have no `user.` xattr. The kernel's overlayfs loses track of
/// such a file with two names: each shows its own attributes, some calls answer ESTALE.
fn links_a_special(stats: &[sys::Res<sys::Stat>]) -> bool {
    matches!(stats.first(), Some(Ok(stat)) if !stat.is_file() && !stat.is_dir())
}

/// Whether a rename may be from one name of a file to another: where the kernel's overlayfs looks
/// no origin up, it takes them for two files sometimes, and says ESTALE.
fn may_be_one_file(stats: &[sys::Res<sys::Stat>]) -> bool {
    matches!(stats, [Ok(a), Ok(b)] if a.nlink > 1 && b.nlink > 1 && !a.is_dir())
}
