//! The checked plan of a mount: enums and paths only, nothing left to parse.

use crate::config::idmap::IdMap;
use std::path::{Path, PathBuf};

/// The writable layer and its scratch directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperPlan {
    /// The directory that takes all changes.
    pub upper: PathBuf,
    /// Scratch directory on the same mount as `upper`.
    pub work: PathBuf,
}

/// Which whiteout and opaque formats are spoken (`marks=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Read every format; write devices and xattrs where possible, else files.
    #[default]
    Auto,
    /// Read and write overlayfs's own format alone; `.wh.` names are ordinary.
    Overlay,
    /// Read every format; write `.wh.` files.
    Files,
}

/// Which xattr namespace overlayfs marks are written to (`userxattr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrSpace {
    /// `trusted.` where the daemon may write it, else `user.`.
    #[default]
    Auto,
    /// `user.overlay.*` always.
    User,
}

/// Whether directories with lower content are renamed by a note of where that content
/// lies, and whether such notes are followed (`redirect_dir=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirects {
    /// Written and followed.
    #[default]
    On,
    /// Followed, never written: such a rename answers EXDEV.
    Follow,
    /// Neither followed nor written.
    NoFollow,
    /// None is written; those that layers have are followed, which is what overlayfs's
    /// `off` means where the kernel is built with REDIRECT_ALWAYS_FOLLOW.
    Off,
}

impl Redirects {
    /// Whether a redirect in a layer is followed.
    pub fn follows(self) -> bool {
        self != Redirects::NoFollow
    }

    /// Whether a rename may write one.
    pub fn writes(self) -> bool {
        self == Redirects::On
    }
}

/// What brings a lower file's data to the upper (`copyup=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyUpAt {
    /// The first change of it; opening costs no request.
    #[default]
    Write,
    /// Opening it for writing, as with overlayfs.
    Open,
}

/// What is on the disk when (`durability=`, and overlayfs's `fsync=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// As overlayfs: a copied-up file is never empty or torn after a power cut; what
    /// programs sync is synced.
    #[default]
    Auto,
    /// Also, a change of names or attributes is on the disk when it is answered.
    Strict,
    /// Nothing is ever synced: the upper is thrown away after a crash.
    Volatile,
}

/// How the data of files goes between the kernel and the layers (`io=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// What measured best: [`Io::Cached`].
    #[default]
    Auto,
    /// Through the kernel's page cache; opening costs no request.
    Cached,
    /// The kernel reads and writes the files of the upper by itself, for mounts with
    /// CAP_SYS_ADMIN; each opening costs a request, and copies up if it is for writing.
    Passthrough,
}

/// Whose UUIDs count (`uuid=`). Three of the values say what overlayfs shows as `f_fsid`,
/// for which FUSE has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uuid {
    /// No layer's: origins are kept and believed without the UUID of their filesystem, so
    /// that it may change.
    Off,
    /// The layers'.
    Null,
    /// The layers'.
    #[default]
    Auto,
    /// The layers'.
    On,
}

/// How long the kernel may trust what it was told (`timeout=`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CacheTimeout {
    /// For ever: plyfs is the only writer.
    #[default]
    Forever,
    /// This many seconds, for layers that change under the mount.
    Seconds(f64),
}

/// What is counted and told of a mount (`observe=`, `metrics=`, `metrics_interval=`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Requests, copy-ups and the rest are counted, and told on the control socket. On by
    /// default: it costs less than can be measured, and what went wrong can be seen afterwards.
    pub on: bool,
    /// The figures are written to this file, as Prometheus reads them.
    pub metrics: Option<PathBuf>,
    /// How often, seconds.
    pub interval: u32,
}

impl Default for Observe {
    fn default() -> Observe {
        Observe {
            on: true,
            metrics: None,
            interval: 15,
        }
    }
}

