//! Nodes: the files of the union that the kernel knows, and where each really is.

pub mod ahead;
pub mod backlog;
pub mod dir;
pub mod door;
pub mod handles;
pub mod lock;
pub mod partial;
pub mod source;
pub mod stack;
pub mod table;
pub mod xattrs;

use crate::error::{Errno, Result};
use crate::layer::LayerSet;
use crate::layer::dirfds::RealDir;
use crate::layer::marks::Known;
use crate::merge::inomap::{Ino, InoMap, ROOT, RealId};
use crate::merge::listing::CookieKey;
use crate::merge::name::Name;
use crate::observe::Way;
use crate::sys::fs::{S_IFDIR, S_IFMT, S_IFREG, Stat};
use backlog::Backlog;
use dir::DirPart;
use handles::FileFds;
use parking_lot::{Mutex, RwLock};
use stack::{Lower, Stack};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use table::NodeTable;
use xattrs::KnownXattrs;

/// Where a node is in the union, which is also where its upper part is.
#[derive(Clone, Debug)]
pub enum Place {
    /// The root of the union.
    Root,
    /// This name in that directory; of several hard links, one of them.
    Named(Arc<Node>, Name),
    /// A hard link copied up: its upper part is this entry of the index, whatever
    /// becomes of its names.
    Indexed(Box<[u8]>),
    /// No name is known any more; its upper part is kept open.
    Held(Arc<OwnedFd>),
    /// No name any more, and nothing of it is in the upper.
    Gone,
}

impl Place {
    /// Writes the way there from the root of the union, `.` for the root itself; false where
    /// no name is known.
    pub fn tell(&self, way: &mut Way) -> bool {
        match self {
            Place::Root => way.prepend(b"."),
            Place::Named(parent, name) => return parent.tell_way_to(name, way),
            Place::Indexed(_) | Place::Held(_) | Place::Gone => return false,
        }
        true
    }
}

/// One file of the union.
#[derive(Debug)]
pub struct Node {
    /// Its inode number; never changes.
    pub ino: Ino,
    /// Its type, as `S_IF*`; never changes.
    pub kind: u32,
    /// Names, children and listing, of a directory.
    pub dir: Option<Box<DirPart>>,
    /// Held while it is copied up, and by whoever changes its place.
    pub copyup: Mutex<()>,
    place: RwLock<Place>,
    stack: RwLock<Arc<Stack>>,
    lookups: AtomicU64,
    /// Known to have no setuid, setgid or capabilities that a write would clear.
    harmless: AtomicBool,
    /// Its capabilities were the last thing that was taken away.
    capability_removed: AtomicBool,
    /// Its name, and that its data is in the upper, are known to be on the disk.
    on_disk: AtomicBool,
    /// What is known of its xattrs.
    pub xattrs: KnownXattrs,
    /// Known to be the only name of its real file.
    single: AtomicBool,
    /// Known to have no redirect in the upper.
    plain: AtomicBool,
    /// Whether the layers below the upper show something at its name, of which only the
    /// upper's part counts.
    covers: Known,
}

