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
use crate::node::door::Part;
use crate::node::stack::{Lower, Stack};
use crate::node::{Node, Place};
use crate::sys::path::At;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// How many redirects are followed one after the other: a stack needs no more than one
/// for each of its layers, a hostile one would never end.
const REDIRECTS_MAX: usize = 512;

/// What a path leads to in the layers under one.
type Known = RefCell<HashMap<(usize, Vec<Name>), Vec<Arc<RealDir>>>>;

/// The redirects that were followed for one name.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    left: usize,
    /// Where they led. Each component of a path may be redirected again, in each layer:
    /// what is resolved anew each time never ends.
    known: &'a Known,
}

impl<'a> Way<'a> {
    /// Calls `walk` with a way on which nothing was followed yet.
    pub fn begin<T>(walk: impl FnOnce(Way<'_>) -> T) -> T {
        let known = Known::default();
        walk(Way {
            left: REDIRECTS_MAX,
            known: &known,
        })
    }

    /// The way beyond one more redirect.
    ///
    /// # Errors
    /// ELOOP where there were too many.
    pub fn on(self) -> Result<Way<'a>> {
        let left = self.left.checked_sub(1).ok_or(Errno::ELOOP)?;
        Ok(Way { left, ..self })
    }

    fn get(self, under: usize, path: &[Name]) -> Option<Vec<Arc<RealDir>>> {
        self.known.borrow().get(&(under, path.to_vec())).cloned()
    }

