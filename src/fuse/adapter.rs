//! fuser::Filesystem: convert, call Union, answer once.
//!
//! There is no per-open state: `open` and `opendir` answer ENOSYS once, and the
//! kernel opens by itself from then on (FUSE_NO_OPEN_SUPPORT); so do `create` (the
//! kernel makes a node and opens it), `flush` and `access`. With `copyup=open` the
//! kernel asks before it opens a file, and that is all the difference. With
//! `io=passthrough` it asks too, and is told what to read and write by itself.

use super::answer::{absent, answer_read, empty, value, written};
use super::backing::{Backings, Served};
use super::bare::Bare;
use super::convert::{attr, caller, errno, file_type, set_time, unpack_rdev};
use super::invalidate::Invalidator;
use super::readers::{Readers, beside, caught, elsewhere, unanswered};
use crate::config::plan::{CacheTimeout, CopyUpAt, Io, MountPlan};
use crate::error::{Errno, Result};
use crate::observe::{self, Kind, Observer};
use crate::sys::creds::is_system_admin;
use crate::sys::fs::O_TRUNC;
use crate::sys::io::flags;
use crate::sys::process::Waits;
use crate::union::{Entry, Need, New, Opening, SetAttr, Union, Writer};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileAttr, FileHandle, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// For ever, as far as the kernel's clock goes.
pub(super) const FOREVER: Duration = Duration::from_secs(1 << 30);
/// Items taken from a directory at a time; what does not fit in the answer is asked
/// for again, and for the entries of READDIRPLUS that would be work for nothing.
const READDIR_BATCH: usize = 1024;
const READDIRPLUS_BATCH: usize = 32;
const MAX_WRITE: u32 = 1 << 20;
/// A copy-up of more bytes than this is done in a thread of its own: the threads that
/// read requests are few, and must not all be busy copying.
const LONG_COPY: u64 = 4 << 20;
/// A write of as many bytes is worth a thread of its own, where no other reader is free.
const MUCH: usize = 64 << 10;

/// Answers the kernel's requests from a [`Union`].
#[derive(Debug)]
pub struct Adapter {
    pub(super) union: Arc<Union>,
    pub(super) ttl: Duration,
    pub(super) max_write: u32,
    /// The kernel opens files and directories without asking.
    pub(super) opens_by_itself: bool,
    copyup: CopyUpAt,
    /// Programs have xattrs, ACLs and fsync.
    xattrs: bool,
    bare: Arc<Bare>,
    pub(super) acls: bool,
    syncs: bool,
    /// Those that call it.
    readers: Arc<Readers>,
    /// Counts what is served, unless that is switched off.
    observer: Option<Arc<Observer>>,
    /// Of `io=passthrough`.
    pub(super) backings: Option<Arc<Backings>>,
    invalidator: Arc<Invalidator>,
}

impl Adapter {
    /// An adapter over `union`, with the caching of `plan`, called by so many `readers`; what
    /// it does is counted by `observer`.
    pub fn new(
        union: Arc<Union>,
        plan: &MountPlan,
        readers: usize,
        observer: Option<Arc<Observer>>,
    ) -> Adapter {
        let passes = plan.io == Io::Passthrough;
        // The kernel would refuse each backing by itself, and each opening be slower for it.
        let may_pass = passes && is_system_admin();
        if passes && !may_pass {
            log::warn!("io=passthrough: only root of the machine may: files are cached");
        }
        Adapter {
            ttl: match plan.timeout {
                CacheTimeout::Forever => FOREVER,
                CacheTimeout::Seconds(s) => {
                    Duration::try_from_secs_f64(s).map_or(FOREVER, |d| d.min(FOREVER))
                }
            },
            max_write: plan.max_write.unwrap_or(MAX_WRITE),
            opens_by_itself: false,
            copyup: plan.copyup,
            // Where no file can have any, the kernel is told so once and for all.
            xattrs: plan.user_xattrs && union.has_xattrs(),
            bare: Arc::default(),
            acls: union.has_acls(),
            union,
            syncs: plan.fsync,
            readers: Arc::new(Readers::new(readers)),
            backings: may_pass.then(Arc::default),
            invalidator: Arc::default(),
            observer,
        }
    }

    /// Who tells the kernel what changed without its doing.
    pub fn invalidator(&self) -> Arc<Invalidator> {
        self.invalidator.clone()
    }

    /// Those that call it.
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// The union that it answers from.
    pub fn union(&self) -> &Arc<Union> {
        &self.union
    }

    /// Whether a change of `ino` that needs `need` has to copy so much that it is done
    /// elsewhere.
    fn takes_long(&self, ino: INodeNo, need: Need) -> bool {
        self.union.copies_more_than(LONG_COPY, ino.0, need)
    }

