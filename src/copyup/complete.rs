//! The data of a file that was copied up without: it goes into the upper file where that
//! is, for a file may have other names; until all of it is there, the mark says that the
//! lower data counts.

use super::{Need, Settings, data, extents};
use crate::error::{Result, SysError, best_effort};
use crate::layer::Layer;
use crate::layer::scratch::Scratch;
use crate::node::stack::Stack;
use crate::node::{Node, Tree};
use crate::observe::{self, Part};
use crate::sys::fs::{self, O_NONBLOCK, O_RDWR, SetTime, Stat};
use crate::sys::io::{self, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const CAPABILITY: &CStr = c"security.capability";

/// Gives `node`, whose metadata is in the upper, its data there as well.
///
/// # Errors
/// Whatever the copying met; the lower data counts as before then.
pub fn complete(tree: &Tree, settings: &Settings, node: &Arc<Node>, need: Need) -> Result<()> {
    let _single_flight = node.copyup.lock();
    let stack = node.stack();
    let (Some(upper), Some(below)) = (stack.upper, &stack.data) else {
        return Ok(());
    };
    let observed = observe::copying();
    let upper_layer = tree.upper_layer()?;
    let from = tree.open_source(below)?;
    let to = tree.open(node, O_RDWR | O_NONBLOCK)?;
    let mut before = fs::stat(At::fd(&to))?;
    if before.size == 0 {
        // Lost in a power cut (see `Layer::logs_files_apart`).
        before.size = from.stat.size;
    }
    let len = match need {
        Need::Bytes(n) => n.min(before.size),
        Need::Meta | Need::Part | Need::All => before.size,
    };
    if need.may_be_partial() && extents::is_wanted(tree, settings, before.mode, len) {
        let whole = before.size;
        if fs::stat(At::fd(&to))?.size == whole {
            extents::begin(tree, settings, node, (to, whole))?;
            observed.done(Part::Partial, node.kind, || node.place().path());
            return Ok(());
        }
    }
    let fill = Fill {
        to: &to,
        before: &before,
        privileges: Privileges::of(&to, &before, node.is_harmless())?,
    };
    // Writing sets the time, which is put back: also by the next mount, should this one end
    // before.
    let mount = tree.layers.scratch.as_ref().map_or(0, Scratch::mount);
    let noted = upper_layer.note_mtime(At::fd(&to), before.mtime, mount);
    best_effort("note a file's time", noted);
    let filled = (|| {
        // A file that is about to be cut off is so at once: never is it half copied.
        if len < before.size {
            io::truncate(&to, len)?;
        }
        data::copy(&from, &to, len.min(from.stat.size))?;
        fill.privileges.restore(&to)?;
        fill.restore_times()?;
        if len > 0 {
            settings.order_data(upper_layer, &to)?;
        }
        upper_layer.forget_mtime(At::fd(&to))?;
        upper_layer.unmark_metacopy(At::fd(&to))?;
        Ok(())
    })();
    if let Err(e) = filled {
        fill.undo();
        let forgotten = upper_layer.forget_mtime(At::fd(&to));
        best_effort("forget a file's time", forgotten);
        return Err(e);
    }
    unshare(tree, node, upper_layer, &to, upper);
    // Somebody is about to write to it.
    tree.keep_open(node, Arc::new(to), true, Some(upper));
    observed.done(Part::Data, node.kind, || node.place().path());
    Ok(())
}

/// Commits to memory that `node`, whose upper file is `file`, has all of its data there.
pub(super) fn unshare(tree: &Tree, node: &Node, layer: &Layer, file: &OwnedFd, upper: u64) {
    if !node.is_plain() {
        let redirect = layer.drop_redirect(At::fd(file));
        best_effort("drop the redirect of a file with its own data", redirect);
    }
    node.set_stack(Stack::upper_only(upper));
    node.set_on_disk(false);
    tree.files.forget(node.ino);
}

/// What a write takes away from a file.
pub(super) struct Privileges {
    mode: u32,
    capability: Option<Vec<u8>>,
}

impl Privileges {
    /// Those of `file`, which `stat` describes; a harmless one has no capability.
    pub(super) fn of(
        file: &OwnedFd,
        stat: &Stat,
        harmless: bool,
    ) -> std::result::Result<Privileges, SysError> {
        Ok(Privileges {
            mode: stat.mode,
            capability: match harmless {
                true => None,
                false => xattr::get_optional(At::fd(file), CAPABILITY)?,
            },
        })
    }

    /// Writing takes away capabilities, and setuid and setgid from those without
    /// CAP_FSETID.
    pub(super) fn restore(&self, file: &OwnedFd) -> std::result::Result<(), SysError> {
        let at = At::fd(file);
        if fs::stat(at)?.mode != self.mode {
            fs::chmod(at, self.mode & 0o7777)?;
        }
        match &self.capability {
            Some(value) => xattr::set(at, CAPABILITY, value, 0),
            None => Ok(()),
        }
    }
}

/// An upper file that is being filled, as it was.
struct Fill<'a> {
    to: &'a OwnedFd,
    before: &'a Stat,
    privileges: Privileges,
}

impl Fill<'_> {
    fn restore_times(&self) -> std::result::Result<(), SysError> {
        let (atime, mtime) = (self.before.atime, self.before.mtime);
        fs::utimens(At::fd(self.to), SetTime::To(atime), SetTime::To(mtime))
    }

    /// Takes the blocks back that were filled in vain.
    fn undo(&self) {
        let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        let size = self.before.size;
        let emptied = io::allocate(self.to, punch, 0, size.max(1));
        best_effort("give back a half copied file's room", emptied);
        best_effort("restore a file's size", io::truncate(self.to, size));
        best_effort("restore a file's mode", self.privileges.restore(self.to));
        best_effort("restore a file's times", self.restore_times());
    }
}
