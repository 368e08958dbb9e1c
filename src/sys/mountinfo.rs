//! /proc/self/mountinfo: what is mounted where.

use super::path::{c_path, check};
use crate::error::{Errno, SysError};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of this mount.
    pub id: u64,
    /// The filesystem's device: major and minor number.
    pub dev: (u32, u32),
    /// Where it is mounted, as this process sees it.
    pub point: PathBuf,
    /// Whether this mount refuses writes.
    pub read_only: bool,
    /// Whether this mount shows other owners than its filesystem has.
    pub idmapped: bool,
    /// The type: `ext4`, `fuse.plyfs`, …
    pub fs_type: String,
    /// What was mounted: a device or a name.
    pub source: OsString,
    /// Who mounted it, as FUSE mounts say.
    pub owner: Option<u32>,
    /// Options of the filesystem, for all of its mounts; separated by commas.
    pub fs_options: String,
}

/// Undoes the kernel's `\040` escapes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            out.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let mut fields = line.split(|&b| b == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let _parent = fields.next()?;
    let dev = text(fields.next()?);
    let (major, minor) = dev.split_once(':')?;
    let _root = fields.next()?;
    let point = OsString::from_vec(unescape(fields.next()?)).into();
    let options = text(fields.next()?);
    // Optional fields (propagation) end with a lone dash.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = text(fields.next()?);
    let source = OsString::from_vec(unescape(fields.next()?));
    let fs_options = fields.next().map(text).unwrap_or_default();
    let owner = fs_options
        .split(',')
        .find_map(|word| word.strip_prefix("user_id="));
    Some(Mount {
        id,
        dev: (major.parse().ok()?, minor.parse().ok()?),
        point,
        read_only: options.split(',').any(|word| word == "ro"),
        idmapped: options.split(',').any(|word| word == "idmapped"),
        fs_type,
        source,
        owner: owner.and_then(|uid| uid.parse().ok()),
        fs_options,
    })
}

/// All mounts that this process can see, in the order of the kernel's list.
pub fn read() -> io::Result<Vec<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table
        .split(|&b| b == b'\n')
        .filter_map(parse_line)
        .collect())
}

/// Major and minor number of the device that the file at `path` is on.
///
/// Nothing but that is asked for, which a FUSE mount's daemon has no part in, and which the
/// kernel tells also those who may not enter the mount.
pub fn device_at(path: &Path) -> Result<(u32, u32), SysError> {
    let path = c_path("statx", path)?;
    let mut out = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` is NUL-terminated and `out` has room for one statx.
    let status = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_STATX_DONT_SYNC,
            0,
            out.as_mut_ptr(),
        )
    };
    match check("statx", status) {
        Err(e) if matches!(e.errno, Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => {
            return device_by_stat(&path);
        }
        other => other?,
    };
    // SAFETY: zeroed is a valid statx.
    let found = unsafe { out.assume_init() };
    Ok((found.stx_dev_major, found.stx_dev_minor))
}

/// The same where statx(2) is kept from us: of a FUSE mount its daemon is asked.
fn device_by_stat(path: &std::ffi::CStr) -> Result<(u32, u32), SysError> {
    let mut out = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `path` is NUL-terminated and `out` has room for one stat.
    check("stat", unsafe {
        libc::stat(path.as_ptr(), out.as_mut_ptr())
    })?;
    // SAFETY: zeroed is a valid stat.
    let found = unsafe { out.assume_init() };
    Ok((libc::major(found.st_dev), libc::minor(found.st_dev)))
}

/// The mount that is on top at exactly `point`.
pub fn at(point: &Path) -> io::Result<Option<Mount>> {
    Ok(read()?.into_iter().rev().find(|mount| mount.point == point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_read() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134c rw,noatime shared:1 master:2 - fuse.plyfs my\040name rw,user_id=7,group_id=8";
        let mount = parse_line(line).expect("a valid line");
        assert_eq!(mount.id, 36);
        assert_eq!(mount.dev, (98, 0));
        assert_eq!(mount.point, Path::new(r"/a b\c"));
        assert_eq!(mount.fs_type, "fuse.plyfs");
        assert_eq!((mount.source, mount.owner), ("my name".into(), Some(7)));
        assert!(!mount.read_only && !mount.idmapped);
    }

    #[test]
    fn a_line_without_optional_fields_is_read() {
        let line = b"27 1 254:0 / / ro,relatime,idmapped - ext4 /dev/vda rw";
        let mount = parse_line(line).expect("a valid line");
        assert!(mount.read_only && mount.idmapped);
        assert_eq!((mount.fs_type.as_str(), mount.owner), ("ext4", None));
    }

    #[test]
    fn devices_are_numbered_as_in_the_table() {
        let proc = at(Path::new("/proc")).expect("a table").expect("a mount");
        assert_eq!(device_at(Path::new("/proc/self/status")), Ok(proc.dev));
        assert!(device_at(Path::new("/no/such/file")).is_err());
    }

    #[test]
    fn a_line_cut_short_is_passed_over() {
        assert_eq!(parse_line(b"27 1 254:0 / / rw"), None);
        assert_eq!(parse_line(b""), None);
    }
}
