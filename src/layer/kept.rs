//! Layers that keep owners, modes and types of files in xattrs ([`super::override_stat`]).

use super::override_stat::{BITS, Override, disk_mode, format};
use super::{Layer, private};
use crate::config::plan::{MountPlan, Ownership};
use crate::error::{Errno, MountError, SysError, best_effort};
use crate::sys::fs::{
    self, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, S_IFDIR, S_IFLNK, S_IFREG, S_ISGID, S_ISUID, Stat,
};
use crate::sys::io;
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;

/// PATH_MAX, the NUL included.
const TARGET_MAX: u64 = 4096;
const S_IXGRP: u32 = 0o010;

/// The xattrs that hold it: the first is written, all are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    keys: &'static [&'static CStr],
    /// `security.*` xattrs are kept under a prefix beside it.
    pub prefixes: bool,
}

const PRIVILEGED: Kept = Kept {
    keys: &[c"security.fuseoverlayfs.override_stat"],
    prefixes: false,
};
const CONTAINERS: Kept = Kept {
    keys: &[
        c"user.containers.override_stat",
        c"user.fuseoverlayfs.override_stat",
    ],
    prefixes: true,
};

/// Whether a file of this type can have the xattr; it may stand for one of another type then.
fn can_keep(format: u32) -> bool {
    matches!(format, S_IFREG | S_IFDIR)
}

impl Kept {
    /// How a layer with the root `root` keeps owners.
    pub fn of(plan: &MountPlan, root: At<'_>, privileged: bool) -> Option<Kept> {
        match plan.ownership {
            Ownership::Privileged => Some(PRIVILEGED),
            Ownership::Containers => Some(CONTAINERS),
            // Whoever may write a layer must not steer a mount with privilege.
            Ownership::Inode if privileged => None,
            Ownership::Inode => {
                let marked = |key: &&CStr| matches!(xattr::get_optional(root, key), Ok(Some(_)));
                CONTAINERS.keys.iter().any(marked).then_some(CONTAINERS)
            }
        }
    }

    /// The xattr that is written.
    pub fn key(&self) -> &'static CStr {
        self.keys
            .first()
            .copied()
            .unwrap_or(c"user.containers.override_stat")
    }

    fn read(&self, at: At<'_>) -> Result<Option<Override>, SysError> {
        for key in self.keys {
            let value = match xattr::get_optional(at, key) {
                Err(e) if matches!(e.errno, Errno::EACCES | Errno::EPERM) => None,
                other => other?,
            };
            if let Some(value) = value {
                return Ok(Override::parse(&value));
            }
        }
        Ok(None)
    }
}

impl Layer {
    /// What `stat`, just asked of `at`, is with what an xattr says of it.
    pub(super) fn overridden(&self, at: At<'_>, mut stat: Stat) -> Result<Stat, SysError> {
        if let Some(said) = self.said(at, &stat)? {
            said.apply(&mut stat);
        }
        Ok(stat)
    }

    /// What an xattr says of the file `at`, which `stat` describes as it is on disk.
    pub(super) fn said(&self, at: At<'_>, stat: &Stat) -> Result<Option<Override>, SysError> {
        match &self.kept {
            Some(kept) if can_keep(stat.format()) => kept.read(at),
            _ => Ok(None),
        }
    }

    /// What the file `at` of the upper is, its owner as it is kept.
    ///
    /// # Errors
    /// statx's and getxattr's.
    pub fn stat(&self, at: At<'_>) -> Result<Stat, SysError> {
        let stat = fs::stat(at)?;
        self.overridden(at, stat)
    }

    /// Sees to it that owners can be kept in this upper, and can be told to be by whoever
    /// has it as a lower layer: its root says so.
    ///
    /// # Errors
    /// Where its filesystem has no such xattr, or the daemon may not set it.
    pub(super) fn check_kept(
        &self,
        plan: &MountPlan,
        below: Option<&Layer>,
    ) -> Result<(), MountError> {
        let (Some(kept), false) = (&self.kept, plan.flags.read_only) else {
            return Ok(());
        };
        let root = At::fd(&*self.root);
        let marked = (|| match kept.read(root)? {
            Some(_) => Ok(()),
            None => self.keep(root, &self.root_of_store(below)?),
        })();
        marked.map_err(|e: SysError| {
            let remedy = match kept.prefixes {
                true => "put the upper on a filesystem with user xattrs, or leave the option out",
                false => "run as root of the machine, or use xattr_permissions=2",
            };
            let cause = format_args!("xattr_permissions cannot be kept in the upper: {}", e.errno);
            MountError::new(self.path.display(), cause, remedy)
        })
    }

