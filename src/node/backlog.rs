//! `Backlog`: the partly copied files that are known, which are to get the rest of their
//! data: the one whose last use is longest ago first.

use super::Tree;
use crate::merge::inomap::Ino;
use lru::LruCache;
use parking_lot::Mutex;

/// Their numbers. Each is counted as looked up, so that there is one node for a file as long
/// as somebody may be filling it.
#[derive(Debug)]
pub struct Backlog {
    queue: Mutex<LruCache<Ino, ()>>,
}

impl Default for Backlog {
    fn default() -> Backlog {
        Backlog {
            queue: Mutex::new(LruCache::unbounded()),
        }
    }
}

impl Backlog {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.queue.lock().len()
    }

    /// Notes that `ino` was used.
    pub fn touch(&self, ino: Ino) {
        self.queue.lock().promote(&ino);
    }

    /// The one that is next.
    pub fn next(&self) -> Option<Ino> {
        self.queue.lock().peek_lru().map(|(ino, ())| *ino)
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
        if self.backlog.queue.lock().put(ino, ()).is_none() {
            node.told();
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
