//! Copy-up that does not copy: a partly copied file gets the blocks that are written, and
//! its holes go on standing for the lower file.
//!
//! All that changes such a file is done under the node's copy-up lock, so that of one block
//! nobody copies what another has just written. A block is written whole or not at all: what
//! is lost of it in a power cut is a hole again, and so the lower file's.

use super::Settings;
use super::complete::{Privileges, unshare};
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::Layer;
use crate::layer::partial::{self, BLOCK};
use crate::layer::scratch::Scratch;
use crate::node::partial::Partial;
use crate::node::source::{self, Source};
use crate::node::stack::{Lower, Stack};
use crate::node::{Node, Tree};
use crate::observe::{self, Part};
use crate::sys::fs::{self, SetTime};
use crate::sys::io::{self, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, SEEK_DATA, SEEK_HOLE};
use crate::sys::path::At;
use parking_lot::MutexGuard;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bytes that are filled at a time; a writer waits for as many at most.
const PIECE: u64 = 1 << 20;
/// Bytes that somebody fills who waits for the whole file.
const AT_ONCE: u64 = 16 << 20;

/// A partly copied file that nobody else changes.
pub(super) struct Held<'a> {
    pub(super) tree: &'a Tree,
    pub(super) settings: &'a Settings,
    pub(super) node: &'a Arc<Node>,
    pub(super) upper: &'a Layer,
    pub(super) partial: Arc<Partial>,
    pub(super) file: Arc<OwnedFd>,
    below: Arc<Source>,
    _still: MutexGuard<'a, ()>,
}

fn floor(at: u64) -> u64 {
    at - at % BLOCK
}

fn ceil(at: u64) -> u64 {
    at.checked_next_multiple_of(BLOCK).unwrap_or(at)
}

/// Whether a copy of a file of type and mode `mode` with `len` bytes of data is made without
/// them.
pub(super) fn is_wanted(tree: &Tree, settings: &Settings, mode: u32, len: u64) -> bool {
    let (Ok(upper), Some(scratch)) = (tree.upper_layer(), &tree.layers.scratch) else {
        return false;
    };
    settings
        .partial
        .is_some_and(|least| len > 0 && len >= least)
        && settings.spares_data(upper, mode)
        && upper.kept.is_none()
        && upper.can_be_partial(scratch)
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
    let stack = node.stack();
    if io::seek(&file, 0, SEEK_DATA).is_ok() {
        // What a daemon left that was killed while it copied.
        let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        let before = fs::stat(At::fd(&file))?;
        io::allocate(&file, punch, 0, size)?;
        let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
        fs::utimens(At::fd(&file), atime, mtime)?;
    }
    settings.order_size(upper, &file)?;
    upper.mark_partial(At::fd(&file), size)?;
    node.set_stack(Stack {
        upper: stack.upper,
        lower: Lower::None,
        data: stack.data.clone(),
        partial: Some(Arc::new(Partial::new(size, size, true))),
    });
    tree.keep_open(node, Arc::new(file), true, stack.upper);
    tree.add_to_backlog(node.ino);
    Ok(())
}

