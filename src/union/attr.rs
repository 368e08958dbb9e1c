//! Attributes: what a file is like, and changing it.

use super::Union;
use crate::copyup::{Need, extents, nlink};
use crate::error::{Errno, Result, SysError};
use crate::layer::{Layer, Look};
use crate::merge::inomap::Ino;
use crate::node::lock::hold;
use crate::node::stack::DataBelow;
use crate::node::{Node, Place};
use crate::observe::{self, Cause};
use crate::sys::creds::Caller;
use crate::sys::fs::{self, S_ISGID, S_ISUID, SetTime, Stat};
use crate::sys::io;
use crate::sys::path::At;
use crate::sys::privilege;
use std::sync::Arc;

const S_IXGRP: u32 = 0o010;

/// What a file of the union is like.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    /// The union's inode number.
    pub ino: Ino,
    /// The rest; its own `dev` and `ino` are those of the real file.
    pub stat: Stat,
}

/// What setuid, setgid and capabilities go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// A write or the like of somebody who may be privileged.
    Write,
    /// One of somebody who is not, as the kernel says.
    UnprivilegedWrite,
    /// A change of owner: privilege saves the group's bit alone.
    Chown,
}

/// What is to change; `None` is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

impl SetAttr {
    /// How much of a file this needs in the upper.
    pub fn need(&self) -> Need {
        self.size.map_or(Need::Meta, Need::Bytes)
    }

    /// What somebody did who changes this.
    fn cause(&self) -> Cause {
        match self {
            SetAttr { size: Some(_), .. } => Cause::Truncate,
            SetAttr { uid: Some(_), .. } | SetAttr { gid: Some(_), .. } => Cause::Chown,
            SetAttr { mode: Some(_), .. } => Cause::Chmod,
            SetAttr { atime: Some(_), .. } | SetAttr { mtime: Some(_), .. } => Cause::Utimens,
            _ => Cause::Setattr,
        }
    }
}

