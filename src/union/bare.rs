//! Whether a union that nobody can write to has any xattr at all.
//!
//! Container engines compare unions file by file, and ask twice for the xattrs of each, which
//! the kernel does not remember. Where there are none, it need not ask.

use super::Union;
use crate::error::{Errno, Result};
use crate::layer::Layer;
use crate::layer::dirfds::{open_dir, open_listing};
use crate::layer::private::Names;
use crate::sys::dir::{DT_DIR, DT_UNKNOWN, for_each};
use crate::sys::path::At;
use crate::sys::xattr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A deeper layer is not looked through: each level holds a descriptor.
const DEEPEST: usize = 256;

impl Union {
    /// Whether what it shows stays as it is while it is mounted.
    pub fn never_changes(&self) -> bool {
        self.tree.layers.upper.is_none() && self.listing_life.is_none()
    }

    /// Whether no file in any layer has an xattr that users see. Looks through all of them.
    ///
    /// # Errors
    /// Where a directory cannot be read.
    pub fn is_bare(&self) -> Result<bool> {
        for layer in &self.tree.layers.lowers {
            if !is_bare(layer)? {
                return Ok(false);
            }
        }
        // Their files are seen by the names that other layers give them.
        Ok(self.tree.layers.data_only.is_empty())
    }
}

/// A directory to look through: what it lies in, its name, and how deep it is.
type Pending = Vec<(Arc<OwnedFd>, Vec<u8>, usize)>;

fn is_bare(layer: &Layer) -> Result<bool> {
    let names = Names::of(layer);
    let mut pending = Pending::new();
    if !is_dir_bare(&names, &layer.root, 0, &mut pending)? {
        return Ok(false);
    }
    while let Some((parent, name, depth)) = pending.pop() {
        let at = At::new(&*parent, &name);
        let look = layer.look(at)?;
        // A kind that the listing did not tell, or another filesystem: that takes more looking.
        if depth > DEEPEST || !look.stat.is_dir() || look.covered {
            return Ok(false);
        }
        let dir = Arc::new(open_dir(at)?);
        if !is_dir_bare(&names, &dir, depth, &mut pending)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same of one directory and of the files in it; the directories in it are `pending`.
fn is_dir_bare(
    names: &Names,
    dir: &Arc<OwnedFd>,
    depth: usize,
    pending: &mut Pending,
) -> Result<bool> {
    let mut bare = !has_visible(names, At::fd(&**dir))?;
    for_each(&open_listing(dir.as_fd())?, |entry| {
        if matches!(entry.kind, DT_DIR | DT_UNKNOWN) {
            pending.push((dir.clone(), entry.name.to_vec(), depth + 1));
        } else if bare {
            bare = !has_visible(names, At::new(&**dir, entry.name))?;
        }
        Ok::<(), Errno>(())
    })?;
    Ok(bare)
}

fn has_visible(names: &Names, at: At<'_>) -> Result<bool> {
    let list = xattr::list(at)?;
    Ok(!list.is_empty() && !names.visible(&list).is_empty())
}
