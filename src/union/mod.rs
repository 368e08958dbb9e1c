//! The union itself: one file per verb family. Every operation returns a `Result`;
//! nothing here knows FUSE.

mod ahead;
mod attr;
mod bare;
mod completion;
mod create;
mod dir;
mod file;
mod inherit;
mod inspect;
mod listing;
mod lookup;
mod merged;
mod metacopy;
mod remove;
mod rename;
mod room;
mod spot;
mod told;
mod xattr;

pub use crate::copyup::Need;
pub use attr::{Attr, SetAttr};
pub use completion::Cursor;
pub use create::New;
pub use dir::Item;
pub use file::{Opening, Writer};
pub(crate) use inspect::Below;
pub use lookup::Entry;

use crate::config::plan::{CacheTimeout, MountPlan, Redirects};
use crate::copyup::{self, Settings};
use crate::error::{Errno, MountError, Result, best_effort};
use crate::layer::marks::is_mark_name;
use crate::layer::open::open_layers;
use crate::merge::name::{BadName, Name};
use crate::node::ahead::ReadAhead;
use crate::node::{Node, Tree};
use crate::observe::figures::Fetched;
use crate::sys::creds;
use crate::sys::fs::{self, FsStat};
use listing::Asked;
use std::sync::Arc;
use std::time::Duration;

/// Descriptors for files: at most this share of what the process may open.
const FILE_FD_SHARE: u64 = 4;
const FILE_FDS_MAX: u64 = 65536;
/// For so many there is room from the beginning.
const AT_ONCE: u64 = 16384;

/// A stack of layers shown as one tree.
#[derive(Debug)]
pub struct Union {
    pub(crate) tree: Tree,
    settings: Settings,
    ahead: Arc<ReadAhead>,
    asked: Asked,
    /// `.wh.` names are marks, and so not for users.
    mark_files: bool,
    redirects: Redirects,
    /// For how long what was listed stays true, where layers change under the mount.
    listing_life: Option<Duration>,
    /// Programs see and set ACLs.
    acls: bool,
    /// Every directory says that it has one link.
    static_nlink: bool,
    /// Lower files may be read by the kernel itself: none is ever copied up, and no access
    /// time changes.
    passes_lower: bool,
}

impl Union {
    /// Opens the layers of `plan` and takes the work directory's lock.
    ///
    /// # Errors
    /// One line that names the path, the cause and the remedy.
    pub fn open(plan: &MountPlan) -> std::result::Result<Union, MountError> {
        let layers = open_layers(plan)?;
        let limit = creds::raise_file_limit().unwrap_or(1024);
        let file_fds = (limit / FILE_FD_SHARE).min(FILE_FDS_MAX) as usize;
        if let Some(top) = layers.top() {
            let many = creds::reserve_descriptors(&*top.root, limit.min(AT_ONCE));
            best_effort("make room for descriptors", many);
        }
        Union::over(Tree::new(layers, file_fds, plan.flags.atime), plan)
    }

    /// The union over the layers of `plan`, opened.
    fn over(tree: Result<Tree>, plan: &MountPlan) -> std::result::Result<Union, MountError> {
        let tree = tree.map_err(|e| {
            MountError::new(
                plan.mount_point.display(),
                format_args!("the layers cannot be shown: {e}"),
                "name at least one readable layer",
            )
        })?;
        let top = tree.layers.top();
        Ok(Union {
            mark_files: top.is_some_and(|layer| layer.caps.reads_files),
            acls: plan.has_acls() && top.is_none_or(|layer| layer.kept.is_none()),
            passes_lower: tree.layers.stay_untouched(),
            tree,
            ahead: Arc::default(),
            asked: Asked::default(),
            settings: Settings {
                durability: plan.durability,
                metacopy: plan.metacopy,
                partial: plan.partial,
                defers: plan.defers_data(),
            },
            static_nlink: plan.static_nlink,
            redirects: plan.redirects,
            listing_life: match plan.timeout {
                CacheTimeout::Forever => None,
                CacheTimeout::Seconds(s) => Duration::try_from_secs_f64(s).ok(),
            },
        })
    }

    /// Whether programs see and set ACLs.
    pub fn has_acls(&self) -> bool {
        self.acls
    }

    /// The node that the kernel calls `ino`.
    fn node(&self, ino: u64) -> Result<Arc<Node>> {
        self.tree.node(ino)
    }

    /// A directory that can still take names.
    fn live_dir(&self, ino: u64) -> Result<Arc<Node>> {
        let node = self.node(ino)?;
        node.as_dir()?;
        if node.is_removed() {
            return Err(Errno::ENOENT);
        }
        Ok(node)
    }

    /// `bytes` as the name of something that a user makes.
    fn new_name(&self, bytes: &[u8]) -> Result<Name> {
        if self.mark_files && is_mark_name(bytes) {
            return Err(Errno::EINVAL);
        }
        Name::new(bytes).map_err(|e| match e {
            BadName::Invalid => Errno::EINVAL,
            BadName::TooLong => Errno::ENAMETOOLONG,
        })
    }

    /// Makes `node` exist in the upper.
    fn ensure(&self, node: &Arc<Node>, need: Need) -> Result<()> {
        copyup::ensure(&self.tree, &self.settings, node, need)
    }

    /// Takes back `count` lookups of `ino`.
    pub fn forget(&self, ino: u64, count: u64) {
        self.tree.forget(ino, count);
        self.forget_deleted(ino);
    }

    /// How many nodes the kernel knows.
    pub fn nodes(&self) -> usize {
        self.tree.table.len()
    }

    /// How many descriptors of layers' directories and of files are open.
    pub fn descriptors(&self) -> (usize, usize) {
        (self.tree.layers.fds.len(), self.tree.files.len())
    }

    /// What was fetched before anybody asked for it.
    pub fn fetched_ahead(&self) -> Fetched {
        self.ahead.fetched()
    }

    /// The figures of the upper's filesystem (the top lower's without an upper).
    ///
    /// # Errors
    /// fstatfs's.
    pub fn statfs(&self) -> Result<FsStat> {
        let top = self.tree.layers.top().ok_or(Errno::EIO)?;
        Ok(fs::statfs(&*top.root)?)
    }
}
