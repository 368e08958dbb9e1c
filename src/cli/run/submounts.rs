//! Filesystems mounted below a lower layer: which are brought in, and how.
//!
//! A layer ends where another filesystem is mounted on it, so each of those becomes a
//! union of its own, its upper beside the others. What is mounted read-only is bound
//! as it is. The kernel's own filesystems are not brought in: /proc, /dev and /sys are
//! made anew inside, and the others mean nothing in a union.

use crate::sys::fs::{open_path, stat_unsynced};
use crate::sys::mountinfo::{self, Mount};
use crate::sys::path::At;
use crate::sys::process::O_PATH;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// More unions than this are not made: the rest is bound read-only.
const UNIONS_MAX: usize = 32;

/// Filesystems that are windows into the kernel.
const PSEUDO: [&str; 24] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cpuset",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// How a filesystem is brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// As a union over these directories, topmost first.
    Union(Vec<PathBuf>),
    /// As it is, read-only.
    ReadOnly,
}

/// One filesystem mounted below a lower layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submount {
    /// Where the command sees it.
    pub inside: PathBuf,
    /// Where it is outside.
    pub source: PathBuf,
    /// How it is brought in.
    pub how: How,
}

/// What is mounted below `lowers`, in an order in which it can be mounted.
pub fn find(lowers: &[PathBuf]) -> Vec<Submount> {
    match mountinfo::read() {
        Ok(table) => select(&table, lowers, &is_reachable),
        Err(e) => {
            log::warn!("mounts below the lower layers are unknown: {e}");
            Vec::new()
        }
    }
}

/// Whether the mount is the one that its path leads to, is a directory, and may be read.
fn is_reachable(mount: &Mount) -> bool {
    let found = open_path(&mount.point, O_PATH)
        .and_then(|fd| stat_unsynced(At::fd(&fd)))
        .map_err(|e| log::info!("{}: left out: {e}", mount.point.display()));
    // A file that is mounted on a file is seen through the layer itself.
    found.is_ok_and(|stat| stat.mnt_id == mount.id && stat.is_dir())
}

fn select(
    table: &[Mount],
    lowers: &[PathBuf],
    reachable: &dyn Fn(&Mount) -> bool,
) -> Vec<Submount> {
    let mut found: BTreeMap<PathBuf, Submount> = BTreeMap::new();
    let mut unions = 0;
    for mount in table.iter().rev() {
        let below = lowers
            .iter()
            .enumerate()
            .filter_map(|(i, lower)| Some((i, mount.point.strip_prefix(lower).ok()?)))
            .filter(|(_, rest)| !rest.as_os_str().is_empty());
        for (owner, rest) in below {
            let inside = Path::new("/").join(rest);
            if found.contains_key(&inside) || is_ours(rest) {
                continue;
            }
            if PSEUDO.contains(&mount.fs_type.as_str()) {
                log::info!("{}: {} is left out", inside.display(), mount.fs_type);
                continue;
            }
            if !reachable(mount) {
                continue;
            }
            let how = if mount.read_only {
                How::ReadOnly
            } else if unions == UNIONS_MAX {
                log::warn!("{}: read-only, being one union too many", inside.display());
                How::ReadOnly
            } else {
                unions += 1;
                How::Union(layers(lowers, owner, rest, &mount.point))
            };
            let source = mount.point.clone();
            found.insert(
                inside.clone(),
                Submount {
                    inside,
                    source,
                    how,
                },
            );
        }
    }
    found.into_values().collect()
}

/// Whether `rest` lies in what is made anew inside.
fn is_ours(rest: &Path) -> bool {
    let first = rest.components().next();
    first.is_some_and(|first| {
        ["proc", "dev", "sys"]
            .iter()
            .any(|own| first == Component::Normal(own.as_ref()))
    })
}

/// The mount at `point` in lower number `owner`, and what the other lowers have there.
fn layers(lowers: &[PathBuf], owner: usize, rest: &Path, point: &Path) -> Vec<PathBuf> {
    lowers
        .iter()
        .enumerate()
        .filter_map(|(i, lower)| {
            if i == owner {
                return Some(point.to_owned());
            }
            let there = lower.join(rest);
            let real = there.canonicalize().ok()?;
            // A symlink on the way leads out of the layer, or to another place in it.
            (real == there && real.is_dir() && real != point).then_some(there)
        })
        .collect()
}

/// `inside` as one file name.
pub fn name_of(inside: &Path) -> String {
    let bytes = inside.as_os_str().as_bytes();
    let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
    bytes
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, point: &str, fs_type: &str) -> Mount {
        Mount {
            id,
            dev: (0, id as u32),
            point: point.into(),
            read_only: fs_type == "squashfs",
            idmapped: false,
            fs_type: fs_type.into(),
            source: "x".into(),
            owner: None,
            fs_options: String::new(),
        }
    }

    fn chosen(table: &[Mount], lowers: &[&str]) -> Vec<(String, How)> {
        let lowers: Vec<_> = lowers.iter().map(PathBuf::from).collect();
        select(table, &lowers, &|_| true)
            .into_iter()
            .map(|found| (found.inside.display().to_string(), found.how))
            .collect()
    }

    #[test]
    fn real_filesystems_become_unions_and_the_kernels_own_are_left_out() {
        let table = [
            mount(1, "/", "ext4"),
            mount(2, "/proc", "proc"),
            mount(3, "/dev/shm", "tmpfs"),
            mount(4, "/run/rpc_pipefs", "rpc_pipefs"),
            mount(5, "/home", "xfs"),
            mount(6, "/snap/a", "squashfs"),
            mount(7, "/tmp", "tmpfs"),
        ];
        assert_eq!(
            chosen(&table, &["/"]),
            [
                ("/home".into(), How::Union(vec!["/home".into()])),
                ("/snap/a".into(), How::ReadOnly),
                ("/tmp".into(), How::Union(vec!["/tmp".into()])),
            ]
        );
    }

    #[test]
    fn mounts_are_seen_from_the_lower_that_holds_them() {
        let table = [mount(1, "/", "ext4"), mount(2, "/srv/root/data", "xfs")];
        assert_eq!(
            chosen(&table, &["/srv/root"]),
            [("/data".into(), How::Union(vec!["/srv/root/data".into()]))]
        );
        assert_eq!(chosen(&table, &["/srv/other"]), []);
    }

    #[test]
    fn of_two_mounts_on_one_place_the_upper_one_counts() {
        let table = [mount(1, "/home", "squashfs"), mount(2, "/home", "ext4")];
        assert_eq!(
            chosen(&table, &["/"]),
            [("/home".into(), How::Union(vec!["/home".into()]))]
        );
    }

    #[test]
    fn no_more_than_so_many_unions_are_made() {
        let table: Vec<_> = (0..40)
            .map(|i| mount(i, &format!("/m/{i}"), "ext4"))
            .collect();
        let chosen = chosen(&table, &["/"]);
        let unions = chosen.iter().filter(|(_, how)| *how != How::ReadOnly);
        assert_eq!((chosen.len(), unions.count()), (40, UNIONS_MAX));
    }

    #[test]
    fn names_of_different_places_differ() {
        assert_eq!(name_of(Path::new("/home/a b")), "home%2Fa%20b");
        assert_eq!(name_of(Path::new("/home%2Fa")), "home%252Fa");
    }
}
