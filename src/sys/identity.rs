//! What identifies files and filesystems for ever: handles and UUIDs.

use super::fault;
use super::fs::O_PATH;
use super::path::{At, CBuf, check};
use crate::error::{Errno, SysError};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// What identifies an inode on its filesystem for ever: name_to_handle_at(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHandle {
    /// How the filesystem encodes it.
    pub kind: u8,
    /// The encoding.
    pub bytes: Vec<u8>,
}

/// name_to_handle_at(2), no symlink followed.
pub fn file_handle(at: At<'_>) -> Result<FileHandle, SysError> {
    const ROOM: usize = libc::MAX_HANDLE_SZ as usize;
    #[repr(C)]
    struct Handle {
        head: libc::file_handle,
        bytes: [u8; ROOM],
    }
    let name = CBuf::name("name_to_handle_at", at.name)?;
    fault::before("name_to_handle_at")?;
    // SAFETY: all zeroes is a valid Handle: integers only.
    let mut handle: Handle = unsafe { MaybeUninit::zeroed().assume_init() };
    handle.head.handle_bytes = ROOM as libc::c_uint;
    let mut mount_id = 0;
    let flags = if at.is_fd() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: the head says how much room follows it.
    check("name_to_handle_at", unsafe {
        libc::name_to_handle_at(
            at.raw(),
            name.as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            flags,
        )
    })?;
    let len = (handle.head.handle_bytes as usize).min(ROOM);
    let kind = u8::try_from(handle.head.handle_type).map_err(|_| SysError {
        call: "name_to_handle_at",
        errno: Errno::EOVERFLOW,
    })?;
    Ok(FileHandle {
        kind,
        bytes: handle.bytes[..len].to_vec(),
    })
}

/// Whether the filesystem that the open file `any` is on still has the file of `handle`:
/// open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH.
pub fn has_handle(any: &impl AsFd, handle: &FileHandle) -> Result<bool, SysError> {
    const ROOM: usize = libc::MAX_HANDLE_SZ as usize;
    #[repr(C)]
    struct Handle {
        head: libc::file_handle,
        bytes: [u8; ROOM],
    }
    // SAFETY: both parts are integers, for which zero is a value.
    let mut raw: Handle = unsafe { MaybeUninit::zeroed().assume_init() };
    let Some(room) = raw.bytes.get_mut(..handle.bytes.len()) else {
        return Ok(false);
    };
    room.copy_from_slice(&handle.bytes);
    raw.head.handle_bytes = handle.bytes.len() as libc::c_uint;
    raw.head.handle_type = i32::from(handle.kind);
    // SAFETY: `raw` holds the handle and as many bytes as it says.
    let fd = unsafe {
        libc::open_by_handle_at(
            any.as_fd().as_raw_fd(),
            (&raw mut raw).cast(),
            O_PATH | libc::O_CLOEXEC,
        )
    };
    match check("open_by_handle_at", fd) {
        Ok(fd) => {
            // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(true)
        }
        Err(e) if matches!(e.errno, Errno::ESTALE | Errno::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What the kernel knows a filesystem's UUID to be: ioctl FS_IOC_GETFSUUID (Linux 6.9),
/// which btrfs does not answer. Where that says nothing each filesystem is asked in its own
/// way, and at last what is on the block device, or udev has found there.
pub fn fs_uuid(fd: &impl AsFd) -> Result<[u8; 16], SysError> {
    generic_uuid(fd)
        .or_else(|_| btrfs_uuid(fd))
        .or_else(|_| xfs_uuid(fd))
        .or_else(|_| ext4_uuid(fd))
        .or_else(|e| uuid_by_udev(fd).or_else(|| uuid_on_device(fd)).ok_or(e))
}

/// What the superblock of ext2, ext3 or ext4 has (`struct ext4_super_block`), for those who
/// may read the device.
fn uuid_on_device(fd: &impl AsFd) -> Option<[u8; 16]> {
    use std::os::unix::fs::FileExt;
    const MAGIC: [u8; 2] = [0x53, 0xef];
    let (major, minor) = super::fs::stat(At::fd(fd)).ok()?.device();
    let about = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = about.lines().find_map(|l| l.strip_prefix("DEVNAME="))?;
    let device = std::fs::File::open(format!("/dev/{name}")).ok()?;
    let mut block = [0u8; 128];
    device.read_exact_at(&mut block, 1024).ok()?;
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&block[0x68..0x78]);
    (block[0x38..0x3a] == MAGIC).then_some(uuid)
}

/// `struct xfs_fsop_geom_v1` of fs/xfs/libxfs/xfs_fs.h has it after eight numbers of 4 bytes
/// and four of 8.
fn xfs_uuid(fd: &impl AsFd) -> Result<[u8; 16], SysError> {
    const XFS_IOC_FSGEOMETRY_V1: u32 = 0x8070_5864;
    let mut out = [0u8; 112];
    // SAFETY: the command writes 112 bytes, as its number says.
    check("ioctl(XFS_IOC_FSGEOMETRY)", unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            XFS_IOC_FSGEOMETRY_V1 as libc::Ioctl,
            out.as_mut_ptr(),
        )
    })?;
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&out[64..80]);
    Ok(uuid)
}

