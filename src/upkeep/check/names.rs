//! The marks in one directory of the upper: whiteouts, redirects and the other xattrs.

use super::{Checker, Kind};
use crate::error::MountError;
use crate::layer::Layer;
use crate::layer::marks::{OPAQUE_FILE, hidden_by_file, is_mark_name};
use crate::layer::private::Space;
use crate::layer::redirect::Redirect;
use crate::merge::name::Name;
use crate::sys::fs;
use crate::sys::xattr;
use crate::union::Below;
use crate::upkeep::walk::{self, Dir, Entry, Mark, believed};
use crate::upkeep::{Shown, printable, trouble};
use std::ffi::CStr;

/// What an entry tells of its directory.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) origin: bool,
    pub(super) xattr_whiteout: bool,
}

/// The marks of our own that are believed here.
pub(super) fn own<'m>(marks: &'m [Mark], upper: &Layer, word: &[u8]) -> Option<&'m Mark> {
    let space = believed(upper);
    marks.iter().find(|m| m.space == space && m.word == word)
}

/// Whether overlayfs shows `entry`, which has an origin, with that one's inode number: it
/// does so for merged directories, and for files unless they have other links.
fn keeps_number(dir: &Dir<'_>, entry: &Entry) -> Result<bool, MountError> {
    if !entry.stat.is_dir() {
        return Ok(entry.stat.nlink == 1);
    }
    let inner = dir.union.upper_child(&dir.node, &entry.name);
    let inner = inner.map_err(|e| trouble(dir.shown_entry(&entry.name), e))?;
    Ok(inner.stack().is_merged())
}

impl Checker {
    /// One entry of a directory; what is in a directory comes with its own visit.
    pub(super) fn entry(&mut self, dir: &Dir<'_>, entry: &Entry) -> Result<Seen, MountError> {
        let name = &*entry.name;
        if is_mark_name(name) {
            if dir.union.has_mark_files() {
                self.mark_file(dir, name)?;
                return Ok(Seen::default());
            }
            self.find(dir.shown_entry(name), Kind::MarkName, "name of a mark");
        }
        if entry.stat.is_whiteout_device() {
            self.whiteout(dir, name, name)?;
            return Ok(Seen::default());
        }
        let at = dir.at(name);
        let marks = walk::marks(at).map_err(|e| trouble(dir.shown_entry(name), e))?;
        let origin = own(&marks, &dir.upper, b"origin");
        let is_copy = own(&marks, &dir.upper, b"metacopy").is_some() && entry.stat.is_file();
        let in_mark = match is_copy {
            true => self.origin_in_mark(dir, name)?,
            false => None,
        };
        let has_origin = origin.is_some() || in_mark.is_some();
        let seen = Seen {
            origin: has_origin && keeps_number(dir, entry)?,
            xattr_whiteout: self.xattr_whiteout(dir, entry, &marks)?,
        };
        if entry.stat.is_dir() || seen.xattr_whiteout {
            return Ok(seen);
        }
        self.foreign(dir.shown_entry(name), &marks, &dir.upper);
        if let Some(mark) = origin {
            self.origin(dir, Some(name), mark)?;
        }
        if let Some(origin) = &in_mark {
            self.judge_origin(dir, (Some(name), dir.shown_entry(name)), origin)?;
        }
        if is_copy {
            self.metacopy(dir, &entry.name)?;
        }
        let count = own(&marks, &dir.upper, b"nlink");
        self.count_name(dir, entry, count)?;
        Ok(seen)
    }

    /// A `.wh.` file.
    fn mark_file(&mut self, dir: &Dir<'_>, file: &[u8]) -> Result<(), MountError> {
        match hidden_by_file(file) {
            Some(hidden) if file != OPAQUE_FILE => self.whiteout(dir, hidden, file),
            _ => Ok(()),
        }
    }

    /// The whiteout `file`, which hides `hidden`.
    fn whiteout(&mut self, dir: &Dir<'_>, hidden: &[u8], file: &[u8]) -> Result<(), MountError> {
        let path = dir.shown_entry(file);
        let below = dir.union.below(&dir.node, hidden);
        if !matches!(below.map_err(|e| trouble(&path, e))?, Below::Nothing) {
            return Ok(());
        }
        let remove = ("removed", || fs::unlink(dir.at(file)));
        self.find_and(path, Kind::Whiteout, "whiteout without a target", remove)
    }

