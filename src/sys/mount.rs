//! Mounting and unmounting: thin faces of mount(2), umount2(2) and pivot_root(2).

use super::mountinfo;
use super::path::{EMPTY, c_path, check};
use crate::error::{Errno, SysError};
use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Flags of a new mount; all off is the most that a filesystem can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Refuse all writes.
    pub read_only: bool,
    /// Ignore setuid and setgid bits.
    pub no_suid: bool,
    /// Refuse to open device nodes.
    pub no_dev: bool,
    /// Refuse to execute.
    pub no_exec: bool,
    /// Leave access times alone.
    pub no_atime: bool,
    /// Have every write on the disk when it returns.
    pub synchronous: bool,
}

impl Flags {
    fn bits(self) -> libc::c_ulong {
        let bit = |on: bool, flag: libc::c_ulong| if on { flag } else { 0 };
        bit(self.read_only, libc::MS_RDONLY)
            | bit(self.no_suid, libc::MS_NOSUID)
            | bit(self.no_dev, libc::MS_NODEV)
            | bit(self.no_exec, libc::MS_NOEXEC)
            | bit(self.no_atime, libc::MS_NOATIME)
            | bit(self.synchronous, libc::MS_SYNCHRONOUS)
    }
}

fn c_text(call: &'static str, text: &str) -> Result<CString, SysError> {
    CString::new(text).map_err(|_| SysError {
        call,
        errno: Errno::EINVAL,
    })
}

/// Opens the FUSE device.
pub fn open_fuse() -> Result<OwnedFd, SysError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map(OwnedFd::from)
        .map_err(|e| SysError {
            call: "open",
            errno: Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)),
        })
}

/// mount(2) of a new filesystem.
pub fn mount(
    source: &str,
    target: &Path,
    fs_type: &str,
    flags: Flags,
    data: &str,
) -> Result<(), SysError> {
    let (source, target) = (c_text("mount", source)?, c_path("mount", target)?);
    let (fs_type, data) = (c_text("mount", fs_type)?, c_text("mount", data)?);
    // SAFETY: four NUL-terminated strings that live across the call.
    let status = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs_type.as_ptr(),
            flags.bits(),
            data.as_ptr().cast(),
        )
    };
    check("mount", status).map(drop)
}

/// Makes `source` (with what is mounted below it, if `recursive`) appear at `target` too.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> Result<(), SysError> {
    let (source, target) = (c_path("mount", source)?, c_path("mount", target)?);
    let flags = libc::MS_BIND | if recursive { libc::MS_REC } else { 0 };
    // SAFETY: two NUL-terminated strings; a bind ignores the type and the data.
    let status = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    };
    check("mount", status).map(drop)
}

/// Cuts `target` and all below it off from the mounts of other namespaces.
pub fn make_private(target: &Path) -> Result<(), SysError> {
    let target = c_path("mount", target)?;
    // SAFETY: one NUL-terminated string; a change of propagation ignores the others.
    let status = unsafe {
        libc::mount(
            EMPTY.as_ptr(),
            target.as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    };
    check("mount", status).map(drop)
}

/// Makes the mount at `target`, and those below it, read-only: at one stroke since
/// Linux 5.12, before that one after the other.
pub fn set_read_only(target: &Path) -> Result<(), SysError> {
    match set_tree_read_only(target) {
        Err(e) if matches!(e.errno, Errno::ENOSYS | Errno::EPERM) => {}
        other => return other,
    }
    let failed = |e: std::io::Error| SysError {
        call: "mount",
        errno: Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)),
    };
    let target = target.canonicalize().map_err(failed)?;
    let mounts = mountinfo::read().map_err(failed)?;
    let mut below = mounts.iter().filter(|m| m.point.starts_with(&target));
    below.try_for_each(|m| remount_read_only(&m.point))
}

/// Makes the one mount at `target` read-only. All else that it forbids has to be said again:
/// in a user namespace it may not be lifted.
fn remount_read_only(target: &Path) -> Result<(), SysError> {
    let target = c_path("mount", target)?;
    let mut now = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `target` is NUL-terminated and `now` has room for one statvfs.
    check("statvfs", unsafe {
        libc::statvfs(target.as_ptr(), now.as_mut_ptr())
    })?;
    // SAFETY: zeroed is a valid statvfs, and it was filled.
    let now = unsafe { now.assume_init() }.f_flag;
    let kept = [
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NOATIME, libc::MS_NOATIME),
        (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
        (libc::ST_RELATIME, libc::MS_RELATIME),
    ];
    let flags = kept
        .iter()
        .filter(|(shown, _)| now & shown != 0)
        .fold(0, |flags, (_, flag)| flags | flag);
    // SAFETY: one NUL-terminated string; a remount of a bind ignores the others.
    let status = unsafe {
        libc::mount(
            std::ptr::null(),
            target.as_ptr(),
            std::ptr::null(),
            flags | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY,
            std::ptr::null(),
        )
    };
    check("mount", status).map(drop)
}

fn set_tree_read_only(target: &Path) -> Result<(), SysError> {
    let target = c_path("mount_setattr", target)?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `target` is NUL-terminated; `attr` lives across the call, its size is given.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check("mount_setattr", status as libc::c_int).map(drop)
}

/// umount2(2), never following a symlink; `lazy` detaches at once and lets users finish.
pub fn unmount(target: &Path, lazy: bool) -> Result<(), SysError> {
    let target = c_path("umount2", target)?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: `target` is NUL-terminated.
    check("umount2", unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// Makes the mount at the working directory the root of this mount namespace, and lets
/// the old root go.
pub fn pivot_root_here() -> Result<(), SysError> {
    // SAFETY: two NUL-terminated strings.
    let status = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check("pivot_root", status as libc::c_int)?;
    // The old root now lies on top of the new one; the working directory is the new one.
    unmount(Path::new("."), true)
}
