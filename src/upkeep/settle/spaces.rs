//! The namespace of the marks: `trusted.overlay` for mounts by root, `user.overlay` for
//! those in a user namespace.
//!
//! To change it, all marks are written in the new one, a note is made in the work
//! directory, and the old ones go. Up to the note, the old ones are complete; from then
//! on, the new ones are, and whoever finds the note goes on from there.

use super::{Job, sync};
use crate::config::plan::MountPlan;
use crate::error::{Errno, MountError};
use crate::layer::private::Space;
use crate::layer::scratch::SETTLING;
use crate::sys::fs::{self, O_CREAT, O_NOFOLLOW, O_RDONLY, O_WRONLY};
use crate::sys::io;
use crate::sys::path::At;
use crate::sys::xattr;
use crate::union::Union;
use crate::upkeep::walk::each_file;
use crate::upkeep::{Shown, trouble};
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Moves the marks of a settled upper to the namespace `to`.
pub(super) fn change(
    union: &Union,
    work: &OwnedFd,
    plan: &MountPlan,
    to: Space,
    job: &mut Job<'_>,
) -> Result<(), MountError> {
    each_file(union, |(at, path), marks| {
        job.step();
        for mark in marks.iter().filter(|m| m.space != to) {
            let value = xattr::get(at, &mark.key).map_err(|e| trouble(&path, e))?;
            let Ok(key) = CString::new([prefix(to), &mark.word].concat()) else {
                continue;
            };
            match xattr::set(at, &key, &value, 0) {
                // A symlink or device has no user xattrs; only its number is not kept.
                Err(e) if e.errno == Errno::EPERM && mark.word == b"origin" => {}
                other => other.map_err(|e| trouble(&path, e))?,
            }
            job.tally.converted += 1;
        }
        Ok(())
    })?;
    sync(union)?;
    let failed = |e| trouble(note_path(plan), e);
    let flags = O_CREAT | O_WRONLY | O_NOFOLLOW;
    let note = fs::open(At::new(work, SETTLING), flags, 0o600).map_err(failed)?;
    io::write_full(&note, prefix(to), 0).map_err(failed)?;
    sync(union)?;
    drop_others(union, work, plan, to, job)
}

/// Goes on where a change of the namespace was interrupted; whether it was.
pub(super) fn finish(plan: &MountPlan, job: &mut Job<'_>) -> Result<bool, MountError> {
    let (union, work) = Union::inspect(plan)?;
    let failed = |e| trouble(note_path(plan), e);
    let note = match fs::open(At::new(&work, SETTLING), O_RDONLY | O_NOFOLLOW, 0) {
        Err(e) if e.errno == Errno::ENOENT => return Ok(false),
        other => other.map_err(failed)?,
    };
    let mut text = [0; 64];
    let len = io::read_full(&note, &mut text, 0).map_err(failed)?;
    let text = text.get(..len).unwrap_or_default();
    let Some(to) = [Space::Trusted, Space::User]
        .into_iter()
        .find(|space| text == prefix(*space))
    else {
        // Killed before it was written: the old marks are still all there.
        fs::unlink(At::new(&work, SETTLING)).map_err(failed)?;
        return Ok(false);
    };
    drop_others(&union, &work, plan, to, job)?;
    Ok(true)
}

/// Drops all marks that are not in the namespace `to`, and the note after them.
fn drop_others(
    union: &Union,
    work: &OwnedFd,
    plan: &MountPlan,
    to: Space,
    job: &mut Job<'_>,
) -> Result<(), MountError> {
    each_file(union, |(at, path), marks| {
        job.step();
        for mark in marks.iter().filter(|m| m.space != to) {
            let removed = xattr::remove(at, &mark.key);
            removed.map_err(|e| trouble(&path, e))?;
        }
        Ok(())
    })?;
    sync(union)?;
    let removed = fs::unlink(At::new(work, SETTLING));
    removed.map_err(|e| trouble(note_path(plan), e))?;
    sync(union)
}

fn note_path(plan: &MountPlan) -> Shown {
    let work = plan.upper.as_ref().map(|paths| paths.work.clone());
    Shown::new(&work.unwrap_or_default(), SETTLING)
}

fn prefix(space: Space) -> &'static [u8] {
    match space {
        Space::Trusted => b"trusted.overlay.",
        Space::User | Space::FuseOverlayfs => b"user.overlay.",
    }
}
