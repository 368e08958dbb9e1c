//! A finished temporary gets its name: atomically, and never in the place of another.

use crate::error::{Errno, SysError};
use crate::sys::fs::{self, RENAME_NOREPLACE};
use crate::sys::path::At;

/// Moves `temp` to `to`.
///
/// # Errors
/// EEXIST where something is there, else renameat2's.
pub fn publish(temp: At<'_>, to: At<'_>) -> Result<(), SysError> {
    match fs::rename(temp, to, RENAME_NOREPLACE) {
        // Filesystems without the flag (NFS): a link never replaces either.
        Err(e) if matches!(e.errno, Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        other => return other,
    }
    match fs::link(temp, to) {
        Ok(()) => fs::unlink(temp),
        // A directory has no links, and on some filesystems nothing has; the upper is ours
        // alone, so a look is enough.
        Err(e) if is_unlinkable(&e) => match fs::stat(to) {
            Ok(_) => Err(SysError {
                call: "renameat2",
                errno: Errno::EEXIST,
            }),
            Err(_) => fs::rename(temp, to, 0),
        },
        Err(e) => Err(e),
    }
}

fn is_unlinkable(e: &SysError) -> bool {
    matches!(
        e.errno,
        Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK | Errno::EINVAL
    )
}
