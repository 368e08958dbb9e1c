//! `At`: how every real file is named to the kernel, and the C strings for it.

use crate::error::{Errno, SysError};
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// A file named by a directory descriptor and one component of it; with an empty
/// component, the descriptor itself.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The directory, or the file itself.
    pub dir: BorrowedFd<'a>,
    /// One component, or nothing.
    pub name: &'a [u8],
}

impl<'a> At<'a> {
    /// `name` in `dir`.
    pub fn new(dir: &'a impl AsFd, name: &'a [u8]) -> At<'a> {
        At {
            dir: dir.as_fd(),
            name,
        }
    }

    /// The file that `fd` is open on.
    pub fn fd(fd: &'a impl AsFd) -> At<'a> {
        At {
            dir: fd.as_fd(),
            name: b"",
        }
    }

    /// The directory that `fd` reaches, though it be open for nothing else: extended attributes
    /// are not to be had of such a descriptor itself.
    pub fn directory(fd: &'a impl AsFd) -> At<'a> {
        At::new(fd, b".")
    }

    /// Whether this is a descriptor alone.
    pub fn is_fd(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether this is the directory that a descriptor reaches.
    pub(super) fn is_directory(&self) -> bool {
        self.name == b"."
    }

    pub(super) fn raw(&self) -> RawFd {
        self.dir.as_raw_fd()
    }
}

/// Room for `/proc/self/fd/N/` and a name of NAME_MAX bytes.
const ROOM: usize = 320;

/// A C string on the stack, so that a request allocates nothing for its names.
pub(super) struct CBuf {
    bytes: [u8; ROOM],
    len: usize,
}

impl CBuf {
    /// `name` as a C string; ENAMETOOLONG or EINVAL where it cannot be one.
    pub(super) fn name(call: &'static str, name: &[u8]) -> Result<CBuf, SysError> {
        let mut buf = CBuf {
            bytes: [0; ROOM],
            len: 0,
        };
        buf.push(call, name)?;
        Ok(buf)
    }

    /// The path that reaches `at` through /proc, for calls which take no descriptor.
    pub(super) fn proc_path(call: &'static str, at: At<'_>) -> Result<CBuf, SysError> {
        let mut buf = CBuf {
            bytes: [0; ROOM],
            len: 0,
        };
        let mut rest: &mut [u8] = &mut buf.bytes;
        let before = rest.len();
        let written = if at.is_fd() {
            write!(rest, "/proc/self/fd/{}", at.raw())
        } else {
            write!(rest, "/proc/self/fd/{}/", at.raw())
        };
        let left = rest.len();
        written.map_err(|_| SysError {
            call,
            errno: Errno::ENAMETOOLONG,
        })?;
        buf.len = before - left;
        buf.push(call, at.name)?;
        Ok(buf)
    }

    fn push(&mut self, call: &'static str, part: &[u8]) -> Result<(), SysError> {
        let fail = |errno| SysError { call, errno };
        if part.contains(&0) {
            return Err(fail(Errno::EINVAL));
        }
        let end = self.len + part.len();
        let room = self
            .bytes
            .get_mut(self.len..end)
            .filter(|_| end < ROOM)
            .ok_or(fail(Errno::ENAMETOOLONG))?;
        room.copy_from_slice(part);
        self.len = end;
        Ok(())
    }

    pub(super) fn as_ptr(&self) -> *const libc::c_char {
        self.bytes.as_ptr().cast()
    }
}

/// `bytes` as an owned C string, for the paths that users give.
pub(super) fn c_path(
    call: &'static str,
    path: &std::path::Path,
) -> Result<std::ffi::CString, SysError> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| SysError {
        call,
        errno: Errno::EINVAL,
    })
}

/// Turns a libc status into a `Result`.
pub(super) fn check(call: &'static str, status: libc::c_int) -> Result<libc::c_int, SysError> {
    if status < 0 {
        Err(SysError::last(call))
    } else {
        Ok(status)
    }
}

/// Turns a libc byte count into a `Result`.
pub(super) fn check_len(call: &'static str, status: libc::ssize_t) -> Result<usize, SysError> {
    usize::try_from(status).map_err(|_| SysError::last(call))
}

pub(super) const EMPTY: &CStr = c"";
