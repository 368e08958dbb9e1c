//! `Name`: one component of a path.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The longest name that any Linux filesystem takes, bytes.
pub const NAME_MAX: usize = 255;

/// One component: not empty, no `/`, no NUL, not `.` or `..`, at most NAME_MAX bytes. A node,
/// its stack and the listing that it is in have the same one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

/// Why bytes are not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// Empty, `.`, `..`, or with `/` or NUL.
    Invalid,
    /// Over [`NAME_MAX`] bytes.
    TooLong,
}

impl Name {
    /// `bytes` as a name.
    pub fn new(bytes: &[u8]) -> Result<Name, BadName> {
        if bytes.len() > NAME_MAX {
            return Err(BadName::TooLong);
        }
        let special = matches!(bytes, b"" | b"." | b"..");
        if special || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(BadName::Invalid);
        }
        Ok(Name(bytes.into()))
    }
}

impl Deref for Name {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_bytes_but_slash_and_nul() {
        for good in [
            &b"a"[..],
            b"...",
            b".a",
            b"\xff\xfe",
            b" ",
            b"\n",
            &[b'x'; 255],
        ] {
            assert_eq!(&*Name::new(good).unwrap(), good);
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert_eq!(Name::new(bad), Err(BadName::Invalid));
        }
        assert_eq!(Name::new(&[b'x'; 256]), Err(BadName::TooLong));
    }
}
