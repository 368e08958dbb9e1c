//! Copy-up that does not copy: a partly copied file gets the blocks that are written, and
//! its holes go on standing for the lower file.
//!
//! All that changes such a file is done under the node's copy-up lock, so that of one block
//! nobody copies what another has just written. A block is written whole or not at all: what
//! is lost of it in a power cut is a hole again, and so the lower file's.

mod fill;
mod held;

pub use fill::{Advance, advance, complete};
use held::Held;

use super::{Need, Settings};
use crate::error::{Errno, Result, best_effort};
use crate::layer::metacopy::PartMark;
use crate::layer::scratch::Scratch;
use crate::layer::{Layer, partial};
use crate::node::partial::Partial;
use crate::node::source::{self, Source};
use crate::node::stack::{Lower, Stack};
use crate::node::{Node, Tree};
use crate::sys::fs::{self, SetTime};
use crate::sys::io::{self, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, SEEK_DATA};
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How data comes to the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// All of it, and the disk has it before the name, or before the mark goes.
    Whole,
    /// All of it, and the disk has it later: the file is marked as partly copied till then.
    Deferred,
    /// What is changed.
    Parts,
}

/// How the first `len` bytes of a file of type and mode `mode` come to the upper, of which so
/// much is needed.
pub(super) fn transfer(
    tree: &Tree,
    settings: &Settings,
    need: Need,
    (mode, len): (u32, u64),
) -> Transfer {
    if len == 0 || !need.may_be_partial() {
        Transfer::Whole
    } else if is_wanted(tree, settings, mode, len) {
        Transfer::Parts
    } else if may_follow(tree, settings, mode) {
        Transfer::Deferred
    } else {
        Transfer::Whole
    }
}

/// Whether a copy of a file of type and mode `mode` with `len` bytes of data is made without
/// them.
pub(super) fn is_wanted(tree: &Tree, settings: &Settings, mode: u32, len: u64) -> bool {
    settings
        .partial
        .is_some_and(|least| len > 0 && len >= least)
        && may_be_marked(tree, mode)
}

/// Whether the data of a copy of a file of type and mode `mode` may come to the disk later than
/// its name, as far as it is marked as a partial one till then: what is lost of it in a power cut
/// is the lower file's again.
fn may_follow(tree: &Tree, settings: &Settings, mode: u32) -> bool {
    let keeps_order = |upper: &Arc<Layer>| upper.caps.keeps_order;
    settings.defers && tree.upper_layer().is_ok_and(keeps_order) && may_be_marked(tree, mode)
}

/// Whether a file of type and mode `mode` of the upper may say that it is partly copied.
fn may_be_marked(tree: &Tree, mode: u32) -> bool {
    let (Ok(upper), Some(scratch)) = (tree.upper_layer(), &tree.layers.scratch) else {
        return false;
    };
    Settings::can_lack_data(upper, mode) && upper.kept.is_none() && upper.can_be_partial(scratch)
}

/// Notes in the work directory that there may be such files, before there is one.
pub(super) fn announce(scratch: &Scratch) -> Result<()> {
    if scratch.has_partial.get() != Some(true) {
        partial::note(scratch.dir())?;
        scratch.has_partial.learn(true);
    }
    Ok(())
}

/// What is known of how much of `node` is in the upper, asked for first where it is not
/// known yet; `None` where the file is in one.
///
/// # Errors
/// Those of opening it, and lseek's.
pub fn loaded(tree: &Tree, node: &Node) -> Result<Option<Arc<Partial>>> {
    match &node.stack().partial {
        None => return Ok(None),
        Some(partial) if partial.is_loaded() => return Ok(Some(partial.clone())),
        Some(_) => {}
    }
    let _still = node.copyup.lock();
    load(tree, node)
}

/// The same under the node's copy-up lock.
fn load(tree: &Tree, node: &Node) -> Result<Option<Arc<Partial>>> {
    let Some(partial) = node.stack().partial.clone() else {
        return Ok(None);
    };
    if !partial.is_loaded() {
        let file = tree.reader(node)?;
        partial.load(crate::layer::extents::Extents::load(
            &file,
            partial.limit(),
        )?);
    }
    Ok(Some(partial))
}

/// Makes `node`, whose upper file `file` of `size` bytes has nothing but metadata, one that
/// is partly copied. The caller has its copy-up lock.
pub(super) fn begin(
    tree: &Tree,
    settings: &Settings,
    node: &Arc<Node>,
    (file, size): (OwnedFd, u64),
) -> Result<()> {
    let upper = tree.upper_layer()?;
    announce(tree.layers.scratch.as_ref().ok_or(Errno::EROFS)?)?;
    if io::seek(&file, 0, SEEK_DATA).is_ok() {
        // What a daemon left that was killed while it copied.
        let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        let before = fs::stat(At::fd(&file))?;
        io::allocate(&file, punch, 0, size)?;
        let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
        fs::utimens(At::fd(&file), atime, mtime)?;
    }
    settings.order_size(upper, &file)?;
    let mark = PartMark::up_to(size);
    upper.mark_partial(At::fd(&file), &mark)?;
    commit(tree, node, file, Partial::made(mark, false));
    Ok(())
}

