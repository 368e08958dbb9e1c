//! POSIX ACLs as xattrs hold them: what a new file takes from its directory, and the ids in
//! them.
//!
//! A file that replaces a whiteout is made in work first, where the filesystem
//! cannot let it inherit from the directory that it will be in. The rule is that of
//! acl(5), "OBJECT CREATION AND DEFAULT ACLs"; the layout that of
//! include/uapi/linux/posix_acl_xattr.h:
//!
//! ```text
//! | version 2 (4 bytes) | tag (2) permissions (2) id (4) | … |   little-endian
//! ```

const HEAD: usize = 4;
const ENTRY: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What a new file gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The permission bits.
    pub mode: u32,
    /// The access ACL, where the mode alone does not say it all.
    pub access: Option<Vec<u8>>,
}

/// What a file that is created with `mode` in a directory with the default ACL
/// `default` gets; `None` where `default` is not an ACL.
pub fn inherit(default: &[u8], mode: u32) -> Option<Inherited> {
    let mut acl = default.to_vec();
    let (head, entries) = acl.split_at_mut_checked(HEAD)?;
    if head != [2, 0, 0, 0] || entries.is_empty() || entries.len() % ENTRY != 0 {
        return None;
    }
    let tag = |e: &[u8]| Some(u16::from_le_bytes(e.get(..2)?.try_into().ok()?));
    let has = |wanted| entries.chunks_exact(ENTRY).any(|e| tag(e) == Some(wanted));
    let class = if has(MASK) { MASK } else { GROUP_OBJ };
    let mut bits = mode;
    let mut extended = false;
    for entry in entries.chunks_exact_mut(ENTRY) {
        let shift = match tag(entry)? {
            USER_OBJ => 6,
            OTHER => 0,
            t if t == class => {
                extended |= t == MASK;
                3
            }
            t => {
                extended |= t != GROUP_OBJ;
                continue;
            }
        };
        let permissions = entry.get_mut(2)?;
        *permissions &= (mode >> shift) as u8 & 7;
        bits = bits & !(7 << shift) | u32::from(*permissions) << shift;
    }
    Some(Inherited {
        mode: bits,
        access: extended.then_some(acl),
    })
}

/// Replaces the ids in `acl` by what `user` and `group` make of them; `None` where `acl` is
/// not an ACL, or where one of them knows an id not.
pub fn with_ids(
    acl: &[u8],
    user: impl Fn(u32) -> Option<u32>,
    group: impl Fn(u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    let mut out = acl.to_vec();
    let (head, entries) = out.split_at_mut_checked(HEAD)?;
    if head != [2, 0, 0, 0] || entries.len() % ENTRY != 0 {
        return None;
    }
    for entry in entries.chunks_exact_mut(ENTRY) {
        let tag = u16::from_le_bytes(entry.get(..2)?.try_into().ok()?);
        let id = u32::from_le_bytes(entry.get(4..)?.try_into().ok()?);
        let new = match tag {
            USER => user(id)?,
            GROUP => group(id)?,
            _ => continue,
        };
        entry.get_mut(4..)?.copy_from_slice(&new.to_le_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ids_of_named_users_and_groups_are_replaced() {
        let before = acl(&[
            (1, 7, NO_ID),
            (2, 4, 5),
            (4, 5, NO_ID),
            (8, 6, 5),
            (0x20, 0, NO_ID),
        ]);
        let after = acl(&[
            (1, 7, NO_ID),
            (2, 4, 6),
            (4, 5, NO_ID),
            (8, 6, 7),
            (0x20, 0, NO_ID),
        ]);
        let got = with_ids(&before, |id| id.checked_add(1), |id| id.checked_add(2));
        assert_eq!(got, Some(after));
        assert_eq!(with_ids(&before, |_| None, Some), None);
        assert_eq!(with_ids(b"\x02\0", Some, Some), None);
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(permissions.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    }
    const NO_ID: u32 = u32::MAX;

    #[test]
    fn a_default_acl_replaces_the_umask() {
        let plain = acl(&[(1, 7, NO_ID), (4, 5, NO_ID), (0x20, 0, NO_ID)]);
        let got = inherit(&plain, 0o100666).unwrap();
        assert_eq!((got.mode, got.access), (0o100640, None));

        let rich = acl(&[
            (1, 7, NO_ID),
            (2, 7, 1000),
            (4, 5, NO_ID),
            (0x10, 7, NO_ID),
            (0x20, 4, NO_ID),
        ]);
        let got = inherit(&rich, 0o644).unwrap();
        assert_eq!(got.mode, 0o644);
        let want = acl(&[
            (1, 6, NO_ID),
            (2, 7, 1000),
            (4, 5, NO_ID),
            (0x10, 4, NO_ID),
            (0x20, 4, NO_ID),
        ]);
        assert_eq!(got.access, Some(want));
    }

    #[test]
    fn what_is_no_acl_is_not_taken_for_one() {
        for bad in [
            &b""[..],
            b"\x02\0\0\0",
            b"\x01\0\0\0\x01\0\x07\0\0\0\0\0",
            b"\x02\0\0\0\x01",
        ] {
            assert_eq!(inherit(bad, 0o644), None);
        }
    }
}
