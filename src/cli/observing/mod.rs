//! `plyfs stat` and `plyfs events`: what a mount does, told by its daemon.

pub mod events;
pub mod stat;
mod table;

use crate::control::client::Daemon;
use crate::error::{Errno, MountError, plain};
use crate::sys::mountinfo::{self, Mount};
use crate::sys::process::{ECONNABORTED, ENOTCONN};
use std::io::{self, Write};
use std::path::Path;

/// What follows is said of mounts that tell nothing.
const SILENT: &str = "mount it without observe=off; its log (--log-file) says more";

fn refuse(path: &Path, cause: impl std::fmt::Display, remedy: &str) -> MountError {
    MountError::new(
        format_args!("mount point {}", path.display()),
        cause,
        remedy,
    )
}

/// The device of the mount that `given` is, or is in, and the mount, if it is in our mount
/// namespace.
fn device_of(given: &Path) -> Result<((u32, u32), Option<Mount>), MountError> {
    let dev = mountinfo::device_at(given).map_err(|e| match e.errno {
        Errno(ENOTCONN | ECONNABORTED) => gone(given),
        _ => refuse(given, plain(&e.into()), "correct the path"),
    })?;
    let table = mountinfo::read()
        .map_err(|e| refuse(given, plain(&e), "mount /proc: the mount is found by it"))?;
    Ok((dev, table.into_iter().rev().find(|mount| mount.dev == dev)))
}

fn gone(given: &Path) -> MountError {
    refuse(
        given,
        "it has lost its daemon",
        "unmount it: fusermount3 -u, or umount",
    )
}

/// The daemon that serves the union at `given`, or the one that `given` is in.
fn daemon_of(given: &Path) -> Result<Daemon, MountError> {
    let (dev, mount) = device_of(given)?;
    let is_fuse = |mount: &Mount| mount.fs_type == "fuse" || mount.fs_type.starts_with("fuse.");
    // One that is not in our mount namespace is known by its device alone.
    let possible = dev.0 == 0 && mount.as_ref().is_none_or(is_fuse);
    if possible {
        match Daemon::find(dev.1) {
            Ok(Some(daemon)) => return Ok(daemon),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Err(gone(given)),
            Err(e) => {
                return Err(refuse(
                    given,
                    format_args!("control socket: {}", plain(&e)),
                    SILENT,
                ));
            }
        }
    }
    let remedy = "give the mount point of a union: grep plyfs /proc/mounts shows them";
    let Some(mount) = mount else {
        return Err(refuse(given, "not a plyfs mount", remedy));
    };
    if !possible || mount.fs_type != "fuse.plyfs" && mount.source != "plyfs" {
        let cause = format_args!("not a plyfs mount but {}", mount.fs_type).to_string();
        return Err(refuse(given, cause, remedy));
    }
    let own = crate::sys::creds::effective_ids().0;
    match mount.owner.filter(|owner| own != 0 && *owner != own) {
        Some(owner) => Err(refuse(
            given,
            format_args!("uid {owner} mounted it, and nobody else is answered"),
            "ask as that user, or as root",
        )),
        None => Err(refuse(given, "its daemon has no control socket", SILENT)),
    }
}

/// What went wrong while `given`'s daemon was asked.
fn not_told(given: &Path, e: &io::Error) -> MountError {
    match e.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => refuse(given, "its daemon has just ended", "mount it again"),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            refuse(given, "its daemon does not answer", "see its log")
        }
        _ => refuse(
            given,
            format_args!("its daemon said: {}", plain(e)),
            "use the plyfs that it was mounted with",
        ),
    }
}

/// Writes to stdout; whether anybody is still reading.
fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}
