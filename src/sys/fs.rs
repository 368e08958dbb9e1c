//! Naming, creating, moving and describing files: one function per system call.

use super::fault;
use super::path::{At, CBuf, EMPTY, c_path, check, check_len};
use crate::error::{Errno, SysError};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// `mode` bits and `open` flags under their usual names.
pub use libc::{
    O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOATIME, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY,
    O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT,
    S_IFREG, S_IFSOCK, S_ISGID, S_ISUID, S_ISVTX,
};
/// `renameat2` flags.
pub use libc::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};

pub use super::identity::{FileHandle, file_handle, fs_uuid, has_handle};

/// A point in time: seconds since 1970 (negative before) and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds.
    pub sec: i64,
    /// 0 to 999,999,999, always forward from `sec`.
    pub nsec: u32,
}

/// What one of the two times of `utimensat` becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// Left alone (UTIME_OMIT).
    Omit,
    /// The kernel's clock (UTIME_NOW).
    Now,
    /// This.
    To(Time),
}

/// What `statx` told of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device of the filesystem, as `makedev` has it.
    pub dev: u64,
    /// Inode number there.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Preferred size of an I/O request, bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last change of status.
    pub ctime: Time,
    /// Which mount it was reached through; 0 where the kernel cannot say (before 5.8).
    pub mnt_id: u64,
}

impl Stat {
    /// Major and minor number of the filesystem's device.
    pub fn device(&self) -> (u32, u32) {
        (libc::major(self.dev), libc::minor(self.dev))
    }
    /// The type bits alone.
    pub fn format(&self) -> u32 {
        self.mode & S_IFMT
    }
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.format() == S_IFDIR
    }
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.format() == S_IFREG
    }
    /// Whether it is overlayfs's whiteout, a character device 0:0.
    pub fn is_whiteout_device(&self) -> bool {
        self.format() == S_IFCHR && self.rdev == (0, 0)
    }
}

fn time(t: &libc::statx_timestamp) -> Time {
    Time {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    }
}

/// statx(2) of `at`, no symlink followed, nothing mounted on the way.
pub fn stat(at: At<'_>) -> Result<Stat, SysError> {
    statx(at, libc::AT_STATX_SYNC_AS_STAT)
}

/// As [`stat`], but nothing is asked of a server: a lower layer may hold a mount
/// that this very process serves, and asking there would wait for itself.
pub fn stat_unsynced(at: At<'_>) -> Result<Stat, SysError> {
    statx(at, libc::AT_STATX_DONT_SYNC)
}

