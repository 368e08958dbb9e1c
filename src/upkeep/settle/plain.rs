//! What an overlayfs without any option reads in the lower layers: no redirects, no
//! `.wh.` files, no data of another file, and marks in one namespace alone.

use super::keys;
use crate::error::{Errno, Result};
use crate::layer::dirfds::RealDir;
use crate::layer::keys::Keys;
use crate::layer::marks::is_mark_name;
use crate::layer::private::Space;
use crate::merge::name::Name;
use crate::node::Tree;
use crate::sys::path::At;
use crate::sys::xattr;
use crate::upkeep::walk::names;
use std::ffi::CStr;
use std::sync::Arc;

/// The reading.
pub(super) struct Plain<'u> {
    pub(super) tree: &'u Tree,
    /// The namespace that is believed.
    pub(super) space: Space,
    /// Whether the union takes `.wh.` names for marks.
    pub(super) mark_files: bool,
}

/// The lower directories that are merged at a name.
pub(super) struct Merged {
    pub(super) dirs: Vec<Arc<RealDir>>,
    /// One of them is refused: it has a redirect.
    pub(super) refused: bool,
}

impl Plain<'_> {
    fn keys(&self) -> &'static Keys {
        keys(self.space)
    }

    /// What is merged at `name` in a directory that merges `parents`.
    pub(super) fn child(&self, parents: &[Arc<RealDir>], name: &Name) -> Result<Merged> {
        let mut merged = Merged {
            dirs: Vec::new(),
            refused: false,
        };
        for parent in parents {
            if parent.covered {
                continue;
            }
            let fd = self.tree.layers.fds.lower(parent)?;
            let at = At::new(&*fd, name);
            let look = match parent.layer.look(at) {
                Ok(look) => look,
                Err(e) if e.errno == Errno::ENOENT => continue,
                Err(e) => return Err(e.errno),
            };
            if !look.stat.is_dir() {
                break;
            }
            let dir = RealDir::child(parent, name.clone(), look.covered);
            merged.dirs.push(Arc::new(dir));
            if look.covered {
                continue;
            }
            if value_is(at, self.keys().opaque, b"y")? {
                break;
            }
            let lowest = self.is_lowest(parent);
            merged.refused |= !lowest && get(at, self.keys().redirect)?.is_some();
        }
        Ok(merged)
    }

    fn is_lowest(&self, dir: &RealDir) -> bool {
        let last = self.tree.layers.lowers.last();
        last.is_none_or(|last| last.index == dir.layer.index)
    }

    /// A mark in `dir` itself that the union heeds and this reading does not.
    pub(super) fn misread(&self, dir: &Arc<RealDir>) -> Result<Option<String>> {
        if dir.covered {
            return Ok(None);
        }
        let fd = self.tree.layers.fds.lower(dir)?;
        let other = match self.space {
            Space::Trusted => Space::User,
            Space::User | Space::FuseOverlayfs => Space::Trusted,
        };
        if value_is(At::directory(&*fd), keys(other).opaque, b"x")? {
            return Ok(Some("whiteouts in the form of xattrs".into()));
        }
        if !self.mark_files {
            return Ok(None);
        }
        let mark = names(&fd)?.into_iter().find(|name| is_mark_name(name));
        Ok(mark.map(|name| format!("the mark {name}")))
    }

    /// Whether the file `name` of a directory that shows `dirs` has its data elsewhere, to
    /// whoever reads marks in `spaces`.
    pub(super) fn lacks_data(
        &self,
        dirs: &[Arc<RealDir>],
        name: &[u8],
        spaces: &[Space],
    ) -> Result<bool> {
        for dir in dirs.iter().filter(|dir| !dir.covered) {
            let fd = self.tree.layers.fds.lower(dir)?;
            for space in spaces {
                if get(At::new(&*fd, name), keys(*space).metacopy)?.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Whether both merge the same directories.
pub(super) fn same(some: &[Arc<RealDir>], others: &[Arc<RealDir>]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(a, b)| same_place(a, b))
}

fn same_place(a: &Arc<RealDir>, b: &Arc<RealDir>) -> bool {
    let (mut a, mut b) = (a, b);
    loop {
        if Arc::ptr_eq(a, b) {
            return true;
        }
        match (a.place(), b.place()) {
            (Some((above, name)), Some((other, other_name))) if name == other_name => {
                (a, b) = (above, other);
            }
            (None, None) => return a.layer.index == b.layer.index,
            _ => return false,
        }
    }
}

/// The value of an xattr; none where the file is not there or has no xattrs.
pub(super) fn get(at: At<'_>, key: &CStr) -> Result<Option<Vec<u8>>> {
    match xattr::get_optional(at, key) {
        Err(e) if e.errno == Errno::ENOENT => Ok(None),
        other => Ok(other?),
    }
}

pub(super) fn value_is(at: At<'_>, key: &CStr, value: &[u8]) -> Result<bool> {
    Ok(get(at, key)?.is_some_and(|v| v == value))
}
