//! Origins: the kernel's record of which lower file an upper file came from.
//!
//! `overlay.origin` of a copied-up file, and (in hexadecimal) the name of an index
//! entry, hold this (`struct ovl_fb` in fs/overlayfs/overlayfs.h):
//!
//! ```text
//! | 0 version | 0xfb magic | length | flags | handle type | 16 bytes UUID | file handle |
//! ```

use super::Layer;
use crate::error::{Errno, SysError};
use crate::sys::fs;
use crate::sys::magic;
use crate::sys::path::At;

const MAGIC: u8 = 0xfb;
const HEAD: usize = 21;
/// Bit 0 of the flags: the handle was made on a big-endian machine.
const FLAGS: u8 = if cfg!(target_endian = "big") { 1 } else { 0 };

/// An encoded origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(Vec<u8>);

impl Origin {
    /// The origin that a copy of the file at `at` in `layer` carries; `None` where its
    /// filesystem has no handles, or we may not ask.
    ///
    /// # Errors
    /// name_to_handle_at's.
    pub fn of(layer: &Layer, at: At<'_>) -> Result<Option<Origin>, SysError> {
        let handle = match fs::file_handle(at) {
            Err(e)
                if matches!(
                    e.errno,
                    Errno::EOPNOTSUPP | Errno::EOVERFLOW | Errno::EPERM | Errno::ENOSYS
                ) =>
            {
                return Ok(None);
            }
            other => other?,
        };
        let length = (HEAD + handle.bytes.len()) as u8;
        let mut out = vec![0, MAGIC, length, FLAGS, handle.kind];
        out.extend_from_slice(&layer.caps.uuid);
        out.extend_from_slice(&handle.bytes);
        Ok(Some(Origin(out)))
    }

    /// An origin as the xattr has it; `None` where it is not one.
    pub fn from_disk(bytes: Vec<u8>) -> Option<Origin> {
        let length = usize::from(*bytes.get(2)?);
        (bytes.starts_with(&[0, MAGIC]) && length == bytes.len() && length > HEAD)
            .then_some(Origin(bytes))
    }

    /// As the xattr has it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The file handle, as name_to_handle_at(2) gave it.
    pub fn handle(&self) -> fs::FileHandle {
        fs::FileHandle {
            kind: self.0.get(4).copied().unwrap_or_default(),
            bytes: self.0.get(HEAD..).unwrap_or_default().to_vec(),
        }
    }

    /// The origin whose index entry is called `name`.
    pub fn from_index_name(name: &[u8]) -> Option<Origin> {
        let digits = std::str::from_utf8(name).ok()?;
        let bytes = name
            .chunks(2)
            .enumerate()
            .map(|(i, _)| u8::from_str_radix(digits.get(i * 2..i * 2 + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        Origin::from_disk(bytes)
    }

    /// The name of its index entry.
    pub fn index_name(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|b| format!("{b:02x}").into_bytes())
            .collect()
    }

    /// The UUID of the filesystem that it is on.
    pub fn uuid(&self) -> &[u8] {
        self.0.get(5..HEAD).unwrap_or_default()
    }

    /// The inode number within the handle, for the filesystems whose encoding is
    /// known, told by `magic` of statfs(2): a handle can only be opened with
    /// CAP_DAC_READ_SEARCH, and all that is wanted of it here is this number.
    ///
    /// Sources: include/linux/exportfs.h (`enum fid_type`), fs/btrfs/export.h,
    /// mm/shmem.c (`shmem_encode_fh`).
    pub fn inode(&self, magic: i64) -> Option<u64> {
        let kind = *self.0.get(4)?;
        let handle = self.0.get(HEAD..)?;
        let word = |i: usize| -> Option<u64> {
            let bytes = handle.get(i * 4..i * 4 + 4)?;
            Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)))
        };
        match (magic, kind) {
            (magic::EXT4 | magic::XFS | magic::SQUASHFS | magic::EROFS, 1) => word(0),
            (magic::XFS | magic::EROFS, 0x81) | (magic::BTRFS, 0x4d) => {
                Some(word(1)? << 32 | word(0)?)
            }
            (magic::TMPFS, 1) => Some(word(2)? << 32 | word(1)?),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_recognised_and_anything_else_is_not() {
        let mut bytes = vec![0, MAGIC, 29, 0, 1];
        bytes.extend([7; 16]);
        bytes.extend([0x39, 5, 0, 0, 1, 2, 3, 4]);
        let origin = Origin::from_disk(bytes.clone()).unwrap();
        assert_eq!(origin.uuid(), [7; 16]);
        assert_eq!(origin.inode(0xef53), Some(1337));
        assert_eq!(origin.index_name().len(), 58);
        assert!(origin.index_name().starts_with(b"00fb1d0001"));
        let again = Origin::from_index_name(&origin.index_name());
        assert_eq!(again, Some(origin.clone()));
        for bad in [&b""[..], b"00fb", b"x", b"00fb1d000", b"\xff\xff"] {
            assert_eq!(Origin::from_index_name(bad), None);
        }
        for cut in 0..bytes.len() {
            assert_eq!(Origin::from_disk(bytes[..cut].to_vec()), None);
        }
    }
}
