//! Whiteout and opaque marks: every format read, one written.
//!
//! | | read | written |
//! |---|---|---|
//! | whiteout | character device 0:0; file `.wh.NAME` beside the name; empty file with `overlay.whiteout` in a directory whose `overlay.opaque` is `x` | the device, else the file |
//! | opaque | `trusted.overlay.opaque=y`, `user.overlay.opaque=y`, `user.fuseoverlayfs.opaque=y`, files `.wh..wh..opq` and `.wh..opq` | the first that may be set, else the file |
//!
//! Sources: overlayfs.rst ("whiteouts and opaque directories"), aufs(5) and the OCI
//! image-layer specification for the `.wh.` files.

use super::Layer;
use super::dirfds::open_listing;
use crate::error::{Errno, SysError, best_effort};
use crate::merge::resolve::Sighting;
use crate::sys::dir::for_each;
use crate::sys::fs::{self, SetTime, Stat};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// Names that begin so are marks.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The file that makes its directory opaque.
pub const OPAQUE_FILE: &[u8] = b".wh..wh..opq";
/// The same as some tools wrote it.
const OPAQUE_FILE_SHORT: &[u8] = b".wh..opq";

/// Whether `name` is a mark in the form of a file.
pub fn is_mark_name(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT_PREFIX)
}

/// The whiteout file for `name`; `None` where it would be too long.
pub fn whiteout_file(name: &[u8]) -> Option<Vec<u8>> {
    let file = [WHITEOUT_PREFIX, name].concat();
    (file.len() <= crate::merge::name::NAME_MAX).then_some(file)
}

/// The name that the whiteout file `file` hides.
pub fn hidden_by_file(file: &[u8]) -> Option<&[u8]> {
    let name = file.strip_prefix(WHITEOUT_PREFIX)?;
    (!name.is_empty() && !is_mark_name(name)).then_some(name)
}

/// Something that is found out once: unknown, no or yes.
#[derive(Debug, Default)]
pub struct Known(AtomicU8);

const NO: u8 = 1;
const YES: u8 = 2;

impl Known {
    /// What is known.
    pub fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            NO => Some(false),
            YES => Some(true),
            _ => None,
        }
    }

    /// Notes what was found out.
    pub fn learn(&self, yes: bool) {
        self.0.store(if yes { YES } else { NO }, Ordering::Relaxed);
    }

    /// Notes what a look has told of something that may have come about since: then it stays
    /// known.
    pub fn found(&self, yes: bool) {
        self.0
            .fetch_max(if yes { YES } else { NO }, Ordering::Relaxed);
    }

    /// Notes that what was found out is true no more.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What is known of the marks within one directory of one layer; a hint costs
/// nothing where it is unknown, and saves a system call where it is known.
#[derive(Debug, Default)]
pub struct Hints {
    /// Whether `.wh.` files are there.
    pub files: Known,
    /// How often one was looked for without knowing.
    asked: AtomicU8,
    /// Whether empty files with the whiteout xattr are there.
    xattrs: Known,
    /// Whether copied-up files are there (`overlay.impure`).
    pub impure: Known,
}

impl Hints {
    /// Notes what the marks of the directory itself say of what is in it.
    pub fn note(&self, marks: &Marks) {
        self.xattrs.learn(marks.xattr_whiteouts);
        self.impure.found(marks.impure);
    }
}

/// The marks that a directory bears.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// It hides what lies below it.
    pub opaque: bool,
    /// It has a redirect, be that followed or not.
    pub redirected: bool,
    /// Whiteouts by xattr are in it.
    xattr_whiteouts: bool,
    /// Copied-up files are in it.
    impure: bool,
}

/// After so many questions for one whiteout file each, the directory is read for all of
/// them; most have none.
const ASKED: u8 = 4;
/// A directory with more entries than this is not read for that.
const FEW: usize = 4096;

