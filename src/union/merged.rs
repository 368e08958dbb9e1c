//! Merged directories: which lower directories a directory shows, by its name or by a
//! redirect.

use super::Union;
use super::lookup::Seen;
use crate::error::{Errno, Result};
use crate::layer::Look;
use crate::layer::dirfds::{RealDir, open_dir};
use crate::layer::redirect::Redirect;
use crate::merge::name::Name;
use crate::merge::resolve::Resolution;
use crate::node::Node;
use crate::node::door::Part;
use crate::node::stack::{Lower, Stack};
use crate::sys::path::At;
use std::sync::Arc;

/// How many redirects are followed one after the other: a stack needs no more than one
/// for each of its layers, a hostile one would never end.
const REDIRECTS_MAX: usize = 512;

impl Union {
    /// The merged directory that was seen at `name` in `parts` of `dir`: its topmost
    /// real directory, and where it lives.
    pub(super) fn directory(
        &self,
        dir: &Node,
        name: &Name,
        parts: &[Part],
        seen: &Seen,
        list: &[usize],
    ) -> Result<(Look, Stack)> {
        let top = *list.first().ok_or(Errno::EIO)?;
        let look = *seen.look(top)?;
        let upper = matches!(parts.get(top), Some(Part::Upper(..))).then_some(look.stat.ino);
        let dirs = self.lower_dirs(dir, name, parts, seen, list, REDIRECTS_MAX)?;
        let lower = if dirs.is_empty() {
            Lower::None
        } else {
            Lower::Dirs(dirs.into())
        };
        Ok((look, Stack { upper, lower }))
    }

    fn lower_dirs(
        &self,
        dir: &Node,
        name: &Name,
        parts: &[Part],
        seen: &Seen,
        list: &[usize],
        redirects_left: usize,
    ) -> Result<Vec<Arc<RealDir>>> {
        let mut dirs = Vec::new();
        for &i in list {
            let part = parts.get(i).ok_or(Errno::EIO)?;
            let covered = seen.look(i)?.covered;
            if let Part::Lower(real) = part {
                dirs.push(Arc::new(RealDir::child(real, name.clone(), covered)));
            }
            if covered {
                continue;
            }
            let Some(redirect) = self.redirect_of(part, name)? else {
                continue;
            };
            // Opaque or not, what has the plain name below does not count any more.
            if !self.is_opaque_child(part, name)? {
                let left = redirects_left.checked_sub(1).ok_or(Errno::ELOOP)?;
                let below = parts.get(i + 1..).unwrap_or_default();
                dirs.extend(self.redirected(dir, part, below, redirect, left)?);
            }
            break;
        }
        Ok(dirs)
    }

    /// The redirect of the directory `name` in `part`, if such are followed and there is
    /// any layer that it could lead to.
    fn redirect_of(&self, part: &Part, name: &Name) -> Result<Option<Redirect>> {
        let layer = part.layer();
        let last = self.tree.layers.lowers.last();
        if !self.redirects.follows() || last.is_none_or(|last| last.index == layer.index) {
            return Ok(None);
        }
        let Some(fd) = self.tree.open_part(part)? else {
            return Ok(None);
        };
        Ok(layer.redirect(At::new(&*fd, name))?)
    }

    fn is_opaque_child(&self, part: &Part, name: &Name) -> Result<bool> {
        let Some(fd) = self.tree.open_part(part)? else {
            return Ok(true);
        };
        let inner = open_dir(At::new(&*fd, name))?;
        Ok(part.layer().is_opaque(At::fd(&inner))?)
    }

    /// The directories that `redirect`, found in `part`, leads to; `below` are the
    /// parent's parts under that one.
    fn redirected(
        &self,
        dir: &Node,
        part: &Part,
        below: &[Part],
        redirect: Redirect,
        redirects_left: usize,
    ) -> Result<Vec<Arc<RealDir>>> {
        let lowers = |dirs: &[Arc<RealDir>]| dirs.iter().cloned().map(Part::Lower).collect();
        let (mut parts, path): (Vec<Part>, _) = match redirect {
            Redirect::Beside(name) => {
                let dirs: Vec<_> = below
                    .iter()
                    .filter_map(|p| match p {
                        Part::Lower(real) => Some(real.clone()),
                        Part::Upper(..) => None,
                    })
                    .collect();
                (lowers(&dirs), vec![name])
            }
            Redirect::Path(path) => {
                let under = part.layer().index;
                let stack = self.tree.root.stack();
                let roots: Vec<_> = stack
                    .lower_dirs()
                    .iter()
                    .filter(|root| root.layer.index > under)
                    .cloned()
                    .collect();
                (lowers(&roots), path)
            }
        };
        let mut dirs = Vec::new();
        for name in path {
            let seen = self.see(dir, &parts, &name)?;
            let Resolution::Directory(list) = &seen.resolution else {
                return Ok(Vec::new());
            };
            dirs = self.lower_dirs(dir, &name, &parts, &seen, list, redirects_left)?;
            parts = lowers(&dirs);
        }
        Ok(dirs)
    }

    /// What a directory with lower content has to note before it leaves `name` in
    /// `parent`; `None` where what it notes already stays true.
    ///
    /// # Errors
    /// EIO where it has no lower content.
    pub(super) fn redirect_for(
        &self,
        node: &Node,
        parent: &Node,
        name: &Name,
        same_directory: bool,
        at: At<'_>,
    ) -> Result<Option<Redirect>> {
        let layer = self.tree.upper_layer()?;
        match layer.redirect(at)? {
            Some(Redirect::Path(_)) => return Ok(None),
            Some(Redirect::Beside(_)) if same_directory => return Ok(None),
            Some(Redirect::Beside(_)) | None => {}
        }
        let stack = node.stack();
        let top = stack.lower_dirs().first().ok_or(Errno::EIO)?;
        let beside = top.place().is_some_and(|(above, old)| {
            let siblings = parent.stack();
            old == name && siblings.lower_dirs().iter().any(|d| Arc::ptr_eq(d, above))
        });
        Ok(Some(if same_directory && beside {
            Redirect::Beside(name.clone())
        } else {
            Redirect::to(top)
        }))
    }
}
