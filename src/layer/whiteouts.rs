//! Whiteout devices of the upper: the names of one inode, as overlayfs makes them since
//! Linux 5.8. A deletion then costs a directory entry, and no inode.

use super::scratch::Scratch;
use crate::error::{Errno, SysError};
use crate::sys::fs::{self, S_IFCHR};
use crate::sys::path::At;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The whiteout that the others are links of.
#[derive(Debug, Default)]
pub struct SharedWhiteout {
    /// Its name in the work directory.
    name: Mutex<Option<Vec<u8>>>,
    /// The upper's filesystem does not link whiteouts.
    refused: AtomicBool,
}

/// Makes a whiteout device by itself, where mknod of one is allowed (Linux 5.8 without
/// privilege).
///
/// # Errors
/// mknodat's; EEXIST where something is there.
pub fn make_apart(at: At<'_>) -> Result<(), SysError> {
    fs::mknod(at, S_IFCHR, (0, 0))
}

impl SharedWhiteout {
    /// Makes a whiteout at `at`; `scratch` is where the shared one is kept.
    ///
    /// # Errors
    /// mknodat's or linkat's; EEXIST where something is there.
    pub fn make(&self, scratch: &Scratch, at: At<'_>) -> Result<(), SysError> {
        if self.refused.load(Ordering::Relaxed) {
            return make_apart(at);
        }
        let known = self.name.lock().clone();
        let name = match known {
            Some(name) => name,
            None => self.replace(scratch, None)?,
        };
        match fs::link(At::new(scratch.dir(), &name), at) {
            // It has as many names as the filesystem lets it have, or somebody emptied the
            // work directory.
            Err(e) if matches!(e.errno, Errno::EMLINK | Errno::ENOENT) => {
                let name = self.replace(scratch, Some(&name))?;
                fs::link(At::new(scratch.dir(), &name), at)
            }
            Err(e) if !matches!(e.errno, Errno::EEXIST | Errno::ENOSPC | Errno::EDQUOT) => {
                log::info!("whiteouts are not shared: {e}");
                self.refused.store(true, Ordering::Relaxed);
                make_apart(at)
            }
            other => other,
        }
    }

    /// Makes another whiteout the shared one, unless it is no longer `old`; which is.
    fn replace(&self, scratch: &Scratch, old: Option<&[u8]>) -> Result<Vec<u8>, SysError> {
        let new = scratch.temp_name();
        make_apart(At::new(scratch.dir(), &new))?;
        let mut name = self.name.lock();
        let (gone, kept) = match &*name {
            Some(current) if old != Some(current) => (Some(new), current.clone()),
            _ => (name.replace(new.clone()), new),
        };
        drop(name);
        if let Some(gone) = gone {
            scratch.discard(&gone);
        }
        Ok(kept)
    }

    /// Lets go of the shared one, which only its other names keep then.
    pub fn release(&self, scratch: &Scratch) {
        let name = self.name.lock().take();
        if let Some(name) = name {
            scratch.discard(&name);
        }
    }
}
