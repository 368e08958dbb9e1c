//! `Backlog`: the partly copied files that are known, which are to get the rest of their
//! data: the one whose last use is longest ago first.

use super::Tree;
use crate::merge::inomap::Ino;
use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Their numbers. Each is counted as looked up, so that there is one node for a file as long
/// as somebody may be filling it.
#[derive(Debug)]
pub struct Backlog {
    queue: Mutex<LruCache<Ino, ()>>,
    /// Somebody is to look at it.
    changed: Condvar,
}

impl Default for Backlog {
    fn default() -> Backlog {
        Backlog {
            queue: Mutex::new(LruCache::unbounded()),
            changed: Condvar::new(),
        }
    }
}

impl Backlog {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// Waits for so long, or else until there is one; not longer than until [`Backlog::end`]
    /// ends it.
    pub fn wait(&self, time: Option<Duration>, over: &AtomicBool) {
        let mut queue = self.queue.lock();
        if over.load(Ordering::Relaxed) {
            return;
        }
        match time {
            Some(time) => {
                self.changed.wait_for(&mut queue, time);
            }
            None if queue.is_empty() => self.changed.wait(&mut queue),
            None => {}
        }
    }

    /// Ends the waiting of whoever does so with `over`.
    pub fn end(&self, over: &AtomicBool) {
        // Under the lock, so that nobody begins to wait meanwhile.
        let queue = self.queue.lock();
        over.store(true, Ordering::Relaxed);
        drop(queue);
        self.changed.notify_all();
    }

    /// Notes that `ino` was used.
    pub fn touch(&self, ino: Ino) {
        self.queue.lock().promote(&ino);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Ino> {
        self.queue.lock().iter().map(|(ino, ())| *ino).collect()
    }

    /// The one that is next.
    pub fn next(&self) -> Option<Ino> {
        self.queue.lock().peek_lru().map(|(ino, ())| *ino)
    }

    /// The `most` that are next, or all.
    pub fn next_of(&self, most: usize) -> Vec<Ino> {
        let queue = self.queue.lock();
        queue
            .iter()
            .rev()
            .take(most)
            .map(|(ino, ())| *ino)
            .collect()
    }
}

impl Tree {
    /// Adds the node `ino`, which is partly copied.
    pub fn add_to_backlog(&self, ino: Ino) {
        if self.backlog.queue.lock().contains(&ino) {
            return;
        }
        let Some(node) = self.refer(ino) else {
            return;
        };
        let mut queue = self.backlog.queue.lock();
        let begins = queue.is_empty();
        let is_new = queue.put(ino, ()).is_none();
        drop(queue);
        if is_new {
            node.told();
        }
        if begins {
            self.backlog.changed.notify_all();
        }
    }

    /// Takes it away again. The caller holds no reference to the node.
    pub fn drop_from_backlog(&self, ino: Ino) {
        let there = self.backlog.queue.lock().pop(&ino);
        if there.is_some() {
            self.forget(ino, 1);
        }
    }
}
