//! Scratch directories of a test run, and the sweep of what a killed run left.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{mount, sys};

const PREFIX: &str = "plyfs-test-";

/// A fresh directory below `PLYFS_TEST_DIR` (else the system's own temporary directory), removed
/// on drop unless `PLYFS_TEST_KEEP` is set.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static SWEEP: std::sync::Once = std::sync::Once::new();
        SWEEP.call_once(sweep_stale);
        let path = base().join(format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir(&path).expect("a scratch directory can be made");
        Scratch { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory inside.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).expect("a directory in the scratch directory can be made");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("PLYFS_TEST_KEEP").is_none() {
            mount::release_below(&self.path);
            remove_tree(&self.path);
        }
    }
}

pub fn base() -> PathBuf {
    std::env::var_os("PLYFS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Removes a tree whatever its modes; mounts below must be gone already.
pub fn remove_tree(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        eprintln!("{}: not removed: {error}", path.display());
    }
}

/// Frees what a killed run left: its mounts, then its directories.
fn sweep_stale() {
    let Ok(entries) = std::fs::read_dir(base()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| sys::kill(pid, 0) == Err(libc::ESRCH)) {
            mount::release_below(&entry.path());
            remove_tree(&entry.path());
        }
    }
}
