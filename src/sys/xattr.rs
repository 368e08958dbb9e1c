//! Extended attributes: by directory and name where the kernel can (Linux 6.13), else
//! through /proc, which costs a walk of four more components.

use super::fault;
use super::path::{At, CBuf, check_len};
use crate::error::{Errno, SysError};
use libc::{c_char, c_int, c_long};
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// The numbers of the calls, the same on every architecture (include/uapi/asm-generic/unistd.h).
const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;

/// `struct xattr_args` of include/uapi/linux/xattr.h.
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

impl XattrArgs {
    fn new(value: *const u8, size: usize, flags: i32) -> XattrArgs {
        XattrArgs {
            value: value.addr() as u64,
            size: size as u32,
            flags: flags as u32,
        }
    }
}

/// Whether the kernel has the calls that take a directory and a name.
static HAS_AT: AtomicBool = AtomicBool::new(true);

/// What the calls by directory and name say where only /proc reaches the file, or where
/// a filter knows nothing of them.
fn must_go_by_proc(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOTDIR | Errno::EACCES | Errno::EBADF | Errno::EPERM | Errno::ENOSYS
    )
}

/// Makes the call `call` for the file `at`: `by_name(name, flags)` in its directory, else
/// `by_path(path, follow)` through /proc.
fn reach(
    call: &'static str,
    at: At<'_>,
    mut by_name: impl FnMut(*const c_char, c_int) -> c_long,
    by_path: impl FnOnce(*const c_char, bool) -> c_long,
) -> Result<usize, SysError> {
    fault::before(call)?;
    // The second for a directory that is open for nothing but reaching what is in it.
    const ITSELF: [(&CStr, c_int); 2] = [(c"", libc::AT_EMPTY_PATH), (c".", 0)];
    if HAS_AT.load(Ordering::Relaxed) {
        let mut outcome = Ok(0);
        if at.is_fd() {
            for (name, flags) in ITSELF {
                outcome = check_long(call, by_name(name.as_ptr(), flags));
                if !outcome.is_err_and(|e| must_go_by_proc(e.errno)) {
                    return outcome;
                }
            }
        } else {
            let name = CBuf::name(call, at.name)?;
            outcome = check_long(call, by_name(name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW));
        }
        match outcome {
            Err(e) if e.errno == Errno::ENOSYS => HAS_AT.store(false, Ordering::Relaxed),
            Err(e) if must_go_by_proc(e.errno) => {}
            other => return other,
        }
    }
    // A descriptor reached through /proc must be followed, and then nobody asks whether the
    // directory may be searched; a name must not.
    let at = if at.is_directory() {
        At::fd(&at.dir)
    } else {
        at
    };
    let path = CBuf::proc_path(call, at)?;
    check_long(call, by_path(path.as_ptr(), at.is_fd()))
}

fn check_long(call: &'static str, status: c_long) -> Result<usize, SysError> {
    check_len(call, status as isize)
}

/// The value of `name` on `at`; ENODATA where there is none.
pub fn get(at: At<'_>, name: &CStr) -> Result<Vec<u8>, SysError> {
    grow(|room| {
        let (value, len) = (room.as_mut_ptr(), room.len());
        let args = XattrArgs::new(value, len, 0);
        let by_name = |file: *const c_char, flags: c_int| {
            // SAFETY: the strings are NUL-terminated, `args` is one xattr_args whose value
            // has room for `len` bytes.
            unsafe {
                libc::syscall(
                    GETXATTRAT,
                    at.raw(),
                    file,
                    flags,
                    name.as_ptr(),
                    &raw const args,
                    size_of::<XattrArgs>(),
                )
            }
        };
        let by_path = |path: *const c_char, follow: bool| {
            let call = if follow {
                libc::getxattr
            } else {
                libc::lgetxattr
            };
            // SAFETY: both strings are NUL-terminated, `value` has room for `len` bytes.
            unsafe { call(path, name.as_ptr(), value.cast(), len) as c_long }
        };
        reach("getxattr", at, by_name, by_path)
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
    grow(|room| {
        let (names, len) = (room.as_mut_ptr().cast::<c_char>(), room.len());
        let by_name = |file: *const c_char, flags: c_int| {
            // SAFETY: `file` is NUL-terminated, `names` has room for `len` bytes.
            unsafe { libc::syscall(LISTXATTRAT, at.raw(), file, flags, names, len) }
        };
        let by_path = |path: *const c_char, follow: bool| {
            let call = if follow {
                libc::listxattr
            } else {
                libc::llistxattr
            };
            // SAFETY: `path` is NUL-terminated, `names` has room for `len` bytes.
            unsafe { call(path, names, len) as c_long }
        };
        reach("listxattr", at, by_name, by_path)
    })
}

/// Sets `name` on `at`, with XATTR_CREATE or XATTR_REPLACE in `flags`, or 0.
pub fn set(at: At<'_>, name: &CStr, value: &[u8], flags: i32) -> Result<(), SysError> {
    let args = XattrArgs::new(value.as_ptr(), value.len(), flags);
    let by_name = |file: *const c_char, at_flags: c_int| {
        // SAFETY: the strings are NUL-terminated, `args` is one xattr_args whose value is
        // readable for its length.
        unsafe {
            libc::syscall(
                SETXATTRAT,
                at.raw(),
                file,
                at_flags,
                name.as_ptr(),
                &raw const args,
                size_of::<XattrArgs>(),
            )
        }
    };
    let by_path = |path: *const c_char, follow: bool| {
        let call = if follow {
            libc::setxattr
        } else {
            libc::lsetxattr
        };
        let (data, len) = (value.as_ptr().cast(), value.len());
        // SAFETY: both strings are NUL-terminated, `data` is readable for `len` bytes.
        c_long::from(unsafe { call(path, name.as_ptr(), data, len, flags) })
    };
    reach("setxattr", at, by_name, by_path).map(drop)
}

/// Removes `name` from `at`.
pub fn remove(at: At<'_>, name: &CStr) -> Result<(), SysError> {
    let by_name = |file: *const c_char, flags: c_int| {
        // SAFETY: both strings are NUL-terminated.
        unsafe { libc::syscall(REMOVEXATTRAT, at.raw(), file, flags, name.as_ptr()) }
    };
    let by_path = |path: *const c_char, follow: bool| {
        let call = if follow {
            libc::removexattr
        } else {
            libc::lremovexattr
        };
        // SAFETY: both strings are NUL-terminated.
        c_long::from(unsafe { call(path, name.as_ptr()) })
    };
    reach("removexattr", at, by_name, by_path).map(drop)
}
