//! System calls with their own errno, on paths as bytes; nothing here is retried or changed.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub use stat::*;

/// The one place that calls libc: every pointer handed over comes from a live CString or buffer
/// whose true length goes with it.
macro_rules! call {
    ($call:expr) => {{
        // SAFETY: the arguments are plain numbers, NUL-terminated strings that outlive the call,
        // and buffers passed with their own length; the callers in this file see to it.
        let got = unsafe { $call };
        if got < 0 { Err(errno()) } else { Ok(got) }
    }};
}

mod stat;

/// An errno.
pub type Errno = i32;
pub type Res<T> = Result<T, Errno>;

pub fn errno() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// `EXDEV` for 18, and so on; the number where the name is not known here.
pub fn errno_name(code: Errno) -> String {
    const NAMES: &[(Errno, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EINTR, "EINTR"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::ESPIPE, "ESPIPE"),
        (libc::EROFS, "EROFS"),
        (libc::EMLINK, "EMLINK"),
        (libc::ERANGE, "ERANGE"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ENOTEMPTY, "ENOTEMPTY"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODATA, "ENODATA"),
        (libc::EOVERFLOW, "EOVERFLOW"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ESTALE, "ESTALE"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::ECONNABORTED, "ECONNABORTED"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
    ];
    NAMES
        .iter()
        .find(|(c, _)| *c == code)
        .map_or_else(|| code.to_string(), |(_, name)| (*name).to_string())
}

/// `path` for the kernel. A NUL in it is a mistake of the test.
pub fn c(path: impl AsRef<[u8]>) -> CString {
    CString::new(path.as_ref()).expect("no NUL in a path or name")
}

pub fn is_root() -> bool {
    call!(libc::geteuid() as i64) == Ok(0)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the system call that returned `fd` succeeded and gave it to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub fn open(path: impl AsRef<[u8]>, flags: i32, mode: u32) -> Res<OwnedFd> {
    let p = c(path);
    call!(libc::open(p.as_ptr(), flags | libc::O_CLOEXEC, mode)).map(owned)
}

pub fn openat(dir: &OwnedFd, path: impl AsRef<[u8]>, flags: i32, mode: u32) -> Res<OwnedFd> {
    let p = c(path);
    call!(libc::openat(
        dir.as_raw_fd(),
        p.as_ptr(),
        flags | libc::O_CLOEXEC,
        mode
    ))
    .map(owned)
}

/// What close(2) itself answers; errors of a delayed write show here.
pub fn close(fd: OwnedFd) -> Res<()> {
    use std::os::fd::IntoRawFd;
    call!(libc::close(fd.into_raw_fd())).map(drop)
}

pub fn pwrite(fd: &OwnedFd, data: &[u8], offset: u64) -> Res<usize> {
    let at = offset as libc::off_t;
    call!(libc::pwrite(
        fd.as_raw_fd(),
        data.as_ptr().cast(),
        data.len(),
        at
    ))
    .map(|n| n as usize)
}

pub fn pread(fd: &OwnedFd, len: usize, offset: u64) -> Res<Vec<u8>> {
    let mut buffer = vec![0u8; len];
    let at = offset as libc::off_t;
    let n = call!(libc::pread(
        fd.as_raw_fd(),
        buffer.as_mut_ptr().cast(),
        len,
        at
    ))?;
    buffer.truncate(n as usize);
    Ok(buffer)
}

/// The whole of an open file.
pub fn read_all(fd: &OwnedFd) -> Res<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let part = pread(fd, 1 << 17, all.len() as u64)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&part);
    }
}

pub fn mkdir(path: impl AsRef<[u8]>, mode: u32) -> Res<()> {
    let p = c(path);
    call!(libc::mkdir(p.as_ptr(), mode)).map(drop)
}

pub fn rmdir(path: impl AsRef<[u8]>) -> Res<()> {
    let p = c(path);
    call!(libc::rmdir(p.as_ptr())).map(drop)
}

pub fn unlink(path: impl AsRef<[u8]>) -> Res<()> {
    let p = c(path);
    call!(libc::unlink(p.as_ptr())).map(drop)
}

