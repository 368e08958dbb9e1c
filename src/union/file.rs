//! Reading, writing and shaping the data of files.

use super::attr::Loss;
use super::{SetAttr, Union};
use crate::config::plan::Durability;
use crate::copyup::{Need, extents};
use crate::error::{Errno, Result, best_effort};
use crate::merge::inomap::Ino;
use crate::node::Node;
use crate::observe::{self, Cause};
use crate::sys::creds::Caller;
use crate::sys::fs::{
    self, O_DIRECTORY, O_NOATIME, O_NOFOLLOW, O_RDONLY, S_ISGID, S_ISUID, SetTime,
};
use crate::sys::io::{self, flags};
use crate::sys::path::At;
use crate::sys::xattr;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Who writes, and so what the write clears.
#[derive(Clone, Copy, Debug)]
pub enum Writer<'a> {
    /// Somebody whose writes leave setuid and setgid alone.
    Privileged,
    /// This caller, whose writes clear setuid, setgid and capabilities.
    Unprivileged(&'a Caller),
    /// A store through a mapping, which clears nothing.
    Mapping,
}

/// What a write takes away from nobody's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spared {
    /// Setuid and setgid.
    Mode,
    /// Capabilities too.
    All,
}

/// What opening a file does to it, beside opening it.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// It is emptied.
    pub truncates: bool,
    /// It is copied up.
    pub copies: bool,
}

impl Opening {
    /// What it needs of copy-up.
    pub fn need(self) -> Option<Need> {
        match self {
            Opening {
                truncates: true, ..
            } => Some(Need::Bytes(0)),
            Opening { copies: true, .. } => Some(Need::All),
            _ => None,
        }
    }
}

impl Union {
    /// Whether a change of file `ino` that needs `need` has to copy more than `limit` bytes
    /// first.
    pub fn copies_more_than(&self, limit: u64, ino: Ino, need: Need) -> bool {
        let (Ok(node), Ok(upper)) = (self.node(ino), self.tree.upper_layer()) else {
            return false;
        };
        let spared = need == Need::Meta && self.settings.spares_data(upper, node.kind);
        if spared || !node.is_file() || need.is_met(&node) {
            return false;
        }
        let in_parts =
            |len| need != Need::All && self.settings.copies_parts(&self.tree, node.kind, len);
        // Most are small: those are not asked how large they are.
        if in_parts(limit) {
            return false;
        }
        let size = self.tree.look(&node).map_or(0, |look| look.stat.size);
        let len = match need {
            Need::Bytes(n) => n.min(size),
            Need::Meta | Need::Part | Need::All => size,
        };
        len > limit && !in_parts(len)
    }

    /// What opening `ino` does, for `caller`.
    ///
    /// # Errors
    /// Those of copy-up and of truncate.
    pub fn open_file(&self, ino: Ino, opening: Opening, caller: &Caller) -> Result<()> {
        let node = self.node(ino)?;
        if !node.is_file() {
            return Ok(());
        }
        if opening.truncates {
            // The kernel asks for this of a file that it has just made, too. ext4 writes a file
            // that was truncated to the disk when it is closed, which one that was empty
            // before needs not.
            let is_plain = node.is_harmless() && node.stack().data_upper().is_some();
            let is_empty = is_plain && {
                let stat = self.attr_of(&node)?.stat;
                (stat.size, stat.blocks) == (0, 0)
            };
            let emptied = SetAttr {
                size: (!is_empty).then_some(0),
                mtime: is_empty.then_some(SetTime::Now),
                ..SetAttr::default()
            };
            self.setattr(ino, &emptied, caller)?;
        } else if opening.copies {
            self.with_room(|| self.ensure(&node, Need::All))?;
        }
        Ok(())
    }

