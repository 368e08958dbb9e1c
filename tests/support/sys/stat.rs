//! What the kernel says of files and directories.

use std::os::fd::{AsRawFd, OwnedFd};

use super::{Res, c, errno, open};

/// What stat(2) says, without what no two mounts share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: (i64, i64),
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

impl Stat {
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }
    pub fn is_symlink(&self) -> bool {
        self.kind() == libc::S_IFLNK
    }
    /// A character device 0:0, as overlayfs marks a deleted name.
    pub fn is_whiteout(&self) -> bool {
        self.kind() == libc::S_IFCHR && self.rdev == 0
    }
}

fn stat_of(s: &libc::stat) -> Stat {
    Stat {
        dev: s.st_dev,
        ino: s.st_ino,
        mode: s.st_mode,
        nlink: s.st_nlink,
        uid: s.st_uid,
        gid: s.st_gid,
        rdev: s.st_rdev,
        size: s.st_size as u64,
        blocks: s.st_blocks as u64,
        atime: (s.st_atime, s.st_atime_nsec),
        mtime: (s.st_mtime, s.st_mtime_nsec),
        ctime: (s.st_ctime, s.st_ctime_nsec),
    }
}

fn empty_stat() -> libc::stat {
    // SAFETY: all zero bytes are a valid stat.
    unsafe { std::mem::zeroed() }
}

pub fn lstat(path: impl AsRef<[u8]>) -> Res<Stat> {
    let p = c(path);
    let mut s = empty_stat();
    call!(libc::lstat(p.as_ptr(), &mut s))?;
    Ok(stat_of(&s))
}

pub fn stat(path: impl AsRef<[u8]>) -> Res<Stat> {
    let p = c(path);
    let mut s = empty_stat();
    call!(libc::stat(p.as_ptr(), &mut s))?;
    Ok(stat_of(&s))
}

pub fn fstat(fd: &OwnedFd) -> Res<Stat> {
    let mut s = empty_stat();
    call!(libc::fstat(fd.as_raw_fd(), &mut s))?;
    Ok(stat_of(&s))
}

/// One entry as the kernel hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirent {
    pub ino: u64,
    pub next: i64,
    pub kind: u8,
    pub name: Vec<u8>,
}

/// One getdents64 call with a buffer of `size` bytes: `.` and `..` included; empty at the end.
pub fn getdents(dir: &OwnedFd, size: usize) -> Res<Vec<Dirent>> {
    let mut buffer = vec![0u8; size];
    let n = call!(libc::syscall(
        libc::SYS_getdents64,
        dir.as_raw_fd(),
        buffer.as_mut_ptr(),
        buffer.len()
    ))? as usize;
    let mut entries = Vec::new();
    let mut rest = &buffer[..n];
    while rest.len() >= 19 {
        let word = |at: usize| <[u8; 8]>::try_from(&rest[at..at + 8]).expect("8 bytes");
        let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
        let name = &rest[19..length];
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        entries.push(Dirent {
            ino: u64::from_ne_bytes(word(0)),
            next: i64::from_ne_bytes(word(8)),
            kind: rest[18],
            name: name[..end].to_vec(),
        });
        rest = &rest[length..];
    }
    Ok(entries)
}

/// All entries of an open directory from where it stands, without `.` and `..`.
pub fn read_rest(dir: &OwnedFd) -> Res<Vec<Dirent>> {
    let mut all = Vec::new();
    loop {
        let part = getdents(dir, 32768)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(
            part.into_iter()
                .filter(|e| e.name != b"." && e.name != b".."),
        );
    }
}

/// All entries of the directory at `path`, without `.` and `..`.
pub fn list(path: impl AsRef<[u8]>) -> Res<Vec<Dirent>> {
    let dir = open(path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    read_rest(&dir)
}
