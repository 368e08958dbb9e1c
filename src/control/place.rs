//! Where control sockets are: a directory that is its owner's alone.
//!
//! | who | directory |
//! |---|---|
//! | anybody with a runtime directory of their own, mode 0700 | `$XDG_RUNTIME_DIR/plyfs` |
//! | root | `/run/plyfs` |
//! | else | `/tmp/plyfs-UID` |
//! | where that is in a union too, as within `plyfs run` | `/dev/shm/plyfs-UID` |
//!
//! A union shows the sockets of daemons outside, which cannot be reached from inside, and what
//! is done to them there would be a change like any other: no place is in a FUSE filesystem.
//! The directory is opened once, without following a symlink, and looked at; whatever is
//! done there goes through its descriptor.

use crate::error::plain;
use crate::sys::creds::effective_ids;
use crate::sys::fs::{O_DIRECTORY, O_NOFOLLOW, O_PATH, Stat, open_path, stat, statfs};
use crate::sys::magic;
use crate::sys::path::At;
use crate::sys::socket::connect_within;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take to let somebody in, if it is alive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory of sockets.
#[derive(Debug)]
pub struct Directory {
    /// For system calls.
    pub fd: OwnedFd,
    /// For messages.
    pub path: PathBuf,
}

/// The name of the socket of the mount whose device has this minor number.
pub fn socket_name(minor: u32) -> String {
    format!("{minor}.sock")
}

/// The uid by which others know this process, which may be root of a user namespace.
pub fn outer_uid() -> u32 {
    let (uid, _) = effective_ids();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let outside = |line: &str| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let (inner, outer, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let offset = uid.checked_sub(inner).filter(|offset| *offset < count)?;
        outer.checked_add(offset)
    };
    map.lines().find_map(outside).unwrap_or(uid)
}

fn look(path: &Path) -> io::Result<(OwnedFd, Stat)> {
    let fd = open_path(path, O_PATH | O_DIRECTORY | O_NOFOLLOW)?;
    let found = stat(At::fd(&fd))?;
    Ok((fd, found))
}

fn is_private(found: &Stat, owner: u32) -> bool {
    found.uid == owner && found.mode & 0o077 == 0
}

/// `XDG_RUNTIME_DIR`, if it is ours alone.
fn own_runtime_directory() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    let (_, found) = look(&path).ok().filter(|_| path.is_absolute())?;
    is_private(&found, effective_ids().0).then_some(path)
}

/// Where this user's sockets may be, the first choice first.
fn own_places() -> Vec<PathBuf> {
    let mut places: Vec<_> = own_runtime_directory()
        .map(|dir| dir.join("plyfs"))
        .into_iter()
        .collect();
    if effective_ids().0 == 0 {
        places.push("/run/plyfs".into());
    }
    for dir in ["/tmp", "/dev/shm"] {
        places.push(format!("{dir}/plyfs-{}", outer_uid()).into());
    }
    places
}

/// Refuses a file of a FUSE filesystem.
fn not_in_fuse(fd: &OwnedFd) -> io::Result<()> {
    match statfs(fd)?.magic {
        magic::FUSE => Err(io::Error::other("it is in a FUSE filesystem")),
        _ => Ok(()),
    }
}

/// Makes the directory at `path`, if there is none.
fn make(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    not_in_fuse(&open_path(parent, O_PATH | O_DIRECTORY)?)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

impl Directory {
    /// Opens the directory at `path`, which must be `owner`'s alone.
    fn open(path: &Path, owner: u32) -> io::Result<Directory> {
        let (fd, found) = look(path)?;
        not_in_fuse(&fd)?;
        if !is_private(&found, owner) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it must belong to uid {owner} alone (mode 0700)"),
            ));
        }
        Ok(Directory {
            fd,
            path: path.to_owned(),
        })
    }

    /// The directory for sockets of this process; made if need be.
    ///
    /// # Errors
    /// Why none of the places can be used.
    pub fn own() -> io::Result<Directory> {
        let mut reasons = Vec::new();
        for path in own_places() {
            let opened = make(&path).and_then(|()| Directory::open(&path, effective_ids().0));
            match opened {
                Ok(dir) => return Ok(dir),
                Err(e) => reasons.push(format!("{}: {}", path.display(), plain(&e))),
            }
        }
        Err(io::Error::other(reasons.join("; ")))
    }

    /// The way to `name` in it, in which nobody can put anything else.
    pub fn reach(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let dir = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Path::new(&dir).join(name.as_ref())
    }

    /// The names in it.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.reach("."))?;
        let name =
            |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        Ok(entries.filter_map(name).collect())
    }
}

/// The directories of all users, for root.
fn everyones_places() -> Vec<(PathBuf, u32)> {
    let numbered = |dir: &str, prefix: &str, below: &str| -> Vec<(PathBuf, u32)> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let uid = name.strip_prefix(prefix)?.parse().ok()?;
                // No slash at the end, which would follow a symlink.
                let path = entry.path();
                let path = if below.is_empty() {
                    path
                } else {
                    path.join(below)
                };
                Some((path, uid))
            })
            .collect()
    };
    let mut places = numbered("/run/user", "", "plyfs");
    for dir in ["/tmp", "/dev/shm"] {
        places.extend(numbered(dir, "plyfs-", ""));
    }
    places
}

/// Connects to the socket of the mount whose device has this minor number; `None` where
/// there is none that this user may see.
///
/// # Errors
/// Where there is one, and it cannot be connected to.
pub fn connect(minor: u32) -> io::Result<Option<UnixStream>> {
    let (own, _) = effective_ids();
    let mut places: Vec<_> = own_places().into_iter().map(|path| (path, own)).collect();
    if own == 0 {
        places.extend(everyones_places());
    } else {
        // The daemon may know its runtime directory though this process does not.
        places.push((format!("/run/user/{own}/plyfs").into(), own));
    }
    for (path, owner) in places {
        let Ok(dir) = Directory::open(&path, owner) else {
            continue;
        };
        match connect_within(&dir.reach(socket_name(minor)), PATIENCE) {
            Ok(stream) => return Ok(Some(stream)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_a_directory_that_is_its_owners_alone_is_used() {
        let temp = tempfile::tempdir().expect("a directory");
        let (own, _) = effective_ids();
        let dir = temp.path().join("d");
        DirBuilder::new().mode(0o700).create(&dir).expect("mkdir");
        assert!(Directory::open(&dir, own).is_ok());
        assert!(Directory::open(&dir, own + 1).is_err(), "another's");
        let link = temp.path().join("link");
        symlink(&dir, &link).expect("symlink");
        assert!(Directory::open(&link, own).is_err(), "through a symlink");
        for mode in [0o701, 0o710, 0o755, 0o1777] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&dir, mode.clone()).expect("chmod");
            assert!(Directory::open(&dir, own).is_err(), "{mode:?}");
        }
        std::fs::write(temp.path().join("file"), "").expect("a file");
        assert!(Directory::open(&temp.path().join("file"), own).is_err());
    }
}
