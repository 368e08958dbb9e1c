//! What an upper changes: one line for each name that was added, modified or deleted.
//!
//! The upper is walked side by side with the lower layers. A directory that is in the
//! upper only because something in it changed is no change; nor is a file that was
//! copied up and is as it was.

mod below;
mod links;
mod search;

use crate::config::plan::Redirects;
use crate::error::{Errno, SysError};
use crate::layer::marks::{WHITEOUT_PREFIX, hidden_by_file};
use crate::layer::private::{is_own, names};
use crate::sys::creds::overflow_ids;
use crate::sys::fs::{O_DIRECTORY, O_PATH, O_RDONLY, Stat, open_path, readlink, stat};
use crate::sys::path::At;
use crate::sys::xattr;
use below::{Below, Lowers, Sight, entries, is_opaque, is_whiteout, open_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It is new.
    Added,
    /// Its content or its attributes are new, or it was replaced.
    Modified,
    /// It is gone.
    Deleted,
}

/// One changed name, as seen inside. Sorted by path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute, as seen inside the union.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: Kind,
}

impl Change {
    /// Appends `A path`, `M path` or `D path` and a line feed. Control characters and
    /// backslashes are written as `\ooo`, so that one change is one line.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.kind {
            Kind::Added => b"A ",
            Kind::Modified => b"M ",
            Kind::Deleted => b"D ",
        });
        for &byte in &self.path {
            if byte.is_ascii_control() || byte == b'\\' {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            } else {
                out.push(byte);
            }
        }
        out.push(b'\n');
    }
}

/// An upper and the layers below it.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// Where it is seen inside.
    pub inside: &'a Path,
    /// The upper.
    pub upper: &'a Path,
    /// The lower layers, topmost first.
    pub lowers: &'a [PathBuf],
    /// What the upper's own attributes were before, if it was new; else they are compared
    /// with the topmost lower's.
    pub before: Option<&'a Look>,
    /// Where hard links that were copied up are found by their other names.
    pub index: Option<&'a Path>,
    /// Whether redirects were followed.
    pub redirects: Redirects,
}

/// The attributes of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    mode: u32,
    owner: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Look {
    /// The attributes of the open directory `dir`.
    ///
    /// # Errors
    /// statx's.
    pub fn of(dir: &OwnedFd) -> Result<Look, SysError> {
        let stat = stat(At::fd(dir))?;
        Ok(Look {
            mode: stat.mode,
            owner: (stat.uid, stat.gid),
            xattrs: xattrs(At::fd(dir)),
        })
    }
}

impl Tree<'_> {
    /// Appends all changes, in no particular order.
    ///
    /// # Errors
    /// Where the upper cannot be read.
    pub fn changes(&self, out: &mut Vec<Change>) -> Result<(), SysError> {
        let upper = open_path(self.upper, O_RDONLY | O_DIRECTORY)?;
        let open = |path: &PathBuf| {
            let listed = open_path(path, O_RDONLY | O_DIRECTORY);
            listed
                .or_else(|_| open_path(path, O_PATH | O_DIRECTORY))
                .ok()
        };
        let roots = self
            .lowers
            .iter()
            .enumerate()
            .filter_map(|(layer, path)| Some(Below::new(open(path)?, layer)))
            .collect();
        let lowers = &Lowers::new(roots, self.redirects.follows());
        let path = self.inside.as_os_str().as_bytes();
        let mut walk = Walk {
            out,
            lowers,
            overflow: overflow_ids(),
        };
        let differs = match (self.before, lowers.roots().first()) {
            (Some(before), _) => Look::of(&upper)? != *before,
            (None, Some(top)) => walk.attributes_differ(&upper, &top.fd)?,
            (None, None) => false,
        };
        if differs {
            let path = if path.is_empty() { b"/" } else { path };
            walk.tell(Kind::Modified, path);
        }
        let base = path.strip_suffix(b"/").unwrap_or(path);
        let content = is_opaque(&upper).then_some(&[][..]);
        walk.directory(base, &upper, lowers.roots(), content)?;
        if let Some(index) = self.index {
            links::tell(&mut walk, base, &upper, index)?;
        }
        Ok(())
    }
}

struct Walk<'a> {
    out: &'a mut Vec<Change>,
    lowers: &'a Lowers,
    overflow: (u32, u32),
}

