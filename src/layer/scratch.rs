//! The work directory: temporaries, the index, the start-up sweep, and the lock
//! against a second mount.
//!
//! ```text
//! WORK/            locked with flock(2) while mounted
//! WORK/work/       temporaries, named #1, #2, …; emptied at every start
//! WORK/index/      copied-up hard links, by their origin (overlayfs.rst, "Index")
//! WORK/settling    while `plyfs settle` moves the marks to the other namespace
//! ```

use super::marks::Known;
use super::partial;
use super::volatile;
use super::whiteouts::SharedWhiteout;
use crate::error::{Errno, MountError, SysError, best_effort};
use crate::sys::dir::for_each;
use crate::sys::fs::{self, O_DIRECTORY, O_NOFOLLOW, O_RDONLY};
use crate::sys::path::At;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TEMPORARIES: &[u8] = b"work";
const INDEX: &[u8] = b"index";

/// In the work directory, where a settle that moves the marks to the other namespace notes
/// that all of them are there, and is about to drop the old ones.
pub const SETTLING: &[u8] = b"settling";

/// How long a new mount waits for the daemon of the last one to let go.
pub const MOUNT_PATIENCE: Duration = Duration::from_secs(10);

/// An open, locked and swept work directory.
#[derive(Debug)]
pub struct Scratch {
    /// Holds the lock as long as it is open.
    lock: OwnedFd,
    dir: OwnedFd,
    index: Option<Arc<OwnedFd>>,
    next: AtomicU64,
    mount: u32,
    whiteout: SharedWhiteout,
    /// Whether it says that there may be partly copied files.
    pub has_partial: Known,
    /// Whether it said so when it was opened, and those files were not looked for since.
    pub found_partial: Known,
}

impl Scratch {
    /// Locks `root` (the directory that the user named), sweeps its temporaries, and
    /// opens the index if one is wanted; `volatile` is whether the upper shall be.
    ///
    /// # Errors
    /// When another mount keeps it, it cannot be written, or its upper was volatile when
    /// the machine went down.
    pub fn open(
        root: OwnedFd,
        path: &Path,
        with_index: bool,
        volatile: bool,
    ) -> Result<Scratch, MountError> {
        lock_patiently(&root, path, "work directory", MOUNT_PATIENCE)?;
        let refuse = |e: SysError| {
            MountError::new(
                path.display(),
                format_args!("cannot prepare the work directory: {e}"),
                "name a work directory that you may write, on the upper's filesystem",
            )
        };
        let dir = own_subdirectory(&root, TEMPORARIES).map_err(refuse)?;
        volatile::admit(&dir, path)?;
        let has_partial = partial::may_be_there(&dir).map_err(refuse)?;
        if has_partial {
            // The note is never gone, not even for a moment.
            let incompat = partial::open_incompat(&dir).map_err(refuse)?;
            sweep(&incompat, Some(partial::PARTIAL)).map_err(refuse)?;
        }
        sweep(&dir, has_partial.then_some(partial::INCOMPAT)).map_err(refuse)?;
        if volatile {
            volatile::begin(&dir).map_err(refuse)?;
        }
        let index = if with_index {
            best_effort("open the index", own_subdirectory(&root, INDEX)).map(Arc::new)
        } else {
            None
        };
        let noted = Known::default();
        noted.learn(has_partial);
        let found = Known::default();
        found.learn(has_partial);
        Ok(Scratch {
            lock: root,
            dir,
            index,
            next: AtomicU64::new(1),
            mount: RandomState::new().hash_one(()) as u32,
            whiteout: SharedWhiteout::default(),
            has_partial: noted,
            found_partial: found,
        })
    }

    /// Whether another mount waits for the lock.
    pub fn is_awaited(&self) -> bool {
        fs::is_waited_for(&self.lock).unwrap_or(false)
    }

    /// Where temporaries are made.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Where copied-up hard links are found again.
    pub fn index(&self) -> Option<&Arc<OwnedFd>> {
        self.index.as_ref()
    }

    /// A number by which this mount is told from others.
    pub fn mount(&self) -> u32 {
        self.mount
    }

