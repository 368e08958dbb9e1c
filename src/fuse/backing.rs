//! How opened files are served where the kernel asks before it opens one: through its
//! page cache, or passed through to the file in the layer (FUSE_PASSTHROUGH).
//!
//! The kernel wants every open of an inode to be of one kind, and to name one backing,
//! as long as one of them lasts (`fs/fuse/iomode.c`); otherwise open fails with EIO. So
//! the first open of an inode decides. A file that others have open while it is copied
//! up stays cached: a backing in the lower layer could not be exchanged for one in the
//! upper, so lower files are passed through where there is no upper alone. (The kernel opens a
//! backing without O_NOATIME, so that their layers must be on mounts that have no access times.)

use crate::merge::inomap::Ino;
use fuser::BackingId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How an open file is served.
#[derive(Clone, Debug)]
pub enum Served {
    /// By READ and WRITE requests, through the kernel's page cache.
    Cached,
    /// By the kernel alone, from this backing.
    Passed(Arc<BackingId>),
}

#[derive(Debug)]
struct Opened {
    served: Served,
    times: usize,
}

const SHARDS: usize = 16;

/// The files that are open, and how each is served.
#[derive(Debug, Default)]
pub struct Backings {
    shards: [Mutex<HashMap<Ino, Opened>>; SHARDS],
    refused: AtomicBool,
}

impl Backings {
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Opened>> {
        &self.shards[ino as usize % SHARDS]
    }

    /// One more open of `ino`, and how it is served: as those that last, else with the
    /// backing that `make` may give.
    pub fn enter(&self, ino: Ino, make: impl FnOnce() -> Option<io::Result<BackingId>>) -> Served {
        if let Some(opened) = self.shard(ino).lock().get_mut(&ino) {
            opened.times += 1;
            return opened.served.clone();
        }
        // Outside the lock: it is a system call. If another was quicker, its backing counts.
        let made = match make() {
            Some(Ok(id)) => Served::Passed(Arc::new(id)),
            Some(Err(e)) => {
                self.note_refusal(&e);
                Served::Cached
            }
            None => Served::Cached,
        };
        match self.shard(ino).lock().entry(ino) {
            Entry::Occupied(mut other) => {
                other.get_mut().times += 1;
                other.get().served.clone()
            }
            Entry::Vacant(free) => {
                let served = made.clone();
                free.insert(Opened { served, times: 1 });
                made
            }
        }
    }

    fn note_refusal(&self, error: &io::Error) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            log::warn!("io=passthrough: {error}: such files are cached");
        }
    }

    /// One open of `ino` less; `wrote` is whether it was for writing. Returns whether the
    /// kernel may have changed the file without looking at it: stores through a mapping
    /// change the times of the file in the layer alone.
    #[must_use]
    pub fn leave(&self, ino: Ino, wrote: bool) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(opened) = shard.get_mut(&ino) else {
            return false;
        };
        opened.times -= 1;
        let passed = matches!(opened.served, Served::Passed(_));
        // A backing is closed after the lock is let go.
        let _last = (opened.times == 0).then(|| shard.remove(&ino));
        drop(shard);
        passed && wrote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Option<io::Result<BackingId>> {
        Some(Err(io::ErrorKind::PermissionDenied.into()))
    }

    #[test]
    fn an_inode_without_a_backing_is_cached_until_its_last_close() {
        let backings = Backings::default();
        assert!(matches!(backings.enter(7, || None), Served::Cached));
        let mut asked = false;
        let again = backings.enter(7, || {
            asked = true;
            refused()
        });
        assert!(matches!(again, Served::Cached) && !asked);
        assert!(!backings.leave(7, false));
        assert!(!backings.leave(7, true));
        let anew = backings.enter(7, || {
            asked = true;
            refused()
        });
        assert!(matches!(anew, Served::Cached) && asked);
    }

    #[test]
    fn a_close_without_an_open_is_nothing() {
        assert!(!Backings::default().leave(9, true));
    }
}