/// How the ids of one kind are shown, and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdView {
    /// As the layers have them.
    #[default]
    AsStored,
    /// Those without a name in this user namespace (the overflow id) are shown as root.
    /// `plyfs run` uses it, so that root inside may change what nobody there can name.
    OverflowIsRoot,
    /// All are shown as this one (`squash_to_…`); what is asked for is kept where the daemon
    /// may.
    Squashed(u32),
    /// By a map (`uidmapping`, `gidmapping`).
    Mapped(IdMap),
}

/// How owners are shown, and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerView {
    /// Users.
    pub uids: IdView,
    /// Groups.
    pub gids: IdView,
}

impl OwnerView {
    /// The same for users and groups.
    pub fn both(view: IdView) -> OwnerView {
        OwnerView {
            uids: view.clone(),
            gids: view,
        }
    }

    /// Whether any id goes by a map.
    pub fn is_mapped(&self) -> bool {
        let mapped = |view: &IdView| matches!(view, IdView::Mapped(_));
        mapped(&self.uids) || mapped(&self.gids)
    }
}

/// Where owners, modes and types of files are kept (`xattr_permissions=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// In the inodes. A mount without privilege reads them from xattrs all the same, in layers
    /// whose root has such an xattr.
    #[default]
    Inode,
    /// In an xattr that takes privilege to set.
    Privileged,
    /// In an xattr that a file's owner may set.
    Containers,
}

/// Flags of the mount itself, as mount(8) has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlags {
    /// No writes at all, even with an upper.
    pub read_only: bool,
    /// Honour setuid and setgid bits.
    pub suid: bool,
    /// Honour device nodes.
    pub dev: bool,
    /// Allow execution.
    pub exec: bool,
    /// Update access times.
    pub atime: bool,
    /// Let users other than the mounting one in.
    pub allow_other: bool,
    /// Of those others, let root alone in.
    pub allow_root: bool,
    /// Let the kernel check permissions.
    pub default_permissions: bool,
    /// First field in /proc/mounts.
    pub fsname: String,
    /// What follows `fuse.` in /proc/mounts.
    pub subtype: String,
    /// Every write is on the disk when it is answered.
    pub synchronous: bool,
    /// The SELinux label of all files.
    pub context: Option<String>,
}

impl Default for MountFlags {
    fn default() -> MountFlags {
        MountFlags {
            read_only: false,
            suid: false,
            dev: false,
            exec: true,
            atime: false,
            allow_other: false,
            allow_root: false,
            default_permissions: true,
            fsname: "plyfs".into(),
            subtype: "plyfs".into(),
            synchronous: false,
            context: None,
        }
    }
}

/// From this size on the first change of a file copies only the blocks that it changes, unless
/// something else is asked for: there it is four times as quick as a copy of all, on ext4 and XFS.
pub const PARTIAL_FROM: u64 = 256 << 10;

/// When partly copied files get the rest of their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Complete {
    /// While nothing else is asked for, and what is left then after unmounting.
    #[default]
    Idle,
    /// As soon as there is one, beside all else.
    Now,
    /// So many bytes a second, and what is left then after unmounting.
    Rate(u64),
    /// After unmounting.
    Unmount,
    /// Not by themselves.
    Off,
}