    /// What the root of this upper is to be that says nothing of it itself: that of the layer
    /// `below`, where that says it, for then it is a store's, and was made with any mode.
    fn root_of_store(&self, below: Option<&Layer>) -> Result<Stat, SysError> {
        let mut stat = fs::stat(At::fd(&*self.root))?;
        if let Some(below) = below {
            let root = At::fd(&*below.root);
            if let Some(said) = below.said(root, &fs::stat_unsynced(root)?)? {
                said.apply(&mut stat);
            }
        }
        Ok(stat)
    }

    /// Whether a file of type `format` keeps its owner, mode and type in an xattr when it is
    /// in this layer.
    pub fn keeps_apart(&self, format: u32) -> bool {
        self.kept.is_some() && format != S_IFLNK
    }

    /// The type that a file of type `format` has on disk.
    pub fn disk_format(&self, format: u32) -> u32 {
        match format {
            S_IFDIR | S_IFLNK => format,
            _ if self.kept.is_some() => S_IFREG,
            _ => format,
        }
    }

    /// The target of the symlink `at`; one that is kept as a file has it as its data.
    ///
    /// # Errors
    /// readlinkat's; EINVAL where it is none.
    pub fn readlink(&self, at: At<'_>) -> Result<Vec<u8>, SysError> {
        match fs::readlink(at) {
            Err(e) if e.errno == Errno::EINVAL && self.kept.is_some() => self.read_target(at),
            other => other,
        }
    }

    fn read_target(&self, at: At<'_>) -> Result<Vec<u8>, SysError> {
        let refusal = SysError {
            call: "readlinkat",
            errno: Errno::EINVAL,
        };
        let stat = self.overridden(at, fs::stat(at)?)?;
        if stat.format() != S_IFLNK || stat.size >= TARGET_MAX {
            return Err(refusal);
        }
        let file = fs::open(at, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)?;
        let mut target = vec![0; stat.size as usize];
        let length = io::read_full(&file, &mut target, 0)?;
        target.truncate(length);
        Ok(target)
    }

    /// Notes in the xattr of the file `at` that it is what `stat` says.
    ///
    /// # Errors
    /// setxattr's.
    pub fn keep(&self, at: At<'_>, stat: &Stat) -> Result<(), SysError> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        xattr::set(at, kept.key(), format(stat).as_bytes(), 0)
    }

    /// Gives the file `at` of the upper other owners, as the union shows them; which clears
    /// what chown(2) clears.
    ///
    /// # Errors
    /// EINVAL for an id that cannot be kept; fchownat's.
    pub fn chown(&self, at: At<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), SysError> {
        let (uid, gid) = self.owners.stored(uid, gid)?;
        if self.kept.is_none() {
            return self.tolerate_squashed(fs::chown(at, uid, gid));
        }
        let real = fs::stat(at)?.format();
        if !can_keep(real) {
            return self.tolerate_squashed(fs::chown(at, uid, gid));
        }
        let mut stat = self.stat(at)?;
        (stat.uid, stat.gid) = (uid.unwrap_or(stat.uid), gid.unwrap_or(stat.gid));
        if !stat.is_dir() {
            if stat.mode & S_IXGRP != 0 {
                stat.mode &= !S_ISGID;
            }
            stat.mode &= !S_ISUID;
        }
        self.keep(at, &stat)?;
        if !stat.is_dir() {
            self.clear_capability(at);
        }
        Ok(())
    }

    /// Whether the file `at` has capabilities that are kept beside its owner.
    ///
    /// # Errors
    /// getxattr's.
    pub fn has_capability(&self, at: At<'_>) -> Result<bool, SysError> {
        let key = private::Names::of(self).key(b"security.capability")?;
        Ok(xattr::get_optional(at, &key)?.is_some())
    }

