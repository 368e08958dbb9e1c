//! Open files: one descriptor for an inode, however many opens the kernel knows of.
//!
//! With FUSE_NO_OPEN_SUPPORT there is no open and no release, so nothing may depend
//! on them: descriptors are opened by the first read or write and closed when many
//! others were used since, or when the kernel forgets the inode.

use super::source::Source;
use super::{Node, Tree};
use crate::error::{Errno, Result};
use crate::merge::inomap::{ByNumber, Ino};
use crate::observe::{self, Cache};
use crate::sys::fs::{O_NONBLOCK, O_RDONLY, O_RDWR};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

#[derive(Clone, Debug)]
struct OpenFile {
    fd: Arc<OwnedFd>,
    writable: bool,
    /// Which upper file had the data when it was opened: copying the data up makes the
    /// descriptor stale.
    upper: Option<u64>,
}

const SHARDS: usize = 8;

/// Descriptors of files, the least recently used closed first.
#[derive(Debug)]
pub struct FileFds {
    shards: [Mutex<LruCache<Ino, OpenFile, ByNumber>>; SHARDS],
    /// The lower files of those whose data is in more than one.
    sources: Mutex<LruCache<Ino, Arc<Source>>>,
}

impl FileFds {
    /// A cache of at most about `capacity` descriptors.
    pub fn new(capacity: usize) -> FileFds {
        let each = NonZeroUsize::new(capacity / SHARDS).unwrap_or(NonZeroUsize::MIN);
        FileFds {
            shards: std::array::from_fn(|_| {
                Mutex::new(LruCache::with_hasher(each, ByNumber::default()))
            }),
            sources: Mutex::new(LruCache::new(each)),
        }
    }

    fn shard(&self, ino: Ino) -> &Mutex<LruCache<Ino, OpenFile, ByNumber>> {
        &self.shards[ino as usize % SHARDS]
    }

    /// How many descriptors are open.
    pub fn len(&self) -> usize {
        let files: usize = self.shards.iter().map(|shard| shard.lock().len()).sum();
        files + self.sources.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes what is open of `ino`.
    pub fn forget(&self, ino: Ino) {
        // Closed after the lock is let go.
        let _old = self.shard(ino).lock().pop(&ino);
        let _old = self.sources.lock().pop(&ino);
    }

    fn get(&self, ino: Ino) -> Option<OpenFile> {
        self.shard(ino).lock().get(&ino).cloned()
    }

    fn put(&self, ino: Ino, file: OpenFile) {
        let _old = self.shard(ino).lock().push(ino, file);
    }
}

impl Tree {
    /// A descriptor for reading `node`.
    ///
    /// # Errors
    /// EISDIR, EINVAL for what has no bytes, else openat's.
    pub fn reader(&self, node: &Node) -> Result<Arc<OwnedFd>> {
        self.descriptor(node, false)
    }

    /// A descriptor for writing `node`, whose data must be in the upper.
    ///
    /// # Errors
    /// As [`Tree::reader`].
    pub fn writer(&self, node: &Node) -> Result<Arc<OwnedFd>> {
        self.descriptor(node, true)
    }

    fn descriptor(&self, node: &Node, write: bool) -> Result<Arc<OwnedFd>> {
        if !node.is_file() {
            return Err(if node.is_dir() {
                Errno::EISDIR
            } else {
                Errno::EINVAL
            });
        }
        let upper = node.stack().written_upper();
        if let Some(open) = self.files.get(node.ino)
            && open.upper == upper
            && (open.writable || !write)
        {
            observe::cache(Cache::FileFds, true);
            return Ok(open.fd);
        }
        observe::cache(Cache::FileFds, false);
        // What is in the upper will be written sooner or later; a read-only upper
        // filesystem or an immutable file can still be read.
        let (fd, writable) = match upper {
            Some(_) => match self.open(node, O_RDWR | O_NONBLOCK) {
                Ok(fd) => (fd, true),
                Err(e) if write => return Err(e),
                Err(_) => (self.open(node, O_RDONLY | O_NONBLOCK)?, false),
            },
            None if write => return Err(Errno::EROFS),
            None => (self.open_data(node, O_RDONLY | O_NONBLOCK)?, false),
        };
        let fd = Arc::new(fd);
        self.keep_open(node, fd.clone(), writable, upper);
        Ok(fd)
    }

    /// What has the data of `node` that the topmost file has not.
    ///
    /// # Errors
    /// EIO where there is none, else openat's.
    pub fn source(&self, node: &Node) -> Result<Arc<Source>> {
        if let Some(source) = self.files.sources.lock().get(&node.ino) {
            return Ok(source.clone());
        }
        let stack = node.stack();
        let below = stack.data.as_deref().ok_or(Errno::EIO)?;
        let source = Arc::new(self.open_source(below)?);
        let _old = self.files.sources.lock().push(node.ino, source.clone());
        Ok(source)
    }

    /// The descriptor that is open on the upper file of `node`, if one is.
    pub fn held_open(&self, node: &Node) -> Option<Arc<OwnedFd>> {
        let upper = node.stack().written_upper()?;
        let open = self.files.get(node.ino)?;
        (open.upper == Some(upper)).then_some(open.fd)
    }

    /// Remembers a descriptor of the part of `node` that `upper` names.
    pub fn keep_open(&self, node: &Node, fd: Arc<OwnedFd>, writable: bool, upper: Option<u64>) {
        self.files.put(
            node.ino,
            OpenFile {
                fd,
                writable,
                upper,
            },
        );
    }
}