/// Everything that a mount needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct MountPlan {
    /// Where the union appears.
    pub mount_point: PathBuf,
    /// The read-only layers, topmost first. At least one unless there is an upper.
    pub lowers: Vec<PathBuf>,
    /// Layers below those, which only give their data to files that redirect to it.
    pub data_only: Vec<PathBuf>,
    /// The writable layer; `None` mounts read-only.
    pub upper: Option<UpperPlan>,
    /// Mark formats.
    pub marks: Marks,
    /// Namespace of the overlayfs xattrs.
    pub xattrs: XattrSpace,
    /// Kernel caching.
    pub timeout: CacheTimeout,
    /// When files are copied up.
    pub copyup: CopyUpAt,
    /// How data is read and written.
    pub io: Io,
    /// How owners are shown.
    pub owners: OwnerView,
    /// Where owners, modes and types are kept.
    pub ownership: Ownership,
    /// Programs see and set POSIX ACLs (`noacl` says no).
    pub acls: bool,
    /// Programs see and set xattrs (`noxattrs` says no).
    pub user_xattrs: bool,
    /// Every directory says that it has one link (`static_nlink`).
    pub static_nlink: bool,
    /// fsync is heeded (`fsync=0` says no).
    pub fsync: bool,
    /// What is mounted on a directory of a layer hides that directory's content, as it does
    /// for everyone else; otherwise a layer shows its own content below such mounts where
    /// it can. `plyfs run` hides its own upper this way.
    pub respect_mounts: bool,
    /// What is on the disk when.
    pub durability: Durability,
    /// Whose UUIDs count.
    pub uuid: Uuid,
    /// Keep hard links whole across copy-up and remounts (`index=`).
    pub index: bool,
    /// Renames of merged directories.
    pub redirects: Redirects,
    /// A change of owner, mode, times or xattrs copies no data (`metacopy=`).
    pub metacopy: bool,
    /// A change of the data of a file of at least so many bytes copies only what it changes
    /// (`partial=`).
    pub partial: Option<u64>,
    /// When such files get the rest of their data (`complete=`).
    pub complete: Complete,
    /// Largest WRITE request, bytes; `None` for the default (1 MiB).
    pub max_write: Option<u32>,
    /// Threads that serve requests; `None` for the default.
    pub threads: Option<usize>,
    /// What is counted and told.
    pub observe: Observe,
    /// Flags of the mount.
    pub flags: MountFlags,
}

impl MountPlan {
    /// A plan with the defaults, for `lowers` (topmost first) at `mount_point`.
    pub fn new(mount_point: impl Into<PathBuf>, lowers: Vec<PathBuf>) -> MountPlan {
        MountPlan {
            mount_point: mount_point.into(),
            lowers,
            data_only: Vec::new(),
            upper: None,
            marks: Marks::default(),
            xattrs: XattrSpace::default(),
            timeout: CacheTimeout::default(),
            copyup: CopyUpAt::default(),
            io: Io::default(),
            owners: OwnerView::default(),
            ownership: Ownership::default(),
            acls: true,
            user_xattrs: true,
            static_nlink: false,
            fsync: true,
            respect_mounts: false,
            durability: Durability::default(),
            uuid: Uuid::default(),
            index: true,
            redirects: Redirects::default(),
            metacopy: true,
            partial: Some(PARTIAL_FROM),
            complete: Complete::default(),
            max_write: None,
            threads: None,
            observe: Observe::default(),
            flags: MountFlags::default(),
        }
    }
}

impl MountPlan {
    /// Whether the data of a copy may come to the disk later than its name, which needs
    /// somebody who sees to it in the end.
    pub fn defers_data(&self) -> bool {
        self.metacopy
            && self.partial.is_some()
            && self.durability == Durability::Auto
            && matches!(self.complete, Complete::Idle | Complete::Unmount)
    }

    /// Whether programs see and set ACLs: where modes are kept apart from the inodes, the
    /// layers' own would say something else.
    pub fn has_acls(&self) -> bool {
        self.acls && self.user_xattrs && self.ownership == Ownership::Inode
    }
}

/// The descriptor in a mount point `/dev/fd/N`: a FUSE device that is mounted already.
pub fn device_number(path: &Path) -> Option<i32> {
    let number = path.strip_prefix("/dev/fd").ok()?;
    number.to_str()?.parse().ok().filter(|fd| *fd > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptors_past_the_standard_streams_are_devices() {
        assert_eq!(device_number(Path::new("/dev/fd/7")), Some(7));
        assert_eq!(device_number(Path::new("/dev/fd/2")), None);
        assert_eq!(device_number(Path::new("/dev/fd")), None);
        assert_eq!(device_number(Path::new("/dev/fd/x")), None);
        assert_eq!(device_number(Path::new("/mnt/7")), None);
    }
}
