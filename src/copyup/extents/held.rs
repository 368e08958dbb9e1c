//! A partly copied file that is changed: what is written, cut off, zeroed.

use super::load;
use crate::copyup::Settings;
use crate::error::{Errno, Result, SysError};
use crate::layer::Layer;
use crate::layer::metacopy::PartMark;
use crate::layer::partial::BLOCK;
use crate::node::partial::Partial;
use crate::node::source::{self, Source};
use crate::node::{Node, Tree};
use crate::sys::io::{self, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};
use crate::sys::path::At;
use parking_lot::MutexGuard;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bytes that are filled at a time; a writer waits for as many at most.
pub(super) const PIECE: u64 = 1 << 20;

/// A partly copied file that nobody else changes.
pub(super) struct Held<'a> {
    pub(super) tree: &'a Tree,
    pub(super) settings: &'a Settings,
    pub(super) node: &'a Arc<Node>,
    pub(super) upper: &'a Layer,
    pub(super) partial: Arc<Partial>,
    pub(super) file: Arc<OwnedFd>,
    _still: MutexGuard<'a, ()>,
}

pub(super) fn floor(at: u64) -> u64 {
    at - at % BLOCK
}

pub(super) fn ceil(at: u64) -> u64 {
    at.checked_next_multiple_of(BLOCK).unwrap_or(at)
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
            _still: still,
        }))
    }

    /// Fills `room` from `at`, from wherever its data is.
    pub(super) fn read(&self, room: &mut [u8], at: u64) -> Result<usize> {
        let run = |at| self.partial.run(at);
        Ok(source::read_mixed(
            run,
            &self.file,
            &*self.below()?,
            room,
            at,
        )?)
    }

    /// What has the data that is not its own.
    pub(super) fn below(&self) -> Result<Arc<Source>> {
        self.tree.source(self.node)
    }

    /// Whether all of the block at `at` is its own, or beyond the limit.
    fn owns_block(&self, at: u64) -> bool {
        self.partial
            .owns(floor(at), floor(at).saturating_add(BLOCK))
    }

    /// Before the file grows beyond its size: what the mark says must not reach further. And
    /// unless the block that it ends in is `written` now, that block is filled, for some make
    /// data of it to have zeros past the old end (`btrfs_cont_expand`).
    fn before_growth(&self, written: bool) -> Result<()> {
        let limit = self.partial.limit();
        if self.partial.marked() != limit {
            let mark = PartMark {
                limit,
                ..self.partial.mark()
            };
            self.upper.mark_partial(At::fd(&*self.file), &mark)?;
            self.partial.set_marked(limit);
        }
        let last = floor(self.partial.size());
        if !written && last < limit && !self.owns_block(last) {
            self.unnoticed(|| self.fill(last, limit))?;
        }
        Ok(())
    }

    /// Writes `data` at `at`; the rest of the blocks that it begins and ends in comes from
    /// the lower file. How many bytes went.
    pub(super) fn write(&self, at: u64, data: &[u8]) -> Result<usize> {
        let end = at.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if data.is_empty() {
            return Ok(0);
        }
        let size = self.partial.size();
        if end > size {
            self.before_growth(floor(at) <= size)?;
        }
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
    pub(super) fn put(&self, at: u64, data: &[u8]) -> std::result::Result<usize, SysError> {
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

    pub(super) fn truncate(&self, size: u64) -> Result<()> {
        if size > self.partial.size() {
            self.before_growth(false)?;
        }
        // The mark follows when the file grows again: before the cut, it must not hide what
        // is still to be seen.
        io::truncate(&*self.file, size)?;
        self.partial.set_size(size);
        Ok(())
    }

    /// fallocate(2); `false` where only a whole file can do it.
    pub(super) fn allocate(&self, mode: i32, at: u64, len: u64) -> Result<bool> {
        let end = at.checked_add(len).ok_or(Errno::EFBIG)?;
        let (limit, size) = (self.partial.limit(), self.partial.size());
        let keeps_size = mode & FALLOC_FL_KEEP_SIZE != 0;
        let kind = mode & !FALLOC_FL_KEEP_SIZE;
        if kind == io::FALLOC_FL_ZERO_RANGE && !self.upper.zeroes_ranges() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut from = at;
        let is_small = self.settings.partial.is_some_and(|least| limit < least);
        if is_small && self.partial.is_whole() {
            // Soon on the disk, it can have what was asked for, and not only what looks like it.
            return Ok(false);
        }
        if at < ceil(limit) {
            let inner = end.min(size);
            match kind {
                // Unwritten blocks are holes: they may be only where the lower file has some.
                0 => self.unnoticed(|| self.fill(floor(at), ceil(inner).min(size)))?,
                FALLOC_FL_PUNCH_HOLE | io::FALLOC_FL_ZERO_RANGE => {
                    from = inner.min(ceil(limit)).max(at);
                    self.unnoticed(|| self.fill(floor(limit), limit))?;
                }
                _ => return Ok(false),
            }
        }
        // First what may be refused.
        if from < end {
            if end > size {
                self.before_growth(false)?;
            }
            io::allocate(&*self.file, mode, from, end - from)?;
            if !keeps_size {
                self.partial.reach(end);
            }
        }
        self.zero(at, from)?;
        Ok(true)
    }
}
