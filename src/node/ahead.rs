//! `ReadAhead`: what will be read next, judged by what was.
//!
//! A filesystem reads ahead within a file. Where a program reads many small files one after
//! the other, or walks a tree (tar, grep -r, cp -r, find, a compiler), each file and each
//! directory waits for the disk anew. So when those of one directory wait in an order that is
//! known, the next in it are fetched meanwhile: a few at first, more as long as they are
//! wanted. Of a directory that is read page by page the next page is looked at.

use crate::merge::inomap::Ino;
use crate::merge::name::Name;
use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use std::cmp::Ordering as Compared;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Directories of which it is remembered how they are read.
const DIRS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// So many files must have waited in order before any is fetched ahead.
const SEEN: usize = 3;
/// How many files are fetched ahead at first, and at most.
const FILES: (usize, usize) = (8, 64);
/// How many directories.
const SUBDIRS: (usize, usize) = (2, 4);
/// How many pages of a directory are looked at ahead.
const PAGES: usize = 4;
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
    /// A plan to read `names` of `kind` from `at` on.
    fn new(kind: Kind, names: Vec<Name>, at: usize) -> Plan {
        Plan {
            names,
            at,
            fetched: at,
            window: kind.windows().0,
            strays: 0,
        }
    }

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
    fn take(&mut self, kind: Kind) -> Vec<Name> {
        let from = self.fetched.max(self.at);
        let to = (self.at + self.window).min(self.names.len()).max(from);
        self.fetched = to;
        self.window = (self.window * 2).min(kind.windows().1);
        self.names.get(from..to).unwrap_or_default().to_vec()
    }
}

/// How the files, or the directories, in one directory are read.
#[derive(Debug)]
struct Stream {
    /// The last that waited.
    recent: VecDeque<Name>,
    /// How many waited, and at how many the order is looked for.
    waited: usize,
    due: usize,
    plan: Option<Plan>,
}

impl Stream {
    fn new(due: usize) -> Stream {
        Stream {
            recent: VecDeque::new(),
            waited: 0,
            due,
            plan: None,
        }
    }

    /// Notes that `name` is read; whether there is something to do now.
    fn note(&mut self, name: &Name, waited: bool) -> bool {
        if let Some(plan) = &mut self.plan {
            if plan.follow(name, waited) {
                return plan.wants();
            }
            self.plan = None;
            self.recent.clear();
            self.due = self.waited * 2 + SEEN;
        } else if waited {
            self.waited += 1;
            if self.recent.len() == SEEN {
                self.recent.pop_front();
            }
            self.recent.push_back(name.clone());
        }
        self.is_due()
    }

    fn is_due(&self) -> bool {
        self.plan.is_none() && self.waited >= self.due
    }
}

/// What is read: each has an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The data of small files.
    Files,
    /// The entries of directories, and what they are like.
    Dirs,
}

impl Kind {
    fn windows(self) -> (usize, usize) {
        match self {
            Kind::Files => FILES,
            Kind::Dirs => SUBDIRS,
        }
    }
}

/// The streams of one kind.
#[derive(Debug)]
struct Streams {
    kind: Kind,
    by_dir: LruCache<Ino, Stream>,
    /// What the last plan that was made went by.
    last: Option<Order>,
}

impl Streams {
    fn new(kind: Kind) -> Streams {
        Streams {
            kind,
            by_dir: LruCache::new(DIRS),
            last: None,
        }
    }

    fn note(&mut self, dir: Ino, name: &Name, waited: bool) -> bool {
        if waited && !self.by_dir.contains(&dir) {
            // Where the last directory was read in order, this one may be too, from its first.
            let due = if self.last.is_some() { 1 } else { SEEN };
            self.by_dir.push(dir, Stream::new(due));
        }
        let stream = self.by_dir.get_mut(&dir);
        stream.is_some_and(|stream| stream.note(name, waited))
    }

    fn task(&mut self) -> Option<Task> {
        let kind = self.kind;
        self.by_dir
            .iter_mut()
            .find_map(|(dir, stream)| match &mut stream.plan {
                Some(plan) => plan
                    .wants()
                    .then(|| Task::Fetch(kind, *dir, plan.take(kind))),
                None => stream.is_due().then_some(Task::List(kind, *dir)),
            })
    }

