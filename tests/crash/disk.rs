//! A disk that remembers the order of its writes: a file that this process serves over FUSE, with
//! a loop device on it. What was written before a flush is on the disk after it; of what came since,
//! a power cut may leave any part.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

pub const BLOCK: usize = 4096;
const NAME: &str = "disk";
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// What a disk holds; blocks that are not here are zero.
#[derive(Clone, Default)]
pub struct Image {
    size: u64,
    blocks: HashMap<u64, Arc<[u8; BLOCK]>>,
}

impl Image {
    pub fn load(path: &Path) -> Image {
        let bytes = std::fs::File::open(path).expect("an image can be opened");
        let size = bytes.metadata().expect("an image has a size").len();
        let mut image = Image {
            size,
            ..Image::default()
        };
        let fd = std::os::fd::OwnedFd::from(bytes);
        let segments = crate::support::tree::segments(&fd).expect("an image has extents");
        for (from, to) in segments {
            let from = from / BLOCK as u64 * BLOCK as u64;
            let data = crate::support::sys::pread(&fd, (to - from) as usize, from);
            image.write(from, &data.expect("an image can be read"));
        }
        image
    }

    pub fn save(&self, path: &Path) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(path).expect("an image can be made");
        file.set_len(self.size).expect("an image has its size");
        for (number, block) in &self.blocks {
            let done = file.write_all_at(&block[..], number * BLOCK as u64);
            done.expect("an image can be written");
        }
    }

    pub fn write(&mut self, at: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let here = at + done as u64;
            let (number, from) = (here / BLOCK as u64, (here % BLOCK as u64) as usize);
            let len = (BLOCK - from).min(data.len() - done);
            let mut block = self.blocks.get(&number).map_or([0; BLOCK], |b| **b);
            block[from..from + len].copy_from_slice(&data[done..done + len]);
            if block.iter().all(|b| *b == 0) {
                self.blocks.remove(&number);
            } else {
                self.blocks.insert(number, Arc::new(block));
            }
            done += len;
        }
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let end = (at + len as u64).min(self.size);
        let mut out = Vec::with_capacity(len);
        let mut here = at;
        while here < end {
            let (number, from) = (here / BLOCK as u64, (here % BLOCK as u64) as usize);
            let len = (BLOCK - from).min((end - here) as usize);
            match self.blocks.get(&number) {
                Some(block) => out.extend_from_slice(&block[from..from + len]),
                None => out.resize(out.len() + len, 0),
            }
            here += len as u64;
        }
        out
    }
}

/// What happened to a disk.
#[derive(Clone)]
pub enum Event {
    Write(u64, Arc<[u8]>),
    /// All that was written is on the disk.
    Flush,
}

struct State {
    now: Image,
    events: Vec<Event>,
}

/// Serves one file.
struct Server(Arc<Mutex<State>>);

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_disk = ino != INodeNo::ROOT;
        let size = if is_disk { self.state().now.size } else { 0 };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: if is_disk {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOREVER, &self.attr(INodeNo(2)), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attr(ino));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&FOREVER, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache between the loop device and us: it would change the order of writes.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&self.state().now.read(offset, size as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        state.now.write(offset, data);
        state.events.push(Event::Write(offset, data.into()));
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        if !matches!(state.events.last(), None | Some(Event::Flush)) {
            state.events.push(Event::Flush);
        }
        reply.ok();
    }

    /// The kernel writes zeros by itself then.
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

/// A disk that records.
pub struct Disk {
    // Declared in the order in which they are taken down.
    device: LoopDevice,
    _session: BackgroundSession,
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// A disk with `image` on it, served at the empty directory `at`.
    pub fn new(image: Image, at: &Path) -> Result<Disk, String> {
        let state = Arc::new(Mutex::new(State {
            now: image,
            events: Vec::new(),
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("recorder".into())];
        let session = fuser::spawn_mount(Server(state.clone()), at, &config)
            .map_err(|e| format!("mounting {}: {e}", at.display()))?;
        let device = LoopDevice::new(&at.join(NAME), &["--direct-io=on"])?;
        Ok(Disk {
            device,
            _session: session,
            state,
        })
    }

    pub fn device(&self) -> &Path {
        &self.device.0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// How much has happened so far.
    pub fn position(&self) -> usize {
        self.state().events.len()
    }

    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }
}

/// A loop device; detached on drop.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    pub fn new(file: &Path, words: &[&str]) -> Result<LoopDevice, String> {
        let out = Command::new("losetup")
            .args(["--find", "--show"])
            .args(words)
            .arg(file)
            .output()
            .map_err(|e| format!("losetup: {e}"))?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            return Err(format!("losetup {}: {}", file.display(), said.trim()));
        }
        Ok(LoopDevice(
            String::from_utf8_lossy(&out.stdout).trim().into(),
        ))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    /// Waits until it is free: between the fork and the exec of another test's program, that program
    /// holds what we have open, and with it the filesystem on the device.
    fn drop(&mut self) {
        let name = self.0.file_name().unwrap_or_default();
        let bound = Path::new("/sys/block").join(name).join("loop/backing_file");
        let done = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .output();
        let end = Instant::now() + Duration::from_secs(10);
        while done.is_ok() && bound.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        if bound.exists() {
            eprintln!("{}: not detached", self.0.display());
        }
    }
}
