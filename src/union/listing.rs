//! Reading the directories of the layers into one listing, which then tells which names
//! there are, and where, without a look.

use super::Union;
use super::dir::kind_of;
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::Layer;
use crate::layer::dirfds::open_listing;
use crate::layer::marks::{OPAQUE_FILE, hidden_by_file, is_mark_name};
use crate::merge::inomap::{Ino, RealId};
use crate::merge::listing::{Entry as Listed, Listing, Merger};
use crate::merge::name::Name;
use crate::merge::resolve::Sighting;
use crate::node::Node;
use crate::node::dir::{DirPart, DirState};
use crate::node::door::Part;
use crate::sys::dir::{DT_CHR, DT_DIR, DT_REG, DT_UNKNOWN, for_each};
use crate::sys::fs;
use crate::sys::magic;
use crate::sys::path::At;
use parking_lot::{Mutex, RwLockReadGuard, RwLockUpgradableReadGuard};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// After so many lookups in a directory, and whenever there were half as many more, it is
/// worth a thought whether reading it whole would have been cheaper.
const FIRST_THOUGHT: u32 = 3;
/// What reading one layer's directory costs beside its entries (open, getdents64, close), in
/// entries.
const COST_OF_READING: u64 = 10;
/// What one look at a name costs, in entries that could have been read.
const COST_OF_A_LOOK: u64 = 4;
/// How much reading may cost, in what the looks have cost so far: who asks often asks on.
const HOPE: u64 = 4;
/// More are not read unasked: whoever changes a name there waits for that.
const MOST: u64 = 4096;
/// So many directories wait to be read; others are thought of again later.
const ASKED_MAX: usize = 4096;
/// Bytes that a directory's size says of one entry, at least, on any filesystem whose
/// directories have a size. It keeps large ones from being begun.
const BYTES_PER_ENTRY: u64 = 16;

/// Why the reading of a directory ended early.
enum Stop {
    TooMany,
    Failed(Errno),
}

impl From<SysError> for Stop {
    fn from(e: SysError) -> Stop {
        Stop::Failed(e.errno)
    }
}

impl From<Errno> for Stop {
    fn from(e: Errno) -> Stop {
        Stop::Failed(e)
    }
}

/// What was found in one layer's directory.
#[derive(Default)]
struct Found {
    /// What has its own name here.
    entries: Vec<Listed>,
    /// The names that are hidden in the layers below.
    hides: Vec<Name>,
    mark_files: bool,
}

impl Found {
    fn mark_file(&mut self, file: &[u8]) {
        self.mark_files = true;
        if let Some(name) = hidden_by_file(file)
            && file != OPAQUE_FILE
            && let Ok(name) = Name::new(name)
        {
            self.hides.push(name);
        }
    }
}

/// Directories in which many names were looked up: reading them may pay.
#[derive(Debug, Default)]
pub(super) struct Asked {
    some: AtomicBool,
    dirs: Mutex<VecDeque<Ino>>,
    /// Held by who reads them. One does, and all others go on answering.
    reader: Mutex<()>,
}

impl Asked {
    fn note(&self, dir: Ino) {
        let mut dirs = self.dirs.lock();
        if dirs.len() < ASKED_MAX {
            dirs.push_back(dir);
        }
        self.some.store(true, Ordering::Relaxed);
    }

    fn next(&self) -> Option<Ino> {
        let mut dirs = self.dirs.lock();
        let next = dirs.pop_front();
        self.some.store(next.is_some(), Ordering::Relaxed);
        next
    }
}

