//! Reading and writing the bytes of open files.

use super::fs::statfs;
use super::path::{check, check_len};
use super::{fault, magic};
use crate::error::{Errno, SysError};
use std::os::fd::{AsFd, AsRawFd};

/// Kinds of `lseek` that ask for holes.
pub use libc::{SEEK_DATA, SEEK_HOLE};

/// `FALLOC_FL_*` bits.
pub use libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};

fn offset(call: &'static str, at: u64) -> Result<libc::off_t, SysError> {
    libc::off_t::try_from(at).map_err(|_| SysError {
        call,
        errno: Errno::EINVAL,
    })
}

/// pread(2) until `buf` is full or the file ends; how many bytes came.
pub fn read_full(fd: &impl AsFd, buf: &mut [u8], at: u64) -> Result<usize, SysError> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        let from = offset("pread", at + done as u64)?;
        fault::before("pread")?;
        // SAFETY: `rest` is writable for its length.
        let got = unsafe {
            libc::pread(
                fd.as_fd().as_raw_fd(),
                rest.as_mut_ptr().cast(),
                rest.len(),
                from,
            )
        };
        match check_len("pread", got) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.errno == Errno::EINTR => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// As [`read_full`] from offset 0, and whether the disk had to be waited for, as far as
/// preadv2(2) with RWF_NOWAIT can tell.
///
/// # Errors
/// The kernel's.
pub fn read_from_start(fd: &impl AsFd, buf: &mut [u8]) -> Result<(usize, bool), SysError> {
    fault::before("preadv2")?;
    let (done, waits) = match read_at_once(fd, buf, 0) {
        Ok(n) => (n, false),
        Err(e) if e.errno == Errno::EAGAIN => (0, true),
        // Where it cannot tell, nor where there is no preadv2.
        Err(_) => (0, false),
    };
    let rest = buf.get_mut(done..).unwrap_or_default();
    let waited = fault::waited(waits);
    Ok((done + read_full(fd, rest, done as u64)?, waited))
}

/// Has the disk begin with the first `len` bytes of `fd` (posix_fadvise(2), WILLNEED).
///
/// # Errors
/// The kernel's.
pub fn begin_to_read(fd: &impl AsFd, len: u64) -> Result<(), SysError> {
    advise(fd, offset("posix_fadvise", len)?, libc::POSIX_FADV_WILLNEED)
}

/// Whether the first and the last of `len` bytes at `at` are in memory, as preadv2(2) with
/// RWF_NOWAIT says; where it cannot, they are on tmpfs alone.
pub fn is_cached(fd: &impl AsFd, at: u64, len: usize) -> bool {
    let last = at.saturating_add(len.saturating_sub(1) as u64);
    let all = byte_is_cached(fd, at).and_then(|first| match first && last != at {
        true => byte_is_cached(fd, last),
        false => Ok(first),
    });
    match all {
        Ok(all) => all,
        Err(e) if e.errno == Errno::EOPNOTSUPP => {
            statfs(fd).is_ok_and(|filesystem| filesystem.magic == magic::TMPFS)
        }
        Err(_) => false,
    }
}

/// Beyond the end there is nothing to wait for.
fn byte_is_cached(fd: &impl AsFd, at: u64) -> Result<bool, SysError> {
    let at = offset("preadv2", at)?;
    match read_at_once(fd, &mut [0], at) {
        Ok(_) => Ok(true),
        Err(e) if e.errno == Errno::EAGAIN => Ok(false),
        Err(e) => Err(e),
    }
}

/// preadv2(2) with RWF_NOWAIT: what is in memory, or EAGAIN.
fn read_at_once(fd: &impl AsFd, buf: &mut [u8], at: libc::off_t) -> Result<usize, SysError> {
    let room = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: `room` describes `buf`, which is writable and outlives the call.
    let got = unsafe { libc::preadv2(fd.as_fd().as_raw_fd(), &room, 1, at, libc::RWF_NOWAIT) };
    check_len("preadv2", got)
}