    /// A name that nothing in [`Scratch::dir`] has.
    pub fn temp_name(&self) -> Vec<u8> {
        format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    /// Makes a whiteout device at `at`, in the upper or among the temporaries.
    ///
    /// # Errors
    /// mknodat's or linkat's; EEXIST where something is there.
    pub fn make_whiteout(&self, at: At<'_>) -> Result<(), SysError> {
        self.whiteout.make(self, at)
    }

    /// Removes a temporary, file or tree; what remains is swept at the next mount.
    pub fn discard(&self, name: &[u8]) {
        best_effort("discard a temporary", remove_tree(&self.dir, name));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.whiteout.release(self);
    }
}

/// Takes the lock on an open directory, waiting while a daemon that is about to end
/// still has it.
///
/// # Errors
/// When it is not let go in time.
pub fn lock_patiently(
    dir: &OwnedFd,
    path: &Path,
    role: &str,
    patience: Duration,
) -> Result<(), MountError> {
    if fs::try_lock(dir).is_ok() {
        return Ok(());
    }
    // A daemon that only fills what it left partly copied makes way.
    best_effort("tell that the lock is waited for", fs::wait_for(dir));
    let locked = lock_in_time(dir, path, role, patience);
    best_effort("tell that it is not", fs::wait_no_more(dir));
    locked
}

fn lock_in_time(
    dir: &OwnedFd,
    path: &Path,
    role: &str,
    patience: Duration,
) -> Result<(), MountError> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let error = match fs::try_lock(dir) {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        if error.errno != Errno::EAGAIN {
            // NFS and others without flock: mounting without the lock is what the
            // kernel's overlayfs does there too.
            log::warn!("{}: {error}: mounted without a lock", path.display());
            return Ok(());
        }
        if start.elapsed() >= patience {
            return Err(MountError::new(
                path.display(),
                format_args!("the {role} is in use by another plyfs mount"),
                "unmount that one first, or name another upper and work directory",
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Opens `name` in `root`, made if it is missing; overlayfs leaves it without any
/// permission, which stops a daemon that is not root.
fn own_subdirectory(root: &OwnedFd, name: &[u8]) -> Result<OwnedFd, SysError> {
    let at = At::new(root, name);
    match fs::mkdir(at, 0o700) {
        Err(e) if e.errno == Errno::EEXIST => {
            best_effort("open up the work directory", fs::chmod(at, 0o700));
        }
        other => other?,
    }
    fs::open(at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
}

fn sweep(dir: &OwnedFd, spared: Option<&[u8]>) -> Result<(), SysError> {
    let mut names = Vec::new();
    for_each(dir, |entry| {
        names.push(entry.name.to_vec());
        Ok::<_, SysError>(())
    })?;
    for name in names {
        if spared == Some(&*name) {
            continue;
        }
        log::info!("sweeping temporary {}", name.escape_ascii());
        remove_tree(dir, &name)?;
    }
    Ok(())
}

/// Removes `name` in `dir` with all that is in it, following no symlink. Only one
/// level of the tree is open at a time but its ancestors'.
///
/// # Errors
/// The first that is not ENOENT.
pub fn remove_tree(dir: &OwnedFd, name: &[u8]) -> Result<(), SysError> {
    let at = At::new(dir, name);
    match fs::unlink(at) {
        Ok(()) => return Ok(()),
        Err(e) if e.errno == Errno::ENOENT => return Ok(()),
        Err(e) if matches!(e.errno, Errno::EISDIR | Errno::EPERM) => {}
        Err(e) => return Err(e),
    }
    match fs::rmdir(at) {
        Ok(()) => return Ok(()),
        Err(e) if matches!(e.errno, Errno::ENOTEMPTY | Errno::EEXIST | Errno::EACCES) => {}
        Err(e) => return Err(e),
    }
    let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    let inner = match fs::open(at, flags, 0) {
        Err(e) if e.errno == Errno::EACCES => {
            fs::chmod(at, 0o700)?;
            fs::open(at, flags, 0)?
        }
        other => other?,
    };
    sweep(&inner, None)?;
    fs::rmdir(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::open_path;
    use std::os::unix::fs::symlink;

    fn root(path: &Path) -> OwnedFd {
        open_path(path, O_RDONLY | O_DIRECTORY).unwrap()
    }

    #[test]
    fn temporaries_are_swept_at_start_and_nothing_else() {
        let tmp = tempfile::tempdir().unwrap();
        let old = tmp.path().join("work/#1/a/b");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::write(old.join("file"), "x").unwrap();
        let outside = tmp.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, tmp.path().join("work/#1/link")).unwrap();
        let scratch = Scratch::open(root(tmp.path()), tmp.path(), true, false).unwrap();
        assert_eq!(
            std::fs::read_dir(tmp.path().join("work")).unwrap().count(),
            0
        );
        assert!(outside.join("kept").exists());
        assert!(scratch.index().is_some());
        assert_ne!(scratch.temp_name(), scratch.temp_name());
    }

    #[test]
    fn a_second_mount_of_the_same_work_directory_is_refused_by_name() {
        let tmp = tempfile::tempdir().unwrap();
        let _first = Scratch::open(root(tmp.path()), tmp.path(), false, false).unwrap();
        let error = Scratch::open(root(tmp.path()), tmp.path(), false, false).unwrap_err();
        assert_eq!(error.what, tmp.path().display().to_string());
        assert!(error.cause.contains("in use"));
    }
}
