//! Fetching what is likely to be read next; [`crate::node::ahead`] says what that is.

use super::Union;
use crate::error::{Result, best_effort};
use crate::merge::inomap::Ino;
use crate::merge::listing::{COOKIE_DOTDOT, Entry as Listed};
use crate::merge::name::Name;
use crate::node::ahead::{Kind, ReadAhead, Task};
use crate::node::{Node, Place};
use crate::sys::dir::{DT_DIR, DT_REG, DT_UNKNOWN};
use crate::sys::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The largest file that is small, bytes: the kernel asks for it by one READ.
const SMALL: usize = 128 << 10;
/// In a directory with more names none is looked for.
const NAMES_MAX: usize = 16384;
/// Of a directory that may be listed soon so many entries are looked at.
const LOOKS_MAX: usize = 1024;
/// For how long the next task is awaited.
const PATIENCE: Duration = Duration::from_millis(20);

impl Union {
    /// Fills `buf` from offset `at` of `node`, whose data is all in `file`, and notes what that
    /// says of what is read next.
    pub(super) fn read_noting(
        &self,
        node: &Node,
        file: &OwnedFd,
        buf: &mut [u8],
        at: u64,
    ) -> Result<usize> {
        if !is_noted(node, at, buf.len()) {
            return Ok(io::read_full(file, buf, at)?);
        }
        let (got, waited) = io::read_from_start(file, buf)?;
        self.note_read(Kind::Files, node, waited);
        Ok(got)
    }

    /// Notes that so many bytes at `at` of `node` will be read, and waited for.
    pub(super) fn note_wait(&self, node: &Node, at: u64, size: usize) {
        if is_noted(node, at, size) {
            self.note_read(Kind::Files, node, true);
        }
    }

    /// Notes that `node` is read for the first time, or the listing of a directory from its
    /// start, and whether that waited.
    pub(super) fn note_read(&self, kind: Kind, node: &Node, waited: bool) {
        // Where layers change under the mount nothing is read before it is asked for.
        if self.listing_life.is_none()
            && self.ahead.is_interested(waited)
            && let Place::Named(dir, name) = node.place()
        {
            self.ahead.note(kind, dir.ino, &name, waited);
        }
    }

    /// Notes that the page of directory `ino` after cookie `from` was read, of so many entries,
    /// that others follow after `to`, and whether that `waited`.
    pub fn note_page(&self, ino: Ino, (from, to): (u64, u64), entries: usize, waited: bool) {
        if self.listing_life.is_none() {
            self.ahead.note_page(ino, from, to, entries, waited);
        }
    }

    /// If something is likely to be read soon, and nobody fetches it: who does.
    pub fn begin_to_read_ahead(self: &Arc<Union>) -> Option<Fetcher> {
        self.ahead.begin().then(|| Fetcher {
            union: Arc::downgrade(self),
            ahead: self.ahead.clone(),
            has_ended: false,
        })
    }

    fn read_ahead(&self, task: Task) {
        match task {
            Task::List(kind, dir) => {
                let names = self.names_of(kind, dir).unwrap_or_default();
                self.ahead.plan(kind, dir, names);
            }
            Task::Fetch(kind, dir, names) => {
                for name in names {
                    // Whoever reads it is told why it cannot be read.
                    best_effort("fetch ahead", self.fetch(kind, dir, &name));
                }
            }
            Task::Look(dir, cookie, most) => {
                let seen = self.look_ahead(dir, cookie, most);
                let seen = best_effort("look at entries ahead", seen).flatten();
                self.ahead.note_seen(dir, seen);
            }
        }
    }

    /// The names of what is of `kind` in directory `ino`; none if it has very many.
    fn names_of(&self, kind: Kind, ino: Ino) -> Result<Vec<Name>> {
        let dir = self.node(ino)?;
        self.list_unasked(&dir)?;
        let names = dir.as_dir()?.names.read();
        let is_wanted = |entry: &Listed| match kind {
            Kind::Files => matches!(entry.kind, DT_REG | DT_UNKNOWN),
            Kind::Dirs => entry.kind == DT_DIR,
        };
        let listing = self.known(&names).filter(|all| all.len() <= NAMES_MAX);
        let entries = listing.into_iter().flat_map(|all| all.after(COOKIE_DOTDOT));
        Ok(entries
            .filter(|(_, entry)| is_wanted(entry))
            .map(|(_, entry)| entry.name.clone())
            .collect())
    }

    fn fetch(&self, kind: Kind, dir: Ino, name: &[u8]) -> Result<()> {
        let Some(entry) = self.lookup(dir, name)? else {
            return Ok(());
        };
        let (node, size) = (entry.node.node(), entry.attr.stat.size);
        match kind {
            Kind::Files if node.is_file() && !node.in_upper() => {
                if (1..=SMALL as u64).contains(&size) {
                    let file = self.tree.reader(node)?;
                    io::begin_to_read(&*file, size)?;
                    self.ahead.fetched_file(size);
                }
                Ok(())
            }
            Kind::Dirs if node.is_dir() => {
                if self.list_unasked(node)? {
                    self.ahead.fetched_directory();
                    self.look_ahead(node.ino, COOKIE_DOTDOT, LOOKS_MAX)?;
                }
                Ok(())
            }
            Kind::Files | Kind::Dirs => Ok(()),
        }
    }

    /// Looks at `most` entries of directory `ino` after `cookie`, so that those who do it next
    /// need not wait. Where the last of them is; `None` if no others follow.
    fn look_ahead(&self, ino: Ino, cookie: u64, most: usize) -> Result<Option<u64>> {
        let dir = self.node(ino)?;
        let parts = self.tree.parts(&dir)?;
        let names = dir.as_dir()?.names.read();
        let Some(listing) = self.known(&names) else {
            return Ok(None);
        };
        let after = listing.after(cookie.max(COOKIE_DOTDOT)).take(most);
        let listed = |e: &Listed| (e.name.clone(), e.kind, listing.lowers(e));
        let entries: Vec<_> = after.map(|(at, entry)| (at, listed(entry))).collect();
        drop(names);
        for (_, (name, kind, lowers)) in &entries {
            self.see_listed(&dir, &parts, name, *kind, lowers)?;
        }
        self.ahead.fetched_entries(entries.len() as u64);
        let last = entries.get(most.saturating_sub(1));
        Ok(last.map(|(at, _)| *at))
    }
}

/// Whether a read of so many bytes at `at` is the first, and likely the only one, of a small
/// lower file.
fn is_noted(node: &Node, at: u64, size: usize) -> bool {
    at == 0 && size <= SMALL && !node.in_upper()
}

/// Fetches what is likely to be read soon.
#[derive(Debug)]
pub struct Fetcher {
    /// Not held up by it.
    union: Weak<Union>,
    ahead: Arc<ReadAhead>,
    has_ended: bool,
}

impl Fetcher {
    /// Fetches as long as there is something to fetch, and the union is there.
    pub fn run(mut self) {
        while let Some(task) = self.ahead.next(PATIENCE) {
            let Some(union) = self.union.upgrade() else {
                return;
            };
            union.read_ahead(task);
        }
        self.has_ended = true;
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        if !self.has_ended {
            self.ahead.end();
        }
    }
}
