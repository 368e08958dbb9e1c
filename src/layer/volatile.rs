//! The mark of a volatile upper: what was written without syncing may be torn after the
//! machine went down, and is not to be mounted again then.
//!
//! ```text
//! WORK/work/incompat/volatile/           overlayfs's own mark (overlayfs.rst, "Volatile mount")
//! WORK/work/incompat/volatile/boot_id    which boot of the machine it was made in
//! ```
//!
//! overlayfs refuses any upper with that mark, and so do we, but while the machine has not
//! been down since: then all that was written is still in the page cache or on the disk.

use super::partial::INCOMPAT;
use crate::error::{Errno, MountError, SysError, best_effort};
use crate::layer::scratch::remove_tree;
use crate::sys::fs::{self, O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_WRONLY};
use crate::sys::io;
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::path::Path;

const VOLATILE: &[u8] = b"volatile";
const BOOT_ID: &[u8] = b"boot_id";

/// What the kernel calls this boot; empty where it does not say.
fn this_boot() -> Vec<u8> {
    let read = std::fs::read("/proc/sys/kernel/random/boot_id");
    best_effort("tell this boot from another", read).unwrap_or_default()
}

fn open_dir(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, SysError> {
    fs::open(At::new(dir, name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
}

fn mark(work: &OwnedFd) -> Option<OwnedFd> {
    let incompat = open_dir(work, INCOMPAT).ok()?;
    open_dir(&incompat, VOLATILE).ok()
}

fn boot_of(mark: &OwnedFd) -> Option<Vec<u8>> {
    let file = fs::open(At::new(mark, BOOT_ID), O_RDONLY | O_NOFOLLOW, 0).ok()?;
    let mut id = vec![0; 64];
    let len = io::read_full(&file, &mut id, 0).ok()?;
    id.truncate(len);
    Some(id)
}

/// Whether the upper whose temporaries are in `work` (in the directory that the user calls
/// `path`) may be mounted; one that was volatile until now is written to the disk first,
/// and loses its mark.
///
/// # Errors
/// Where the machine has been down since it was volatile, or something else than plyfs
/// made it so.
pub fn admit(work: &OwnedFd, path: &Path) -> Result<(), MountError> {
    let Some(mark) = mark(work) else {
        return Ok(());
    };
    let now = this_boot();
    if now.is_empty() || boot_of(&mark) != Some(now) {
        return Err(MountError::new(
            path.display(),
            "its upper was mounted volatile, without syncing, and the machine may have gone down since",
            "start with a new upper and work directory, or remove work/incompat/volatile there if you know that nothing is missing",
        ));
    }
    let kept = io::sync_filesystem(work).and_then(|()| drop_mark(work));
    kept.map_err(|e| {
        MountError::new(
            path.display(),
            format_args!("what a volatile mount left cannot be synced: {e}"),
            "look at the disk",
        )
    })
}

fn drop_mark(work: &OwnedFd) -> Result<(), SysError> {
    remove_tree(&open_dir(work, INCOMPAT)?, VOLATILE)?;
    match fs::rmdir(At::new(work, INCOMPAT)) {
        // Something else is noted there.
        Err(e) if matches!(e.errno, Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Marks the upper whose temporaries are in `work` as volatile.
///
/// # Errors
/// Those of making it.
pub fn begin(work: &OwnedFd) -> Result<(), SysError> {
    match fs::mkdir(At::new(work, INCOMPAT), 0o700) {
        Err(e) if e.errno == Errno::EEXIST => {}
        other => other?,
    }
    let incompat = open_dir(work, INCOMPAT)?;
    fs::mkdir(At::new(&incompat, VOLATILE), 0o700)?;
    let mark = open_dir(&incompat, VOLATILE)?;
    let at = At::new(&mark, BOOT_ID);
    let file = fs::open(at, O_CREAT | O_WRONLY | O_NOFOLLOW, 0o600)?;
    io::write_full(&file, &this_boot(), 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::open_path;

    #[test]
    fn an_upper_that_was_volatile_is_refused_after_the_machine_went_down() {
        let tmp = tempfile::tempdir().unwrap();
        let work = open_path(tmp.path(), O_RDONLY | O_DIRECTORY).unwrap();
        let mark = tmp.path().join("incompat/volatile");
        assert!(admit(&work, tmp.path()).is_ok());
        begin(&work).unwrap();
        assert!(admit(&work, tmp.path()).is_ok(), "the machine is still up");
        assert!(!mark.exists());
        begin(&work).unwrap();
        std::fs::write(mark.join("boot_id"), "another boot\n").unwrap();
        let refusal = admit(&work, tmp.path()).unwrap_err();
        assert_eq!(refusal.what, tmp.path().display().to_string());
        std::fs::remove_file(mark.join("boot_id")).unwrap();
        assert!(admit(&work, tmp.path()).is_err(), "the kernel's mark");
        assert!(mark.exists());
    }
}
