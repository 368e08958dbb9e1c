//! Origins: does the lower file that an upper file came from still exist?
//!
//! The lower file at the same path is asked first, which anybody may do. A file that was
//! renamed since has its origin elsewhere: then the filesystem itself is asked for the
//! handle, which takes CAP_DAC_READ_SEARCH. Without that such an origin is counted as
//! not told. A handle that the filesystem knows may be of a file outside of the layer;
//! that it exists is all that can be told.

use super::names::own;
use super::{Checker, Kind};
use crate::error::{Errno, MountError};
use crate::layer::handle::Origin;
use crate::layer::metacopy::Share;
use crate::layer::{Layer, dirfds::RealDir};
use crate::sys::fs::{self, O_DIRECTORY, O_RDONLY};
use crate::sys::path::At;
use crate::sys::xattr;
use crate::union::{Below, Union};
use crate::upkeep::walk::{Dir, Mark, marks};
use crate::upkeep::{Shown, trouble};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The filesystems of the lower layers.
#[derive(Debug, Default)]
pub(super) struct Origins {
    roots: Vec<(Arc<Layer>, Option<OwnedFd>)>,
    /// How many name another filesystem, and the first of them.
    far: Option<(u64, Shown)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Sound,
    Dangling,
    Far,
    Untold,
}

impl Origins {
    pub(super) fn new(union: &Union) -> Origins {
        let open = |layer: &Arc<Layer>| {
            let root = fs::open(At::fd(&*layer.root), O_RDONLY | O_DIRECTORY, 0);
            (layer.clone(), root.ok())
        };
        Origins {
            roots: union.tree.layers.lowers.iter().map(open).collect(),
            far: None,
        }
    }

    fn ask_filesystem(&self, origin: &Origin) -> Verdict {
        let mut verdict = Verdict::Far;
        for (layer, root) in &self.roots {
            if layer.caps.uuid != *origin.uuid() {
                continue;
            }
            let known = root.as_ref().map(|r| fs::has_handle(r, &origin.handle()));
            match known {
                Some(Ok(true)) => return Verdict::Sound,
                Some(Ok(false)) if verdict == Verdict::Far => verdict = Verdict::Dangling,
                Some(Ok(false)) => {}
                Some(Err(_)) | None => verdict = Verdict::Untold,
            }
        }
        verdict
    }
}

/// The origin that a copy of what lies below `name` in `dir` (or below `dir` itself)
/// would have.
fn at_same_path(dir: &Dir<'_>, name: Option<&[u8]>) -> Result<Option<Origin>, Errno> {
    let of = |real: &Arc<RealDir>, name: &[u8]| -> Result<Option<Origin>, Errno> {
        let fd = dir.union.tree.layers.fds.lower(real)?;
        Ok(Origin::of(&real.layer, At::new(&*fd, name)).ok().flatten())
    };
    match name {
        Some(name) => match dir.union.below(&dir.node, name)? {
            Below::File(real, _) => of(&real, name),
            Below::Directory | Below::Nothing => Ok(None),
        },
        None => match dir.node.stack().lower_dirs().first() {
            Some(real) => of(real, b""),
            None => Ok(None),
        },
    }
}

impl Checker {
    /// The origin of a directory itself.
    pub(super) fn origin_of_dir(&mut self, dir: &Dir<'_>) -> Result<(), MountError> {
        let marks = marks(dir.itself()).map_err(|e| trouble(dir.shown(), e))?;
        match own(&marks, &dir.upper, b"origin") {
            Some(mark) => self.origin(dir, None, mark),
            None => Ok(()),
        }
    }

    /// The origin `mark` of `name` in `dir`, or of `dir` itself.
    pub(super) fn origin(
        &mut self,
        dir: &Dir<'_>,
        name: Option<&[u8]>,
        mark: &Mark,
    ) -> Result<(), MountError> {
        let (path, at) = match name {
            Some(name) => (dir.shown_entry(name), dir.at(name)),
            None => (dir.shown(), dir.itself()),
        };
        let failed = |e: Errno| trouble(&path, e);
        let value = xattr::get_optional(at, &mark.key).map_err(|e| failed(e.errno))?;
        // The kernel's word for "from a filesystem without handles".
        let Some(value) = value.filter(|v| !v.is_empty()) else {
            return Ok(());
        };
        let Some(origin) = Origin::from_disk(value) else {
            let remove = ("removed", || xattr::remove(at, &mark.key));
            return self.find_and(path, Kind::BadOrigin, "malformed origin", remove);
        };
        self.judge_origin(dir, (name, path), &origin)
    }

    /// The origin in the mark of file `name` in `dir`, which is partly copied.
    pub(super) fn origin_in_mark(
        &self,
        dir: &Dir<'_>,
        name: &[u8],
    ) -> Result<Option<Origin>, MountError> {
        match dir.upper.share_of(dir.at(name)) {
            Ok(Share::Some(mark)) => Ok(mark.origin),
            Ok(_) => Ok(None),
            Err(e) => Err(trouble(dir.shown_entry(name), e)),
        }
    }

    /// The `origin` of `name` in `dir`, or of `dir` itself, which `path` shows.
    pub(super) fn judge_origin(
        &mut self,
        dir: &Dir<'_>,
        (name, path): (Option<&[u8]>, Shown),
        origin: &Origin,
    ) -> Result<(), MountError> {
        let same = at_same_path(dir, name).map_err(|e| trouble(&path, e))?;
        if same.as_ref() == Some(origin) {
            return Ok(());
        }
        match self.origins.ask_filesystem(origin) {
            Verdict::Sound => {}
            Verdict::Untold => self.report.untold_origins += 1,
            Verdict::Dangling => self.find(path, Kind::DanglingOrigin, "dangling origin"),
            Verdict::Far => match &mut self.origins.far {
                Some((count, _)) => *count += 1,
                None => self.origins.far = Some((1, path)),
            },
        }
        Ok(())
    }

    /// Origins on another filesystem come all together or not at all: one line.
    pub(super) fn tell_of_origins(&mut self) {
        if let Some((count, first)) = self.origins.far.take() {
            let what = match count {
                1 => "an origin elsewhere".to_owned(),
                n => format!("this and {} more have their origins elsewhere", n - 1),
            };
            self.find(first, Kind::FarOrigins, what);
        }
    }
}
