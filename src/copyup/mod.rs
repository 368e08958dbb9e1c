//! Copy-up: a file of a lower layer comes to exist in the upper, at one stroke.

pub mod complete;
pub mod data;
pub mod durable;
pub mod extents;
mod job;
pub mod meta;
pub mod nlink;
pub mod publish;

use crate::config::plan::Durability;
use crate::error::{Errno, Result, SysError, best_effort};
use crate::layer::Layer;
use crate::layer::keys::Keys;
use crate::node::{Node, Place, Tree};
use crate::observe::Part;
use crate::sys::fs::{self, S_IFMT, S_IFREG};
use crate::sys::path::At;
use crate::sys::xattr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How much of a file is needed in the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Owner, mode, times and xattrs; the data may stay where it is.
    Meta,
    /// As much as it takes to be written to: all of it, or a part.
    Part,
    /// All of it.
    All,
    /// This many bytes of its data: the rest is about to be cut off.
    Bytes(u64),
}

impl Need {
    /// What is copied where this is.
    fn part(self) -> Part {
        match self {
            Need::Meta => Part::Meta,
            Need::Part | Need::All | Need::Bytes(_) => Part::Whole,
        }
    }

    /// Whether a part of the data may do.
    fn may_be_partial(self) -> bool {
        matches!(self, Need::Part | Need::Bytes(_))
    }

    /// Whether `node` has what is needed.
    pub fn is_met(self, node: &Node) -> bool {
        let stack = node.stack();
        let met = self == Need::Meta
            || stack.data.is_none()
            || stack.partial.is_some() && self.may_be_partial();
        stack.upper.is_some() && met
    }
}

/// What copy-up needs beside the tree.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is on the disk when.
    pub durability: Durability,
    /// A change of metadata copies no data.
    pub metacopy: bool,
    /// A change of the data of a file that has at least so many bytes copies only the blocks
    /// that it changes.
    pub partial: Option<u64>,
    /// A copy with all of its data may be marked as a partial one, instead of being waited for,
    /// till that is on the disk.
    pub defers: bool,
}

impl Settings {
    /// Whether a change of `node`, with `len` bytes of data, of type and mode `mode`, copies
    /// only what it changes.
    pub fn copies_parts(&self, tree: &Tree, mode: u32, len: u64) -> bool {
        extents::is_wanted(tree, self, mode, len)
    }

    /// Whether a file of type and mode `mode` can be copied to `upper` without its data.
    pub fn spares_data(&self, upper: &Layer, mode: u32) -> bool {
        self.metacopy && Settings::can_lack_data(upper, mode)
    }

    /// Whether a file of type and mode `mode` of `upper` can say that its data, or a part of
    /// it, is a lower file's. Where marks are files, nobody who reads them knows of that.
    fn can_lack_data(upper: &Layer, mode: u32) -> bool {
        mode & S_IFMT == S_IFREG && upper.records_identity(mode) && !upper.caps.writes_files
    }
}

/// Makes as much of `node` exist in the upper as is needed, and its ancestors before it.
///
/// # Errors
/// EROFS without an upper; whatever the copying met, and then nothing has changed.
pub fn ensure(tree: &Tree, settings: &Settings, node: &Arc<Node>, need: Need) -> Result<()> {
    while !need.is_met(node) {
        if node.stack().partial.is_some() {
            extents::complete(tree, settings, node)?;
            continue;
        }
        if node.in_upper() {
            complete::complete(tree, settings, node, need)?;
            continue;
        }
        let next = topmost_missing(node);
        let need = if next.ino == node.ino {
            need
        } else {
            Need::Meta
        };
        job::copy_up_one(tree, settings, &next, need)?;
    }
    Ok(())
}

/// The first of `node` and its ancestors, from the root down, without an upper part.
fn topmost_missing(node: &Arc<Node>) -> Arc<Node> {
    let mut missing = node.clone();
    while let Place::Named(parent, _) = missing.place() {
        if parent.in_upper() {
            break;
        }
        missing = parent;
    }
    missing
}

/// Marks the upper's part `fd` of directory `dir` as holding files with an origin
/// (overlayfs.rst and `ovl_set_impure`), so that readdir looks those up.
///
/// # Errors
/// setxattr's, but that the filesystem has none.
pub fn mark_impure(tree: &Tree, dir: &Node, fd: &Arc<OwnedFd>) -> Result<()> {
    let impure = &dir.as_dir()?.upper_hints.impure;
    if impure.get() == Some(true) {
        return Ok(());
    }
    let keys = tree.upper_layer()?.keys();
    match xattr::set(At::directory(&**fd), keys.impure, b"y", 0) {
        Ok(()) => {}
        Err(SysError {
            errno: Errno::EOPNOTSUPP,
            ..
        }) => {}
        Err(e) => return Err(e.errno),
    }
    impure.learn(true);
    Ok(())
}

/// Gives `name` in `parent` an upper entry of its own, for a hard link that was
/// copied up through another name: overlayfs calls it the upper alias. `lower_links`
/// is the link count of the lower file.
///
/// # Errors
/// linkat's.
pub fn ensure_alias(
    tree: &Tree,
    node: &Node,
    parent: &Node,
    name: &[u8],
    lower_links: u32,
) -> Result<()> {
    let Place::Indexed(index_name) = node.place() else {
        return Ok(());
    };
    let dir = tree.upper_dir(parent)?;
    let to = At::new(&*dir, name);
    if let Ok(there) = fs::stat(to)
        && Some(there.ino) == node.stack().upper
    {
        return Ok(());
    }
    mark_impure(tree, parent, &dir)?;
    let before = fs::stat(At::fd(&*dir))?;
    let index = tree.index_dir()?;
    let entry = At::new(&*index, &index_name);
    let keys = tree.upper_layer()?.keys();
    let own = fs::stat(entry)?.nlink;
    let links = nlink::read(keys, entry, own, Some(lower_links))?.unwrap_or(lower_links);
    // The link changes the upper's count but not the union's, so for the while the
    // count is kept relative to the lower's, which stays what it is.
    nlink::write(keys, entry, nlink::Base::Lower(lower_links), links)?;
    link_counted(keys, entry, to, links, Some(own))?;
    best_effort(
        "restore the parent's times",
        meta::copy_times(&before, At::fd(&*dir)),
    );
    Ok(())
}

/// Gives the index entry, whose count is relative to the lower file, the name `to`, and
/// makes the count of `links` relative to the upper file again; or else changes nothing,
/// where the upper file's own count was `own` before.
fn link_counted(
    keys: &Keys,
    entry: At<'_>,
    to: At<'_>,
    links: u32,
    own: Option<u32>,
) -> std::result::Result<(), SysError> {
    let count = |own| nlink::write(keys, entry, nlink::Base::Upper(own), links);
    let take_back = |e| {
        if let Some(own) = own {
            best_effort("take a count of links back", count(own));
        }
        e
    };
    fs::link(entry, to).map_err(take_back)?;
    let counted = fs::stat(entry).and_then(|stat| count(stat.nlink));
    counted.map_err(|e| {
        best_effort("take a link back", fs::unlink(to));
        take_back(e)
    })
}
