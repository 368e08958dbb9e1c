//! Hard links: a copied-up file is seen by names that the upper does not have.

use super::below::{Below, Sight, entries, is_whiteout, open_dir, redirect};
use super::search::Search;
use super::{Kind, Walk, child, is_opaque};
use crate::error::{Errno, SysError};
use crate::layer::handle::Origin;
use crate::layer::marks::{is_mark_name, whiteout_file};
use crate::sys::fs::{O_DIRECTORY, O_RDONLY, Stat, open_path, stat, statfs};
use crate::sys::path::At;
use crate::sys::xattr;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

const XATTR_NLINK: [&CStr; 2] = [c"trusted.overlay.nlink", c"user.overlay.nlink"];

/// A file in the index, of which the upper lacks a name.
struct Indexed {
    name: Vec<u8>,
    stat: Stat,
}

/// Lists the names that the upper lacks of files that were changed by another name.
pub(super) fn tell(
    walk: &mut Walk<'_>,
    base: &[u8],
    upper: &OwnedFd,
    index: &Path,
) -> Result<(), SysError> {
    let index = match open_path(index, O_RDONLY | O_DIRECTORY) {
        Ok(index) => index,
        Err(e) if e.errno == Errno::ENOENT => return Ok(()),
        Err(e) => return Err(e),
    };
    let lowers = walk.lowers;
    for root in lowers.roots() {
        let wanted = incomplete(&index, root)?;
        if wanted.is_empty() {
            continue;
        }
        for (path, ino) in Search::new(root, wanted.keys().copied()).names(upper) {
            let Some(indexed) = wanted.get(&ino) else {
                continue;
            };
            let Some((dir, below)) = shown(walk, root, upper, &path) else {
                continue;
            };
            let name = path.last().map(Vec::as_slice).unwrap_or_default();
            let at = At::new(&index, &indexed.name);
            if !walk.same_file((at, &indexed.stat), (&dir, &below), name) {
                let path = path.iter().fold(base.to_vec(), |path, n| child(&path, n));
                walk.tell(Kind::Modified, &path);
            }
        }
    }
    Ok(())
}

/// The files in the index that came from `root` and have names that the upper lacks, by
/// their inode numbers there.
fn incomplete(index: &OwnedFd, root: &Below) -> Result<BTreeMap<u64, Indexed>, SysError> {
    let magic = statfs(&root.fd).map_or(0, |found| found.magic);
    let mut wanted = BTreeMap::new();
    for name in entries(index)? {
        let at = At::new(index, &name);
        let origin = unhex(&name).and_then(Origin::from_disk);
        let Some(ino) = origin.and_then(|origin| origin.inode(magic)) else {
            continue;
        };
        let stat = stat(at)?;
        // One name less than links: the one that there is more is that in the index.
        let is_complete = XATTR_NLINK
            .iter()
            .any(|key| xattr::get(at, key).is_ok_and(|value| value == b"U-1"));
        if !stat.is_dir() && !stat.is_whiteout_device() && !is_complete {
            wanted.insert(ino, Indexed { name, stat });
        }
    }
    Ok(wanted)
}

fn unhex(name: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pairs = name.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

/// The lower file that is seen at `path` through the union, and the directory that it is
/// in; `None` where the upper has the name, or hides it, or another layer does.
fn shown(
    walk: &Walk<'_>,
    root: &Below,
    upper: &OwnedFd,
    path: &[Vec<u8>],
) -> Option<(OwnedFd, Stat)> {
    let (name, dirs) = path.split_last()?;
    let mut above = Some(upper.try_clone().ok()?);
    let mut parts: Option<Vec<Below>> = None;
    for dir in dirs {
        above = match above {
            Some(above) => through(&above, dir)?,
            None => None,
        };
        let parents = parts.as_deref().unwrap_or(walk.lowers.roots());
        let Sight::Directory(next) = walk.lowers.sight(parents, dir) else {
            return None;
        };
        parts = Some(next);
    }
    if let Some(above) = above {
        let marked = whiteout_file(name).is_some_and(|mark| stat(At::new(&above, &mark)).is_ok());
        if marked || is_mark_name(name) || stat(At::new(&above, name)).is_ok() {
            return None;
        }
    }
    let parents = parts.as_deref().unwrap_or(walk.lowers.roots());
    let Sight::File(i, found) = walk.lowers.sight(parents, name) else {
        return None;
    };
    let dir = parents.get(i).filter(|dir| dir.same_layer(root))?;
    Some((dir.fd.try_clone().ok()?, found))
}

/// The upper's directory `name` in `above`, if it has one: `Some(None)` where it has
/// nothing, `None` where it hides what the lowers have.
fn through(above: &OwnedFd, name: &[u8]) -> Option<Option<OwnedFd>> {
    if whiteout_file(name).is_some_and(|mark| stat(At::new(above, &mark)).is_ok()) {
        return None;
    }
    let found = match stat(At::new(above, name)) {
        Ok(found) => found,
        Err(_) => return Some(None),
    };
    if is_whiteout(above, name, &found) || !found.is_dir() {
        return None;
    }
    let dir = open_dir(At::new(above, name)).ok()?;
    let moved = redirect(&dir).is_some();
    (!moved && !is_opaque(&dir)).then_some(Some(dir))
}