    /// Takes the capabilities of the file `at` of the upper away, if it has any.
    pub fn clear_capability(&self, at: At<'_>) {
        match self.remove_xattr(at, b"security.capability") {
            Err(e) if matches!(e.errno, Errno::ENODATA | Errno::EOPNOTSUPP) => {}
            other => {
                best_effort("clear capabilities", other);
            }
        }
    }

    /// Sets what a user calls xattr `name` on the file `at` of the upper.
    ///
    /// # Errors
    /// setxattr's.
    pub fn set_xattr(
        &self,
        at: At<'_>,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<(), SysError> {
        let names = private::Names::of(self);
        match xattr::set(at, &names.key(name)?, value, flags) {
            // A symlink has no user xattrs.
            Err(e) if e.errno == Errno::EPERM && names.has_two(name) => {
                xattr::set(at, &private::Names::default().key(name)?, value, flags)
            }
            other => other,
        }
    }

    /// Removes what a user calls xattr `name` from the file `at` of the upper.
    ///
    /// # Errors
    /// ENODATA where there is none, else removexattr's.
    pub fn remove_xattr(&self, at: At<'_>, name: &[u8]) -> Result<(), SysError> {
        let names = private::Names::of(self);
        let removed = xattr::remove(at, &names.key(name)?);
        if !names.has_two(name) {
            return removed;
        }
        let plain = xattr::remove(at, &private::Names::default().key(name)?);
        match (removed, plain) {
            (removed, Err(e)) if e.errno == Errno::ENODATA => removed,
            // There is none, or it is a symlink, which has no user xattrs.
            (Err(e), plain) if matches!(e.errno, Errno::ENODATA | Errno::EPERM) => plain,
            (removed, _) => removed,
        }
    }

    /// Where all owners are shown as one, whether they could be changed says nothing.
    fn tolerate_squashed(&self, done: Result<(), SysError>) -> Result<(), SysError> {
        match done {
            Err(e)
                if matches!(e.errno, Errno::EPERM | Errno::EINVAL)
                    && self.owners.are_squashed() =>
            {
                best_effort("change an owner that is not shown", Err::<(), _>(e));
                Ok(())
            }
            other => other,
        }
    }

    /// Gives the file `at` of the upper other permission bits.
    ///
    /// # Errors
    /// fchmodat's.
    pub fn chmod(&self, at: At<'_>, bits: u32) -> Result<(), SysError> {
        if self.kept.is_none() {
            return fs::chmod(at, bits);
        }
        let real = fs::stat(at)?;
        if !can_keep(real.format()) {
            return fs::chmod(at, bits);
        }
        let mut stat = self.overridden(at, real)?;
        stat.mode = stat.format() | bits & BITS;
        let disk = disk_mode(stat.mode);
        if real.mode & BITS & !disk != 0 {
            fs::chmod(at, real.mode & disk)?;
        }
        self.keep(at, &stat)?;
        if real.mode & disk != disk {
            fs::chmod(at, disk)?;
        }
        Ok(())
    }

    /// Gives the new file `at`, which is `now` on disk, the type, mode and (kept) owner of
    /// `stat`.
    ///
    /// # Errors
    /// Those of chown, chmod and setxattr.
    pub fn become_like(&self, at: At<'_>, now: &Stat, stat: &Stat) -> Result<(), SysError> {
        if self.keeps_apart(stat.format()) {
            let disk = disk_mode(stat.mode);
            if now.mode & BITS != disk {
                fs::chmod(at, disk)?;
            }
            return self.keep(at, stat);
        }
        let given = (now.uid, now.gid) != (stat.uid, stat.gid);
        if given {
            let done = fs::chown(at, Some(stat.uid), Some(stat.gid));
            if self.kept.is_some() {
                // A symlink, which has no room for the xattr.
                best_effort("give a symlink its owner", done);
            } else {
                self.tolerate_squashed(done)?;
            }
        }
        let bits = stat.mode & BITS;
        let cleared = given && bits & (S_ISUID | S_ISGID) != 0;
        if stat.format() != S_IFLNK && (cleared || now.mode & BITS != bits) {
            fs::chmod(at, bits)?;
        }
        Ok(())
    }
}
