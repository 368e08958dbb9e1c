//! What a mount does, counted and told: requests and how long they took, caches, copy-ups
//! and marks by who caused them.
//!
//! A thread that serves a request [`begin`]s it; until that ends, whatever the request does
//! is counted by calls to this module from anywhere, with nothing to pass along. A thread
//! that serves none counts nothing, and so does a mount with `observe=off`.

pub mod event;
pub mod figures;
pub mod histogram;
pub mod prometheus;

pub mod ring;
mod seat;
pub mod shard;
mod teller;

mod way;
pub mod words;

pub use seat::{Copying, Handed, Span};
pub use way::Way;
pub use words::{Cache, Cause, Kind, Mark, Part};

use event::What;
use ring::{Fetch, Ring};
use shard::{Shards, Sums};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How many events are kept.
const EVENTS: usize = 8192;
/// Longer paths than the kernel itself takes in one call are cut.
const PATH_MAX: usize = 4096;

/// What durations are measured with.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Its ticks so far.
    pub now: fn() -> u64,
    /// How many nanoseconds 2^32 ticks take.
    pub scale: u64,
}

impl Default for Clock {
    fn default() -> Clock {
        fn nanos() -> u64 {
            static START: OnceLock<Instant> = OnceLock::new();
            START.get_or_init(Instant::now).elapsed().as_nanos() as u64
        }
        Clock {
            now: nanos,
            scale: 1 << 32,
        }
    }
}

impl Clock {
    /// How long it is from `since` to `until`.
    fn between(&self, since: u64, until: u64) -> Duration {
        let ticks = u128::from(until.saturating_sub(since));
        Duration::from_nanos(((ticks * u128::from(self.scale)) >> 32) as u64)
    }
}

/// All that is known of one mount's doings.
#[derive(Debug)]
pub struct Observer {
    clock: Clock,
    shards: Shards,
    /// The last events.
    pub events: Ring,
    /// When it began.
    pub since: Instant,
}

impl Default for Observer {
    fn default() -> Observer {
        Observer::new(Clock::default())
    }
}

impl Observer {
    /// One that has seen nothing yet, and measures by `clock`.
    pub fn new(clock: Clock) -> Observer {
        Observer {
            clock,
            shards: Shards::default(),
            events: Ring::new(EVENTS),
            since: Instant::now(),
        }
    }

    /// The same, which has memory fetched by `fetch` before it is needed.
    #[must_use]
    pub fn fetching_by(mut self, fetch: Fetch) -> Observer {
        self.events.fetch = fetch;
        self
    }

    /// What was counted so far.
    pub fn sums(&self) -> Sums {
        self.shards.sums()
    }

    /// A request that is only counted: taking its time would cost more than serving it.
    pub fn count(self: &Arc<Self>, kind: Kind) {
        seat::sit(self);
        seat::with_shard(|shard| shard.request(kind, None, false));
    }
}

/// This thread begins to serve a request of `kind` by `pid`, until the answer is dropped.
#[must_use = "it ends when it is dropped"]
pub fn begin(observer: Option<&Arc<Observer>>, kind: Kind, pid: u32) -> Span {
    match observer {
        Some(observer) => seat::begin(observer, kind, pid),
        None => Span::default(),
    }
}

/// Another thread goes on with the request of this one, which ends there.
pub fn hand_over() -> Handed {
    seat::hand_over()
}

/// What the request does, said more exactly than by its kind.
pub fn cause(cause: Cause) {
    seat::update(|doing| doing.cause = cause);
}

/// The request is answered with an error.
pub fn failed() {
    seat::update(|doing| doing.failed = true);
}

/// A cache was asked, and had it or not.
pub fn cache(cache: Cache, hit: bool) {
    seat::with_shard(|shard| shard.cache(cache, hit));
}

/// So many bytes of data were copied.
pub fn moved(bytes: u64) {
    seat::update(|doing| doing.bytes += bytes);
}

/// So many bytes of data are shared now.
pub fn cloned(bytes: u64) {
    seat::update(|doing| (doing.bytes, doing.reflink) = (doing.bytes + bytes, true));
}

/// A copy-up begins; unless it is [`Copying::done`], it failed.
pub fn copying() -> Copying {
    seat::copying(false)
}

/// The same of a file that nobody else is copying: where that is the first thing that is done
/// for a request, it began when the request came.
pub fn copying_up() -> Copying {
    seat::copying(true)
}

/// A mark was written for `path`, which is only asked for if somebody wants to know, and false
/// where there is none; a redirect leads to `target`.
pub fn marked(mark: Mark, path: impl FnOnce(&mut Way) -> bool, target: Option<&[u8]>) {
    seat::with_shard(|shard| shard.mark(mark));
    let target = target.map(cut);
    seat::tell(|_| What::Mark { mark, target }, path);
}

/// The type of a file of `mode`, as users read it.
pub fn type_name(mode: u32) -> &'static str {
    match mode >> 12 & 15 {
        1 => "fifo",
        2 => "character device",
        4 => "directory",
        6 => "block device",
        8 => "file",
        10 => "symlink",
        12 => "socket",
        _ => "unknown",
    }
}

fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..PATH_MAX).unwrap_or(bytes)
}