impl<'a> Held<'a> {
    /// Takes hold of `node`; `None` where it is not partly copied (any more).
    ///
    /// # Errors
    /// Those of opening what its data is in.
    pub(super) fn take(
        tree: &'a Tree,
        settings: &'a Settings,
        node: &'a Arc<Node>,
    ) -> Result<Option<Held<'a>>> {
        let still = node.copyup.lock();
        let Some(partial) = load(tree, node)? else {
            return Ok(None);
        };
        Ok(Some(Held {
            tree,
            settings,
            node,
            upper: tree.upper_layer()?,
            partial,
            file: tree.writer(node)?,
            below: tree.source(node)?,
            _still: still,
        }))
    }

    fn read(&self, room: &mut [u8], at: u64) -> std::result::Result<usize, SysError> {
        let run = |at| self.partial.run(at);
        source::read_mixed(run, &self.file, &self.below, room, at)
    }

    /// Whether all of the block at `at` is its own, or beyond the limit.
    fn owns_block(&self, at: u64) -> bool {
        self.partial
            .owns(floor(at), floor(at).saturating_add(BLOCK))
    }

    /// Before the file grows beyond its size: what the mark says must not reach further.
    fn before_growth(&self) -> std::result::Result<(), SysError> {
        let limit = self.partial.limit();
        if self.partial.marked() != limit {
            self.upper.mark_partial(At::fd(&*self.file), limit)?;
            self.partial.set_marked(limit);
        }
        Ok(())
    }

    /// Writes `data` at `at`; the rest of the blocks that it begins and ends in comes from
    /// the lower file. How many bytes went.
    fn write(&self, at: u64, data: &[u8]) -> Result<usize> {
        let end = at.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if data.is_empty() {
            return Ok(0);
        }
        if end > self.partial.size() {
            self.before_growth()?;
        }
        let size = self.partial.size();
        let start = if self.owns_block(at) { at } else { floor(at) };
        let stop = match self.owns_block(end - 1) {
            true => end,
            false => ceil(end).min(size).max(end),
        };
        let put = if (start, stop) == (at, end) {
            self.put(start, data)?
        } else {
            let mut whole = vec![0; (stop - start) as usize];
            let (lead, length) = ((at - start) as usize, data.len());
            self.read(whole.get_mut(..lead).unwrap_or_default(), start)?;
            self.read(whole.get_mut(lead + length..).unwrap_or_default(), end)?;
            if let Some(middle) = whole.get_mut(lead..lead + length) {
                middle.copy_from_slice(data);
            }
            self.put(start, &whole)?
        };
        let went = (start + put as u64).min(end).saturating_sub(at);
        if went == 0 {
            return Err(Errno::ENOSPC);
        }
        Ok(went as usize)
    }

    /// Writes `data`, which begins and ends where a block does or in a block that is its own;
    /// how much of it, of which the same holds.
    fn put(&self, at: u64, data: &[u8]) -> std::result::Result<usize, SysError> {
        let before = self.partial.size();
        let put = io::write_full(&*self.file, data, at)?;
        let mut end = at + put as u64;
        if put < data.len() && !self.owns_block(end) && floor(end) < end {
            let torn = floor(end).max(at);
            let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
            io::allocate(&*self.file, punch, floor(end), BLOCK)?;
            if end > before {
                io::truncate(&*self.file, before.max(torn))?;
            }
            end = torn;
        }
        self.partial.reach(end);
        if end > at {
            self.partial.now_owns(floor(at), self.block_end(end));
        }
        Ok((end - at) as usize)
    }

    /// Where the block ends whose part up to `end` was written.
    fn block_end(&self, end: u64) -> u64 {
        if end >= self.partial.limit() {
            ceil(end)
        } else {
            floor(end)
        }
        .max(end)
    }

    /// Fills what the lower file has in the bytes from `at` to before `end`, which begin and
    /// end where a block does.
    fn fill(&self, at: u64, end: u64) -> Result<()> {
        let mut at = at;
        while at < end {
            let run = self.partial.run(at);
            let stop = run.end.min(end);
            if stop <= at {
                break;
            }
            if !run.own {
                self.fill_hole(floor(at), ceil(stop).min(self.partial.limit()))?;
            }
            at = stop;
        }
        Ok(())
    }

    /// The same where all of it is a hole.
    fn fill_hole(&self, at: u64, end: u64) -> Result<()> {
        let mut at = at;
        let mut room = Vec::new();
        while at < end {
            let data = match self.below.seek(at, SEEK_DATA) {
                Ok(data) => floor(data).max(at).min(end),
                Err(e) if e.errno == Errno::ENXIO => end,
                Err(e) => return Err(e.errno),
            };
            if data > at {
                // A hole of the lower file can stay one.
                self.partial.now_owns(at, data);
                at = data;
                continue;
            }
            let hole = self.below.seek(at, SEEK_HOLE).map_or(end, ceil);
            let stop = hole.min(end).min(at.saturating_add(PIECE));
            room.resize((stop - at) as usize, 0);
            let got = self.read(&mut room, at)?;
            room.get_mut(got..).unwrap_or_default().fill(0);
            let put = self.put(at, &room)?;
            observe::moved(put as u64);
            if put < room.len() {
                return Err(Errno::ENOSPC);
            }
            at = stop;
        }
        Ok(())
    }

    /// Zeros in the bytes from `at` to before `end`, as far as holes are not zeros.
    fn zero(&self, at: u64, end: u64) -> Result<()> {
        let zeros = vec![0; PIECE.min(end.saturating_sub(at)) as usize];
        let mut at = at;
        while at < end {
            let piece = zeros.get(..((end - at).min(PIECE)) as usize);
            let put = self.write(at, piece.unwrap_or_default())?;
            at += put as u64;
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<()> {
        if size > self.partial.size() {
            self.before_growth()?;
        }
        // The mark follows when the file grows again: before the cut, it must not hide what
        // is still to be seen.
        io::truncate(&*self.file, size)?;
        self.partial.set_size(size);
        Ok(())
    }

    /// fallocate(2); `false` where only a whole file can do it.
    fn allocate(&self, mode: i32, at: u64, len: u64) -> Result<bool> {
        let end = at.checked_add(len).ok_or(Errno::EFBIG)?;
        let (limit, size) = (self.partial.limit(), self.partial.size());
        let keeps_size = mode & FALLOC_FL_KEEP_SIZE != 0;
        let kind = mode & !FALLOC_FL_KEEP_SIZE;
        let mut from = at;
        if at < ceil(limit) {
            let inner = end.min(size);
            match kind {
                // Unwritten blocks are holes: they may be only where the lower file has some.
                0 => self.fill(floor(at), ceil(inner).min(size))?,
                FALLOC_FL_PUNCH_HOLE | io::FALLOC_FL_ZERO_RANGE => {
                    from = inner.min(ceil(limit)).max(at);
                    self.fill(floor(limit), limit)?;
                }
                _ => return Ok(false),
            }
        }
        // First what may be refused.
        if from < end {
            if end > size && !keeps_size {
                self.before_growth()?;
            }
            io::allocate(&*self.file, mode, from, end - from)?;
            if !keeps_size {
                self.partial.reach(end);
            }
        }
        self.zero(at, from)?;
        Ok(true)
    }

    /// Fills the first `budget` bytes or so that are missing, from `at` on; where it came to,
    /// or `None` at the end.
    pub(super) fn advance(&self, at: u64, budget: u64) -> Result<Option<u64>> {
        let limit = self.partial.limit();
        let mut at = at;
        loop {
            if at >= limit {
                return Ok(None);
            }
            let run = self.partial.run(at);
            if !run.own {
                break;
            }
            at = run.end.max(at + 1);
        }
        let end = floor(at).saturating_add(budget).min(ceil(limit));
        self.unnoticed(|| self.fill(at, end))?;
        Ok(Some(end))
    }

    /// Does `change` to the data so that neither the time of modification nor what a write
    /// takes away changes.
    fn unnoticed(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let at = At::fd(&*self.file);
        let before = fs::stat(at)?;
        let privileges = Privileges::of(&self.file, &before, self.node.is_harmless())?;
        let mount = self.tree.layers.scratch.as_ref().map_or(0, Scratch::mount);
        let noted = self.upper.note_mtime(at, before.mtime, mount);
        best_effort("note a file's time", noted);
        self.partial.filling(before.mtime);
        let changed = change();
        let restored = privileges.restore(&self.file);
        let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
        let timed = fs::utimens(at, atime, mtime);
        self.partial.filled();
        best_effort("forget a file's time", self.upper.forget_mtime(at));
        changed?;
        restored?;
        Ok(timed?)
    }

    /// Whether nothing of it is missing.
    pub(super) fn is_whole(&self) -> bool {
        let limit = self.partial.limit();
        self.partial.owns(0, limit)
    }

    /// All of its data is there: it becomes an ordinary file.
    pub(super) fn finish(&self) -> Result<()> {
        let upper = self.node.stack().upper.ok_or(Errno::EIO)?;
        if self.partial.limit() > 0 {
            self.settings.order_data(self.upper, &self.file)?;
        }
        self.upper.unmark_partial(At::fd(&*self.file))?;
        unshare(self.tree, self.node, self.upper, &self.file, upper);
        Ok(())
    }
}

/// Reads from `at` of a partly copied file; `None` where it is not (any more).
///
/// # Errors
/// Those of opening what its data is in, and pread's.
pub fn read(tree: &Tree, node: &Node, room: &mut [u8], at: u64) -> Result<Option<usize>> {
    let stack = node.stack();
    if stack.upper.is_none() {
        return Ok(Some(tree.source(node)?.read_at(room, at)?));
    }
    let Some(partial) = loaded(tree, node)? else {
        return Ok(None);
    };
    let (file, below) = (tree.reader(node)?, below_of(tree, node, &stack)?);
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
    if stack.upper.is_none() {
        return Ok(Some(tree.source(node)?.seek(at, whence)?));
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
        held.finish()?;
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

/// How far filling a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// There it goes on.
    To(u64),
    /// It is whole.
    Done,
}

/// Fills a piece of a partly copied file, from `at` on.
///
/// # Errors
/// Those of reading and writing; what is there by then stays.
pub fn advance(tree: &Tree, settings: &Settings, node: &Arc<Node>, at: u64) -> Result<Advance> {
    advance_by(tree, settings, node, (at, PIECE))
}

fn advance_by(
    tree: &Tree,
    settings: &Settings,
    node: &Arc<Node>,
    (at, budget): (u64, u64),
) -> Result<Advance> {
    let Some(held) = Held::take(tree, settings, node)? else {
        return Ok(Advance::Done);
    };
    let observed = observe::copying();
    match held.advance(at, budget)? {
        Some(next) => Ok(Advance::To(next)),
        None if held.is_whole() => {
            // Most of what is to be on the disk is brought there while others may write.
            let file = held.file.clone();
            drop(held);
            settings.order_data(tree.upper_layer()?, &file)?;
            let Some(held) = Held::take(tree, settings, node)? else {
                return Ok(Advance::Done);
            };
            if !held.is_whole() {
                return Ok(Advance::To(0));
            }
            held.finish()?;
            observed.done(Part::Data, node.kind, || node.place().path());
            Ok(Advance::Done)
        }
        None => Ok(Advance::To(0)),
    }
}

/// Gives a partly copied file the rest of its data.
///
/// # Errors
/// As [`advance`].
pub fn complete(tree: &Tree, settings: &Settings, node: &Arc<Node>) -> Result<()> {
    let mut at = 0;
    while let Advance::To(next) = advance_by(tree, settings, node, (at, AT_ONCE))? {
        at = next;
    }
    Ok(())
}