impl Node {
    /// A node at `place` that lives in `stack`.
    pub fn new(ino: Ino, kind: u32, place: Place, stack: Stack) -> Node {
        Node {
            ino,
            kind,
            dir: (kind == S_IFDIR).then(Box::default),
            copyup: Mutex::new(()),
            place: RwLock::new(place),
            stack: RwLock::new(Arc::new(stack)),
            lookups: AtomicU64::new(0),
            harmless: AtomicBool::new(false),
            capability_removed: AtomicBool::new(false),
            on_disk: AtomicBool::new(false),
            xattrs: KnownXattrs::default(),
            single: AtomicBool::new(false),
            plain: AtomicBool::new(false),
            covers: Known::default(),
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == S_IFREG
    }

    /// Its directory part.
    ///
    /// # Errors
    /// ENOTDIR where it is no directory.
    pub fn as_dir(&self) -> Result<&DirPart> {
        self.dir.as_deref().ok_or(Errno::ENOTDIR)
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place.read().clone()
    }

    /// Writes the way to `name` in it, as [`Place::tell`] has it.
    pub fn tell_way_to(&self, name: &[u8], way: &mut Way) -> bool {
        way.prepend(name);
        let (mut dir, mut above) = (self, None);
        while dir.ino != ROOT {
            let next = match &*dir.place.read() {
                Place::Root => break,
                Place::Named(parent, name) => {
                    way.prepend(b"/");
                    way.prepend(name);
                    (parent.ino != ROOT).then(|| parent.clone())
                }
                Place::Indexed(_) | Place::Held(_) | Place::Gone => return false,
            };
            let Some(next) = next else { break };
            dir = above.insert(next);
        }
        true
    }

    /// Where it lives.
    pub fn stack(&self) -> Arc<Stack> {
        self.stack.read().clone()
    }

    /// Whether it has a part in the upper.
    pub fn in_upper(&self) -> bool {
        self.stack.read().upper.is_some()
    }

    /// Replaces its stack, whole.
    pub fn set_stack(&self, stack: Stack) {
        let stack = Arc::new(stack);
        let _old = std::mem::replace(&mut *self.stack.write(), stack);
    }

    /// Whether no name of it is left.
    pub fn is_removed(&self) -> bool {
        matches!(*self.place.read(), Place::Held(_) | Place::Gone)
    }

    /// Whether its place is `name` in `parent`.
    pub fn is_at(&self, parent: &Node, name: &[u8]) -> bool {
        matches!(&*self.place.read(), Place::Named(p, n) if p.ino == parent.ino && &**n == name)
    }

    /// Whether writing to it need not clear setuid, setgid and capabilities.
    pub fn is_harmless(&self) -> bool {
        self.harmless.load(Ordering::Relaxed)
    }

    /// Notes that its capabilities were taken away.
    pub fn note_capability_removed(&self) {
        self.capability_removed.store(true, Ordering::Relaxed);
    }

    /// Whether its capabilities were taken away since this was last asked.
    pub fn took_capability_removed(&self) -> bool {
        self.capability_removed.swap(false, Ordering::Relaxed)
    }

    /// Whether fdatasync(2) of its upper file is enough for all of it: once that was made by
    /// a copy-up, its name is nothing that fdatasync knows of.
    pub fn is_on_disk(&self) -> bool {
        self.on_disk.load(Ordering::Acquire)
    }

    /// Notes whether it was synced since it was copied up.
    pub fn set_on_disk(&self, yes: bool) {
        self.on_disk.store(yes, Ordering::Release);
    }

    /// Whether its real file is known to have no other name.
    pub fn is_single(&self) -> bool {
        self.single.load(Ordering::Acquire)
    }

    /// Notes whether it is.
    pub fn set_single(&self, yes: bool) {
        self.single.store(yes, Ordering::Release);
    }

    /// Whether its part in the upper is known to have no redirect.
    pub fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Acquire)
    }

    /// Notes whether it is.
    pub fn set_plain(&self, yes: bool) {
        self.plain.store(yes, Ordering::Release);
    }

    /// Whether the layers below the upper show something at its name, as far as that is
    /// known: they do where it is in one of them.
    pub fn covers(&self) -> Option<bool> {
        if self.in_upper() {
            self.covers.get()
        } else {
            Some(true)
        }
    }

    /// Notes whether they do; its next place is another.
    pub fn set_covers(&self, yes: bool) {
        self.covers.learn(yes);
    }

    /// Notes whether it is harmless.
    pub fn set_harmless(&self, yes: bool) {
        self.harmless.store(yes, Ordering::Relaxed);
    }
}

/// What the whole tree of nodes shares.
#[derive(Debug)]
pub struct Tree {
    /// The layers.
    pub layers: LayerSet,
    /// The nodes that the kernel knows.
    pub table: NodeTable,
    /// Open files.
    pub files: FileFds,
    /// Partly copied files.
    pub backlog: Backlog,
    /// The key of directory cookies.
    pub cookies: CookieKey,
    /// Held by a rename between two directories.
    pub rename_gate: Mutex<()>,
    /// The root; it is never forgotten.
    pub root: Arc<Node>,
    /// Reading a file of the upper updates its access time.
    pub atime: bool,
    inos: RwLock<InoMap>,
    /// The numbers of upper files that keep the one they had in a lower layer though
    /// nothing on disk says so, by their inode in the upper.
    adopted: RwLock<HashMap<u64, Ino>>,
    /// Nodes whose last name is gone and whose upper part is kept open.
    held: AtomicUsize,
    /// When one became so last: milliseconds since `start`.
    held_at: AtomicU64,
    start: Instant,
}

impl Tree {
    /// The tree over `layers`; `file_fds` bounds the open files, `atime` is whether access
    /// times are kept.
    ///
    /// # Errors
    /// When there is no layer, or a root cannot be looked at.
    pub fn new(layers: LayerSet, file_fds: usize, atime: bool) -> Result<Tree> {
        let top = layers.top().ok_or(Errno::EINVAL)?;
        let mut inos = InoMap::default();
        let stat = top.look(crate::sys::path::At::fd(&*top.root))?.stat;
        inos.assign(RealId {
            dev: stat.dev,
            ino: stat.ino,
        });
        let dirs = layers
            .lowers
            .iter()
            .map(|layer| Arc::new(RealDir::root(layer.clone())))
            .collect();
        let stack = Stack {
            upper: layers.upper.as_ref().map(|_| stat.ino),
            lower: Lower::Dirs(dirs),
            data: None,
            partial: None,
        };
        let root = Arc::new(Node::new(ROOT, S_IFDIR, Place::Root, stack));
        let table = NodeTable::default();
        table.insert_root(root.clone());
        Ok(Tree {
            layers,
            table,
            files: FileFds::new(file_fds),
            backlog: Backlog::default(),
            cookies: CookieKey::default(),
            rename_gate: Mutex::new(()),
            root,
            atime,
            inos: RwLock::new(inos),
            adopted: RwLock::default(),
            held: AtomicUsize::new(0),
            held_at: AtomicU64::new(0),
            start: Instant::now(),
        })
    }

