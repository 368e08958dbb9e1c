//! The data of a file that was copied up without: it goes into the upper file where that
//! is, for a file may have other names; until all of it is there, the mark says that the
//! lower data counts.

use super::{Need, Settings, data};
use crate::error::{Result, SysError, best_effort};
use crate::layer::scratch::Scratch;
use crate::node::stack::Stack;
use crate::node::{Node, Tree};
use crate::observe::{self, Part};
use crate::sys::fs::{self, O_NONBLOCK, O_RDONLY, O_RDWR, SetTime, Stat};
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
    let (layer, from) = tree.open_below(below, O_RDONLY | O_NONBLOCK)?;
    let to = tree.open(node, O_RDWR | O_NONBLOCK)?;
    let source = fs::stat(At::fd(&from))?;
    let mut before = fs::stat(At::fd(&to))?;
    if before.size == 0 {
        // Lost in a power cut (see `Layer::logs_files_apart`).
        before.size = source.size;
    }
    let len = match need {
        Need::Bytes(n) => n.min(before.size),
        Need::Meta | Need::All => before.size,
    };
    let fill = Fill {
        to: &to,
        before: &before,
        capability: match node.is_harmless() {
            true => None,
            false => xattr::get_optional(At::fd(&to), CAPABILITY)?,
        },
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
        data::copy(&layer, &from, &to, &source, len.min(source.size))?;
        fill.restore_privileges()?;
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
    if !node.is_plain() {
        let redirect = upper_layer.drop_redirect(At::fd(&to));
        best_effort("drop the redirect of a file with its own data", redirect);
    }
    node.set_stack(Stack::upper_only(upper));
    node.set_on_disk(false);
    tree.files.forget(node.ino);
    // Somebody is about to write to it.
    tree.keep_open(node, Arc::new(to), true, Some(upper));
    observed.done(Part::Data, node.kind, || node.place().path());
    Ok(())
}

/// An upper file that is being filled, as it was.
struct Fill<'a> {
    to: &'a OwnedFd,
    before: &'a Stat,
    capability: Option<Vec<u8>>,
}

impl Fill<'_> {
    /// Writing takes away capabilities, and setuid and setgid from those without
    /// CAP_FSETID.
    fn restore_privileges(&self) -> std::result::Result<(), SysError> {
        let at = At::fd(self.to);
        if fs::stat(at)?.mode != self.before.mode {
            fs::chmod(at, self.before.mode & 0o7777)?;
        }
        match &self.capability {
            Some(value) => xattr::set(at, CAPABILITY, value, 0),
            None => Ok(()),
        }
    }

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
        best_effort("restore a file's mode", self.restore_privileges());
        best_effort("restore a file's times", self.restore_times());
    }
}
