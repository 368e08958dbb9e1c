//! Our extended attributes: which are ours, how they are hidden, and how a user's
//! of the same name are escaped.
//!
//! A user's `trusted.overlay.X` is kept as `trusted.overlay.overlay.X`, as the
//! kernel does (overlayfs.rst, "Nesting overlayfs mounts"), so that a union can be
//! mounted on a union; likewise in the other namespaces.

use super::Layer;
use crate::error::{Errno, SysError};
use std::borrow::Cow;
use std::ffi::CString;

/// Prefixes of attributes that belong to a union, and the word that escapes them.
const PREFIXES: [(&[u8], &[u8]); 3] = [
    (b"trusted.overlay.", b"overlay."),
    (b"user.overlay.", b"overlay."),
    (b"user.fuseoverlayfs.", b"fuseoverlayfs."),
];

fn own_prefix(name: &[u8]) -> Option<(&'static [u8], &'static [u8])> {
    PREFIXES
        .into_iter()
        .find(|(prefix, _)| name.starts_with(prefix))
}

/// A listxattr(2) answer without the names of ACLs.
pub fn without_acls(list: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len());
    for name in names(list).filter(|name| !is_acl(name)) {
        out.extend_from_slice(name);
        out.push(0);
    }
    out
}

/// Whether `name` is that of an ACL.
pub fn is_acl(name: &[u8]) -> bool {
    name.starts_with(ACL)
}

/// The name on disk of what a user calls `name`.
pub fn to_disk(name: &[u8]) -> Cow<'_, [u8]> {
    match own_prefix(name) {
        None => Cow::Borrowed(name),
        Some((prefix, word)) => {
            let rest = name.get(prefix.len()..).unwrap_or_default();
            Cow::Owned([prefix, word, rest].concat())
        }
    }
}

/// What a user calls the attribute `name` on disk; `None` if it is ours.
pub fn to_user(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some((prefix, word)) = own_prefix(name) else {
        return Some(Cow::Borrowed(name));
    };
    let rest = name.get(prefix.len()..)?.strip_prefix(word)?;
    Some(Cow::Owned([prefix, rest].concat()))
}

/// Whether the attribute `name` on disk is ours.
pub fn is_own(name: &[u8]) -> bool {
    to_user(name).is_none()
}

/// What stands before the names of xattrs that a layer keeps beside those of its files' owners,
/// and the word that escapes it.
const BESIDE: (&[u8], &[u8]) = (b"user.containers.override_", b"override_");
const SECURITY: &[u8] = b"security.";
const ACL: &[u8] = b"system.posix_acl_";

/// The names of xattrs in one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Owners are kept in xattrs, and so there are no ACLs.
    keeps: bool,
    /// `security.` ones are kept under a prefix.
    beside: bool,
    /// The xattr that owners are kept in.
    own: &'static [u8],
}

impl Names {
    /// Those in `layer`.
    pub fn of(layer: &Layer) -> Names {
        match &layer.kept {
            None => Names::default(),
            Some(kept) => Names {
                keeps: true,
                beside: kept.prefixes,
                own: kept.key().to_bytes(),
            },
        }
    }