    /// The union's number for a real file.
    pub fn ino_of(&self, id: RealId) -> Ino {
        if let Some(ino) = self.inos.read().get(id) {
            return ino;
        }
        self.inos.write().assign(id)
    }

    /// The union's number for a real file that was looked at.
    pub fn ino_of_stat(&self, stat: &Stat) -> Ino {
        self.ino_of(RealId {
            dev: stat.dev,
            ino: stat.ino,
        })
    }

    /// The number of the lower file `real` seen as `name` in `dir`, of type and mode
    /// `mode` and with `links` names there.
    pub fn ino_of_lower(&self, real: RealId, dir: Ino, name: &[u8], mode: u32, links: u32) -> Ino {
        if links > 1 && self.parts_links(mode) {
            return self.inos.write().assign_apart(dir, name);
        }
        self.ino_of(real)
    }

    /// A number for what is shown as `name` in `dir`, where the one of its real file is
    /// another's.
    pub fn ino_apart(&self, dir: Ino, name: &[u8]) -> Ino {
        self.inos.write().assign_apart(dir, name)
    }

    /// Whether hard links of a lower layer, of type and mode `mode`, are several files
    /// here: where the index cannot hold them together a change through one name must not
    /// show through another, for it would be gone from there after a remount.
    pub fn parts_links(&self, mode: u32) -> bool {
        mode & S_IFMT != S_IFDIR && self.layers.upper.is_some() && !self.is_indexed(mode)
    }

    /// Whether copied-up hard links of this type are kept in the index.
    pub fn is_indexed(&self, mode: u32) -> bool {
        self.index_dir().is_ok()
            && self
                .layers
                .upper
                .as_ref()
                .is_some_and(|upper| upper.records_identity(mode))
    }

    /// Notes which number the upper's inode `upper` goes by, if not by its own or by
    /// that of its origin.
    pub fn adopt(&self, upper: u64, ino: Option<Ino>) {
        match ino {
            Some(ino) => {
                self.adopted.write().insert(upper, ino);
            }
            None if self.adopted.read().is_empty() => {}
            None => {
                self.adopted.write().remove(&upper);
            }
        }
    }

    /// What [`Tree::adopt`] noted.
    pub fn adopted(&self, upper: u64) -> Option<Ino> {
        self.adopted.read().get(&upper).copied()
    }

    /// The node that the kernel calls `ino`.
    ///
    /// # Errors
    /// ESTALE for a number that it was never told or has forgotten.
    pub fn node(&self, ino: Ino) -> Result<Arc<Node>> {
        if ino == ROOT {
            return Ok(self.root.clone());
        }
        self.table.get(ino).ok_or(Errno::ESTALE)
    }

    /// Gives `node` another place; whoever does it holds its copy-up lock.
    pub fn set_place(&self, node: &Node, place: Place) {
        let old = self.swap_place(node, place);
        if let Place::Named(parent, _) = old {
            self.reap(parent);
        }
    }

    fn swap_place(&self, node: &Node, place: Place) -> Place {
        if matches!(place, Place::Held(_)) {
            self.held_at.store(self.now(), Ordering::Relaxed);
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        let mut there = node.place.write();
        node.covers.forget();
        let old = std::mem::replace(&mut *there, place);
        drop(there);
        match old {
            Place::Held(file) => {
                // The filesystem frees its room in this close, which may take a while.
                drop(file);
                self.held.fetch_sub(1, Ordering::Relaxed);
                Place::Gone
            }
            old => old,
        }
    }

    /// Whether files that were deleted within `a_moment` may still take up space, since
    /// the kernel has not forgotten them yet.
    pub fn holds_deleted(&self, a_moment: Duration) -> bool {
        let age = self
            .now()
            .saturating_sub(self.held_at.load(Ordering::Relaxed));
        self.held.load(Ordering::Relaxed) > 0 && u128::from(age) < a_moment.as_millis()
    }

    /// Milliseconds since there is this tree.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes back `count` lookups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Some(node) = self.table.release(ino, count) {
            self.bury(node);
        }
    }

    /// Lets go of a directory that a child held, and of its ancestors, if the kernel
    /// has forgotten them.
    fn reap(&self, parent: Arc<Node>) {
        if let Some(node) = self.table.remove_unused(parent) {
            self.bury(node);
        }
    }

    /// Closes the descriptors that were cached for a directory.
    fn close_dirs(&self, node: &Node) {
        self.layers.fds.drop_upper(node.ino);
        for dir in node.stack().lower_dirs() {
            self.layers.fds.drop_lower(dir);
        }
    }

    /// Takes down a node that left the table, and the ancestors which only it kept.
    fn bury(&self, node: Arc<Node>) {
        let mut next = Some(node);
        while let Some(node) = next {
            self.files.forget(node.ino);
            if node.is_dir() {
                self.close_dirs(&node);
            }
            let place = self.swap_place(&node, Place::Gone);
            drop(node);
            next = match place {
                Place::Named(parent, _) => self.table.remove_unused(parent),
                _ => None,
            };
        }
        self.table.shrink();
    }
}
