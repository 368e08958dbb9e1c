//! One copy-up: a file is made under a temporary name and gets its own when it is whole.

use super::extents::{self, Transfer};
use super::{Need, Settings, data, link_counted, mark_impure, meta, nlink, publish};
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::handle::Origin;
use crate::layer::metacopy::PartMark;
use crate::layer::scratch::Scratch;
use crate::layer::{Layer, Look};
use crate::merge::name::Name;
use crate::node::door::Door;
use crate::node::partial::Partial;
use crate::node::source::Source;
use crate::node::stack::Stack;
use crate::node::{Node, Place, Tree};
use crate::observe::{self, Part};
use crate::sys::fs::{
    self, O_CREAT, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
    S_ISGID, S_ISUID,
};
use crate::sys::io;
use crate::sys::path::At;
use crate::sys::xattr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
    door: Door,
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

impl Made {
    /// The mark of a partly copied file, with `origin` in it if that has room there.
    fn mark(&self, origin: Option<&Origin>) -> Option<PartMark> {
        let (Made::Partial(_, limit) | Made::Deferred(_, limit)) = *self else {
            return None;
        };
        let origin = origin.filter(|origin| PartMark::has_room_for(origin));
        Some(PartMark {
            limit,
            origin: origin.cloned(),
        })
    }
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

/// Copies up `node`, whose parent is in the upper, or else nothing.
///
/// # Errors
/// Whatever the copying met; then nothing has changed.
pub(super) fn copy_up_one(
    tree: &Tree,
    settings: &Settings,
    node: &Arc<Node>,
    need: Need,
) -> Result<()> {
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
        let made = self.make_kind(at)?;
        let new = fs::stat(at)?;
        let capable = meta::copy(
            (&self.source.layer, self.source.door.at(), &self.source.look),
            (self.upper, at, &new),
            self.node.xattrs.are_none(),
        )?;
        let mark = made.mark(origin.filter(|_| !indexed));
        let is_told = mark.as_ref().is_some_and(|mark| mark.origin.is_some());
        let recorded = is_told || self.record(at, origin, indexed)?;
        // After the origin, which differs from file to file: ext4 has room for one of the two
        // in the inode, and shares a block that says the same for many (fs/ext4/xattr.c).
        let mut partial = None;
        if let Some(mark) = mark {
            extents::announce(self.scratch)?;
            self.upper.mark_partial(at, &mark)?;
            let is_whole = matches!(made, Made::Deferred(..));
            partial = Some(Arc::new(Partial::made(mark, is_whole)));
        } else if stat.is_file() && self.need == Need::Meta {
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

    /// Makes a file of the same kind, with as much of its data as is needed and nothing else.
    fn make_kind(&self, at: At<'_>) -> Result<Made> {
        let stat = &self.source.look.stat;
        match stat.mode & S_IFMT {
            S_IFREG => return self.make_file(at),
            S_IFDIR => {
                fs::mkdir(at, stat.mode & 0o777 | 0o700)?;
                return Ok(Made::Dir);
            }
            _ if stat.is_whiteout_device() => return Err(Errno::EIO),
            S_IFLNK => fs::symlink(&self.source.readlink()?, at)?,
            kind => fs::mknod(at, self.upper.disk_format(kind) | 0o600, stat.rdev)?,
        }
        Ok(Made::Whole)
    }

    /// Records in the file at `at` where it came from, and how many links it has if it is
    /// `indexed`; whether that could be done.
    fn record(&self, at: At<'_>, origin: Option<&Origin>, indexed: bool) -> Result<bool> {
        let Some(origin) = origin else {
            return Ok(false);
        };
        let keys = self.upper.keys();
        match xattr::set(at, keys.origin, origin.as_bytes(), 0) {
            // No such xattr on this kind of file: its number is kept in memory.
            Err(e) if matches!(e.errno, Errno::EOPNOTSUPP | Errno::EPERM) && !indexed => {
                return Ok(false);
            }
            other => other?,
        }
        if indexed {
            let links = self.source.look.stat.nlink;
            nlink::write(keys, at, nlink::Base::Lower(links), links)?;
        }
        Ok(true)
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
        if len == 0 {
            return Ok(Made::Bare(to));
        }
        let from = self.source()?;
        let file = (stat.mode, len);
        Ok(
            match extents::transfer(self.tree, self.settings, self.need, file) {
                Transfer::Parts if len == from.stat.size && data::clone(&from, &to) => {
                    Made::WithData(to)
                }
                Transfer::Parts => {
                    io::truncate(&to, len)?;
                    Made::Partial(to, len)
                }
                Transfer::Deferred => {
                    // The disk has the size before the name, and without the data then.
                    io::truncate(&to, len)?;
                    data::copy(&from, &to, len.min(from.stat.size))?;
                    Made::Deferred(to, len)
                }
                Transfer::Whole => {
                    data::copy(&from, &to, len.min(from.stat.size))?;
                    if from.stat.size < len {
                        io::truncate(&to, len)?;
                    }
                    self.settings.begin_data(&to);
                    Made::WithData(to)
                }
            },
        )
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
