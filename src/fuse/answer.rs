//! Answers: what several requests have in common to say.

use super::convert::{errno, file_type};
use crate::error::{Errno, Result};
use crate::union::Union;
use fuser::{FileAttr, INodeNo, OpenFlags, ReplyData, ReplyEmpty, ReplyWrite, ReplyXattr};
use std::cell::RefCell;
use std::time::SystemTime;

/// Answers how many bytes were written.
pub fn written(reply: ReplyWrite, result: Result<usize>) {
    match result {
        Ok(n) => reply.written(n as u32),
        Err(e) => reply.error(errno(e)),
    }
}

/// Answers that it is done.
pub fn empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

/// Answers an xattr, or how long it is where nobody has room for it.
pub fn value(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(data) if size == 0 => reply.size(data.len() as u32),
        Ok(data) if data.len() > size as usize => reply.error(errno(Errno::ERANGE)),
        Ok(data) => reply.data(&data),
        Err(e) => reply.error(errno(e)),
    }
}

/// What an absent name is answered with, so that the kernel remembers its absence:
/// an entry without an inode (`fuse_lookup_name` in fs/fuse/dir.c).
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(0),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

thread_local! {
    /// The answer to a READ, kept so that none is allocated and zeroed anew.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers what was read of `ino`.
pub fn answer_read(
    union: &Union,
    ino: u64,
    offset: u64,
    size: usize,
    flags: OpenFlags,
    reply: ReplyData,
) {
    READ_BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let room = buffer.get_mut(..size).unwrap_or_default();
        match union.read(ino, offset, room, flags.0) {
            Ok(n) => reply.data(room.get(..n).unwrap_or_default()),
            Err(e) => reply.error(errno(e)),
        }
    });
}
