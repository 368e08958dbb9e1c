//! The lock order, and the only code that takes two locks.
//!
//! 0. `Asked::reader`, only tried: who holds it reads directories, one after the other.
//! 1. [`Tree::rename_gate`]: only for moving between directories.
//! 2. `DirPart::names`: ancestor first, else the lower inode number.
//! 3. `Node::copyup`: one at a time on the way up; under 2 only by `try_lock` (on
//!    contention everything is let go, and the caller waits and starts again).
//! 4. Leaf locks (place, stack pointer, table shard, descriptor caches): never two
//!    but a node's place on the way to another's, never across a system call (but for the
//!    one that the upper's [`log tree`](crate::layer::log_tree) has on btrfs, for a sync or
//!    a rename).

use super::dir::DirState;
use super::{Node, Place, Tree};
use crate::error::Result;
use parking_lot::{MutexGuard, RwLockWriteGuard};
use std::sync::Arc;

/// The names of the two directories of a rename, locked.
#[derive(Debug)]
pub enum Pair<'a> {
    /// Both are one directory.
    One(RwLockWriteGuard<'a, DirState>),
    /// Source and target directory.
    Two {
        /// Keeps the tree's shape.
        gate: MutexGuard<'a, ()>,
        /// The source directory.
        from: RwLockWriteGuard<'a, DirState>,
        /// The target directory.
        to: RwLockWriteGuard<'a, DirState>,
    },
}

impl Pair<'_> {
    /// The source directory's names.
    pub fn from(&mut self) -> &mut DirState {
        match self {
            Pair::One(state) | Pair::Two { from: state, .. } => state,
        }
    }

    /// The names of both, to look at.
    pub fn both(&self) -> (&DirState, &DirState) {
        match self {
            Pair::One(state) => (state, state),
            Pair::Two { from, to, .. } => (from, to),
        }
    }

    /// The target directory's names.
    pub fn to(&mut self) -> &mut DirState {
        match self {
            Pair::One(state) | Pair::Two { to: state, .. } => state,
        }
    }
}

/// Whether `node` is `ancestor` or lies below it.
fn is_below(node: &Arc<Node>, ancestor: &Node) -> bool {
    let mut at = node.clone();
    loop {
        if at.ino == ancestor.ino {
            return true;
        }
        let place = at.place();
        match place {
            Place::Named(parent, _) => at = parent,
            _ => return false,
        }
    }
}

impl Tree {
    /// Locks the names of two directories; whoever changes them takes what was found absent.
    ///
    /// # Errors
    /// ENOTDIR.
    pub fn lock_pair<'a>(&'a self, from: &'a Arc<Node>, to: &'a Arc<Node>) -> Result<Pair<'a>> {
        let (a, b) = (from.as_dir()?, to.as_dir()?);
        if from.ino == to.ino {
            return Ok(Pair::One(a.names.write()));
        }
        let gate = self.rename_gate.lock();
        let from_first = is_below(to, from) || !is_below(from, to) && from.ino < to.ino;
        if from_first {
            let from = a.names.write();
            let to = b.names.write();
            Ok(Pair::Two { gate, from, to })
        } else {
            let to = b.names.write();
            let from = a.names.write();
            Ok(Pair::Two { gate, from, to })
        }
    }
}

/// The copy-up locks of the nodes whose places are about to change, taken under the
/// locks of the names.
///
/// # Errors
/// The node that is being copied up: let go of everything, wait for it with
/// [`wait_for_copyup`], and start again.
pub fn hold_still<'n, 'a>(
    nodes: impl IntoIterator<Item = &'n Arc<Node>>,
    guards: &mut Vec<MutexGuard<'a, ()>>,
) -> std::result::Result<(), Arc<Node>>
where
    'n: 'a,
{
    for node in nodes {
        match node.copyup.try_lock() {
            Some(guard) => guards.push(guard),
            None => {
                guards.clear();
                return Err(node.clone());
            }
        }
    }
    Ok(())
}

/// Keeps `node`, which is in the upper, where it is: as long as this is held its name is its
/// own, and nothing is done in the background to the data of a partly copied one, which puts
/// times, mode and capabilities back to what they were. Whoever changes a file by its name
/// has to, or changes another that was moved there meanwhile.
pub fn hold(node: &Node) -> MutexGuard<'_, ()> {
    node.copyup.lock()
}

/// Waits until nobody copies `node` up.
pub fn wait_for_copyup(node: &Node) {
    drop(node.copyup.lock());
}