    fn note(self, under: usize, path: &[Name], dirs: &[Arc<RealDir>]) {
        let key = (under, path.to_vec());
        self.known.borrow_mut().insert(key, dirs.to_vec());
    }
}

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
        let dirs = Way::begin(|way| self.lower_dirs(dir, name, parts, seen, list, way))?;
        let lower = if dirs.is_empty() {
            Lower::None
        } else {
            Lower::Dirs(dirs.into())
        };
        let stack = Stack {
            upper,
            lower,
            data: None,
            partial: None,
        };
        Ok((look, stack))
    }

    fn lower_dirs(
        &self,
        dir: &Node,
        name: &Name,
        parts: &[Part],
        seen: &Seen,
        list: &[usize],
        way: Way<'_>,
    ) -> Result<Vec<Arc<RealDir>>> {
        let mut dirs = Vec::new();
        for &i in list {
            let part = parts.get(i).ok_or(Errno::EIO)?;
            let (look, marks) = (seen.look(i)?, seen.marks(i));
            if let Part::Lower(real) = part {
                let inner = RealDir::child(real, name.clone(), look.covered);
                let inner = inner.of_size(look.stat.size);
                if let Some(marks) = marks {
                    inner.hints.note(marks);
                }
                dirs.push(Arc::new(inner));
            }
            if look.covered || marks.is_some_and(|marks| !marks.redirected) {
                continue;
            }
            let Some(redirect) = self.redirect_of(part, name)? else {
                continue;
            };
            // Opaque or not, what has the plain name below does not count any more.
            let opaque = match marks {
                Some(marks) => marks.opaque,
                None => self.is_opaque_child(part, name)?,
            };
            if !opaque {
                let below = parts.get(i + 1..).unwrap_or_default();
                dirs.extend(self.redirected(dir, part, below, redirect, way.on()?)?);
            }
            break;
        }
        Ok(dirs)
    }

    /// The redirect of the directory `name` in `part`, if such are followed and there is
    /// any layer that it could lead to.
    fn redirect_of(&self, part: &Part, name: &Name) -> Result<Option<Redirect>> {
        let last = self.tree.layers.lowers.last();
        let bottom = last.is_none_or(|last| last.index == part.layer().index);
        if !self.redirects.follows() || bottom {
            return Ok(None);
        }
        self.redirect_at(part, name)
    }

    /// The redirect of what is at `name` in `part`, followed or not.
    pub(super) fn redirect_at(&self, part: &Part, name: &Name) -> Result<Option<Redirect>> {
        let Some(fd) = self.tree.open_part(part)? else {
            return Ok(None);
        };
        Ok(part.layer().redirect(At::new(&*fd, name))?)
    }

    fn is_opaque_child(&self, part: &Part, name: &Name) -> Result<bool> {
        let Some(fd) = self.tree.open_part(part)? else {
            return Ok(true);
        };
        let inner = open_dir(At::new(&*fd, name))?;
        Ok(part.layer().is_opaque(At::directory(&inner))?)
    }

    /// The directories that `redirect`, found in `part`, leads to; `below` are the
    /// parent's parts under that one.
    fn redirected(
        &self,
        dir: &Node,
        part: &Part,
        below: &[Part],
        redirect: Redirect,
        way: Way<'_>,
    ) -> Result<Vec<Arc<RealDir>>> {
        let under = part.layer().index;
        let path = match &redirect {
            Redirect::Path(path) => Some(path.clone()),
            Redirect::Beside(_) => None,
        };
        if let Some(dirs) = path.as_ref().and_then(|path| way.get(under, path)) {
            return Ok(dirs);
        }
        let Some((parts, name)) = self.lead(dir, part, below, redirect, way)? else {
            return Ok(Vec::new());
        };
        let seen = self.see(dir, &parts, &name)?;
        let dirs = match &seen.resolution {
            Resolution::Directory(list) => self.lower_dirs(dir, &name, &parts, &seen, list, way)?,
            _ => Vec::new(),
        };
        if let Some(path) = path {
            way.note(under, &path, &dirs);
        }
        Ok(dirs)
    }

    /// Where `redirect`, found in `part`, leads: the parts of a directory, and a name in
    /// it; `None` where there is no such directory.
    pub(super) fn lead(
        &self,
        dir: &Node,
        part: &Part,
        below: &[Part],
        redirect: Redirect,
        way: Way<'_>,
    ) -> Result<Option<(Vec<Part>, Name)>> {
        let lowers = |dirs: &[Arc<RealDir>]| dirs.iter().cloned().map(Part::Lower).collect();
        let mut path = match redirect {
            Redirect::Beside(name) => {
                let parts = below.iter().filter_map(|p| match p {
                    Part::Lower(real) => Some(Part::Lower(real.clone())),
                    Part::Upper(..) => None,
                });
                return Ok(Some((parts.collect(), name)));
            }
            Redirect::Path(path) => path,
        };
        let Some(last) = path.pop() else {
            return Ok(None);
        };
        let under = part.layer().index;
        let stack = self.tree.root.stack();
        let roots: Vec<_> = stack
            .lower_dirs()
            .iter()
            .filter(|root| root.layer.index > under)
            .cloned()
            .collect();
        let mut parts: Vec<Part> = lowers(&roots);
        for (i, name) in path.iter().enumerate() {
            let so_far = path.get(..=i).unwrap_or_default();
            let dirs = match way.get(under, so_far) {
                Some(dirs) => dirs,
                None => {
                    let seen = self.see(dir, &parts, name)?;
                    let Resolution::Directory(list) = &seen.resolution else {
                        return Ok(None);
                    };
                    self.lower_dirs(dir, name, &parts, &seen, list, way)?
                }
            };
            way.note(under, so_far, &dirs);
            parts = lowers(&dirs);
        }
        Ok(Some((parts, last)))
    }

    /// What a file or directory with lower content has to note before it leaves `name` in
    /// `parent`, or takes another name; `None` where what it notes already stays true.
    /// A file's note is always a path, for it may have names in several directories.
    ///
    /// # Errors
    /// Those of reading redirects.
    pub(super) fn redirect_for(
        &self,
        node: &Node,
        parent: &Arc<Node>,
        name: &Name,
        same_directory: bool,
        at: At<'_>,
    ) -> Result<Option<Redirect>> {
        let beside = same_directory && node.is_dir();
        let noted = if node.is_plain() {
            None
        } else {
            self.tree.upper_layer()?.redirect(at)?
        };
        let name = match noted {
            Some(Redirect::Path(_)) => return Ok(None),
            Some(Redirect::Beside(_)) if beside => return Ok(None),
            Some(Redirect::Beside(old)) => old,
            None if beside => return Ok(Some(Redirect::Beside(name.clone()))),
            None => name.clone(),
        };
        Ok(Some(Redirect::Path(self.path_below(parent, name)?)))
    }

    /// The path of `name` in `parent` as the lower layers have it: where directories of
    /// the upper were redirected, the old way.
    fn path_below(&self, parent: &Arc<Node>, name: Name) -> Result<Vec<Name>> {
        let layer = self.tree.upper_layer()?;
        let mut path = vec![name];
        let mut dir = parent.clone();
        while let Place::Named(above, name) = dir.place() {
            let redirect = if dir.in_upper() && !dir.is_plain() {
                layer.redirect(At::directory(&*self.tree.upper_dir(&dir)?))?
            } else {
                None
            };
            match redirect {
                Some(Redirect::Path(prefix)) => {
                    path.reverse();
                    return Ok([prefix, path].concat());
                }
                Some(Redirect::Beside(old)) => path.push(old),
                None => path.push(name),
            }
            dir = above;
        }
        path.reverse();
        Ok(path)
    }
}
