//! `overlay.metacopy`: a copied-up file that has its own owner, mode, times and xattrs,
//! and the data of the lower file (overlayfs.rst, "Metadata only copy up").
//!
//! The value is empty, or begins with a version, its length, flags and the algorithm of
//! an fs-verity digest (`struct ovl_metacopy`); nothing of it is needed here but that it
//! is there. Its size is that of the data, all of it a hole.

use super::Layer;
use super::marks::Hints;
use crate::error::SysError;
use crate::sys::fs::Stat;
use crate::sys::path::At;
use crate::sys::xattr;

/// Unit of `st_blocks`.
const BLOCK: u64 = 512;

impl Layer {
    /// Whether the file that `stat` describes, in directory `dir` of this layer, could have
    /// its data elsewhere: it is full of holes, or its directory is marked as holding
    /// copied-up files.
    pub fn may_be_metacopy(&self, dir: At<'_>, hints: &Hints, stat: &Stat) -> bool {
        stat.is_file() && (stat.blocks * BLOCK < stat.size || self.is_impure(dir, hints))
    }

    fn is_impure(&self, dir: At<'_>, hints: &Hints) -> bool {
        if let Some(yes) = hints.impure.get() {
            return yes;
        }
        let found = xattr::get_optional(dir, self.keys().impure);
        let yes = !matches!(found, Ok(None));
        hints.impure.learn(yes);
        yes
    }

    /// Whether the data of the file at `at` is elsewhere.
    ///
    /// # Errors
    /// getxattr's.
    pub fn is_metacopy(&self, at: At<'_>) -> Result<bool, SysError> {
        Ok(xattr::get_optional(at, self.keys().metacopy)?.is_some())
    }

    /// Whether this upper's filesystem may show, after a power cut, a file by its name that
    /// was never synced, and then without its size: what else was synced in its directory
    /// has brought the name along. btrfs does (LOG_INODE_EXISTS in fs/btrfs/tree-log.c).
    pub fn shows_unsynced_names(&self) -> bool {
        const BTRFS: i64 = 0x9123_683e;
        self.caps.magic == BTRFS
    }

    /// Says that the data of the upper file at `at` is the lower one's.
    ///
    /// # Errors
    /// setxattr's.
    pub fn mark_metacopy(&self, at: At<'_>) -> Result<(), SysError> {
        xattr::set(at, self.keys().metacopy, b"", 0)
    }

    /// Says that the upper file at `at` has its own data.
    ///
    /// # Errors
    /// removexattr's.
    pub fn unmark_metacopy(&self, at: At<'_>) -> Result<(), SysError> {
        xattr::remove(at, self.keys().metacopy)
    }
}
