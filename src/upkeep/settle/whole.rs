//! Making directories whole: where the union merges other lower directories than a plain
//! overlayfs would, all that it shows is copied up, and the directory made opaque.

use super::plain::{Plain, get, same, value_is};
use super::tour::{Guide, Trouble, tour};
use super::{Job, Tally, keys};
use crate::error::{Errno, MountError, Result};
use crate::layer::dirfds::RealDir;
use crate::layer::private::Space;
use crate::merge::inomap::{Ino, ROOT};
use crate::merge::name::Name;
use crate::sys::dir::DT_REG;
use crate::sys::fs;
use crate::sys::path::At;
use crate::sys::xattr;
use crate::union::Union;
use std::sync::Arc;

/// Makes whole what has to be. Marks are read in `space`; those of the lower layers are
/// going to be read in `target`.
pub(super) fn make(
    union: &Union,
    space: Space,
    target: Space,
    job: &mut Job<'_>,
) -> std::result::Result<(), MountError> {
    let mut whole = Whole {
        union,
        space,
        plain: Plain {
            tree: &union.tree,
            space: target,
            mark_files: union.has_mark_files(),
        },
        tally: Tally::default(),
    };
    tour(union, job, &mut whole, |job, whole| {
        job.tally.directories += whole.tally.directories;
        job.tally.files += whole.tally.files;
        job.tally.bytes += whole.tally.bytes;
        whole.tally = Tally::default();
    })
}

struct Whole<'u> {
    union: &'u Union,
    space: Space,
    plain: Plain<'u>,
    tally: Tally,
}

/// What is known of a directory.
struct Own {
    /// Its lower directories as the union shows them.
    shown: Vec<Arc<RealDir>>,
    /// Everything in it has to be in the upper.
    whole: bool,
}

impl Guide for Whole<'_> {
    type Own = Own;

    fn enter(
        &mut self,
        above: Option<(&Own, Ino, &[u8])>,
        ino: Ino,
    ) -> std::result::Result<Own, Trouble> {
        let (mut in_upper, shown) = self.union.places(ino)?;
        let mut whole = false;
        if let Some((parent, _, name)) = above {
            let name = Name::new(name).map_err(|_| Errno::EIO)?;
            whole = parent.whole;
            if !whole {
                let merged = self.plain.child(&parent.shown, &name)?;
                whole = merged.refused || !same(&merged.dirs, &shown);
            }
        }
        if !whole && let Some((dir, mark)) = self.misread(&shown)? {
            if ino == ROOT {
                // Nothing makes the root of an upper opaque.
                return Err(Trouble::Said(
                    format!(
                        "the lower layer {} has {mark} at its top, which overlayfs does not read",
                        dir.layer.path.display()
                    ),
                    "settle that layer first, as the upper of those below it",
                ));
            }
            whole = true;
        }
        if let Some((_, parent, name)) = above
            && whole
            && !in_upper
        {
            in_upper = self.union.bring_up(parent, name)?;
        }
        log::debug!("directory {ino}: whole {whole}, in the upper {in_upper}");
        Ok(Own { shown, whole })
    }

    fn may_miss(&self, above: &Own) -> bool {
        !above.whole
    }

    fn leaf(
        &mut self,
        own: &Own,
        ino: Ino,
        name: &[u8],
        kind: u8,
    ) -> std::result::Result<(), Trouble> {
        let lacks_data = kind == DT_REG && self.lacks_data(own, ino, name)?;
        if !own.whole && !lacks_data {
            return Ok(());
        }
        let new = match self.union.bring_up(ino, name) {
            Err(Errno::EIO) if lacks_data => {
                return Err(Trouble::Said(
                    "no layer below has the file that its data are in".into(),
                    "name the lower layers that the upper was made with",
                ));
            }
            other => other?,
        };
        if new || lacks_data {
            let entry = self.union.lookup(ino, name)?.ok_or(Errno::ENOENT)?;
            let stat = &entry.attr.stat;
            self.tally.files += 1;
            self.tally.bytes += if stat.is_file() { stat.size } else { 0 };
        }
        Ok(())
    }

    fn leave(&mut self, own: &Own, ino: Ino) -> Result<()> {
        if !own.whole || ino == ROOT {
            return Ok(());
        }
        let fd = self.union.upper_part(ino)?.ok_or(Errno::EIO)?;
        let (at, keys) = (At::directory(&*fd), keys(self.space));
        if !value_is(at, keys.opaque, b"y")? {
            xattr::set(at, keys.opaque, b"y", 0)?;
            self.tally.directories += 1;
        }
        if get(at, keys.redirect)?.is_some() {
            xattr::remove(at, keys.redirect)?;
        }
        Ok(())
    }
}

impl Whole<'_> {
    /// The first of `dirs` with a mark in it that a plain overlayfs does not heed.
    fn misread<'d>(&self, dirs: &'d [Arc<RealDir>]) -> Result<Option<(&'d RealDir, String)>> {
        for dir in dirs {
            if let Some(mark) = self.plain.misread(dir)? {
                return Ok(Some((&**dir, mark)));
            }
        }
        Ok(None)
    }

    /// Whether the file `name` in directory `ino` is one that has its data elsewhere, as
    /// the union or a plain overlayfs reads it.
    fn lacks_data(&self, own: &Own, ino: Ino, name: &[u8]) -> Result<bool> {
        if let Some(fd) = self.union.upper_part(ino)? {
            let at = At::new(&*fd, name);
            if fs::stat(at).is_ok() {
                return Ok(get(at, keys(self.space).metacopy)?.is_some());
            }
        }
        let spaces = [self.space, self.plain.space];
        self.plain.lacks_data(&own.shown, name, &spaces)
    }
}
