//! `Caps`: what a layer's filesystem can do, learned once at mount.

use super::journal;
use super::marks::OPAQUE_FILE;
use super::scratch::Scratch;
use crate::config::plan::{Marks, MountPlan, XattrSpace};
use crate::error::{Errno, SysError};
use crate::sys::creds;
use crate::sys::fs::{self, O_DIRECTORY, O_RDONLY, RENAME_EXCHANGE, RENAME_WHITEOUT, S_IFCHR};
use crate::sys::magic;
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

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
    /// rename lets two names change places if asked to (upper).
    pub rename_exchange: bool,
    /// Files of it can have xattrs: what rules out that any has, rules out to ask.
    pub xattrs: bool,
    /// A file has the same inode number as long as it is there.
    pub keeps_numbers: bool,
    /// A file that was written out may be named without being synced (upper).
    pub keeps_order: bool,
    /// The filesystem's UUID for file handles: zero where the kernel has none for it.
    pub uuid: [u8; 16],
    /// `f_type` of statfs(2).
    pub magic: i64,
}

/// What is the same for all layers of a mount.
fn common(plan: &MountPlan, root: &OwnedFd, privileged: bool) -> Caps {
    let magic = fs::statfs(root).map(|s| s.magic).unwrap_or(0);
    // An O_PATH descriptor takes no ioctl; a root that may not be read has no UUID.
    let uuid = fs::open(At::fd(root), O_RDONLY | O_DIRECTORY, 0)
        .and_then(|dir| fs::fs_uuid(&dir))
        .unwrap_or_default();
    Caps {
        trusted: plan.xattrs == XattrSpace::Auto && privileged,
        reads_files: plan.marks != Marks::Overlay,
        xattrs: may_have_xattrs(root, magic),
        keeps_numbers: !matches!(magic, magic::FUSE | magic::MSDOS | magic::EXFAT),
        uuid,
        magic,
        ..Caps::default()
    }
}

/// The capabilities of a lower layer; `privileged` says whether this process may read
/// `trusted.` xattrs.
pub fn lower(plan: &MountPlan, root: &OwnedFd, privileged: bool) -> Caps {
    common(plan, root, privileged)
}

/// The capabilities of the upper, tried out in its work directory.
///
/// # Errors
/// When not even a file can be made there.
pub fn upper(plan: &MountPlan, root: &OwnedFd, scratch: &Scratch) -> Result<Caps, SysError> {
    let mut caps = common(plan, root, creds::is_system_admin());
    caps.keeps_order = journal::keeps_order(caps.magic, &fs::stat(At::fd(root))?);
    let names = [(); 4].map(|()| scratch.temp_name());
    let [one, two, three, four] = [0, 1, 2, 3].map(|i: usize| At {
        dir: scratch.dir().as_fd(),
        name: names.get(i).map_or(&[], Vec::as_slice),
    });
    fs::make_empty(one, 0o600)?;
    caps.trusted = caps.trusted && can_set(one, c"trusted.overlay.opaque")?;
    caps.user_xattrs = can_set(one, c"user.overlay.opaque")?;
    caps.xattrs |= caps.trusted || caps.user_xattrs;
    fs::make_empty(two, 0o600)?;
    caps.rename_exchange = can_exchange(one, two)?;
    caps.rename_whiteout = leaves_whiteout(one, three)?;
    for at in [one, two, three] {
        match fs::unlink(at) {
            Err(e) if e.errno != Errno::ENOENT => return Err(e),
            _ => {}
        }
    }
    let devices = makes_whiteouts(four, caps.magic)?;
    let complete = devices.is_ok() && caps.rename_exchange;
    caps.writes_files = plan.marks == Marks::Files || !complete && caps.reads_files;
    if caps.writes_files {
        let mark = At::new(scratch.dir(), OPAQUE_FILE);
        fs::make_empty(mark, 0o600)?;
        fs::unlink(mark)?;
    } else if !caps.reads_files {
        // Only files would be left as marks, and they are forbidden.
        devices?;
        let refused = |call, errno| Err(SysError { call, errno });
        if !caps.rename_exchange {
            return refused("renameat2(RENAME_EXCHANGE)", Errno::EINVAL);
        }
        if !caps.trusted && !caps.user_xattrs {
            return refused("setxattr", Errno::EOPNOTSUPP);
        }
    }
    Ok(caps)
}

/// What says that a filesystem, or an old kernel, has not got a call or a flag of it.
fn is_refusal(e: &SysError) -> bool {
    matches!(
        e.errno,
        Errno::EPERM
            | Errno::EACCES
            | Errno::EINVAL
            | Errno::ENOSYS
            | Errno::EOPNOTSUPP
            | Errno::ENODEV
    )
}

/// Whether the files at `one` and `two` can change places. Filesystems in userspace may
/// answer what they have not done, so it is looked at.
fn can_exchange(one: At<'_>, two: At<'_>) -> Result<bool, SysError> {
    match fs::rename(one, two, RENAME_EXCHANGE) {
        Ok(()) => Ok(fs::stat(one).is_ok() && fs::stat(two).is_ok()),
        Err(e) if is_refusal(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether moving the file at `from` to `to` can leave a whiteout there.
fn leaves_whiteout(from: At<'_>, to: At<'_>) -> Result<bool, SysError> {
    match fs::rename(from, to, RENAME_WHITEOUT) {
        Ok(()) => Ok(fs::stat(from).is_ok_and(|left| left.is_whiteout_device())),
        Err(e) if is_refusal(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a whiteout can be made at `at`, where nothing is; else why not.
fn makes_whiteouts(at: At<'_>, magic: i64) -> Result<Result<(), SysError>, SysError> {
    match fs::mknod(at, S_IFCHR, (0, 0)) {
        Ok(()) => {
            let made = fs::stat(at)?;
            fs::unlink(at)?;
            Ok(if made.is_whiteout_device() {
                Ok(())
            } else {
                Err(SysError {
                    call: "mknodat",
                    errno: Errno::EOPNOTSUPP,
                })
            })
        }
        Err(e) if is_refusal(&e) => Ok(Err(e)),
        // What such servers say that know of no devices, or take this one for a mark of
        // their own.
        Err(e) if magic == magic::FUSE && matches!(e.errno, Errno::EIO | Errno::ENOENT) => {
            if fs::stat(at).is_ok() {
                fs::unlink(at)?;
            }
            Ok(Err(e))
        }
        Err(e) => Err(e),
    }
}

/// Whether the filesystem of `root` has xattrs at all. What shows other filesystems may
/// answer differently for each file.
fn may_have_xattrs(root: &OwnedFd, magic: i64) -> bool {
    let some = [
        c"user.overlay.opaque",
        c"trusted.overlay.opaque",
        c"security.capability",
        c"system.posix_acl_access",
    ];
    let refused = |key: &&CStr| {
        let got = xattr::get(At::fd(root), key);
        got.is_err_and(|e| e.errno == Errno::EOPNOTSUPP)
    };
    matches!(magic, magic::FUSE | magic::OVERLAY) || !some.iter().all(refused)
}

/// Whether xattr `key` can be set on the file at `at`. That there is no room for it, or
/// that the disk is broken, is no answer: the marks of this upper would not be believed.
fn can_set(at: At<'_>, key: &CStr) -> Result<bool, SysError> {
    match xattr::set(at, key, b"y", 0) {
        // Some drop it without a word.
        Ok(()) => Ok(xattr::get_optional(at, key)?.is_some()),
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
