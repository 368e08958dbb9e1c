//! `NodeTable`: the nodes that the kernel knows, by inode number.

use super::{Node, Tree};
use crate::merge::inomap::{ByNumber, Ino, ROOT};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SHARDS: usize = 16;

type Shard = HashMap<Ino, Arc<Node>, ByNumber>;

/// Nodes by number, in shards so that two requests seldom meet.
#[derive(Debug, Default)]
pub struct NodeTable {
    shards: [Mutex<Shard>; SHARDS],
    len: AtomicUsize,
    /// The most nodes there were since memory was last given back.
    peak: AtomicUsize,
    /// Whether it was large and is not yet small again.
    large: AtomicBool,
}

/// Memory is given back each time this share of the nodes is left, and no more often.
const SHRINK_AT: usize = 4;
/// A table that never had so many nodes is left as it is.
const LARGE: usize = 512;
/// One that had them is followed down to this: each node that goes may be the last thing
/// on a page of memory.
const SMALL: usize = 8;

impl NodeTable {
    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[ino as usize % SHARDS]
    }

    pub(super) fn insert_root(&self, root: Arc<Node>) {
        self.shard(root.ino).lock().insert(root.ino, root);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives memory back when most nodes are gone.
    pub(super) fn shrink(&self) {
        let (len, peak) = (self.len(), self.peak.load(Ordering::Relaxed));
        let large = self.large.load(Ordering::Relaxed);
        let least = if large { SMALL } else { LARGE };
        if peak < least || len > peak / SHRINK_AT {
            return;
        }
        let ours = self
            .peak
            .compare_exchange(peak, len, Ordering::Relaxed, Ordering::Relaxed);
        if ours.is_ok() {
            self.large.store(len >= SMALL, Ordering::Relaxed);
            for shard in &self.shards {
                let mut shard = shard.lock();
                let room = shard.len() * 2;
                shard.shrink_to(room);
                // Cookies are the same when a listing is read again.
                for dir in shard.values().filter_map(|node| node.dir.as_ref()) {
                    if let Some(mut names) = dir.names.try_write() {
                        names.listing = None;
                    }
                }
            }
            crate::sys::memory::give_back();
        }
    }

    /// The node `ino`, if it is known.
    pub fn get(&self, ino: Ino) -> Option<Arc<Node>> {
        self.shard(ino).lock().get(&ino).cloned()
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes back lookups; the node, if it left the table by that.
    pub(super) fn release(&self, ino: Ino, count: u64) -> Option<Arc<Node>> {
        let mut shard = self.shard(ino).lock();
        let node = shard.get(&ino)?;
        let before = node.lookups.load(Ordering::Relaxed);
        let left = before.saturating_sub(count);
        node.lookups.store(left, Ordering::Relaxed);
        self.take_if_unused(&mut shard, ino)
    }

    /// Lets go of `node`; the node, if nothing else wants it and it left the table.
    pub(super) fn remove_unused(&self, node: Arc<Node>) -> Option<Arc<Node>> {
        let ino = node.ino;
        let mut shard = self.shard(ino).lock();
        drop(node);
        self.take_if_unused(&mut shard, ino)
    }

    fn take_if_unused(&self, shard: &mut Shard, ino: Ino) -> Option<Arc<Node>> {
        let node = shard.get(&ino)?;
        let unused = ino != ROOT
            && node.lookups.load(Ordering::Relaxed) == 0
            && Arc::strong_count(node) == 1;
        if !unused {
            return None;
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        shard.remove(&ino)
    }
}

/// A node that the kernel is about to be told of: one lookup counted, taken back on
/// drop unless the answer went out.
#[derive(Debug)]
pub struct LookupRef<'t> {
    tree: &'t Tree,
    node: Option<Arc<Node>>,
}

impl<'t> LookupRef<'t> {
    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        // Only `told` and `drop` take it, and both end the reference.
        self.node.as_ref().unwrap_or(&self.tree.root)
    }

    /// The kernel was told: the lookup stays counted until it forgets.
    pub fn told(mut self) {
        self.node = None;
    }
}

impl Drop for LookupRef<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            let ino = node.ino;
            drop(node);
            self.tree.forget(ino, 1);
        }
    }
}

impl Tree {
    /// The node `ino`, if it is known; counts a lookup.
    pub fn refer(&self, ino: Ino) -> Option<LookupRef<'_>> {
        let shard = self.table.shard(ino).lock();
        let node = shard.get(&ino)?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(LookupRef {
            tree: self,
            node: Some(node.clone()),
        })
    }

    /// The node `ino`, made by `make` if it is not known yet, and whether it was made;
    /// counts a lookup.
    pub fn intern(&self, ino: Ino, make: impl FnOnce() -> Node) -> (LookupRef<'_>, bool) {
        let mut shard = self.table.shard(ino).lock();
        let mut made = false;
        let node = shard.entry(ino).or_insert_with(|| {
            made = true;
            Arc::new(make())
        });
        node.lookups.fetch_add(1, Ordering::Relaxed);
        let reference = LookupRef {
            tree: self,
            node: Some(node.clone()),
        };
        drop(shard);
        if made {
            let len = self.table.len.fetch_add(1, Ordering::Relaxed) + 1;
            self.table.peak.fetch_max(len, Ordering::Relaxed);
        }
        (reference, made)
    }
}