    /// The name on disk of what a user calls `name`.
    pub fn to_disk<'n>(&self, name: &'n [u8]) -> Cow<'n, [u8]> {
        if self.beside {
            if name.starts_with(SECURITY) {
                return Cow::Owned([BESIDE.0, name].concat());
            }
            if let Some(rest) = name.strip_prefix(BESIDE.0) {
                return Cow::Owned([BESIDE.0, BESIDE.1, rest].concat());
            }
        }
        to_disk(name)
    }

    /// The same for a system call.
    ///
    /// # Errors
    /// EINVAL where there is a NUL in it.
    pub fn key(&self, name: &[u8]) -> Result<CString, SysError> {
        CString::new(self.to_disk(name).into_owned()).map_err(|_| SysError {
            call: "setxattr",
            errno: Errno::EINVAL,
        })
    }

    /// Whether `name` may also be found as it is: on a file that was there before its owner was
    /// kept apart.
    pub fn has_two(&self, name: &[u8]) -> bool {
        self.beside && name.starts_with(SECURITY)
    }

    /// Whether a user may not have an xattr of this name.
    pub fn refuses(&self, name: &[u8]) -> bool {
        self.keeps && (name.starts_with(ACL) || name == self.own && !self.beside)
    }

    /// What a user calls the attribute `name` on disk; `None` if it is not for users.
    pub fn to_user<'n>(&self, name: &'n [u8]) -> Option<Cow<'n, [u8]>> {
        if self.refuses(name) {
            return None;
        }
        if self.beside
            && let Some(rest) = name.strip_prefix(BESIDE.0)
        {
            if rest.starts_with(SECURITY) {
                return Some(Cow::Borrowed(rest));
            }
            let own = rest.strip_prefix(BESIDE.1)?;
            return Some(Cow::Owned([BESIDE.0, own].concat()));
        }
        to_user(name)
    }

    /// A listxattr(2) answer as a user may see it.
    pub fn visible(&self, list: &[u8]) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::with_capacity(list.len());
        for name in names(list).filter_map(|name| self.to_user(name)) {
            if self.beside && names(&out).any(|known| known == &*name) {
                continue;
            }
            out.extend_from_slice(&name);
            out.push(0);
        }
        out
    }
}

/// Whose namespace one of our attributes is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// `trusted.overlay.`
    Trusted,
    /// `user.overlay.`
    User,
    /// `user.fuseoverlayfs.`
    FuseOverlayfs,
}

/// The attribute `name` on disk as a namespace and a word, if it is ours.
pub fn split_own(name: &[u8]) -> Option<(Space, &[u8])> {
    if !is_own(name) {
        return None;
    }
    let (prefix, _) = own_prefix(name)?;
    let space = match prefix {
        b"trusted.overlay." => Space::Trusted,
        b"user.overlay." => Space::User,
        _ => Space::FuseOverlayfs,
    };
    Some((space, name.get(prefix.len()..)?))
}

/// The names of a listxattr(2) answer.
pub fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == 0).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_attribute_in_our_namespace_is_escaped_not_lost() {
        for name in [
            &b"user.x"[..],
            b"trusted.overlay.opaque",
            b"user.overlay.overlay.opaque",
            b"user.fuseoverlayfs.opaque",
            b"security.capability",
            b"trusted.overlayx",
        ] {
            let disk = to_disk(name);
            assert!(!is_own(&disk), "{}", disk.escape_ascii());
            assert_eq!(split_own(&disk), None);
            assert_eq!(to_user(&disk).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_ours_is_a_word_in_a_namespace() {
        let trusted = split_own(b"trusted.overlay.opaque");
        assert_eq!(trusted, Some((Space::Trusted, &b"opaque"[..])));
        let user = split_own(b"user.overlay.origin");
        assert_eq!(user, Some((Space::User, &b"origin"[..])));
        let fuse = split_own(b"user.fuseoverlayfs.x");
        assert_eq!(fuse, Some((Space::FuseOverlayfs, &b"x"[..])));
    }

    #[test]
    fn nothing_of_our_own_shows() {
        assert_eq!(
            Names::default().visible(b"user.a\0trusted.overlay.opaque\0user.overlay.overlay.x\0user.fuseoverlayfs.origin\0"),
            b"user.a\0user.overlay.x\0"
        );
    }

    #[test]
    fn security_attributes_are_kept_beside_the_owner_and_shown_as_they_were_set() {
        let names = Names {
            keeps: true,
            beside: true,
            own: b"user.containers.override_stat",
        };
        for name in [
            &b"security.capability"[..],
            b"user.containers.override_stat",
            b"user.containers.override_security.capability",
            b"user.containers.other",
            b"user.x",
            b"trusted.overlay.opaque",
        ] {
            let disk = names.to_disk(name);
            assert_eq!(names.to_user(&disk).as_deref(), Some(name));
        }
        let disk = b"user.containers.override_stat\0user.containers.override_security.a\0\
            security.a\0system.posix_acl_access\0user.b\0";
        assert_eq!(names.visible(disk), b"security.a\0user.b\0");
        assert_eq!(
            &*names.to_disk(b"security.capability"),
            b"user.containers.override_security.capability"
        );
    }
}
