//! The lower layers, looked into name by name.

use crate::error::SysError;
use crate::layer::marks::{is_mark_name, whiteout_file};
use crate::sys::dir::for_each;
use crate::sys::fs::{O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, Stat, open, stat};
use crate::sys::path::At;
use crate::sys::xattr;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// An open directory of a lower layer.
pub(super) struct Below {
    pub(super) fd: OwnedFd,
    /// The mount that it is on: a layer ends where another begins.
    mount: u64,
}

impl Below {
    pub(super) fn new(fd: OwnedFd) -> Below {
        let mount = stat(At::fd(&fd)).map_or(0, |stat| stat.mnt_id);
        Below { fd, mount }
    }
}

/// What the lower layers have for a name.
pub(super) enum Sight {
    Nothing,
    /// A file, in this directory.
    File(usize, Stat),
    /// A directory, and the parts of it that can be read.
    Directory(Vec<Below>),
}

const XATTR_OPAQUE: [&CStr; 3] = [
    c"trusted.overlay.opaque",
    c"user.overlay.opaque",
    c"user.fuseoverlayfs.opaque",
];
const XATTR_WHITEOUT: [&CStr; 2] = [c"trusted.overlay.whiteout", c"user.overlay.whiteout"];
const OPAQUE_FILES: [&[u8]; 2] = [b".wh..wh..opq", b".wh..opq"];

fn exists(dir: &OwnedFd, name: &[u8]) -> bool {
    stat(At::new(dir, name)).is_ok()
}

pub(super) fn is_opaque(dir: &OwnedFd) -> bool {
    let marked = |key: &&CStr| xattr::get(At::fd(dir), key).is_ok_and(|value| value == b"y");
    XATTR_OPAQUE.iter().any(marked) || OPAQUE_FILES.iter().any(|name| exists(dir, name))
}

pub(super) fn is_whiteout(dir: &OwnedFd, name: &[u8], stat: &Stat) -> bool {
    let at = At::new(dir, name);
    let marked = |key: &&CStr| xattr::get(at, key).is_ok();
    stat.is_whiteout_device()
        || (stat.is_file() && stat.size == 0 && XATTR_WHITEOUT.iter().any(marked))
}

/// Opens a directory; one that may be entered but not listed can still be looked into.
pub(super) fn open_dir(at: At<'_>) -> Result<OwnedFd, SysError> {
    let flags = O_DIRECTORY | O_NOFOLLOW;
    open(at, flags | O_RDONLY, 0).or_else(|_| open(at, flags | O_PATH, 0))
}

/// The names in `dir`, sorted.
pub(super) fn entries(dir: &OwnedFd) -> Result<BTreeSet<Vec<u8>>, SysError> {
    let mut all = BTreeSet::new();
    for_each(dir, |entry| {
        all.insert(entry.name.to_vec());
        Ok::<(), SysError>(())
    })?;
    Ok(all)
}

/// What `lowers` have for `name`, top down to the first mark or non-directory.
pub(super) fn sight(lowers: &[Below], name: &[u8]) -> Sight {
    let mut parts = Vec::new();
    let mut is_dir = false;
    for (i, below) in lowers.iter().enumerate() {
        let hidden = whiteout_file(name).is_some_and(|file| exists(&below.fd, &file));
        if let Ok(stat) = stat(At::new(&below.fd, name)) {
            if is_whiteout(&below.fd, name, &stat) {
                break;
            }
            if !stat.is_dir() {
                if !is_dir {
                    return Sight::File(i, stat);
                }
                break;
            }
            is_dir = true;
            if stat.mnt_id != below.mount {
                break;
            }
            if let Ok(fd) = open_dir(At::new(&below.fd, name)) {
                let opaque = is_opaque(&fd);
                parts.push(Below::new(fd));
                if opaque {
                    break;
                }
            }
        }
        if hidden {
            break;
        }
    }
    if is_dir {
        Sight::Directory(parts)
    } else {
        Sight::Nothing
    }
}

/// Every name that `lowers` show.
pub(super) fn visible(lowers: &[Below]) -> BTreeSet<Vec<u8>> {
    lowers
        .iter()
        .filter_map(|below| entries(&below.fd).ok())
        .flatten()
        .filter(|name| !is_mark_name(name))
        .filter(|name| !matches!(sight(lowers, name), Sight::Nothing))
        .collect()
}
