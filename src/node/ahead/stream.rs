//! `Streams`: which files, or directories, of one directory will be read next.

use super::Task;
use super::order::{Order, SEEN, SKIPPED};
use crate::merge::inomap::Ino;
use crate::merge::name::Name;
use lru::LruCache;
use std::collections::VecDeque;
use std::num::NonZeroUsize;

/// Directories of which it is remembered how they are read.
pub const DIRS: usize = 4;
/// How many files are fetched ahead at first, and at most.
pub const FILES: (usize, usize) = (8, 64);
/// How many directories.
const SUBDIRS: (usize, usize) = (2, 4);
/// After so many that were not where the order has them, it is given up.
const STRAYS: usize = 8;

/// The files of one directory in the order in which they are read.
#[derive(Debug)]
struct Plan {
    names: Vec<Name>,
    /// Before this one all were read, or passed over.
    at: usize,
    /// Before this one all were fetched.
    fetched: usize,
    /// How many are fetched ahead, and at most.
    window: usize,
    widest: usize,
    strays: usize,
}

impl Plan {
    /// A plan to read `names` of `kind` from `at` on.
    fn new(kind: Kind, names: Vec<Name>, at: usize) -> Plan {
        let (window, widest) = kind.windows();
        Plan {
            names,
            at,
            fetched: at,
            window,
            widest,
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
                if self.wants() {
                    self.window = (self.window * 2).min(self.widest);
                }
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
        } else if waited && self.recent.back() != Some(name) {
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
pub struct Streams {
    kind: Kind,
    by_dir: LruCache<Ino, Stream>,
    /// What the last plan that was made went by.
    last: Option<Order>,
}

impl Streams {
    pub fn new(kind: Kind) -> Streams {
        Streams {
            kind,
            by_dir: LruCache::new(NonZeroUsize::new(DIRS).unwrap_or(NonZeroUsize::MIN)),
            last: None,
        }
    }

    /// Notes that `name` of directory `dir` is read, and whether that `waited`; whether there is
    /// something to do now.
    pub fn note(&mut self, dir: Ino, name: &Name, waited: bool) -> bool {
        if waited && !self.by_dir.contains(&dir) {
            // Where the last directory was read in order, this one may be too, from its first.
            let due = if self.last.is_some() { 1 } else { SEEN };
            self.by_dir.push(dir, Stream::new(due));
        }
        let stream = self.by_dir.get_mut(&dir);
        stream.is_some_and(|stream| stream.note(name, waited))
    }

    /// What is to be done next.
    pub fn task(&mut self) -> Option<Task> {
        let kind = self.kind;
        let mut streams = self.by_dir.iter_mut();
        streams.find_map(|(dir, stream)| match &mut stream.plan {
            Some(plan) => (plan.wants()).then(|| Task::Fetch(kind, *dir, plan.take())),
            None => stream.is_due().then_some(Task::List(kind, *dir)),
        })
    }

    /// How `dir` is read, if somebody waits for a plan, and what the last plan went by.
    pub fn question(&self, dir: Ino) -> Option<(VecDeque<Name>, Option<Order>)> {
        let stream = self.by_dir.peek(&dir).filter(|stream| stream.is_due())?;
        Some((stream.recent.clone(), self.last))
    }

    /// The files of `dir` in the order that was found, and the place to go on from.
    pub fn plan(&mut self, dir: Ino, found: Option<(Order, Vec<Name>, usize)>) {
        let Some(stream) = self.by_dir.peek_mut(&dir) else {
            return;
        };
        if let Some((order, names, at)) = found {
            stream.plan = Some(Plan::new(self.kind, names, at));
            self.last = Some(order);
            return;
        }
        if stream.waited < SEEN {
            self.last = None;
        }
        stream.due = (stream.waited * 2).max(SEEN);
    }

    /// How many directories are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_dir.len()
    }

    /// Whether one has a plan.
    pub fn has_plan(&self) -> bool {
        self.by_dir.iter().any(|(_, s)| s.plan.is_some())
    }
}
