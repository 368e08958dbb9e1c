//! `ReadAhead`: which small files will be read next, judged by those that were.
//!
//! A filesystem reads ahead within a file. Where a program reads many small files one after
//! the other (tar, grep -r, cp -r, a compiler), each waits for the disk anew. So when small
//! files of one directory wait for the disk in an order that is known, those that come next
//! in it are fetched meanwhile: a few at first, more as long as they are wanted.

use crate::merge::inomap::Ino;
use crate::merge::name::Name;
use lru::LruCache;
use parking_lot::Mutex;
use std::cmp::Ordering as Compared;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Directories of which it is remembered how they are read.
const DIRS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// So many files must have waited in order before any is fetched ahead.
const SEEN: usize = 3;
/// How many are fetched ahead at first, and at most.
const WINDOW: usize = 8;
const WINDOW_MAX: usize = 64;
/// A file that comes so little later in the order is still in order: those between were in
/// memory, or are none of the program's.
const SKIPPED: usize = 4;
/// After so many that were not where the order has them, it is given up.
const STRAYS: usize = 8;

/// An order in which programs read the files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As the directory lists them.
    Listed,
    /// By the bytes of their names.
    Bytes,
    /// By their names, the numbers in them as numbers.
    Numbers,
}

const ORDERS: [Order; 3] = [Order::Listed, Order::Bytes, Order::Numbers];

impl Order {
    fn sort(self, names: &mut [Name]) {
        match self {
            Order::Listed => {}
            Order::Bytes => names.sort_unstable(),
            Order::Numbers => names.sort_unstable_by(|a, b| by_numbers(a, b)),
        }
    }
}