    /// The descriptor by which the kernel may read and write `ino` itself as long as it is
    /// open: that of a file which stays where it is.
    ///
    /// # Errors
    /// Those of opening.
    pub fn backing(&self, ino: Ino) -> Result<Option<Arc<OwnedFd>>> {
        let node = self.node(ino)?;
        let in_upper = node.stack().data_upper().is_some();
        if !node.is_file() || !in_upper && !self.passes_lower {
            return Ok(None);
        }
        if in_upper {
            self.tree.upper_layer()?.share_log();
        }
        self.tree.reader(&node).map(Some)
    }

    /// Fills `buf` from offset `at` of `ino`; how many bytes came. `open_flags` are
    /// those of the open file that is read.
    ///
    /// # Errors
    /// Those of opening and reading.
    pub fn read(&self, ino: Ino, at: u64, buf: &mut [u8], open_flags: i32) -> Result<usize> {
        let node = self.node(ino)?;
        if open_flags & O_NOATIME != 0 && node.stack().data_upper().is_some() {
            let quiet = self.tree.open(&node, O_RDONLY | O_NOATIME);
            if let Ok(file) = quiet {
                return Ok(io::read_full(&file, buf, at)?);
            }
        }
        loop {
            if let Some(file) = self.reader_of_all(&node)? {
                return self.read_noting(&node, &file, buf, at);
            }
            if let Some(got) = extents::read(&self.tree, &node, buf, at)? {
                return Ok(got);
            }
        }
    }

    /// A descriptor of the one file that has all data of `node`; `None` where several have it.
    fn reader_of_all(&self, node: &Node) -> Result<Option<Arc<OwnedFd>>> {
        loop {
            let stack = node.stack();
            if stack.is_mixed() {
                return Ok(None);
            }
            let file = self.tree.reader(node)?;
            // Else it may be that of a file which is partly copied since.
            if Arc::ptr_eq(&stack, &node.stack()) {
                return Ok(Some(file));
            }
        }
    }

    /// Whether so many bytes at offset `at` of `ino` can be read without waiting for a disk,
    /// as far as that can be told.
    pub fn is_in_memory(&self, ino: Ino, at: u64, size: usize) -> bool {
        let Ok(node) = self.node(ino) else {
            return false;
        };
        let file = self.tree.reader(&node);
        let is = !node.stack().is_mixed() && file.is_ok_and(|file| io::is_cached(&*file, at, size));
        if !is {
            // Asking has had the disk begin: who reads it then may not notice that it waits.
            self.note_wait(&node, at, size);
        }
        is
    }

    /// Writes `data` at offset `at` of `ino`; how many bytes went.
    ///
    /// # Errors
    /// Those of copy-up and of writing.
    pub fn write(&self, ino: Ino, at: u64, data: &[u8], by: Writer<'_>) -> Result<usize> {
        let node = self.node(ino)?;
        if matches!(by, Writer::Mapping) {
            observe::cause(Cause::Mmap);
        }
        self.with_room(|| self.ensure(&node, Need::Part))?;
        match by {
            _ if node.is_harmless() => {}
            Writer::Privileged => return self.put_keeping(&node, at, data, Spared::Mode),
            Writer::Unprivileged(caller) => {
                self.clear_privileges(&node, caller, Loss::UnprivilegedWrite)?;
            }
            Writer::Mapping => return self.put_keeping(&node, at, data, Spared::All),
        }
        self.with_room(|| self.put(&node, at, data))
    }

    /// Writes to `node`, which is in the upper with its data or a part of it.
    fn put(&self, node: &Arc<Node>, at: u64, data: &[u8]) -> Result<usize> {
        if node.stack().partial.is_some()
            && let Some(put) = extents::write(&self.tree, &self.settings, node, at, data)?
        {
            return Ok(put);
        }
        let file = self.tree.writer(node)?;
        Ok(io::write_full(&*file, data, at)?)
    }

