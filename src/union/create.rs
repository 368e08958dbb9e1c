//! Making names: files, directories, symlinks, nodes and links.

use super::{Entry, Union, told};
use crate::copyup::{self, Need};
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::marks::whiteout_file;
use crate::layer::scratch::Scratch;
use crate::merge::decide::{Creation, UpperHas, creation};
use crate::merge::inomap::Ino;
use crate::merge::listing::{Entry as Listed, Listing};
use crate::merge::name::Name;
use crate::node::dir::DirState;
use crate::node::lock::{hold_still, wait_for_copyup};
use crate::node::stack::Stack;
use crate::node::{Node, Place};
use crate::observe::{self, Mark};
use crate::sys::creds::{Caller, as_caller};
use crate::sys::fs::{
    self, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR, RENAME_EXCHANGE, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT,
    S_IFREG, S_ISGID, S_ISUID, Stat,
};
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub enum New<'a> {
    /// A directory with these permission bits.
    Directory(u32),
    /// A symlink to this.
    Symlink(&'a [u8]),
    /// Anything else: type and permission bits, device numbers.
    Node(u32, (u32, u32)),
}

impl New<'_> {
    pub(super) fn mode(&self) -> u32 {
        match self {
            New::Directory(mode) => S_IFDIR | mode & !S_IFMT,
            New::Symlink(_) => S_IFLNK | 0o777,
            New::Node(mode, _) if mode & S_IFMT == 0 => S_IFREG | mode,
            New::Node(mode, _) => *mode,
        }
    }

    /// Makes it at `at`; a regular file is left open (with `flags` beside the usual),
    /// since it is about to be written.
    pub(super) fn make(
        &self,
        at: At<'_>,
        flags: i32,
    ) -> std::result::Result<Option<OwnedFd>, SysError> {
        let mode = self.mode();
        match self {
            New::Directory(_) => fs::mkdir(at, mode & 0o7777)?,
            New::Symlink(target) => fs::symlink(target, at)?,
            New::Node(_, rdev) if mode & S_IFMT != S_IFREG => fs::mknod(at, mode, *rdev)?,
            New::Node(..) => {
                let flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | flags;
                return fs::open(at, flags, mode & 0o7777).map(Some);
            }
        }
        Ok(None)
    }
}

/// The node of a file that was just made in the upper, and all that is known of such.
fn newborn(ino: Ino, stat: &Stat, place: Place) -> Node {
    let node = Node::new(ino, stat.format(), place, Stack::upper_only(stat.ino));
    node.set_harmless(stat.mode & (S_ISUID | S_ISGID) == 0);
    node.set_single(true);
    node.set_plain(true);
    if let Some(part) = &node.dir {
        part.names.write().listing = Some(Listing::default());
        part.upper_hints.impure.learn(false);
        part.upper_hints.files.learn(false);
        part.whiteouts.learn(false);
    }
    node
}

/// What the upper has in the way of a new name.
#[derive(Clone, Copy, Debug)]
pub(super) struct InTheWay {
    pub has: UpperHas,
    /// A whiteout file beside the name.
    pub beside: bool,
}