/// Compares names, the numbers in them as numbers.
fn by_numbers(a: &[u8], b: &[u8]) -> Compared {
    let number = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
    let (mut x, mut y) = (a, b);
    while let (Some((first, rest)), Some((other, others))) = (x.split_first(), y.split_first()) {
        let (digits, more) = (number(x), number(y));
        let compared = if digits > 0 && more > 0 {
            let (left, after) = x.split_at(digits);
            let (right, behind) = y.split_at(more);
            (x, y) = (after, behind);
            let zeros = |s: &[u8]| s.iter().take_while(|c| **c == b'0').count();
            let (left, right) = (left.split_at(zeros(left)).1, right.split_at(zeros(right)).1);
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        } else {
            (x, y) = (rest, others);
            first.cmp(other)
        };
        if compared.is_ne() {
            return compared;
        }
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

/// The files of one directory in the order in which they are read.
#[derive(Debug)]
struct Plan {
    names: Vec<Name>,
    /// Before this one all were read, or passed over.
    at: usize,
    /// Before this one all were fetched.
    fetched: usize,
    window: usize,
    strays: usize,
}

impl Plan {
    /// Notes that `name` is read; whether the plan still holds.
    fn follow(&mut self, name: &[u8], waited: bool) -> bool {
        let near = self.names.iter().enumerate().skip(self.at);
        let reach = SKIPPED + self.fetched.saturating_sub(self.at);
        match near.take(reach).find(|(_, n)| &***n == name) {
            Some((i, _)) => {
                self.at = i + 1;
                self.strays = 0;
            }
            None if waited => self.strays += 1,
            None => {}
        }
        self.strays < STRAYS && self.at < self.names.len()
    }

    fn wants(&self) -> bool {
        self.fetched < self.names.len() && self.fetched <= self.at + self.window / 2
    }

    /// What is to be fetched now.
    fn take(&mut self) -> Vec<Name> {
        let from = self.fetched.max(self.at);
        let to = (self.at + self.window).min(self.names.len()).max(from);
        self.fetched = to;
        self.window = (self.window * 2).min(WINDOW_MAX);
        self.names.get(from..to).unwrap_or_default().to_vec()
    }
}

/// How one directory is read.
#[derive(Debug)]
struct Stream {
    /// The last that waited.
    recent: VecDeque<Name>,
    /// How many waited, and at how many the order is looked for.
    waited: usize,
    due: usize,
    plan: Option<Plan>,
}

/// See the module.
#[derive(Debug)]
pub struct ReadAhead {
    streams: Mutex<LruCache<Ino, Stream>>,
    /// How many have a plan.
    plans: AtomicUsize,
    /// Whether something is to be done, and whether somebody does it.
    due: AtomicBool,
    working: AtomicBool,
    /// What the last plan that was made went by.
    last: Mutex<Option<Order>>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Say by [`ReadAhead::plan`] what files this directory has.
    List(Ino),
    /// Fetch these files of it.
    Fetch(Ino, Vec<Name>),
}

impl Default for ReadAhead {
    fn default() -> ReadAhead {
        ReadAhead {
            streams: Mutex::new(LruCache::new(DIRS)),
            plans: AtomicUsize::new(0),
            due: AtomicBool::new(false),
            working: AtomicBool::new(false),
            last: Mutex::new(None),
        }
    }
}

impl ReadAhead {
    /// Whether it matters that a file is read which `waited` for the disk, or did not.
    pub fn is_interested(&self, waited: bool) -> bool {
        waited || self.plans.load(Ordering::Relaxed) > 0
    }

    /// Notes that the small file `name` of directory `dir` is read, and whether that waited for
    /// the disk.
    pub fn note(&self, dir: Ino, name: &Name, waited: bool) {
        let mut streams = self.streams.lock();
        if let Some(stream) = streams.get_mut(&dir) {
            if let Some(plan) = &mut stream.plan {
                if !plan.follow(name, waited) {
                    stream.drop_plan();
                    self.plans.fetch_sub(1, Ordering::Relaxed);
                } else if plan.wants() {
                    self.due.store(true, Ordering::Release);
                }
                return;
            }
        } else if waited {
            // Where the last directory was read in order, this one may be too, from its first.
            let due = if self.last.lock().is_some() { 1 } else { SEEN };
            let old = streams.push(
                dir,
                Stream {
                    recent: VecDeque::new(),
                    waited: 0,
                    due,
                    plan: None,
                },
            );
            if old.is_some_and(|(_, stream)| stream.plan.is_some()) {
                self.plans.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if waited && let Some(stream) = streams.get_mut(&dir) {
            stream.waited += 1;
            if stream.recent.len() == SEEN {
                stream.recent.pop_front();
            }
            stream.recent.push_back(name.clone());
            if stream.waited >= stream.due {
                self.due.store(true, Ordering::Release);
            }
        }
    }

    /// Whether the caller is to do what there is, until [`ReadAhead::next`] has no more.
    pub fn begin(&self) -> bool {
        self.due.load(Ordering::Acquire) && !self.working.swap(true, Ordering::AcqRel)
    }

    /// The next task; `None` ends what [`ReadAhead::begin`] began.
    pub fn next(&self) -> Option<Task> {
        let mut streams = self.streams.lock();
        let task = streams
            .iter_mut()
            .find_map(|(dir, stream)| match &mut stream.plan {
                Some(plan) => plan.wants().then(|| Task::Fetch(*dir, plan.take())),
                None => (stream.waited >= stream.due).then_some(Task::List(*dir)),
            });
        if task.is_none() {
            // Under the lock, so that what is noted from now on finds nobody at work.
            self.due.store(false, Ordering::Release);
            self.working.store(false, Ordering::Release);
        }
        task
    }

    /// The regular files of `dir`, as it lists them: `names`; none where it has too many.
    pub fn plan(&self, dir: Ino, names: Vec<Name>) {
        let mut streams = self.streams.lock();
        let Some(stream) = streams.peek_mut(&dir) else {
            return;
        };
        let last = *self.last.lock();
        let found = find_order(&stream.recent, names, last);
        if let Some((order, names, at)) = found {
            stream.plan = Some(Plan {
                names,
                at,
                fetched: at,
                window: WINDOW,
                strays: 0,
            });
            self.plans.fetch_add(1, Ordering::Relaxed);
            *self.last.lock() = Some(order);
            return;
        }
        if stream.waited < SEEN {
            *self.last.lock() = None;
        }
        stream.due = (stream.waited * 2).max(SEEN);
    }
}

impl Stream {
    fn drop_plan(&mut self) {
        self.plan = None;
        self.recent.clear();
        self.due = (self.waited * 2).max(self.waited + SEEN);
    }
}

/// The order in which `names` has `recent` one after the other, `names` in it, and the place
/// after the last of them. One alone is in the order of the directory before, `last`, if it is
/// the first in it.
fn find_order(
    recent: &VecDeque<Name>,
    mut names: Vec<Name>,
    last: Option<Order>,
) -> Option<(Order, Vec<Name>, usize)> {
    for order in ORDERS {
        if recent.len() < SEEN && Some(order) != last {
            continue;
        }
        order.sort(&mut names);
        let mut places = recent
            .iter()
            .map(|name| names.iter().position(|n| n == name));
        let first = places.next()??;
        let in_order = places.try_fold(first, |before, place| {
            let place = place?;
            (before < place && place - before <= SKIPPED).then_some(place)
        });
        match in_order {
            Some(at) if recent.len() >= SEEN || first == 0 => return Some((order, names, at + 1)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<Name> {
        all.iter()
            .map(|n| Name::new(n.as_bytes()).expect("a name"))
            .collect()
    }

    fn numbered(n: usize) -> Vec<Name> {
        (0..n)
            .map(|i| Name::new(format!("f{i}").as_bytes()).expect("a name"))
            .collect()
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut some = names(&["b", "a10", "a9", "a", "a010", "a9x", "a9b2", "a9b10"]);
        Order::Numbers.sort(&mut some);
        let sorted = names(&["a", "a9", "a9b2", "a9b10", "a9x", "a010", "a10", "b"]);
        assert_eq!(some, sorted);
    }

    /// Reads `all` of directory 7 in this order, which lists `listed`; what was fetched before
    /// it was read.
    fn read(ahead: &ReadAhead, dir: Ino, all: &[Name], listed: &[Name]) -> Vec<Name> {
        let mut fetched: Vec<Name> = Vec::new();
        let mut hits = Vec::new();
        for name in all {
            let hit = fetched.contains(name);
            if hit {
                hits.push(name.clone());
            }
            if ahead.is_interested(!hit) {
                ahead.note(dir, name, !hit);
            }
            if !ahead.begin() {
                continue;
            }
            while let Some(task) = ahead.next() {
                match task {
                    Task::List(dir) => ahead.plan(dir, listed.to_vec()),
                    Task::Fetch(_, more) => fetched.extend(more),
                }
            }
        }
        hits
    }

    #[test]
    fn what_is_read_in_an_order_is_fetched_from_the_fourth_on() {
        let all = numbered(200);
        let mut by_bytes = all.clone();
        by_bytes.sort();
        let mut listed = all.clone();
        listed.reverse();
        for order in [&all, &by_bytes, &listed] {
            let ahead = ReadAhead::default();
            assert_eq!(read(&ahead, 7, order, &listed), order[SEEN..]);
        }
    }

    #[test]
    fn the_next_directory_is_fetched_from_its_second_on() {
        let ahead = ReadAhead::default();
        let all = numbered(30);
        read(&ahead, 7, &all, &all);
        assert_eq!(read(&ahead, 8, &all, &all), all[1..]);
    }

    #[test]
    fn what_is_read_in_no_order_is_not_fetched() {
        let ahead = ReadAhead::default();
        let all = numbered(100);
        let odd: Vec<_> = (0..100).map(|i| all[i * 37 % 100].clone()).collect();
        assert_eq!(read(&ahead, 7, &odd, &all), []);
    }

    #[test]
    fn an_order_that_ends_is_given_up() {
        let ahead = ReadAhead::default();
        let all = numbered(300);
        let mut some: Vec<_> = all[..20].to_vec();
        some.extend((0..60).map(|i| all[100 + i * 37 % 200].clone()));
        read(&ahead, 7, &some, &all);
        assert_eq!(ahead.plans.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn more_are_fetched_at_a_time_the_longer_it_lasts_and_never_too_many() {
        let ahead = ReadAhead::default();
        let all = numbered(1000);
        let mut most = 0;
        let mut ends = 0;
        for (i, name) in all.iter().enumerate() {
            ahead.note(7, name, i < SEEN);
            if !ahead.begin() {
                continue;
            }
            while let Some(task) = ahead.next() {
                match task {
                    Task::List(dir) => ahead.plan(dir, all.clone()),
                    Task::Fetch(_, more) => {
                        ends += more.len();
                        most = most.max(ends - i);
                    }
                }
            }
        }
        assert!((WINDOW..=WINDOW_MAX).contains(&most), "{most}");
    }

    #[test]
    fn only_so_many_directories_are_remembered() {
        let ahead = ReadAhead::default();
        let all = numbered(10);
        for dir in 0..100 {
            read(&ahead, dir, &all[..5], &all);
        }
        assert!(ahead.streams.lock().len() <= DIRS.get());
        let with_plans = ahead
            .streams
            .lock()
            .iter()
            .filter(|(_, s)| s.plan.is_some())
            .count();
        assert_eq!(ahead.plans.load(Ordering::Relaxed), with_plans);
    }
}
