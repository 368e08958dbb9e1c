//! All figures of a mount at the moment of asking.

use crate::observe::Observer;
use crate::observe::figures::{Descriptors, Fetched, Figures, Memory, Partly, Present};
use crate::union::Union;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// With fewer nodes than this, what the daemon needs anyway is most of it.
const NODES_THAT_TELL: u64 = 1000;

/// Who knows where the figures are.
#[derive(Debug)]
pub struct Gatherer {
    /// The union ends with its mount, though somebody may still be asking.
    union: Weak<Union>,
    /// What was counted.
    pub observer: Arc<Observer>,
    mount: PathBuf,
    device: Option<(u32, u32)>,
    /// Resident memory before anything was served, bytes.
    at_first: u64,
}

/// Resident memory now, and at most so far, bytes.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kilobytes.unwrap_or(0u64) * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// How many descriptors are open, and how many may be.
fn descriptors() -> (u64, u64) {
    // The one that reads the directory is among them.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count().saturating_sub(1));
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    (open as u64, limit.unwrap_or(0))
}

impl Gatherer {
    /// How many files are known to be partly copied, and how many bytes they lack.
    pub fn left(&self) -> Partly {
        self.union
            .upgrade()
            .map_or_else(Partly::default, |union| union.left())
    }

    /// Of `union`, mounted at `mount` with `device`, and counted for by `observer`.
    pub fn new(
        union: &Arc<Union>,
        observer: &Arc<Observer>,
        mount: &Path,
        device: Option<(u32, u32)>,
    ) -> Gatherer {
        Gatherer {
            union: Arc::downgrade(union),
            observer: observer.clone(),
            mount: mount.to_owned(),
            device,
            at_first: memory().0,
        }
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        let (resident_bytes, peak_bytes) = memory();
        let (open, limit) = descriptors();
        let union = self.union.upgrade();
        let union = union.as_deref();
        let nodes = union.map_or(0, Union::nodes) as u64;
        let (directories, files) = union.map_or((0, 0), Union::descriptors);
        let grown = resident_bytes.saturating_sub(self.at_first);
        let present = Present {
            device: self
                .device
                .map(|(major, minor)| format!("{major}:{minor}"))
                .unwrap_or_default(),
            pid: std::process::id(),
            nodes,
            descriptors: Descriptors {
                open,
                limit,
                directories: directories as u64,
                files: files as u64,
            },
            partly_copied: union.map_or_else(Partly::default, Union::left),
            fetched_ahead: union.map_or_else(Fetched::default, Union::fetched_ahead),
            memory: Memory {
                resident_bytes,
                peak_bytes,
                per_node_bytes: (nodes >= NODES_THAT_TELL).then(|| grown / nodes.max(1)),
            },
            ..Present::default()
        };
        Figures::of(
            &self.observer,
            present.at(self.mount.as_os_str().as_bytes()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_memory_and_descriptors() {
        let (resident, peak) = memory();
        assert!(resident > 100_000 && peak >= resident, "{resident} {peak}");
        let (open, limit) = descriptors();
        assert!(open >= 3 && limit >= open, "{open} {limit}");
    }
}