fn child(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}

/// What a directory of the upper has itself.
#[derive(Default)]
struct Own {
    present: BTreeMap<Vec<u8>, Stat>,
    deleted: BTreeSet<Vec<u8>>,
}

impl Own {
    fn of(upper: &OwnedFd) -> Result<Own, SysError> {
        let mut own = Own::default();
        for name in entries(upper)? {
            if name.starts_with(WHITEOUT_PREFIX) {
                own.deleted
                    .extend(hidden_by_file(&name).map(<[u8]>::to_vec));
                continue;
            }
            match stat(At::new(upper, &name)) {
                Ok(stat) if is_whiteout(upper, &name, &stat) => {
                    own.deleted.insert(name);
                }
                Ok(stat) => {
                    own.present.insert(name, stat);
                }
                Err(e) if e.errno == Errno::ENOENT => {}
                Err(e) => return Err(e),
            }
        }
        Ok(own)
    }
}

impl Walk<'_> {
    fn tell(&mut self, kind: Kind, path: &[u8]) {
        self.out.push(Change {
            path: path.to_vec(),
            kind,
        });
    }

    /// One directory of the upper. `before` is what the lowers have at its path. If it
    /// shows other directories of theirs, or none, those are its `content`.
    fn directory(
        &mut self,
        path: &[u8],
        upper: &OwnedFd,
        before: &[Below],
        content: Option<&[Below]>,
    ) -> Result<(), SysError> {
        let Own { present, deleted } = Own::of(upper)?;
        let shown: Vec<_> = self
            .lowers
            .visible(content.unwrap_or_default())
            .into_iter()
            .filter(|name| !present.contains_key(name) && !deleted.contains(name))
            .collect();
        let gone = match content {
            Some(_) => self.lowers.visible(before),
            None => deleted.clone(),
        };
        for name in gone {
            let is_there = present.contains_key(&name) || shown.binary_search(&name).is_ok();
            if !is_there && !matches!(self.lowers.sight(before, &name), Sight::Nothing) {
                self.tell(Kind::Deleted, &child(path, &name));
            }
        }
        for (name, stat) in &present {
            let content = match content {
                None if deleted.contains(name) => Some(&[][..]),
                other => other,
            };
            self.entry(&child(path, name), (upper, name, stat), before, content)?;
        }
        for name in &shown {
            self.moved(path, name, before, content.unwrap_or_default());
        }
        Ok(())
    }

    /// One name of the upper that is no mark.
    fn entry(
        &mut self,
        path: &[u8],
        (upper, name, stat): (&OwnedFd, &[u8], &Stat),
        before: &[Below],
        content: Option<&[Below]>,
    ) -> Result<(), SysError> {
        let dir = stat
            .is_dir()
            .then(|| open_dir(At::new(upper, name)))
            .transpose()?;
        match (self.lowers.sight(before, name), dir) {
            (Sight::Directory(parts), Some(dir)) => {
                let content = self
                    .content(&dir, name, before, content)
                    .filter(|content| !same_dirs(content, &parts));
                let differs = match parts.first() {
                    Some(top) => self.attributes_differ(&dir, &top.fd)?,
                    None => false,
                };
                if content.is_some() || differs {
                    self.tell(Kind::Modified, path);
                }
                self.directory(path, &dir, &parts, content.as_deref())
            }
            (Sight::File(i, below), None) => {
                let same = content.is_none()
                    && before.get(i).is_some_and(|lower| {
                        self.same_file((At::new(upper, name), stat), (&lower.fd, &below), name)
                    });
                if !same {
                    self.tell(Kind::Modified, path);
                }
                Ok(())
            }
            (sight, dir) => {
                let is_new = matches!(sight, Sight::Nothing);
                self.tell(if is_new { Kind::Added } else { Kind::Modified }, path);
                let Some(dir) = dir else { return Ok(()) };
                let content = self.content(&dir, name, before, content);
                self.directory(path, &dir, &[], Some(&content.unwrap_or_default()))
            }
        }
    }

    /// The lower directories that `dir`, named `name` in the upper, shows, unless they
    /// are those at its own path. `before` and `content` are its parent's.
    fn content(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        before: &[Below],
        content: Option<&[Below]>,
    ) -> Option<Vec<Below>> {
        if is_opaque(dir) {
            return Some(Vec::new());
        }
        if let Some(dirs) = self.lowers.redirected(dir, content.unwrap_or(before)) {
            return Some(dirs);
        }
        Some(match self.lowers.sight(content?, name) {
            Sight::Directory(parts) => parts,
            Sight::Nothing | Sight::File(..) => Vec::new(),
        })
    }

    /// `name` of lower directories that are seen at another path than their own.
    fn moved(&mut self, path: &[u8], name: &[u8], before: &[Below], content: &[Below]) {
        let path = child(path, name);
        let old = self.lowers.sight(before, name);
        let is_new = matches!(old, Sight::Nothing);
        self.tell(if is_new { Kind::Added } else { Kind::Modified }, &path);
        let Sight::Directory(content) = self.lowers.sight(content, name) else {
            return;
        };
        let before = match old {
            Sight::Directory(parts) => parts,
            Sight::Nothing | Sight::File(..) => Vec::new(),
        };
        let shown = self.lowers.visible(&content);
        for name in self.lowers.visible(&before).difference(&shown) {
            self.tell(Kind::Deleted, &child(&path, name));
        }
        for name in &shown {
            self.moved(&path, name, &before, &content);
        }
    }

    /// Whether two owners are the same: one that has no name here was shown as root.
    fn same_owner(&self, upper: &Stat, lower: &Stat) -> bool {
        let same = |upper: u32, lower: u32, overflow: u32| {
            upper == lower || (lower == overflow && upper == 0)
        };
        same(upper.uid, lower.uid, self.overflow.0) && same(upper.gid, lower.gid, self.overflow.1)
    }

    /// Whether a directory's owner, mode or xattrs changed. Its times change whenever
    /// something in it does.
    fn attributes_differ(&self, upper: &OwnedFd, lower: &OwnedFd) -> Result<bool, SysError> {
        let (upper, lower) = (At::fd(upper), At::fd(lower));
        let (new, old) = (stat(upper)?, stat(lower)?);
        Ok(new.mode != old.mode || !self.same_owner(&new, &old) || xattrs_differ(upper, lower))
    }

    /// Whether a copied-up file is as it was. Whoever writes to a file changes its time.
    fn same_file(
        &self,
        (upper, new): (At<'_>, &Stat),
        (lower, old): (&OwnedFd, &Stat),
        name: &[u8],
    ) -> bool {
        let lower = At::new(lower, name);
        new.mode == old.mode
            && self.same_owner(new, old)
            && new.rdev == old.rdev
            && new.size == old.size
            && new.mtime == old.mtime
            && readlink(upper).ok() == readlink(lower).ok()
            && !xattrs_differ(upper, lower)
    }
}

