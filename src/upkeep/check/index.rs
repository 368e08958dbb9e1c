//! The index: where hard links that were copied up are found by their origin.

use super::{Checker, Kind, Work, in_work};
use crate::copyup::nlink;
use crate::error::MountError;
use crate::layer::handle::Origin;
use crate::merge::name::Name;
use crate::sys::fs;
use crate::sys::path::At;
use crate::sys::xattr;
use crate::union::{Below, Union};
use crate::upkeep::walk::{self, Dir, Entry, Mark};
use crate::upkeep::{printable, trouble};
use std::collections::HashMap;
use std::os::fd::OwnedFd;

const INDEX: &[u8] = b"index";

/// What is known of the index; by the inode number of the file.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: HashMap<u64, Indexed>,
}

#[derive(Debug)]
struct Indexed {
    name: Name,
    /// Its names in the upper that were seen.
    seen: u32,
    /// Links of the lower file, if that is at hand.
    lower_links: Option<u32>,
}

impl Checker {
    /// Reads the index, and tells of entries that are none.
    pub(super) fn load_index(
        &mut self,
        union: &Union,
        dir: &OwnedFd,
        work: &Work,
    ) -> Result<(), MountError> {
        let shown = |name: &[u8]| in_work(&work.path, &[INDEX, name]);
        let upper = union.tree.upper_layer().map_err(|e| trouble("upper", e))?;
        let keys = upper.keys();
        for name in walk::names(dir).map_err(|e| trouble(shown(b""), e))? {
            let at = At::new(dir, &name);
            let failed = |e| trouble(shown(&name), e);
            let stat = fs::stat(at).map_err(failed)?;
            // Directories and whiteouts are the kernel's, for `nfs_export`.
            if stat.is_dir() || stat.is_whiteout_device() {
                continue;
            }
            let Some(filed) = Origin::from_index_name(&name) else {
                self.find(shown(&name), Kind::IndexName, "index entry");
                continue;
            };
            let origin = xattr::get_optional(at, keys.origin).map_err(failed)?;
            if origin.and_then(Origin::from_disk) != Some(filed) {
                self.find(shown(&name), Kind::IndexOrigin, "index entry");
            }
            let file = Indexed {
                name,
                seen: 0,
                lower_links: None,
            };
            self.index.files.insert(stat.ino, file);
        }
        Ok(())
    }

    /// A name of a file in the upper, whose link count is `count`.
    pub(super) fn count_name(
        &mut self,
        dir: &Dir<'_>,
        entry: &Entry,
        count: Option<&Mark>,
    ) -> Result<(), MountError> {
        let path = dir.shown_entry(&entry.name);
        if let Some(file) = self.index.files.get_mut(&entry.stat.ino) {
            file.seen += 1;
            let below = dir.union.below(&dir.node, &entry.name);
            if let Below::File(real, look) = below.map_err(|e| trouble(&path, e))?
                && let Ok(fd) = dir.union.tree.layers.fds.lower(&real)
                && let Ok(Some(origin)) = Origin::of(&real.layer, At::new(&*fd, &entry.name))
                && origin.index_name() == *file.name
            {
                file.lower_links = Some(look.stat.nlink);
            }
            return Ok(());
        }
        let Some(mark) = count else { return Ok(()) };
        let remove = ("removed", || xattr::remove(dir.at(&entry.name), &mark.key));
        let what = printable(mark.key.to_bytes());
        self.find_and(path, Kind::StrayCount, what, remove)
    }

    /// Once all names are known: are the link counts right?
    pub(super) fn judge_index(
        &mut self,
        union: &Union,
        dir: &OwnedFd,
        work: &Work,
    ) -> Result<(), MountError> {
        let mut files: Vec<_> = std::mem::take(&mut self.index.files)
            .into_values()
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        for file in &files {
            self.judge(union, dir, work, file)?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        union: &Union,
        dir: &OwnedFd,
        work: &Work,
        file: &Indexed,
    ) -> Result<(), MountError> {
        let path = in_work(&work.path, &[INDEX, &file.name]);
        let upper = union.tree.upper_layer().map_err(|e| trouble(&path, e))?;
        let keys = upper.keys();
        let at = At::new(dir, &file.name);
        let failed = |e| trouble(&path, e);
        let own = fs::stat(at).map_err(failed)?.nlink;
        let value = xattr::get_optional(at, keys.nlink).map_err(failed)?;
        let what = match &value {
            Some(value) => format!("link count {}", printable(value)),
            None => "no link count".to_owned(),
        };
        let unsettled = value.as_ref().is_some_and(|v| v.starts_with(b"L"));
        if unsettled {
            match file.lower_links {
                Some(lower) => {
                    let settle = ("mended", || nlink::settle(keys, at, own, lower));
                    self.find_and(path, Kind::IndexUnsettled, what, settle)?;
                }
                None => self.find(path, Kind::IndexUnsettled, what),
            }
            return Ok(());
        }
        let links = value.and_then(|v| nlink::decode(&v, own, None));
        match links {
            Some(0) if file.seen == 0 && own == 1 => {
                let remove = ("removed", || fs::unlink(at));
                self.find_and(
                    path,
                    Kind::IndexUnused,
                    "index entry without a link",
                    remove,
                )
            }
            Some(links) if links >= file.seen.max(1) => Ok(()),
            Some(_) => {
                let what = format!("{what}, and {} names in the upper", file.seen);
                self.find(path, Kind::IndexCount, what);
                Ok(())
            }
            None => {
                self.find(path, Kind::IndexCount, what);
                Ok(())
            }
        }
    }
}