    fn plan(&mut self, dir: Ino, names: Vec<Name>) {
        let Some(stream) = self.by_dir.peek_mut(&dir) else {
            return;
        };
        if let Some((order, names, at)) = find_order(&stream.recent, names, self.last) {
            stream.plan = Some(Plan::new(self.kind, names, at));
            self.last = Some(order);
            return;
        }
        if stream.waited < SEEN {
            self.last = None;
        }
        stream.due = (stream.waited * 2).max(SEEN);
    }

    fn plans(&self) -> usize {
        self.by_dir.iter().filter(|(_, s)| s.plan.is_some()).count()
    }
}

/// See the module.
#[derive(Debug)]
pub struct ReadAhead {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether a stream of either kind has a plan.
    planned: AtomicBool,
    /// Whether something is to be done, and whether somebody does it.
    due: AtomicBool,
    working: AtomicBool,
}

#[derive(Debug)]
struct State {
    files: Streams,
    dirs: Streams,
    pages: Option<Pages>,
}

/// How a directory is read page by page.
#[derive(Debug)]
struct Pages {
    dir: Ino,
    /// Where the next page begins.
    next: u64,
    /// How many entries it has, about.
    entries: usize,
    /// Up to this cookie entries were looked at ahead, and how many after `next`.
    seen: u64,
    ahead: usize,
}

impl Pages {
    fn wants(&self) -> bool {
        self.ahead <= self.entries * PAGES / 2
    }

    fn task(&mut self) -> Option<Task> {
        let most = self.entries * PAGES;
        self.wants().then(|| {
            let more = most - self.ahead;
            // Whoever does it says how many there were.
            self.ahead = most;
            Task::Look(self.dir, self.seen.max(self.next), more)
        })
    }
}

impl State {
    fn streams(&mut self, kind: Kind) -> &mut Streams {
        match kind {
            Kind::Files => &mut self.files,
            Kind::Dirs => &mut self.dirs,
        }
    }

    fn task(&mut self) -> Option<Task> {
        let pages = self.pages.as_mut().and_then(Pages::task);
        pages
            .or_else(|| self.files.task())
            .or_else(|| self.dirs.task())
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Say by [`ReadAhead::plan`] what this directory has of a kind.
    List(Kind, Ino),
    /// Fetch these of it.
    Fetch(Kind, Ino, Vec<Name>),
    /// Look at so many entries of this directory after this cookie, and say so by
    /// [`ReadAhead::note_seen`].
    Look(Ino, u64, usize),
}

impl Default for ReadAhead {
    fn default() -> ReadAhead {
        ReadAhead {
            state: Mutex::new(State {
                files: Streams::new(Kind::Files),
                dirs: Streams::new(Kind::Dirs),
                pages: None,
            }),
            changed: Condvar::new(),
            planned: AtomicBool::new(false),
            due: AtomicBool::new(false),
            working: AtomicBool::new(false),
        }
    }
}

impl ReadAhead {
    /// Whether it matters that something is read that `waited` for the disk, or did not.
    pub fn is_interested(&self, waited: bool) -> bool {
        waited || self.planned.load(Ordering::Relaxed)
    }

    /// Notes that `name` of directory `dir`, which is of `kind`, is read, and whether that
    /// waited for the disk.
    pub fn note(&self, kind: Kind, dir: Ino, name: &Name, waited: bool) {
        let mut state = self.state.lock();
        if state.streams(kind).note(dir, name, waited) {
            self.stir();
        }
        self.count_plans(&state);
    }

    /// Notes that the page of directory `dir` after cookie `from` is read, which has so many
    /// entries, that others follow after `to`, and whether it `waited`.
    pub fn note_page(&self, dir: Ino, from: u64, to: u64, entries: usize, waited: bool) {
        let mut state = self.state.lock();
        let before = state
            .pages
            .as_ref()
            .filter(|p| (p.dir, p.next) == (dir, from));
        let (seen, ahead) = match before {
            Some(pages) => (pages.seen, pages.ahead.saturating_sub(entries)),
            None if waited => (to, 0),
            None => return,
        };
        let pages = Pages {
            dir,
            next: to,
            entries,
            seen,
            ahead,
        };
        if pages.wants() {
            self.stir();
        }
        state.pages = Some(pages);
    }

