//! Upper filesystems that bring a file that is synced to the disk apart from the others
//! ([`Layer::logs_files_apart`]).
//!
//! btrfs writes it to a log tree beside its last commit; names that change while their
//! file or directory is in the log are changed there too, one by one
//! (`btrfs_log_new_name`). A mark that comes or goes in the same call as a file is no part
//! of that: after a power cut the one may be there without the other, or both be gone.
//! And a file that is logged after its directory was moved is back in the old place with
//! it.
//!
//! So there are no two such things between two commits: where files were logged, the
//! filesystem commits before a mark or a directory changes places, and where one did,
//! before another file is logged. Many changes of one kind share a commit.

use super::Layer;
use crate::error::{Errno, SysError};
use crate::sys::fs;
use crate::sys::io;
use crate::sys::path::At;
use parking_lot::RwLock;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was done since the upper's filesystem last committed.
#[derive(Debug, Default)]
pub struct LogTree {
    /// Shared by those who log files; who moves a mark or a directory has it alone.
    gate: RwLock<()>,
    /// Marks or directories may have changed places since, and no file was logged; else the other way round.
    moved: AtomicBool,
    /// Others than this program may log files of the upper, unseen.
    shared: AtomicBool,
}

impl Layer {
    /// fsync(2) or fdatasync(2) of `file`, which lies in this upper.
    ///
    /// # Errors
    /// fsync's, or syncfs's where that has to come first.
    pub fn sync(&self, file: &impl AsFd, data_only: bool) -> Result<(), SysError> {
        let Some(log) = &self.log_tree else {
            return io::sync(file, data_only);
        };
        // What may take long, before anybody has to wait for it.
        match io::write_out(file) {
            Err(e) if matches!(e.errno, Errno::EIO | Errno::ENOSPC | Errno::EDQUOT) => {
                return Err(e);
            }
            _ => {}
        }
        let _shared = log.gate.read();
        if log.moved.load(Ordering::Relaxed) {
            io::sync_filesystem(&*self.root)?;
        }
        log.moved.store(false, Ordering::Relaxed);
        io::sync(file, data_only)
    }

    /// rename(2) within this upper and its work directory of a directory or a mark, in the
    /// place of a mark, or so that one is left behind: after a power cut all of it was done,
    /// or nothing, and what is synced after it is where it was moved to.
    ///
    /// # Errors
    /// renameat2's, or syncfs's where that has to come first.
    pub fn rename_with_mark(&self, from: At<'_>, to: At<'_>, flags: u32) -> Result<(), SysError> {
        let Some(log) = &self.log_tree else {
            return fs::rename(from, to, flags);
        };
        let _alone = log.gate.write();
        if log.shared.load(Ordering::Relaxed) || !log.moved.load(Ordering::Relaxed) {
            io::sync_filesystem(&*self.root)?;
        }
        log.moved.store(true, Ordering::Relaxed);
        fs::rename(from, to, flags)
    }

    /// From now on files of this upper may be synced by others, by the kernel for instance.
    pub fn share_log(&self) {
        if let Some(log) = &self.log_tree {
            log.shared.store(true, Ordering::Relaxed);
        }
    }
}
