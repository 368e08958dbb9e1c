//! `Pages`: how far a directory that is read page by page is looked at ahead.

use super::Task;
use crate::merge::inomap::Ino;

/// How many pages are.
const PAGES: usize = 4;

/// How a directory is read page by page.
#[derive(Debug)]
pub struct Pages {
    dir: Ino,
    /// Where the next page begins.
    next: u64,
    /// How many entries it has, about.
    entries: usize,
    /// Up to this cookie entries were looked at ahead, and how many after `next`.
    seen: u64,
    ahead: usize,
}

impl Pages {
    /// What `before` becomes when the page of directory `dir` between these cookies is read,
    /// of so many entries, and that `waited` or did not.
    pub fn follow(
        before: Option<Pages>,
        dir: Ino,
        (from, to): (u64, u64),
        entries: usize,
        waited: bool,
    ) -> Option<Pages> {
        let (seen, ahead) = match &before {
            Some(pages) if (pages.dir, pages.next) == (dir, from) => {
                (pages.seen, pages.ahead.saturating_sub(entries))
            }
            _ if waited => (to, 0),
            _ => return before,
        };
        Some(Pages {
            dir,
            next: to,
            entries: entries.max(1),
            seen,
            ahead,
        })
    }

    /// Notes that the entries of `dir` up to `cookie` were looked at; `None` if there are no
    /// more.
    pub fn look(mut self, dir: Ino, cookie: Option<u64>) -> Option<Pages> {
        if self.dir == dir {
            self.seen = self.seen.max(cookie?);
        }
        Some(self)
    }

    /// Whether more are to be looked at.
    pub fn wants(&self) -> bool {
        self.ahead <= self.entries * PAGES / 2
    }

    /// What is to be done next.
    pub fn task(&mut self) -> Option<Task> {
        let most = self.entries * PAGES;
        self.wants().then(|| {
            let more = most - self.ahead;
            self.ahead = most;
            Task::Look(self.dir, self.seen.max(self.next), more)
        })
    }
}
