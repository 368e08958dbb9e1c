//! `overlay.nlink`: the link count of an indexed hard link, kept as a difference.
//!
//! `U+n` is relative to the upper inode's own count, `L+n` to the lower inode's
//! (fs/overlayfs/util.c, "ovl_set_nlink_common"). A link or unlink of an upper name
//! changes the upper's count and the union's alike, so at rest the upper is the base.

use crate::error::SysError;
use crate::layer::keys::Keys;
use crate::sys::path::At;
use crate::sys::xattr;

/// What a count is relative to, and that file's own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The upper inode.
    Upper(u32),
    /// The lower inode.
    Lower(u32),
}

fn encode(base: Base, links: u32) -> String {
    let (letter, own) = match base {
        Base::Upper(n) => ('U', n),
        Base::Lower(n) => ('L', n),
    };
    format!("{letter}{:+}", i64::from(links) - i64::from(own))
}

/// The link count that `value` says, `upper` and `lower` being the own counts of the two files.
pub fn decode(value: &[u8], upper: u32, lower: Option<u32>) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?;
    let base = match text.get(..1)? {
        "U" => upper,
        "L" => lower?,
        _ => return None,
    };
    let difference: i64 = text.get(1..)?.parse().ok()?;
    u32::try_from(i64::from(base).checked_add(difference)?).ok()
}

/// The union's link count of the file `at`, whose own is `upper`; `None` where it is
/// not indexed, and so its own count is true.
///
/// # Errors
/// getxattr's.
pub fn read(
    keys: &Keys,
    at: At<'_>,
    upper: u32,
    lower: Option<u32>,
) -> Result<Option<u32>, SysError> {
    let value = xattr::get_optional(at, keys.nlink)?;
    // Relative to a lower file that is not at hand: the entry in the index is no name.
    Ok(value.map(|v| decode(&v, upper, lower).unwrap_or(upper.saturating_sub(1))))
}

/// Whether the count is relative to the lower file (see [`settle`]).
///
/// # Errors
/// getxattr's.
pub fn is_unsettled(keys: &Keys, at: At<'_>) -> Result<bool, SysError> {
    Ok(xattr::get_optional(at, keys.nlink)?.is_some_and(|value| value.starts_with(b"L")))
}

/// A count that is relative to the lower file (whoever was about to give it a name was
/// killed) is made relative to the upper one, as long as the lower file is at hand.
///
/// # Errors
/// Those of reading and recording.
pub fn settle(keys: &Keys, at: At<'_>, upper: u32, lower: u32) -> Result<(), SysError> {
    match xattr::get_optional(at, keys.nlink)? {
        Some(value) if value.starts_with(b"L") => match decode(&value, upper, Some(lower)) {
            Some(links) => write(keys, at, Base::Upper(upper), links),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Records that the indexed file `at` has `links` names.
///
/// # Errors
/// setxattr's.
pub fn write(keys: &Keys, at: At<'_>, base: Base, links: u32) -> Result<(), SysError> {
    xattr::set(at, keys.nlink, encode(base, links).as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_as_the_kernel_keeps_them() {
        assert_eq!(encode(Base::Lower(3), 3), "L+0");
        assert_eq!(encode(Base::Upper(2), 3), "U+1");
        assert_eq!(encode(Base::Upper(2), 1), "U-1");
        for (text, want) in [
            (&b"L+0"[..], Some(3)),
            (b"L-1", Some(2)),
            (b"U+1", Some(3)),
            (b"U-1", Some(1)),
            (b"U-9", None),
            (b"U+9223372036854775807", None),
            (b"L-9223372036854775808", None),
            (b"X+1", None),
            (b"", None),
            (b"U", None),
        ] {
            assert_eq!(decode(text, 2, Some(3)), want, "{}", text.escape_ascii());
        }
        assert_eq!(decode(b"L+0", 2, None), None);
    }
}
