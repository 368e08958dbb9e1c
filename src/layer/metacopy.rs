//! `overlay.metacopy`: a copied-up file that has its own owner, mode, times and xattrs,
//! and the data of the lower file (overlayfs.rst, "Metadata only copy up").
//!
//! The file's size is that of the data, all of it a hole. The value is empty, or begins with
//! four bytes (`struct ovl_metacopy`), of which the last is the algorithm of an fs-verity digest
//! that follows; of those nothing is needed here.
//!
//! A file that has some of its data, while its holes stand for the data of the lower file, says
//! so in the same mark, after an algorithm that is none. This only plyfs reads; whoever does not
//! know it does not take the holes for zeros:
//!
//! ```text
//! 0             1        2         3             4     5                       13
//! | 0 (version) | length | 0 flags | 0 algorithm | '1' | limit, little-endian  | origin
//! ```
//!
//! The limit is the length up to which the holes are the lower file's. The origin is there
//! instead of in `overlay.origin` where the copy was marked when it was made: both together
//! do not fit into an inode of ext4, and each mark outside of it costs as much as all else.

use super::Layer;
use super::handle::Origin;
use super::marks::Hints;
use crate::error::{SysError, best_effort};
use crate::sys::fs::Stat;
use crate::sys::magic;
use crate::sys::path::At;
use crate::sys::xattr;

/// Unit of `st_blocks`.
const BLOCK: u64 = 512;

/// `OVL_METACOPY_MIN_SIZE` and `OVL_METACOPY_MAX_SIZE` in fs/overlayfs/overlayfs.h: the kernel
/// reads no other values.
const HEAD: usize = 4;
const MAX: usize = HEAD + 64;
const ALGORITHM: usize = 3;
const VERSION: u8 = b'1';

/// Where the data of an upper or lower file is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// In it.
    All,
    /// In the lower file.
    None,
    /// What is not a hole is in it.
    Some(PartMark),
    /// Something that only a later version understands.
    Unknown,
}

/// What the mark of a partly copied file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartMark {
    /// The holes up to this length are the lower file's.
    pub limit: u64,
    /// The file's origin, if that is in the mark.
    pub origin: Option<Origin>,
}

impl PartMark {
    /// The holes up to `limit` are the lower file's; the origin is told elsewhere.
    pub fn up_to(limit: u64) -> PartMark {
        PartMark {
            limit,
            origin: None,
        }
    }

    /// Whether `origin` can be in a mark.
    pub fn has_room_for(origin: &Origin) -> bool {
        HEAD + 1 + 8 + origin.as_bytes().len() <= MAX
    }

    fn encode(&self) -> Vec<u8> {
        let mut value = vec![0, 0, 0, 0, VERSION];
        value.extend(self.limit.to_le_bytes());
        value.extend(self.origin.iter().flat_map(Origin::as_bytes));
        let length = value.len() as u8;
        if let Some(byte) = value.get_mut(1) {
            *byte = length;
        }
        value
    }
}

impl Share {
    /// Whether it is only a part.
    pub fn is_partial(&self) -> bool {
        matches!(self, Share::Some(_) | Share::Unknown)
    }

    /// What the value of `overlay.metacopy` says.
    fn decode(value: &[u8]) -> Share {
        if value.len() <= HEAD || value.get(ALGORITHM) != Some(&0) {
            return Share::None;
        }
        let mark = || {
            let (head, rest) = value.split_first_chunk::<{ HEAD + 1 }>()?;
            let (limit, origin) = rest.split_first_chunk()?;
            let known = *head == [0, value.len() as u8, 0, 0, VERSION];
            let origin = match origin {
                [] => None,
                bytes => Some(Origin::from_disk(bytes.to_vec())?),
            };
            known.then_some(PartMark {
                limit: u64::from_le_bytes(*limit),
                origin,
            })
        };
        mark().map_or(Share::Unknown, Share::Some)
    }
}

impl Layer {
    /// Whether the file that `stat` describes, in directory `dir` of this layer, could have
    /// its data elsewhere: it has holes, or lost its size in a power cut, or its directory is marked as holding
    /// copied-up files.
    pub fn may_be_metacopy(&self, dir: At<'_>, hints: &Hints, stat: &Stat) -> bool {
        let has_no_size = stat.size == 0 && self.is_upper && self.logs_files_apart();
        stat.is_file() && (self.has_holes(stat) || has_no_size || self.is_impure(dir, hints))
    }

    /// Whether the file that `stat` describes takes less room than its data would.
    pub fn has_holes(&self, stat: &Stat) -> bool {
        stat.blocks * BLOCK < stat.size
    }

