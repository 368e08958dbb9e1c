//! Finding names.

use super::{Attr, Union};
use crate::copyup::nlink;
use crate::error::{Errno, Result};
use crate::layer::dirfds::{RealDir, open_dir};
use crate::layer::handle::Origin;
use crate::layer::marks::{Marks, is_mark_name};
use crate::layer::metacopy::Share;
use crate::layer::{Layer, Look};
use crate::merge::inomap::{Ino, RealId};
use crate::merge::listing::Lowers;
use crate::merge::name::{NAME_MAX, Name};
use crate::merge::resolve::{Question, Resolution, Sighting, resolve};
use crate::node::dir::Absence;
use crate::node::door::Part;
use crate::node::lock::wait_for_copyup;
use crate::node::partial::Partial;
use crate::node::stack::{DataBelow, DataFile, Lower, Stack};
use crate::node::table::LookupRef;
use crate::node::{Node, Place};
use crate::observe::{self, Cache};
use crate::sys::dir::{DT_DIR, DT_UNKNOWN};
use crate::sys::fs::{S_IFDIR, S_IFMT, Stat};
use crate::sys::path::At;
use crate::sys::xattr;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::Arc;

/// A name that was found: the node, counted as looked up, and its attributes.
#[derive(Debug)]
pub struct Entry<'u> {
    /// The node.
    pub node: LookupRef<'u>,
    /// What it is like now.
    pub attr: Attr,
}

/// What the parts of a directory have at a name.
#[derive(Debug)]
pub(super) struct Seen {
    /// What counts, as indices of the parts.
    pub resolution: Resolution,
    /// By the indices of the parts that have something, in their order.
    looks: Vec<(usize, Look)>,
    inner: Vec<(usize, Inner)>,
}

/// A directory that a part has at a name, opened for its marks.
#[derive(Debug)]
struct Inner {
    fd: Arc<OwnedFd>,
    marks: Marks,
}

impl Seen {
    /// What part `part` has there.
    pub fn look(&self, part: usize) -> Result<&Look> {
        let at = self.looks.binary_search_by_key(&part, |(i, _)| *i);
        let look = at.ok().and_then(|at| self.looks.get(at));
        look.map(|(_, look)| look).ok_or(Errno::EIO)
    }

    /// The marks of the directory that part `part` has there, where they were looked at.
    pub fn marks(&self, part: usize) -> Option<&Marks> {
        let at = self.inner.binary_search_by_key(&part, |(i, _)| *i).ok()?;
        self.inner.get(at).map(|(_, inner)| &inner.marks)
    }

    /// Whether the union shows nothing there.
    pub fn is_absent(&self) -> bool {
        self.resolution == Resolution::Absent
    }

    /// Whether part 0, the upper, has an entry of any kind, a whiteout too.
    pub fn first_has_entry(&self) -> bool {
        matches!(self.looks.first(), Some((0, _)))
    }

    /// Whether the file that is shown, or the top of the merged directory, is in part 0.
    pub fn is_in_first(&self) -> bool {
        match &self.resolution {
            Resolution::Absent => false,
            Resolution::NonDirectory(i) => *i == 0,
            Resolution::Directory(list) => list.first() == Some(&0),
        }
    }

    /// The link count of the file that is shown, where it is in a lower layer.
    pub fn lower_links(&self) -> Option<u32> {
        match &self.resolution {
            Resolution::NonDirectory(i) => Some(self.look(*i).ok()?.stat.nlink),
            _ => None,
        }
    }
}

/// Whether `node`, known to be in the upper, may be the lower file that was seen at
/// `place`: it was copied up there since, or by another of its names.
fn copied_up(node: &Node, place: &Place) -> bool {
    match place {
        Place::Named(dir, name) => {
            node.is_at(dir, name) || matches!(node.place(), Place::Indexed(_))
        }
        _ => true,
    }
}

