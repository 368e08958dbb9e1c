//! The upper, directory by directory, as it is on disk.

use super::{Shown, trouble};
use crate::error::{Errno, MountError, Result, best_effort};
use crate::layer::Layer;
use crate::layer::marks::is_mark_name;
use crate::layer::private::{self, Space};
use crate::merge::name::Name;
use crate::node::{Node, Place};
use crate::sys::dir::for_each;
use crate::sys::fs::{self, O_DIRECTORY, O_NOATIME, O_NOFOLLOW, O_RDONLY, SetTime, Stat};
use crate::sys::path::At;
use crate::sys::xattr;
use crate::union::Union;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An entry of a directory of the upper.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name; a mark's, too.
    pub name: Name,
    /// What it is.
    pub stat: Stat,
}

/// A directory of the upper.
#[derive(Debug)]
pub struct Dir<'u> {
    /// The union that it is a part of.
    pub union: &'u Union,
    /// The directory of the union.
    pub node: Arc<Node>,
    /// Where it is in the upper; empty for the root.
    pub path: Vec<u8>,
    /// Open for searching.
    pub fd: Arc<OwnedFd>,
    /// What it is like.
    pub stat: Stat,
    /// All that is in it.
    pub entries: Vec<Entry>,
    /// The upper.
    pub upper: Arc<Layer>,
}

impl Dir<'_> {
    /// `name` in it.
    pub fn at<'a>(&'a self, name: &'a [u8]) -> At<'a> {
        At::new(&*self.fd, name)
    }

    /// The directory itself.
    pub fn itself(&self) -> At<'_> {
        At::directory(&*self.fd)
    }

    /// Whether it is the upper's root.
    pub fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    /// For messages.
    pub fn shown(&self) -> Shown {
        Shown::new(&self.upper.path, &self.path)
    }

    /// `name` in it, for messages.
    pub fn shown_entry(&self, name: &[u8]) -> Shown {
        Shown::new(&self.upper.path, &below(&self.path, name))
    }

    /// The entry `name`.
    pub fn entry(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.iter().find(|e| &*e.name == name)
    }

    /// Gives the directory the times back that it had: a mark is nothing that happened
    /// to it.
    pub fn restore_times(&self) {
        let (atime, mtime) = (SetTime::To(self.stat.atime), SetTime::To(self.stat.mtime));
        let set = fs::utimens(self.itself(), atime, mtime);
        best_effort("restore a directory's times", set);
    }
}

/// The path of `name` in the directory at `path`.
pub fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

/// Visits every directory of the upper of `union`, parents first. What `visit` changes in
/// a directory is seen when its children are visited.
///
/// # Errors
/// Where a directory cannot be read, or whatever `visit` answers.
pub fn walk(
    union: &Union,
    mut visit: impl FnMut(&Dir<'_>) -> std::result::Result<(), MountError>,
) -> std::result::Result<(), MountError> {
    let upper = union.tree.upper_layer();
    let upper = upper.map_err(|e| trouble("upper", e))?.clone();
    let mut pending = vec![(union.root().clone(), Vec::new())];
    while let Some((node, path)) = pending.pop() {
        let failed = |e| trouble(Shown::new(&upper.path, &path), e);
        let dir = read(union, &upper, node, &path).map_err(failed)?;
        visit(&dir)?;
        for entry in dir.entries.iter().rev().filter(|e| e.stat.is_dir()) {
            if union.has_mark_files() && is_mark_name(&entry.name) {
                continue;
            }
            let inner = below(&path, &entry.name);
            match union.upper_child(&dir.node, &entry.name) {
                Ok(child) => pending.push((child, inner)),
                Err(e) => return Err(trouble(Shown::new(&upper.path, &inner), e)),
            }
        }
        let_go(dir.node);
    }
    Ok(())
}

/// Drops `node`, and the ancestors that only it kept, one after the other: the drop of the
/// last of a deep tree would run out of stack.
fn let_go(mut node: Arc<Node>) {
    while Arc::strong_count(&node) == 1 {
        let Place::Named(parent, _) = node.place() else {
            return;
        };
        node = parent;
    }
}

fn read<'u>(union: &'u Union, upper: &Arc<Layer>, node: Arc<Node>, path: &[u8]) -> Result<Dir<'u>> {
    let fd = union.tree.upper_dir(&node)?;
    let mut entries = Vec::new();
    for name in names(&fd)? {
        match fs::stat(At::new(&*fd, &name)) {
            Ok(stat) => entries.push(Entry { name, stat }),
            Err(e) if e.errno == Errno::ENOENT => {}
            Err(e) => return Err(e.errno),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Dir {
        union,
        stat: fs::stat(At::fd(&*fd))?,
        node,
        path: path.to_vec(),
        fd,
        entries,
        upper: upper.clone(),
    })
}