/// `struct fsuuid`: the room there is for it (4), flags (4), the UUID. Linux 6.0.
fn ext4_uuid(fd: &impl AsFd) -> Result<[u8; 16], SysError> {
    const EXT4_IOC_GETFSUUID: u32 = 0x8008_662c;
    let mut out = [0u8; 24];
    out[..4].copy_from_slice(&16u32.to_ne_bytes());
    // SAFETY: the command writes as many bytes after the first 8 as these say.
    check("ioctl(EXT4_IOC_GETFSUUID)", unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            EXT4_IOC_GETFSUUID as libc::Ioctl,
            out.as_mut_ptr(),
        )
    })?;
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&out[8..]);
    Ok(uuid)
}

/// The name in `/dev/disk/by-uuid` of the block device that `fd` lies on.
fn uuid_by_udev(fd: &impl AsFd) -> Option<[u8; 16]> {
    let dev = super::fs::stat(At::fd(fd)).ok()?.dev;
    let names = std::fs::read_dir("/dev/disk/by-uuid").ok()?;
    names.flatten().find_map(|entry| {
        let device = std::fs::metadata(entry.path()).ok()?;
        let uuid = parse_uuid(entry.file_name().to_str()?)?;
        (device.rdev() == dev).then_some(uuid)
    })
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
    let mut uuid = [0u8; 16];
    if digits.len() != 2 * uuid.len() {
        return None;
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(uuid)
}

/// `struct btrfs_ioctl_fs_info_args`: max_id (8), num_devices (8), fsid (16), …
fn btrfs_uuid(fd: &impl AsFd) -> Result<[u8; 16], SysError> {
    const BTRFS_IOC_FS_INFO: u32 = 0x8400_941f;
    let mut out = [0u8; 1024];
    // SAFETY: the command writes at most 1024 bytes, as its number says.
    check("ioctl(BTRFS_IOC_FS_INFO)", unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            BTRFS_IOC_FS_INFO as libc::Ioctl,
            out.as_mut_ptr(),
        )
    })?;
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&out[16..32]);
    Ok(uuid)
}

fn generic_uuid(fd: &impl AsFd) -> Result<[u8; 16], SysError> {
    const FS_IOC_GETFSUUID: u32 = 0x8011_1500;
    let mut out = [0u8; 17];
    // SAFETY: the command writes a length byte and 16 bytes.
    check("ioctl(FS_IOC_GETFSUUID)", unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            FS_IOC_GETFSUUID as libc::Ioctl,
            out.as_mut_ptr(),
        )
    })?;
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&out[1..]);
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_as_udev_writes_it_and_nothing_else() {
        let uuid = parse_uuid("0a1b2c3d-0000-1111-2222-ffeeddccbbaa").unwrap();
        assert_eq!(uuid[..4], [0x0a, 0x1b, 0x2c, 0x3d]);
        assert_eq!(uuid[15], 0xaa);
        for other in ["", "A1B2-C3D4", "0a1b2c3d-0000-1111-2222-ffeeddccbbag"] {
            assert_eq!(parse_uuid(other), None);
        }
    }
}