    fn is_impure(&self, dir: At<'_>, hints: &Hints) -> bool {
        if !self.caps.xattrs {
            return false;
        }
        if let Some(yes) = hints.impure.get() {
            return yes;
        }
        let found = xattr::get_optional(dir, self.keys().impure);
        let yes = !matches!(found, Ok(None));
        hints.impure.found(yes);
        yes
    }

    /// How much of its data the file at `at` has.
    ///
    /// # Errors
    /// getxattr's.
    pub fn share_of(&self, at: At<'_>) -> Result<Share, SysError> {
        if !self.caps.xattrs {
            return Ok(Share::All);
        }
        let value = xattr::get_optional(at, self.keys().metacopy)?;
        Ok(value.map_or(Share::All, |value| Share::decode(&value)))
    }

    /// Whether this upper's filesystem brings a file that is synced to the disk apart from
    /// what else was changed before it, as btrfs does with its log tree. After a power cut
    /// it may then show a file that was never synced by its name, without data and size:
    /// what was synced in its directory has brought the name along (LOG_INODE_EXISTS in
    /// fs/btrfs/tree-log.c).
    pub fn logs_files_apart(&self) -> bool {
        self.caps.magic == magic::BTRFS
    }

    /// Says that the data of the upper file at `at` is the lower one's.
    ///
    /// # Errors
    /// setxattr's.
    pub fn mark_metacopy(&self, at: At<'_>) -> Result<(), SysError> {
        xattr::set(at, self.keys().metacopy, b"", 0)
    }

    /// Says that the upper file at `at` has its own data.
    ///
    /// # Errors
    /// removexattr's.
    pub fn unmark_metacopy(&self, at: At<'_>) -> Result<(), SysError> {
        xattr::remove(at, self.keys().metacopy)
    }

    /// Says of the upper file at `at` that it is partly copied, as `mark` has it.
    ///
    /// # Errors
    /// setxattr's.
    pub fn mark_partial(&self, at: At<'_>, mark: &PartMark) -> Result<(), SysError> {
        xattr::set(at, self.keys().metacopy, &mark.encode(), 0)
    }

    /// Says that the upper file at `at`, whose mark was `mark`, has all of its data, and where
    /// it came from. Between the two its number is not told on the disk: whoever may look at
    /// it meanwhile has to know it.
    ///
    /// # Errors
    /// removexattr's and setxattr's; the file is marked as before then.
    pub fn unmark_partial(&self, at: At<'_>, mark: &PartMark) -> Result<(), SysError> {
        self.unmark_metacopy(at)?;
        let Some(origin) = &mark.origin else {
            return Ok(());
        };
        let recorded = xattr::set(at, self.keys().origin, origin.as_bytes(), 0);
        if recorded.is_err() {
            best_effort("mark a file again", self.mark_partial(at, mark));
        }
        recorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(len: u8) -> Origin {
        let mut bytes = vec![7; usize::from(len)];
        bytes[..4].copy_from_slice(&[0, 0xfb, len, 0]);
        Origin::from_disk(bytes).unwrap()
    }

    #[test]
    fn a_mark_says_what_was_written() {
        for origin in [None, Some(origin(29)), Some(origin(55))] {
            let mark = PartMark {
                limit: 0x0102_0304_0506_0708,
                origin,
            };
            let value = mark.encode();
            assert!(mark.origin.iter().all(PartMark::has_room_for));
            assert!(value.len() <= MAX && usize::from(value[1]) == value.len());
            assert_eq!(Share::decode(&value), Share::Some(mark));
        }
        assert!(!PartMark::has_room_for(&origin(56)));
    }

    #[test]
    fn what_the_kernel_writes_is_no_part() {
        let digest = [&[0, 36, 0, 1][..], &[9; 32]].concat();
        for value in [&b""[..], &[0, 4, 0, 0], &digest] {
            assert_eq!(Share::decode(value), Share::None);
        }
    }

    #[test]
    fn what_is_not_understood_is_not_taken_for_anything_else() {
        let value = PartMark {
            limit: 5,
            origin: Some(origin(29)),
        }
        .encode();
        for cut in HEAD + 1..value.len() {
            assert_eq!(Share::decode(&value[..cut]), Share::Unknown, "{cut}");
        }
        for at in [0, 1, 2, HEAD] {
            let mut other = value.clone();
            other[at] ^= 1;
            assert_eq!(Share::decode(&other), Share::Unknown, "{at}");
        }
    }
}
