//! Listing directories.

use super::{Entry, Union};
use crate::error::{Errno, Result};
use crate::merge::inomap::{Ino, ROOT};
use crate::merge::listing::{COOKIE_DOT, COOKIE_DOTDOT, Listing, Lowers};
use crate::node::Place;
use crate::node::ahead::Kind;
use crate::observe::{self, Cache};
use crate::sys::dir::{DT_DIR, DT_UNKNOWN};
use crate::sys::process::Waits;

/// One line of a directory.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where to go on after it.
    pub cookie: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Its inode number, as `stat` gives it.
    pub ino: Ino,
    /// `DT_*`.
    pub kind: u8,
    lowers: Lowers,
}

/// `DT_*` of a mode.
pub(super) fn kind_of(mode: u32) -> u8 {
    (mode >> 12) as u8 & 15
}

impl Union {
    /// At most `max` items of directory `ino` after `cookie`; none at its end.
    ///
    /// # Errors
    /// Those of reading the layers.
    pub fn readdir(&self, ino: Ino, cookie: u64, max: usize) -> Result<Vec<Item>> {
        let mut items = self.listed(ino, cookie, max)?;
        for item in items.iter_mut().filter(|item| item.ino == 0) {
            // Lookups count until they are forgotten, which dropping the entry does.
            match self.lookup(ino, &item.name)? {
                Some(entry) => {
                    item.ino = entry.attr.ino;
                    item.kind = kind_of(entry.attr.stat.mode);
                }
                None => item.kind = DT_UNKNOWN,
            }
        }
        items.retain(|item| item.ino != 0);
        Ok(items)
    }

    /// As [`Union::readdir`], with the entry of each item but `.` and `..`.
    ///
    /// # Errors
    /// Those of reading the layers.
    pub fn readdirplus(
        &self,
        ino: Ino,
        cookie: u64,
        max: usize,
    ) -> Result<Vec<(Item, Option<Entry<'_>>)>> {
        let dir = self.node(ino)?;
        let items = if cookie == 0 {
            let waits = Waits::so_far();
            let items = self.listed(ino, cookie, max)?;
            self.note_read(Kind::Dirs, &dir, waits.are_more());
            items
        } else {
            self.listed(ino, cookie, max)?
        };
        let parts = self.tree.parts(&dir)?;
        let mut out = Vec::with_capacity(items.len());
        for mut item in items {
            if item.cookie <= COOKIE_DOTDOT {
                out.push((item, None));
                continue;
            }
            let name = self.existing_name(&item.name)?;
            let seen = self.see_listed(&dir, &parts, &name, item.kind, &item.lowers);
            let entry = match seen.and_then(|seen| self.intern(&dir, &name, &parts, &seen)) {
                // It is being changed: a lookup waits for that.
                Err(Errno::ENOENT | Errno::ESTALE) => self.lookup(ino, &name)?,
                found => found?,
            };
            if let Some(entry) = entry {
                item.ino = entry.attr.ino;
                item.kind = kind_of(entry.attr.stat.mode);
                out.push((item, Some(entry)));
            }
        }
        Ok(out)
    }

    fn listed(&self, ino: Ino, cookie: u64, max: usize) -> Result<Vec<Item>> {
        let dir = self.node(ino)?;
        let part = dir.as_dir()?;
        let mut items = Vec::new();
        let dot = |cookie, name: &[u8], ino| Item {
            cookie,
            name: name.to_vec(),
            ino,
            kind: DT_DIR,
            lowers: Lowers::Unknown,
        };
        if cookie < COOKIE_DOT {
            items.push(dot(COOKIE_DOT, b".", ino));
        }
        if cookie < COOKIE_DOTDOT {
            let above = match dir.place() {
                Place::Named(parent, _) => parent.ino,
                _ => ROOT,
            };
            items.push(dot(COOKIE_DOTDOT, b"..", above));
        }
        let take = |listing: &Listing, items: &mut Vec<Item>| {
            let left = max.saturating_sub(items.len());
            let from = cookie.max(COOKIE_DOTDOT);
            items.extend(listing.after(from).take(left).map(|(cookie, e)| Item {
                cookie,
                name: e.name.to_vec(),
                ino: e.ino,
                kind: e.kind,
                lowers: listing.lowers(e),
            }));
        };
        if let Some(listing) = self.known(&part.names.read()) {
            observe::cache(Cache::Listing, true);
            take(listing, &mut items);
            return Ok(items);
        }
        observe::cache(Cache::Listing, false);
        let mut names = part.names.write();
        take(self.load(&dir, &mut names)?, &mut items);
        Ok(items)
    }
}
