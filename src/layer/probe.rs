//! `Caps`: what a layer's filesystem can do, learned once at mount.

use super::journal;
use super::marks::OPAQUE_FILE;
use super::scratch::Scratch;
use crate::config::plan::{Marks, MountPlan, XattrSpace};
use crate::error::{Errno, SysError};
use crate::sys::creds;
use crate::sys::fs::{self, O_DIRECTORY, O_RDONLY, RENAME_WHITEOUT, S_IFCHR, S_IFREG};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// What a layer's filesystem can do, and which mark formats are spoken with it.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    /// `trusted.overlay.*` is used; otherwise `user.overlay.*`.
    pub trusted: bool,
    /// `user.*` xattrs can be set (upper).
    pub user_xattrs: bool,
    /// `.wh.` files are marks.
    pub reads_files: bool,
    /// Marks are written as `.wh.` files.
    pub writes_files: bool,
    /// rename leaves a whiteout behind if asked to (upper).
    pub rename_whiteout: bool,
    /// A file that was written out may be named without being synced (upper).
    pub keeps_order: bool,
    /// The filesystem's UUID for file handles: zero where the kernel has none for it.
    pub uuid: [u8; 16],
    /// `f_type` of statfs(2).
    pub magic: i64,
}

/// What is the same for all layers of a mount.
fn common(plan: &MountPlan, root: &OwnedFd) -> Caps {
    let magic = fs::statfs(root).map(|s| s.magic).unwrap_or(0);
    // An O_PATH descriptor takes no ioctl; a root that may not be read has no UUID.
    let uuid = fs::open(At::fd(root), O_RDONLY | O_DIRECTORY, 0)
        .and_then(|dir| fs::fs_uuid(&dir))
        .unwrap_or_default();
    Caps {
        trusted: plan.xattrs == XattrSpace::Auto && creds::is_system_admin(),
        reads_files: plan.marks != Marks::Overlay,
        uuid,
        magic,
        ..Caps::default()
    }
}

/// The capabilities of a lower layer.
pub fn lower(plan: &MountPlan, root: &OwnedFd) -> Caps {
    common(plan, root)
}

/// The capabilities of the upper, tried out in its work directory.
///
/// # Errors
/// When not even a file can be made there.
pub fn upper(plan: &MountPlan, root: &OwnedFd, scratch: &Scratch) -> Result<Caps, SysError> {
    let mut caps = common(plan, root);
    caps.keeps_order = journal::keeps_order(caps.magic, &fs::stat(At::fd(root))?);
    let name = scratch.temp_name();
    let at = At::new(scratch.dir(), &name);
    fs::mknod(at, S_IFREG | 0o600, (0, 0))?;
    caps.trusted = caps.trusted && can_set(at, c"trusted.overlay.opaque")?;
    caps.user_xattrs = can_set(at, c"user.overlay.opaque")?;
    let other = scratch.temp_name();
    let moved = At::new(scratch.dir(), &other);
    let left = fs::rename(at, moved, RENAME_WHITEOUT);
    caps.rename_whiteout = left.is_ok();
    if left.is_ok() {
        fs::unlink(moved)?;
    }
    fs::unlink(at)?;
    let devices = match fs::mknod(at, S_IFCHR, (0, 0)) {
        Ok(()) => {
            fs::unlink(at)?;
            true
        }
        Err(e) if matches!(e.errno, Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP) => false,
        Err(e) => return Err(e),
    };
    caps.writes_files = plan.marks == Marks::Files || !devices && caps.reads_files;
    if caps.writes_files {
        let mark = At::new(scratch.dir(), OPAQUE_FILE);
        fs::mknod(mark, S_IFREG | 0o600, (0, 0))?;
        fs::unlink(mark)?;
    } else if !devices {
        fs::mknod(at, S_IFCHR, (0, 0))?;
    }
    Ok(caps)
}

/// Whether xattr `key` can be set on the file at `at`. That there is no room for it, or
/// that the disk is broken, is no answer: the marks of this upper would not be believed.
fn can_set(at: At<'_>, key: &CStr) -> Result<bool, SysError> {
    match xattr::set(at, key, b"y", 0) {
        Ok(()) => Ok(true),
        Err(e)
            if matches!(
                e.errno,
                Errno::ENOSPC | Errno::EDQUOT | Errno::EIO | Errno::ENOMEM | Errno::EROFS
            ) =>
        {
            Err(e)
        }
        Err(_) => Ok(false),
    }
}
