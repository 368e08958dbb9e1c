//! Layers: the real directory trees that a union is made of.

pub mod dirfds;
pub mod extents;
pub mod filling;
pub mod handle;
pub mod journal;
pub mod kept;
pub mod keys;
pub mod log_tree;
pub mod marks;
pub mod metacopy;
pub mod open;
pub mod override_stat;
pub mod owners;
pub mod partial;
pub mod private;
pub mod probe;
pub mod redirect;
pub mod scratch;
pub mod volatile;
pub mod whiteouts;

use crate::error::SysError;
use crate::sys::fs::{self, Stat};
use crate::sys::magic;
use crate::sys::path::At;
use dirfds::{DirFds, RealDir};
use kept::Kept;
use marks::Known;
use owners::Owners;
use probe::Caps;
use scratch::Scratch;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// One real directory tree.
#[derive(Debug)]
pub struct Layer {
    /// Its place in the stack: 0 is the topmost.
    pub index: usize,
    /// Whether it is the one that is written.
    pub is_upper: bool,
    /// As the user named it; for messages only.
    pub path: PathBuf,
    /// The root directory.
    pub root: Arc<OwnedFd>,
    /// Which mount the root was reached through.
    pub mnt_id: u64,
    /// Device of the root.
    pub dev: u64,
    /// Whether `root` is a private copy of its mount, on which nothing is mounted.
    pub private_mount: bool,
    /// Keeps the private copy that the upper is in.
    pub(crate) _mount: Option<std::os::fd::OwnedFd>,
    /// What its filesystem can do, learned once.
    pub caps: Caps,
    /// Whether files of it can be cloned into the upper.
    pub clones: Known,
    /// Whether it is an upper whose filesystem can hold partly copied files.
    pub tells_holes: Known,
    /// Where it is an upper that is to survive a power cut and logs files apart, what is
    /// known of that log.
    pub log_tree: Option<log_tree::LogTree>,
    /// How the owners of its inodes are shown.
    pub owners: Owners,
    /// The same for those that are kept in xattrs, which no idmapped mount changes.
    pub kept_owners: Owners,
    /// How owners, modes and types are kept in it, if not in its inodes.
    pub kept: Option<Kept>,
}

/// One look at a name of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What is there, as the union shows it.
    pub stat: Stat,
    /// The uid and gid that a copy of it keeps.
    pub owner: (u32, u32),
    /// Whether it is a directory on which another filesystem is mounted. What lies
    /// below belongs to that filesystem, not to the layer, so it is taken as empty.
    pub covered: bool,
}

impl Layer {
    /// Looks at a file of this layer.
    pub fn look(&self, at: At<'_>) -> Result<Look, SysError> {
        let mut stat = if self.is_upper {
            fs::stat(at)?
        } else {
            fs::stat_unsynced(at)?
        };
        let covered = stat.is_dir() && self.is_elsewhere(&stat);
        let mut from = &self.owners;
        if self.kept.is_some()
            && !covered
            && let Some(said) = self.said(at, &stat)?
        {
            said.apply(&mut stat);
            from = &self.kept_owners;
        }
        let mut owner = (stat.uid, stat.gid);
        if !self.kept_owners.are_as_stored() {
            (stat.uid, stat.gid) = from.shown(owner);
            owner = self.kept_owners.kept(from, owner);
        }
        Ok(Look {
            covered,
            stat,
            owner,
        })
    }

    /// Whether what `stat` is of belongs to another mount than the layer. Before Linux 5.8
    /// only another device tells, unless each subvolume and each layer below is one.
    fn is_elsewhere(&self, stat: &Stat) -> bool {
        if stat.mnt_id != 0 && self.mnt_id != 0 {
            return stat.mnt_id != self.mnt_id;
        }
        stat.dev != self.dev && !matches!(self.caps.magic, magic::BTRFS | magic::OVERLAY)
    }
}

/// All layers of a union, with what is shared between them.
#[derive(Debug)]
pub struct LayerSet {
    /// The writable layer.
    pub upper: Option<Arc<Layer>>,
    /// The read-only layers, topmost first.
    pub lowers: Vec<Arc<Layer>>,
    /// The roots of the layers below those, which are not merged and only give their data
    /// to files that redirect to it (overlayfs.rst, "Data-only lower layers").
    pub data_only: Vec<Arc<RealDir>>,
    /// The work directory; there is one where there is an upper.
    pub scratch: Option<Scratch>,
    /// Open directories.
    pub fds: DirFds,
}

impl LayerSet {
    /// The topmost layer.
    pub fn top(&self) -> Option<&Arc<Layer>> {
        self.upper.as_ref().or(self.lowers.first())
    }

    /// Whether no file of them is ever copied up, and reading one changes no access time.
    pub fn stay_untouched(&self) -> bool {
        let data_only = self.data_only.iter().map(|root| &root.layer);
        let mut all = self.lowers.iter().chain(data_only);
        self.upper.is_none() && all.all(|layer| layer.private_mount)
    }

    /// Whether nothing lies below `layer`.
    pub fn is_bottom(&self, layer: &Layer) -> bool {
        self.data_only.is_empty() && self.lowers.last().is_none_or(|l| l.index == layer.index)
    }
}