impl Union {
    /// Looks `name` up in directory `parent`; `None` where it is absent.
    ///
    /// # Errors
    /// Those of looking at the layers.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<Entry<'_>>> {
        let dir = self.node(parent)?;
        let part = dir.as_dir()?;
        if self.mark_files && is_mark_name(name) || dir.is_removed() {
            return Ok(None);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let names = self.names_for_lookup(&dir, part);
        let (name, kind, lowers) = match self.known(&names) {
            Some(listing) => {
                let Some(entry) = listing.get(&self.tree.cookies, name) else {
                    observe::cache(Cache::Absent, true);
                    return Ok(None);
                };
                (entry.name.clone(), entry.kind, listing.lowers(entry))
            }
            None => (self.existing_name(name)?, DT_UNKNOWN, Lowers::Unknown),
        };
        let parts = self.tree.parts(&dir)?;
        let seen = self.see_listed(&dir, &parts, &name, kind, &lowers)?;
        if seen.is_absent() {
            observe::cache(Cache::Absent, false);
            let in_upper = dir.in_upper() && seen.first_has_entry();
            names.note_absence(Absence { name, in_upper });
            return Ok(None);
        }
        let entry = self.intern(&dir, &name, &parts, &seen)?;
        if let Some(entry) = &entry {
            names.note_found(entry.attr.ino);
        }
        Ok(entry)
    }

    pub(super) fn existing_name(&self, name: &[u8]) -> Result<Name> {
        use crate::merge::name::BadName;
        Name::new(name).map_err(|e| match e {
            BadName::Invalid => Errno::EINVAL,
            BadName::TooLong => Errno::ENAMETOOLONG,
        })
    }

    /// As [`Union::see`] for a name that is listed, with its type and the lower parts that
    /// have it, as far as those are known: only they are looked at, and the upper, which it
    /// may have been copied up to since. Being listed, it is hidden by nothing.
    pub(super) fn see_listed(
        &self,
        dir: &Node,
        parts: &[Part],
        name: &[u8],
        kind: u8,
        lowers: &Lowers,
    ) -> Result<Seen> {
        let lowers = match lowers {
            Lowers::Unknown => &[],
            Lowers::One(one) => slice::from_ref(one),
            Lowers::Several(several) => &**several,
        };
        let above = usize::from(matches!(parts.first(), Some(Part::Upper(..))));
        let has_all = |last: &u16| above + usize::from(*last) < parts.len();
        if kind != DT_UNKNOWN && lowers.last().is_some_and(has_all) {
            let lowers = lowers.iter().map(|lower| above + usize::from(*lower));
            let seen = self.see_in((0..above).chain(lowers), dir, parts, name)?;
            let is_as_listed = match seen.resolution {
                Resolution::Absent => false,
                Resolution::NonDirectory(_) => kind != DT_DIR,
                Resolution::Directory(_) => kind == DT_DIR,
            };
            if is_as_listed {
                return Ok(seen);
            }
        }
        self.see(dir, parts, name)
    }

    /// Looks at `name` in every one of `parts` of `dir` that counts.
    pub(super) fn see(&self, dir: &Node, parts: &[Part], name: &[u8]) -> Result<Seen> {
        self.see_in(0..parts.len(), dir, parts, name)
    }

