//! What one thread counts: nobody else writes to it, so that counting costs next to nothing.

use super::histogram::{Counter, Counts, Histogram};
use super::words::{Cache, Cause, Kind, Mark, Part};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const KINDS: usize = Kind::ALL.len();
const CAUSES: usize = Cause::ALL.len();
const PARTS: usize = Part::ALL.len();
const CACHES: usize = Cache::ALL.len();
const MARKS: usize = Mark::ALL.len();

/// The requests of one kind.
#[derive(Debug, Default)]
struct Requests {
    /// Those without a duration.
    untimed: Counter,
    errors: Counter,
    /// Made by the first that has one: most kinds never come.
    durations: OnceLock<Box<Histogram>>,
}

/// The copy-ups of one cause.
#[derive(Debug, Default)]
struct CopyUps {
    parts: [Counter; PARTS],
    failed: Counter,
    bytes: Counter,
    nanos: Counter,
}

/// The counters of one thread; apart from other threads' by more than a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    requests: [Requests; KINDS],
    copyups: [CopyUps; CAUSES],
    caches: [[Counter; 2]; CACHES],
    marks: [Counter; MARKS],
}

impl Default for Shard {
    fn default() -> Shard {
        Shard {
            requests: std::array::from_fn(|_| Requests::default()),
            copyups: std::array::from_fn(|_| CopyUps::default()),
            caches: Default::default(),
            marks: Default::default(),
        }
    }
}

impl Shard {
    /// A request of `kind` was answered.
    pub fn request(&self, kind: Kind, took: Option<Duration>, failed: bool) {
        let Some(requests) = self.requests.get(kind as usize) else {
            return;
        };
        match took {
            Some(took) => requests.durations.get_or_init(Box::default).record(took),
            None => requests.untimed.add(1),
        }
        if failed {
            requests.errors.add(1);
        }
    }

    /// A cache was asked.
    pub fn cache(&self, cache: Cache, hit: bool) {
        let counter = self.caches.get(cache as usize);
        if let Some(counter) = counter.and_then(|both| both.get(usize::from(hit))) {
            counter.add(1);
        }
    }

    /// `part` of a file was copied up, or nothing, since that failed.
    pub fn copyup(&self, cause: Cause, part: Option<Part>, bytes: u64, took: Duration) {
        let Some(copyups) = self.copyups.get(cause as usize) else {
            return;
        };
        let counter = part.map_or(Some(&copyups.failed), |part| {
            copyups.parts.get(part as usize)
        });
        if let Some(counter) = counter {
            counter.add(1);
        }
        copyups.bytes.add(bytes);
        copyups
            .nanos
            .add(u64::try_from(took.as_nanos()).unwrap_or(0));
    }

    /// A mark was written.
    pub fn mark(&self, mark: Mark) {
        if let Some(counter) = self.marks.get(mark as usize) {
            counter.add(1);
        }
    }
}

/// What requests of one kind came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSum {
    /// How many.
    pub count: u64,
    /// Of those, how many were answered with an error.
    pub errors: u64,
    /// How long they took; of kinds that are only counted, nothing.
    pub durations: Counts,
}

/// What copy-ups of one cause came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyUpSum {
    /// How many, by [`Part`].
    pub parts: [u64; PARTS],
    /// How many failed.
    pub failed: u64,
    /// Bytes of data that were copied.
    pub bytes: u64,
    /// How long they took, nanoseconds.
    pub nanos: u64,
}

/// All shards together.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// By [`Kind`].
    pub requests: Vec<RequestSum>,
    /// By [`Cause`].
    pub copyups: Vec<CopyUpSum>,
    /// By [`Cache`]: misses and hits.
    pub caches: [[u64; 2]; CACHES],
    /// By [`Mark`].
    pub marks: [u64; MARKS],
}

impl Sums {
    fn add(&mut self, shard: &Shard) {
        self.requests.resize_with(KINDS, RequestSum::default);
        self.copyups.resize_with(CAUSES, CopyUpSum::default);
        for (sum, from) in self.requests.iter_mut().zip(&shard.requests) {
            if let Some(durations) = from.durations.get() {
                durations.add_to(&mut sum.durations);
            }
            sum.count += from.untimed.get();
            sum.errors += from.errors.get();
        }
        for (sum, from) in self.copyups.iter_mut().zip(&shard.copyups) {
            for (to, part) in sum.parts.iter_mut().zip(&from.parts) {
                *to += part.get();
            }
            sum.failed += from.failed.get();
            sum.bytes += from.bytes.get();
            sum.nanos += from.nanos.get();
        }
        let caches = self.caches.iter_mut().flatten();
        for (sum, from) in caches.zip(shard.caches.iter().flatten()) {
            *sum += from.get();
        }
        for (sum, from) in self.marks.iter_mut().zip(&shard.marks) {
            *sum += from.get();
        }
    }
}

/// The shards of all threads, and those whose threads are gone, for the next ones.
#[derive(Debug, Default)]
pub struct Shards {
    all: Mutex<Vec<Arc<Shard>>>,
    free: Mutex<Vec<Arc<Shard>>>,
}

impl Shards {
    /// A shard that nobody else writes to until it is given back.
    pub fn take(&self) -> Arc<Shard> {
        if let Some(shard) = self.free.lock().pop() {
            return shard;
        }
        let shard = Arc::new(Shard::default());
        self.all.lock().push(shard.clone());
        shard
    }

    /// Gives a shard back; what it counted stays counted.
    pub fn give_back(&self, shard: Arc<Shard>) {
        self.free.lock().push(shard);
    }

    /// What all of them have counted.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        let all = self.all.lock().clone();
        for shard in &all {
            sums.add(shard);
        }
        for requests in &mut sums.requests {
            requests.count += requests.durations.count();
        }
        sums
    }
}
