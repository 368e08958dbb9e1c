//! Our extended attributes: which are ours, how they are hidden, and how a user's
//! of the same name are escaped.
//!
//! A user's `trusted.overlay.X` is kept as `trusted.overlay.overlay.X`, as the
//! kernel does (overlayfs.rst, "Nesting overlayfs mounts"), so that a union can be
//! mounted on a union; likewise in the other namespaces.

use std::borrow::Cow;

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

/// A listxattr(2) answer as a user may see it.
pub fn visible(list: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len());
    for name in names(list).filter_map(to_user) {
        out.extend_from_slice(&name);
        out.push(0);
    }
    out
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
            visible(b"user.a\0trusted.overlay.opaque\0user.overlay.overlay.x\0user.fuseoverlayfs.origin\0"),
            b"user.a\0user.overlay.x\0"
        );
    }
}
