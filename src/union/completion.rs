//! Partly copied files get the rest of their data: piece by piece while the union is used,
//! and what is left when it is not used any more.

use super::Union;
use crate::copyup::extents::{self, Advance};
use crate::error::{Errno, Result};
use crate::layer::dirfds::open_listing;
use crate::layer::partial;
use crate::merge::inomap::Ino;
use crate::node::Node;
use crate::node::table::LookupRef;
use crate::observe::figures::Partly;
use crate::sys::dir::{DT_DIR, DT_REG, DT_UNKNOWN, for_each};
use crate::sys::fs;
use crate::sys::path::At;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Files that the disk is to have begun with at a time.
const BEGUN: usize = 64;

/// Where filling came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    ino: Ino,
    at: u64,
    /// With how many of the next files the disk has begun.
    begun: usize,
}

impl Union {
    /// Whether there is something to be filled.
    pub fn has_backlog(&self) -> bool {
        !self.tree.backlog.is_empty()
    }

    /// Waits for so long, or else until there is something to be filled; not longer than until
    /// [`Union::end_filling`].
    pub fn wait_to_fill(&self, time: Option<Duration>, over: &AtomicBool) {
        self.tree.backlog.wait(time, over);
    }

    /// Ends the waiting of whoever does so with `over`.
    pub fn end_filling(&self, over: &AtomicBool) {
        self.tree.backlog.end(over);
    }

    /// How many files are known to be partly copied, and how many bytes they lack; without
    /// those that were removed and are still in use, which nobody will fill.
    pub fn left(&self) -> Partly {
        let all = self.tree.backlog.all();
        let nodes = all.iter().filter_map(|ino| self.tree.table.get(*ino));
        let mut left = Partly::default();
        for node in nodes.filter(|node| !node.is_removed()) {
            left.files += 1;
            left.missing_bytes += node.stack().partial.as_ref().map_or(0, |p| p.missing());
        }
        left
    }

    /// Whether another mount waits for this one to let go of the upper.
    pub fn is_awaited(&self) -> bool {
        let layers = &self.tree.layers;
        let upper = layers.upper.as_ref();
        upper.is_some_and(|upper| fs::is_waited_for(&*upper.root).unwrap_or(false))
            || layers
                .scratch
                .as_ref()
                .is_some_and(|scratch| scratch.is_awaited())
    }

    /// Whether files may be partly copied.
    pub fn may_be_partial(&self) -> bool {
        self.settings.partial.is_some() || self.has_noted_partial()
    }

