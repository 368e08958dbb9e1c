//! Histograms of durations: eight buckets to each power of two of nanoseconds.
//!
//! ```text
//! bucket   0 … 7      8 … 15     16 … 23          24 … 31         …
//! from     0 1 … 7    8 9 … 15   16 18 20 … 30    32 36 40 … 60   …   ns
//! ```
//! A duration that is told from its bucket, by the bucket's middle, is wrong by at most
//! [`ERROR`] of itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The share of itself by which a quantile may be wrong.
pub const ERROR: f64 = 1.0 / 16.0;

const FINE: u32 = 3;
const PER_POWER: usize = 1 << FINE;
/// What takes 2^40 ns (18 minutes) or more shares the last bucket.
const POWERS: u32 = 40;
const BUCKETS: usize = (POWERS - FINE + 1) as usize * PER_POWER;

/// The bucket of a duration.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min((1 << POWERS) - 1);
    if nanos < PER_POWER as u64 {
        return nanos as usize;
    }
    let power = nanos.ilog2() - FINE;
    power as usize * PER_POWER + (nanos >> power) as usize
}

/// The least duration of bucket `i`, and so what those of bucket `i - 1` are less than.
fn least(i: usize) -> u64 {
    if i < PER_POWER {
        return i as u64;
    }
    let power = i / PER_POWER - 1;
    ((i - power * PER_POWER) as u64) << power
}

/// A number that one thread at a time adds to, and everybody may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. As nobody else adds meanwhile, no locked instruction is needed.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What was added.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations as they come in; one thread at a time records.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Histogram {
    sum: Counter,
    max: AtomicU64,
    buckets: [Counter; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum: Counter::default(),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Records one duration.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket(nanos)) {
            bucket.add(1);
        }
        self.sum.add(nanos);
        if nanos > self.max.load(Relaxed) {
            self.max.store(nanos, Relaxed);
        }
    }

    /// Adds what was recorded to `counts`.
    pub fn add_to(&self, counts: &mut Counts) {
        for (to, from) in counts.buckets.iter_mut().zip(&self.buckets) {
            *to += from.get();
        }
        counts.sum += self.sum.get();
        counts.max = counts.max.max(self.max.load(Relaxed));
    }
}

/// What a histogram held at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    buckets: Vec<u64>,
    /// The sum of the durations, nanoseconds.
    pub sum: u64,
    /// The longest, nanoseconds.
    pub max: u64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            buckets: vec![0; BUCKETS],
            sum: 0,
            max: 0,
        }
    }
}

impl Counts {
    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their mean, nanoseconds.
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count())
    }

    /// What a share of `q` of them did not exceed, nanoseconds, within [`ERROR`].
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                let middle = least(i) + (least(i + 1) - 1 - least(i)) / 2;
                return Some(middle.min(self.max));
            }
        }
        None
    }

    /// How many took less than 2^`power` nanoseconds.
    pub fn below(&self, power: u32) -> u64 {
        let end = bucket(1 << power.min(POWERS - 1));
        self.buckets.iter().take(end).sum()
    }

    /// The buckets that are not empty: what their durations are less than, nanoseconds, and
    /// how many there are.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64)> {
        let all = self.buckets.iter().enumerate();
        all.filter(|(_, n)| **n > 0)
            .map(|(i, n)| (least(i + 1), *n))
    }

    /// The reverse of [`Counts::filled`].
    pub fn from_filled(filled: &[(u64, u64)], sum: u64, max: u64) -> Counts {
        let mut counts = Counts {
            sum,
            max,
            ..Counts::default()
        };
        for (below, n) in filled {
            let at = bucket(below.saturating_sub(1));
            if let Some(bucket) = counts.buckets.get_mut(at) {
                *bucket = bucket.saturating_add(*n);
            }
        }
        counts
    }

    /// What came since `before`; the longest is only known by its bucket.
    pub fn since(&self, before: &Counts) -> Counts {
        let both = self.buckets.iter().zip(&before.buckets);
        let buckets: Vec<u64> = both.map(|(now, then)| now.saturating_sub(*then)).collect();
        let longest = buckets.iter().rposition(|n| *n > 0);
        Counts {
            max: longest.map_or(0, |i| (least(i + 1) - 1).min(self.max)),
            sum: self.sum.saturating_sub(before.sum),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_duration_is_in_the_bucket_that_holds_it() {
        let mut edges: Vec<u64> = (0..POWERS).flat_map(|p| [1 << p, (1 << p) + 1]).collect();
        edges.extend([0, (1 << POWERS) - 1]);
        for nanos in edges {
            let i = bucket(nanos);
            assert!(least(i) <= nanos && nanos < least(i + 1), "{nanos} in {i}");
            assert!(i < BUCKETS, "{nanos}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for i in 0..BUCKETS {
            assert_eq!(bucket(least(i)), i);
        }
    }

    #[test]
    fn an_empty_histogram_has_no_quantiles() {
        assert_eq!(Counts::default().quantile(0.5), None);
        assert_eq!(Counts::default().mean(), None);
    }

    fn counts(of: &[u64]) -> Counts {
        let histogram = Histogram::default();
        for nanos in of {
            histogram.record(Duration::from_nanos(*nanos));
        }
        let mut counts = Counts::default();
        histogram.add_to(&mut counts);
        counts
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_the_bound(
            mut nanos in prop::collection::vec(0u64..(1 << 39), 1..300),
            shift in 0u32..36,
            q in 0.0f64..=1.0,
        ) {
            nanos.iter_mut().for_each(|n| *n >>= shift);
            let counts = counts(&nanos);
            nanos.sort_unstable();
            let rank = ((q * nanos.len() as f64).ceil() as usize).max(1);
            let exact = nanos[rank - 1] as f64;
            let told = counts.quantile(q).unwrap() as f64;
            prop_assert!((told - exact).abs() <= exact * ERROR, "{told} for {exact}");
            prop_assert_eq!(counts.count(), nanos.len() as u64);
            prop_assert_eq!(counts.max, *nanos.last().unwrap());
            prop_assert_eq!(counts.sum, nanos.iter().sum::<u64>());
        }

        #[test]
        fn what_was_before_and_what_came_since_is_all(
            before in prop::collection::vec(0u64..(1 << 30), 0..100),
            after in prop::collection::vec(0u64..(1 << 30), 0..100),
        ) {
            let all = counts(&[before.clone(), after.clone()].concat());
            let since = all.since(&counts(&before));
            let want = counts(&after);
            prop_assert_eq!(&since.buckets, &want.buckets);
            prop_assert_eq!(since.sum, want.sum);
            let filled: Vec<_> = all.filled().collect();
            prop_assert_eq!(Counts::from_filled(&filled, all.sum, all.max), all);
        }
    }
}
