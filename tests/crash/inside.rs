//! A union in this process, without a mount: operations by line, and all that it shows.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use plyfs::config::options::split_words;
use plyfs::config::plan::MountPlan;
use plyfs::config::request::Request;
use plyfs::error::{Errno, Result};
use plyfs::sys::creds::Caller;
use plyfs::sys::fs::{SetTime, Time};
use plyfs::union::{Attr, Cursor, New, SetAttr, Union, Writer};

use crate::support::bytes::{digest, escape, fill};
use crate::support::mount::test_options;
use crate::support::tree;

/// Path (the root is empty) to everything that a program can ask about the file there.
pub type Shown = BTreeMap<String, String>;

/// One file, as far as a power cut must leave it right.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// Type, mode, owner, target, xattrs.
    pub what: String,
    /// Empty for a directory.
    pub mtime: String,
    /// Of a regular file.
    pub data: Option<Vec<u8>>,
    /// Its number, by which it is the same file under another name.
    pub ino: u64,
}

/// Path (the root is empty) to file.
pub type Files = BTreeMap<String, File>;

const ROOT: u64 = 1;
const READ_MAX: usize = 1 << 20;

/// The plan of a mount with the usual options, those of the mode in which the tests are run, and
/// `words`, as `-o` has them.
pub fn plan(
    lowers: Vec<PathBuf>,
    (upper, work): (&Path, &Path),
    point: &Path,
    words: &str,
) -> std::result::Result<MountPlan, String> {
    let mut request = Request {
        mount_point: Some(point.to_owned()),
        lowers,
        upper: Some(upper.to_owned()),
        work: Some(work.to_owned()),
        ..Request::default()
    };
    for word in split_words(OsStr::new(&format!("{},{words}", test_options()))) {
        request.apply_strictly(&word).map_err(|e| e.to_string())?;
    }
    request.check().map_err(|e| e.to_string())
}

/// A union that is open in this process; no lookup is ever taken back, as if the kernel had room
/// for all.
pub struct Inside {
    union: Union,
}

/// What a word of a line names.
pub struct Target<'l> {
    path: &'l str,
    dir: Result<u64>,
    name: &'l [u8],
    ino: Result<u64>,
}

/// A line, looked up.
pub struct Wish<'l> {
    verb: &'l str,
    target: Target<'l>,
    other: Target<'l>,
    caller: Caller,
}

impl Inside {
    pub fn open(plan: &MountPlan) -> std::result::Result<Inside, String> {
        let union = Union::open(plan).map_err(|e| e.to_string())?;
        Ok(Inside { union })
    }

    fn look_up(&self, parent: u64, name: &[u8]) -> Result<Attr> {
        let entry = self.union.lookup(parent, name)?.ok_or(Errno::ENOENT)?;
        let attr = entry.attr;
        entry.node.told();
        Ok(attr)
    }