impl Union {
    /// The names of `dir`, whose lookups count: where there were many, [`Union::list_asked`]
    /// reads them all.
    pub(super) fn names_for_lookup<'n>(
        &self,
        dir: &Node,
        part: &'n DirPart,
    ) -> RwLockReadGuard<'n, DirState> {
        let names = part.names.read();
        if names.listing.is_none()
            && self.listing_life.is_none()
            && is_worth_a_thought(part.count_lookup())
        {
            self.asked.note(dir.ino);
        }
        names
    }

    /// Whether there is something for [`Union::list_asked`].
    pub fn is_much_asked(&self) -> bool {
        self.asked.some.load(Ordering::Relaxed)
    }

    /// Reads the directories in which so many names were looked up that this may pay. For who
    /// has just answered, as nobody needs to wait for it.
    pub fn list_asked(&self) {
        let Some(_alone) = self.asked.reader.try_lock() else {
            return;
        };
        while let Some(dir) = self.asked.next() {
            // Forgotten since, it needs no listing.
            if let Ok(dir) = self.node(dir) {
                best_effort("read a directory unasked", self.learn(&dir));
            }
        }
    }

    /// The listing in `names`, if there is one and it can still be believed.
    pub(super) fn known<'n>(&self, names: &'n DirState) -> Option<&'n Listing> {
        let old = |limit| names.listed_at.is_some_and(|at| at.elapsed() > limit);
        if self.listing_life.is_some_and(old) {
            return None;
        }
        names.listing.as_ref()
    }

    /// Has the listing of `dir`, unless reading it would cost much more than all lookups so far.
    fn learn(&self, dir: &Node) -> Result<()> {
        let part = dir.as_dir()?;
        // Who changes a name there need not be waited for: there will be other lookups.
        let Some(names) = part.names.try_upgradable_read() else {
            return Ok(());
        };
        let asked = u64::from(part.lookups());
        self.read_names(dir, names, |parts| {
            let looks = asked * parts * COST_OF_A_LOOK * HOPE;
            looks.saturating_sub(parts * COST_OF_READING).min(MOST)
        })?;
        Ok(())
    }

    /// Reads the names of directory `dir`, if nobody has done so and there are not very many;
    /// whether it did.
    pub(super) fn list_unasked(&self, dir: &Node) -> Result<bool> {
        self.read_names(dir, dir.as_dir()?.names.upgradable_read(), |_| MOST)
    }

    /// Reads the `names` of `dir`, if nobody has done so and there are not more than `most` says
    /// for so many parts; whether it did. Others find names meanwhile, and change none.
    fn read_names(
        &self,
        dir: &Node,
        names: RwLockUpgradableReadGuard<'_, DirState>,
        most: impl FnOnce(u64) -> u64,
    ) -> Result<bool> {
        if names.listing.is_some() || dir.is_removed() {
            return Ok(false);
        }
        let parts = self.tree.parts(dir)?;
        let Some(listing) = self.read_few(dir, &parts, most(parts.len() as u64))? else {
            return Ok(false);
        };
        RwLockUpgradableReadGuard::upgrade(names).listing = Some(listing);
        Ok(true)
    }

    /// The listing of `dir`, which consists of `parts`; `None` where it has more than `most`
    /// entries.
    fn read_few(&self, dir: &Node, parts: &[Part], most: u64) -> Result<Option<Listing>> {
        let number = parts.len() as u64;
        let mut size = 0;
        for part in parts {
            size += match part {
                Part::Lower(dir) if let Some(most) = dir.size_at_most() => most,
                _ => match self.tree.open_part(part)? {
                    Some(fd) => fs::stat(At::fd(&*fd))?.size,
                    None => 0,
                },
            };
        }
        // An ext4 directory has a block of 4 KiB for a single entry too.
        if size > (most * 4).max(256 * number) * BYTES_PER_ENTRY {
            return Ok(None);
        }
        match self.merge(dir, parts, most) {
            Ok(listing) => Ok(Some(listing)),
            Err(Stop::TooMany) => Ok(None),
            Err(Stop::Failed(e)) => Err(e),
        }
    }

    /// The listing of `dir`, whose names are locked; read from the layers if need be.
    pub(super) fn load<'n>(
        &self,
        dir: &Arc<Node>,
        names: &'n mut DirState,
    ) -> Result<&'n mut Listing> {
        if self.known(names).is_none() {
            let parts = if dir.is_removed() {
                Vec::new()
            } else {
                self.tree.parts(dir)?
            };
            let listing = self.merge(dir, &parts, u64::MAX).map_err(|e| match e {
                Stop::TooMany => Errno::EIO,
                Stop::Failed(e) => e,
            })?;
            names.listing = Some(listing);
            names.listed_at = self.listing_life.map(|_| Instant::now());
        }
        names.listing.as_mut().ok_or(Errno::EIO)
    }

    /// Reads `parts` of `dir`, which may have `most` entries together.
    fn merge(&self, dir: &Node, parts: &[Part], most: u64) -> std::result::Result<Listing, Stop> {
        let mut merger = Merger::new(&self.tree.cookies);
        let (mut lowers, mut left) = (0..u16::MAX, most);
        for part in parts {
            let lower = match part {
                Part::Upper(..) => None,
                Part::Lower(_) => lowers.next(),
            };
            let found = self.read_part(dir, part, lower, &mut left)?;
            merger.layer(found.entries, found.hides);
        }
        Ok(merger.finish())
    }

    fn read_part(
        &self,
        dir: &Node,
        part: &Part,
        lower: Option<u16>,
        left: &mut u64,
    ) -> std::result::Result<Found, Stop> {
        let mut found = Found::default();
        let Some(fd) = self.tree.open_part(part)? else {
            return Ok(found);
        };
        let layer = part.layer();
        let hints = part.hints(dir)?;
        let xattr_marks = layer.has_xattr_whiteouts(At::directory(&*fd), hints);
        for_each(
            &open_listing(fd.as_fd())?,
            |entry| -> std::result::Result<(), Stop> {
                *left = left.checked_sub(1).ok_or(Stop::TooMany)?;
                if layer.caps.reads_files && is_mark_name(entry.name) {
                    found.mark_file(entry.name);
                    return Ok(());
                }
                let Ok(name) = Name::new(entry.name) else {
                    return Ok(());
                };
                let mut kind = entry.kind;
                let may_be_other = xattr_marks || layer.kept.is_some();
                if matches!(kind, DT_CHR | DT_UNKNOWN) || kind == DT_REG && may_be_other {
                    let look = match layer.look(At::new(&*fd, &name)) {
                        Ok(look) => look,
                        Err(e) if e.errno == Errno::ENOENT => return Ok(()),
                        Err(e) => return Err(e.into()),
                    };
                    kind = kind_of(look.stat.mode);
                    let seen = layer.sighting(At::directory(&*fd), hints, &name, &look.stat);
                    if seen == Sighting::Whiteout {
                        found.hides.push(name);
                        return Ok(());
                    }
                }
                found.entries.push(Listed {
                    name,
                    ino: entry.ino,
                    kind,
                    lower,
                });
                Ok(())
            },
        )?;
        hints.files.learn(found.mark_files);
        if layer.is_upper {
            let hidden = found.mark_files || !found.hides.is_empty();
            dir.as_dir()?.whiteouts.learn(hidden);
        }
        // After the reading: whoever copies a file up marks the directory before.
        let tells = self.tells_inodes(dir, layer)?;
        for entry in &mut found.entries {
            entry.ino = self.listed_ino(layer, tells, entry);
        }
        Ok(found)
    }

    /// The union's number for `entry` of `layer`, whose number there it has; 0 where a lookup
    /// has to tell.
    fn listed_ino(&self, layer: &Layer, tells: Tells, entry: &Listed) -> u64 {
        let mode = u32::from(entry.kind) << 12;
        let told = tells.true_for(entry.kind) && (layer.is_upper || !self.tree.parts_links(mode));
        let real = RealId {
            dev: layer.dev,
            ino: entry.ino,
        };
        if told { self.tree.ino_of(real) } else { 0 }
    }

    /// For which files the inode numbers that a directory of `layer` lists are those
    /// that `stat` gives; for the others a lookup tells.
    fn tells_inodes(&self, dir: &Node, layer: &Layer) -> Result<Tells> {
        if layer.is_upper && self.is_impure(dir)? {
            return Ok(Tells::Nothing);
        }
        Ok(match layer.caps.magic {
            magic::OVERLAY | magic::FUSE => Tells::Nothing,
            // A subvolume is another device.
            magic::BTRFS => Tells::Files,
            // So is what may be mounted on a directory.
            _ if layer.is_upper || layer.private_mount => Tells::All,
            _ => Tells::Files,
        })
    }
}

/// 4, 6, 8, 12, 16, 24, 32...: at most two bits, the highest ones, are set.
fn is_worth_a_thought(asked: u32) -> bool {
    let bits = u32::BITS - asked.leading_zeros();
    asked >= FIRST_THOUGHT && asked.trailing_zeros() + 2 >= bits
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
