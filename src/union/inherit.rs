//! Making a file where it cannot inherit from the directory that it will be in.

use super::{New, Union};
use crate::error::{Result, best_effort};
use crate::layer::override_stat::disk_mode;
use crate::merge::acl;
use crate::sys::creds::{self, Caller, as_caller};
use crate::sys::fs::{self, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, Stat};
use crate::sys::path::At;
use crate::sys::xattr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Union {
    /// Makes `new` at `temp` with what it would have inherited in directory `fd`:
    /// group, setgid, umask or default ACL.
    pub(super) fn make_inheriting(
        &self,
        fd: &Arc<OwnedFd>,
        temp: At<'_>,
        new: New<'_>,
        caller: &Caller,
    ) -> Result<Option<OwnedFd>> {
        let upper = self.tree.upper_layer()?;
        let parent = upper.stat(At::fd(&**fd))?;
        let mode = new.mode();
        let (is_dir, is_link) = (mode & S_IFMT == S_IFDIR, mode & S_IFMT == S_IFLNK);
        let apart = upper.keeps_apart(mode & S_IFMT);
        let default = if is_link || apart {
            None
        } else {
            xattr::get_optional(At::directory(&**fd), c"system.posix_acl_default")?
        };
        let inherited = default.as_deref().and_then(|acl| acl::inherit(acl, mode));
        let (mut bits, access) = match inherited {
            Some(i) => (i.mode & 0o7777, i.access),
            None => (mode & 0o7777 & !caller.umask, None),
        };
        let setgid = parent.mode & S_ISGID != 0;
        if setgid && is_dir {
            bits |= S_ISGID;
        }
        let own = Caller {
            umask: 0,
            ..upper.owners.inside(caller)
        };
        if apart {
            let gid = if setgid { parent.gid } else { own.gid };
            return self.make_apart(temp, new, (own.uid, gid), bits);
        }
        let open = as_caller(&own, || new.make(temp, self.quiet()))?;
        if setgid {
            let given = fs::chown(temp, None, Some(parent.gid));
            if upper.kept.is_some() {
                best_effort("give a symlink its directory's group", given);
            } else {
                given?;
            }
        }
        if !is_link {
            fs::chmod(temp, bits)?;
        }
        if let Some(acl) = access {
            xattr::set(temp, c"system.posix_acl_access", &acl, 0)?;
        }
        if let Some(acl) = default.filter(|_| is_dir) {
            xattr::set(temp, c"system.posix_acl_default", &acl, 0)?;
        }
        Ok(open)
    }

    /// Whether what is new in the upper cannot inherit from its directory, or must have an
    /// xattr before it has a name: owners and modes are kept in xattrs.
    pub(super) fn keeps_apart(&self) -> bool {
        let upper = self.tree.layers.upper.as_ref();
        upper.is_some_and(|upper| upper.kept.is_some())
    }

    /// Makes `new` at `temp` as the daemon's own, with its owner and mode beside.
    fn make_apart(
        &self,
        temp: At<'_>,
        new: New<'_>,
        (uid, gid): (u32, u32),
        bits: u32,
    ) -> Result<Option<OwnedFd>> {
        let upper = self.tree.upper_layer()?;
        let format = new.mode() & S_IFMT;
        let rdev = match new {
            New::Node(_, rdev) => rdev,
            _ => (0, 0),
        };
        let stat = Stat {
            mode: format | bits,
            uid,
            gid,
            rdev,
            ..Stat::default()
        };
        let plain = match new {
            New::Node(..) => New::Node(S_IFREG | disk_mode(stat.mode), (0, 0)),
            _ => New::Directory(disk_mode(stat.mode)),
        };
        let (uid, gid) = creds::effective_ids();
        let daemon = Caller {
            uid,
            gid,
            umask: 0,
            pid: 0,
        };
        let open = as_caller(&daemon, || plain.make(temp, self.quiet()))?;
        upper.keep(temp, &stat)?;
        Ok(open.filter(|_| format == S_IFREG))
    }
}
