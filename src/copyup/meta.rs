//! What a file is beside its data: owner, mode, xattrs and times, copied in that
//! order (chown clears mode bits and capabilities, every change moves the times).

use crate::error::{Errno, SysError};
use crate::layer::private::{self, Names};
use crate::layer::{Layer, Look};
use crate::sys::fs::{self, SetTime, Stat};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CString;

/// A file: its layer, how it is reached there, and what it is.
pub type From<'a> = (&'a Layer, At<'a>, &'a Look);

/// A new file of the upper, and what it is on disk.
pub type To<'a> = (&'a Layer, At<'a>, &'a Stat);

/// Copies owner, mode and xattrs of a file to a new one, but with `bare`, which says that it
/// has no xattrs; whether it has capabilities. A covered directory's xattrs belong to what is
/// mounted there and are left.
///
/// # Errors
/// The first failure that would make the copy another file than the original.
pub fn copy(
    (layer, from, look): From<'_>,
    (upper, to, now): To<'_>,
    bare: bool,
) -> Result<bool, SysError> {
    let (uid, gid) = upper.owner_kept(layer, look.owner);
    let stat = Stat {
        uid,
        gid,
        ..look.stat
    };
    upper.become_like(to, now, &stat)?;
    if look.covered || bare {
        Ok(false)
    } else {
        copy_xattrs((layer, from), (upper, to))
    }
}

/// Copies every xattr but ours; whether there are capabilities among them.
///
/// # Errors
/// setxattr's; ACLs and capabilities must be kept, others only where they can be.
fn copy_xattrs(
    (layer, from): (&Layer, At<'_>),
    (upper, to): (&Layer, At<'_>),
) -> Result<bool, SysError> {
    let list = match xattr::list(from) {
        Err(e) if e.errno == Errno::EOPNOTSUPP => return Ok(false),
        other => other?,
    };
    let mut capable = false;
    let (theirs, ours) = (Names::of(layer), Names::of(upper));
    for disk in private::names(&list) {
        let Some(name) = theirs.to_user(disk).filter(|name| !ours.refuses(name)) else {
            continue;
        };
        let name = &*name;
        let Ok(key) = CString::new(disk) else {
            continue;
        };
        capable |= name == b"security.capability";
        let mut value = match xattr::get(from, &key) {
            Ok(value) => value,
            // A capability of the first user namespace cannot be told in another.
            Err(e) if matches!(e.errno, Errno::ENODATA | Errno::EOVERFLOW) => continue,
            Err(e) => return Err(e),
        };
        if private::is_acl(name) {
            value = upper.owners.acl_kept(&layer.owners, value);
        }
        match upper.set_xattr(to, name, &value, 0) {
            Err(e) if e.errno == Errno::EOPNOTSUPP && !must_keep(name) => {
                log::warn!(
                    "the upper cannot keep xattr {}: left out",
                    name.escape_ascii()
                );
            }
            other => other?,
        }
    }
    Ok(capable)
}

/// Whether a copy without xattr `name` would be another file. A label is not of that kind:
/// the kernel gives each file of a filesystem without xattrs the one of its mount.
fn must_keep(name: &[u8]) -> bool {
    let is_label = [
        &b"security.selinux"[..],
        b"security.SMACK64",
        b"security.apparmor",
    ]
    .iter()
    .any(|label| name.starts_with(label));
    !is_label && (name.starts_with(b"security.") || name.starts_with(b"system.posix_acl_"))
}

/// Gives `to` the access and modification time of `stat`.
///
/// # Errors
/// utimensat's.
pub fn copy_times(stat: &Stat, to: At<'_>) -> Result<(), SysError> {
    fs::utimens(to, SetTime::To(stat.atime), SetTime::To(stat.mtime))
}
