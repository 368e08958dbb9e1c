//! Memory of the process itself, and files mapped into it.

use super::path::check;
use crate::error::{Errno, SysError, best_effort};
use std::os::fd::{AsFd, AsRawFd};

/// What the allocator may keep at the end of each of its heaps, bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 128 << 10;
/// Allocations of this many bytes get a mapping of their own, which goes when they go.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 1 << 20;

/// Tells the allocator to keep little of what is freed, for as long as the process lives.
///
/// Left alone, glibc raises both limits to what was freed last, and after a walk of a
/// large tree keeps megabytes at the end of each thread's heap that [`give_back`] does
/// not reach. And it grows the heaps of threads other than the first by a system call for
/// each page; so there is one heap for all.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (limit, bytes) in [
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_MMAP_THRESHOLD, OWN_MAPPING),
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: no pointers; a limit that glibc does not know is refused.
        unsafe { libc::mallopt(limit, bytes) };
    }
}

/// Gives what the allocator holds and does not use back to the system.
///
/// glibc keeps the pages of many small allocations until they are asked for again;
/// after a walk of a million files that is most of the process.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no pointers; the call is safe beside allocations in other threads.
        unsafe { libc::malloc_trim(0) };
    }
}

/// A file mapped into memory, shared with everyone who reads or writes it.
///
/// Others may change the bytes at any time, so no reference to them is given out: each is
/// read and written by itself. Where the file is made shorter meanwhile, the process gets
/// SIGBUS; callers map files that nobody else knows.
#[derive(Debug)]
pub struct Mapping {
    start: std::ptr::NonNull<u8>,
    len: usize,
    writable: bool,
}

impl Mapping {
    /// Maps the first `len` bytes of the file `fd`.
    pub fn new(fd: &impl AsFd, len: usize, writable: bool) -> Result<Mapping, SysError> {
        let writing = if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: the kernel chooses the place; a live descriptor.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | writing,
                libc::MAP_SHARED,
                fd.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(SysError::last("mmap"));
        }
        let start = std::ptr::NonNull::new(start.cast()).ok_or(SysError {
            call: "mmap",
            errno: Errno::ENOMEM,
        })?;
        Ok(Mapping {
            start,
            len,
            writable,
        })
    }

    /// The byte at `at`; 0 outside of the mapping.
    pub fn read(&self, at: usize) -> u8 {
        if at >= self.len {
            return 0;
        }
        // SAFETY: within the mapping, which lives as long as `self`; volatile, since
        // others may write.
        unsafe { self.start.as_ptr().add(at).read_volatile() }
    }

    /// Writes the byte at `at`; nothing outside of the mapping, or where it is read-only.
    pub fn write(&self, at: usize, byte: u8) {
        if at < self.len && self.writable {
            // SAFETY: as in `read`, and mapped for writing.
            unsafe { self.start.as_ptr().add(at).write_volatile(byte) }
        }
    }

    /// msync(2): what was written reaches the file.
    pub fn sync(&self) -> Result<(), SysError> {
        // SAFETY: exactly the mapping.
        check("msync", unsafe {
            libc::msync(self.start.as_ptr().cast(), self.len, libc::MS_SYNC)
        })
        .map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping, to which no reference was given out.
        let gone = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        best_effort("munmap", check("munmap", gone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_written_to_a_mapping_is_in_the_file() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(b"abc", 0).expect("written");
        let mapping = Mapping::new(&file, 3, true).expect("mapped");
        assert_eq!((mapping.read(1), mapping.read(3)), (b'b', 0));
        mapping.write(1, b'x');
        mapping.write(3, b'y');
        mapping.sync().expect("synced");
        let mut bytes = [0; 3];
        file.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"axc");
    }
}