/// pwrite(2) until all of `buf` is written, or an error after none of it.
///
/// # Errors
/// The kernel's, if nothing could be written; a short count otherwise.
pub fn write_full(fd: &impl AsFd, buf: &[u8], at: u64) -> Result<usize, SysError> {
    let mut done = 0;
    while let Some(rest) = buf.get(done..).filter(|r| !r.is_empty()) {
        let to = offset("pwrite", at + done as u64)?;
        let put = fault::before("pwrite").and_then(|()| {
            let fd = fd.as_fd().as_raw_fd();
            // SAFETY: `rest` is readable for its length.
            let put = unsafe { libc::pwrite(fd, rest.as_ptr().cast(), rest.len(), to) };
            check_len("pwrite", put)
        });
        match put {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.errno == Errno::EINTR => {}
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// ftruncate(2), which sets the modification time whether the size changes or not.
pub fn truncate(fd: &impl AsFd, size: u64) -> Result<(), SysError> {
    let size = offset("ftruncate", size)?;
    fault::before("ftruncate")?;
    // SAFETY: a live descriptor.
    check("ftruncate", unsafe {
        libc::ftruncate(fd.as_fd().as_raw_fd(), size)
    })
    .map(drop)
}

/// fallocate(2).
pub fn allocate(fd: &impl AsFd, mode: i32, at: u64, len: u64) -> Result<(), SysError> {
    let (at, len) = (offset("fallocate", at)?, offset("fallocate", len)?);
    fault::before("fallocate")?;
    // SAFETY: a live descriptor.
    check("fallocate", unsafe {
        libc::fallocate(fd.as_fd().as_raw_fd(), mode, at, len)
    })
    .map(drop)
}

/// lseek(2), for SEEK_DATA and SEEK_HOLE; the descriptor's own offset is of no meaning.
pub fn seek(fd: &impl AsFd, at: i64, whence: i32) -> Result<u64, SysError> {
    fault::before("lseek")?;
    // SAFETY: a live descriptor.
    let to = unsafe { libc::lseek(fd.as_fd().as_raw_fd(), at, whence) };
    u64::try_from(to).map_err(|_| SysError::last("lseek"))
}

/// copy_file_range(2): how many bytes went.
pub fn copy_range(
    from: &impl AsFd,
    from_at: u64,
    to: &impl AsFd,
    to_at: u64,
    len: usize,
) -> Result<usize, SysError> {
    let mut a = offset("copy_file_range", from_at)?;
    let mut b = offset("copy_file_range", to_at)?;
    fault::before("copy_file_range")?;
    // SAFETY: both offsets live across the call.
    let n = unsafe {
        libc::copy_file_range(
            from.as_fd().as_raw_fd(),
            &raw mut a,
            to.as_fd().as_raw_fd(),
            &raw mut b,
            len,
            0,
        )
    };
    check_len("copy_file_range", n)
}

/// ioctl FICLONE: `to` becomes a reflink of `from`.
pub fn clone_file(from: &impl AsFd, to: &impl AsFd) -> Result<(), SysError> {
    fault::before("ioctl(FICLONE)")?;
    // SAFETY: FICLONE takes a descriptor by value.
    check("ioctl(FICLONE)", unsafe {
        libc::ioctl(
            to.as_fd().as_raw_fd(),
            libc::FICLONE as libc::Ioctl,
            from.as_fd().as_raw_fd(),
        )
    })
    .map(drop)
}

/// fsync(2), or fdatasync(2) with `data_only`.
pub fn sync(fd: &impl AsFd, data_only: bool) -> Result<(), SysError> {
    let fd = fd.as_fd().as_raw_fd();
    fault::before("fsync")?;
    // SAFETY: a live descriptor.
    let status = unsafe {
        if data_only {
            libc::fdatasync(fd)
        } else {
            libc::fsync(fd)
        }
    };
    check("fsync", status).map(drop)
}

/// Writes all changed data of a file to the disk and waits, with sync_file_range(2): unlike
/// fsync(2) it neither makes the filesystem commit nor the disk flush.
pub fn write_out(fd: &impl AsFd) -> Result<(), SysError> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    fault::before("sync_file_range")?;
    // SAFETY: a live descriptor.
    let status = unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), 0, 0, flags) };
    match check("sync_file_range", status) {
        // Not all architectures have it, nor all filters of system calls.
        Err(e) if matches!(e.errno, Errno::ENOSYS | Errno::EPERM) => sync(fd, true),
        other => other.map(drop),
    }
}