    /// Whether opening a file for writing copies it up: the kernel writes to where the file
    /// was when it was opened, if it does so by itself.
    fn copies_at_open(&self) -> bool {
        self.backings.is_some() || self.copyup == CopyUpAt::Open
    }

    /// Serves one request of `kind`.
    fn guarded(&self, request: &Request, kind: Kind, act: impl FnOnce()) {
        let _serving = self.readers.serve();
        let _observed = observe::begin(self.observer.as_ref(), kind, request.pid());
        caught(kind.name(), act);
    }

    /// Reads directories that are much asked, which the next lookups gain from: the answer to
    /// the last has been given.
    fn list_asked(&self) {
        if self.union.is_much_asked() {
            let _serving = self.readers.serve();
            unanswered("read a directory", || self.union.list_asked());
        }
    }

    /// Has fetched what is likely to be read next.
    fn read_ahead(&self) {
        if let Some(fetcher) = self.union.begin_to_read_ahead() {
            beside("read-ahead", move || fetcher.run());
        }
    }

    /// Answers an open of `ino`, whose data is where it is to be.
    fn answer_open(union: &Union, backings: Option<&Backings>, ino: u64, reply: ReplyOpen) {
        const FLAGS: FopenFlags = FopenFlags::FOPEN_NOFLUSH;
        let keep = FLAGS | FopenFlags::FOPEN_KEEP_CACHE;
        let Some(backings) = backings else {
            return reply.opened(FileHandle(0), keep);
        };
        let backing = match union.backing(ino) {
            Ok(backing) => backing,
            Err(e) => return reply.error(errno(e)),
        };
        let served = backings.enter(ino, || backing.as_ref().map(|fd| reply.open_backing(fd)));
        match served {
            Served::Passed(id) => reply.opened_passthrough(FileHandle(0), FLAGS, &id),
            // What the kernel has cached of an upper file may be older than what it wrote
            // by itself since.
            Served::Cached if backing.is_some() => reply.opened(FileHandle(0), FLAGS),
            Served::Cached => reply.opened(FileHandle(0), keep),
        }
    }

