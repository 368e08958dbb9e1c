//! Reading real directories: getdents64(2).

use super::fault;
use super::path::check_len;
use crate::error::SysError;
use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};

/// Types of entries; `DT_UNKNOWN` where the filesystem does not say.
pub use libc::{DT_CHR, DT_DIR, DT_REG, DT_UNKNOWN};

/// One entry of a real directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its name; never `.` or `..`.
    pub name: &'a [u8],
    /// The inode number that the directory has for it.
    pub ino: u64,
    /// `DT_*`; 0 (DT_UNKNOWN) where the filesystem does not say.
    pub kind: u8,
    /// Where the next one is, as the filesystem counts.
    next: i64,
}

/// Nothing can come after an entry that says this of the next one. ext4 says it of each
/// directory's last (EXT4_HTREE_EOF_64BIT in fs/ext4/ext4.h), and then takes as long to
/// answer that nothing is left as it takes to open a file.
const END: i64 = i64::MAX;

/// Bytes that are read at once.
const ROOM: usize = 64 * 1024;

thread_local! {
    /// Room for entries, so that none has to be zeroed for each directory.
    static SPARE: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// Goes back to the first entry of `fd`, which was read before.
///
/// # Errors
/// lseek's.
pub fn rewind(fd: &OwnedFd) -> Result<(), SysError> {
    super::io::seek(fd, 0, libc::SEEK_SET).map(drop)
}

/// Calls `each` for every entry of `fd` but `.` and `..`, from where it is.
///
/// # Errors
/// getdents64's, or whatever `each` answers first.
pub fn for_each<E: From<SysError>>(
    fd: &OwnedFd,
    each: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut buf = SPARE.take().unwrap_or_else(|| vec![0; ROOM]);
    let outcome = read_all(fd, &mut buf, each);
    SPARE.set(Some(buf));
    outcome
}

fn read_all<E: From<SysError>>(
    fd: &OwnedFd,
    buf: &mut [u8],
    mut each: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        fault::before("getdents64")?;
        // SAFETY: `buf` is writable for its length.
        let n = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                fd.as_raw_fd(),
                buf.as_mut_ptr(),
                buf.len(),
            )
        };
        let n = check_len("getdents64", n as libc::ssize_t)?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = buf.get(..n).unwrap_or_default();
        let mut next = 0;
        while let Some((entry, len)) = parse(rest) {
            next = entry.next;
            if entry.name != b"." && entry.name != b".." {
                each(entry)?;
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        if next == END {
            return Ok(());
        }
    }
}

/// `struct linux_dirent64`: ino (8), offset (8), length (2), type (1), name, NUL.
fn parse(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let ino = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
    let next = i64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?);
    let len = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?));
    let kind = *bytes.get(18)?;
    let name = bytes.get(19..len)?;
    let end = name.iter().position(|&b| b == 0)?;
    Some((
        Entry {
            name: name.get(..end)?,
            ino,
            kind,
            next,
        },
        len,
    ))
}
