//! Looking after an upper that is not mounted: is it sound ([`check`]), and can any
//! overlayfs read it ([`settle`])?
//!
//! This floor lies above `union`, whose resolution of names it uses instead of having one
//! of its own, and beside `fuse`, of which it knows nothing.

pub mod check;
pub mod settle;
pub mod walk;
mod written;

use crate::error::{Errno, MountError};
use std::fmt;
use std::path::{Path, PathBuf};

/// A real file that is named in a message: printable, whatever its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// The file at `below` (relative, or nothing) in `dir`.
    pub fn new(dir: &Path, below: &[u8]) -> Shown {
        use std::os::unix::ffi::OsStrExt;
        let mut path: PathBuf = dir.to_owned();
        if !below.is_empty() {
            path.push(std::ffi::OsStr::from_bytes(below));
        }
        Shown(printable(path.as_os_str().as_bytes()))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `bytes` on one line: control characters, backslashes and what is not UTF-8 as `\xff`.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        out.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02x}")));
    }
    out
}

/// The refusal of a call on `path`.
fn trouble(path: impl fmt::Display, errno: impl Into<Errno>) -> MountError {
    let errno = errno.into();
    let remedy = match errno {
        Errno::EACCES | Errno::EPERM => "run as the owner of the upper, or as root",
        Errno::ENOSPC | Errno::EDQUOT => "make room, and run again",
        Errno::EROFS => "make its filesystem writable, and run again",
        _ => "look at its filesystem, and run again",
    };
    let error = std::io::Error::from_raw_os_error(errno.0);
    MountError::new(path, crate::error::plain(&error), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_on_one_line() {
        assert_eq!(printable(b"a b"), "a b");
        assert_eq!(printable("\u{e4}\n\\".as_bytes()), "\u{e4}\\n\\\\");
        assert_eq!(printable(b"x\xff"), "x\\xff");
        let shown = Shown::new(Path::new("/up"), b"d/x");
        assert_eq!(shown.to_string(), "/up/d/x");
        assert_eq!(Shown::new(Path::new("/up"), b"").to_string(), "/up");
    }
}