/// Why the reading of a directory ended early.
enum EndsEarly {
    Enough,
    Failed(SysError),
}

impl From<SysError> for EndsEarly {
    fn from(e: SysError) -> EndsEarly {
        EndsEarly::Failed(e)
    }
}

/// Whether `.wh.` files are in directory `dir`; `None` where it is too large to tell soon.
fn has_mark_files(dir: At<'_>) -> Result<Option<bool>, SysError> {
    let (mut any, mut seen) = (false, 0);
    let read = for_each(&open_listing(dir.dir)?, |entry| {
        seen += 1;
        any = is_mark_name(entry.name);
        if any || seen == FEW {
            return Err(EndsEarly::Enough);
        }
        Ok(())
    });
    match read {
        Ok(()) => Ok(Some(false)),
        Err(EndsEarly::Enough) => Ok(any.then_some(true)),
        Err(EndsEarly::Failed(e)) => Err(e),
    }
}

const FUSE_OVERLAYFS_OPAQUE: &CStr = c"user.fuseoverlayfs.opaque";

impl Layer {
    /// What one look at `name` in directory `dir` of this layer says.
    pub fn sighting(&self, dir: At<'_>, hints: &Hints, name: &[u8], stat: &Stat) -> Sighting {
        if stat.is_whiteout_device() {
            return Sighting::Whiteout;
        }
        if stat.is_dir() {
            return Sighting::Directory;
        }
        let maybe = stat.is_file() && stat.size == 0;
        if maybe && self.has_xattr_whiteouts(dir, hints) {
            let at = At { dir: dir.dir, name };
            if self.hiding_keys().iter().any(|k| has(at, k.whiteout)) {
                return Sighting::Whiteout;
            }
        }
        Sighting::NonDirectory
    }

    /// Whether whiteouts by xattr are in directory `dir`.
    pub fn has_xattr_whiteouts(&self, dir: At<'_>, hints: &Hints) -> bool {
        if let Some(yes) = hints.xattrs.get() {
            return yes;
        }
        match self.xattr_marks(dir) {
            Ok(marks) => {
                hints.note(&marks);
                marks.xattr_whiteouts
            }
            Err(_) => {
                hints.xattrs.learn(false);
                false
            }
        }
    }

    /// Whether directory `dir` has a whiteout file for `name`.
    pub fn whiteout_beside(
        &self,
        dir: At<'_>,
        hints: &Hints,
        name: &[u8],
    ) -> Result<bool, SysError> {
        if !self.caps.reads_files || hints.files.get() == Some(false) {
            return Ok(false);
        }
        if hints.files.get().is_none() && hints.asked.fetch_add(1, Ordering::Relaxed) == ASKED {
            let found = has_mark_files(dir);
            if let Some(Some(any)) = best_effort("look for whiteout files", found) {
                hints.files.learn(any);
                if !any {
                    return Ok(false);
                }
            }
        }
        match whiteout_file(name) {
            Some(file) => exists(At {
                dir: dir.dir,
                name: &file,
            }),
            None => Ok(false),
        }
    }

    /// Whether the open directory `dir` hides what lies below it.
    pub fn is_opaque(&self, dir: At<'_>) -> Result<bool, SysError> {
        Ok(self.marks(dir)?.opaque)
    }

    /// The marks of the open directory `dir`.
    pub fn marks(&self, dir: At<'_>) -> Result<Marks, SysError> {
        let mut marks = self.xattr_marks(dir)?;
        if self.caps.reads_files {
            for name in [OPAQUE_FILE, OPAQUE_FILE_SHORT] {
                let file = At { dir: dir.dir, name };
                marks.opaque = marks.opaque || exists(file)?;
            }
        }
        Ok(marks)
    }

