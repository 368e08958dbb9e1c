//! The numbers by which filesystems tell what they are: `f_type` of statfs(2), as in
//! linux/magic.h and, for XFS, fs/xfs/libxfs/xfs_format.h.

/// ext2, ext3 and ext4 share one.
pub const EXT4: i64 = 0xef53;
/// XFS.
pub const XFS: i64 = 0x5846_5342;
/// btrfs.
pub const BTRFS: i64 = 0x9123_683e;
/// tmpfs.
pub const TMPFS: i64 = 0x0102_1994;
/// The kernel's overlayfs.
pub const OVERLAY: i64 = 0x794c_7630;
/// Whatever is served by a process.
pub const FUSE: i64 = 0x6573_5546;
/// SquashFS.
pub const SQUASHFS: i64 = 0x7371_7368;
/// EROFS.
pub const EROFS: i64 = 0xe0f5_e1e2;
/// FAT.
pub const MSDOS: i64 = 0x4d44;
/// exFAT.
pub const EXFAT: i64 = 0x2011_bab0;
