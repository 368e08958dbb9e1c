//! The one way from a node to a real file.

use super::stack::{DataBelow, Lower};
use super::{Node, Place, Tree};
use crate::error::{Errno, Result, SysError};
use crate::layer::dirfds::{RealDir, open_dir};
use crate::layer::marks::Hints;
use crate::layer::{Layer, Look};
use crate::merge::name::Name;
use crate::sys::fs;
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// How often a file that moves while it is reached is tried again.
const TRIES: usize = 16;
/// How long one that keeps moving is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A real file: a directory that is held open and one component of it, or the file
/// itself held open.
#[derive(Debug)]
pub struct Door {
    fd: Arc<OwnedFd>,
    name: Option<Box<[u8]>>,
}

impl Door {
    /// `name` in `dir`.
    pub fn new(dir: Arc<OwnedFd>, name: &[u8]) -> Door {
        Door {
            fd: dir,
            name: Some(name.into()),
        }
    }

    /// The file that `fd` is open on.
    pub fn held(fd: Arc<OwnedFd>) -> Door {
        Door { fd, name: None }
    }

    /// For the system calls.
    pub fn at(&self) -> At<'_> {
        match &self.name {
            Some(name) => At::new(&*self.fd, name),
            None => At::fd(&*self.fd),
        }
    }
}

/// One layer's part of a directory.
#[derive(Debug)]
pub enum Part {
    /// The upper's.
    Upper(Arc<Layer>, Arc<OwnedFd>),
    /// A lower one.
    Lower(Arc<RealDir>),
}

impl Part {
    /// The layer that it is in.
    pub fn layer(&self) -> &Arc<Layer> {
        match self {
            Part::Upper(layer, _) => layer,
            Part::Lower(dir) => &dir.layer,
        }
    }

    /// What is known of the marks in it; `node` is the directory that it is a part of.
    pub fn hints<'a>(&'a self, node: &'a Node) -> Result<&'a Hints> {
        Ok(match self {
            Part::Upper(..) => &node.as_dir()?.upper_hints,
            Part::Lower(dir) => &dir.hints,
        })
    }
}

/// What was not where it should be on the way to a directory, most likely because it was
/// being moved.
struct Moved {
    /// A directory above the one that was asked for; `None` for that one.
    above: Option<Arc<Node>>,
    errno: Errno,
}

impl Moved {
    fn new(above: Option<Arc<Node>>, errno: Errno) -> Moved {
        Moved { above, errno }
    }
}

impl Tree {
    /// A descriptor of the real directory `part`; `None` where it is taken as empty.
    pub fn open_part(&self, part: &Part) -> Result<Option<Arc<OwnedFd>>> {
        match part {
            Part::Upper(_, fd) => Ok(Some(fd.clone())),
            Part::Lower(dir) if dir.covered => Ok(None),
            Part::Lower(dir) => Ok(Some(self.layers.fds.lower(dir)?)),
        }
    }

    /// The parts of directory `node`, topmost first.
    ///
    /// # Errors
    /// As [`Tree::upper_dir`].
    pub fn parts(&self, node: &Node) -> Result<Vec<Part>> {
        let stack = node.stack();
        let mut parts = Vec::with_capacity(1 + stack.lower_dirs().len());
        if let (Some(_), Some(layer)) = (stack.upper, &self.layers.upper) {
            parts.push(Part::Upper(layer.clone(), self.upper_dir(node)?));
        }
        parts.extend(stack.lower_dirs().iter().cloned().map(Part::Lower));
        Ok(parts)
    }

    /// The upper's layer.
    ///
    /// # Errors
    /// EROFS where there is none.
    pub fn upper_layer(&self) -> Result<&Arc<Layer>> {
        self.layers.upper.as_ref().ok_or(Errno::EROFS)
    }