    /// Whether `entry` is an empty file that is a whiteout by its xattr; checks it then.
    fn xattr_whiteout(
        &mut self,
        dir: &Dir<'_>,
        entry: &Entry,
        marks: &[Mark],
    ) -> Result<bool, MountError> {
        let Some(mark) = own(marks, &dir.upper, b"whiteout") else {
            return Ok(false);
        };
        let hints = Default::default();
        let empty = entry.stat.is_file() && entry.stat.size == 0;
        if empty && dir.upper.has_xattr_whiteouts(dir.itself(), &hints) {
            self.whiteout(dir, &entry.name, &entry.name)?;
            return Ok(true);
        }
        let path = dir.shown_entry(&entry.name);
        let remove = ("the xattr was removed", || {
            xattr::remove(dir.at(&entry.name), &mark.key)
        });
        self.find_and(path, Kind::StrayWhiteout, key_name(&mark.key), remove)?;
        Ok(false)
    }

    /// `overlay.opaque` is `x` where there is something that this announces.
    pub(super) fn announcement(&mut self, dir: &Dir<'_>, count: u64) -> Result<(), MountError> {
        let hints = Default::default();
        if count > 0 || !dir.upper.has_xattr_whiteouts(dir.itself(), &hints) {
            return Ok(());
        }
        let key = dir.upper.keys().opaque;
        let what = format!("{} is x", key_name(key));
        let remove = ("removed", || xattr::remove(dir.itself(), key));
        self.find_and(dir.shown(), Kind::StaleX, what, remove)
    }

    /// The redirect of the directory itself.
    pub(super) fn redirect(&mut self, dir: &Dir<'_>) -> Result<(), MountError> {
        let failed = |e| trouble(dir.shown(), e);
        let key = dir.upper.keys().redirect;
        let value = xattr::get_optional(dir.itself(), key).map_err(failed)?;
        let Some(value) = value.filter(|_| !dir.is_root()) else {
            return Ok(());
        };
        let what = format!("redirect to {}", printable(&value));
        if Redirect::parse(&value).is_none() {
            self.find(dir.shown(), Kind::BadRedirect, what);
            return Ok(());
        }
        let opaque = dir.upper.is_opaque(dir.itself()).map_err(failed)?;
        if self.redirects.follows() && !opaque && !dir.node.stack().is_merged() {
            self.find(dir.shown(), Kind::DanglingRedirect, what);
        }
        Ok(())
    }

    /// Some entry has an origin: the directory has to say so.
    pub(super) fn impure(&mut self, dir: &Dir<'_>) -> Result<(), MountError> {
        let key = dir.upper.keys().impure;
        let there = xattr::get_optional(dir.itself(), key);
        if there.map_err(|e| trouble(dir.shown(), e))?.is_some() {
            return Ok(());
        }
        let set = ("set", || xattr::set(dir.itself(), key, b"y", 0));
        let what = format!("no {}", key_name(key));
        self.find_and(dir.shown(), Kind::Impure, what, set)
    }

    /// Marks that this mount does not believe, or nobody but fuse-overlayfs writes.
    pub(super) fn foreign(&mut self, path: Shown, marks: &[Mark], upper: &Layer) {
        let space = believed(upper);
        for mark in marks.iter().filter(|m| m.space != space) {
            let kind = match mark.space {
                Space::FuseOverlayfs => Kind::FuseOverlayfs,
                Space::Trusted | Space::User => Kind::Unbelieved,
            };
            self.find(path.clone(), kind, key_name(&mark.key));
        }
    }

    /// A file that has its attributes in the upper and its data below.
    fn metacopy(&mut self, dir: &Dir<'_>, name: &Name) -> Result<(), MountError> {
        let lost = dir.union.has_lost_data(&dir.node, name);
        if lost.map_err(|e| trouble(dir.shown_entry(name), e))? {
            self.find(dir.shown_entry(name), Kind::Metacopy, "no data");
        }
        Ok(())
    }
}

fn key_name(key: &CStr) -> String {
    printable(key.to_bytes())
}
