//! `Partial`: how much of its data a partly copied file of the upper has.

use crate::layer::extents::Extents;
use crate::layer::filling::Unfilled;
use crate::layer::handle::Origin;
use crate::layer::metacopy::PartMark;
use parking_lot::RwLock;
use std::sync::Arc;

/// What is known of it. Changed under the node's copy-up lock alone; the lock in here is a
/// leaf.
#[derive(Debug)]
pub struct Partial {
    state: RwLock<State>,
    /// Where it came from, if its mark says so.
    origin: Option<Origin>,
}

#[derive(Debug)]
struct State {
    /// `None` until somebody has asked the filesystem.
    own: Option<Extents>,
    /// Up to here holes are the lower file's; never more than `size`.
    limit: u64,
    /// What the mark says of that, which may be more.
    marked: u64,
    size: u64,
    /// How often copying a piece of the lower file to it began, and what counts while that goes
    /// on, when the filesystem says otherwise.
    fillings: (u64, Option<Arc<Unfilled>>),
}

/// Bytes in a row that are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whether they are the file's own, or else the lower file's.
    pub own: bool,
    /// Where they end.
    pub end: u64,
}

impl Run {
    /// The run at `at` of a file of `size` bytes, whose holes up to `limit` are not its own.
    pub fn of(own: &Extents, at: u64, limit: u64, size: u64) -> Run {
        if at >= limit {
            let end = size.max(at);
            return Run { own: true, end };
        }
        let (own, end) = own.run(at);
        let end = if own && end >= limit {
            size
        } else {
            end.min(limit)
        };
        Run { own, end }
    }
}

impl Partial {
    /// A file of `size` bytes that is marked so; `own` says which are its own, if that is known.
    pub fn new(size: u64, mark: PartMark, own: Option<Extents>) -> Partial {
        Partial {
            state: RwLock::new(State {
                own,
                limit: mark.limit.min(size),
                marked: mark.limit,
                size,
                fillings: (0, None),
            }),
            origin: mark.origin,
        }
    }

    /// A file that is marked so, as long as the mark says; `is_whole` where it has all of that,
    /// though not on the disk yet, and nothing else.
    pub fn made(mark: PartMark, is_whole: bool) -> Partial {
        let mut own = Extents::default();
        if is_whole {
            own.insert(0, mark.limit);
        }
        Partial::new(mark.limit, mark, Some(own))
    }

    /// Where it came from, if its mark says so.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Whether its holes are known.
    pub fn is_loaded(&self) -> bool {
        self.state.read().own.is_some()
    }

    /// They are these.
    pub fn load(&self, own: Extents) {
        self.state.write().own = Some(own);
    }

    /// The run at `at`; at the end of the file it is empty.
    pub fn run(&self, at: u64) -> Run {
        let state = self.state.read();
        match &state.own {
            Some(own) => Run::of(own, at, state.limit, state.size),
            None => Run {
                own: false,
                end: at,
            },
        }
    }

    /// Whether all bytes from `start` to before `end` are its own, be it beyond the limit.
    pub fn owns(&self, start: u64, end: u64) -> bool {
        let state = self.state.read();
        let end = end.min(state.limit);
        state.own.as_ref().is_some_and(|own| own.covers(start, end))
    }

    /// Whether it has all of its data.
    pub fn is_whole(&self) -> bool {
        self.owns(0, u64::MAX)
    }

    /// Notes that the bytes from `start` to before `end` are its own.
    pub fn now_owns(&self, start: u64, end: u64) {
        if let Some(own) = &mut self.state.write().own {
            own.insert(start, end);
        }
    }

    /// How many bytes of the lower file it has not, as far as that is known.
    pub fn missing(&self) -> u64 {
        let state = self.state.read();
        let own = state.own.as_ref().map_or(0, Extents::len);
        state.limit.saturating_sub(own)
    }

    /// Up to where holes are the lower file's.
    pub fn limit(&self) -> u64 {
        self.state.read().limit
    }

    /// What its mark on disk says of that.
    pub fn marked(&self) -> u64 {
        self.state.read().marked
    }

    /// Its mark on disk.
    pub fn mark(&self) -> PartMark {
        PartMark {
            limit: self.marked(),
            origin: self.origin.clone(),
        }
    }

    /// Notes up to where it says now that holes are the lower file's.
    pub fn set_marked(&self, limit: u64) {
        self.state.write().marked = limit;
    }

    /// Its size.
    pub fn size(&self) -> u64 {
        self.state.read().size
    }

    /// Notes its size, which has changed.
    pub fn set_size(&self, size: u64) {
        let mut state = self.state.write();
        state.size = size;
        if size < state.limit {
            state.limit = size;
            if let Some(own) = &mut state.own {
                own.cut(size);
            }
        }
    }

    /// Notes that it grew to `size` at least.
    pub fn reach(&self, size: u64) {
        let mut state = self.state.write();
        state.size = state.size.max(size);
    }

    /// How often copying a piece of the lower file to it began, and, while that goes on, what
    /// counts.
    pub fn fillings(&self) -> (u64, Option<Arc<Unfilled>>) {
        self.state.read().fillings.clone()
    }

    /// Whether anything of the lower file was copied to it since it is known.
    pub fn was_filled(&self) -> bool {
        self.state.read().fillings.0 > 0
    }

    /// Copying begins; `before` counts till [`Partial::filled`].
    pub fn filling(&self, before: Arc<Unfilled>) {
        let count = &mut self.state.write().fillings;
        *count = (count.0 + 1, Some(before));
    }

    /// Copying is over.
    pub fn filled(&self) {
        self.state.write().fillings.1 = None;
    }
}
