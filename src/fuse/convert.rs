//! Our types <-> fuser's.

use crate::error::Errno;
use crate::sys::creds::Caller;
use crate::sys::fs::{
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFSOCK, SetTime, Time,
};
use crate::union::Attr;
use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An errno for an answer, which it makes one that failed.
pub fn errno(e: Errno) -> fuser::Errno {
    crate::observe::failed();
    fuser::Errno::from_i32(e.0)
}

/// Who asks.
pub fn caller(request: &Request, umask: u32) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        umask,
        pid: request.pid(),
    }
}

/// The type of a file by its mode.
pub fn file_type(mode: u32) -> FileType {
    match mode & S_IFMT {
        S_IFDIR => FileType::Directory,
        S_IFLNK => FileType::Symlink,
        S_IFBLK => FileType::BlockDevice,
        S_IFCHR => FileType::CharDevice,
        S_IFIFO => FileType::NamedPipe,
        S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

/// A time as the standard library has it; one that it cannot hold becomes 1970.
fn system_time(t: Time) -> SystemTime {
    let whole = Duration::from_secs(t.sec.unsigned_abs());
    let base = if t.sec >= 0 {
        UNIX_EPOCH.checked_add(whole)
    } else {
        UNIX_EPOCH.checked_sub(whole)
    };
    base.and_then(|b| b.checked_add(Duration::from_nanos(u64::from(t.nsec))))
        .unwrap_or(UNIX_EPOCH)
}

/// What the kernel sent as a time. fuser subtracts the nanoseconds of a time before
/// 1970 as well as its seconds; taking both apart again gives what was sent.
fn sent_time(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            sec: after.as_secs() as i64,
            nsec: after.subsec_nanos(),
        },
        Err(e) => Time {
            sec: -(e.duration().as_secs() as i64),
            nsec: e.duration().subsec_nanos(),
        },
    }
}

/// A time that is to be set.
pub fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(t) => SetTime::To(sent_time(t)),
    }
}

/// Device numbers as FUSE packs them (the kernel's `new_encode_dev`):
///
/// ```text
///  31        20 19         8 7        0
/// | minor high |   major    | minor low |
/// ```
pub fn pack_rdev((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

/// The reverse of [`pack_rdev`].
pub fn unpack_rdev(packed: u32) -> (u32, u32) {
    (packed >> 8 & 0xfff, packed & 0xff | packed >> 12 & 0xf_ff00)
}

/// Attributes for an answer.
pub fn attr(a: &Attr) -> FileAttr {
    let s = &a.stat;
    FileAttr {
        ino: INodeNo(a.ino),
        size: s.size,
        blocks: s.blocks,
        atime: system_time(s.atime),
        mtime: system_time(s.mtime),
        ctime: system_time(s.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(s.mode),
        perm: (s.mode & 0o7777) as u16,
        nlink: s.nlink,
        uid: s.uid,
        gid: s.gid,
        rdev: pack_rdev(s.rdev),
        blksize: s.blksize,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_both_ways() {
        for (sec, nsec) in [
            (0, 0),
            (5, 7),
            (-1, 0),
            (-1, 999_999_999),
            (-2, 800_000_000),
        ] {
            let time = Time { sec, nsec };
            let out = system_time(time);
            let want = i128::from(sec) * 1_000_000_000 + i128::from(nsec);
            let got = match out.duration_since(UNIX_EPOCH) {
                Ok(d) => d.as_nanos() as i128,
                Err(e) => -(e.duration().as_nanos() as i128),
            };
            assert_eq!(got, want, "{time:?} out");
            // As fuser reads seconds and nanoseconds from the wire.
            let fuser_reads = if sec >= 0 {
                UNIX_EPOCH + Duration::new(sec as u64, nsec)
            } else {
                UNIX_EPOCH - Duration::new(-sec as u64, nsec)
            };
            assert_eq!(sent_time(fuser_reads), time, "{time:?} in");
        }
    }

    #[test]
    fn device_numbers_survive_packing() {
        for rdev in [(0, 0), (1, 3), (8, 1), (259, 4096), (4095, (1 << 20) - 1)] {
            assert_eq!(unpack_rdev(pack_rdev(rdev)), rdev);
        }
    }
}
