//! Copy-up: a file of a lower layer comes to exist in the upper, at one stroke.

pub mod complete;
pub mod data;
pub mod durable;
pub mod extents;
pub mod meta;
pub mod nlink;
pub mod publish;

use crate::config::plan::Durability;
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::handle::Origin;
use crate::layer::keys::Keys;
use crate::layer::scratch::Scratch;
use crate::layer::{Layer, Look};
use crate::merge::name::Name;
use crate::node::partial::Partial;
use crate::node::source::Source;
use crate::node::stack::Stack;
use crate::node::{Node, Place, Tree};
use crate::observe::{self, Part};
use crate::sys::fs::{
    self, O_CREAT, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT,
    S_IFREG, S_ISGID, S_ISUID,
};
use crate::sys::io;
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How much of a file is needed in the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Owner, mode, times and xattrs; the data may stay where it is.
    Meta,
    /// As much as it takes to be written to: all of it, or a part.
    Part,
    /// All of it.
    All,
    /// This many bytes of its data: the rest is about to be cut off.
    Bytes(u64),
}

impl Need {
    /// What is copied where this is.
    fn part(self) -> Part {
        match self {
            Need::Meta => Part::Meta,
            Need::Part | Need::All | Need::Bytes(_) => Part::Whole,
        }
    }

    /// Whether a part of the data may do.
    fn may_be_partial(self) -> bool {
        matches!(self, Need::Part | Need::Bytes(_))
    }

    /// Whether `node` has what is needed.
    pub fn is_met(self, node: &Node) -> bool {
        let stack = node.stack();
        let met = self == Need::Meta
            || stack.data.is_none()
            || stack.partial.is_some() && self.may_be_partial();
        stack.upper.is_some() && met
    }
}

/// What copy-up needs beside the tree.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is on the disk when.
    pub durability: Durability,
    /// A change of metadata copies no data.
    pub metacopy: bool,
    /// A change of the data of a file that has at least so many bytes copies only the blocks
    /// that it changes.
    pub partial: Option<u64>,
    /// A copy with all of its data may be marked as a partial one, instead of being waited for,
    /// till that is on the disk.
    pub defers: bool,
}

impl Settings {
    /// Whether a change of `node`, with `len` bytes of data, of type and mode `mode`, copies
    /// only what it changes.
    pub fn copies_parts(&self, tree: &Tree, mode: u32, len: u64) -> bool {
        extents::is_wanted(tree, self, mode, len)
    }

    /// Whether a file of type and mode `mode` can be copied to `upper` without its data.
    pub fn spares_data(&self, upper: &Layer, mode: u32) -> bool {
        self.metacopy && Settings::can_lack_data(upper, mode)
    }

    /// Whether a file of type and mode `mode` of `upper` can say that its data, or a part of
    /// it, is a lower file's. Where marks are files, nobody who reads them knows of that.
    fn can_lack_data(upper: &Layer, mode: u32) -> bool {
        mode & S_IFMT == S_IFREG && upper.records_identity(mode) && !upper.caps.writes_files
    }
}

/// Makes as much of `node` exist in the upper as is needed, and its ancestors before it.
///
/// # Errors
/// EROFS without an upper; whatever the copying met, and then nothing has changed.
pub fn ensure(tree: &Tree, settings: &Settings, node: &Arc<Node>, need: Need) -> Result<()> {
    while !need.is_met(node) {
        if node.stack().partial.is_some() {
            extents::complete(tree, settings, node)?;
            continue;
        }
        if node.in_upper() {
            complete::complete(tree, settings, node, need)?;
            continue;
        }
        let next = topmost_missing(node);
        let need = if next.ino == node.ino {
            need
        } else {
            Need::Meta
        };
        copy_up_one(tree, settings, &next, need)?;
    }
    Ok(())
}

/// The first of `node` and its ancestors, from the root down, without an upper part.
fn topmost_missing(node: &Arc<Node>) -> Arc<Node> {
    let mut missing = node.clone();
    while let Place::Named(parent, _) = missing.place() {
        if parent.in_upper() {
            break;
        }
        missing = parent;
    }
    missing
}

