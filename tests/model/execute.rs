//! One line of a script, done to one union: the meaning of each verb.
//!
//! ```text
//! [u1|u2] [umask=OCTAL] VERB …
//! create PATH MODE [excl]        write PATH OFFSET LEN SEED     append|overwrite PATH LEN SEED
//! read PATH                      truncate PATH LEN              mkdir PATH MODE
//! rmdir|unlink|rmtree PATH       symlink TARGET PATH            link FROM TO
//! mknod PATH MODE RDEV           rename FROM TO FLAGS           chmod PATH MODE
//! chown PATH UID GID             utimens PATH ATIME MTIME       setxattr PATH NAME VALUE FLAGS
//! removexattr PATH NAME          stat|list|readlink PATH        access PATH MODE
//! open SLOT PATH FLAGS MODE      close|fstat|segments|fsync SLOT
//! pwrite|mmap SLOT OFFSET LEN SEED   pread SLOT OFFSET LEN      ftruncate SLOT LEN
//! fchmod SLOT MODE               fchown SLOT UID GID            futimens SLOT ATIME MTIME
//! fsetxattr SLOT NAME VALUE FLAGS    fgetxattr SLOT NAME        fallocate SLOT MODE OFFSET LEN
//! copyrange SLOT OFFSET SLOT OFFSET LEN  linkfd SLOT PATH
//! opendir SLOT PATH              readsome SLOT BUFFER           readrest SLOT
//! ```
//! `check`, `remount`, `restack` (the upper becomes a lower) and `switch` (plyfs and the kernel
//! take turns at the upper) belong to the game. u1 is 1000:1000 with group 1001, u2 is 1001:1001.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::script::data;
use super::support::bytes::{digest, escape, unescape};
use super::support::layers::{number, octal, time};
use super::support::sys::{self, Dirent, Errno};
use super::support::tree;

/// What a program saw: some text, or an errno.
pub type Outcome = Result<String, Errno>;

pub fn show(outcome: &Outcome) -> String {
    match outcome {
        Ok(text) if text.is_empty() => "ok".into(),
        Ok(text) => format!("ok: {text}"),
        Err(e) => sys::errno_name(*e),
    }
}

/// A directory that is being read while others change it.
pub struct Reading {
    pub fd: OwnedFd,
    /// The names that it had when it was opened.
    pub before: Vec<Vec<u8>>,
    pub seen: Vec<Dirent>,
}

/// What a script holds open.
#[derive(Default)]
pub struct Hands {
    files: BTreeMap<String, OwnedFd>,
    pub dirs: BTreeMap<String, Reading>,
}

/// A line, taken apart.
pub struct Step<'a> {
    pub user: Option<&'a str>,
    pub umask: u32,
    pub words: Vec<&'a str>,
}

impl<'a> Step<'a> {
    pub fn parse(line: &'a str) -> Step<'a> {
        let mut step = Step {
            user: None,
            umask: 0o022,
            words: Vec::new(),
        };
        for word in line.split(' ').filter(|w| !w.is_empty()) {
            if !step.words.is_empty() {
                step.words.push(word);
            } else if word == "u1" || word == "u2" {
                step.user = Some(word);
            } else if let Some(mask) = word.strip_prefix("umask=") {
                step.umask = octal(mask);
            } else {
                step.words.push(word);
            }
        }
        step
    }

    pub fn verb(&self) -> &'a str {
        self.words[0]
    }

    /// Whether the line works on an open file or directory, or opens one.
    pub fn on_slot(&self) -> bool {
        on_slots(self.verb())
    }

    /// The paths that the line names, as the words stand.
    pub fn paths(&self) -> Vec<&'a str> {
        let at: &[usize] = match self.verb() {
            "link" | "rename" => &[1, 2],
            "symlink" | "open" | "opendir" | "linkfd" => &[2],
            "create" | "write" | "append" | "overwrite" | "read" | "truncate" | "mkdir"
            | "rmdir" | "unlink" | "rmtree" | "mknod" | "chmod" | "chown" | "utimens"
            | "setxattr" | "removexattr" | "stat" | "list" | "readlink" | "access" => &[1],
            _ => &[],
        };
        at.iter()
            .filter_map(|i| self.words.get(*i).copied())
            .collect()
    }
}

/// The path of a word, from the union's root (which is also this thread's root).
pub fn path(word: &str) -> Vec<u8> {
    [b"/", &unescape(word)[..]].concat()
}

fn id(word: &str) -> u32 {
    if word == "-" {
        u32::MAX
    } else {
        word.parse().expect("an id")
    }
}

fn flags(word: &str) -> i32 {
    word.split('+').fold(0, |all, flag| {
        all | match flag {
            "rd" => libc::O_RDONLY,
            "wr" => libc::O_WRONLY,
            "rdwr" => libc::O_RDWR,
            "append" => libc::O_APPEND,
            "creat" => libc::O_CREAT,
            "excl" => libc::O_EXCL,
            "trunc" => libc::O_TRUNC,
            "noatime" => libc::O_NOATIME,
            "nofollow" => libc::O_NOFOLLOW,
            other => panic!("{other:?} is no open flag"),
        }
    })
}