    /// The marks of directory `dir` that are xattrs. Most directories have none, and one
    /// question tells.
    fn xattr_marks(&self, dir: At<'_>) -> Result<Marks, SysError> {
        let mut marks = Marks::default();
        if !self.caps.xattrs {
            return Ok(marks);
        }
        let list = match xattr::list(dir) {
            Err(e) if e.errno == Errno::EOPNOTSUPP => Vec::new(),
            other => other?,
        };
        if list.is_empty() {
            return Ok(marks);
        }
        marks.impure = is_listed(&list, self.keys().impure);
        marks.redirected = is_listed(&list, self.keys().redirect);
        let hiding = self.hiding_keys().iter().map(|k| k.opaque);
        let all = hiding
            .map(|key| (key, true))
            .chain([(FUSE_OVERLAYFS_OPAQUE, false)]);
        for (key, may_announce) in all.filter(|(key, _)| is_listed(&list, key)) {
            match xattr::get_optional(dir, key).ok().flatten().as_deref() {
                Some(b"y") => marks.opaque = true,
                Some(b"x") => marks.xattr_whiteouts |= may_announce,
                _ => {}
            }
        }
        Ok(marks)
    }

    /// Makes the whiteout file for `name` in `dir`.
    ///
    /// # Errors
    /// ENAMETOOLONG where there is no room for the prefix, else mknodat's.
    pub fn make_whiteout_file(&self, dir: At<'_>, name: &[u8]) -> Result<(), SysError> {
        let file = whiteout_file(name).ok_or(SysError {
            call: "mknodat",
            errno: Errno::ENAMETOOLONG,
        })?;
        let at = At {
            dir: dir.dir,
            name: &file,
        };
        match fs::make_empty(at, 0o600) {
            Err(e) if e.errno == Errno::EEXIST => Ok(()),
            other => other,
        }
    }

    /// Whether a directory of this upper is made opaque by a file in it.
    pub fn marks_opaque_by_file(&self) -> bool {
        self.caps.writes_files || !self.caps.user_xattrs && !self.caps.trusted
    }

    /// Makes the upper directory at `at` opaque.
    ///
    /// # Errors
    /// setxattr's, or mknodat's where xattrs are refused.
    pub fn make_opaque(&self, at: At<'_>) -> Result<(), SysError> {
        if self.marks_opaque_by_file() {
            let held;
            let dir = if at.is_fd() {
                at
            } else {
                held = super::dirfds::open_dir(at)?;
                At::fd(&held)
            };
            let mark = At {
                dir: dir.dir,
                name: OPAQUE_FILE,
            };
            let before = fs::stat(dir)?;
            match fs::make_empty(mark, 0o600) {
                Err(e) if e.errno == Errno::EEXIST => return Ok(()),
                other => other?,
            }
            // The mark is nothing that happened to the directory's names.
            let (atime, mtime) = (SetTime::To(before.atime), SetTime::To(before.mtime));
            return fs::utimens(dir, atime, mtime);
        }
        xattr::set(at, self.keys().opaque, b"y", 0)
    }
}

fn has(at: At<'_>, key: &CStr) -> bool {
    matches!(xattr::get_optional(at, key), Ok(Some(_)))
}

/// Whether `key` is in a listxattr(2) answer.
fn is_listed(list: &[u8], key: &CStr) -> bool {
    super::private::names(list).any(|name| name == key.to_bytes())
}

fn exists(at: At<'_>) -> Result<bool, SysError> {
    match fs::stat_unsynced(at) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteout_files_name_what_they_hide() {
        assert_eq!(hidden_by_file(b".wh.a"), Some(&b"a"[..]));
        assert_eq!(hidden_by_file(b".wh.a b\xff"), Some(&b"a b\xff"[..]));
        for not in [&b".wh."[..], OPAQUE_FILE, b".wh..wh.plnk", b"a", b".w"] {
            assert_eq!(hidden_by_file(not), None);
        }
        assert_eq!(whiteout_file(&[b'x'; 252]), None);
        assert_eq!(whiteout_file(&[b'x'; 251]).unwrap().len(), 255);
    }
}
