//! The figures of a mount at one moment, as they are told: JSON both ways, and differences.

use super::event::text_and_hex;
use super::histogram::Counts;
use super::shard::{CopyUpSum, RequestSum, Sums};
use super::words::{Cache, Cause, Kind, Mark, Part};
use super::{EVENTS, Observer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A bucket of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// What its durations are less than, nanoseconds.
    pub below_ns: u64,
    /// How many there are.
    pub count: u64,
}

/// The requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// How many were answered.
    pub count: u64,
    /// Of those, how many with an error.
    pub errors: u64,
    /// How long they took together; the times are microseconds, `None` for kinds that are
    /// only counted.
    pub total_us: f64,
    /// The mean.
    pub mean_us: Option<f64>,
    /// What half of them did not exceed.
    pub p50_us: Option<f64>,
    /// What nine of ten did not exceed.
    pub p90_us: Option<f64>,
    /// What 99 of 100 did not exceed.
    pub p99_us: Option<f64>,
    /// The longest.
    pub max_us: Option<f64>,
    /// The buckets that are not empty.
    pub histogram: Vec<Bucket>,
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

impl Requests {
    fn of(count: u64, errors: u64, durations: &Counts) -> Requests {
        let quantile = |q| durations.quantile(q).map(micros);
        let bucket = |(below_ns, count)| Bucket { below_ns, count };
        Requests {
            count,
            errors,
            total_us: micros(durations.sum),
            mean_us: durations.mean().map(micros),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            max_us: durations.mean().map(|_| micros(durations.max)),
            histogram: durations.filled().map(bucket).collect(),
        }
    }

    /// The durations, as far as they are told.
    pub fn durations(&self) -> Counts {
        let filled: Vec<_> = self
            .histogram
            .iter()
            .map(|b| (b.below_ns, b.count))
            .collect();
        let nanos = |micros: f64| (micros * 1e3).round() as u64;
        Counts::from_filled(
            &filled,
            nanos(self.total_us),
            nanos(self.max_us.unwrap_or(0.0)),
        )
    }

    fn since(&self, before: &Requests) -> Requests {
        Requests::of(
            self.count.saturating_sub(before.count),
            self.errors.saturating_sub(before.errors),
            &self.durations().since(&before.durations()),
        )
    }
}

/// How often a cache was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// It had what was wanted.
    pub hits: u64,
    /// It had not.
    pub misses: u64,
}

/// The copy-ups of one cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyUps {
    /// Of owner, mode, times and xattrs alone; and of directories.
    pub meta: u64,
    /// Of the data of a file that had been copied up without.
    pub data: u64,
    /// Of all of a file at once.
    pub whole: u64,
    /// That only began: what is written follows, block by block.
    #[serde(default)]
    pub partial: u64,
    /// That failed.
    pub failed: u64,
    /// Bytes of data.
    pub bytes: u64,
    /// Microseconds.
    pub total_us: f64,
}

impl CopyUps {
    fn of(sum: &CopyUpSum) -> CopyUps {
        let part = |part: Part| sum.parts.get(part as usize).copied().unwrap_or(0);
        CopyUps {
            meta: part(Part::Meta),
            data: part(Part::Data),
            whole: part(Part::Whole),
            partial: part(Part::Partial),
            failed: sum.failed,
            bytes: sum.bytes,
            total_us: micros(sum.nanos),
        }
    }

    fn since(&self, before: &CopyUps) -> CopyUps {
        CopyUps {
            meta: self.meta.saturating_sub(before.meta),
            data: self.data.saturating_sub(before.data),
            whole: self.whole.saturating_sub(before.whole),
            partial: self.partial.saturating_sub(before.partial),
            failed: self.failed.saturating_sub(before.failed),
            bytes: self.bytes.saturating_sub(before.bytes),
            total_us: (self.total_us - before.total_us).max(0.0),
        }
    }

