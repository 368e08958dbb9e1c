//! For looking after an upper that is not mounted: its directories one by one, with what
//! lies below them. Nothing is interned and, unless asked for, nothing is written.

use super::{Entry, Union};
use crate::config::plan::MountPlan;
use crate::copyup::Need;
use crate::error::{Errno, MountError, Result};
use crate::layer::Look;
use crate::layer::dirfds::RealDir;
use crate::layer::open::inspect_layers;
use crate::merge::inomap::Ino;
use crate::merge::name::Name;
use crate::merge::resolve::Resolution;
use crate::node::door::Part;
use crate::node::stack::{DataBelow, Stack};
use crate::node::{Node, Place, Tree};
use crate::sys::fs::S_IFDIR;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// As many files are open at once for one walk.
const FILE_FDS: usize = 64;

/// What the layers below the upper show at a name.
#[derive(Debug)]
pub enum Below {
    /// Nothing.
    Nothing,
    /// A non-directory of this lower directory.
    File(Arc<RealDir>, Look),
    /// A directory.
    Directory,
}

impl Union {
    /// The union of `plan` for looking at its upper, and the work directory: both are
    /// locked as for a mount, but nothing in them is swept, made or tried out. The index
    /// is no part of what is seen.
    ///
    /// # Errors
    /// One line that names the path, the cause and the remedy.
    pub fn inspect(plan: &MountPlan) -> std::result::Result<(Union, OwnedFd), MountError> {
        let (layers, work) = inspect_layers(plan)?;
        let tree = Tree::new(layers, FILE_FDS, false);
        Ok((Union::over(tree, plan)?, work))
    }

    /// The root, where a walk begins.
    pub(crate) fn root(&self) -> &Arc<Node> {
        &self.tree.root
    }

    /// Whether `.wh.` names are marks.
    pub(crate) fn has_mark_files(&self) -> bool {
        self.mark_files
    }

    /// The directory that the upper's part of `dir` has at `name`: a node that nobody
    /// else knows.
    ///
    /// # Errors
    /// ENOTDIR where that is no directory of the upper.
    pub(crate) fn upper_child(&self, dir: &Arc<Node>, name: &Name) -> Result<Arc<Node>> {
        let parts = self.tree.parts(dir)?;
        let (look, stack) = self
            .directory_at(dir, &parts, name)?
            .ok_or(Errno::ENOTDIR)?;
        if stack.upper.is_none() {
            return Err(Errno::ENOTDIR);
        }
        let ino = self.tree.ino_of_stat(&look.stat);
        let place = Place::Named(dir.clone(), name.clone());
        Ok(Arc::new(Node::new(ino, S_IFDIR, place, stack)))
    }

    /// The directory that `parts` of `dir` show at `name`, if they do.
    fn directory_at(
        &self,
        dir: &Node,
        parts: &[Part],
        name: &Name,
    ) -> Result<Option<(Look, Stack)>> {
        let seen = self.see(dir, parts, name)?;
        match &seen.resolution {
            Resolution::Directory(list) => self.directory(dir, name, parts, &seen, list).map(Some),
            _ => Ok(None),
        }
    }

    /// What the layers below the upper show at `name` in `dir`, whatever the upper has.
    ///
    /// # Errors
    /// Those of looking at the layers.
    pub(crate) fn below(&self, dir: &Node, name: &[u8]) -> Result<Below> {
        let stack = dir.stack();
        let lowers = stack.lower_dirs().iter().cloned();
        let parts: Vec<Part> = lowers.map(Part::Lower).collect();
        if parts.is_empty() {
            return Ok(Below::Nothing);
        }
        let seen = self.see(dir, &parts, name)?;
        Ok(match &seen.resolution {
            Resolution::Absent => Below::Nothing,
            Resolution::Directory(_) => Below::Directory,
            Resolution::NonDirectory(i) => match parts.get(*i) {
                Some(Part::Lower(real)) => Below::File(real.clone(), *seen.look(*i)?),
                _ => return Err(Errno::EIO),
            },
        })
    }

    /// Whether the data of the file `name` in `dir` is in another file, and that is missing.
    ///
    /// # Errors
    /// Those of looking at the layers.
    pub(crate) fn has_lost_data(&self, dir: &Node, name: &Name) -> Result<bool> {
        let parts = self.tree.parts(dir)?;
        let seen = self.see(dir, &parts, name)?;
        let Resolution::NonDirectory(i) = seen.resolution else {
            return Ok(false);
        };
        let stat = seen.look(i)?.stat;
        let (data, _) = self.data_below(dir, name, &parts, i, &stat)?;
        Ok(matches!(data.as_deref(), Some(DataBelow::Lost)))
    }

    /// The directories of the lower layers that `ino` shows, topmost first, and whether
    /// it is in the upper too.
    ///
    /// # Errors
    /// ESTALE for an unknown number.
    pub(crate) fn places(&self, ino: Ino) -> Result<(bool, Vec<Arc<RealDir>>)> {
        let stack = self.node(ino)?.stack();
        Ok((stack.upper.is_some(), stack.lower_dirs().to_vec()))
    }

    /// A descriptor of the upper's part of directory `ino`; `None` where it has none.
    ///
    /// # Errors
    /// Those of opening it.
    pub(crate) fn upper_part(&self, ino: Ino) -> Result<Option<Arc<OwnedFd>>> {
        let node = self.node(ino)?;
        if node.in_upper() {
            self.tree.upper_dir(&node).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether `entry` is a hard link whose copy in the upper was made by another name.
    pub(crate) fn is_linked_elsewhere(&self, entry: &Entry<'_>) -> bool {
        matches!(entry.node.node().place(), Place::Indexed(_))
    }

    /// Makes sure that `name` in `parent` has an entry of its own in the upper, data and
    /// all: a copy, or for a hard link that was copied up by another name, a link. `true`
    /// where it had none.
    ///
    /// # Errors
    /// ENOENT where the union shows nothing there; those of copy-up.
    pub(crate) fn bring_up(&self, parent: Ino, name: &[u8]) -> Result<bool> {
        let entry = self.lookup(parent, name)?.ok_or(Errno::ENOENT)?;
        let dir = self.node(parent)?;
        let node = entry.node.node();
        let name = self.existing_name(name)?;
        self.ensure(&dir, Need::Meta)?;
        let seen = self.see(&dir, &self.tree.parts(&dir)?, &name)?;
        self.ensure(node, Need::All)?;
        if !seen.is_in_first() {
            self.alias(node, &dir, &name, seen.lower_links())?;
        }
        Ok(!seen.is_in_first())
    }
}
