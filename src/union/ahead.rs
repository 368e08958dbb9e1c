//! Fetching what is likely to be read next; [`crate::node::ahead`] says what that is.

use super::Union;
use super::dir::{DT_REG, DT_UNKNOWN};
use crate::error::Result;
use crate::merge::inomap::Ino;
use crate::merge::name::Name;
use crate::node::ahead::Task;
use crate::node::{Node, Place};
use crate::sys::io;
use std::os::fd::OwnedFd;

/// The largest file that is small, bytes: the kernel asks for it by one READ.
const SMALL: usize = 128 << 10;
/// In a directory with more names none is looked for.
const NAMES_MAX: usize = 16384;

impl Union {
    /// Fills `buf` from offset `at` of `node`, whose data is all in `file`, and notes what that
    /// says of what is read next.
    pub(super) fn read_noting(
        &self,
        node: &Node,
        file: &OwnedFd,
        buf: &mut [u8],
        at: u64,
    ) -> Result<usize> {
        if at > 0 || buf.len() > SMALL || node.in_upper() {
            return Ok(io::read_full(file, buf, at)?);
        }
        let (got, waited) = io::read_from_start(file, buf)?;
        if self.ahead.is_interested(waited)
            && let Place::Named(dir, name) = node.place()
        {
            self.ahead.note(dir.ino, &name, waited);
        }
        Ok(got)
    }

    /// Whether the caller is to have [`Union::read_ahead`] done.
    pub fn begins_to_read_ahead(&self) -> bool {
        self.ahead.begin()
    }

    /// Fetches what is likely to be read next. What cannot be fetched is left: whoever reads it
    /// is told why.
    pub fn read_ahead(&self) {
        while let Some(task) = self.ahead.next() {
            match task {
                Task::List(dir) => {
                    let names = self.file_names(dir).unwrap_or_default();
                    self.ahead.plan(dir, names);
                }
                Task::Fetch(dir, names) => {
                    for name in names {
                        if let Err(e) = self.fetch(dir, &name) {
                            log::debug!("{name} is not fetched ahead: {e}");
                        }
                    }
                }
            }
        }
    }

    /// The names of the regular files in `dir`; none if it has very many names.
    fn file_names(&self, dir: Ino) -> Result<Vec<Name>> {
        let items = self.listed(dir, 0, NAMES_MAX)?;
        if items.len() == NAMES_MAX {
            return Ok(Vec::new());
        }
        let files = items
            .iter()
            .filter(|item| matches!(item.kind, DT_REG | DT_UNKNOWN));
        Ok(files
            .filter_map(|item| Name::new(&item.name).ok())
            .collect())
    }

    /// Has the disk begin with the data of `name` in `dir`, if that is a small lower file.
    fn fetch(&self, dir: Ino, name: &[u8]) -> Result<()> {
        let Some(entry) = self.lookup(dir, name)? else {
            return Ok(());
        };
        let (node, size) = (entry.node.node(), entry.attr.stat.size);
        if node.is_file() && !node.in_upper() && (1..=SMALL as u64).contains(&size) {
            let file = self.tree.reader(node)?;
            io::begin_to_read(&*file, size)?;
        }
        Ok(())
    }
}
