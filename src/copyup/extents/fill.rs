//! A partly copied file gets what it has not of the lower file, which nobody notices.

use super::held::{Held, PIECE, ceil, floor};
use crate::copyup::Settings;
use crate::copyup::complete::unshare;
use crate::error::{Errno, Result, best_effort};
use crate::layer::filling::Unfilled;
use crate::layer::scratch::Scratch;
use crate::node::{Node, Tree};
use crate::observe::{self, Part};
use crate::sys::fs::{self, SetTime};
use crate::sys::io::{SEEK_DATA, SEEK_HOLE};
use crate::sys::path::At;
use std::sync::Arc;

/// Bytes that somebody fills who waits for the whole file.
const AT_ONCE: u64 = 16 << 20;

impl Held<'_> {
    /// Fills what the lower file has in the bytes from `at` to before `end`, which begin and
    /// end where a block does.
    pub(super) fn fill(&self, at: u64, end: u64) -> Result<()> {
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
        let below = self.below()?;
        let mut at = at;
        let mut room = Vec::new();
        while at < end {
            let data = match below.seek(at, SEEK_DATA) {
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
            let hole = below.seek(at, SEEK_HOLE).map_or(end, ceil);
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
    pub(super) fn unnoticed(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let at = At::fd(&*self.file);
        let before = fs::stat(at)?;
        let was = Arc::new(Unfilled::of(at, &before, self.node.is_harmless())?);
        let mount = self.tree.layers.scratch.as_ref().map_or(0, Scratch::mount);
        let noted = self.upper.note_filling(at, &was, mount);
        best_effort("note what a file is", noted);
        self.partial.filling(was.clone());
        let changed = change();
        let put_back = || {
            was.put_back(at, SetTime::To(before.atime))?;
            self.upper.forget_filling(at)
        };
        let quiet = put_back();
        if quiet.is_err() {
            // Whoever gets the error was promised that nothing has changed.
            best_effort("put back what a file was", put_back());
        }
        self.partial.filled();
        changed?;
        Ok(quiet?)
    }

    /// All of its data is there: it becomes an ordinary file.
    pub(super) fn finish(&self) -> Result<()> {
        let upper = self.node.stack().upper.ok_or(Errno::EIO)?;
        if self.partial.limit() > 0 {
            self.settings.order_data(self.upper, &self.file)?;
        }
        let mark = self.partial.mark();
        let told = mark.origin.is_some();
        // While neither the mark nor `overlay.origin` tells its number, this does.
        if told {
            self.tree.adopt(upper, Some(self.node.ino));
        }
        self.upper.unmark_partial(At::fd(&*self.file), &mark)?;
        if told {
            self.tree.adopt(upper, None);
        }
        unshare(self.tree, self.node, self.upper, &self.file, upper);
        Ok(())
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
        None if held.partial.is_whole() => {
            // Most of what is to be on the disk is brought there while others may write.
            let file = held.file.clone();
            drop(held);
            settings.order_data(tree.upper_layer()?, &file)?;
            let Some(held) = Held::take(tree, settings, node)? else {
                return Ok(Advance::Done);
            };
            if !held.partial.is_whole() {
                return Ok(Advance::To(0));
            }
            held.finish()?;
            if held.partial.was_filled() {
                observed.done(Part::Data, node.kind, |way| node.place().tell(way));
            }
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