/// Whether these are the same directories of the same layers.
fn same_dirs(some: &[Below], others: &[Below]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(one, other)| one.is(other))
}

/// Whether the extended attributes differ that a user sees.
fn xattrs_differ(upper: At<'_>, lower: At<'_>) -> bool {
    let (mut new, mut old) = (xattrs(upper), xattrs(lower));
    // An access list for people without a name here cannot be copied, so it is no change
    // that it is missing.
    for list in ["system.posix_acl_access", "system.posix_acl_default"] {
        if old
            .get(list.as_bytes())
            .is_some_and(|acl| names_nobody(acl))
        {
            new.remove(list.as_bytes());
            old.remove(list.as_bytes());
        }
    }
    new != old
}

/// Whether an access list has an entry for an id without a name in this namespace.
/// A header of four bytes, then entries: tag (2), permissions (2), id (4).
fn names_nobody(acl: &[u8]) -> bool {
    const USER: u16 = 2;
    const GROUP: u16 = 8;
    let entries = acl.get(4..).unwrap_or_default().chunks_exact(8);
    entries.into_iter().any(|entry| match entry {
        [t0, t1, _, _, id @ ..] => {
            let tag = u16::from_le_bytes([*t0, *t1]);
            matches!(tag, USER | GROUP) && id == [0xff; 4]
        }
        _ => false,
    })
}

/// The extended attributes that a user sees.
fn xattrs(at: At<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let list = xattr::list(at).unwrap_or_default();
    names(&list)
        .filter(|name| !is_own(name))
        .filter_map(|name| {
            let key = CString::new(name).ok()?;
            Some((name.to_vec(), xattr::get(at, &key).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests;