impl Union {
    /// The attributes of `ino`.
    ///
    /// # Errors
    /// ESTALE for an unknown number, else statx's.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        let node = self.node(ino)?;
        self.attr_of(&node)
    }

    pub(super) fn attr_of(&self, node: &Node) -> Result<Attr> {
        let partial = node.stack().partial.clone();
        loop {
            let before = partial.as_ref().map(|partial| partial.fillings());
            let (mut look, links) = self.tree.on_file(node, |layer, at| {
                let look = layer.look(at)?;
                let links = self.links(node, layer, at, &look.stat)?;
                Ok(((look, links), look.stat.ino))
            })?;
            match partial.as_ref().map(|partial| partial.fillings()) {
                Some((_, Some(unfilled))) => {
                    look.stat.mtime = unfilled.mtime;
                    look.stat.mode = unfilled.mode;
                }
                after if after != before => continue,
                _ => {}
            }
            return Ok(self.attr_with(node, &look, links));
        }
    }

    /// The attributes of `node`, whose topmost real file was just looked at.
    pub(super) fn attr_of_look(&self, node: &Node, look: &Look) -> Result<Attr> {
        if node.stack().partial.is_none() && self.has_own_links(node, &look.stat) {
            return Ok(self.attr_with(node, look, None));
        }
        self.attr_of(node)
    }

    fn attr_with(&self, node: &Node, look: &Look, links: Option<u32>) -> Attr {
        let mut stat = look.stat;
        if let Some(links) = links {
            stat.nlink = links;
        } else if node.is_dir() {
            let stack = node.stack();
            let parts = stack.lower_dirs().len() + usize::from(stack.upper.is_some());
            // As overlayfs: a count of subdirectories would need a scan.
            if parts > 1 || self.static_nlink {
                stat.nlink = 1;
            }
        }
        if matches!(node.place(), Place::Gone) {
            stat.nlink = 0;
        }
        let stack = node.stack();
        if let Some(DataBelow::File(data)) = stack.data.as_deref() {
            let (size, blocks) = data.size;
            if stack.partial.is_some() {
                let most = stat.size.div_ceil(u64::from(stat.blksize.max(1))) * 8;
                stat.blocks = stat.blocks.max(blocks.min(most));
                return Attr {
                    ino: node.ino,
                    stat,
                };
            }
            stat.blocks = blocks;
            // A copy without data is never made of an empty file: its size was lost in a
            // power cut (see `Layer::logs_files_apart`).
            if stat.size == 0 {
                stat.size = size;
            }
        }
        Attr {
            ino: node.ino,
            stat,
        }
    }

    /// Whether the link count of the real file is the union's.
    fn has_own_links(&self, node: &Node, stat: &Stat) -> bool {
        node.is_dir()
            || self.tree.index_dir().is_err()
            || !node.in_upper()
            || stat.nlink == 0
            || stat.nlink == 1 && matches!(node.place(), Place::Named(..))
    }

    fn links(
        &self,
        node: &Node,
        layer: &Layer,
        at: At<'_>,
        stat: &Stat,
    ) -> std::result::Result<Option<u32>, SysError> {
        if self.has_own_links(node, stat) {
            return Ok(None);
        }
        nlink::read(layer.keys(), at, stat.nlink, None)
    }

    /// Changes attributes; what they are then.
    ///
    /// # Errors
    /// Those of copy-up, and of the calls that make the change.
    pub fn setattr(&self, ino: Ino, set: &SetAttr, caller: &Caller) -> Result<Attr> {
        let node = self.node(ino)?;
        if set.size.is_some() && !node.is_file() {
            return Err(if node.is_dir() {
                Errno::EISDIR
            } else {
                Errno::EINVAL
            });
        }
        observe::cause(set.cause());
        self.with_room(|| self.ensure(&node, set.need()))?;
        if let Some(size) = set.size {
            self.cut(&node, size)?;
        }
        self.change(&node, set, caller)?;
        self.persist(&node)?;
        self.attr_of(&node)
    }

    /// Changes attributes of `node`, whose size is as it shall be.
    fn change(&self, node: &Arc<Node>, set: &SetAttr, caller: &Caller) -> Result<()> {
        let _still = hold(node);
        let owner = set.uid.is_some() || set.gid.is_some();
        if set.size.is_some() {
            self.clear_held(node, caller, Loss::Write)?;
        }
        let upper = self.tree.upper_layer()?;
        if set.size.is_some() && upper.kept.is_some() && !node.is_harmless() {
            // As the filesystem does by itself to those that it knows of.
            upper.clear_capability(self.tree.upper_door(node)?.at());
        }
        let nothing = set.size.is_none() && !owner && set.mode.is_none();
        if nothing && set.atime.is_none() && set.mtime.is_none() {
            self.clear_for_no_change(node, caller)?;
        }
        let door = self.tree.upper_door(node)?;
        if owner {
            // chown by the daemon clears the rest, but not what a stranger loses.
            self.clear_held(node, caller, Loss::Chown)?;
            self.tree
                .upper_layer()?
                .chown(door.at(), set.uid, set.gid)?;
        }
        if let Some(mode) = set.mode {
            self.tree.upper_layer()?.chmod(door.at(), mode & 0o7777)?;
            // It has no capabilities still, if that was known.
            node.set_harmless(node.is_harmless() && mode & (S_ISUID | S_ISGID) == 0);
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let or_omit = |t: Option<SetTime>| t.unwrap_or(SetTime::Omit);
            fs::utimens(door.at(), or_omit(set.atime), or_omit(set.mtime))?;
        }
        Ok(())
    }

    fn cut(&self, node: &Arc<Node>, size: u64) -> Result<()> {
        let partial = node.stack().partial.is_some();
        if !partial || !extents::truncate(&self.tree, &self.settings, node, size)? {
            let file = self.tree.writer(node)?;
            io::truncate(&*file, size)?;
        }
        Ok(())
    }

    /// A request to set nothing is what the kernel makes of two things: chown(-1, -1),
    /// which clears like any chown, and the end of a write by root to a file whose
    /// capabilities it has just removed (`__remove_privs`), which keeps the mode.
    fn clear_for_no_change(&self, node: &Arc<Node>, caller: &Caller) -> Result<()> {
        if node.took_capability_removed() && privilege::keeps_at_write(caller) {
            return Ok(());
        }
        self.clear_held(node, caller, Loss::Chown)
    }

    /// Clears what a write by `caller` clears: capabilities, and without privilege setuid, and
    /// setgid of an executable or of a stranger to the group. The daemon's own
    /// writes do not, for it may keep them.
    ///
    /// # Errors
    /// fchmodat's.
    pub(super) fn clear_privileges(
        &self,
        node: &Arc<Node>,
        caller: &Caller,
        by: Loss,
    ) -> Result<()> {
        if node.is_harmless() {
            return Ok(());
        }
        let _still = hold(node);
        self.clear_held(node, caller, by)
    }

    /// The same for a node that is held.
    fn clear_held(&self, node: &Arc<Node>, caller: &Caller, by: Loss) -> Result<()> {
        if node.is_harmless() || !node.is_file() {
            return Ok(());
        }
        let door = self.tree.upper_door(node)?;
        let upper = self.tree.upper_layer()?;
        let stat = upper.look(door.at())?.stat;
        let mode = stat.mode & 0o7777;
        let loses = match by {
            Loss::Chown if mode & (S_ISUID | S_ISGID) == 0 => return Ok(()),
            Loss::Write if mode & (S_ISUID | S_ISGID) == 0 => false,
            Loss::Write => !privilege::keeps_at_write(caller),
            Loss::Chown | Loss::UnprivilegedWrite => true,
        };
        let mut kept = mode;
        if loses {
            kept &= !S_ISUID;
            if mode & S_ISGID != 0 && (mode & S_IXGRP != 0 || self.is_stranger(&stat, caller)) {
                kept &= !S_ISGID;
            }
        }
        if kept != mode {
            upper.chmod(door.at(), kept)?;
        }
        upper.clear_capability(door.at());
        // What a member of the group may leave, a stranger may have to clear.
        node.set_harmless(kept & (S_ISUID | S_ISGID) == 0);
        Ok(())
    }

    /// Whether `caller` is a stranger to the group of the file that `stat` is of: neither a
    /// member nor somebody who rules over the file.
    pub(super) fn is_stranger(&self, stat: &Stat, caller: &Caller) -> bool {
        !privilege::keeps_setgid(caller, stat.uid, stat.gid)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// EINVAL where it is none.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        self.tree.on_file(&node, |layer, at| {
            let target = layer.readlink(at)?;
            let inode = if node.in_upper() {
                fs::stat(at)?.ino
            } else {
                0
            };
            Ok((target, inode))
        })
    }
}
