//! The xattrs of a union, as overlayfs names them, in either namespace.
//!
//! Marks that only hide (`opaque`, `whiteout`) are read in both namespaces from a lower
//! layer. What leads elsewhere or claims an identity is believed in one alone: a mount
//! with privilege takes nothing from `user.`, where anybody who owns a file in a layer
//! may write, else such a layer could show another's data under a mode of its own.

use super::Layer;
use crate::sys::fs::{S_IFDIR, S_IFMT, S_IFREG};
use std::ffi::CStr;

/// The names within one namespace.
#[derive(Debug)]
pub struct Keys {
    /// `y`: the directory hides what lies below it; `x`: it holds xattr whiteouts.
    pub opaque: &'static CStr,
    /// Makes an empty file a whiteout, in a directory that is `x`.
    pub whiteout: &'static CStr,
    /// Where the lower content of a renamed file or directory lies.
    pub redirect: &'static CStr,
    /// The file has no data of its own: that of the lower file counts.
    pub metacopy: &'static CStr,
    /// What a file was to which its data is just coming. Only plyfs's.
    pub filling: &'static CStr,
    /// Where an upper file came from.
    pub origin: &'static CStr,
    /// Marks a directory in which some entry has an origin.
    pub impure: &'static CStr,
    /// The link count of an indexed file, relative to the lower or the upper one.
    pub nlink: &'static CStr,
}

/// Those that take privilege to write.
pub const TRUSTED: Keys = Keys {
    opaque: c"trusted.overlay.opaque",
    whiteout: c"trusted.overlay.whiteout",
    redirect: c"trusted.overlay.redirect",
    metacopy: c"trusted.overlay.metacopy",
    filling: c"trusted.overlay.filling",
    origin: c"trusted.overlay.origin",
    impure: c"trusted.overlay.impure",
    nlink: c"trusted.overlay.nlink",
};

/// Those that a file's owner may write.
pub const USER: Keys = Keys {
    opaque: c"user.overlay.opaque",
    whiteout: c"user.overlay.whiteout",
    redirect: c"user.overlay.redirect",
    metacopy: c"user.overlay.metacopy",
    filling: c"user.overlay.filling",
    origin: c"user.overlay.origin",
    impure: c"user.overlay.impure",
    nlink: c"user.overlay.nlink",
};

impl Layer {
    /// The namespace that this mount writes, and the only one in which it believes what
    /// leads elsewhere.
    pub fn keys(&self) -> &'static Keys {
        if self.caps.trusted { &TRUSTED } else { &USER }
    }

    /// The namespaces in which marks that hide are believed: of an upper, the one that
    /// this mount writes, since whoever may write the other one may not steer the mount.
    pub(super) fn hiding_keys(&self) -> &'static [Keys] {
        static BOTH: [Keys; 2] = [TRUSTED, USER];
        match (self.is_upper, self.caps.trusted) {
            (true, true) => &BOTH[..1],
            (true, false) => &BOTH[1..],
            (false, true) => &BOTH,
            (false, false) => &BOTH[1..],
        }
    }

    /// Whether this upper can keep the xattrs of a file of type and mode `mode`: `user.`
    /// ones are for regular files and directories alone (xattr(7)).
    pub fn records_identity(&self, mode: u32) -> bool {
        self.caps.trusted || self.caps.user_xattrs && matches!(mode & S_IFMT, S_IFREG | S_IFDIR)
    }
}