/// One copy-up under way; whatever it has made is discarded unless it is published.
struct Job<'a> {
    tree: &'a Tree,
    settings: &'a Settings,
    node: &'a Arc<Node>,
    scratch: &'a Scratch,
    upper: &'a Arc<Layer>,
    source: Original,
    temp: Vec<u8>,
    /// What is copied of its data.
    need: Need,
}

/// The lower file.
struct Original {
    layer: Arc<Layer>,
    door: crate::node::door::Door,
    look: Look,
}

impl Original {
    /// Its target, where it is a symlink.
    fn readlink(&self) -> std::result::Result<Vec<u8>, SysError> {
        self.layer.readlink(self.door.at())
    }
}

/// What was made, as far as syncing it goes.
enum Made {
    /// A file with data.
    WithData(OwnedFd),
    /// A file without.
    Bare(OwnedFd),
    /// A file of so many bytes whose holes are the lower file's data.
    Partial(OwnedFd, u64),
    /// The same without holes, as long as the machine runs: the disk need not have its data yet.
    Deferred(OwnedFd, u64),
    /// A directory.
    Dir,
    /// What cannot be opened to be synced.
    Whole,
}

/// The whole file under its temporary name.
struct Temporary {
    /// Its inode number.
    ino: u64,
    /// Its origin is recorded in it.
    recorded: bool,
    /// How much of its data it has, where that is a part.
    partial: Option<Arc<Partial>>,
    /// Nothing of it is to be cleared by a write.
    harmless: bool,
    /// Open for reading and writing, where it is a regular file.
    file: Option<OwnedFd>,
}

fn copy_up_one(tree: &Tree, settings: &Settings, node: &Arc<Node>, need: Need) -> Result<()> {
    let upper = tree.upper_layer()?;
    let scratch = tree.layers.scratch.as_ref().ok_or(Errno::EROFS)?;
    let _single_flight = node.copyup.lock();
    if node.in_upper() {
        return Ok(());
    }
    let place = node.place();
    if let Place::Named(parent, _) = &place
        && !parent.in_upper()
    {
        // It was moved meanwhile; the caller climbs again.
        return Ok(());
    }
    let observed = observe::copying_up();
    let (layer, door) = tree.door(node)?;
    let look = layer.look(door.at())?;
    let spared =
        need == Need::Meta && look.stat.size > 0 && settings.spares_data(upper, look.stat.mode);
    let job = Job {
        tree,
        settings,
        node,
        scratch,
        upper,
        source: Original { layer, door, look },
        temp: scratch.temp_name(),
        need: match need {
            // Where metadata must not be alone, a part of the data may do.
            Need::Meta if !spared => Need::Part,
            need => need,
        },
    };
    if let Err(e) = job.run(&place) {
        scratch.discard(&job.temp);
        return Err(e);
    }
    let part = match &node.stack().partial {
        Some(partial) if !partial.is_whole() => Part::Partial,
        _ => job.need.part(),
    };
    observed.done(part, node.kind, |way| place.tell(way));
    match &place {
        Place::Named(parent, _) => settings.persist_names(upper, [&*tree.upper_dir(parent)?]),
        _ => Ok(()),
    }
}