    /// Whether there was any.
    pub fn any(&self) -> bool {
        self.meta + self.data + self.whole + self.partial + self.failed > 0
    }
}

/// What is known of the event log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// How many there were.
    pub written: u64,
    /// Of those, how many found no place, and are in no log.
    pub dropped: u64,
    /// How many of the last ones are kept.
    pub kept: u64,
}

/// Open descriptors of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Descriptors {
    /// All of them.
    pub open: u64,
    /// How many there may be.
    pub limit: u64,
    /// Those of layers' directories.
    pub directories: u64,
    /// Those of files.
    pub files: u64,
}

/// Memory of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident now.
    pub resident_bytes: u64,
    /// Resident at most, so far.
    pub peak_bytes: u64,
    /// For each node, what the daemon has grown by since it began; `None` for few nodes.
    pub per_node_bytes: Option<u64>,
}

/// What was fetched before anybody asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories that were listed.
    pub directories: u64,
    /// Entries of directories that were looked at.
    pub entries: u64,
}

impl Fetched {
    fn since(&self, before: &Fetched) -> Fetched {
        Fetched {
            files: self.files.saturating_sub(before.files),
            bytes: self.bytes.saturating_sub(before.bytes),
            directories: self.directories.saturating_sub(before.directories),
            entries: self.entries.saturating_sub(before.entries),
        }
    }
}

/// Partly copied files that are known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partly {
    /// How many.
    pub files: u64,
    /// How many bytes they lack.
    pub missing_bytes: u64,
}

/// What is looked up at the moment of asking.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Present {
    /// Where the union was mounted.
    pub mount: String,
    /// The same in hexadecimal, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_hex: Option<String>,
    /// The device that its files are on, `major:minor`.
    pub device: String,
    /// The daemon.
    pub pid: u32,
    /// How many nodes the kernel knows.
    pub nodes: u64,
    /// Open descriptors.
    pub descriptors: Descriptors,
    /// Memory.
    pub memory: Memory,
    /// Partly copied files.
    #[serde(default)]
    pub partly_copied: Partly,
    /// What was fetched ahead so far.
    #[serde(default)]
    pub fetched_ahead: Fetched,
}

impl Present {
    /// Says where the union is mounted.
    pub fn at(mut self, mount: &[u8]) -> Present {
        (self.mount, self.mount_hex) = text_and_hex(mount);
        self
    }
}

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The version of the daemon.
    pub plyfs: String,
    /// For how long it has been counting.
    pub uptime_seconds: f64,
    /// What is so now.
    #[serde(flatten)]
    pub present: Present,
    /// By kind; those that never came are left out.
    pub requests: BTreeMap<String, Requests>,
    /// By name.
    pub caches: BTreeMap<String, Asked>,
    /// By cause; those that never came are left out.
    pub copyups: BTreeMap<String, CopyUps>,
    /// Marks that were written to the upper, or went.
    pub marks: BTreeMap<String, u64>,
    /// The event log.
    pub events: Events,
}

fn named<W: Copy, V, T>(
    words: &[W],
    name: fn(W) -> &'static str,
    values: &[V],
    tell: impl Fn(&V) -> Option<T>,
) -> BTreeMap<String, T> {
    let both = words.iter().zip(values);
    both.filter_map(|(word, value)| Some((name(*word).to_owned(), tell(value)?)))
        .collect()
}

impl Figures {
    /// What `observer` has counted, beside what is `present`.
    pub fn of(observer: &Observer, present: Present) -> Figures {
        let Sums {
            requests,
            copyups,
            caches,
            marks,
        } = observer.sums();
        let written = observer.events.last();
        let request = |sum: &RequestSum| {
            (sum.count > 0).then(|| Requests::of(sum.count, sum.errors, &sum.durations))
        };
        let copyup = |sum: &CopyUpSum| Some(CopyUps::of(sum)).filter(CopyUps::any);
        let asked = |[misses, hits]: &[u64; 2]| {
            Some(Asked {
                hits: *hits,
                misses: *misses,
            })
        };
        Figures {
            plyfs: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: observer.since.elapsed().as_secs_f64(),
            present,
            requests: named(Kind::ALL, Kind::name, &requests, request),
            caches: named(Cache::ALL, Cache::name, &caches, asked),
            copyups: named(Cause::ALL, Cause::name, &copyups, copyup),
            marks: named(Mark::ALL, Mark::name, &marks, |n| Some(*n)),
            events: Events {
                written,
                dropped: observer.events.dropped(),
                kept: written.min(EVENTS as u64),
            },
        }
    }

