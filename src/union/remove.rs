//! Taking names away.

use super::spot::Spot;
use super::{Union, told};
use crate::copyup::{self, Need, nlink};
use crate::error::{Errno, Result, best_effort};
use crate::layer::dirfds::open_listing;
use crate::layer::handle::Origin;
use crate::merge::decide::{Removal, UpperHas, removal};
use crate::merge::inomap::Ino;
use crate::merge::name::Name;
use crate::node::dir::DirState;
use crate::node::door::Part;
use crate::node::lock::{hold_still, wait_for_copyup};
use crate::node::{Node, Place};
use crate::observe::Mark;
use crate::sys::fs::{self, O_NOFOLLOW, O_PATH, RENAME_EXCHANGE};
use crate::sys::path::At;
use crate::sys::xattr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What a try under the locks came to.
pub(super) enum Try<T> {
    Done(T),
    /// Let go of the locks, copy this up, and start again.
    CopyUp(Arc<Node>, Need),
    /// Let go of the locks, wait until this is copied up, and start again.
    Busy(Arc<Node>),
}

impl Union {
    /// Removes `name`, which is no directory, from `parent`.
    ///
    /// # Errors
    /// ENOENT, EISDIR, those of copy-up and of the upper.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.with_room(|| self.remove(parent, name, false))?;
        self.persist_dirs([parent])
    }

    /// Removes the empty directory `name` from `parent`.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY, those of copy-up and of the upper.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.with_room(|| self.remove(parent, name, true))?;
        self.persist_dirs([parent])
    }

    fn remove(&self, parent: Ino, name: &[u8], want_dir: bool) -> Result<()> {
        let dir = self.live_dir(parent)?;
        if self.mark_files && crate::layer::marks::is_mark_name(name) {
            return Err(Errno::ENOENT);
        }
        let name = self.existing_name(name)?;
        self.ensure(&dir, Need::Meta)?;
        loop {
            let mut names = dir.as_dir()?.changing();
            let outcome = self.remove_locked(&dir, &mut names, &name, want_dir)?;
            drop(names);
            match outcome {
                Try::Done(()) => return Ok(()),
                Try::CopyUp(node, need) => self.ensure(&node, need)?,
                Try::Busy(node) => wait_for_copyup(&node),
            }
        }
    }

    fn remove_locked(
        &self,
        dir: &Arc<Node>,
        names: &mut DirState,
        name: &Name,
        want_dir: bool,
    ) -> Result<Try<()>> {
        let spot = self.spot(dir, names, name, None)?;
        let node = spot.node().ok_or(Errno::ENOENT)?;
        match (want_dir, node.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
        if self.must_alias(node, spot.lower_links) && !node.in_upper() {
            return Ok(Try::CopyUp(node.clone(), Need::Meta));
        }
        let mut still = Vec::new();
        if let Err(busy) = hold_still([node], &mut still) {
            return Ok(Try::Busy(busy));
        }
        let mut inner = node.dir.as_ref().map(|part| part.changing());
        if let Some(inner) = &mut inner
            && !self.load(node, inner)?.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.alias(node, dir, name, spot.lower_links)?;
        let upper = self.upper_at(&spot)?;
        let in_upper = upper == UpperHas::Something;
        let below = self.below_at(&spot, names, upper)?;
        let last = self.hold_last(node, &spot, in_upper)?;
        let how = removal(in_upper, below);
        self.take_away(&spot.fd, dir, name, how, node.is_dir())?;
        if how != Removal::Plain {
            told::marked(Mark::Whiteout, dir, name);
        }
        if let Some(listing) = &mut names.listing {
            listing.remove(&self.tree.cookies, name);
        }
        self.after_removal(node, dir, name, last);
        Ok(Try::Done(()))
    }

    /// Whether `node`, seen in a lower layer as one of `lower_links` hard links, must have an
    /// upper name before it loses one, so that the count of its links stays true.
    pub(super) fn must_alias(&self, node: &Node, lower_links: Option<u32>) -> bool {
        !node.is_dir()
            && lower_links.is_some_and(|links| links > 1)
            && self.tree.is_indexed(node.kind)
    }

    /// Gives `name` the upper entry that [`Union::must_alias`] asks for.
    pub(super) fn alias(
        &self,
        node: &Node,
        dir: &Node,
        name: &Name,
        lower_links: Option<u32>,
    ) -> Result<()> {
        if let Some(links) = lower_links
            && self.must_alias(node, lower_links)
        {
            copyup::ensure_alias(&self.tree, node, dir, name, links)?;
        }
        Ok(())
    }

    /// If this name is where the upper part of `node` is reached, a descriptor that
    /// reaches it afterwards: it may be open, and other links of it may exist.
    pub(super) fn hold_last(
        &self,
        node: &Node,
        spot: &Spot<'_>,
        in_upper: bool,
    ) -> Result<Option<Arc<OwnedFd>>> {
        if !in_upper || !node.is_at(spot.dir, spot.name) {
            return Ok(None);
        }
        if let Some(open) = self.tree.held_open(node) {
            return Ok(Some(open));
        }
        let held = fs::open(spot.at(), O_PATH | O_NOFOLLOW, 0)?;
        Ok(Some(Arc::new(held)))
    }

    /// Makes `name` vanish from the union at one stroke.
    pub(super) fn take_away(
        &self,
        fd: &Arc<OwnedFd>,
        dir: &Node,
        name: &Name,
        how: Removal,
        is_dir: bool,
    ) -> Result<()> {
        let layer = self.tree.upper_layer()?;
        let scratch = self.scratch()?;
        let at = At::new(&**fd, name);
        let files = layer.caps.writes_files;
        if how != Removal::Plain {
            dir.as_dir()?.whiteouts.learn(true);
        }
        if files && how != Removal::Plain {
            // Beside a visible file it hides only what is below.
            layer.make_whiteout_file(At::fd(&**fd), name)?;
            dir.as_dir()?.upper_hints.files.learn(true);
        }
        match how {
            Removal::Whiteout if files => Ok(()),
            Removal::Whiteout => Ok(scratch.make_whiteout(at)?),
            Removal::Replace if !files => {
                let temp_name = scratch.temp_name();
                let temp = At::new(scratch.dir(), &temp_name);
                scratch.make_whiteout(temp)?;
                let flags = if is_dir { RENAME_EXCHANGE } else { 0 };
                let moved = layer.rename_with_mark(temp, at, flags);
                if is_dir || moved.is_err() {
                    scratch.discard(&temp_name);
                }
                Ok(moved?)
            }
            Removal::Plain | Removal::Replace if !is_dir => Ok(fs::unlink(at)?),
            Removal::Plain | Removal::Replace => match fs::rmdir(at) {
                // Marks are left in it: out of sight first, then taken apart.
                Err(e) if matches!(e.errno, Errno::ENOTEMPTY | Errno::EEXIST) => {
                    let temp_name = scratch.temp_name();
                    let temp = At::new(scratch.dir(), &temp_name);
                    fs::rename(at, temp, 0)?;
                    scratch.discard(&temp_name);
                    Ok(())
                }
                other => Ok(other?),
            },
        }
    }

    /// Commits to memory that `node` is no longer at `name` in `dir`.
    pub(super) fn after_removal(
        &self,
        node: &Arc<Node>,
        dir: &Node,
        name: &Name,
        held: Option<Arc<OwnedFd>>,
    ) {
        if let Place::Indexed(entry) = node.place() {
            best_effort("drop the index entry", self.drop_unused_index(node, &entry));
            return;
        }
        if !node.is_at(dir, name) {
            return;
        }
        if let Some(held) = held.as_ref().filter(|_| !node.is_single()) {
            best_effort("drop the index entry", self.drop_index_of(held));
        }
        if node.is_dir() {
            self.tree.layers.fds.drop_upper(node.ino);
        }
        let place = held.map_or(Place::Gone, Place::Held);
        self.tree.set_place(node, place);
    }

    /// As [`Union::drop_unused_index`] for the file that `held` is open on, of which no
    /// name is known, and not whether it is indexed.
    fn drop_index_of(&self, held: &OwnedFd) -> Result<()> {
        let at = At::fd(held);
        if self.tree.index_dir().is_err() || fs::stat(at)?.nlink != 1 {
            return Ok(());
        }
        let keys = self.tree.upper_layer()?.keys();
        if nlink::read(keys, at, 1, None)? != Some(0) {
            return Ok(());
        }
        let origin = xattr::get_optional(at, keys.origin)?.and_then(Origin::from_disk);
        if let Some(origin) = origin {
            let index = self.tree.index_dir()?;
            fs::unlink(At::new(&*index, &origin.index_name()))?;
        }
        Ok(())
    }

    /// An index entry goes when no name of its file is left.
    fn drop_unused_index(&self, node: &Arc<Node>, entry: &[u8]) -> Result<()> {
        if self.attr_of(node)?.stat.nlink > 0 {
            return Ok(());
        }
        let index = self.tree.index_dir()?;
        let at = At::new(&*index, entry);
        let held = fs::open(at, O_PATH | O_NOFOLLOW, 0)?;
        fs::unlink(at)?;
        self.tree.set_place(node, Place::Held(Arc::new(held)));
        Ok(())
    }

    /// Whether the upper's part of the directory that `parts` are of is really empty.
    pub(super) fn upper_is_empty(&self, parts: &[Part]) -> Result<bool> {
        let Some(Part::Upper(_, fd)) = parts.first() else {
            return Ok(true);
        };
        let open = open_listing(fd.as_fd())?;
        let mut empty = true;
        crate::sys::dir::for_each(&open, |_| {
            empty = false;
            Ok::<_, Errno>(())
        })?;
        Ok(empty)
    }
}
