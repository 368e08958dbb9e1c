//! Extended attributes and ACLs.

use super::Union;
use crate::copyup::Need;
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::Layer;
use crate::layer::private::{self, Names, is_acl};
use crate::merge::inomap::Ino;
use crate::node::Node;
use crate::node::lock::hold;
use crate::node::stack::Lower;
use crate::sys::creds::Caller;
use crate::sys::fs::{self, S_ISGID};
use crate::sys::path::At;
use crate::sys::xattr;
use parking_lot::MutexGuard;
use std::borrow::Cow;
use std::sync::Arc;

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const USER: &[u8] = b"user.";
const CAPABILITY: &[u8] = b"security.capability";

/// The value of what a user calls `name`.
fn value_of(layer: &Layer, at: At<'_>, name: &[u8]) -> std::result::Result<Vec<u8>, SysError> {
    let names = Names::of(layer);
    if names.refuses(name) {
        return Err(SysError {
            call: "getxattr",
            errno: Errno::ENODATA,
        });
    }
    match xattr::get(at, &names.key(name)?) {
        Ok(value) if is_acl(name) => Ok(layer.owners.acl_shown(value)),
        // A file that was there before its owner was kept apart.
        Err(e) if e.errno == Errno::ENODATA && names.has_two(name) => {
            xattr::get(at, &Names::default().key(name)?)
        }
        other => other,
    }
}

/// Waits till nobody fills `node`, if it is partly copied and may have capabilities: writing
/// takes them away, till they are put back.
fn unfilled(node: &Node) -> Option<MutexGuard<'_, ()>> {
    let may_lose = node.stack().partial.is_some() && !node.is_harmless();
    may_lose.then(|| node.copyup.lock())
}

impl Union {
    /// Whether there can be an xattr `name` at all.
    fn may_have(&self, name: &[u8]) -> Result<()> {
        let upper = self.tree.layers.top();
        let refused = upper.is_some_and(|layer| Names::of(layer).refuses(name));
        if refused || !self.acls && is_acl(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(())
    }

    fn on_xattr<T>(
        &self,
        node: &Node,
        act: impl Fn(&Layer, At<'_>) -> std::result::Result<T, SysError>,
    ) -> Result<T> {
        self.tree.on_file(node, |layer, at| {
            let value = act(layer, at)?;
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
        self.may_have(name)?;
        if !self.has_some(&node) && !is_acl(name) {
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
        let _still = (name == CAPABILITY).then(|| unfilled(&node));
        match self.on_xattr(&node, |layer, at| value_of(layer, at, name)) {
            // The kernel's permission check takes ENODATA alone for "there is no ACL".
            Err(Errno::EOPNOTSUPP) if is_acl(name) => Err(Errno::ENODATA),
            other => other,
        }
    }

    /// The names of all xattrs on `ino`, each ended by NUL.
    ///
    /// # Errors
    /// listxattr's.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if node.xattrs.are_none() || !self.has_some(&node) {
            return Ok(Vec::new());
        }
        self.list_xattrs(&node)
    }

    /// The list of the xattrs of `node` that a user may see, which is learned from unless
    /// the layers change under the mount, or xattrs are there that it does not tell of.
    fn list_xattrs(&self, node: &Node) -> Result<Vec<u8>> {
        let _still = unfilled(node);
        let mut list = self.on_xattr(node, |layer, at| {
            Ok(Names::of(layer).visible(&xattr::list(at)?))
        })?;
        if !self.acls {
            list = private::without_acls(&list);
        }
        let layer = self.shown_layer(node);
        let told = layer.is_some_and(|layer| Names::of(&layer) == Names::default());
        if told && self.acls && self.listing_life.is_none() {
            let capability = private::names(&list).any(|name| name == CAPABILITY);
            node.xattrs.learn(list.is_empty(), capability);
        }
        Ok(list)
    }

    /// Whether what is known of `node` rules out that it has xattr `name`. Others than these
    /// may be there without being listed.
    fn is_ruled_out(&self, node: &Node, name: &[u8]) -> bool {
        match name {
            CAPABILITY => node.xattrs.have_no_capability(),
            _ => (name.starts_with(USER) || is_acl(name)) && node.xattrs.are_none(),
        }
    }

    /// The layer that `node` is shown from.
    fn shown_layer(&self, node: &Node) -> Option<Arc<Layer>> {
        let stack = node.stack();
        match (&stack.upper, &stack.lower) {
            (Some(_), _) => self.tree.layers.upper.clone(),
            (None, Lower::File(dir, _)) => Some(dir.layer.clone()),
            (None, Lower::Dirs(dirs)) => dirs.first().map(|dir| dir.layer.clone()),
            (None, Lower::None) => None,
        }
    }

    /// Whether the filesystem that `node` is shown from has xattrs.
    fn has_some(&self, node: &Node) -> bool {
        let layer = self.shown_layer(node);
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
        self.may_have(name)?;
        let upper = self.tree.upper_layer()?;
        if !upper.caps.xattrs {
            return Err(Errno::EOPNOTSUPP);
        }
        let kept = if is_acl(name) {
            Cow::Owned(upper.owners.acl_stored(value).ok_or(Errno::EINVAL)?)
        } else {
            Cow::Borrowed(value)
        };
        self.with_room(|| self.ensure(&node, Need::Meta))?;
        let still = hold(&node);
        let door = self.tree.upper_door(&node)?;
        node.xattrs.change();
        self.with_room(|| Ok(upper.set_xattr(door.at(), name, &kept, flags)?))?;
        if name == CAPABILITY {
            node.set_harmless(false);
        }
        if name == ACCESS_ACL {
            self.clear_sgid_of_stranger(door.at(), caller)?;
        }
        drop(still);
        self.persist(&node)
    }

    /// An ACL that is set by somebody outside the file's group clears setgid, as chmod
    /// does (`posix_acl_update_mode`); the daemon is no stranger to any group.
    fn clear_sgid_of_stranger(&self, at: At<'_>, caller: &Caller) -> Result<()> {
        let upper = self.tree.upper_layer()?;
        let stat = upper.look(at)?.stat;
        if stat.mode & S_ISGID != 0 && self.is_stranger(&stat, caller) {
            upper.chmod(at, stat.mode & 0o7777 & !S_ISGID)?;
        }
        Ok(())
    }

    /// Removes xattr `name` from `ino`.
    ///
    /// # Errors
    /// ENODATA where there is none; those of copy-up and of removexattr.
    pub fn removexattr(&self, ino: Ino, name: &[u8], caller: &Caller) -> Result<()> {
        let node = self.node(ino)?;
        self.may_have(name)?;
        if name == ACCESS_ACL {
            // This is a change of mode, whether there is an ACL or not.
            let stat = self.tree.look(&node)?.stat;
            if stat.mode & S_ISGID != 0 && self.is_stranger(&stat, caller) {
                self.ensure(&node, Need::Meta)?;
                let _still = hold(&node);
                let door = self.tree.upper_door(&node)?;
                self.clear_sgid_of_stranger(door.at(), caller)?;
            }
        }
        if !node.in_upper() {
            // Nothing is copied up for what fails.
            self.on_xattr(&node, |layer, at| value_of(layer, at, name))?;
        }
        self.ensure(&node, Need::Meta)?;
        let still = hold(&node);
        let door = self.tree.upper_door(&node)?;
        self.tree.upper_layer()?.remove_xattr(door.at(), name)?;
        drop(still);
        if name == CAPABILITY {
            node.note_capability_removed();
        }
        self.persist(&node)
    }
}