    /// A store through a mapping takes nothing away, and a write with privilege only
    /// capabilities; but the write that brings it to the upper would, capabilities always and
    /// setuid and setgid where the daemon has no privilege.
    fn put_keeping(&self, node: &Arc<Node>, at: u64, data: &[u8], what: Spared) -> Result<usize> {
        const KEY: &CStr = c"security.capability";
        let file = &*self.tree.writer(node)?;
        let real = At::fd(file);
        let mode = fs::stat(real)?.mode;
        let has_bits = mode & (S_ISUID | S_ISGID) != 0;
        let capability = match what {
            Spared::All => xattr::get_optional(real, KEY)?,
            Spared::Mode => None,
        };
        let written = self.with_room(|| self.put(node, at, data))?;
        if has_bits && fs::stat(real)?.mode != mode {
            best_effort("keep setuid", fs::chmod(real, mode & 0o7777));
        }
        if let Some(value) = capability {
            best_effort("keep a capability", xattr::set(real, KEY, &value, 0));
            return Ok(written);
        }
        let upper = self.tree.upper_layer()?;
        let apart = match upper.kept {
            Some(_) => {
                let shown = upper.stat(real)?.mode & (S_ISUID | S_ISGID) != 0;
                shown || upper.has_capability(real)?
            }
            None => false,
        };
        node.set_harmless(!has_bits && !apart);
        Ok(written)
    }

    /// fallocate(2) on `ino`.
    ///
    /// # Errors
    /// Those of copy-up and of fallocate.
    pub fn fallocate(&self, ino: Ino, mode: i32, at: u64, len: u64, caller: &Caller) -> Result<()> {
        let node = self.node(ino)?;
        self.with_room(|| self.ensure(&node, Need::Part))?;
        self.clear_privileges(&node, caller, Loss::Write)?;
        self.with_room(|| {
            let (tree, settings) = (&self.tree, &self.settings);
            if node.stack().partial.is_some() {
                if extents::allocate(tree, settings, &node, mode, (at, len))? {
                    return Ok(());
                }
                self.ensure(&node, Need::All)?;
            }
            Ok(io::allocate(&*tree.writer(&node)?, mode, at, len)?)
        })
    }

    /// lseek(2) for SEEK_DATA and SEEK_HOLE on `ino`.
    ///
    /// # Errors
    /// ENXIO past the end, else lseek's.
    pub fn lseek(&self, ino: Ino, at: i64, whence: i32) -> Result<u64> {
        let node = self.node(ino)?;
        let file = loop {
            if let Some(file) = self.reader_of_all(&node)? {
                break file;
            }
            let at = u64::try_from(at).map_err(|_| Errno::ENXIO)?;
            if let Some(found) = extents::seek(&self.tree, &node, at, whence)? {
                return Ok(found);
            }
        };
        match io::seek(&*file, at, whence) {
            // A filesystem that knows of no holes: all is data.
            Err(e) if at >= 0 && matches!(e.errno, Errno::EINVAL | Errno::EOPNOTSUPP) => {
                let size = fs::stat(At::fd(&*file))?.size;
                match (at.unsigned_abs() < size, whence) {
                    (true, io::SEEK_DATA) => Ok(at.unsigned_abs()),
                    (true, io::SEEK_HOLE) => Ok(size),
                    (false, io::SEEK_DATA | io::SEEK_HOLE) => Err(Errno::ENXIO),
                    _ => Err(e.errno),
                }
            }
            other => Ok(other?),
        }
    }

    /// copy_file_range(2) from one file of the union to another.
    ///
    /// # Errors
    /// Those of copy-up and of copy_file_range; EXDEV makes the kernel copy by itself.
    pub fn copy_file_range(
        &self,
        from: (Ino, u64),
        to: (Ino, u64),
        len: usize,
        caller: &Caller,
    ) -> Result<usize> {
        let (source, target) = (self.node(from.0)?, self.node(to.0)?);
        self.ensure(&target, Need::Part)?;
        let Some(reader) = self.reader_of_all(&source)? else {
            return Err(Errno::EXDEV);
        };
        if target.stack().is_mixed() {
            return Err(Errno::EXDEV);
        }
        let writer = self.tree.writer(&target)?;
        self.clear_privileges(&target, caller, Loss::Write)?;
        Ok(io::copy_range(&*reader, from.1, &*writer, to.1, len)?)
    }

