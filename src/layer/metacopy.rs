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
use crate::sys::magic;
use crate::sys::path::At;
use crate::sys::xattr;

/// Unit of `st_blocks`.
const BLOCK: u64 = 512;

impl Layer {
    /// Whether the file that `stat` describes, in directory `dir` of this layer, could have
    /// its data elsewhere: it has holes, or lost its size in a power cut, or its directory is marked as holding
    /// copied-up files.
    pub fn may_be_metacopy(&self, dir: At<'_>, hints: &Hints, stat: &Stat) -> bool {
        let has_no_size = stat.size == 0 && self.is_upper && self.logs_files_apart();
        stat.is_file() && (self.has_holes(stat) || has_no_size || self.is_impure(dir, hints))
    }

    /// Whether the file that `stat` describes takes less room than its data would.
    pub fn has_holes(&self, stat: &Stat) -> bool {
        stat.blocks * BLOCK < stat.size
    }

    fn is_impure(&self, dir: At<'_>, hints: &Hints) -> bool {
        if !self.caps.xattrs {
            return false;
        }
        if let Some(yes) = hints.impure.get() {
            return yes;
        }
        let found = xattr::get_optional(dir, self.keys().impure);
        let yes = !matches!(found, Ok(None));
        hints.impure.found(yes);
        yes
    }

    /// Whether the data of the file at `at` is elsewhere.
    ///
    /// # Errors
    /// getxattr's.
    pub fn is_metacopy(&self, at: At<'_>) -> Result<bool, SysError> {
        Ok(self.caps.xattrs && xattr::get_optional(at, self.keys().metacopy)?.is_some())
    }

    /// Whether this upper's filesystem brings a file that is synced to the disk apart from
    /// what else was changed before it, as btrfs does with its log tree. After a power cut
    /// it may then show a file that was never synced by its name, without data and size:
    /// what was synced in its directory has brought the name along (LOG_INODE_EXISTS in
    /// fs/btrfs/tree-log.c).
    pub fn logs_files_apart(&self) -> bool {
        self.caps.magic == magic::BTRFS
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
