//! `overlay.filling`: what an upper file was before its data came into it. Writing changes the
//! time of modification, and takes away capabilities, and setuid and setgid where the writer
//! has no CAP_FSETID (`file_remove_privs` in fs/inode.c); all of that is put back, and if the
//! daemon ends before, by the next mount.
//!
//! ```text
//! 0           8             12                   16         20
//! | seconds   | nanoseconds | mount that fills   | mode     | security.capability, if any
//! ```
//!
//! Numbers are little-endian.

use super::Layer;
use crate::error::{Errno, SysError};
use crate::sys::fs::{self, SetTime, Stat, Time};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;

const CAPABILITY: &CStr = c"security.capability";

const SET_IDS: u32 = 0o6000;

/// What an upper file is of which nobody is to notice that it is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfilled {
    /// Its time of modification.
    pub mtime: Time,
    /// Its type and mode on the disk.
    pub mode: u32,
    /// The value of `security.capability`.
    pub capability: Option<Vec<u8>>,
}

impl Unfilled {
    /// The upper file at `at`, which `stat` describes; one that is `harmless` has no capability.
    ///
    /// # Errors
    /// getxattr's.
    pub fn of(at: At<'_>, stat: &Stat, harmless: bool) -> Result<Unfilled, SysError> {
        Ok(Unfilled {
            mtime: stat.mtime,
            mode: stat.mode,
            capability: match harmless {
                true => None,
                false => xattr::get_optional(at, CAPABILITY)?,
            },
        })
    }

    /// Gives the file at `at` what writing to it took away, its time of modification, and `atime`.
    ///
    /// # Errors
    /// chmod's, setxattr's and utimensat's.
    pub fn put_back(&self, at: At<'_>, atime: SetTime) -> Result<(), SysError> {
        let now = fs::stat(at)?;
        // Whoever changed the rest of it meanwhile meant what he did.
        if now.mode != self.mode && now.mode | SET_IDS == self.mode | SET_IDS {
            fs::chmod(at, self.mode & 0o7777)?;
        }
        if let Some(value) = &self.capability
            && xattr::get_optional(at, CAPABILITY)?.is_none()
        {
            xattr::set(at, CAPABILITY, value, 0)?;
        }
        fs::utimens(at, atime, SetTime::To(self.mtime))
    }

    fn encode(&self, mount: u32) -> Vec<u8> {
        let mut note = Vec::with_capacity(64);
        note.extend(self.mtime.sec.to_le_bytes());
        note.extend(self.mtime.nsec.to_le_bytes());
        note.extend(mount.to_le_bytes());
        note.extend(self.mode.to_le_bytes());
        note.extend(self.capability.as_deref().unwrap_or_default());
        note
    }

    fn decode(note: &[u8]) -> Option<(Unfilled, u32)> {
        let (sec, rest) = note.split_first_chunk()?;
        let (nsec, rest) = rest.split_first_chunk()?;
        let (mount, rest) = rest.split_first_chunk()?;
        let (mode, capability) = rest.split_first_chunk()?;
        let was = Unfilled {
            mtime: Time {
                sec: i64::from_le_bytes(*sec),
                nsec: u32::from_le_bytes(*nsec),
            },
            mode: u32::from_le_bytes(*mode),
            capability: (!capability.is_empty()).then(|| capability.to_vec()),
        };
        Some((was, u32::from_le_bytes(*mount)))
    }
}

impl Layer {
    /// Notes in the upper file at `at`, to which data is about to come, what it `was`, and
    /// `mount`, which tells this mount from others.
    ///
    /// # Errors
    /// setxattr's.
    pub fn note_filling(&self, at: At<'_>, was: &Unfilled, mount: u32) -> Result<(), SysError> {
        xattr::set(at, self.keys().filling, &was.encode(mount), 0)
    }

    /// What [`Layer::note_filling`] noted, and in which mount.
    ///
    /// # Errors
    /// getxattr's.
    pub fn noted_filling(&self, at: At<'_>) -> Result<Option<(Unfilled, u32)>, SysError> {
        let note = xattr::get_optional(at, self.keys().filling)?;
        Ok(note.as_deref().and_then(Unfilled::decode))
    }

    /// Takes that note back.
    ///
    /// # Errors
    /// removexattr's.
    pub fn forget_filling(&self, at: At<'_>) -> Result<(), SysError> {
        match xattr::remove(at, self.keys().filling) {
            Err(e) if e.errno == Errno::ENODATA => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_being_written() {
        for capability in [None, Some(vec![1, 0, 0, 2, 0])] {
            let was = Unfilled {
                mtime: Time {
                    sec: -3,
                    nsec: 999_999_999,
                },
                mode: 0o104_755,
                capability,
            };
            assert_eq!(Unfilled::decode(&was.encode(77)), Some((was, 77)));
        }
    }

    #[test]
    fn what_is_too_short_is_no_note() {
        assert_eq!(Unfilled::decode(&[1; 19]), None);
        assert_eq!(Unfilled::decode(b""), None);
    }
}