fn done(outcome: sys::Res<()>) -> Outcome {
    outcome.map(|()| String::new())
}

/// Never waits on a fifo, never takes a terminal.
const CALM: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

fn write_once(at: &[u8], flags: i32, offset: u64, bytes: &[u8]) -> Outcome {
    let fd = sys::open(at, flags | libc::O_WRONLY | CALM, 0o644)?;
    let n = sys::pwrite(&fd, bytes, offset)?;
    sys::close(fd)?;
    Ok(n.to_string())
}

/// Does the line as its user; this thread's root is the union's.
pub fn execute(step: &Step<'_>, hands: &mut Hands) -> Outcome {
    sys::umask(step.umask);
    match step.user {
        Some("u1") => sys::become_user(1000, 1000, &[1001])?,
        Some(_) => sys::become_user(1001, 1001, &[])?,
        None => {}
    }
    let outcome = if step
        .words
        .get(1)
        .is_some_and(|w| w.len() == 1 && w.as_bytes()[0].is_ascii_digit())
        && on_slots(step.verb())
    {
        with_slot(&step.words, hands)
    } else {
        with_path(&step.words)
    };
    if step.user.is_some() {
        sys::become_root()?;
    }
    sys::umask(0o022);
    outcome
}

fn on_slots(verb: &str) -> bool {
    matches!(
        verb,
        "open"
            | "close"
            | "pwrite"
            | "pread"
            | "fstat"
            | "ftruncate"
            | "fchmod"
            | "fchown"
            | "futimens"
            | "fsetxattr"
            | "fgetxattr"
            | "fallocate"
            | "mmap"
            | "segments"
            | "fsync"
            | "copyrange"
            | "linkfd"
            | "opendir"
            | "readsome"
            | "readrest"
    )
}

fn with_path(w: &[&str]) -> Outcome {
    let at = path(w[1]);
    match w[0] {
        "create" => {
            let excl = if w.get(3) == Some(&"excl") {
                libc::O_EXCL
            } else {
                0
            };
            let fd = sys::open(
                &at,
                libc::O_CREAT | libc::O_WRONLY | CALM | excl,
                octal(w[2]),
            )?;
            done(sys::close(fd))
        }
        "write" => write_once(
            &at,
            0,
            number(w[2]),
            &data(number(w[2]), number(w[3]), number(w[4])),
        ),
        "append" => write_once(&at, libc::O_APPEND, 0, &data(0, number(w[2]), number(w[3]))),
        "overwrite" => {
            let flags = libc::O_TRUNC | libc::O_CREAT;
            write_once(&at, flags, 0, &data(0, number(w[2]), number(w[3])))
        }
        "read" => {
            let fd = sys::open(&at, libc::O_RDONLY | CALM, 0)?;
            // A real device or fifo says nothing about the union.
            let stat = sys::fstat(&fd)?;
            if !stat.is_file() && !stat.is_dir() {
                return Ok("special".into());
            }
            let bytes = sys::read_all(&fd)?;
            Ok(format!("{} bytes {:016x}", bytes.len(), digest(&bytes)))
        }
        "truncate" => done(sys::truncate(&at, number(w[2]))),
        "mkdir" => done(sys::mkdir(&at, octal(w[2]))),
        "rmdir" => done(sys::rmdir(&at)),
        "unlink" => done(sys::unlink(&at)),
        "rmtree" => done(remove_tree(&at)),
        "symlink" => done(sys::symlink(unescape(w[1]), path(w[2]))),
        "link" => done(sys::link(&at, path(w[2]))),
        "mknod" => done(sys::mknod(&at, octal(w[2]), number(w[3]))),
        "rename" => done(sys::rename(&at, path(w[2]), number(w[3]) as u32)),
        "chmod" => done(sys::chmod(&at, octal(w[2]))),
        "chown" => done(sys::lchown(&at, id(w[2]), id(w[3]))),
        "utimens" => done(sys::utimens(&at, [time(w[2]), time(w[3])])),
        "setxattr" => done(sys::lsetxattr(
            &at,
            unescape(w[2]),
            &unescape(w[3]),
            number(w[4]) as i32,
        )),
        "removexattr" => done(sys::lremovexattr(&at, unescape(w[2]))),
        "stat" => Ok(stat_line(&sys::lstat(&at)?)),
        "readlink" => Ok(escape(&sys::readlink(&at)?)),
        "access" => done(sys::access(&at, number(w[2]) as i32)),
        "list" => {
            let mut names: Vec<String> = sys::list(&at)?
                .into_iter()
                // overlayfs lists a stray whiteout of an unmerged directory, and then denies it;
                // who may not search the directory cannot tell such a one from a device.
                .filter(|e| {
                    e.kind != libc::DT_CHR || sys::lstat([&at[..], b"/", &e.name].concat()).is_ok()
                })
                .map(|e| format!("{}:{}", escape(&e.name), e.kind))
                .collect();
            names.sort();
            Ok(names.join(" "))
        }
        other => panic!("{other:?} is not a verb: {w:?}"),
    }
}

