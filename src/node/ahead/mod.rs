//! `ReadAhead`: what will be read next, judged by what was.
//!
//! A filesystem reads ahead within a file. Where a program reads many small files one after
//! the other, or walks a tree (tar, grep -r, cp -r, find, a compiler), each file and each
//! directory waits for the disk anew. So when those of one directory wait in an order that is
//! known, the next in it are fetched meanwhile: a few at first, more as long as they are
//! wanted. Of a directory that is read page by page the next pages are looked at.

mod order;
mod pages;
mod stream;

pub use stream::Kind;

use crate::merge::inomap::Ino;
use crate::merge::name::Name;
use crate::observe::figures::Fetched;
use order::find_order;
use pages::Pages;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stream::Streams;

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
    counts: Counts,
}

/// What was fetched so far; see [`Fetched`].
#[derive(Debug, Default)]
struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
    directories: AtomicU64,
    entries: AtomicU64,
}

#[derive(Debug)]
struct State {
    files: Streams,
    dirs: Streams,
    pages: Option<Pages>,
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
            counts: Counts::default(),
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
        let before = state.pages.take();
        state.pages = Pages::follow(before, dir, (from, to), entries, waited);
        if state.pages.as_ref().is_some_and(Pages::wants) {
            self.stir();
        }
    }

    /// Notes that the entries of `dir` up to `cookie` were looked at; `None` if there are no
    /// more.
    pub fn note_seen(&self, dir: Ino, cookie: Option<u64>) {
        let mut state = self.state.lock();
        if let Some(pages) = state.pages.take() {
            state.pages = pages.look(dir, cookie);
        }
    }

    fn stir(&self) {
        self.due.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn count_plans(&self, state: &State) {
        let planned = state.files.has_plan() || state.dirs.has_plan();
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

    /// Counts a file of so many bytes that was fetched.
    pub fn fetched_file(&self, bytes: u64) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a directory that was listed.
    pub fn fetched_directory(&self) {
        self.counts.directories.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts so many entries of a directory that were looked at.
    pub fn fetched_entries(&self, count: u64) {
        self.counts.entries.fetch_add(count, Ordering::Relaxed);
    }

    /// What was fetched so far.
    pub fn fetched(&self) -> Fetched {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Fetched {
            files: count(&self.counts.files),
            bytes: count(&self.counts.bytes),
            directories: count(&self.counts.directories),
            entries: count(&self.counts.entries),
        }
    }

    /// What `dir` has of `kind`, as it lists them: `names`; none where it has too many.
    pub fn plan(&self, kind: Kind, dir: Ino, names: Vec<Name>) {
        let question = self.state.lock().streams(kind).question(dir);
        let Some((recent, last)) = question else {
            return;
        };
        // Many names take their time to sort: nobody waits for that.
        let found = find_order(&recent, names, last);
        let mut state = self.state.lock();
        state.streams(kind).plan(dir, found);
        self.count_plans(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::order::SEEN;
    use super::stream::{DIRS, FILES};
    use super::*;

    fn numbered(n: usize) -> Vec<Name> {
        (0..n)
            .map(|i| Name::new(format!("f{i}").as_bytes()).expect("a name"))
            .collect()
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
        assert!(ahead.state.lock().files.len() <= DIRS);
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