pub fn symlink(target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Res<()> {
    let (t, p) = (c(target), c(path));
    call!(libc::symlink(t.as_ptr(), p.as_ptr())).map(drop)
}

pub fn link(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Res<()> {
    let (f, t) = (c(from), c(to));
    call!(libc::link(f.as_ptr(), t.as_ptr())).map(drop)
}

/// A new name for an open file, which may have none left.
pub fn link_fd(fd: &OwnedFd, to: impl AsRef<[u8]>) -> Res<()> {
    let (empty, t) = (c(""), c(to));
    call!(libc::linkat(
        fd.as_raw_fd(),
        empty.as_ptr(),
        libc::AT_FDCWD,
        t.as_ptr(),
        libc::AT_EMPTY_PATH
    ))
    .map(drop)
}

pub fn mknod(path: impl AsRef<[u8]>, mode: u32, rdev: u64) -> Res<()> {
    let p = c(path);
    call!(libc::mknod(p.as_ptr(), mode, rdev)).map(drop)
}

/// `flags` as renameat2(2) has them.
pub fn rename(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>, flags: u32) -> Res<()> {
    let (f, t) = (c(from), c(to));
    call!(libc::syscall(
        libc::SYS_renameat2,
        libc::AT_FDCWD,
        f.as_ptr(),
        libc::AT_FDCWD,
        t.as_ptr(),
        flags
    ))
    .map(drop)
}

pub fn readlink(path: impl AsRef<[u8]>) -> Res<Vec<u8>> {
    let p = c(path);
    let mut buffer = vec![0u8; 4097];
    let n = call!(libc::readlink(
        p.as_ptr(),
        buffer.as_mut_ptr().cast(),
        buffer.len()
    ))?;
    buffer.truncate(n as usize);
    Ok(buffer)
}

pub fn chmod(path: impl AsRef<[u8]>, mode: u32) -> Res<()> {
    let p = c(path);
    call!(libc::chmod(p.as_ptr(), mode)).map(drop)
}

pub fn fchmod(fd: &OwnedFd, mode: u32) -> Res<()> {
    call!(libc::fchmod(fd.as_raw_fd(), mode)).map(drop)
}

/// `u32::MAX` leaves an id as it is. The last symlink is not followed.
pub fn lchown(path: impl AsRef<[u8]>, uid: u32, gid: u32) -> Res<()> {
    let p = c(path);
    call!(libc::lchown(p.as_ptr(), uid, gid)).map(drop)
}

pub fn fchown(fd: &OwnedFd, uid: u32, gid: u32) -> Res<()> {
    call!(libc::fchown(fd.as_raw_fd(), uid, gid)).map(drop)
}

pub fn truncate(path: impl AsRef<[u8]>, len: u64) -> Res<()> {
    let p = c(path);
    call!(libc::truncate(p.as_ptr(), len as libc::off_t)).map(drop)
}

pub fn ftruncate(fd: &OwnedFd, len: u64) -> Res<()> {
    call!(libc::ftruncate(fd.as_raw_fd(), len as libc::off_t)).map(drop)
}

/// A time to set: seconds and nanoseconds, where UTIME_NOW and UTIME_OMIT are nanoseconds.
pub type Time = (i64, i64);
pub const NOW: Time = (0, libc::UTIME_NOW);
pub const OMIT: Time = (0, libc::UTIME_OMIT);

fn timespecs(times: [Time; 2]) -> [libc::timespec; 2] {
    times.map(|(s, n)| libc::timespec {
        tv_sec: s,
        tv_nsec: n,
    })
}

/// The last symlink is not followed.
pub fn utimens(path: impl AsRef<[u8]>, times: [Time; 2]) -> Res<()> {
    let (p, t) = (c(path), timespecs(times));
    call!(libc::utimensat(
        libc::AT_FDCWD,
        p.as_ptr(),
        t.as_ptr(),
        libc::AT_SYMLINK_NOFOLLOW
    ))
    .map(drop)
}

pub fn futimens(fd: &OwnedFd, times: [Time; 2]) -> Res<()> {
    let t = timespecs(times);
    call!(libc::futimens(fd.as_raw_fd(), t.as_ptr())).map(drop)
}

pub fn access(path: impl AsRef<[u8]>, mode: i32) -> Res<()> {
    let p = c(path);
    let flags = libc::AT_EACCESS;
    call!(libc::faccessat(libc::AT_FDCWD, p.as_ptr(), mode, flags)).map(drop)
}

pub fn lsetxattr(
    path: impl AsRef<[u8]>,
    name: impl AsRef<[u8]>,
    value: &[u8],
    flags: i32,
) -> Res<()> {
    let (p, n) = (c(path), c(name));
    call!(libc::lsetxattr(
        p.as_ptr(),
        n.as_ptr(),
        value.as_ptr().cast(),
        value.len(),
        flags
    ))
    .map(drop)
}

pub fn fsetxattr(fd: &OwnedFd, name: impl AsRef<[u8]>, value: &[u8], flags: i32) -> Res<()> {
    let n = c(name);
    call!(libc::fsetxattr(
        fd.as_raw_fd(),
        n.as_ptr(),
        value.as_ptr().cast(),
        value.len(),
        flags
    ))
    .map(drop)
}

pub fn lremovexattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Res<()> {
    let (p, n) = (c(path), c(name));
    call!(libc::lremovexattr(p.as_ptr(), n.as_ptr())).map(drop)
}

pub fn lgetxattr(path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Res<Vec<u8>> {
    let (p, n) = (c(path), c(name));
    let mut value = vec![0u8; 65536];
    let got = call!(libc::lgetxattr(
        p.as_ptr(),
        n.as_ptr(),
        value.as_mut_ptr().cast(),
        value.len()
    ))?;
    value.truncate(got as usize);
    Ok(value)
}

pub fn fgetxattr(fd: &OwnedFd, name: impl AsRef<[u8]>) -> Res<Vec<u8>> {
    let n = c(name);
    let mut value = vec![0u8; 65536];
    let got = call!(libc::fgetxattr(
        fd.as_raw_fd(),
        n.as_ptr(),
        value.as_mut_ptr().cast(),
        value.len()
    ))?;
    value.truncate(got as usize);
    Ok(value)
}

/// The names in the order of the kernel's answer.
pub fn llistxattr(path: impl AsRef<[u8]>) -> Res<Vec<Vec<u8>>> {
    let p = c(path);
    let mut names = vec![0u8; 65536];
    let n = call!(libc::llistxattr(
        p.as_ptr(),
        names.as_mut_ptr().cast(),
        names.len()
    ))?;
    Ok(names[..n as usize]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

pub fn fallocate(fd: &OwnedFd, mode: i32, offset: u64, len: u64) -> Res<()> {
    call!(libc::fallocate(
        fd.as_raw_fd(),
        mode,
        offset as libc::off_t,
        len as libc::off_t
    ))
    .map(drop)
}

pub fn lseek(fd: &OwnedFd, offset: i64, whence: i32) -> Res<u64> {
    call!(libc::lseek(fd.as_raw_fd(), offset, whence)).map(|at| at as u64)
}

/// Sets the inode flags of chattr(1) (`FS_IOC_SETFLAGS`).
pub fn set_flags(fd: &OwnedFd, flags: libc::c_int) -> Res<()> {
    const FS_IOC_SETFLAGS: libc::Ioctl = 0x4008_6602;
    call!(libc::ioctl(fd.as_raw_fd(), FS_IOC_SETFLAGS, &flags)).map(drop)
}

pub fn fsync(fd: &OwnedFd) -> Res<()> {
    call!(libc::fsync(fd.as_raw_fd())).map(drop)
}

pub fn fdatasync(fd: &OwnedFd) -> Res<()> {
    call!(libc::fdatasync(fd.as_raw_fd())).map(drop)
}

pub fn syncfs(fd: &OwnedFd) -> Res<()> {
    call!(libc::syncfs(fd.as_raw_fd())).map(drop)
}

pub fn copy_file_range(
    from: &OwnedFd,
    at: u64,
    to: &OwnedFd,
    to_at: u64,
    len: usize,
) -> Res<usize> {
    let (mut a, mut b) = (at as libc::loff_t, to_at as libc::loff_t);
    call!(libc::copy_file_range(
        from.as_raw_fd(),
        &mut a,
        to.as_raw_fd(),
        &mut b,
        len,
        0
    ))
    .map(|n| n as usize)
}

/// Whether any page of the file is in memory (mincore(2)); the caller owns the file or is root.
pub fn is_in_memory(fd: &OwnedFd) -> Res<bool> {
    let len = fstat(fd)?.size as usize;
    if len == 0 {
        return Err(libc::EINVAL);
    }
    // SAFETY: a fresh shared mapping at an address of the kernel's choice; nobody reads it.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(errno());
    }
    let mut pages = vec![0u8; len.div_ceil(4096)];
    let told = call!(libc::mincore(map, len, pages.as_mut_ptr()));
    call!(libc::munmap(map, len))?;
    told.map(|_| pages.iter().any(|page| page & 1 != 0))
}

/// Whether reading the first byte of the file would wait for a disk, and the filesystem says so.
pub fn would_wait(fd: &OwnedFd) -> bool {
    let mut byte = 0u8;
    let room = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let got = call!(libc::preadv2(fd.as_raw_fd(), &room, 1, 0, libc::RWF_NOWAIT));
    got == Err(libc::EAGAIN)
}

/// Writes what is dirty of the file and drops it from memory, as far as that can be.
pub fn drop_from_memory(fd: &OwnedFd) -> Res<()> {
    call!(libc::fdatasync(fd.as_raw_fd()))?;
    match call!(libc::posix_fadvise(
        fd.as_raw_fd(),
        0,
        0,
        libc::POSIX_FADV_DONTNEED
    ))? {
        0 => Ok(()),
        e => Err(e),
    }
}

/// Stores `data` through a shared mapping of the file; only where the file already is that long,
/// because a store past its end is SIGBUS.
pub fn mmap_store(fd: &OwnedFd, offset: u64, data: &[u8]) -> Res<()> {
    let page = offset / 4096 * 4096;
    let skip = (offset - page) as usize;
    let len = skip + data.len();
    if data.is_empty() || fstat(fd)?.size < offset + data.len() as u64 {
        return Err(libc::ENXIO);
    }
    // SAFETY: a fresh shared mapping at an address of the kernel's choice.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            page as libc::off_t,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(errno());
    }
    // The kernel stores the bytes for us, so that a page that cannot be had is EFAULT, not SIGBUS.
    let from = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    let to = libc::iovec {
        iov_base: map.cast::<u8>().wrapping_add(skip).cast(),
        iov_len: data.len(),
    };
    let pid = std::process::id() as i32;
    let stored = call!(libc::process_vm_writev(pid, &from, 1, &to, 1, 0));
    let synced = call!(libc::msync(map, len, libc::MS_SYNC)).map(drop);
    call!(libc::munmap(map, len))?;
    stored?;
    synced
}

pub fn mount(
    source: &str,
    target: impl AsRef<[u8]>,
    kind: &str,
    flags: u64,
    data: &[u8],
) -> Res<()> {
    let (s, t, k, d) = (c(source), c(target), c(kind), c(data));
    call!(libc::mount(
        s.as_ptr(),
        t.as_ptr(),
        k.as_ptr(),
        flags,
        d.as_ptr().cast()
    ))
    .map(drop)
}

pub fn umount(target: impl AsRef<[u8]>, flags: i32) -> Res<()> {
    let t = c(target);
    call!(libc::umount2(t.as_ptr(), flags)).map(drop)
}

/// Gives this thread its own working directory, root and umask.
pub fn unshare_fs() -> Res<()> {
    call!(libc::unshare(libc::CLONE_FS)).map(drop)
}

pub fn umask(mask: u32) -> u32 {
    // SAFETY: umask takes a number and cannot fail.
    unsafe { libc::umask(mask) }
}

pub fn chroot(path: impl AsRef<[u8]>) -> Res<()> {
    let (p, root) = (c(path), c("/"));
    call!(libc::chroot(p.as_ptr()))?;
    call!(libc::chdir(root.as_ptr())).map(drop)
}

/// Back to the root that `dir` was opened on.
pub fn leave_chroot(dir: &OwnedFd) -> Res<()> {
    let dot = c(".");
    call!(libc::fchdir(dir.as_raw_fd()))?;
    call!(libc::chroot(dot.as_ptr())).map(drop)
}

/// The effective ids and groups of this thread alone (the libc wrappers change all threads).
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Res<()> {
    let keep = -1i32;
    call!(libc::syscall(
        libc::SYS_setgroups,
        groups.len(),
        groups.as_ptr()
    ))?;
    call!(libc::syscall(libc::SYS_setresgid, keep, gid, keep))?;
    call!(libc::syscall(libc::SYS_setresuid, keep, uid, keep)).map(drop)
}

/// Root again, after `become_user`.
pub fn become_root() -> Res<()> {
    let keep = -1i32;
    call!(libc::syscall(libc::SYS_setresuid, keep, 0, keep))?;
    call!(libc::syscall(libc::SYS_setresgid, keep, 0, keep))?;
    let none: [u32; 0] = [];
    call!(libc::syscall(libc::SYS_setgroups, 0, none.as_ptr())).map(drop)
}

pub fn kill(pid: u32, signal: i32) -> Res<()> {
    call!(libc::kill(pid as i32, signal)).map(drop)
}

/// What statfs(2) says: type, block size, blocks, longest name.
pub fn statfs(path: impl AsRef<[u8]>) -> Res<libc::statfs> {
    let p = c(path);
    // SAFETY: all zero bytes are a valid statfs.
    let mut s: libc::statfs = unsafe { std::mem::zeroed() };
    call!(libc::statfs(p.as_ptr(), &mut s))?;
    Ok(s)
}