/// What both sides must say of one file.
pub fn stat_line(stat: &sys::Stat) -> String {
    tree::describe(stat)
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// As `rm -rf`, in the order of the names; it stops at the first failure.
fn remove_tree(at: &[u8]) -> sys::Res<()> {
    if !sys::lstat(at)?.is_dir() {
        return sys::unlink(at);
    }
    let mut entries = sys::list(at)?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        match remove_tree(&[at, b"/", &entry.name].concat()) {
            Err(libc::ENOENT) | Ok(()) => {}
            Err(e) => return Err(e),
        }
    }
    sys::rmdir(at)
}

fn with_slot(w: &[&str], hands: &mut Hands) -> Outcome {
    match w[0] {
        "open" => {
            let fd = sys::open(path(w[2]), flags(w[3]) | CALM, octal(w[4]))?;
            let stat = sys::fstat(&fd)?;
            if stat.is_file() {
                hands.files.insert(w[1].into(), fd);
            }
            return Ok(stat_line(&stat));
        }
        "opendir" => {
            let at = path(w[2]);
            let fd = sys::open(&at, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
            let before = sys::list(&at)?.into_iter().map(|e| e.name).collect();
            hands.dirs.insert(
                w[1].into(),
                Reading {
                    fd,
                    before,
                    seen: Vec::new(),
                },
            );
            return Ok(String::new());
        }
        "readsome" | "readrest" => {
            let reading = hands.dirs.get_mut(w[1]).ok_or(libc::EBADF)?;
            let more = if w[0] == "readsome" {
                sys::getdents(&reading.fd, number(w[2]) as usize)?
            } else {
                sys::read_rest(&reading.fd)?
            };
            reading.seen.extend(more);
            return Ok(String::new());
        }
        "copyrange" => {
            let (from, to) = (hands.file(w[1])?, hands.file(w[3])?);
            let n =
                sys::copy_file_range(from, number(w[2]), to, number(w[4]), number(w[5]) as usize)?;
            return Ok(n.to_string());
        }
        "close" => {
            let fd = hands.files.remove(w[1]).ok_or(libc::EBADF)?;
            return done(sys::close(fd));
        }
        _ => {}
    }
    let fd = hands.file(w[1])?;
    match w[0] {
        "pwrite" => {
            let bytes = data(number(w[2]), number(w[3]), number(w[4]));
            Ok(sys::pwrite(fd, &bytes, number(w[2]))?.to_string())
        }
        "mmap" => {
            let bytes = data(number(w[2]), number(w[3]), number(w[4]));
            done(sys::mmap_store(fd, number(w[2]), &bytes))
        }
        "pread" => {
            let bytes = sys::pread(fd, number(w[3]) as usize, number(w[2]))?;
            Ok(format!("{} bytes {:016x}", bytes.len(), digest(&bytes)))
        }
        "fstat" => Ok(stat_line(&sys::fstat(fd)?)),
        "ftruncate" => done(sys::ftruncate(fd, number(w[2]))),
        "fchmod" => done(sys::fchmod(fd, octal(w[2]))),
        "fchown" => done(sys::fchown(fd, id(w[2]), id(w[3]))),
        "futimens" => done(sys::futimens(fd, [time(w[2]), time(w[3])])),
        "fsetxattr" => done(sys::fsetxattr(
            fd,
            unescape(w[2]),
            &unescape(w[3]),
            number(w[4]) as i32,
        )),
        "fgetxattr" => Ok(escape(&sys::fgetxattr(fd, unescape(w[2]))?)),
        "fallocate" => done(sys::fallocate(
            fd,
            number(w[2]) as i32,
            number(w[3]),
            number(w[4]),
        )),
        "segments" => {
            let sound = tree::holes_are_empty(&sys::read_all(fd)?, &tree::segments(fd)?);
            Ok(if sound {
                "sound".into()
            } else {
                "a hole holds data".into()
            })
        }
        "fsync" => done(sys::fsync(fd)),
        "linkfd" => done(sys::link_fd(fd, path(w[2]))),
        other => panic!("{other:?} is not a verb: {w:?}"),
    }
}

impl Hands {
    /// The open file in a slot.
    pub fn file(&self, slot: &str) -> Result<&OwnedFd, Errno> {
        self.files.get(slot).ok_or(libc::EBADF)
    }

    /// Forgets one slot.
    pub fn drop_slot(&mut self, slot: &str) {
        self.files.remove(slot);
        self.dirs.remove(slot);
    }

    /// Closes everything.
    pub fn let_go(&mut self) {
        self.files.clear();
        self.dirs.clear();
    }
}
