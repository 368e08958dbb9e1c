//! Directories of layers, and a bounded cache of descriptors for them.

use super::Layer;
use super::marks::Hints;
use crate::error::{Errno, SysError};
use crate::merge::inomap::ByNumber;
use crate::merge::name::Name;
use crate::observe::{self, Cache};
use crate::sys::fs::{self, O_DIRECTORY, O_NOATIME, O_NOFOLLOW, O_PATH, O_RDONLY};
use crate::sys::path::At;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of a lower layer. Lower layers do not change, so it stays where it
/// is: its parent and name find it again at any time.
#[derive(Debug)]
pub struct RealDir {
    /// The layer.
    pub layer: Arc<Layer>,
    /// Whether another filesystem is mounted on it (see [`super::Look::covered`]).
    pub covered: bool,
    /// What is known of the marks in it.
    pub hints: Hints,
    /// The logarithm of a bound of its size.
    size_log2: Option<u8>,
    place: Option<(Arc<RealDir>, Name)>,
    id: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl RealDir {
    /// The root of `layer`.
    pub fn root(layer: Arc<Layer>) -> RealDir {
        RealDir {
            layer,
            covered: false,
            hints: Hints::default(),
            size_log2: None,
            place: None,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The directory `name` in `parent`.
    pub fn child(parent: &Arc<RealDir>, name: Name, covered: bool) -> RealDir {
        RealDir {
            covered,
            place: Some((parent.clone(), name)),
            ..RealDir::root(parent.layer.clone())
        }
    }

    /// The same with its size, bytes.
    pub fn of_size(self, size: u64) -> RealDir {
        let above = size.checked_next_power_of_two();
        RealDir {
            size_log2: above.map(|above| above.trailing_zeros() as u8),
            ..self
        }
    }

    /// A bound of its size, bytes, less than twice as large; `None` where that is unknown.
    pub fn size_at_most(&self) -> Option<u64> {
        self.size_log2.map(|log2| 1 << log2)
    }

    /// Its parent directory and name; `None` for the layer's root.
    pub fn place(&self) -> Option<&(Arc<RealDir>, Name)> {
        self.place.as_ref()
    }
}

/// What a cached descriptor is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A [`RealDir`], by its id.
    Lower(u64),
    /// The upper's part of a directory, by the union's inode number.
    Upper(u64),
}

const SHARDS: usize = 8;

/// O_PATH descriptors of directories, the least recently used closed first.
#[derive(Debug)]
pub struct DirFds {
    shards: [Mutex<LruCache<Key, Arc<OwnedFd>, ByNumber>>; SHARDS],
}

impl DirFds {
    /// A cache of at most about `capacity` descriptors.
    pub fn new(capacity: usize) -> DirFds {
        let each = NonZeroUsize::new(capacity / SHARDS).unwrap_or(NonZeroUsize::MIN);
        DirFds {
            shards: std::array::from_fn(|_| {
                Mutex::new(LruCache::with_hasher(each, ByNumber::default()))
            }),
        }
    }

    fn shard(&self, key: Key) -> &Mutex<LruCache<Key, Arc<OwnedFd>, ByNumber>> {
        let (Key::Lower(n) | Key::Upper(n)) = key;
        &self.shards[n as usize % SHARDS]
    }

    fn get(&self, key: Key) -> Option<Arc<OwnedFd>> {
        let found = self.shard(key).lock().get(&key).cloned();
        observe::cache(Cache::DirFds, found.is_some());
        found
    }

    /// How many descriptors are open.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&self, key: Key, fd: Arc<OwnedFd>) {
        // The one that is pushed out is closed after the lock is let go.
        let _old = self.shard(key).lock().push(key, fd);
    }

    /// A descriptor of `dir`.
    ///
    /// # Errors
    /// ENOENT for a covered directory, else openat's.
    pub fn lower(&self, dir: &Arc<RealDir>) -> Result<Arc<OwnedFd>, SysError> {
        // Up to what is open, then down again: a tree may be deeper than a stack.
        let mut missing = Vec::new();
        let mut at = dir;
        let mut fd = loop {
            let Some((parent, name)) = &at.place else {
                break at.layer.root.clone();
            };
            if at.covered {
                return Err(SysError {
                    call: "openat",
                    errno: Errno::ENOENT,
                });
            }
            if let Some(fd) = self.get(Key::Lower(at.id)) {
                break fd;
            }
            missing.push((at.id, name));
            at = parent;
        };
        for (id, name) in missing.into_iter().rev() {
            fd = Arc::new(open_dir(At::new(&*fd, name))?);
            self.put(Key::Lower(id), fd.clone());
        }
        Ok(fd)
    }

    /// Remembers a descriptor of `dir`, which is not its layer's root.
    pub fn keep_lower(&self, dir: &RealDir, fd: Arc<OwnedFd>) {
        self.put(Key::Lower(dir.id), fd);
    }

    /// The cached descriptor of the upper's part of directory `ino`.
    pub fn upper(&self, ino: u64) -> Option<Arc<OwnedFd>> {
        self.get(Key::Upper(ino))
    }

    /// Remembers a descriptor of the upper's part of directory `ino`.
    pub fn keep_upper(&self, ino: u64, fd: Arc<OwnedFd>) {
        self.put(Key::Upper(ino), fd);
    }

    /// Forgets the descriptor of the upper's part of directory `ino`.
    pub fn drop_upper(&self, ino: u64) {
        self.forget(Key::Upper(ino));
    }

    /// Forgets the descriptor of `dir`; it is opened again when it is asked for again.
    pub fn drop_lower(&self, dir: &RealDir) {
        self.forget(Key::Lower(dir.id));
    }

    fn forget(&self, key: Key) {
        // Closed after the lock is let go.
        let _old = self.shard(key).lock().pop(&key);
    }
}

/// Opens one component as a directory for reaching what is in it.
pub fn open_dir(at: At<'_>) -> Result<OwnedFd, SysError> {
    fs::open(at, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0)
}

/// Opens the directory that `dir` reaches for listing, its access time left alone where
/// that is allowed: overlayfs does so in every layer.
pub fn open_listing(dir: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    let at = At { dir, name: b"." };
    match fs::open(at, flags | O_NOATIME, 0) {
        Err(e) if e.errno == Errno::EPERM => fs::open(at, flags, 0),
        other => other,
    }
}
