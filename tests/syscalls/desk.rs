//! A union in this process whose system calls are counted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plyfs::error::Errno;
use plyfs::observe::figures::Fetched;
use plyfs::sys::creds::Caller;
use plyfs::sys::fault::{Fault, arm};
use plyfs::union::{Attr, New, SetAttr, Union, Writer};

use crate::inside::plan;
use crate::support::lab::build;
use crate::support::layers::MarkFormat;

const ROOT: u64 = 1;
const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    umask: 0o22,
    pid: 0,
};

/// What the kernel asks a daemon for, by path. What was looked up stays looked up.
pub struct Desk {
    union: Arc<Union>,
    known: RefCell<BTreeMap<String, u64>>,
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Desk {
    /// Two lower layers, with an upper that is empty but for its marks of having been used.
    pub fn new(base: &Path, top: &[&str], bottom: &[&str]) -> Desk {
        let lowers = vec![base.join("l1"), base.join("l2")];
        build(&lowers[0], MarkFormat::Overlay, top);
        build(&lowers[1], MarkFormat::Overlay, bottom);
        let (upper, work, point) = (base.join("u"), base.join("w"), base.join("m"));
        for dir in [&upper, &work, &point] {
            std::fs::create_dir(dir).expect("a directory can be made");
        }
        let plan = plan(lowers, (&upper, &work), &point, "").expect("the plan is sound");
        Desk {
            union: Arc::new(Union::open(&plan).expect("the union opens")),
            known: RefCell::default(),
        }
    }

    pub fn fetched_ahead(&self) -> Fetched {
        self.union.fetched_ahead()
    }

    /// The number of what is at `path`, looked up unless it was already.
    pub fn ino(&self, path: &str) -> u64 {
        if path.is_empty() {
            return ROOT;
        }
        let known = self.known.borrow().get(path).copied();
        known.unwrap_or_else(|| self.lookup(path).expect("it is there").ino)
    }

    /// LOOKUP, and what is done after its answer; what is there.
    pub fn lookup(&self, path: &str) -> Option<Attr> {
        let there = self.find(path);
        self.list_asked();
        there
    }

    pub fn list_asked(&self) {
        self.union.list_asked();
    }

    /// LOOKUP until its answer.
    pub fn find(&self, path: &str) -> Option<Attr> {
        let (dir, name) = split(path);
        let dir = self.ino(dir);
        let entry = self.union.lookup(dir, name.as_bytes());
        let entry = entry.expect("a name can be looked up")?;
        let attr = entry.attr;
        entry.node.told();
        self.known.borrow_mut().insert(path.to_owned(), attr.ino);
        Some(attr)
    }

    pub fn getattr(&self, path: &str) {
        self.union.getattr(self.ino(path)).expect("it has some");
    }

    /// GETXATTR and LISTXATTR, as container engines ask them of every file.
    pub fn ask_for_xattrs(&self, path: &str) {
        let has_any = self.union.getxattr(self.ino(path), b"security.capability");
        assert_eq!(has_any, Err(Errno::ENODATA));
        assert_eq!(self.union.listxattr(self.ino(path)), Ok(Vec::new()));
    }

    /// MKNOD, MKDIR or SYMLINK, after the LOOKUP that found nothing.
    pub fn make(&self, path: &str, new: New<'_>) {
        assert!(self.lookup(path).is_none(), "{path} is there");
        let (dir, name) = split(path);
        let made = self
            .union
            .create(self.ino(dir), name.as_bytes(), new, &CALLER);
        let made = made.expect("it can be made");
        self.known
            .borrow_mut()
            .insert(path.to_owned(), made.attr.ino);
        made.node.told();
    }

    pub fn file(&self, path: &str) {
        self.make(path, New::Node(libc::S_IFREG | 0o644, (0, 0)));
    }

    pub fn dir(&self, path: &str) {
        self.make(path, New::Directory(0o755));
    }

    pub fn symlink(&self, path: &str) {
        self.make(path, New::Symlink(b"target"));
    }

    /// LINK, after the LOOKUP that found nothing.
    pub fn link(&self, path: &str, new: &str) {
        assert!(self.lookup(new).is_none(), "{new} is there");
        let (dir, name) = split(new);
        let made = self
            .union
            .link(self.ino(path), self.ino(dir), name.as_bytes());
        made.expect("it can be linked").node.told();
    }

    /// WRITE; the first to a file comes after a GETXATTR, by which the kernel wants to know
    /// what it has to clear.
    pub fn write(&self, path: &str, at: u64) {
        let data = [7; 4096];
        let has_any = self.union.getxattr(self.ino(path), b"security.capability");
        assert_eq!(has_any, Err(Errno::ENODATA));
        let done = self
            .union
            .write(self.ino(path), at, &data, Writer::Privileged);
        assert_eq!(done, Ok(data.len()), "a whole write");
    }

    pub fn read(&self, path: &str) {
        let mut room = [0; 4096];
        let got = self.union.read(self.ino(path), 0, &mut room, 0);
        assert_eq!(got, Ok(room.len()), "a whole read");
    }

    fn set(&self, path: &str, set: SetAttr) {
        let done = self.union.setattr(self.ino(path), &set, &CALLER);
        done.expect("attributes can be set");
    }

    pub fn chmod(&self, path: &str) {
        self.set(
            path,
            SetAttr {
                mode: Some(0o640),
                ..SetAttr::default()
            },
        );
    }

    pub fn chown(&self, path: &str) {
        self.set(
            path,
            SetAttr {
                uid: Some(5),
                gid: Some(5),
                ..SetAttr::default()
            },
        );
    }

    pub fn truncate(&self, path: &str) {
        self.set(
            path,
            SetAttr {
                size: Some(0),
                ..SetAttr::default()
            },
        );
    }

    pub fn unlink(&self, path: &str) {
        let (dir, name) = split(path);
        let done = self.union.unlink(self.ino(dir), name.as_bytes());
        assert_eq!(done, Ok(()), "unlink {path}");
    }

    pub fn rmdir(&self, path: &str) {
        let (dir, name) = split(path);
        let done = self.union.rmdir(self.ino(dir), name.as_bytes());
        assert_eq!(done, Ok(()), "rmdir {path}");
    }

    /// RENAME, after the LOOKUP of a new name that found nothing.
    pub fn rename(&self, path: &str, new: &str) {
        if !self.known.borrow().contains_key(new) {
            assert!(self.lookup(new).is_none(), "{new} is there");
        }
        let ((dir, name), (new_dir, new_name)) = (split(path), split(new));
        let (dir, new_dir) = (self.ino(dir), self.ino(new_dir));
        let done = self
            .union
            .rename(dir, name.as_bytes(), new_dir, new_name.as_bytes(), 0);
        assert_eq!(done, Ok(()), "rename {path} {new}");
    }

    /// OPENDIR, and READDIRPLUS to the end.
    pub fn list(&self, path: &str) -> usize {
        let (ino, mut cookie, mut names) = (self.ino(path), 0, 0);
        loop {
            let items = self.union.readdirplus(ino, cookie, 32);
            let items = items.expect("a directory can be listed");
            let Some((last, _)) = items.last() else {
                return names;
            };
            cookie = last.cookie;
            names += items.len();
            for (_, entry) in items {
                if let Some(entry) = entry {
                    entry.node.told();
                }
            }
        }
    }

    /// The names of what is not a directory, or is one, in the order in which `path` lists them.
    pub fn names(&self, path: &str, dirs: bool) -> Vec<String> {
        let items = self.union.readdirplus(self.ino(path), 0, usize::MAX);
        let items = items.expect("a directory can be listed");
        let mut names = Vec::new();
        for (item, entry) in items {
            if let Some(entry) = entry {
                entry.node.told();
                let name = format!("{path}/{}", String::from_utf8_lossy(&item.name));
                self.known.borrow_mut().insert(name.clone(), item.ino);
                if dirs == (item.kind == libc::DT_DIR) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Does `act` as if everything that is read had waited for a disk, and then what is to be
    /// done ahead.
    pub fn on_a_slow_disk(&self, act: impl FnOnce(&Desk)) {
        let armed = arm(Fault::Slow);
        act(self);
        drop(armed);
        let fetcher = self.union.begin_to_read_ahead();
        fetcher.expect("there is something to fetch").run();
    }

    /// How often `act` makes each system call.
    pub fn count(&self, act: impl FnOnce(&Desk)) -> BTreeMap<&'static str, usize> {
        let armed = arm(Fault::None);
        act(self);
        let mut counts = BTreeMap::new();
        for call in armed.calls() {
            *counts.entry(call).or_default() += 1;
        }
        counts
    }
}