    fn find(&self, path: &str) -> Result<u64> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.look_up(at, name.as_bytes())?.ino;
        }
        Ok(at)
    }

    /// What the words of a line are about, looked up as the kernel does before it asks for more.
    pub fn resolve<'l>(&self, line: &'l str) -> Wish<'l> {
        let (line, id) = match line.strip_prefix("user ") {
            Some(rest) => (rest, 1000),
            None => (line, 0),
        };
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let mut target = || {
            let path = words.next().unwrap_or_default();
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            Target {
                path,
                dir: self.find(dir),
                name: name.as_bytes(),
                ino: self.find(path),
            }
        };
        Wish {
            verb,
            target: target(),
            other: target(),
            caller: Caller {
                uid: id,
                gid: id,
                umask: 0o22,
                pid: std::process::id(),
            },
        }
    }

    /// Does what a line says: `[user] VERB PATH [PATH or NUMBER]`.
    pub fn perform(&self, line: &str) -> Result<()> {
        self.act(&self.resolve(line))
    }

    /// Does what was asked for, without looking anything up before.
    pub fn act(&self, wish: &Wish<'_>) -> Result<()> {
        let Wish {
            verb,
            target,
            other,
            caller,
        } = wish;
        let make = |new: New<'_>| {
            let made = self.union.create(target.dir?, target.name, new, caller)?;
            made.node.told();
            Ok(())
        };
        let rename = |flags: u32| {
            self.union
                .rename(target.dir?, target.name, other.dir?, other.name, flags)
        };
        match *verb {
            "create" => make(New::Node(libc::S_IFREG | 0o640, (0, 0))),
            "mkdir" => make(New::Directory(
                u32::from_str_radix(other.path, 8).unwrap_or(0o750),
            )),
            "symlink" => make(New::Symlink(b"target")),
            "mknod" => make(New::Node(libc::S_IFIFO | 0o640, (0, 0))),
            "link" => {
                let entry = self.union.link(target.ino?, other.dir?, other.name)?;
                entry.node.told();
                Ok(())
            }
            "unlink" => self.union.unlink(target.dir?, target.name),
            "rmdir" => self.union.rmdir(target.dir?, target.name),
            "empty" => self.empty(target.path),
            "rename" => rename(0),
            "noreplace" => rename(libc::RENAME_NOREPLACE),
            "exchange" => rename(libc::RENAME_EXCHANGE),
            verb => self.change(verb, target.ino?, other.path, caller),
        }
    }

    fn change(&self, verb: &str, ino: u64, word: &str, caller: &Caller) -> Result<()> {
        let number = || word.parse::<u64>().unwrap_or(0);
        let set = |set: SetAttr| self.union.setattr(ino, &set, caller).map(drop);
        let time = Some(SetTime::To(Time { sec: 77, nsec: 7 }));
        let none = SetAttr::default();
        let acl = |name: &[u8]| self.union.setxattr(ino, name, ACL, 0, caller);
        match verb {
            "write" => {
                let by = match caller.uid {
                    0 => Writer::Privileged,
                    _ => Writer::Unprivileged(caller),
                };
                let data = fill(9, number(), 3000);
                let done = self.union.write(ino, number(), &data, by)?;
                assert_eq!(done, data.len(), "a whole write");
                Ok(())
            }
            "truncate" => set(SetAttr {
                size: Some(number()),
                ..none
            }),
            "chmod" => set(SetAttr {
                mode: Some(0o711),
                ..none
            }),
            "chown" => set(SetAttr {
                uid: Some(7),
                gid: Some(8),
                ..none
            }),
            "utimens" => set(SetAttr {
                atime: time,
                mtime: time,
                ..none
            }),
            // What a write or chown by somebody else clears before it does anything.
            "clear" => set(none),
            "old" => set(SetAttr {
                mtime: Some(SetTime::To(Time {
                    sec: number() as i64,
                    nsec: 5,
                })),
                ..none
            }),
            "setxattr" => self.union.setxattr(ino, b"user.new", b"2", 0, caller),
            "removexattr" => self.union.removexattr(ino, b"user.note", caller),
            "acl" => acl(b"system.posix_acl_access"),
            "defaultacl" => acl(b"system.posix_acl_default"),
            "fallocate" => self.union.fallocate(ino, 0, number(), 30_000, caller),
            "punch" => self.union.fallocate(ino, 3, number(), 30_000, caller),
            // What is partly copied gets the rest of its data.
            "complete" => self.union.complete_rest(true, || true).map(drop),
            "fsync" => self.union.fsync(ino, false),
            "fdatasync" => self.union.fsync(ino, true),
            "list" => self.union.readdir(ino, 0, usize::MAX).map(drop),
            other => panic!("{other:?} is no operation"),
        }
    }

    /// What a thread of the daemon does now and then: a piece of a partly copied file comes to
    /// the upper, and nothing that is shown changes.
    pub fn fill(&self) -> Result<()> {
        let mut cursor = Cursor::default();
        self.union.fill_piece(&mut cursor).map(drop)
    }

    /// Removes all that is in a directory.
    fn empty(&self, path: &str) -> Result<()> {
        let dir = self.find(path)?;
        for item in self.items(dir)? {
            let inner = format!("{path}/{}", String::from_utf8_lossy(&item.name));
            if item.kind == libc::DT_DIR {
                self.empty(&inner)?;
                self.union.rmdir(dir, &item.name)?;
            } else {
                self.union.unlink(dir, &item.name)?;
            }
        }
        Ok(())
    }

    fn items(&self, dir: u64) -> Result<Vec<plyfs::union::Item>> {
        let mut items = self.union.readdir(dir, 0, usize::MAX)?;
        items.retain(|item| item.name != b"." && item.name != b"..");
        Ok(items)
    }

    /// All that the union shows.
    pub fn shown(&self) -> Result<Shown> {
        let mut shown = Shown::new();
        let mut names = BTreeMap::<u64, String>::new();
        let root = self.union.getattr(ROOT)?;
        self.visit(String::new(), &root, &mut shown, &mut names)?;
        Ok(shown)
    }

    fn visit(
        &self,
        path: String,
        attr: &Attr,
        shown: &mut Shown,
        names: &mut BTreeMap<u64, String>,
    ) -> Result<()> {
        let line = self.describe(attr)?;
        let first = names.entry(attr.ino).or_insert_with(|| path.clone());
        let line = format!("{line} is={first}");
        shown.insert(path.clone(), line);
        if attr.stat.mode & libc::S_IFMT != libc::S_IFDIR {
            return Ok(());
        }
        let mut items = self.items(attr.ino)?;
        items.sort_by(|a, b| a.name.cmp(&b.name));
        for item in items {
            let child = self.look_up(attr.ino, &item.name)?;
            let below = format!("{path}/{}", escape(&item.name));
            self.visit(below.clone(), &child, shown, names)?;
            let kind = ((child.stat.mode & libc::S_IFMT) >> 12) as u8;
            if item.ino != child.ino || item.kind != kind {
                let wrong = format!("{below} is listed as another file than it is");
                shown.insert(below, wrong);
            }
        }
        Ok(())
    }

    /// All files, by path, with their data.
    pub fn files(&self) -> Result<Files> {
        let mut files = Files::new();
        let root = self.union.getattr(ROOT)?;
        self.gather(String::new(), &root, &mut files)?;
        Ok(files)
    }

    fn gather(&self, path: String, attr: &Attr, files: &mut Files) -> Result<()> {
        let stat = &attr.stat;
        let kind = stat.mode & libc::S_IFMT;
        let mut file = File {
            what: format!("{:o} {}:{}", stat.mode, stat.uid, stat.gid),
            ino: attr.ino,
            ..File::default()
        };
        if kind == libc::S_IFREG {
            // The kernel reads no further than it was told that there is.
            let mut data = vec![0; READ_MAX.min(stat.size as usize)];
            let n = self.union.read(attr.ino, 0, &mut data, 0)?;
            data.truncate(n);
            file.data = Some(data);
        }
        if kind == libc::S_IFLNK {
            file.what += &format!(" to={}", escape(&self.union.readlink(attr.ino)?));
        }
        file.what += &self.xattrs(attr.ino)?;
        if kind != libc::S_IFDIR {
            file.mtime = tree::time((stat.mtime.sec, i64::from(stat.mtime.nsec)));
        }
        files.insert(path.clone(), file);
        if kind == libc::S_IFDIR {
            for item in self.items(attr.ino)? {
                let child = self.look_up(attr.ino, &item.name)?;
                let below = format!("{path}/{}", escape(&item.name));
                self.gather(below, &child, files)?;
            }
        }
        Ok(())
    }

    fn describe(&self, attr: &Attr) -> Result<String> {
        let stat = &attr.stat;
        let mut line = format!("{:o} {}:{}", stat.mode, stat.uid, stat.gid);
        let kind = stat.mode & libc::S_IFMT;
        if kind != libc::S_IFDIR {
            let mtime = tree::time((stat.mtime.sec, i64::from(stat.mtime.nsec)));
            line += &format!(
                " mtime={mtime} nlink={} size={} rdev={:?}",
                stat.nlink, stat.size, stat.rdev
            );
        }
        if kind == libc::S_IFREG {
            // The kernel reads no further than it was told that there is.
            let mut data = vec![0; READ_MAX.min(stat.size as usize)];
            let n = self.union.read(attr.ino, 0, &mut data, 0)?;
            line += &format!(" data={:x}+{n}", digest(&data[..n]));
        }
        if kind == libc::S_IFLNK {
            line += &format!(" to={}", escape(&self.union.readlink(attr.ino)?));
        }
        line += &self.xattrs(attr.ino)?;
        Ok(line)
    }

    fn xattrs(&self, ino: u64) -> Result<String> {
        let list = match self.union.listxattr(ino) {
            Err(Errno::EOPNOTSUPP) => Vec::new(),
            other => other?,
        };
        let mut names: Vec<&[u8]> = list.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        names.sort();
        let mut words = String::new();
        for name in names {
            let value = self.union.getxattr(ino, name)?;
            words += &format!(" {}={}", escape(name), escape(&value));
        }
        Ok(words)
    }
}

/// An access control list in the form of its xattr: user 5 may read beside the usual three.
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 5, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255,
    255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];