    /// A descriptor of the upper's part of directory `node`.
    ///
    /// # Errors
    /// EROFS without an upper, ESTALE if it is not where it should be, else openat's.
    pub fn upper_dir(&self, node: &Node) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.open_upper_dir(node)? {
            return Ok(fd);
        }
        let mut last = Errno::ESTALE;
        for round in 0..TRIES {
            match self.walk_to_upper_dir(node)? {
                Ok(fd) => return Ok(fd),
                Err(moved) => {
                    last = moved.errno;
                    if round >= TRIES / 2 {
                        let mover = moved.above.as_deref().unwrap_or(node);
                        // Whoever moves it holds this lock.
                        drop(mover.copyup.try_lock_for(PATIENCE));
                    }
                }
            }
        }
        Err(last)
    }

    /// The upper's part of `node`, if it is open already.
    fn open_upper_dir(&self, node: &Node) -> Result<Option<Arc<OwnedFd>>> {
        match &*node.place.read() {
            Place::Root => return Ok(Some(self.upper_layer()?.root.clone())),
            Place::Held(fd) => return Ok(Some(fd.clone())),
            Place::Named(..) => {}
            Place::Indexed(_) | Place::Gone => return Err(Errno::ENOENT),
        }
        Ok(self.layers.fds.upper(node.ino))
    }

    /// Opens the upper's part of `node` from the nearest ancestor that is open: up, then
    /// down again, for a tree may be deeper than a stack.
    fn walk_to_upper_dir(&self, node: &Node) -> Result<std::result::Result<Arc<OwnedFd>, Moved>> {
        let there = |fd: Option<_>, above| fd.ok_or(Moved::new(above, Errno::ESTALE));
        let Place::Named(mut parent, name) = node.place() else {
            return Ok(there(self.open_upper_dir(node)?, None));
        };
        let mut way = vec![(node.ino, node.stack().upper, name, None)];
        let mut fd = loop {
            if let Some(fd) = self.open_upper_dir(&parent)? {
                break fd;
            }
            let Place::Named(above, name) = parent.place() else {
                return Ok(there(None, Some(parent)));
            };
            way.push((parent.ino, parent.stack().upper, name, Some(parent)));
            parent = above;
        };
        for (ino, upper, name, above) in way.into_iter().rev() {
            fd = match open_dir(At::new(&*fd, &name)) {
                Ok(fd) => Arc::new(fd),
                Err(e) if e.errno == Errno::ENOENT => {
                    return Ok(Err(Moved::new(above, e.errno)));
                }
                Err(e) => return Err(e.errno),
            };
            let found = fs::stat(At::fd(&*fd))?.ino;
            if upper != Some(found) && self.upper_layer()?.caps.keeps_numbers {
                return Ok(Err(Moved::new(above, Errno::ESTALE)));
            }
            self.layers.fds.keep_upper(ino, fd.clone());
        }
        Ok(Ok(fd))
    }

    /// The upper's part of `node`.
    ///
    /// # Errors
    /// As [`Tree::upper_dir`].
    pub fn upper_door(&self, node: &Node) -> Result<Door> {
        match node.place() {
            Place::Root => Ok(Door::held(self.upper_layer()?.root.clone())),
            Place::Named(parent, name) => Ok(Door::new(self.upper_dir(&parent)?, &name)),
            Place::Indexed(name) => Ok(Door::new(self.index_dir()?, &name)),
            Place::Held(fd) => Ok(Door::held(fd)),
            Place::Gone => Err(Errno::ENOENT),
        }
    }

    /// The directory of the index.
    ///
    /// # Errors
    /// ENOENT where there is none.
    pub fn index_dir(&self) -> Result<Arc<OwnedFd>> {
        self.layers
            .scratch
            .as_ref()
            .and_then(|s| s.index())
            .cloned()
            .ok_or(Errno::ENOENT)
    }

    /// The real directory `dir` of a lower layer as a file: the way to its attributes.
    pub fn lower_dir_door(&self, dir: &Arc<RealDir>) -> Result<Door> {
        match dir.place() {
            None => Ok(Door::held(dir.layer.root.clone())),
            Some((parent, name)) => Ok(Door::new(self.layers.fds.lower(parent)?, name)),
        }
    }

    /// The topmost real file of `node`, and its layer.
    ///
    /// # Errors
    /// As [`Tree::upper_dir`].
    pub fn door(&self, node: &Node) -> Result<(Arc<Layer>, Door)> {
        let stack = node.stack();
        if stack.upper.is_some() {
            return Ok((self.upper_layer()?.clone(), self.upper_door(node)?));
        }
        match &stack.lower {
            Lower::File(dir, name) => {
                let above = self.layers.fds.lower(dir)?;
                Ok((dir.layer.clone(), Door::new(above, name)))
            }
            Lower::Dirs(dirs) => {
                let dir = dirs.first().ok_or(Errno::EIO)?;
                Ok((dir.layer.clone(), self.lower_dir_door(dir)?))
            }
            Lower::None => Err(Errno::EIO),
        }
    }

    /// Runs `act` on the topmost real file of `node`, again where the file moved in
    /// between: `act` answers what it did with the inode number that it did it to.
    ///
    /// # Errors
    /// Those of `act`; ESTALE if the file cannot be caught.
    pub fn on_file<T>(
        &self,
        node: &Node,
        mut act: impl FnMut(&Layer, At<'_>) -> std::result::Result<(T, u64), SysError>,
    ) -> Result<T> {
        let mut last = Errno::ESTALE;
        let mut still = None;
        for round in 0..TRIES {
            if round == TRIES / 2 {
                // Whoever moves it holds this lock. A caller that has it itself never
                // gets here: under the lock the file stays where it is.
                still = node.copyup.try_lock_for(PATIENCE);
            }
            let upper = node.stack().upper;
            let (layer, door) = match self.door(node) {
                Err(Errno::ESTALE) if round == 0 => {
                    self.forget_way(node);
                    continue;
                }
                other => other?,
            };
            match act(&layer, door.at()) {
                Ok((value, ino)) if upper.is_none() || upper == Some(ino) => return Ok(value),
                // Another number says nothing there.
                Ok((value, _)) if !layer.caps.keeps_numbers => return Ok(value),
                Ok(_) => {}
                Err(e) if upper.is_some() && e.errno == Errno::ENOENT => last = e.errno,
                Err(e) if e.errno == Errno::ESTALE && round == 0 => self.forget_way(node),
                Err(e) => return Err(e.errno),
            }
        }
        drop(still);
        Err(last)
    }

    /// Closes the descriptors of the directories that lead to `node`: a server in the
    /// network does not know them any more. They are opened anew from the layers' roots.
    pub fn forget_way(&self, node: &Node) {
        let stack = node.stack();
        let lower = match &stack.lower {
            Lower::File(dir, _) => std::slice::from_ref(dir),
            Lower::Dirs(dirs) => dirs,
            Lower::None => &[],
        };
        for mut dir in lower {
            self.layers.fds.drop_lower(dir);
            while let Some((parent, _)) = dir.place() {
                self.layers.fds.drop_lower(parent);
                dir = parent;
            }
        }
        self.layers.fds.drop_upper(node.ino);
        let mut place = node.place();
        while let Place::Named(parent, _) = place {
            self.layers.fds.drop_upper(parent.ino);
            place = parent.place();
        }
    }

    /// Looks at the topmost real file of `node`.
    ///
    /// # Errors
    /// As [`Tree::on_file`].
    pub fn look(&self, node: &Node) -> Result<Look> {
        self.on_file(node, |layer, at| {
            let look = layer.look(at)?;
            Ok((look, look.stat.ino))
        })
    }

    /// Opens the topmost real file of `node`.
    ///
    /// # Errors
    /// As [`Tree::on_file`].
    pub fn open(&self, node: &Node, flags: i32) -> Result<OwnedFd> {
        let stack = node.stack();
        self.on_file(node, |layer, at| {
            let quiet = !layer.is_upper || !self.atime;
            let fd = open_unhindered(layer, at, flags | fs::O_NOFOLLOW, quiet)?;
            let ino = match stack.upper {
                Some(_) => fs::stat(At::fd(&fd))?.ino,
                None => 0,
            };
            Ok((fd, ino))
        })
    }

    /// Opens the file that has the data of `node`.
    ///
    /// # Errors
    /// As [`Tree::on_file`]; EIO where the data is lost.
    pub fn open_data(&self, node: &Node, flags: i32) -> Result<OwnedFd> {
        match &node.stack().data {
            Some(below) => Ok(self.open_below(below, flags)?.1),
            None => self.open(node, flags),
        }
    }

    /// Opens a lower file that has another's data, and says which layer it is in.
    ///
    /// # Errors
    /// EIO where the data is lost, else openat's.
    pub fn open_below(&self, below: &DataBelow, flags: i32) -> Result<(Arc<Layer>, OwnedFd)> {
        let DataBelow::File(file) = below else {
            return Err(Errno::EIO);
        };
        let above = self.layers.fds.lower(&file.dir)?;
        let at = At::new(&*above, &file.name);
        let layer = &file.dir.layer;
        let fd = open_unhindered(layer, at, flags | fs::O_NOFOLLOW, true)?;
        Ok((layer.clone(), fd))
    }

    /// The parent of `node` and its name there.
    ///
    /// # Errors
    /// ENOENT where it has no name.
    pub fn name_of(&self, node: &Node) -> Result<(Arc<Node>, Name)> {
        match node.place() {
            Place::Named(parent, name) => Ok((parent, name)),
            _ => Err(Errno::ENOENT),
        }
    }
}