impl Job<'_> {
    fn run(&self, place: &Place) -> Result<()> {
        let origin = self.origin()?;
        let indexed = self.index_name(origin.as_ref());
        let made = self.make(origin.as_ref(), indexed.is_some())?;
        let at = At::new(self.scratch.dir(), &self.temp);
        let adopted = (!made.recorded).then_some(self.node.ino);
        self.tree.adopt(made.ino, adopted);
        match place {
            Place::Named(parent, name) => {
                self.publish(parent, name, indexed.as_deref())?;
            }
            Place::Gone => {
                let held = fs::open(at, O_PATH | O_NOFOLLOW, 0)?;
                fs::unlink(at)?;
                self.tree.set_place(self.node, Place::Held(Arc::new(held)));
            }
            Place::Root | Place::Indexed(_) | Place::Held(_) => return Err(Errno::EIO),
        }
        if let Some(name) = indexed {
            self.tree.set_place(self.node, Place::Indexed(name.into()));
        }
        if let Some(part) = &self.node.dir {
            part.upper_hints.files.learn(false);
            part.upper_hints.impure.found(false);
            part.whiteouts.learn(false);
        }
        self.commit(made);
        Ok(())
    }

    /// Commits to memory that the node is what was made, which is published.
    fn commit(&self, made: Temporary) {
        let (node, stat) = (self.node, &self.source.look.stat);
        let whole = self.need != Need::Meta && made.partial.is_none();
        node.set_covers(true);
        node.set_plain(true);
        node.set_harmless(made.harmless);
        let stack = node.stack().copied_up(made.ino, whole, stat);
        let written = whole || made.partial.is_some();
        let begun = made.partial.is_some() && !node.is_removed();
        node.set_stack(Stack {
            partial: made.partial,
            ..stack
        });
        node.set_on_disk(false);
        self.tree.files.forget(node.ino);
        if let Some(file) = made.file.filter(|_| written) {
            // Somebody is about to write to it.
            let upper = Some(made.ino);
            self.tree.keep_open(node, Arc::new(file), true, upper);
        }
        if begun {
            self.tree.add_to_backlog(node.ino);
        }
    }

    /// The origin to record. A hard link that is not indexed gets none: its copy is
    /// no longer the file that the other names show.
    fn origin(&self) -> Result<Option<Origin>> {
        let look = &self.source.look;
        if look.covered {
            return Ok(None);
        }
        let mode = look.stat.mode;
        let parted = look.stat.nlink > 1 && self.tree.parts_links(mode);
        if parted || !self.upper.records_identity(mode) {
            return Ok(None);
        }
        Ok(Origin::of(&self.source.layer, self.source.door.at())?)
    }

    /// The index entry of a hard link.
    fn index_name(&self, origin: Option<&Origin>) -> Option<Vec<u8>> {
        let stat = &self.source.look.stat;
        let wanted = !stat.is_dir() && stat.nlink > 1 && self.tree.is_indexed(stat.mode);
        origin.filter(|_| wanted).map(Origin::index_name)
    }

    /// Makes the whole file under its temporary name.
    fn make(&self, origin: Option<&Origin>, indexed: bool) -> Result<Temporary> {
        let at = At::new(self.scratch.dir(), &self.temp);
        let stat = &self.source.look.stat;
        let from = self.source.door.at();
        let mut made = Made::Whole;
        match stat.mode & S_IFMT {
            S_IFREG => made = self.make_file(at)?,
            S_IFDIR => {
                fs::mkdir(at, stat.mode & 0o777 | 0o700)?;
                made = Made::Dir;
            }
            S_IFLNK => fs::symlink(&self.source.readlink()?, at)?,
            kind => fs::mknod(at, self.upper.disk_format(kind) | 0o600, stat.rdev)?,
        }
        if stat.format() == S_IFCHR && stat.rdev == (0, 0) {
            return Err(Errno::EIO);
        }
        let new = fs::stat(at)?;
        let capable = meta::copy(
            (&self.source.layer, from, &self.source.look),
            (self.upper, at, &new),
            self.node.xattrs.are_none(),
        )?;
        let mut recorded = origin.is_some();
        if let Some(origin) = origin {
            let keys = self.upper.keys();
            let set = crate::sys::xattr::set(at, keys.origin, origin.as_bytes(), 0);
            match set {
                // No such xattr on this kind of file: its number is kept in memory.
                Err(e) if matches!(e.errno, Errno::EOPNOTSUPP | Errno::EPERM) && !indexed => {
                    recorded = false;
                }
                other => other?,
            }
            if indexed {
                let links = stat.nlink;
                nlink::write(keys, at, nlink::Base::Lower(links), links)?;
            }
        }
        // After the origin, which differs from file to file: ext4 has room for one of the two
        // in the inode, and shares a block that says the same for many (fs/ext4/xattr.c).
        let mut partial = None;
        if let Made::Partial(_, len) | Made::Deferred(_, len) = made {
            extents::announce(self.scratch)?;
            self.upper.mark_partial(at, len)?;
            partial = Some(Arc::new(match made {
                Made::Deferred(..) => Partial::whole(len),
                _ => Partial::new(len, len, true),
            }));
        }
        if stat.is_file() && (self.need == Need::Meta || partial.is_some()) {
            self.upper.mark_metacopy(at)?;
        }
        meta::copy_times(stat, at)?;
        // Last, for what a filesystem has logged of a file it may show under its new name:
        // btrfs would after a power cut, with the mode that the temporary began with.
        let file = self.order(at, made)?;
        Ok(Temporary {
            ino: new.ino,
            recorded,
            partial,
            harmless: stat.mode & (S_ISUID | S_ISGID) == 0 && !capable,
            file,
        })
    }

    /// Sees to it that what was made at `at` is on the disk when its name may be, as far as
    /// that is wanted; its descriptor.
    fn order(&self, at: At<'_>, made: Made) -> Result<Option<OwnedFd>> {
        let strict = self.settings.is_strict();
        match &made {
            Made::WithData(file) => self.settings.order_data(self.upper, file)?,
            Made::Bare(file) | Made::Partial(file, _) if strict => self.upper.sync(file, false)?,
            Made::Partial(file, _) => self.settings.order_size(self.upper, file)?,
            // Where its data may follow, its size does not go without its marks.
            Made::Deferred(..) => {}
            Made::Dir if strict => {
                let dir = fs::open(at, O_RDONLY | fs::O_DIRECTORY | O_NOFOLLOW, 0)?;
                self.upper.sync(&dir, false)?;
            }
            Made::Bare(_) | Made::Dir | Made::Whole => {}
        }
        Ok(match made {
            Made::WithData(file)
            | Made::Bare(file)
            | Made::Partial(file, _)
            | Made::Deferred(file, _) => Some(file),
            Made::Dir | Made::Whole => None,
        })
    }

    /// What has the data of the lower file.
    fn source(&self) -> Result<Source> {
        match &self.node.stack().data {
            Some(below) => self.tree.open_source(below),
            None => self.tree.open_lower(self.node, self.source.look.stat),
        }
    }

    /// Makes a regular file with as much of the data as is needed.
    fn make_file(&self, at: At<'_>) -> Result<Made> {
        let stat = &self.source.look.stat;
        let quiet = if self.tree.atime { 0 } else { fs::O_NOATIME };
        let flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | quiet;
        // Nobody else can enter the work directory, and most need no chmod then.
        let to = fs::open(at, flags, stat.mode & 0o777 | 0o600)?;
        let len = match self.need {
            Need::Meta => {
                io::truncate(&to, stat.size)?;
                return Ok(Made::Bare(to));
            }
            Need::Part | Need::All => stat.size,
            Need::Bytes(n) => n.min(stat.size),
        };
        if len > 0 {
            let from = self.source()?;
            if self.need.may_be_partial() && self.settings.copies_parts(self.tree, stat.mode, len) {
                if len == from.stat.size && data::clone(&from, &to) {
                    return Ok(Made::WithData(to));
                }
                io::truncate(&to, len)?;
                return Ok(Made::Partial(to, len));
            }
            let deferred = self.need.may_be_partial()
                && extents::may_follow(self.tree, self.settings, stat.mode);
            if deferred {
                // The disk has the size before the name, and without the data then.
                io::truncate(&to, len)?;
            }
            data::copy(&from, &to, len.min(from.stat.size))?;
            if deferred {
                return Ok(Made::Deferred(to, len));
            }
            if from.stat.size < len {
                io::truncate(&to, len)?;
            }
            self.settings.begin_data(&to);
        }
        Ok(if len > 0 {
            Made::WithData(to)
        } else {
            Made::Bare(to)
        })
    }

    /// Gives the temporary its name, and puts the parent's times back: to the user
    /// nothing has happened there.
    fn publish(&self, parent: &Node, name: &Name, indexed: Option<&[u8]>) -> Result<()> {
        let dir = self.tree.upper_dir(parent)?;
        mark_impure(self.tree, parent, &dir)?;
        let before = fs::stat(At::fd(&*dir))?;
        let temp = At::new(self.scratch.dir(), &self.temp);
        let to = At::new(&*dir, name);
        match indexed {
            None => publish::publish(temp, to)?,
            Some(index_name) => {
                let index = self.tree.index_dir()?;
                let entry = At::new(&*index, index_name);
                publish::publish(temp, entry)?;
                let keys = self.upper.keys();
                let links = self.source.look.stat.nlink;
                let linked = link_counted(keys, entry, to, links, None);
                if let Err(e) = linked {
                    best_effort("take the index entry back", fs::unlink(entry));
                    return Err(e.errno);
                }
            }
        }
        best_effort(
            "restore the parent's times",
            meta::copy_times(&before, At::fd(&*dir)),
        );
        Ok(())
    }
}

