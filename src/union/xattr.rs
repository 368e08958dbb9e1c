//! Extended attributes and ACLs.

use super::Union;
use crate::copyup::Need;
use crate::error::{Errno, Result, best_effort};
use crate::layer::private;
use crate::merge::inomap::Ino;
use crate::node::Node;
use crate::node::stack::Lower;
use crate::sys::creds::Caller;
use crate::sys::fs::{self, S_ISGID};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CString;

fn key(name: &[u8]) -> Result<CString> {
    CString::new(private::to_disk(name).into_owned()).map_err(|_| Errno::EINVAL)
}

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const ACL_PREFIX: &[u8] = b"system.posix_acl_";
const CAPABILITY: &[u8] = b"security.capability";

impl Union {
    fn on_xattr<T>(
        &self,
        node: &Node,
        act: impl Fn(At<'_>) -> std::result::Result<T, crate::error::SysError>,
    ) -> Result<T> {
        self.tree.on_file(node, |_, at| {
            let value = act(at)?;
            let ino = if node.in_upper() {
                fs::stat(at)?.ino
            } else {
                0
            };
            Ok((value, ino))
        })
    }

    /// The value of xattr `name` on `ino`.
    ///
    /// # Errors
    /// ENODATA where there is none, EOPNOTSUPP where there can be none.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if name == CAPABILITY && node.is_harmless() {
            // The kernel asks before the first write to each file.
            return Err(Errno::ENODATA);
        }
        if !self.may_have_xattrs(&node) && !name.starts_with(ACL_PREFIX) {
            return Err(Errno::EOPNOTSUPP);
        }
        if name == CAPABILITY && !node.xattrs.have_no_capability() {
            // Who asks this of every file asks for the list next. Where there is none, the
            // question itself will tell.
            best_effort("list xattrs", self.list_xattrs(&node));
        }
        if self.is_ruled_out(&node, name) {
            return Err(Errno::ENODATA);
        }
        let key = key(name)?;
        match self.on_xattr(&node, |at| xattr::get(at, &key)) {
            // The kernel's permission check takes ENODATA alone for "there is no ACL".
            Err(Errno::EOPNOTSUPP) if name.starts_with(ACL_PREFIX) => Err(Errno::ENODATA),
            other => other,
        }
    }

    /// The names of all xattrs on `ino`, each ended by NUL.
    ///
    /// # Errors
    /// listxattr's.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if node.xattrs.are_none() || !self.may_have_xattrs(&node) {
            return Ok(Vec::new());
        }
        self.list_xattrs(&node)
    }

    /// The list of the xattrs of `node` that a user may see, which is learned from.
    fn list_xattrs(&self, node: &Node) -> Result<Vec<u8>> {
        let list = private::visible(&self.on_xattr(node, xattr::list)?);
        if self.listings_last.is_none() {
            let capability = private::names(&list).any(|name| name == CAPABILITY);
            node.xattrs.learn(list.is_empty(), capability);
        }
        Ok(list)
    }

    /// Whether what is known of `node` rules out that it has xattr `name`. Others than these
    /// may be there without being listed.
    fn is_ruled_out(&self, node: &Node, name: &[u8]) -> bool {
        let listed = name.starts_with(b"user.") || name.starts_with(ACL_PREFIX);
        match name {
            CAPABILITY => node.xattrs.have_no_capability(),
            _ => listed && node.xattrs.are_none(),
        }
    }

    /// Whether the filesystem that `node` is shown from has xattrs.
    fn may_have_xattrs(&self, node: &Node) -> bool {
        let stack = node.stack();
        let layer = match (&stack.upper, &stack.lower) {
            (Some(_), _) => self.tree.layers.upper.as_ref(),
            (None, Lower::File(dir, _)) => Some(&dir.layer),
            (None, Lower::Dirs(dirs)) => dirs.first().map(|dir| &dir.layer),
            (None, Lower::None) => None,
        };
        layer.is_none_or(|layer| layer.caps.xattrs)
    }

    /// Whether any layer's filesystem has xattrs.
    pub fn has_xattrs(&self) -> bool {
        let layers = &self.tree.layers;
        let mut all = layers.upper.iter().chain(&layers.lowers);
        all.any(|layer| layer.caps.xattrs)
    }

    /// Sets xattr `name` on `ino`.
    ///
    /// # Errors
    /// Those of copy-up and of setxattr.
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: i32,
        caller: &Caller,
    ) -> Result<()> {
        let node = self.node(ino)?;
        let key = key(name)?;
        if !self.tree.upper_layer()?.caps.xattrs {
            return Err(Errno::EOPNOTSUPP);
        }
        self.with_room(|| self.ensure(&node, Need::Meta))?;
        let door = self.tree.upper_door(&node)?;
        node.xattrs.change();
        self.with_room(|| Ok(xattr::set(door.at(), &key, value, flags)?))?;
        if name == CAPABILITY {
            node.set_harmless(false);
        }
        if name == ACCESS_ACL {
            self.clear_sgid_of_stranger(door.at(), caller)?;
        }
        self.persist(&node)
    }

    /// An ACL that is set by somebody outside the file's group clears setgid, as chmod
    /// does (`posix_acl_update_mode`); the daemon is no stranger to any group.
    fn clear_sgid_of_stranger(&self, at: At<'_>, caller: &Caller) -> Result<()> {
        if caller.uid == 0 {
            return Ok(());
        }
        let stat = fs::stat(at)?;
        if stat.mode & S_ISGID != 0 && self.is_stranger(&stat, caller) {
            fs::chmod(at, stat.mode & 0o7777 & !S_ISGID)?;
        }
        Ok(())
    }

    /// Removes xattr `name` from `ino`.
    ///
    /// # Errors
    /// ENODATA where there is none; those of copy-up and of removexattr.
    pub fn removexattr(&self, ino: Ino, name: &[u8], caller: &Caller) -> Result<()> {
        let node = self.node(ino)?;
        let key = key(name)?;
        if name == ACCESS_ACL {
            // This is a change of mode, whether there is an ACL or not.
            let stat = self.tree.look(&node)?.stat;
            if stat.mode & S_ISGID != 0 && self.is_stranger(&stat, caller) {
                self.ensure(&node, Need::Meta)?;
                let door = self.tree.upper_door(&node)?;
                self.clear_sgid_of_stranger(door.at(), caller)?;
            }
        }
        if !node.in_upper() {
            // Nothing is copied up for what fails.
            self.on_xattr(&node, |at| xattr::get(at, &key))?;
        }
        self.ensure(&node, Need::Meta)?;
        let door = self.tree.upper_door(&node)?;
        xattr::remove(door.at(), &key)?;
        if name == CAPABILITY {
            node.note_capability_removed();
        }
        self.persist(&node)
    }
}
