//! The marks in the upper: every format becomes a device 0:0 or `overlay.opaque`, and
//! what nobody needs goes.

use super::plain::{get, value_is};
use super::{Job, keys, unfit};
use crate::error::{Errno, MountError, best_effort};
use crate::layer::keys::Keys;
use crate::layer::marks::{Hints, hidden_by_file, is_mark_name};
use crate::layer::private::Space;
use crate::layer::scratch::remove_tree;
use crate::layer::whiteouts;
use crate::sys::fs::{self, O_DIRECTORY, O_NOFOLLOW, O_RDONLY};
use crate::sys::path::At;
use crate::sys::xattr;
use crate::union::{Below, Union};
use crate::upkeep::walk::{self, Dir, Entry, believed};
use crate::upkeep::{Shown, trouble};
use std::os::fd::OwnedFd;

/// The word of a mark, and whether a settled upper keeps it.
fn is_kept(word: &[u8]) -> bool {
    // Identities do no harm where they are not read; the last two are the kernel's.
    matches!(
        word,
        b"opaque" | b"origin" | b"impure" | b"protattr" | b"uuid"
    )
}

/// A temporary in the work directory; the lock is ours, so one name does.
const TEMPORARY: &[u8] = b"#settle";

/// Converts all marks of the upper; `work` is its work directory.
pub(super) fn convert(
    union: &Union,
    work: &OwnedFd,
    job: &mut Job<'_>,
) -> std::result::Result<(), MountError> {
    let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    let scratch = fs::open(At::new(work, b"work"), flags, 0);
    let scratch = scratch.map_err(|e| trouble("work directory", e))?;
    walk::walk(union, |dir| {
        let before = job.tally;
        let mut here = Here {
            dir,
            scratch: &scratch,
            space: believed(&dir.upper),
            keys: keys(believed(&dir.upper)),
            names_changed: false,
            job: &mut *job,
        };
        let done = here.convert();
        if here.names_changed {
            dir.restore_times();
        }
        if before.converted != job.tally.converted || before.dropped != job.tally.dropped {
            log::debug!("{}: {:?}", dir.shown(), job.tally);
        }
        done
    })
}

/// One directory.
struct Here<'a, 'w> {
    dir: &'a Dir<'a>,
    scratch: &'a OwnedFd,
    space: Space,
    keys: &'static Keys,
    names_changed: bool,
    job: &'a mut Job<'w>,
}

impl Here<'_, '_> {
    fn convert(&mut self) -> Result<(), MountError> {
        let dir = self.dir;
        let failed = |e: Errno| trouble(dir.shown(), e);
        let opaque = dir.upper.is_opaque(dir.itself());
        let opaque = opaque.map_err(|e| failed(e.errno))? && !dir.is_root();
        let announced = dir
            .upper
            .has_xattr_whiteouts(dir.itself(), &Hints::default());
        let mut opaque_files = Vec::new();
        for entry in &dir.entries {
            self.job.step();
            if dir.union.has_mark_files() && is_mark_name(&entry.name) {
                if hidden_by_file(&entry.name).is_some() {
                    self.mark_file(entry)?;
                } else {
                    opaque_files.push(entry);
                }
            } else if entry.stat.is_whiteout_device() {
                if !self.hides(&entry.name)? {
                    self.remove(&entry.name)?;
                }
            } else if announced && self.is_xattr_whiteout(entry)? {
                self.xattr_whiteout(entry)?;
            } else if !entry.stat.is_dir() {
                self.strip(dir.at(&entry.name), dir.shown_entry(&entry.name))?;
            }
        }
        if opaque && !value_is(dir.itself(), self.keys.opaque, b"y").map_err(failed)? {
            let set = xattr::set(dir.itself(), self.keys.opaque, b"y", 0);
            set.map_err(|e| unfit(dir.shown(), e.errno))?;
            self.job.tally.converted += 1;
        } else if value_is(dir.itself(), self.keys.opaque, b"x").map_err(failed)? {
            let removed = xattr::remove(dir.itself(), self.keys.opaque);
            removed.map_err(|e| failed(e.errno))?;
            self.job.tally.dropped += 1;
        }
        for entry in opaque_files {
            self.remove(&entry.name)?;
        }
        self.strip(dir.itself(), dir.shown())
    }

    /// Whether a whiteout for `name` hides anything.
    fn hides(&self, name: &[u8]) -> Result<bool, MountError> {
        let below = self.dir.union.below(&self.dir.node, name);
        let below = below.map_err(|e| trouble(self.dir.shown_entry(name), e))?;
        Ok(!matches!(below, Below::Nothing))
    }

    fn remove(&mut self, name: &[u8]) -> Result<(), MountError> {
        let removed = remove_tree(&self.dir.fd, name);
        removed.map_err(|e| trouble(self.dir.shown_entry(name), e))?;
        self.names_changed = true;
        self.job.tally.dropped += 1;
        Ok(())
    }

    /// A file `.wh.NAME`. A directory that it makes opaque was marked so already.
    fn mark_file(&mut self, entry: &Entry) -> Result<(), MountError> {
        let hidden = hidden_by_file(&entry.name).unwrap_or_default();
        if self.dir.entry(hidden).is_none() && self.hides(hidden)? {
            let made = whiteouts::make_apart(self.dir.at(hidden));
            made.map_err(|e| unfit(self.dir.shown_entry(hidden), e.errno))?;
            self.job.tally.converted += 1;
        }
        self.remove(&entry.name)
    }

    fn is_xattr_whiteout(&self, entry: &Entry) -> Result<bool, MountError> {
        if !entry.stat.is_file() || entry.stat.size > 0 {
            return Ok(false);
        }
        let value = get(self.dir.at(&entry.name), self.keys.whiteout);
        let value = value.map_err(|e| trouble(self.dir.shown_entry(&entry.name), e))?;
        Ok(value.is_some())
    }

    /// A whiteout by xattr becomes a device at one stroke.
    fn xattr_whiteout(&mut self, entry: &Entry) -> Result<(), MountError> {
        if !self.hides(&entry.name)? {
            return self.remove(&entry.name);
        }
        let temp = At::new(self.scratch, TEMPORARY);
        let made = whiteouts::make_apart(temp);
        let put = made.and_then(|()| fs::rename(temp, self.dir.at(&entry.name), 0));
        if put.is_err() {
            best_effort("discard a temporary", fs::unlink(temp));
        }
        put.map_err(|e| unfit(self.dir.shown_entry(&entry.name), e.errno))?;
        self.names_changed = true;
        self.job.tally.converted += 1;
        Ok(())
    }

    /// Removes every mark from the file at `at` that a settled upper does not keep.
    fn strip(&mut self, at: At<'_>, path: Shown) -> Result<(), MountError> {
        let list = walk::attributes(at).map_err(|e| trouble(&path, e))?;
        self.job.tally.escaped += walk::escaped_of(&list, self.space);
        for mark in walk::own_of(&list) {
            let ours = mark.space == self.space;
            if ours && is_kept(&mark.word) {
                continue;
            }
            if ours && mark.word == b"metacopy" {
                return Err(MountError::new(
                    path,
                    "its data are in no lower layer",
                    "name the lower layers that the upper was made with",
                ));
            }
            let removed = xattr::remove(at, &mark.key);
            removed.map_err(|e| trouble(&path, e))?;
            self.job.tally.dropped += 1;
        }
        Ok(())
    }
}
