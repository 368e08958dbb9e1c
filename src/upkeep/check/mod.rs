//! `check`: is this upper sound, and its work directory?
//!
//! The upper is walked as it is on disk, each name beside what the layers below show, as
//! the union itself resolves it. Without `repair` nothing is written.

mod finding;
mod index;
mod names;
mod origins;
mod work;

pub use finding::{Finding, Kind};

use super::walk::{self, Dir};
use super::written::Written;
use super::{Shown, trouble};
use crate::config::plan::MountPlan;
use crate::error::{Errno, MountError};
use crate::sys::fs::{self, O_DIRECTORY, O_NOFOLLOW, O_RDONLY};
use crate::sys::path::At;
use crate::union::Union;
use index::Index;
use origins::Origins;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// How many names of the upper were looked at.
    pub names: u64,
    /// How many origins nobody but root can tell anything of.
    pub untold_origins: u64,
}

impl Report {
    /// Whether nothing wrong is left.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|f| f.mended.is_some())
    }
}

/// Checks the upper of `plan`, and mends what can be mended without a doubt if `repair`.
///
/// # Errors
/// Where the upper is in use or something cannot be read (or, for `repair`, written).
pub fn check(plan: &MountPlan, repair: bool) -> Result<Report, MountError> {
    let (union, root) = Union::inspect(plan)?;
    let path = plan.upper.as_ref().map(|paths| paths.work.clone());
    let work = Work {
        root,
        path: path.unwrap_or_default(),
    };
    let mut checker = Checker {
        repair,
        report: Report::default(),
        index: Index::default(),
        origins: Origins::new(&union),
        redirects: plan.redirects,
    };
    checker.work(&work)?;
    if let Some((_, said)) = Written::count(&union)?.elsewhere(&union)? {
        let upper = plan.upper.as_ref().map(|paths| paths.upper.clone());
        let path = Shown::new(&upper.unwrap_or_default(), b"");
        checker.find(path, Kind::OtherMount, said);
        return Ok(checker.report);
    }
    let index = work.open(b"index")?;
    if let Some(dir) = &index {
        checker.load_index(&union, dir, &work)?;
    }
    walk::walk(&union, |dir| checker.directory(dir))?;
    if let Some(dir) = &index {
        checker.judge_index(&union, dir, &work)?;
    }
    checker.tell_of_origins();
    Ok(checker.report)
}

/// The work directory.
struct Work {
    root: OwnedFd,
    path: PathBuf,
}

impl Work {
    /// Opens `name` in it, if it is there.
    fn open(&self, name: &[u8]) -> Result<Option<OwnedFd>, MountError> {
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
        match fs::open(At::new(&self.root, name), flags, 0) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if e.errno == Errno::ENOENT => Ok(None),
            Err(e) => Err(trouble(Shown::new(&self.path, name), e)),
        }
    }
}

struct Checker {
    repair: bool,
    report: Report,
    index: Index,
    origins: Origins,
    redirects: crate::config::plan::Redirects,
}

impl Checker {
    /// Notes what is wrong, for a human to mend.
    fn find(&mut self, path: Shown, kind: Kind, what: impl Into<String>) {
        self.report.findings.push(Finding {
            path,
            kind,
            what: what.into(),
            mended: None,
        });
    }

    /// Notes what is wrong, and mends it by `mend` if that is wanted; `done` says what
    /// was done then.
    fn find_and<E: Into<Errno>>(
        &mut self,
        path: Shown,
        kind: Kind,
        what: impl Into<String>,
        (done, mend): (&'static str, impl FnOnce() -> Result<(), E>),
    ) -> Result<(), MountError> {
        if self.repair {
            mend().map_err(|e| trouble(&path, e))?;
        }
        self.report.findings.push(Finding {
            path,
            kind,
            what: what.into(),
            mended: self.repair.then_some(done),
        });
        Ok(())
    }

    /// Checks one directory of the upper.
    fn directory(&mut self, dir: &Dir<'_>) -> Result<(), MountError> {
        self.report.names += dir.entries.len() as u64;
        let before = self.report.findings.len();
        let failed = |e: Errno| trouble(dir.shown(), e);
        let marks = walk::marks(dir.itself()).map_err(failed)?;
        self.foreign(dir.shown(), &marks, &dir.upper);
        self.redirect(dir)?;
        self.origin_of_dir(dir)?;
        let mut has_origin = false;
        let mut xattr_whiteouts = 0;
        for entry in &dir.entries {
            let seen = self.entry(dir, entry)?;
            has_origin |= seen.origin;
            xattr_whiteouts += u64::from(seen.xattr_whiteout);
        }
        self.announcement(dir, xattr_whiteouts)?;
        if has_origin {
            self.impure(dir)?;
        }
        let mended = self.report.findings.iter().skip(before);
        if mended.filter(|f| f.mended.is_some()).count() > 0 {
            dir.restore_times();
        }
        Ok(())
    }
}

/// For messages: a path in the work directory.
fn in_work(work: &Path, below: &[&[u8]]) -> Shown {
    Shown::new(work, &below.join(&b'/'))
}
