//! Files whose data is elsewhere: in a layer below, under the same name or where a
//! redirect leads, or in a data-only layer.

use super::Union;
use super::merged::Way;
use crate::error::{Errno, Result};
use crate::layer::dirfds::RealDir;
use crate::layer::metacopy::Share;
use crate::layer::redirect::Redirect;
use crate::merge::name::Name;
use crate::merge::resolve::Resolution;
use crate::node::Node;
use crate::node::door::Part;
use crate::node::partial::Partial;
use crate::node::stack::{DataBelow, DataFile};
use crate::sys::fs::{self, SetTime, Stat};
use crate::sys::path::At;
use std::sync::Arc;

/// What has the data of a file, if not that file, and how much the file has.
pub(super) type Elsewhere = (Option<Box<DataBelow>>, Option<Arc<Partial>>);

impl Union {
    /// Where the data of the file is that `stat` describes, at `name` in part `i` of
    /// `dir`, if not in it, and how much of it an upper file has nevertheless.
    pub(super) fn data_below(
        &self,
        dir: &Node,
        name: &Name,
        parts: &[Part],
        i: usize,
        stat: &Stat,
    ) -> Result<Elsewhere> {
        let part = parts.get(i).ok_or(Errno::EIO)?;
        if self.share(dir, name, part, stat)? == Share::All {
            return Ok((None, None));
        }
        let mut found = Way::begin(|way| self.find_data(dir, name, parts, i, way))?;
        let mut partial = None;
        match (self.share(dir, name, part, stat)?, part) {
            // It was given all of its data between the two looks, here or by another mount.
            (Share::All, _) => return Ok((None, None)),
            (Share::None, _) => {}
            (Share::Unknown, _) => found = None,
            (Share::Some(mark), Part::Upper(..)) => {
                partial = Some(Arc::new(Partial::new(stat.size, mark, None)));
            }
            (Share::Some(mark), Part::Lower(real)) => {
                found = found.map(|below| {
                    DataFile::new(real, name, stat).over(mark.limit, DataBelow::File(below))
                });
            }
        }
        if found.is_none() {
            log::warn!(
                "{}: the data of {:?} is in no layer below: it cannot be read",
                part.layer().path.display(),
                name.escape_ascii().to_string()
            );
        }
        let data = found.map_or(DataBelow::Lost, DataBelow::File);
        Ok((Some(Box::new(data)), partial))
    }

    /// Gives the upper file at `at`, which `stat` describes, back what it was where a daemon
    /// ended while its data was coming.
    ///
    /// # Errors
    /// Those of reading the note, and of putting back.
    pub(super) fn undo_filling(&self, at: At<'_>, stat: &mut Stat) -> Result<()> {
        let layer = self.tree.upper_layer()?;
        let Some(scratch) = &self.tree.layers.scratch else {
            return Ok(());
        };
        let Some((was, mount)) = layer.noted_filling(at)? else {
            return Ok(());
        };
        if mount == scratch.mount() {
            // It is coming now.
            return Ok(());
        }
        was.put_back(at, SetTime::Omit)?;
        layer.forget_filling(at)?;
        stat.mtime = was.mtime;
        if layer.kept.is_none() {
            stat.mode = fs::stat(at)?.mode;
        }
        Ok(())
    }

    /// How much of its data the file has that `stat` describes, at `name` in `part` of `dir`.
    fn share(&self, dir: &Node, name: &[u8], part: &Part, stat: &Stat) -> Result<Share> {
        let layer = part.layer();
        if !stat.is_file() {
            return Ok(Share::All);
        }
        // Whoever says that in the lowest layer says that the data is nowhere; nothing was
        // ever copied up there, so that it is empty space is enough to ask.
        if self.tree.layers.is_bottom(layer) && !layer.has_holes(stat) {
            return Ok(Share::All);
        }
        let Some(fd) = self.tree.open_part(part)? else {
            return Ok(Share::All);
        };
        // Whoever makes layers for data-only ones need not mark their directories, and small
        // files have no holes where their xattrs take room (ext4, XFS) or none are told (EROFS).
        let may_be = !self.tree.layers.data_only.is_empty()
            || layer.may_be_metacopy(At::directory(&*fd), part.hints(dir)?, stat);
        match may_be {
            true => Ok(layer.share_of(At::new(&*fd, name))?),
            false => Ok(Share::All),
        }
    }

    /// The file that has the data of the one at `name` in part `i`.
    fn find_data(
        &self,
        dir: &Node,
        name: &Name,
        parts: &[Part],
        i: usize,
        way: Way<'_>,
    ) -> Result<Option<DataFile>> {
        let Ok(way) = way.on() else {
            return Ok(None);
        };
        let part = parts.get(i).ok_or(Errno::EIO)?;
        let below = parts.get(i + 1..).unwrap_or_default();
        let Some(redirect) = self.redirect_at(part, name)? else {
            return self.data_at(dir, name, below, way);
        };
        if !self.redirects.follows() {
            return Ok(None);
        }
        let absolute = match &redirect {
            Redirect::Path(path) => Some(path.clone()),
            Redirect::Beside(_) => None,
        };
        let found = match self.lead(dir, part, below, redirect, way)? {
            Some((below, name)) => self.data_at(dir, &name, &below, way)?,
            None => None,
        };
        match (found, absolute) {
            (None, Some(path)) => self.data_only(&path),
            (found, _) => Ok(found),
        }
    }

    /// The file with data at `name` in `parts`.
    fn data_at(
        &self,
        dir: &Node,
        name: &Name,
        parts: &[Part],
        way: Way<'_>,
    ) -> Result<Option<DataFile>> {
        let seen = self.see(dir, parts, name)?;
        let Resolution::NonDirectory(i) = seen.resolution else {
            return Ok(None);
        };
        let stat = seen.look(i)?.stat;
        let part = parts.get(i).ok_or(Errno::EIO)?;
        if !stat.is_file() {
            return Ok(None);
        }
        let here = match part {
            Part::Lower(real) => Some(DataFile::new(real, name, &stat)),
            Part::Upper(..) => None,
        };
        if self.share(dir, name, part, &stat)? == Share::All {
            return Ok(here);
        }
        let below = self.find_data(dir, name, parts, i, way)?;
        Ok(match (self.share(dir, name, part, &stat)?, here, below) {
            // The mount whose upper it is gave it all of its data meanwhile.
            (Share::All, here, _) => here,
            (Share::None, _, below) => below,
            (Share::Some(mark), Some(here), Some(below)) => {
                Some(here.over(mark.limit, DataBelow::File(below)))
            }
            _ => None,
        })
    }

    /// The file at `path` in the first data-only layer that has it; nothing is merged
    /// and no mark counts there.
    fn data_only(&self, path: &[Name]) -> Result<Option<DataFile>> {
        let Some((name, above)) = path.split_last() else {
            return Ok(None);
        };
        'layers: for root in &self.tree.layers.data_only {
            let mut dir = root.clone();
            for step in above {
                let fd = self.tree.layers.fds.lower(&dir)?;
                match fs::stat(At::new(&*fd, step)) {
                    Ok(stat) if stat.is_dir() => {}
                    _ => continue 'layers,
                }
                dir = Arc::new(RealDir::child(&dir, step.clone(), false));
            }
            let fd = self.tree.layers.fds.lower(&dir)?;
            match fs::stat(At::new(&*fd, name)) {
                Ok(stat) if stat.is_file() => {
                    return Ok(Some(DataFile::new(&dir, name, &stat)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