    /// Notes that the entries of `dir` up to `cookie` were looked at; `None` if there are no
    /// more.
    pub fn note_seen(&self, dir: Ino, cookie: Option<u64>) {
        let mut state = self.state.lock();
        if let Some(pages) = state.pages.as_mut().filter(|pages| pages.dir == dir) {
            match cookie {
                Some(cookie) => pages.seen = pages.seen.max(cookie),
                None => state.pages = None,
            }
        }
    }

    fn stir(&self) {
        self.due.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn count_plans(&self, state: &State) {
        let planned = state.files.plans() + state.dirs.plans() > 0;
        self.planned.store(planned, Ordering::Relaxed);
    }

    /// Whether the caller is to have done what there is, until [`ReadAhead::next`] has no more.
    pub fn begin(&self) -> bool {
        self.due.load(Ordering::Acquire) && !self.working.swap(true, Ordering::AcqRel)
    }

    /// The next task, awaited for so long; `None` ends what [`ReadAhead::begin`] began.
    pub fn next(&self, patience: Duration) -> Option<Task> {
        let mut state = self.state.lock();
        let mut task = state.task();
        if task.is_none() && !patience.is_zero() {
            self.changed.wait_for(&mut state, patience);
            task = state.task();
        }
        if task.is_none() {
            // Under the lock, so that what is noted from now on finds nobody at work.
            self.due.store(false, Ordering::Release);
            self.working.store(false, Ordering::Release);
        }
        task
    }

    /// Ends what [`ReadAhead::begin`] began, before there is nothing more to do.
    pub fn end(&self) {
        self.working.store(false, Ordering::Release);
    }

    /// What `dir` has of `kind`, as it lists them: `names`; none where it has too many.
    pub fn plan(&self, kind: Kind, dir: Ino, names: Vec<Name>) {
        let mut state = self.state.lock();
        state.streams(kind).plan(dir, names);
        self.count_plans(&state);
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
                ahead.note(Kind::Files, dir, name, !hit);
            }
            if !ahead.begin() {
                continue;
            }
            while let Some(task) = ahead.next(Duration::ZERO) {
                match task {
                    Task::List(kind, dir) => ahead.plan(kind, dir, listed.to_vec()),
                    Task::Fetch(_, _, more) => fetched.extend(more),
                    Task::Look(..) => panic!("nobody reads a directory"),
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
        assert!(!ahead.is_interested(false));
    }

    #[test]
    fn more_are_fetched_at_a_time_the_longer_it_lasts_and_never_too_many() {
        let ahead = ReadAhead::default();
        let all = numbered(1000);
        let mut most = 0;
        let mut ends = 0;
        for (i, name) in all.iter().enumerate() {
            ahead.note(Kind::Files, 7, name, i < SEEN);
            if !ahead.begin() {
                continue;
            }
            while let Some(task) = ahead.next(Duration::ZERO) {
                match task {
                    Task::List(kind, dir) => ahead.plan(kind, dir, all.clone()),
                    Task::Fetch(_, _, more) => {
                        ends += more.len();
                        most = most.max(ends - i);
                    }
                    Task::Look(..) => panic!("nobody reads a directory"),
                }
            }
        }
        assert!((FILES.0..=FILES.1).contains(&most), "{most}");
    }

    #[test]
    fn only_so_many_directories_are_remembered() {
        let ahead = ReadAhead::default();
        let all = numbered(10);
        for dir in 0..100 {
            read(&ahead, dir, &all[..5], &all);
        }
        assert!(ahead.state.lock().files.by_dir.len() <= DIRS.get());
    }

    #[test]
    fn after_a_page_that_waited_the_next_ones_are_looked_at_until_there_are_no_more() {
        let ahead = ReadAhead::default();
        ahead.note_page(7, 50, 100, 50, false);
        assert!(!ahead.begin());
        ahead.note_page(7, 100, 150, 50, true);
        assert!(ahead.begin());
        assert!(!ahead.begin());
        let next = || ahead.next(Duration::ZERO);
        assert_eq!(next(), Some(Task::Look(7, 150, 200)));
        ahead.note_seen(7, Some(350));
        assert_eq!(next(), None);
        ahead.note_page(7, 150, 200, 50, false);
        assert!(!ahead.begin());
        ahead.note_page(7, 200, 250, 50, false);
        assert!(ahead.begin());
        assert_eq!(next(), Some(Task::Look(7, 350, 100)));
        ahead.note_seen(7, None);
        ahead.note_page(7, 250, 300, 50, false);
        assert_eq!(next(), None);
        assert!(!ahead.begin());
    }
}