    /// fsync(2) of a file or directory; what lies in a lower layer needs none.
    ///
    /// # Errors
    /// fsync's.
    pub fn fsync(&self, ino: Ino, data_only: bool) -> Result<()> {
        let node = self.node(ino)?;
        if !node.in_upper() || self.settings.durability == Durability::Volatile {
            return Ok(());
        }
        if node.is_dir() {
            let dir = self.tree.upper_dir(&node)?;
            let open = fs::open(At::new(&*dir, b"."), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)?;
            return Ok(self.tree.upper_layer()?.sync(&open, data_only)?);
        }
        if !node.is_file() {
            return Ok(());
        }
        if data_only && node.is_on_disk() {
            return self.sync_file(&node, true);
        }
        // Before, so that it does not hide a copy-up meanwhile.
        node.set_on_disk(true);
        let synced = self.sync_file(&node, false);
        if synced.is_err() {
            node.set_on_disk(false);
        }
        synced
    }

    fn sync_file(&self, node: &Node, data_only: bool) -> Result<()> {
        let upper = self.tree.upper_layer()?;
        if node.stack().data_upper().is_none() && node.stack().partial.is_none() {
            let file = self.tree.open(node, O_RDONLY | fs::O_NONBLOCK)?;
            return Ok(upper.sync(&file, data_only)?);
        }
        let file = self.tree.reader(node)?;
        Ok(upper.sync(&*file, data_only)?)
    }

    /// Where changes are to be on the disk when they are answered, brings the names of
    /// `dirs` there.
    ///
    /// # Errors
    /// fsync's.
    pub(super) fn persist_dirs<const N: usize>(&self, dirs: [Ino; N]) -> Result<()> {
        if !self.settings.is_strict() {
            return Ok(());
        }
        for ino in dirs {
            let dir = self.tree.upper_dir(&*self.node(ino)?)?;
            self.settings
                .persist_names(self.tree.upper_layer()?, [&*dir])?;
        }
        Ok(())
    }

    /// The same with the attributes of `node`.
    ///
    /// # Errors
    /// Those of syncing it.
    pub(super) fn persist(&self, node: &Node) -> Result<()> {
        if !self.settings.is_strict() || node.is_removed() {
            return Ok(());
        }
        if node.is_file() || node.is_dir() {
            return self.fsync(node.ino, false);
        }
        self.settings.persist_all(self.tree.upper_layer()?)
    }

    /// An inode-flag ioctl ([`flags`]) on `ino`, with up to 32 bytes in; the same out.
    ///
    /// # Errors
    /// ENOTTY for any other command; those of copy-up and of ioctl.
    pub fn ioctl(&self, ino: Ino, command: u32, data: &[u8]) -> Result<[u8; 32]> {
        let changes = flags::sets(command).ok_or(Errno::ENOTTY)?;
        let node = self.node(ino)?;
        if !node.is_file() && !node.is_dir() {
            return Err(Errno::ENOTTY);
        }
        if changes {
            self.ensure(&node, Need::Meta)?;
        }
        let kind = if node.is_dir() { O_DIRECTORY } else { 0 };
        let open = self.tree.open(&node, O_RDONLY | fs::O_NONBLOCK | kind)?;
        let mut room = [0u8; 32];
        let len = data.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..len), data.get(..len)) {
            to.copy_from_slice(from);
        }
        io::flags_ioctl(&open, command, &mut room)?;
        if changes {
            self.persist(&node)?;
        }
        Ok(room)
    }
}