    /// Looks at `name` in those of `parts` of `dir` whose indices are given, topmost first.
    fn see_in(
        &self,
        which: impl IntoIterator<Item = usize>,
        dir: &Node,
        parts: &[Part],
        name: &[u8],
    ) -> Result<Seen> {
        let mut looks = Vec::new();
        let part = |i: usize| parts.get(i).ok_or(Errno::EIO);
        let look = |i: usize| -> Result<Sighting> {
            let part = part(i)?;
            let Some(fd) = self.tree.open_part(part)? else {
                return Ok(Sighting::Nothing);
            };
            match part.layer().look(At::new(&*fd, name)) {
                Ok(look) => {
                    looks.push((i, look));
                    let hints = part.hints(dir)?;
                    let dir = At::directory(&*fd);
                    Ok(part.layer().sighting(dir, hints, name, &look.stat))
                }
                Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENAMETOOLONG) => {
                    Ok(Sighting::Nothing)
                }
                Err(e) => {
                    if e.errno == Errno::ESTALE {
                        // The kernel asks again.
                        self.tree.forget_way(dir);
                    }
                    Err(e.errno)
                }
            }
        };
        let mut inner = Vec::new();
        let hides = |i: usize, question: Question| -> Result<bool> {
            let part = part(i)?;
            let Some(fd) = self.tree.open_part(part)? else {
                return Ok(false);
            };
            let layer = part.layer();
            if layer.whiteout_beside(At::fd(&*fd), part.hints(dir)?, name)? {
                return Ok(true);
            }
            if question == Question::WhiteoutBeside {
                return Ok(false);
            }
            let fd = Arc::new(open_dir(At::new(&*fd, name))?);
            let marks = layer.marks(At::directory(&*fd))?;
            inner.push((i, Inner { fd, marks }));
            Ok(marks.opaque)
        };
        let resolution = resolve(which, look, hides)?;
        Ok(Seen {
            resolution,
            looks,
            inner,
        })
    }

    /// Keeps open what of `node`, seen at `name` in `parts`, was opened for its marks: who looks
    /// a directory up is about to look into it.
    fn keep_open(&self, node: &Node, name: &Name, parts: &[Part], seen: &Seen) {
        let mut opened = seen.inner.iter();
        for dir in node.stack().lower_dirs() {
            let is_in = |part: &Part| match (part, dir.place()) {
                // A redirect may lead to another name beside it.
                (Part::Lower(real), Some((above, at))) => at == name && Arc::ptr_eq(real, above),
                _ => false,
            };
            let Some((_, inner)) = opened.find(|(i, _)| parts.get(*i).is_some_and(is_in)) else {
                return;
            };
            if !dir.covered {
                self.tree.layers.fds.keep_lower(dir, inner.fd.clone());
            }
        }
    }

    /// Whether the lower `parts` alone would show something at `name`.
    pub(super) fn shows_below(&self, dir: &Node, parts: &[Part], name: &[u8]) -> Result<bool> {
        let lower = match parts {
            [Part::Upper(..), lower @ ..] => lower,
            all => all,
        };
        Ok(!lower.is_empty() && !self.see(dir, lower, name)?.is_absent())
    }

    /// The node for what was seen at `name` in `dir`.
    pub(super) fn intern(
        &self,
        dir: &Arc<Node>,
        name: &Name,
        parts: &[Part],
        seen: &Seen,
    ) -> Result<Option<Entry<'_>>> {
        let place = || Place::Named(dir.clone(), name.clone());
        let (top, stack) = match &seen.resolution {
            Resolution::Absent => return Ok(None),
            Resolution::NonDirectory(i) => {
                let part = parts.get(*i).ok_or(Errno::EIO)?;
                let mut look = *seen.look(*i)?;
                let (data, partial) = self.data_below(dir, name, parts, *i, &look.stat)?;
                let (upper, lower) = match part {
                    Part::Upper(_, fd) => {
                        if data.is_some() {
                            self.undo_filling(At::new(&**fd, name), &mut look.stat)?;
                        }
                        (Some(look.stat.ino), Lower::None)
                    }
                    Part::Lower(real) => {
                        if let Some(entry) = self.indexed(real, name, &look, data.as_deref())? {
                            return Ok(Some(entry));
                        }
                        (None, Lower::File(real.clone(), name.clone()))
                    }
                };
                let stack = Stack {
                    upper,
                    lower,
                    data,
                    partial,
                };
                (look, stack)
            }
            Resolution::Directory(list) => self.directory(dir, name, parts, seen, list)?,
        };
        let stat = &top.stat;
        let ino = match stack.upper {
            Some(_) => {
                let origin = stack.partial.as_deref().and_then(Partial::origin);
                self.identity_of_upper(dir, name, parts, stat, origin)?
            }
            None => {
                let real = RealId {
                    dev: stat.dev,
                    ino: stat.ino,
                };
                self.tree
                    .ino_of_lower(real, dir.ino, name, stat.mode, stat.nlink)
            }
        };
        let entry = self.intern_as(ino, place, stack, &top)?;
        if !seen.inner.is_empty() {
            self.keep_open(entry.node.node(), name, parts, seen);
        }
        Ok(Some(entry))
    }

    /// Interns a node, minding that an origin may be claimed by two upper files (a
    /// broken hard link, or a copy made behind our back), or by one that never was the
    /// lower file: whoever is met second goes by its own number then, or by that of its
    /// name.
    fn intern_as(
        &self,
        ino: Ino,
        place: impl Fn() -> Place,
        stack: Stack,
        look: &Look,
    ) -> Result<Entry<'_>> {
        let kind = look.stat.mode & S_IFMT;
        let upper = stack.upper;
        let mut stack = Some(stack);
        let apart = || match place() {
            Place::Named(dir, name) => self.tree.ino_apart(dir.ino, &name),
            _ => ino,
        };
        for choice in 0..3 {
            let ino = match choice {
                0 => ino,
                1 => self.tree.ino_of_stat(&look.stat),
                _ => apart(),
            };
            let mut make = || {
                let stack = stack.take().unwrap_or_else(|| Stack::upper_only(0));
                let node = Node::new(ino, kind, place(), stack);
                node.set_single(look.stat.nlink == 1);
                node
            };
            let (node, made) = self.tree.intern(ino, &mut make);
            if made {
                if node.node().stack().partial.is_some() {
                    self.tree.add_to_backlog(ino);
                }
                let attr = self.attr_of_look(node.node(), look)?;
                return Ok(Entry { node, attr });
            }
            let mut known = node.node().stack();
            if upper.is_some() && known.upper.is_none() {
                // Its copy-up is published and about to be known.
                wait_for_copyup(node.node());
                known = node.node().stack();
            }
            if node.node().kind != kind
                || upper.is_some() && known.upper != upper
                || upper.is_none() && known.upper.is_some() && !copied_up(node.node(), &place())
            {
                continue;
            }
            if node.node().is_removed() {
                self.tree.set_place(node.node(), place());
            }
            let attr = if known.upper == upper {
                self.attr_of_look(node.node(), look)?
            } else {
                self.attr_of(node.node())?
            };
            return Ok(Entry { node, attr });
        }
        Err(Errno::ESTALE)
    }

    /// The node of a lower hard link that was copied up through another name; `data` is
    /// where the lower file's data is, if not in it.
    fn indexed(
        &self,
        real: &Arc<RealDir>,
        name: &Name,
        look: &Look,
        data: Option<&DataBelow>,
    ) -> Result<Option<Entry<'_>>> {
        if look.stat.nlink < 2 {
            return Ok(None);
        }
        let Ok(index) = self.tree.index_dir() else {
            return Ok(None);
        };
        let fd = self.tree.layers.fds.lower(real)?;
        let Some(origin) = Origin::of(&real.layer, At::new(&*fd, name))? else {
            return Ok(None);
        };
        let index_name = origin.index_name();
        let upper = self.tree.upper_layer()?;
        let mut top = match upper.look(At::new(&*index, &index_name)) {
            Ok(top) if top.stat.format() == look.stat.format() => top,
            _ => return Ok(None),
        };
        let stat = &mut top.stat;
        let at = At::new(&*index, &index_name);
        if !self.is_copy_of(at, &origin)? {
            return Ok(None);
        }
        let share = match stat.is_file() {
            true => upper.share_of(at)?,
            false => Share::All,
        };
        let has_data = share == Share::All;
        if !has_data {
            self.undo_filling(at, stat)?;
        }
        let here = || DataBelow::File(DataFile::new(real, name, &look.stat));
        let data = (!has_data).then(|| Box::new(data.cloned().unwrap_or_else(here)));
        nlink::settle(upper.keys(), at, stat.nlink, look.stat.nlink)?;
        let ino = self.tree.ino_of_stat(&look.stat);
        let place = || Place::Indexed(index_name.clone().into());
        let partial = match share {
            Share::All | Share::None => None,
            Share::Some(mark) => Some(Arc::new(Partial::new(stat.size, mark, None))),
            Share::Unknown => return Err(Errno::EIO),
        };
        let stack = Stack {
            upper: Some(top.stat.ino),
            lower: Lower::None,
            data,
            partial,
        };
        let entry = self.intern_as(ino, place, stack, &top)?;
        if matches!(entry.node.node().place(), Place::Named(..)) {
            // It was met by its upper name; the index reaches it by every name.
            self.tree.set_place(entry.node.node(), place());
        }
        Ok(Some(entry))
    }

    /// Whether the index entry `at` records that it was copied up from `origin`. A hard
    /// link to anything else can be put there by whoever may write the work directory.
    fn is_copy_of(&self, at: At<'_>, origin: &Origin) -> Result<bool> {
        let keys = self.tree.upper_layer()?.keys();
        let value = xattr::get_optional(at, keys.origin)?;
        Ok(value.is_some_and(|value| value == origin.as_bytes()))
    }

    /// The number of an upper file: that of its origin, so that it is the same before
    /// and after copy-up; its own where it has none. `marked` is the origin that was found in
    /// its mark.
    fn identity_of_upper(
        &self,
        dir: &Arc<Node>,
        name: &[u8],
        parts: &[Part],
        stat: &Stat,
        marked: Option<&Origin>,
    ) -> Result<Ino> {
        let own = self.tree.ino_of_stat(stat);
        // A file with other names goes by one number in all of their directories, though
        // some are not marked: the kernel marks none in a user namespace after a remount.
        let linked = stat.nlink > 1 && !stat.is_dir();
        if !linked && !self.is_impure(dir)? {
            return Ok(own);
        }
        if let Some(adopted) = self.tree.adopted(stat.ino) {
            return Ok(adopted);
        }
        let recorded = match marked {
            Some(_) => None,
            None => {
                let fd = self.tree.upper_dir(dir)?;
                let keys = self.tree.upper_layer()?.keys();
                let value = xattr::get_optional(At::new(&*fd, name), keys.origin)?;
                value.and_then(Origin::from_disk)
            }
        };
        let origin = marked.or(recorded.as_ref());
        if origin.is_some() && linked {
            dir.as_dir()?.upper_hints.impure.learn(true);
            self.settle_links(dir, name, parts, stat)?;
        }
        Ok(origin
            .and_then(|origin| self.origin_id(origin))
            .map_or(own, |id| self.tree.ino_of(id)))
    }

    /// The link count of an upper name that was killed on the way to being one is relative
    /// to the lower file, which is under the same name.
    fn settle_links(&self, dir: &Node, name: &[u8], parts: &[Part], stat: &Stat) -> Result<()> {
        let keys = self.tree.upper_layer()?.keys();
        let fd = self.tree.upper_dir(dir)?;
        let at = At::new(&*fd, name);
        if !nlink::is_unsettled(keys, at)? {
            return Ok(());
        }
        let lower = parts.get(1..).unwrap_or_default();
        if let Some(links) = self.see(dir, lower, name)?.lower_links() {
            nlink::settle(keys, at, stat.nlink, links)?;
        }
        Ok(())
    }

    /// Which lower file an origin names.
    fn origin_id(&self, origin: &Origin) -> Option<RealId> {
        let same = |layer: &&Arc<Layer>| layer.caps.uuid == *origin.uuid();
        let mut layers = self.tree.layers.lowers.iter().filter(same);
        let first = layers.next()?;
        // Filesystems without a UUID cannot be told apart.
        if layers.any(|other| other.dev != first.dev) {
            return None;
        }
        Some(RealId {
            dev: first.dev,
            ino: origin.inode(first.caps.magic)?,
        })
    }

    /// Whether the upper's part of `dir` holds files that have an origin.
    pub(super) fn is_impure(&self, dir: &Node) -> Result<bool> {
        let upper = self.tree.upper_layer()?;
        if !upper.records_identity(S_IFDIR) {
            // Not to be read anywhere, and so not to be told from the others.
            return Ok(true);
        }
        let impure = &dir.as_dir()?.upper_hints.impure;
        if let Some(known) = impure.get() {
            return Ok(known);
        }
        let keys = upper.keys();
        let fd = self.tree.upper_dir(dir)?;
        let yes = xattr::get_optional(At::directory(&*fd), keys.impure)?.is_some();
        impure.found(yes);
        Ok(yes)
    }
}
