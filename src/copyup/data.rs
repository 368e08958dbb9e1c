//! The bytes of a copy-up: clone, else copy_file_range, else a loop; holes stay holes.

use crate::error::{Errno, SysError};
use crate::node::source::Source;
use crate::observe;
use crate::sys::io::{self, SEEK_DATA, SEEK_HOLE};
use std::os::fd::OwnedFd;

/// Bytes that one copy_file_range asks for.
const CHUNK: u64 = 64 << 20;
/// Bytes that the loop moves at a time; files up to this size are looped at once.
const BUFFER: usize = 128 << 10;
const BLOCK: u64 = 512;

/// Makes `to`, which is empty, a clone of `from` where the filesystem can.
pub fn clone(from: &Source, to: &OwnedFd) -> bool {
    let layer = &from.layer;
    if !from.is_whole() || layer.clones.get() == Some(false) {
        return false;
    }
    match io::clone_file(&from.file, to) {
        Ok(()) => {
            observe::cloned(from.stat.size);
            true
        }
        Err(_) => {
            layer.clones.learn(false);
            false
        }
    }
}

/// Copies the first `len` bytes of `from` into `to`, which is no longer than that and empty.
///
/// # Errors
/// Whatever reading or writing met.
pub fn copy(from: &Source, to: &OwnedFd, len: u64) -> Result<(), SysError> {
    if len == 0 || len == from.stat.size && clone(from, to) {
        return Ok(());
    }
    let end = if !from.is_whole() {
        copy_mixed(from, to, len)?
    } else if from.stat.blocks * BLOCK >= from.stat.size {
        copy_extent(&from.file, to, 0, len)?
    } else {
        copy_sparse(&from.file, to, len)?
    };
    if end < len {
        io::truncate(to, len)?;
    }
    Ok(())
}

/// The same of a file whose data is in several; where the last byte was put.
fn copy_mixed(from: &Source, to: &OwnedFd, len: u64) -> Result<u64, SysError> {
    let mut buffer = vec![0u8; BUFFER];
    let (mut at, mut last) = (0, 0);
    while at < len {
        at = match from.seek(at, SEEK_DATA) {
            Ok(start) => start.min(len),
            Err(e) if e.errno == Errno::ENXIO => break,
            Err(e) => return Err(e),
        };
        let want = (len - at).min(BUFFER as u64) as usize;
        let room = buffer.get_mut(..want).unwrap_or_default();
        let got = from.read_at(room, at)?;
        if got == 0 {
            break;
        }
        observe::moved(got as u64);
        put_all(to, room.get(..got).unwrap_or_default(), at)?;
        at += got as u64;
        last = at;
    }
    Ok(last)
}

/// Where the last byte was put, like the others here.
fn copy_sparse(from: &OwnedFd, to: &OwnedFd, len: u64) -> Result<u64, SysError> {
    let (mut at, mut last) = (0, 0);
    while at < len {
        let start = match io::seek(from, at as i64, SEEK_DATA) {
            Ok(start) => start.min(len),
            Err(e) if e.errno == Errno::ENXIO => break,
            // A filesystem or a kernel that knows of no holes.
            Err(e) if matches!(e.errno, Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => at,
            Err(e) => return Err(e),
        };
        let end = match io::seek(from, start as i64, SEEK_HOLE) {
            Ok(end) => end.min(len),
            Err(_) => len,
        };
        if start < end {
            last = copy_extent(from, to, start, end)?;
        }
        at = end;
    }
    Ok(last)
}

fn copy_extent(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<u64, SysError> {
    let mut at = start;
    while end - at > BUFFER as u64 {
        let want = (end - at).min(CHUNK) as usize;
        match io::copy_range(from, at, to, at, want) {
            Ok(0) => break,
            Ok(n) => {
                at += n as u64;
                observe::moved(n as u64);
            }
            Err(e)
                if matches!(
                    e.errno,
                    Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM
                ) =>
            {
                break;
            }
            Err(e) => return Err(e),
        }
    }
    loop_extent(from, to, at, end)
}

fn loop_extent(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<u64, SysError> {
    let mut at = start;
    let mut buffer = vec![0u8; BUFFER.min((end - start) as usize)];
    while at < end {
        let want = buffer.len().min((end - at) as usize);
        let room = buffer.get_mut(..want).unwrap_or_default();
        let got = io::read_full(from, room, at)?;
        if got == 0 {
            break;
        }
        observe::moved(got as u64);
        put_all(to, room.get(..got).unwrap_or_default(), at)?;
        at += got as u64;
    }
    Ok(at)
}

/// Writes all of `data`, or says why not.
fn put_all(to: &OwnedFd, data: &[u8], at: u64) -> Result<(), SysError> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        done += io::write_full(to, rest, at + done as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn holes_stay_holes_and_every_byte_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            File::options()
                .create(true)
                .read(true)
                .write(true)
                .truncate(true)
                .open(dir.path().join(name))
                .unwrap()
        };
        let from = open("from");
        from.set_len(8 << 20).unwrap();
        for at in [0u64, 1 << 20, (3 << 20) + 5, (6 << 20) - 1] {
            from.write_all_at(&[at as u8 | 1; 300_000], at).unwrap();
        }
        let size = from.metadata().unwrap().len();
        let want = std::fs::read(dir.path().join("from")).unwrap();
        for (name, len) in [("all", size), ("cut", (3 << 20) + 7)] {
            let to = open(name);
            let (a, b) = (OwnedFd::from(from.try_clone().unwrap()), OwnedFd::from(to));
            copy_sparse(&a, &b, len).unwrap();
            if File::from(b.try_clone().unwrap()).metadata().unwrap().len() < len {
                io::truncate(&b, len).unwrap();
            }
            let got = std::fs::read(dir.path().join(name)).unwrap();
            assert!(got == want[..len as usize], "{name} differs");
            let blocks = std::fs::metadata(dir.path().join(name)).unwrap().blocks();
            assert!(blocks * 512 < len, "{name} is not sparse: {blocks} blocks");
        }
    }
}