    /// Fills one piece of the file that was used longest ago; `false` where there is none.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn fill_piece(&self, cursor: &mut Cursor) -> Result<bool> {
        let Some(ino) = self.tree.backlog.next() else {
            return Ok(false);
        };
        if cursor.ino != ino {
            if cursor.begun == 0 {
                self.begin_data_of(&self.tree.backlog.next_of(BEGUN));
                cursor.begun = BEGUN;
            }
            *cursor = Cursor {
                ino,
                at: 0,
                begun: cursor.begun - 1,
            };
        }
        if let Advance::To(at) = self.fill_file(ino, cursor.at)? {
            cursor.at = at;
        }
        Ok(true)
    }

    /// Brings the files to the disk that lack nothing else, while the union is used; `go_on` is
    /// asked now and then.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish_whole(&self, go_on: impl Fn() -> bool) -> Result<()> {
        let mut whole = self.tree.backlog.all();
        whole.retain(|ino| self.waiting_for_disk(*ino).is_some());
        for some in whole.chunks(BEGUN) {
            if !go_on() {
                break;
            }
            self.begin_data_of(some);
            for ino in some {
                self.fill_file(*ino, 0)?;
            }
        }
        Ok(())
    }

    /// Fills one piece of `ino`, from `at` on; what is done is not to be filled any more.
    fn fill_file(&self, ino: Ino, at: u64) -> Result<Advance> {
        let advanced = match self.tree.table.get(ino) {
            Some(node) if !node.is_removed() && !self.is_gone(&node)? => {
                extents::advance(&self.tree, &self.settings, &node, at)?
            }
            _ => Advance::Done,
        };
        if advanced == Advance::Done {
            self.tree.drop_from_backlog(ino);
        }
        Ok(advanced)
    }

    /// Has the disk begin with those that lack nothing but being on it.
    fn begin_data_of(&self, files: &[Ino]) {
        for node in files.iter().filter_map(|ino| self.waiting_for_disk(*ino)) {
            if let Ok(file) = self.tree.reader(&node) {
                self.settings.begin_data(&file);
            }
        }
    }

    /// The file `ino`, if it lacks nothing but being on the disk.
    fn waiting_for_disk(&self, ino: Ino) -> Option<Arc<Node>> {
        let node = self.tree.table.get(ino)?;
        let partial = node.stack().partial.clone()?;
        (partial.is_whole() && !node.is_removed()).then_some(node)
    }

    /// Whether somebody has removed the upper file of `node`, as engines do with all of an
    /// upper once it is not mounted any more.
    fn is_gone(&self, node: &Node) -> Result<bool> {
        match self.tree.reader(node) {
            Ok(file) => Ok(fs::stat(At::fd(&*file))?.nlink == 0),
            Err(Errno::ENOENT | Errno::ESTALE) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Fills all that is left, if `all` is so, and notes where nothing is left; `go_on` is
    /// asked before each piece. Whether nothing is left.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn complete_rest(&self, all: bool, mut go_on: impl FnMut() -> bool) -> Result<bool> {
        if !self.has_noted_partial() {
            return Ok(true);
        }
        if all {
            self.find_left()?;
            let mut cursor = Cursor::default();
            while go_on() && self.fill_piece(&mut cursor)? {}
        }
        if self.has_backlog() || self.may_have_left() {
            return Ok(false);
        }
        let scratch = self.scratch()?;
        // Before the note goes, what makes it untrue is where it is.
        self.settings.persist_all(self.tree.upper_layer()?)?;
        partial::clear(scratch.dir())?;
        scratch.has_partial.learn(false);
        Ok(true)
    }

    fn has_noted_partial(&self) -> bool {
        let scratch = self.tree.layers.scratch.as_ref();
        scratch.is_some_and(|scratch| scratch.has_partial.get() == Some(true))
    }

    /// Whether there may be files that an earlier mount left partly copied and that were not
    /// looked for yet.
    pub fn may_have_left(&self) -> bool {
        let scratch = self.tree.layers.scratch.as_ref();
        scratch.is_some_and(|scratch| scratch.found_partial.get() == Some(true))
    }

    /// Looks for them, once, in all of the upper; also for hard links of which the upper has
    /// no name, but only the index.
    ///
    /// # Errors
    /// Those of reading directories and of looking names up.
    pub fn find_left(&self) -> Result<()> {
        if !self.may_have_left() {
            return Ok(());
        }
        let mut dirs = vec![self.tree.refer(self.tree.root.ino).ok_or(Errno::EIO)?];
        while let Some(dir) = dirs.pop() {
            self.find_partial_in(dir.node(), &mut dirs)?;
        }
        let mut nameless = self.nameless_in_index()?;
        let mut dirs = vec![self.tree.refer(self.tree.root.ino).ok_or(Errno::EIO)?];
        while let Some(dir) = dirs.pop().filter(|_| !nameless.is_empty()) {
            self.find_names_in(dir.node(), &mut dirs, &mut nameless)?;
        }
        // What has no name at all is never read.
        self.scratch()?.found_partial.learn(false);
        Ok(())
    }

    fn find_partial_in<'u>(&'u self, dir: &Arc<Node>, dirs: &mut Vec<LookupRef<'u>>) -> Result<()> {
        let upper = self.tree.upper_layer()?;
        let fd = self.tree.upper_dir(dir)?;
        let list = open_listing(fd.as_fd())?;
        let mut names = Vec::new();
        for_each(&list, |entry| {
            names.push(entry.name.to_vec());
            Ok::<_, Errno>(())
        })?;
        for name in names {
            let at = At::new(&*fd, &name);
            let Ok(stat) = fs::stat(at) else { continue };
            let wanted = stat.is_dir() || stat.is_file() && upper.share_of(at)?.is_partial();
            if !wanted {
                continue;
            }
            let Some(entry) = self.lookup(dir.ino, &name)? else {
                continue;
            };
            let node = entry.node.node();
            if node.is_dir() && node.in_upper() {
                dirs.push(entry.node);
            } else if node.stack().partial.is_some() {
                self.tree.add_to_backlog(node.ino);
            }
        }
        Ok(())
    }

    /// The inodes of partly copied hard links of which the upper has no name.
    fn nameless_in_index(&self) -> Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        let Ok(index) = self.tree.index_dir() else {
            return Ok(found);
        };
        let upper = self.tree.upper_layer()?;
        let list = open_listing(index.as_fd())?;
        for_each(&list, |entry| {
            let at = At::new(&*index, entry.name);
            let Ok(stat) = fs::stat(at) else {
                return Ok(());
            };
            let nameless = stat.is_file() && stat.nlink == 1;
            if nameless && upper.share_of(at)?.is_partial() {
                found.insert(stat.ino);
            }
            Ok::<_, Errno>(())
        })?;
        Ok(found)
    }

    /// Looks for a name of each of `nameless` among those that lower layers have in `dir`.
    fn find_names_in<'u>(
        &'u self,
        dir: &Arc<Node>,
        dirs: &mut Vec<LookupRef<'u>>,
        nameless: &mut BTreeSet<u64>,
    ) -> Result<()> {
        for item in self.readdir(dir.ino, 0, usize::MAX)? {
            let wanted = matches!(item.kind, DT_DIR | DT_REG | DT_UNKNOWN);
            if !wanted || matches!(&*item.name, b"." | b"..") {
                continue;
            }
            let Some(entry) = self.lookup(dir.ino, &item.name)? else {
                continue;
            };
            let stack = entry.node.node().stack();
            if entry.node.node().is_dir() {
                dirs.push(entry.node);
            } else if stack.upper.is_some_and(|upper| nameless.remove(&upper)) {
                self.tree.add_to_backlog(entry.attr.ino);
            }
        }
        Ok(())
    }

    /// The kernel has forgotten `ino`: a file that was deleted gets no data any more.
    pub(super) fn forget_deleted(&self, ino: Ino) {
        if self.has_backlog()
            && self
                .tree
                .table
                .get(ino)
                .is_some_and(|node| node.is_removed())
        {
            self.tree.drop_from_backlog(ino);
        }
    }

    /// As [`Union::complete_rest`], for a union that is let go of; what went wrong is logged.
    pub fn complete_at_end(&self, all: bool, go_on: impl FnMut() -> bool) {
        let went = self.complete_rest(all, go_on);
        let left = self.left().files;
        match went {
            Ok(true) => {}
            Ok(false) => log::info!("{left} files are left partly copied"),
            Err(e) => {
                log::warn!("{left} files are left partly copied: {e}; plyfs settle completes them")
            }
        }
    }
}