    fn answer_entry(&self, reply: ReplyEntry, result: Result<Entry<'_>>) {
        match result {
            Ok(entry) => {
                reply.entry(&self.ttl, &attr(&entry.attr), Generation(0));
                entry.node.told();
            }
            Err(e) => reply.error(errno(e)),
        }
    }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.shake_hands(config)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.guarded(request, Kind::Lookup, || {
            match self.union.lookup(parent.0, name.as_bytes()) {
                Ok(Some(entry)) => self.answer_entry(reply, Ok(entry)),
                Ok(None) => reply.entry(&self.ttl, &absent(), Generation(0)),
                Err(e) => reply.error(errno(e)),
            }
        });
        self.list_asked();
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        if let Some(observer) = &self.observer {
            observer.count(Kind::Forget);
        }
        unanswered("forget", || self.union.forget(ino.0, nlookup));
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.guarded(request, Kind::Getattr, || match self.union.getattr(ino.0) {
            Ok(a) => reply.attr(&self.ttl, &attr(&a)),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        let (union, ttl, who) = (self.union.clone(), self.ttl, caller(request, 0));
        let act = move || match union.setattr(ino.0, &set, &who) {
            Ok(a) => reply.attr(&ttl, &attr(&a)),
            Err(e) => reply.error(errno(e)),
        };
        self.guarded(request, Kind::Setattr, || {
            if self.takes_long(ino, set.need()) {
                elsewhere("setattr", act);
            } else {
                act();
            }
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        self.guarded(request, Kind::Readlink, || {
            match self.union.readlink(ino.0) {
                Ok(target) => reply.data(&target),
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.guarded(request, Kind::Mknod, || {
            let new = New::Node(mode, unpack_rdev(rdev));
            let caller = caller(request, umask);
            let made = self.union.create(parent.0, name.as_bytes(), new, &caller);
            self.answer_entry(reply, made);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.guarded(request, Kind::Mkdir, || {
            let caller = caller(request, umask);
            let new = New::Directory(mode);
            let made = self.union.create(parent.0, name.as_bytes(), new, &caller);
            self.answer_entry(reply, made);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(request, Kind::Unlink, || {
            empty(reply, self.union.unlink(parent.0, name.as_bytes()));
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.guarded(request, Kind::Rmdir, || {
            empty(reply, self.union.rmdir(parent.0, name.as_bytes()));
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.guarded(request, Kind::Symlink, || {
            let caller = caller(request, 0);
            let new = New::Symlink(target.as_os_str().as_bytes());
            let made = self.union.create(parent.0, name.as_bytes(), new, &caller);
            self.answer_entry(reply, made);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, Kind::Rename, || {
            let (from, to) = (name.as_bytes(), new_name.as_bytes());
            let done = self
                .union
                .rename(parent.0, from, new_parent.0, to, flags.bits());
            empty(reply, done);
        });
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.guarded(request, Kind::Link, || {
            let made = self.union.link(ino.0, parent.0, name.as_bytes());
            self.answer_entry(reply, made);
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.opens_by_itself && !self.copies_at_open() {
            return reply.error(errno(Errno::ENOSYS));
        }
        let opening = Opening {
            truncates: flags.0 & O_TRUNC != 0,
            copies: self.copies_at_open() && flags.acc_mode() != OpenAccMode::O_RDONLY,
        };
        let (union, backings) = (self.union.clone(), self.backings.clone());
        let who = caller(request, 0);
        let act = move || match union.open_file(ino.0, opening, &who) {
            Ok(()) => Adapter::answer_open(&union, backings.as_deref(), ino.0, reply),
            Err(e) => reply.error(errno(e)),
        };
        self.guarded(request, Kind::Open, || {
            if opening
                .need()
                .is_some_and(|need| self.takes_long(ino, need))
            {
                elsewhere("open", act);
            } else {
                act();
            }
        });
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(errno(Errno::ENOSYS));
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let union = self.union.clone();
        let (ino, size) = (ino.0, size as usize);
        self.guarded(request, Kind::Read, || {
            if self.readers.are_all_busy() && !union.is_in_memory(ino, offset, size) {
                elsewhere("read", move || {
                    answer_read(&union, ino, offset, size, flags, reply)
                });
            } else {
                answer_read(&union, ino, offset, size, flags, reply);
            }
            self.read_ahead();
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.guarded(request, Kind::Write, || {
            let who = caller(request, 0);
            let union = self.union.clone();
            let put = move |data: &[u8]| {
                let by = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                    Writer::Mapping
                } else if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                    Writer::Unprivileged(&who)
                } else {
                    Writer::Privileged
                };
                written(reply, union.write(ino.0, offset, data, by));
            };
            // Who writes much waits at last for what was written before.
            let waits = data.len() >= MUCH && self.readers.are_all_busy();
            if waits || self.takes_long(ino, Need::Part) {
                let data = data.to_vec();
                elsewhere("write", move || put(&data));
            } else {
                put(data);
            }
        });
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.guarded(request, Kind::Release, || {
            let wrote = flags.acc_mode() != OpenAccMode::O_RDONLY;
            if let Some(backings) = &self.backings
                && backings.leave(ino.0, wrote)
            {
                self.invalidator.attributes(ino.0);
            }
            reply.ok();
        });
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(Errno::ENOSYS));
    }

    fn fsync(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        if !self.syncs {
            // The kernel does not ask again.
            return reply.error(errno(Errno::ENOSYS));
        }
        let union = self.union.clone();
        self.guarded(request, Kind::Fsync, || {
            let act = move || empty(reply, union.fsync(ino.0, datasync));
            self.readers.wait_for_disk("fsync", act);
        });
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.ttl != FOREVER {
            // A merged directory's time does not tell that one below its top has changed, so
            // the kernel must not keep what it read of it.
            reply.opened(FileHandle(0), FopenFlags::empty());
        } else if self.opens_by_itself {
            reply.error(errno(Errno::ENOSYS));
        } else {
            let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
            reply.opened(FileHandle(0), flags);
        }
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.guarded(request, Kind::Readdir, || {
            let mut cookie = offset;
            loop {
                let items = match self.union.readdir(ino.0, cookie, READDIR_BATCH) {
                    Ok(items) => items,
                    Err(e) if cookie == offset => return reply.error(errno(e)),
                    Err(_) => return reply.ok(),
                };
                if items.is_empty() {
                    return reply.ok();
                }
                for item in items {
                    let kind = file_type(u32::from(item.kind) << 12);
                    let name = OsStr::from_bytes(&item.name);
                    if reply.add(INodeNo(item.ino), item.cookie, kind, name) {
                        return reply.ok();
                    }
                    cookie = item.cookie;
                }
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.guarded(request, Kind::Readdirplus, || {
            let (mut cookie, mut entries) = (offset, 0);
            let waits = Waits::so_far();
            loop {
                let items = match self.union.readdirplus(ino.0, cookie, READDIRPLUS_BATCH) {
                    Ok(items) => items,
                    Err(e) if cookie == offset => return reply.error(errno(e)),
                    Err(_) => return reply.ok(),
                };
                if items.is_empty() {
                    reply.ok();
                    return self.read_ahead();
                }
                for (item, entry) in items {
                    let name = OsStr::from_bytes(&item.name);
                    let told = match &entry {
                        Some(entry) => attr(&entry.attr),
                        None => FileAttr {
                            ino: INodeNo(item.ino),
                            kind: file_type(u32::from(item.kind) << 12),
                            ..absent()
                        },
                    };
                    let number = INodeNo(item.ino);
                    let at = item.cookie;
                    if reply.add(number, at, name, &self.ttl, &told, Generation(0)) {
                        reply.ok();
                        let page = (offset, cookie);
                        self.union.note_page(ino.0, page, entries, waits.are_more());
                        return self.read_ahead();
                    }
                    if let Some(entry) = entry {
                        entry.node.told();
                    }
                    cookie = at;
                    entries += 1;
                }
            }
        });
    }

    fn fsyncdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        if !self.syncs {
            return reply.error(errno(Errno::ENOSYS));
        }
        let union = self.union.clone();
        self.guarded(request, Kind::Fsyncdir, || {
            let act = move || empty(reply, union.fsync(ino.0, datasync));
            self.readers.wait_for_disk("fsyncdir", act);
        });
    }

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.guarded(request, Kind::Statfs, || match self.union.statfs() {
            Ok(s) => reply.statfs(
                s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.frsize,
            ),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if !self.xattrs {
            return reply.error(errno(Errno::ENOSYS));
        }
        self.guarded(request, Kind::Setxattr, || {
            let who = caller(request, 0);
            let name = name.as_bytes();
            let set = self.union.setxattr(ino.0, name, value, flags, &who);
            empty(reply, set);
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        if !self.xattrs || self.bare.is_known(&self.union) {
            return reply.error(errno(Errno::ENOSYS));
        }
        self.guarded(request, Kind::Getxattr, || {
            value(reply, size, self.union.getxattr(ino.0, name.as_bytes()));
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.xattrs || self.bare.is_known(&self.union) {
            return reply.error(errno(Errno::ENOSYS));
        }
        self.guarded(request, Kind::Listxattr, || {
            value(reply, size, self.union.listxattr(ino.0));
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !self.xattrs {
            return reply.error(errno(Errno::ENOSYS));
        }
        self.guarded(request, Kind::Removexattr, || {
            let who = caller(request, 0);
            empty(reply, self.union.removexattr(ino.0, name.as_bytes(), &who));
        });
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(errno(Errno::ENOSYS));
    }

    fn bmap(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _blocksize: u32,
        _idx: u64,
        reply: ReplyBmap,
    ) {
        reply.error(errno(Errno::ENOSYS));
    }

    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(errno(Errno::ENOSYS));
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.guarded(request, Kind::Ioctl, || {
            let done = self.union.ioctl(ino.0, command, in_data);
            if flags::sets(command) == Some(true) {
                // The kernel does not know that this changes the file's times, nor that it
                // may have been copied up, which it was also where the flags are refused.
                self.invalidator.attributes(ino.0);
            }
            match done {
                Ok(data) => {
                    let out = data.get(..out_size as usize).unwrap_or(&data);
                    reply.ioctl(0, out);
                }
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (union, who) = (self.union.clone(), caller(request, 0));
        let invalidator = self.invalidator();
        self.guarded(request, Kind::Fallocate, || {
            let act = move || {
                let done = union.fallocate(ino.0, mode, offset, length, &who);
                if done.is_err() {
                    // The kernel takes it that nothing changed. ext4 has changed the times
                    // when it refuses a range.
                    invalidator.attributes(ino.0);
                }
                empty(reply, done);
            };
            if self.takes_long(ino, Need::Part) {
                elsewhere("fallocate", act);
            } else {
                self.readers.wait_for_disk("fallocate", act);
            }
        });
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.guarded(request, Kind::Lseek, || {
            match self.union.lseek(ino.0, offset, whence) {
                Ok(at) => reply.offset(at as i64),
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.guarded(request, Kind::CopyFileRange, || {
            let len = len.min(i32::MAX as u64) as usize;
            let (from, to) = ((ino_in.0, offset_in), (ino_out.0, offset_out));
            let who = caller(request, 0);
            let union = self.union.clone();
            let act = move || written(reply, union.copy_file_range(from, to, len, &who));
            if len as u64 > LONG_COPY || self.takes_long(ino_out, Need::Part) {
                elsewhere("copy_file_range", act);
            } else {
                act();
            }
        });
    }
}