impl Union {
    /// Makes `new` as `name` in `parent`, for `caller`.
    ///
    /// # Errors
    /// EEXIST, EINVAL for the name of a mark, those of copy-up and of making it.
    pub fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: New<'_>,
        caller: &Caller,
    ) -> Result<Entry<'_>> {
        // A device 0:0 would be a whiteout: as overlayfs, answer as if it may not be made.
        if let New::Node(mode, (0, 0)) = new
            && mode & S_IFMT == S_IFCHR
        {
            return Err(Errno::EPERM);
        }
        let name = self.new_name(name)?;
        let entry = self.with_room(|| self.make_name(parent, &name, new, caller))?;
        self.persist_dirs([parent])?;
        Ok(entry)
    }

    fn make_name(
        &self,
        parent: Ino,
        name: &Name,
        new: New<'_>,
        caller: &Caller,
    ) -> Result<Entry<'_>> {
        let dir = self.live_dir(parent)?;
        self.ensure(&dir, Need::Meta)?;
        let mut names = dir.as_dir()?.names.write();
        let absence = names.take_absence().filter(|a| a.name == *name);
        let mut in_upper = absence.as_ref().map(|absence| absence.in_upper);
        if absence.is_none() || dir.is_removed() {
            in_upper = self.check_absent(&dir, &names, name)?;
        }
        let fd = self.tree.upper_dir(&dir)?;
        let at = At::new(&*fd, name);
        let way = self.in_the_way(&dir, &fd, name, in_upper)?;
        let open = match creation(way.has) {
            Creation::InPlace if !way.beside && !self.keeps_apart() => {
                let caller = self.tree.upper_layer()?.owners.inside(caller);
                as_caller(&caller, || new.make(at, self.quiet()))?
            }
            how => {
                let made = self.make_over_whiteout(&fd, name, new, caller, (how, way.beside))?;
                if way.beside || how == Creation::OverWhiteout {
                    told::over_whiteout(&dir, name, matches!(new, New::Directory(_)));
                }
                made
            }
        };
        // It is there: what is known of the names must not outlive a failure to look at it.
        let upper = self.tree.upper_layer()?;
        let look = upper.look(at).inspect_err(|_| names.listing = None)?;
        let stat = look.stat;
        let ino = self.tree.ino_of_stat(&stat);
        self.tree.adopt(stat.ino, None);
        let place = Place::Named(dir.clone(), name.clone());
        let (node, made) = self.tree.intern(ino, || {
            let node = newborn(ino, &stat, place);
            if way.has == UpperHas::Nothing && !way.beside {
                node.set_covers(false);
            }
            node
        });
        if !made {
            log::error!("inode {ino} of a new file is known already");
            return Err(Errno::EIO);
        }
        if let Some(open) = open {
            self.tree
                .keep_open(node.node(), Arc::new(open), true, Some(stat.ino));
        }
        self.list(&mut names, name, ino, stat.mode);
        names.note_found(ino);
        let attr = self.attr_of_look(node.node(), &look)?;
        Ok(Entry { node, attr })
    }

    /// How files are opened that are read without updating their access time.
    pub(super) fn quiet(&self) -> i32 {
        if self.tree.atime { 0 } else { fs::O_NOATIME }
    }

    /// Adds a name to a listing that is known.
    pub(super) fn list(&self, names: &mut DirState, name: &Name, ino: Ino, mode: u32) {
        if let Some(listing) = &mut names.listing {
            let entry = Listed {
                name: name.clone(),
                ino,
                kind: (mode >> 12) as u8 & 15,
                lower: None,
            };
            listing.insert(&self.tree.cookies, entry);
        }
    }

    /// EEXIST where the union shows `name` in `dir`, whose names are locked; else whether the
    /// upper has an entry there, if that was seen.
    pub(super) fn check_absent(
        &self,
        dir: &Arc<Node>,
        names: &DirState,
        name: &Name,
    ) -> Result<Option<bool>> {
        if dir.is_removed() {
            return Err(Errno::ENOENT);
        }
        let there = match self.known(names) {
            Some(listing) => listing.get(&self.tree.cookies, name).is_some(),
            // In a directory of the upper alone, making it will tell.
            None if !dir.stack().is_merged() => false,
            None => {
                let parts = self.tree.parts(dir)?;
                let seen = self.see(dir, &parts, name)?;
                if seen.is_absent() {
                    return Ok(Some(seen.first_has_entry()));
                }
                true
            }
        };
        if there { Err(Errno::EEXIST) } else { Ok(None) }
    }

    /// What the upper's part `fd` of `dir` has at a name that the union does not show;
    /// `has_entry` is whether it has an entry there, if that is known.
    pub(super) fn in_the_way(
        &self,
        dir: &Node,
        fd: &Arc<OwnedFd>,
        name: &Name,
        has_entry: Option<bool>,
    ) -> Result<InTheWay> {
        let layer = self.tree.upper_layer()?;
        let hints = &dir.as_dir()?.upper_hints;
        let beside = layer.whiteout_beside(At::fd(&**fd), hints, name)?;
        if dir.as_dir()?.whiteouts.get() == Some(false) {
            return Ok(InTheWay {
                has: UpperHas::Nothing,
                beside,
            });
        }
        let has_entry = match has_entry {
            Some(known) => known,
            None => match fs::stat(At::new(&**fd, name)) {
                Ok(_) => true,
                Err(e) if e.errno == Errno::ENOENT => false,
                Err(e) => return Err(e.errno),
            },
        };
        let has = if has_entry {
            UpperHas::Whiteout
        } else {
            UpperHas::Nothing
        };
        Ok(InTheWay { has, beside })
    }

    /// Makes `new` whole in work, and lets it take the place of a whiteout at one
    /// stroke: never is the deleted file back, never is the new one half there.
    fn make_over_whiteout(
        &self,
        fd: &Arc<OwnedFd>,
        name: &Name,
        new: New<'_>,
        caller: &Caller,
        (how, beside): (Creation, bool),
    ) -> Result<Option<OwnedFd>> {
        let scratch = self.scratch()?;
        let temp_name = scratch.temp_name();
        let temp = At::new(scratch.dir(), &temp_name);
        let at = At::new(&**fd, name);
        let layer = self.tree.upper_layer()?;
        let mut beside = beside;
        let done = (|| {
            let open = self.make_inheriting(fd, temp, new, caller)?;
            let is_dir = new.mode() & S_IFMT == S_IFDIR;
            if is_dir && (beside || how == Creation::OverWhiteout) {
                layer.make_opaque(temp)?;
            }
            match how {
                Creation::InPlace => copyup::publish::publish(temp, at)?,
                Creation::OverWhiteout if is_dir && !layer.caps.rename_exchange => {
                    // A whiteout file stands in for the device while that makes room.
                    layer.make_whiteout_file(At::fd(&**fd), name)?;
                    beside = true;
                    fs::unlink(at)?;
                    fs::rename(temp, at, 0)?;
                }
                Creation::OverWhiteout if is_dir => {
                    layer.rename_with_mark(temp, at, RENAME_EXCHANGE)?;
                    scratch.discard(&temp_name);
                }
                Creation::OverWhiteout => layer.rename_with_mark(temp, at, 0)?,
            }
            Ok(open)
        })();
        if done.is_err() {
            scratch.discard(&temp_name);
        } else if beside {
            self.drop_whiteout_file(fd, name);
        }
        done
    }

    /// Removes the whiteout file beside `name`, which something visible has replaced:
    /// should it stay, it hides only what that hides anyway.
    pub(super) fn drop_whiteout_file(&self, fd: &Arc<OwnedFd>, name: &Name) {
        if let Some(file) = whiteout_file(name) {
            best_effort("drop a whiteout file", fs::unlink(At::new(&**fd, &file)));
        }
    }

    pub(super) fn scratch(&self) -> Result<&Scratch> {
        self.tree.layers.scratch.as_ref().ok_or(Errno::EROFS)
    }

    /// Makes `name` in `parent` another name of `ino`.
    ///
    /// # Errors
    /// EEXIST, ENOENT for a file without a name, EPERM for a directory, those of
    /// copy-up and of linkat.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Entry<'_>> {
        let entry = self.with_room(|| self.link_name(ino, parent, name))?;
        self.persist_dirs([parent])?;
        Ok(entry)
    }

    fn link_name(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Entry<'_>> {
        let node = self.node(ino)?;
        let dir = self.live_dir(parent)?;
        let name = self.new_name(name)?;
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        loop {
            if node.is_removed() && !self.has_links(&node) {
                return Err(Errno::ENOENT);
            }
            self.ensure(&node, Need::Meta)?;
            // Where it is now tells whether it goes by the index.
            self.ensure(&node, self.need_of_link(&node))?;
            self.ensure(&dir, Need::Meta)?;
            let mut names = dir.as_dir()?.names.write();
            let absence = names.take_absence().filter(|a| a.name == name);
            let in_upper = match absence {
                Some(absence) if !dir.is_removed() => Some(absence.in_upper),
                _ => self.check_absent(&dir, &names, &name)?,
            };
            let mut still = Vec::new();
            if let Err(busy) = hold_still([&node], &mut still) {
                drop(names);
                wait_for_copyup(&busy);
                continue;
            }
            return self.link_locked(&node, &dir, &mut names, (&name, in_upper));
        }
    }

    /// What a file needs before it gets another name: its data, where it cannot note where
    /// in the lower layers that is.
    fn need_of_link(&self, node: &Node) -> Need {
        match node.place() {
            Place::Named(..) if self.redirects.writes() => Need::Meta,
            _ => Need::All,
        }
    }

    /// Notes in `node`, whose upper file is at `at`, where its data lies.
    fn redirect_link(&self, node: &Node, at: At<'_>) -> Result<()> {
        let (parent, name) = self.tree.name_of(node)?;
        if let Some(redirect) = self.redirect_for(node, &parent, &name, false, at)? {
            node.set_plain(false);
            self.tree.upper_layer()?.set_redirect(at, &redirect)?;
            let target = redirect.to_disk();
            observe::marked(
                Mark::Redirect,
                |way| parent.tell_way_to(&name, way),
                Some(&target),
            );
        }
        Ok(())
    }

    fn has_links(&self, node: &Node) -> bool {
        node.in_upper() && self.attr_of(node).is_ok_and(|attr| attr.stat.nlink > 0)
    }

    fn link_locked(
        &self,
        node: &Arc<Node>,
        dir: &Arc<Node>,
        names: &mut DirState,
        (name, has_entry): (&Name, Option<bool>),
    ) -> Result<Entry<'_>> {
        let fd = self.tree.upper_dir(dir)?;
        let at = At::new(&*fd, name);
        let from = self.tree.upper_door(node)?;
        let way = self.in_the_way(dir, &fd, name, has_entry)?;
        let upper = node.stack().upper.ok_or(Errno::EIO)?;
        if node.stack().data.is_some() {
            self.redirect_link(node, from.at())?;
        }
        let own = crate::merge::inomap::RealId {
            dev: self.tree.upper_layer()?.dev,
            ino: upper,
        };
        if self.tree.ino_of(own) != node.ino {
            copyup::mark_impure(&self.tree, dir, &fd)?;
        }
        node.set_single(false);
        match creation(way.has) {
            Creation::InPlace => fs::link(from.at(), at)?,
            Creation::OverWhiteout => {
                let scratch = self.scratch()?;
                let temp_name = scratch.temp_name();
                let temp = At::new(scratch.dir(), &temp_name);
                fs::link(from.at(), temp)?;
                if let Err(e) = self.tree.upper_layer()?.rename_with_mark(temp, at, 0) {
                    scratch.discard(&temp_name);
                    return Err(e.errno);
                }
            }
        }
        if way.beside {
            self.drop_whiteout_file(&fd, name);
        }
        if way.beside || way.has == UpperHas::Whiteout {
            told::over_whiteout(dir, name, false);
        }
        self.list(names, name, node.ino, node.kind);
        let place = Place::Named(dir.clone(), name.clone());
        if node.is_removed() {
            self.tree.set_place(node, place);
        }
        let (entry, _) = self.tree.intern(node.ino, || {
            log::debug!("inode {} was forgotten while it was linked", node.ino);
            let place = Place::Named(dir.clone(), name.clone());
            Node::new(node.ino, node.kind, place, Stack::upper_only(upper))
        });
        let attr = self.attr_of(entry.node())?;
        Ok(Entry { node: entry, attr })
    }
}