/// The names in the directory that `fd` reaches, which is left as if nobody had looked.
///
/// # Errors
/// Those of opening and reading it.
pub fn names(fd: &OwnedFd) -> Result<Vec<Name>> {
    let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    let at = At::new(fd, b".");
    let open = match fs::open(at, flags | O_NOATIME, 0) {
        Err(e) if e.errno == Errno::EPERM => fs::open(at, flags, 0)?,
        other => other?,
    };
    let mut names = Vec::new();
    for_each(&open, |entry| {
        names.extend(Name::new(entry.name));
        Ok::<_, Errno>(())
    })?;
    Ok(names)
}

/// Shows `act` every file of the upper with its marks.
///
/// # Errors
/// Where something cannot be read, or whatever `act` answers.
pub fn each_file(
    union: &Union,
    mut act: impl FnMut((At<'_>, Shown), Vec<Mark>) -> std::result::Result<(), MountError>,
) -> std::result::Result<(), MountError> {
    walk(union, |dir| {
        let mut file = |at: At<'_>, path: Shown| {
            let marks = marks(at).map_err(|e| trouble(&path, e))?;
            act((at, path), marks)
        };
        file(dir.itself(), dir.shown())?;
        for entry in dir.entries.iter().filter(|e| !e.stat.is_dir()) {
            file(dir.at(&entry.name), dir.shown_entry(&entry.name))?;
        }
        Ok(())
    })
}

/// One of our attributes on a file.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its namespace.
    pub space: Space,
    /// What follows the prefix.
    pub word: Vec<u8>,
    /// The whole name.
    pub key: CString,
}

/// All of our attributes on the file at `at`.
///
/// # Errors
/// listxattr's, but that the filesystem has none.
pub fn marks(at: At<'_>) -> Result<Vec<Mark>> {
    Ok(own_of(&attributes(at)?))
}

/// The names of all attributes of the file at `at`.
///
/// # Errors
/// listxattr's, but that the filesystem has none.
pub fn attributes(at: At<'_>) -> Result<Vec<u8>> {
    match xattr::list(at) {
        Err(e) if matches!(e.errno, Errno::EOPNOTSUPP | Errno::ENOENT) => Ok(Vec::new()),
        other => Ok(other?),
    }
}

/// Those in `list` that are ours.
pub fn own_of(list: &[u8]) -> Vec<Mark> {
    let own = private::names(list).filter_map(|name| {
        let (space, word) = private::split_own(name)?;
        Some(Mark {
            space,
            word: word.to_vec(),
            key: CString::new(name).ok()?,
        })
    });
    own.collect()
}

/// How many in `list` are users' own that are kept under another name, because their
/// name begins as a mark's, while overlayfs, whose marks are in `space`, would not
/// do so.
pub fn escaped_of(list: &[u8], space: Space) -> u64 {
    let here: &[u8] = match space {
        Space::Trusted => b"trusted.overlay.",
        Space::User | Space::FuseOverlayfs => b"user.overlay.",
    };
    let escaped = private::names(list).filter(|name| {
        !name.starts_with(here) && private::to_user(name).is_some_and(|shown| shown != *name)
    });
    escaped.count() as u64
}

/// The namespace that the marks of this upper are believed in.
pub fn believed(upper: &Layer) -> Space {
    if upper.caps.trusted {
        Space::Trusted
    } else {
        Space::User
    }
}
