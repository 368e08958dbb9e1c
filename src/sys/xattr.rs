//! Extended attributes. No *at calls existed before 6.13, so all go through /proc.

use super::fault;
use super::path::{At, CBuf, check, check_len};
use crate::error::{Errno, SysError};
use std::ffi::CStr;

pub use libc::{XATTR_CREATE, XATTR_REPLACE};

/// Values may not be longer than this (XATTR_SIZE_MAX).
const VALUE_MAX: usize = 65536;

/// Calls `ask` with growing room until the answer fits.
fn grow(mut ask: impl FnMut(&mut [u8]) -> Result<usize, SysError>) -> Result<Vec<u8>, SysError> {
    let mut small = [0u8; 256];
    match ask(&mut small) {
        Ok(n) => return Ok(small.get(..n).unwrap_or_default().to_vec()),
        Err(e) if e.errno == Errno::ERANGE => {}
        Err(e) => return Err(e),
    }
    let mut big = vec![0u8; VALUE_MAX];
    let n = ask(&mut big)?;
    big.truncate(n);
    Ok(big)
}

/// A descriptor reached through /proc must be followed; a name must not.
fn follows(at: At<'_>) -> bool {
    at.is_fd()
}

/// The value of `name` on `at`; ENODATA where there is none.
pub fn get(at: At<'_>, name: &CStr) -> Result<Vec<u8>, SysError> {
    let path = CBuf::proc_path("getxattr", at)?;
    grow(|room| {
        let (value, len) = (room.as_mut_ptr().cast(), room.len());
        fault::before("getxattr")?;
        // SAFETY: both strings are NUL-terminated, `value` has room for `len` bytes.
        let n = unsafe {
            if follows(at) {
                libc::getxattr(path.as_ptr(), name.as_ptr(), value, len)
            } else {
                libc::lgetxattr(path.as_ptr(), name.as_ptr(), value, len)
            }
        };
        check_len("getxattr", n)
    })
}

/// The value of `name` on `at`, or `None` where there is none or the filesystem has none.
pub fn get_optional(at: At<'_>, name: &CStr) -> Result<Option<Vec<u8>>, SysError> {
    match get(at, name) {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.errno, Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// All names on `at`, each ended by NUL, as listxattr(2) gives them.
pub fn list(at: At<'_>) -> Result<Vec<u8>, SysError> {
    let path = CBuf::proc_path("listxattr", at)?;
    grow(|room| {
        let (names, len) = (room.as_mut_ptr().cast(), room.len());
        fault::before("listxattr")?;
        // SAFETY: `path` is NUL-terminated, `names` has room for `len` bytes.
        let n = unsafe {
            if follows(at) {
                libc::listxattr(path.as_ptr(), names, len)
            } else {
                libc::llistxattr(path.as_ptr(), names, len)
            }
        };
        check_len("listxattr", n)
    })
}

/// Sets `name` on `at`, with XATTR_CREATE or XATTR_REPLACE in `flags`, or 0.
pub fn set(at: At<'_>, name: &CStr, value: &[u8], flags: i32) -> Result<(), SysError> {
    let path = CBuf::proc_path("setxattr", at)?;
    let (data, len) = (value.as_ptr().cast(), value.len());
    fault::before("setxattr")?;
    // SAFETY: both strings are NUL-terminated, `data` is readable for `len` bytes.
    let status = unsafe {
        if follows(at) {
            libc::setxattr(path.as_ptr(), name.as_ptr(), data, len, flags)
        } else {
            libc::lsetxattr(path.as_ptr(), name.as_ptr(), data, len, flags)
        }
    };
    check("setxattr", status).map(drop)
}

/// Removes `name` from `at`.
pub fn remove(at: At<'_>, name: &CStr) -> Result<(), SysError> {
    let path = CBuf::proc_path("removexattr", at)?;
    fault::before("removexattr")?;
    // SAFETY: both strings are NUL-terminated.
    let status = unsafe {
        if follows(at) {
            libc::removexattr(path.as_ptr(), name.as_ptr())
        } else {
            libc::lremovexattr(path.as_ptr(), name.as_ptr())
        }
    };
    check("removexattr", status).map(drop)
}
