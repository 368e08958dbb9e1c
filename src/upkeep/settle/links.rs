//! Hard links that were copied up: they are held together by the index, which only a
//! mount with `index=on` reads. Afterwards they are plain hard links of the upper.

use super::tour::{Guide, Trouble, tour};
use super::{Job, Shown};
use crate::config::plan::MountPlan;
use crate::error::{Errno, MountError, Result, best_effort};
use crate::layer::scratch::remove_tree;
use crate::merge::inomap::Ino;
use crate::sys::dir::DT_UNKNOWN;
use crate::sys::fs::{self, O_DIRECTORY, O_NOFOLLOW, O_RDONLY};
use crate::sys::path::At;
use crate::sys::xattr;
use crate::union::Union;
use crate::upkeep::{trouble, walk};
use std::os::fd::OwnedFd;

const INDEX: &[u8] = b"index";

/// Gives every name that the union shows of an indexed file an entry in the upper.
pub(super) fn give_names(union: &Union, job: &mut Job<'_>) -> std::result::Result<(), MountError> {
    let index = union.tree.index_dir();
    let empty = index.is_ok_and(|dir| walk::names(&dir).is_ok_and(|names| names.is_empty()));
    if empty {
        return Ok(());
    }
    let mut names = Names { union, links: 0 };
    tour(union, job, &mut names, |job, names| {
        job.tally.links += std::mem::take(&mut names.links);
    })
}

struct Names<'u> {
    union: &'u Union,
    links: u64,
}

impl Guide for Names<'_> {
    type Own = ();

    fn enter(
        &mut self,
        _above: Option<(&(), Ino, &[u8])>,
        _ino: Ino,
    ) -> std::result::Result<(), Trouble> {
        Ok(())
    }

    fn may_miss(&self, _above: &()) -> bool {
        true
    }

    fn leaf(
        &mut self,
        _own: &(),
        ino: Ino,
        name: &[u8],
        kind: u8,
    ) -> std::result::Result<(), Trouble> {
        if kind == DT_UNKNOWN {
            return Ok(());
        }
        let Some(entry) = self.union.lookup(ino, name)? else {
            return Ok(());
        };
        if self.union.is_linked_elsewhere(&entry) {
            drop(entry);
            self.links += u64::from(self.union.bring_up(ino, name)?);
        }
        Ok(())
    }

    fn leave(&mut self, _own: &(), _ino: Ino) -> Result<()> {
        Ok(())
    }
}

/// Takes the index away, now that nothing is found by it alone.
pub(super) fn drop_index(
    union: &Union,
    work: &OwnedFd,
    plan: &MountPlan,
    job: &mut Job<'_>,
) -> std::result::Result<(), MountError> {
    let path = plan.upper.as_ref().map(|paths| paths.work.clone());
    let path = path.unwrap_or_default();
    let failed = |name: &[u8], e: Errno| {
        let below = [INDEX, if name.is_empty() { b"" } else { b"/" }, name].concat();
        trouble(Shown::new(&path, &below), e)
    };
    let at = At::new(work, INDEX);
    let dir = match fs::open(at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0) {
        Err(e) if e.errno == Errno::ENOENT => return Ok(()),
        other => other.map_err(|e| failed(b"", e.errno))?,
    };
    let upper = union.tree.upper_layer().map_err(|e| failed(b"", e))?;
    let nlink = upper.keys().nlink;
    for name in walk::names(&dir).map_err(|e| failed(b"", e))? {
        let entry = At::new(&dir, &name);
        let is_dir = fs::stat(entry).is_ok_and(|stat| stat.is_dir());
        let done = if is_dir {
            remove_tree(&dir, &name)
        } else {
            // The count first: as long as the entry is there, the file is found again.
            match xattr::remove(entry, nlink) {
                Err(e) if !matches!(e.errno, Errno::ENODATA | Errno::EOPNOTSUPP) => Err(e),
                _ => fs::unlink(entry),
            }
        };
        done.map_err(|e| failed(&name, e.errno))?;
        job.tally.dropped += 1;
        job.step();
    }
    best_effort("remove the index", fs::rmdir(at));
    Ok(())
}
