//! The lower layers, looked into name by name.

use crate::error::SysError;
use crate::layer::marks::{is_mark_name, whiteout_file};
use crate::layer::redirect::Redirect;
use crate::sys::dir::{Entry, for_each, rewind};
use crate::sys::fs::{O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, Stat, open, stat};
use crate::sys::path::At;
use crate::sys::xattr;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// How many redirects are followed one after the other, as in the union.
const REDIRECTS_MAX: usize = 512;

/// An open directory of a lower layer.
pub(super) struct Below {
    pub(super) fd: OwnedFd,
    /// The layer's number from the top.
    layer: usize,
    /// The mount that it is on: a layer ends where another begins.
    mount: u64,
    ino: u64,
}

impl Below {
    pub(super) fn new(fd: OwnedFd, layer: usize) -> Below {
        let (mount, ino) = stat(At::fd(&fd)).map_or((0, 0), |stat| (stat.mnt_id, stat.ino));
        Below {
            fd,
            layer,
            mount,
            ino,
        }
    }

    /// The same directory of the same layer.
    pub(super) fn is(&self, other: &Below) -> bool {
        (self.layer, self.mount, self.ino) == (other.layer, other.mount, other.ino)
    }

    /// Whether the two are of one layer.
    pub(super) fn same_layer(&self, other: &Below) -> bool {
        self.layer == other.layer
    }

    /// Whether `dir`, found below this, still belongs to the layer.
    pub(super) fn holds(&self, dir: &OwnedFd) -> bool {
        stat(At::fd(dir)).is_ok_and(|stat| stat.mnt_id == self.mount)
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
const XATTR_REDIRECT: [&CStr; 2] = [c"trusted.overlay.redirect", c"user.overlay.redirect"];
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

/// Shows `act` each entry of `dir`, which may have been read before.
pub(super) fn each_entry(dir: &OwnedFd, mut act: impl FnMut(Entry<'_>)) -> Result<(), SysError> {
    rewind(dir)?;
    for_each(dir, |entry| {
        act(entry);
        Ok(())
    })
}

/// The names in `dir`, sorted.
pub(super) fn entries(dir: &OwnedFd) -> Result<BTreeSet<Vec<u8>>, SysError> {
    let mut all = BTreeSet::new();
    each_entry(dir, |entry| {
        all.insert(entry.name.to_vec());
    })?;
    Ok(all)
}

/// The redirect of a directory. `trusted.` is only read by whom the kernel trusts.
pub(super) fn redirect(dir: &OwnedFd) -> Option<Redirect> {
    XATTR_REDIRECT
        .iter()
        .find_map(|key| xattr::get(At::fd(dir), key).ok())
        .and_then(|value| Redirect::parse(&value))
}

/// All lower layers, whose directories lead to each other by redirects.
pub(super) struct Lowers {
    roots: Vec<Below>,
    follows: bool,
}

impl Lowers {
    pub(super) fn new(roots: Vec<Below>, follows: bool) -> Lowers {
        Lowers { roots, follows }
    }

    pub(super) fn roots(&self) -> &[Below] {
        &self.roots
    }

    /// What `dirs` have for `name`, top down to the first mark or non-directory.
    pub(super) fn sight(&self, dirs: &[Below], name: &[u8]) -> Sight {
        self.sight_through(&dirs.iter().collect::<Vec<_>>(), name, REDIRECTS_MAX)
    }

    fn sight_through(&self, dirs: &[&Below], name: &[u8], redirects: usize) -> Sight {
        let mut parts = Vec::new();
        let mut is_dir = false;
        for (i, below) in dirs.iter().enumerate() {
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
                    let part = Below::new(fd, below.layer);
                    let (opaque, redirect) = (is_opaque(&part.fd), self.redirect_of(&part.fd));
                    parts.push(part);
                    if opaque {
                        break;
                    }
                    if let (Some(to), Some(left)) = (redirect, redirects.checked_sub(1)) {
                        let under = dirs.get(i + 1..).unwrap_or_default();
                        parts.extend(self.follow(&to, under, Some(below.layer), left));
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

    fn redirect_of(&self, dir: &OwnedFd) -> Option<Redirect> {
        redirect(dir).filter(|_| self.follows)
    }

    /// The lower directories that a directory of the upper says it is, if it says so;
    /// `siblings` are the parent's.
    pub(super) fn redirected(&self, upper: &OwnedFd, siblings: &[Below]) -> Option<Vec<Below>> {
        let to = self.redirect_of(upper)?;
        let siblings: Vec<_> = siblings.iter().collect();
        Some(self.follow(&to, &siblings, None, REDIRECTS_MAX))
    }

    /// The directories that a redirect leads to, from `layer` (or the upper) downwards.
    fn follow(
        &self,
        to: &Redirect,
        siblings: &[&Below],
        layer: Option<usize>,
        redirects: usize,
    ) -> Vec<Below> {
        let sight = |dirs: &[&Below], name: &[u8]| match self.sight_through(dirs, name, redirects) {
            Sight::Directory(parts) => parts,
            Sight::Nothing | Sight::File(..) => Vec::new(),
        };
        match to {
            Redirect::Beside(name) => sight(siblings, name),
            Redirect::Path(path) => {
                let Some((first, rest)) = path.split_first() else {
                    return Vec::new();
                };
                let under = |root: &&Below| layer.is_none_or(|layer| root.layer > layer);
                let roots: Vec<_> = self.roots.iter().filter(under).collect();
                rest.iter().fold(sight(&roots, first), |dirs, name| {
                    sight(&dirs.iter().collect::<Vec<_>>(), name)
                })
            }
        }
    }

    /// Every name that `dirs` show.
    pub(super) fn visible(&self, dirs: &[Below]) -> BTreeSet<Vec<u8>> {
        dirs.iter()
            .filter_map(|below| entries(&below.fd).ok())
            .flatten()
            .filter(|name| !is_mark_name(name))
            .filter(|name| !matches!(self.sight(dirs, name), Sight::Nothing))
            .collect()
    }
}