/// Opens a file that is the daemon's business whatever its mode says: `quiet`ly,
/// without touching its access time, where that is allowed; an upper one of the
/// daemon's own even if its owner has no permission on it (the kernel has checked
/// the caller, and `open(O_CREAT | O_WRONLY, 0400)` must be able to write).
fn open_unhindered(
    layer: &Layer,
    at: At<'_>,
    flags: i32,
    quiet: bool,
) -> std::result::Result<OwnedFd, SysError> {
    // The magic links of /proc are symlinks themselves.
    let flags = if at.is_fd() {
        flags & !fs::O_NOFOLLOW
    } else {
        flags
    };
    if quiet {
        match fs::open(at, flags | fs::O_NOATIME, 0) {
            Err(e) if matches!(e.errno, Errno::EPERM | Errno::EACCES) => {}
            other => return other,
        }
    }
    match fs::open(at, flags, 0) {
        Err(e) if layer.is_upper && e.errno == Errno::EACCES => {
            let mode = fs::stat(at)?.mode & 0o7777;
            fs::chmod(at, mode | 0o600)?;
            let opened = fs::open(at, flags, 0);
            fs::chmod(at, mode)?;
            opened
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stack::Stack;
    use super::*;
    use crate::config::plan::{MountPlan, UpperPlan};
    use crate::layer::open::open_layers;
    use crate::merge::inomap::Ino;
    use crate::sys::fs::S_IFDIR;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::thread::{scope, yield_now};
    use std::time::Instant;

    /// A tree without lower content, whose upper is `dir`/upper.
    fn tree(dir: &Path) -> Tree {
        let at = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let plan = MountPlan {
            upper: Some(UpperPlan {
                upper: at("upper"),
                work: at("work"),
            }),
            respect_mounts: true,
            ..MountPlan::new(at("point"), vec![at("lower")])
        };
        Tree::new(open_layers(&plan).unwrap(), 16, false).unwrap()
    }

    fn place(parent: &Arc<Node>, name: &str) -> Place {
        Place::Named(parent.clone(), Name::new(name.as_bytes()).unwrap())
    }

    #[test]
    fn who_goes_through_a_directory_that_is_moved_waits_for_that() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        let upper = dir.path().join("upper");
        std::fs::create_dir_all(upper.join("old/inner")).unwrap();
        let number = |path: &str| std::fs::metadata(upper.join(path)).unwrap().ino();
        let node = |ino: Ino, at: Place, path: &str| {
            let stack = Stack::upper_only(number(path));
            Arc::new(Node::new(ino, S_IFDIR, at, stack))
        };
        let moved = node(100, place(&tree.root, "old"), "old");
        let inner = node(101, place(&moved, "inner"), "old/inner");

        let moving = moved.copyup.lock();
        std::fs::rename(upper.join("old"), upper.join("new")).unwrap();
        std::fs::create_dir_all(upper.join("old/inner")).unwrap();
        let found = scope(|scope| {
            let walk = scope.spawn(|| tree.upper_dir(&inner));
            // All tries of who does not wait are over long before.
            let end = Instant::now() + Duration::from_millis(50);
            while !walk.is_finished() && Instant::now() < end {
                yield_now();
            }
            tree.set_place(&moved, place(&tree.root, "new"));
            drop(moving);
            walk.join().unwrap()
        });
        let found = fs::stat(At::fd(&*found.unwrap())).unwrap();
        assert_eq!(found.ino, number("new/inner"));
    }
}