fn statx(at: At<'_>, sync: i32) -> Result<Stat, SysError> {
    const MNT_ID: libc::c_uint = libc::STATX_MNT_ID;
    let name = CBuf::name("statx", at.name)?;
    let flags = libc::AT_SYMLINK_NOFOLLOW
        | libc::AT_NO_AUTOMOUNT
        | sync
        | if at.is_fd() { libc::AT_EMPTY_PATH } else { 0 };
    let mut out = MaybeUninit::<libc::statx>::zeroed();
    fault::before("statx")?;
    // SAFETY: `name` is NUL-terminated and `out` has room for one statx.
    let status = unsafe {
        libc::statx(
            at.raw(),
            name.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS | MNT_ID,
            out.as_mut_ptr(),
        )
    };
    match check("statx", status) {
        // A filter of system calls that is older than this one; the call itself never says so,
        // but the C library says EINVAL then of flags that it cannot do without it.
        Err(e) if matches!(e.errno, Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => {
            return fstatat(at, &name);
        }
        other => other?,
    };
    // SAFETY: zeroed is a valid statx, and the kernel has filled it.
    let s = unsafe { out.assume_init() };
    Ok(Stat {
        dev: libc::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        mode: u32::from(s.stx_mode),
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: (s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blocks: s.stx_blocks,
        blksize: s.stx_blksize,
        atime: time(&s.stx_atime),
        mtime: time(&s.stx_mtime),
        ctime: time(&s.stx_ctime),
        mnt_id: if s.stx_mask & MNT_ID != 0 {
            s.stx_mnt_id
        } else {
            0
        },
    })
}

/// What fstatat(2) tells: all but the mount.
fn fstatat(at: At<'_>, name: &CBuf) -> Result<Stat, SysError> {
    let flags = libc::AT_SYMLINK_NOFOLLOW
        | libc::AT_NO_AUTOMOUNT
        | if at.is_fd() { libc::AT_EMPTY_PATH } else { 0 };
    let mut out = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `name` is NUL-terminated and `out` has room for one stat.
    let status = unsafe { libc::fstatat(at.raw(), name.as_ptr(), out.as_mut_ptr(), flags) };
    check("fstatat", status)?;
    // SAFETY: zeroed is a valid stat, and the kernel has filled it.
    let s = unsafe { out.assume_init() };
    let time = |sec, nsec| Time {
        sec,
        nsec: u32::try_from(nsec).unwrap_or_default(),
    };
    Ok(Stat {
        dev: s.st_dev,
        ino: s.st_ino,
        mode: s.st_mode,
        nlink: u32::try_from(s.st_nlink).unwrap_or(u32::MAX),
        uid: s.st_uid,
        gid: s.st_gid,
        rdev: (libc::major(s.st_rdev), libc::minor(s.st_rdev)),
        size: u64::try_from(s.st_size).unwrap_or_default(),
        blocks: u64::try_from(s.st_blocks).unwrap_or_default(),
        blksize: u32::try_from(s.st_blksize).unwrap_or(4096),
        atime: time(s.st_atime, s.st_atime_nsec),
        mtime: time(s.st_mtime, s.st_mtime_nsec),
        ctime: time(s.st_ctime, s.st_ctime_nsec),
        mnt_id: 0,
    })
}

/// openat(2), close-on-exec; a descriptor alone is reopened through /proc.
pub fn open(at: At<'_>, flags: i32, mode: u32) -> Result<OwnedFd, SysError> {
    let (dir, path) = if at.is_fd() {
        (libc::AT_FDCWD, CBuf::proc_path("openat", at)?)
    } else {
        (at.raw(), CBuf::name("openat", at.name)?)
    };
    fault::before(if flags & O_CREAT != 0 {
        "openat(O_CREAT)"
    } else {
        "openat"
    })?;
    // SAFETY: `path` is NUL-terminated.
    let fd = unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
    let fd = check("openat", fd)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// open(2) of a path that the user gave; symlinks are followed.
pub fn open_path(path: &Path, flags: i32) -> Result<OwnedFd, SysError> {
    let path = c_path("open", path)?;
    fault::before("open")?;
    // SAFETY: `path` is NUL-terminated.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    let fd = check("open", fd)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A private copy of the mount at `fd`, from there down and without what is mounted
/// below it. Needs CAP_SYS_ADMIN, Linux 5.2.
pub fn clone_mount(fd: &impl AsFd) -> Result<OwnedFd, SysError> {
    fault::before("open_tree")?;
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: an empty C string and a live descriptor.
    let tree = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            fd.as_fd().as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
        )
    };
    let tree = check("open_tree", tree as libc::c_int)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// As [`clone_mount`], read-only and without access times. Linux 5.12.
pub fn clone_mount_read_only(fd: &impl AsFd) -> Result<OwnedFd, SysError> {
    let tree = clone_mount(fd)?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `attr` lives across the call and its size is given.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check("mount_setattr", status as libc::c_int)?;
    Ok(tree)
}

/// readlinkat(2).
pub fn readlink(at: At<'_>) -> Result<Vec<u8>, SysError> {
    let name = CBuf::name("readlinkat", at.name)?;
    let mut out = vec![0u8; libc::PATH_MAX as usize];
    fault::before("readlinkat")?;
    // SAFETY: `name` is NUL-terminated and `out` has the length that is given.
    let len =
        unsafe { libc::readlinkat(at.raw(), name.as_ptr(), out.as_mut_ptr().cast(), out.len()) };
    out.truncate(check_len("readlinkat", len)?);
    Ok(out)
}

/// mkdirat(2).
pub fn mkdir(at: At<'_>, mode: u32) -> Result<(), SysError> {
    let name = CBuf::name("mkdirat", at.name)?;
    fault::before("mkdirat")?;
    // SAFETY: `name` is NUL-terminated.
    check("mkdirat", unsafe {
        libc::mkdirat(at.raw(), name.as_ptr(), mode)
    })
    .map(drop)
}

/// mknodat(2); `rdev` is major and minor.
pub fn mknod(at: At<'_>, mode: u32, rdev: (u32, u32)) -> Result<(), SysError> {
    let name = CBuf::name("mknodat", at.name)?;
    fault::before("mknodat")?;
    // SAFETY: `name` is NUL-terminated.
    check("mknodat", unsafe {
        libc::mknodat(at.raw(), name.as_ptr(), mode, libc::makedev(rdev.0, rdev.1))
    })
    .map(drop)
}

/// Makes an empty file where there is nothing: mknodat(2), or openat(2) where the filesystem
/// makes no file that way.
pub fn make_empty(at: At<'_>, mode: u32) -> Result<(), SysError> {
    match mknod(at, S_IFREG | mode, (0, 0)) {
        Err(e)
            if matches!(
                e.errno,
                Errno::EPERM | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP
            ) =>
        {
            open(at, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, mode).map(drop)
        }
        other => other,
    }
}

/// symlinkat(2).
pub fn symlink(target: &[u8], at: At<'_>) -> Result<(), SysError> {
    let name = CBuf::name("symlinkat", at.name)?;
    let target = std::ffi::CString::new(target).map_err(|_| SysError {
        call: "symlinkat",
        errno: Errno::EINVAL,
    })?;
    fault::before("symlinkat")?;
    // SAFETY: both are NUL-terminated.
    check("symlinkat", unsafe {
        libc::symlinkat(target.as_ptr(), at.raw(), name.as_ptr())
    })
    .map(drop)
}

/// linkat(2); a descriptor alone is linked through /proc, so that no capability is needed.
pub fn link(from: At<'_>, to: At<'_>) -> Result<(), SysError> {
    let (dir, path, flags) = if from.is_fd() {
        (
            libc::AT_FDCWD,
            CBuf::proc_path("linkat", from)?,
            libc::AT_SYMLINK_FOLLOW,
        )
    } else {
        (from.raw(), CBuf::name("linkat", from.name)?, 0)
    };
    let name = CBuf::name("linkat", to.name)?;
    fault::before("linkat")?;
    // SAFETY: both are NUL-terminated.
    check("linkat", unsafe {
        libc::linkat(dir, path.as_ptr(), to.raw(), name.as_ptr(), flags)
    })
    .map(drop)
}

fn unlinkat(at: At<'_>, flags: i32) -> Result<(), SysError> {
    let name = CBuf::name("unlinkat", at.name)?;
    fault::before("unlinkat")?;
    // SAFETY: `name` is NUL-terminated.
    check("unlinkat", unsafe {
        libc::unlinkat(at.raw(), name.as_ptr(), flags)
    })
    .map(drop)
}

/// unlinkat(2) of anything but a directory.
pub fn unlink(at: At<'_>) -> Result<(), SysError> {
    unlinkat(at, 0)
}

/// unlinkat(2) of an empty directory.
pub fn rmdir(at: At<'_>) -> Result<(), SysError> {
    unlinkat(at, libc::AT_REMOVEDIR)
}

/// renameat2(2) with RENAME_* `flags`.
pub fn rename(from: At<'_>, to: At<'_>, flags: u32) -> Result<(), SysError> {
    let a = CBuf::name("renameat2", from.name)?;
    let b = CBuf::name("renameat2", to.name)?;
    fault::before("renameat2")?;
    // SAFETY: both are NUL-terminated.
    let status = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from.raw(),
            a.as_ptr(),
            to.raw(),
            b.as_ptr(),
            flags,
        )
    };
    check("renameat2", status as libc::c_int).map(drop)
}

/// Sets the permission bits of `at`, never following a symlink.
///
/// fchmodat2(2) where the kernel has it (6.6), else chmod(2) through /proc.
pub fn chmod(at: At<'_>, mode: u32) -> Result<(), SysError> {
    /// The same number on every architecture that Linux added it to.
    const SYS_FCHMODAT2: libc::c_long = 452;
    let name = CBuf::name("fchmodat2", at.name)?;
    fault::before("fchmodat2")?;
    let flags = if at.is_fd() {
        libc::AT_EMPTY_PATH
    } else {
        libc::AT_SYMLINK_NOFOLLOW
    };
    // SAFETY: `name` is NUL-terminated.
    let status = unsafe { libc::syscall(SYS_FCHMODAT2, at.raw(), name.as_ptr(), mode, flags) };
    match check("fchmodat2", status as libc::c_int) {
        // EPERM may be a filter's answer to calls that it does not know.
        Err(e) if matches!(e.errno, Errno::ENOSYS | Errno::EPERM) => {}
        other => return other.map(drop),
    }
    let held;
    let path = if at.is_fd() {
        CBuf::proc_path("chmod", at)?
    } else {
        held = open(at, O_PATH | O_NOFOLLOW, 0)?;
        CBuf::proc_path("chmod", At::fd(&held))?
    };
    // SAFETY: `path` is NUL-terminated.
    check("chmod", unsafe { libc::chmod(path.as_ptr(), mode) }).map(drop)
}

/// fchownat(2), no symlink followed; `None` leaves an id alone.
pub fn chown(at: At<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), SysError> {
    let name = CBuf::name("fchownat", at.name)?;
    fault::before("fchownat")?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | if at.is_fd() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: `name` is NUL-terminated.
    check("fchownat", unsafe {
        libc::fchownat(
            at.raw(),
            name.as_ptr(),
            uid.unwrap_or(u32::MAX),
            gid.unwrap_or(u32::MAX),
            flags,
        )
    })
    .map(drop)
}

fn timespec(t: SetTime) -> libc::timespec {
    let (tv_sec, tv_nsec) = match t {
        SetTime::Omit => (0, libc::UTIME_OMIT),
        SetTime::Now => (0, libc::UTIME_NOW),
        SetTime::To(t) => (t.sec, libc::c_long::from(t.nsec as i32)),
    };
    libc::timespec { tv_sec, tv_nsec }
}

/// utimensat(2), no symlink followed.
pub fn utimens(at: At<'_>, atime: SetTime, mtime: SetTime) -> Result<(), SysError> {
    let times = [timespec(atime), timespec(mtime)];
    let set = |dir: RawFd, path: &CBuf, flags: libc::c_int| {
        // SAFETY: `path` is NUL-terminated and `times` are two timespecs.
        check("utimensat", unsafe {
            libc::utimensat(dir, path.as_ptr(), times.as_ptr(), flags)
        })
    };
    fault::before("utimensat")?;
    let name = CBuf::name("utimensat", at.name)?;
    if !at.is_fd() {
        return set(at.raw(), &name, libc::AT_SYMLINK_NOFOLLOW).map(drop);
    }
    // Kernels before 5.8 do not know the flag here.
    match set(at.raw(), &name, libc::AT_EMPTY_PATH) {
        Err(e) if e.errno == Errno::EINVAL => {
            let path = CBuf::proc_path("utimensat", at)?;
            set(libc::AT_FDCWD, &path, 0).map(drop)
        }
        other => other.map(drop),
    }
}

/// What a filesystem says of itself: fstatvfs(3) and its magic number.
#[derive(Clone, Copy, Debug)]
pub struct FsStat {
    /// Total blocks, in units of `frsize`.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Blocks free to users.
    pub bavail: u64,
    /// Total inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Block size, bytes.
    pub bsize: u32,
    /// Fragment size, bytes.
    pub frsize: u32,
    /// Longest name, bytes.
    pub namelen: u32,
    /// `f_type` of statfs(2).
    pub magic: i64,
}

/// fstatfs(2).
pub fn statfs(fd: &impl AsFd) -> Result<FsStat, SysError> {
    let mut out = MaybeUninit::<libc::statfs>::zeroed();
    fault::before("fstatfs")?;
    // SAFETY: `out` has room for one statfs.
    check("fstatfs", unsafe {
        libc::fstatfs(fd.as_fd().as_raw_fd(), out.as_mut_ptr())
    })?;
    // SAFETY: zeroed is a valid statfs, and the kernel has filled it.
    let s = unsafe { out.assume_init() };
    Ok(FsStat {
        blocks: s.f_blocks,
        bfree: s.f_bfree,
        bavail: s.f_bavail,
        files: s.f_files,
        ffree: s.f_ffree,
        bsize: s.f_bsize as u32,
        frsize: if s.f_frsize == 0 {
            s.f_bsize as u32
        } else {
            s.f_frsize as u32
        },
        namelen: s.f_namelen as u32,
        magic: s.f_type,
    })
}

/// flock(2), exclusive and without waiting; EAGAIN where another has it.
pub fn try_lock(fd: &impl AsFd) -> Result<(), SysError> {
    // SAFETY: a live descriptor.
    check("flock", unsafe {
        libc::flock(fd.as_fd().as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB)
    })
    .map(drop)
}

/// Says that this process waits for the lock on `dir`, until that descriptor is closed or
/// [`wait_no_more`] says otherwise: fcntl(2), a shared lock of the open file description.
pub fn wait_for(dir: &impl AsFd) -> Result<(), SysError> {
    ofd_lock(dir, libc::F_OFD_SETLK, libc::F_RDLCK).map(drop)
}

/// It waits no more.
pub fn wait_no_more(dir: &impl AsFd) -> Result<(), SysError> {
    ofd_lock(dir, libc::F_OFD_SETLK, libc::F_UNLCK).map(drop)
}

/// Whether somebody else says so.
pub fn is_waited_for(dir: &impl AsFd) -> Result<bool, SysError> {
    let found = ofd_lock(dir, libc::F_OFD_GETLK, libc::F_WRLCK)?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

fn ofd_lock(
    dir: &impl AsFd,
    command: libc::c_int,
    kind: libc::c_int,
) -> Result<libc::flock, SysError> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `lock` is a valid struct flock, which the call may write.
    let status = unsafe { libc::fcntl(dir.as_fd().as_raw_fd(), command, &raw mut lock) };
    check("fcntl", status)?;
    Ok(lock)
}