/// Begins to write the changed data of a file to the disk, and does not wait; where that cannot
/// be had it is left to whoever waits for it.
pub fn begin_write_out(fd: &impl AsFd) {
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    if fault::before("sync_file_range").is_err() {
        return;
    }
    // SAFETY: a live descriptor. Nothing depends on the answer: an error that concerns the
    // data comes again with the sync.
    unsafe { libc::sync_file_range(fd.as_fd().as_raw_fd(), 0, 0, flags) };
}

/// syncfs(2) of the filesystem that `fd` lies on.
pub fn sync_filesystem(fd: &impl AsFd) -> Result<(), SysError> {
    fault::before("syncfs")?;
    // SAFETY: a live descriptor.
    check("syncfs", unsafe { libc::syncfs(fd.as_fd().as_raw_fd()) }).map(drop)
}

/// posix_fadvise(2): the clean pages of the file `fd` are no longer wanted in memory.
pub fn forget_pages(fd: &impl AsFd) -> Result<(), SysError> {
    advise(fd, 0, libc::POSIX_FADV_DONTNEED)
}

/// Of the first `len` bytes; of all if that is 0.
fn advise(fd: &impl AsFd, len: libc::off_t, advice: i32) -> Result<(), SysError> {
    // SAFETY: a live descriptor.
    let code = unsafe { libc::posix_fadvise(fd.as_fd().as_raw_fd(), 0, len, advice) };
    if code == 0 {
        return Ok(());
    }
    Err(SysError {
        call: "posix_fadvise",
        errno: Errno(code),
    })
}

/// Inode-flag ioctls, which the union hands on to the real file.
pub mod flags {
    /// `FS_IOC_GETFLAGS`, an int out.
    pub const GET_FLAGS: u32 = 0x8008_6601;
    /// `FS_IOC_SETFLAGS`, an int in.
    pub const SET_FLAGS: u32 = 0x4008_6602;
    /// `FS_IOC_FSGETXATTR`, 28 bytes out.
    pub const GET_FSXATTR: u32 = 0x801c_581f;
    /// `FS_IOC_FSSETXATTR`, 28 bytes in.
    pub const SET_FSXATTR: u32 = 0x401c_5820;
    /// `FS_IOC_GETVERSION`, an int out.
    pub const GET_VERSION: u32 = 0x8008_7601;
    /// `FS_TOPDIR_FL`: what is made in this directory has nothing to do with each other.
    pub const TOP_DIR: u32 = 0x0002_0000;

    /// Whether `command` sets flags, or asks for them; `None` for any other.
    pub fn sets(command: u32) -> Option<bool> {
        match command {
            GET_FLAGS | GET_FSXATTR | GET_VERSION => Some(false),
            SET_FLAGS | SET_FSXATTR => Some(true),
            _ => None,
        }
    }
}

/// ioctl(2) of one of [`flags`], with `data` in and out.
pub fn flags_ioctl(fd: &impl AsFd, command: u32, data: &mut [u8; 32]) -> Result<(), SysError> {
    fault::before("ioctl")?;
    // SAFETY: every command of `flags` reads or writes at most 28 bytes.
    check("ioctl", unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            command as libc::Ioctl,
            data.as_mut_ptr(),
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_just_written_is_in_memory_on_tmpfs_too() {
        for dir in [std::env::temp_dir(), "/dev/shm".into()] {
            let mut file = tempfile::tempfile_in(dir).expect("a temporary file");
            file.write_all(&[1; 5000]).expect("room");
            assert!(is_cached(&file, 0, 5000));
            assert!(is_cached(&file, 4096, 0));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_in_memory() {
        let (read, _write) = std::io::pipe().expect("a pipe");
        assert!(!is_cached(&read, 0, 10));
    }
}