/// Commits to memory that `node`, whose upper file `file` had nothing but metadata, is partly
/// copied, as far as `partial` says. The caller has its copy-up lock.
pub(super) fn commit(tree: &Tree, node: &Arc<Node>, file: OwnedFd, partial: Partial) {
    let stack = node.stack();
    node.set_stack(Stack {
        upper: stack.upper,
        lower: Lower::None,
        data: stack.data.clone(),
        partial: Some(Arc::new(partial)),
    });
    node.set_on_disk(false);
    tree.keep_open(node, Arc::new(file), true, stack.upper);
    tree.add_to_backlog(node.ino);
}

/// Reads from `at` of a file whose data is in several; `None` where it is not (any more).
///
/// # Errors
/// Those of opening what its data is in, and pread's.
pub fn read(tree: &Tree, node: &Node, room: &mut [u8], at: u64) -> Result<Option<usize>> {
    let stack = node.stack();
    if stack.partial.is_none() && stack.is_mixed() {
        return Ok(Some(below_of(tree, node, &stack)?.read_at(room, at)?));
    }
    let Some(partial) = loaded(tree, node)? else {
        return Ok(None);
    };
    let file = tree.reader(node)?;
    if partial.is_whole() {
        return Ok(Some(io::read_full(&file, room, at)?));
    }
    let below = below_of(tree, node, &stack)?;
    let run = |at| partial.run(at);
    let got = source::read_mixed(run, &file, &below, room, at)?;
    Ok(Some(got))
}

/// What is below `node`, whose stack was `stack` a moment ago.
fn below_of(tree: &Tree, node: &Node, stack: &Stack) -> Result<Arc<Source>> {
    match tree.source(node) {
        // It was completed meanwhile, and the old stack still says where it was.
        Err(Errno::EIO) => {
            let below = stack.data.as_deref().ok_or(Errno::EIO)?;
            Ok(Arc::new(tree.open_source(below)?))
        }
        other => other,
    }
}

/// lseek(2) in such a file.
///
/// # Errors
/// ENXIO past the end, else lseek's.
pub fn seek(tree: &Tree, node: &Node, at: u64, whence: i32) -> Result<Option<u64>> {
    let stack = node.stack();
    if stack.partial.is_none() && stack.is_mixed() {
        return Ok(Some(below_of(tree, node, &stack)?.seek(at, whence)?));
    }
    let Some(partial) = loaded(tree, node)? else {
        return Ok(None);
    };
    let (file, below) = (tree.reader(node)?, below_of(tree, node, &stack)?);
    let run = |at| partial.run(at);
    let own = (&*file, partial.size());
    Ok(Some(source::seek_mixed(run, own, &below, at, whence)?))
}

/// Writes `data` at `at` of such a file.
///
/// # Errors
/// Those of opening what its data is in, and pwrite's.
pub fn write(
    tree: &Tree,
    settings: &Settings,
    node: &Arc<Node>,
    at: u64,
    data: &[u8],
) -> Result<Option<usize>> {
    match Held::take(tree, settings, node)? {
        Some(held) => {
            tree.backlog.touch(node.ino);
            held.write(at, data).map(Some)
        }
        None => Ok(None),
    }
}

/// ftruncate(2) of such a file; one without anything of the lower file's is whole.
///
/// # Errors
/// ftruncate's.
pub fn truncate(tree: &Tree, settings: &Settings, node: &Arc<Node>, size: u64) -> Result<bool> {
    let Some(held) = Held::take(tree, settings, node)? else {
        return Ok(false);
    };
    held.truncate(size)?;
    if held.partial.limit() == 0 {
        // Where that fails it is as good as whole: its marks speak of no byte.
        best_effort(
            "make a file without lower data an ordinary one",
            held.finish(),
        );
    }
    Ok(true)
}

/// fallocate(2) of such a file; `false` where that takes a whole one.
///
/// # Errors
/// fallocate's, and those of writing.
pub fn allocate(
    tree: &Tree,
    settings: &Settings,
    node: &Arc<Node>,
    mode: i32,
    (at, len): (u64, u64),
) -> Result<bool> {
    match Held::take(tree, settings, node)? {
        Some(held) => held.allocate(mode, at, len),
        None => Ok(false),
    }
}
