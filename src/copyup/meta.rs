//! What a file is beside its data: owner, mode, xattrs and times, copied in that
//! order (chown clears mode bits and capabilities, every change moves the times).

use crate::config::plan::OwnerView;
use crate::error::{Errno, SysError};
use crate::layer::private;
use crate::sys::creds;
use crate::sys::fs::{self, S_IFLNK, S_ISGID, S_ISUID, SetTime, Stat};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CString;

/// How the owners on disk are shown, and therefore kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnerMap {
    /// The ids that stand for "no name here", shown as root.
    overflow: Option<(u32, u32)>,
}

impl OwnerMap {
    /// The map of `view`.
    pub fn new(view: OwnerView) -> OwnerMap {
        OwnerMap {
            overflow: (view == OwnerView::OverflowIsRoot).then(creds::overflow_ids),
        }
    }

    /// The uid and gid that are shown for those on disk.
    pub fn shown(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self.overflow {
            None => (uid, gid),
            Some((u, g)) => (
                if uid == u { 0 } else { uid },
                if gid == g { 0 } else { gid },
            ),
        }
    }
}

/// Copies owner, mode and xattrs of a file to a new one; both are described as they are.
/// Whether it has capabilities. A covered directory's xattrs belong to what is mounted there
/// and are left: with `bare` there are none to copy.
///
/// # Errors
/// The first failure that would make the copy another file than the original.
pub fn copy(
    (from, stat): (At<'_>, &Stat),
    (to, now): (At<'_>, &Stat),
    owners: &OwnerMap,
    bare: bool,
) -> Result<bool, SysError> {
    let (uid, gid) = owners.shown(stat.uid, stat.gid);
    let given = (now.uid, now.gid) != (uid, gid);
    if given {
        fs::chown(to, Some(uid), Some(gid))?;
    }
    let bits = stat.mode & 0o7777;
    let cleared = given && bits & (S_ISUID | S_ISGID) != 0;
    if stat.format() != S_IFLNK && (cleared || now.mode & 0o7777 != bits) {
        fs::chmod(to, bits)?;
    }
    if bare {
        Ok(false)
    } else {
        copy_xattrs(from, to)
    }
}

/// Copies every xattr but ours; whether there are capabilities among them.
///
/// # Errors
/// setxattr's; ACLs and `security.` must be kept, others only where they can be.
pub fn copy_xattrs(from: At<'_>, to: At<'_>) -> Result<bool, SysError> {
    let list = match xattr::list(from) {
        Err(e) if e.errno == Errno::EOPNOTSUPP => return Ok(false),
        other => other?,
    };
    let mut capable = false;
    for name in private::names(&list).filter(|name| !private::is_own(name)) {
        let Ok(key) = CString::new(name) else {
            continue;
        };
        capable |= name == b"security.capability";
        let value = match xattr::get(from, &key) {
            Ok(value) => value,
            // A capability of the first user namespace cannot be told in another.
            Err(e) if matches!(e.errno, Errno::ENODATA | Errno::EOVERFLOW) => continue,
            Err(e) => return Err(e),
        };
        match xattr::set(to, &key, &value, 0) {
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

fn must_keep(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"system.posix_acl_")
}

/// Gives `to` the access and modification time of `stat`.
///
/// # Errors
/// utimensat's.
pub fn copy_times(stat: &Stat, to: At<'_>) -> Result<(), SysError> {
    fs::utimens(to, SetTime::To(stat.atime), SetTime::To(stat.mtime))
}