    /// What came since `before`; what is present stays as it is now.
    pub fn since(&self, before: &Figures) -> Figures {
        let mut new = self.clone();
        for (kind, requests) in &mut new.requests {
            if let Some(before) = before.requests.get(kind) {
                *requests = requests.since(before);
            }
        }
        new.requests.retain(|_, requests| requests.count > 0);
        for (cause, copyups) in &mut new.copyups {
            if let Some(before) = before.copyups.get(cause) {
                *copyups = copyups.since(before);
            }
        }
        new.copyups.retain(|_, copyups| copyups.any());
        for (cache, asked) in &mut new.caches {
            let before = before.caches.get(cache).copied().unwrap_or_default();
            asked.hits = asked.hits.saturating_sub(before.hits);
            asked.misses = asked.misses.saturating_sub(before.misses);
        }
        for (mark, n) in &mut new.marks {
            *n = n.saturating_sub(before.marks.get(mark).copied().unwrap_or_default());
        }
        let (ahead, before_ahead) = (
            &mut new.present.fetched_ahead,
            &before.present.fetched_ahead,
        );
        *ahead = ahead.since(before_ahead);
        new.events.written = new.events.written.saturating_sub(before.events.written);
        new.events.dropped = new.events.dropped.saturating_sub(before.events.dropped);
        new.uptime_seconds -= before.uptime_seconds;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use std::sync::Arc;

    fn serve(observer: &Arc<Observer>, kind: Kind, times: usize) {
        for _ in 0..times {
            let _span = begin(Some(observer), kind, 0);
            cache(Cache::Absent, true);
        }
    }

    fn figures(observer: &Observer) -> Figures {
        Figures::of(observer, Present::default().at(b"/m\xff"))
    }

    #[test]
    fn figures_come_back_from_json_as_they_were() {
        let observer = Arc::new(Observer::default());
        serve(&observer, Kind::Lookup, 5);
        observer.count(Kind::Forget);
        let told = figures(&observer);
        let text = serde_json::to_string(&told).expect("JSON");
        let back: Figures = serde_json::from_str(&text).expect("figures");
        assert_eq!(back, told);
        assert_eq!(back.present.mount_hex.as_deref(), Some("2f6dff"));
        assert_eq!(back.requests["forget"].p50_us, None);
        let lookups = &back.requests["lookup"];
        assert_eq!(lookups.count, lookups.durations().count());
        assert!(lookups.p50_us <= lookups.max_us);
        assert!(!back.requests.contains_key("read"));
        assert_eq!(back.caches["absent_names"], Asked { hits: 5, misses: 0 });
    }

    #[test]
    fn what_came_since_is_told_apart() {
        let observer = Arc::new(Observer::default());
        serve(&observer, Kind::Lookup, 5);
        serve(&observer, Kind::Getattr, 2);
        let before = figures(&observer);
        serve(&observer, Kind::Lookup, 3);
        serve(&observer, Kind::Read, 1);
        let since = figures(&observer).since(&before);
        let counts: Vec<_> = since
            .requests
            .iter()
            .map(|(k, r)| (k.as_str(), r.count))
            .collect();
        assert_eq!(counts, [("lookup", 3), ("read", 1)]);
        assert_eq!(since.requests["lookup"].durations().count(), 3);
        assert_eq!(since.caches["absent_names"].hits, 4);
    }
}