/// Marks the upper's part `fd` of directory `dir` as holding files with an origin
/// (overlayfs.rst and `ovl_set_impure`), so that readdir looks those up.
///
/// # Errors
/// setxattr's, but that the filesystem has none.
pub fn mark_impure(tree: &Tree, dir: &Node, fd: &Arc<OwnedFd>) -> Result<()> {
    let impure = &dir.as_dir()?.upper_hints.impure;
    if impure.get() == Some(true) {
        return Ok(());
    }
    let keys = tree.upper_layer()?.keys();
    match crate::sys::xattr::set(At::fd(&**fd), keys.impure, b"y", 0) {
        Ok(()) => {}
        Err(SysError {
            errno: Errno::EOPNOTSUPP,
            ..
        }) => {}
        Err(e) => return Err(e.errno),
    }
    impure.learn(true);
    Ok(())
}

/// Gives `name` in `parent` an upper entry of its own, for a hard link that was
/// copied up through another name: overlayfs calls it the upper alias. `lower_links`
/// is the link count of the lower file.
///
/// # Errors
/// linkat's.
pub fn ensure_alias(
    tree: &Tree,
    node: &Node,
    parent: &Node,
    name: &[u8],
    lower_links: u32,
) -> Result<()> {
    let Place::Indexed(index_name) = node.place() else {
        return Ok(());
    };
    let dir = tree.upper_dir(parent)?;
    let to = At::new(&*dir, name);
    if let Ok(there) = fs::stat(to)
        && Some(there.ino) == node.stack().upper
    {
        return Ok(());
    }
    mark_impure(tree, parent, &dir)?;
    let before = fs::stat(At::fd(&*dir))?;
    let index = tree.index_dir()?;
    let entry = At::new(&*index, &index_name);
    let keys = tree.upper_layer()?.keys();
    let own = fs::stat(entry)?.nlink;
    let links = nlink::read(keys, entry, own, Some(lower_links))?.unwrap_or(lower_links);
    // The link changes the upper's count but not the union's, so for the while the
    // count is kept relative to the lower's, which stays what it is.
    nlink::write(keys, entry, nlink::Base::Lower(lower_links), links)?;
    link_counted(keys, entry, to, links, Some(own))?;
    best_effort(
        "restore the parent's times",
        meta::copy_times(&before, At::fd(&*dir)),
    );
    Ok(())
}

/// Gives the index entry, whose count is relative to the lower file, the name `to`, and
/// makes the count of `links` relative to the upper file again; or else changes nothing,
/// where the upper file's own count was `own` before.
fn link_counted(
    keys: &Keys,
    entry: At<'_>,
    to: At<'_>,
    links: u32,
    own: Option<u32>,
) -> std::result::Result<(), SysError> {
    let count = |own| nlink::write(keys, entry, nlink::Base::Upper(own), links);
    let take_back = |e| {
        if let Some(own) = own {
            best_effort("take a count of links back", count(own));
        }
        e
    };
    fs::link(entry, to).map_err(take_back)?;
    let counted = fs::stat(entry).and_then(|stat| count(stat.nlink));
    counted.map_err(|e| {
        best_effort("take a link back", fs::unlink(to));
        take_back(e)
    })
}
