//! `NodeTable`: the nodes that the kernel knows, by inode number.

use super::{Node, Tree};
use crate::merge::inomap::{Ino, ROOT};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SHARDS: usize = 16;

/// Nodes by number, in shards so that two requests seldom meet.
#[derive(Debug, Default)]
pub struct NodeTable {
    shards: [Mutex<HashMap<Ino, Arc<Node>>>; SHARDS],
}

impl NodeTable {
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Arc<Node>>> {
        &self.shards[ino as usize % SHARDS]
    }

    pub(super) fn insert_root(&self, root: Arc<Node>) {
        self.shard(root.ino).lock().insert(root.ino, root);
    }

    /// The node `ino`, if it is known.
    pub fn get(&self, ino: Ino) -> Option<Arc<Node>> {
        self.shard(ino).lock().get(&ino).cloned()
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().len()).sum()
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
        Self::take_if_unused(&mut shard, ino)
    }

    /// Lets go of `node`; the node, if nothing else wants it and it left the table.
    pub(super) fn remove_unused(&self, node: Arc<Node>) -> Option<Arc<Node>> {
        let ino = node.ino;
        let mut shard = self.shard(ino).lock();
        drop(node);
        Self::take_if_unused(&mut shard, ino)
    }

    fn take_if_unused(shard: &mut HashMap<Ino, Arc<Node>>, ino: Ino) -> Option<Arc<Node>> {
        let node = shard.get(&ino)?;
        let unused = ino != ROOT
            && node.lookups.load(Ordering::Relaxed) == 0
            && Arc::strong_count(node) == 1;
        if unused { shard.remove(&ino) } else { None }
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
        (reference, made)
    }
}
