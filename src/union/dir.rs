//! Listing directories.

use super::{Entry, Union};
use crate::error::{Errno, Result};
use crate::layer::Layer;
use crate::layer::marks::{OPAQUE_FILE, hidden_by_file, is_mark_name};
use crate::merge::inomap::{Ino, ROOT, RealId};
use crate::merge::listing::{COOKIE_DOT, COOKIE_DOTDOT, Entry as Listed, Listing, Merger, Said};
use crate::merge::name::Name;
use crate::merge::resolve::Sighting;
use crate::node::dir::DirState;
use crate::node::door::Part;
use crate::node::{Node, Place};
use crate::observe::{self, Cache};
use crate::sys::dir::for_each;
use crate::sys::fs::{self, O_DIRECTORY, O_NOATIME, O_NOFOLLOW, O_RDONLY};
use crate::sys::path::At;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const DT_UNKNOWN: u8 = 0;
const DT_CHR: u8 = 2;
const DT_DIR: u8 = 4;
const DT_REG: u8 = 8;

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
}

/// `DT_*` of a mode.
fn kind_of(mode: u32) -> u8 {
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
        let items = self.listed(ino, cookie, max)?;
        let dir = self.node(ino)?;
        let parts = self.tree.parts(&dir)?;
        let mut out = Vec::with_capacity(items.len());
        for mut item in items {
            if item.cookie <= COOKIE_DOTDOT {
                out.push((item, None));
                continue;
            }
            let name = self.existing_name(&item.name)?;
            let seen = self.see(&dir, &parts, &name)?;
            if let Some(entry) = self.intern(&dir, &name, &parts, &seen)? {
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
            }));
        };
        if let Some(listing) = &part.names.read().listing {
            observe::cache(Cache::Listing, true);
            take(listing, &mut items);
            return Ok(items);
        }
        observe::cache(Cache::Listing, false);
        let mut names = part.names.write();
        take(self.load(&dir, &mut names)?, &mut items);
        Ok(items)
    }

    /// The listing of `dir`, whose names are locked; read from the layers if need be.
    pub(super) fn load<'n>(
        &self,
        dir: &Arc<Node>,
        names: &'n mut DirState,
    ) -> Result<&'n mut Listing> {
        if names.listing.is_none() {
            let mut merger = Merger::new(&self.tree.cookies);
            if !dir.is_removed() {
                for part in self.tree.parts(dir)? {
                    let said = self.read_part(dir, &part)?;
                    merger.layer(said);
                }
            }
            names.listing = Some(merger.finish());
        }
        names.listing.as_mut().ok_or(Errno::EIO)
    }

    fn read_part(&self, dir: &Node, part: &Part) -> Result<Vec<Said>> {
        let Some(fd) = self.tree.open_part(part)? else {
            return Ok(Vec::new());
        };
        let layer = part.layer();
        let hints = part.hints(dir)?;
        let tells = self.tells_inodes(dir, layer)?;
        let xattr_marks = layer.has_xattr_whiteouts(At::fd(&*fd), hints);
        let mut entries = Vec::new();
        let mut hidden: HashSet<Name> = HashSet::new();
        let mut whiteouts = Vec::new();
        let mut mark_files = false;
        for_each(&open_listing(&fd)?, |entry| {
            if layer.caps.reads_files && is_mark_name(entry.name) {
                mark_files = true;
                if let Some(name) = hidden_by_file(entry.name)
                    && entry.name != OPAQUE_FILE
                    && let Ok(name) = Name::new(name)
                {
                    hidden.insert(name);
                }
                return Ok(());
            }
            let Ok(name) = Name::new(entry.name) else {
                return Ok(());
            };
            let mut kind = entry.kind;
            if matches!(kind, DT_CHR | DT_UNKNOWN) || kind == DT_REG && xattr_marks {
                let look = match layer.look(At::new(&*fd, &name)) {
                    Ok(look) => look,
                    Err(e) if e.errno == Errno::ENOENT => return Ok(()),
                    Err(e) => return Err(e.errno),
                };
                kind = kind_of(look.stat.mode);
                let seen = layer.sighting(At::fd(&*fd), hints, &name, &look.stat);
                if seen == Sighting::Whiteout {
                    whiteouts.push(name);
                    return Ok(());
                }
            }
            let mode = u32::from(kind) << 12;
            let ino = if tells.true_for(kind) && (layer.is_upper || !self.tree.parts_links(mode)) {
                self.tree.ino_of(RealId {
                    dev: layer.dev,
                    ino: entry.ino,
                })
            } else {
                0
            };
            entries.push(Listed { name, ino, kind });
            Ok(())
        })?;
        hints.files.learn(mark_files);
        let mut said: Vec<Said> = whiteouts.into_iter().map(Said::Whiteout).collect();
        for entry in entries {
            let both = hidden.remove(&*entry.name);
            said.push(if both {
                Said::HereHidingBelow(entry)
            } else {
                Said::Here(entry)
            });
        }
        said.extend(hidden.into_iter().map(Said::Whiteout));
        Ok(said)
    }

    /// For which files the inode numbers that a directory of `layer` lists are those
    /// that `stat` gives; for the others a lookup tells.
    fn tells_inodes(&self, dir: &Node, layer: &Layer) -> Result<Tells> {
        const BTRFS: i64 = 0x9123_683e;
        const OVERLAY: i64 = 0x794c_7630;
        const FUSE: i64 = 0x6573_5546;
        if layer.is_upper && self.is_impure(dir)? {
            return Ok(Tells::Nothing);
        }
        Ok(match layer.caps.magic {
            OVERLAY | FUSE => Tells::Nothing,
            // A subvolume is another device.
            BTRFS => Tells::Files,
            // So is what may be mounted on a directory.
            _ if layer.is_upper || layer.private_mount => Tells::All,
            _ => Tells::Files,
        })
    }
}

#[derive(Clone, Copy)]
enum Tells {
    All,
    Files,
    Nothing,
}

impl Tells {
    fn true_for(self, kind: u8) -> bool {
        match self {
            Tells::All => true,
            Tells::Files => !matches!(kind, DT_DIR | DT_UNKNOWN),
            Tells::Nothing => false,
        }
    }
}

/// Opens the directory that `fd` reaches for listing, its access time left alone where
/// that is allowed: overlayfs does so in every layer.
pub(super) fn open_listing(fd: &OwnedFd) -> Result<OwnedFd> {
    let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    let at = At::new(fd, b".");
    match fs::open(at, flags | O_NOATIME, 0) {
        Err(e) if e.errno == Errno::EPERM => Ok(fs::open(at, flags, 0)?),
        other => Ok(other?),
    }
}
