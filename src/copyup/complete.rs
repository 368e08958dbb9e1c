//! The data of a file that was copied up without: it goes into the upper file where that
//! is, for a file may have other names; until all of it is there, the mark says that the
//! lower data counts.

use super::extents::Transfer;
use super::{Need, Settings, data, extents};
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::Layer;
use crate::layer::filling::Unfilled;
use crate::layer::metacopy::PartMark;
use crate::node::partial::Partial;
use crate::node::stack::Stack;
use crate::node::{Node, Tree};
use crate::observe::{self, Part};
use crate::sys::fs::{self, O_NONBLOCK, O_RDWR, SetTime, Stat};
use crate::sys::io::{self, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
    let has_size = before.size > 0;
    if !has_size {
        // Lost in a power cut (see `Layer::logs_files_apart`).
        before.size = from.stat.size;
    }
    let len = match need {
        Need::Bytes(n) => n.min(before.size),
        Need::Meta | Need::Part | Need::All => before.size,
    };
    // A mark would speak of a size that the disk has not.
    let need = if has_size { need } else { Need::All };
    let transfer = extents::transfer(tree, settings, need, (before.mode, len));
    if transfer == Transfer::Parts {
        extents::begin(tree, settings, node, (to, before.size))?;
        observed.done(Part::Partial, node.kind, |way| node.place().tell(way));
        return Ok(());
    }
    let deferred = transfer == Transfer::Deferred;
    let mark = PartMark::up_to(len);
    let fill = Fill {
        to: &to,
        before: &before,
        was: Unfilled::of(At::fd(&to), &before, node.is_harmless())?,
    };
    let scratch = tree.layers.scratch.as_ref().ok_or(Errno::EROFS)?;
    let noted = upper_layer.note_filling(At::fd(&to), &fill.was, scratch.mount());
    best_effort("note what a file is", noted);
    let filled = (|| {
        // A file that is about to be cut off is so at once: never is it half copied.
        if len < before.size {
            io::truncate(&to, len)?;
        }
        data::copy(&from, &to, len.min(from.stat.size))?;
        fill.put_back()?;
        if len > 0 && !deferred {
            settings.order_data(upper_layer, &to)?;
        }
        upper_layer.forget_filling(At::fd(&to))?;
        if deferred {
            extents::announce(scratch)?;
            upper_layer.mark_partial(At::fd(&to), &mark)?;
        } else {
            upper_layer.unmark_metacopy(At::fd(&to))?;
        }
        Ok(())
    })();
    if let Err(e) = filled {
        fill.undo();
        let forgotten = upper_layer.forget_filling(At::fd(&to));
        best_effort("forget what a file was", forgotten);
        return Err(e);
    }
    if deferred {
        extents::commit(tree, node, to, Partial::made(mark, true));
    } else {
        unshare(tree, node, upper_layer, &to, upper);
        // Somebody is about to write to it.
        tree.keep_open(node, Arc::new(to), true, Some(upper));
    }
    observed.done(Part::Data, node.kind, |way| node.place().tell(way));
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

/// An upper file that is being filled, as it was.
struct Fill<'a> {
    to: &'a OwnedFd,
    before: &'a Stat,
    was: Unfilled,
}

impl Fill<'_> {
    fn put_back(&self) -> std::result::Result<(), SysError> {
        let atime = SetTime::To(self.before.atime);
        self.was.put_back(At::fd(self.to), atime)
    }

    /// Takes the blocks back that were filled in vain.
    fn undo(&self) {
        let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        let size = self.before.size;
        let emptied = io::allocate(self.to, punch, 0, size.max(1));
        best_effort("give back a half copied file's room", emptied);
        best_effort("restore a file's size", io::truncate(self.to, size));
        best_effort("put back what a file was", self.put_back());
    }
}
