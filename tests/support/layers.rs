//! Layers: from lines of text to a directory, in any of the mark formats.
//!
//! ```text
//! dir PATH MODE UID:GID TIME
//! file PATH MODE UID:GID TIME SIZE OFFSET+LENGTH+SEED,…   (or - for no data)
//! node PATH MODE UID:GID TIME RDEV                        (fifo, socket or device: type bits in MODE)
//! symlink PATH TARGET UID:GID TIME
//! link PATH EXISTING
//! xattr PATH NAME VALUE
//! whiteout PATH
//! opaque PATH
//! ```
//! PATH is relative to the layer, `.` its root; a line whose parent is missing is left out, so
//! that any line can be taken away when a case is made smaller.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::bytes::{digest, fill, unescape};
use super::sys;

/// How a layer marks what is deleted and what is opaque.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MarkFormat {
    /// Character device 0:0 and `trusted.overlay.opaque`.
    #[default]
    Overlay,
    /// `.wh.NAME` and `.wh..wh..opq`.
    Files,
    /// Character device 0:0 and `user.overlay.opaque`.
    UserXattr,
    /// Character device 0:0 and `user.fuseoverlayfs.opaque`.
    FuseOverlayfs,
    /// An empty file with `trusted.overlay.whiteout` in a directory whose opaque xattr is `x`.
    XattrWhiteout,
    /// Each mark in one of the ways above.
    Mixed,
}

impl MarkFormat {
    pub const ALL: [MarkFormat; 6] = [
        MarkFormat::Overlay,
        MarkFormat::Files,
        MarkFormat::UserXattr,
        MarkFormat::FuseOverlayfs,
        MarkFormat::XattrWhiteout,
        MarkFormat::Mixed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            MarkFormat::Overlay => "overlay",
            MarkFormat::Files => "files",
            MarkFormat::UserXattr => "user-xattr",
            MarkFormat::FuseOverlayfs => "fuse-overlayfs",
            MarkFormat::XattrWhiteout => "xattr-whiteout",
            MarkFormat::Mixed => "mixed",
        }
    }

    pub fn named(name: &str) -> Option<MarkFormat> {
        MarkFormat::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The way in which the mark at `path` is written.
    fn at(self, path: &[u8]) -> MarkFormat {
        if self == MarkFormat::Mixed {
            MarkFormat::ALL[(digest(path) >> 7) as usize % 5]
        } else {
            self
        }
    }
}

/// `octal` as a number.
pub fn octal(word: &str) -> u32 {
    u32::from_str_radix(word, 8).expect("an octal number")
}

pub fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

/// `1000:100` as ids.
pub fn owner(word: &str) -> (u32, u32) {
    let (uid, gid) = word.split_once(':').expect("UID:GID");
    (uid.parse().expect("a uid"), gid.parse().expect("a gid"))
}

/// `SECONDS.NANOSECONDS` (both whole numbers, the first signed), `now` or `omit`.
pub fn time(word: &str) -> sys::Time {
    match word {
        "now" => sys::NOW,
        "omit" => sys::OMIT,
        _ => {
            let (s, n) = word.split_once('.').expect("SECONDS.NANOSECONDS");
            (s.parse().expect("seconds"), n.parse().expect("nanoseconds"))
        }
    }
}

/// Makes the layer that `lines` describe in the directory `at`.
pub fn materialise(lines: &[String], at: &Path, format: MarkFormat) {
    std::fs::create_dir_all(at).expect("a layer's directory can be made");
    let lines: Vec<Vec<&str>> = lines.iter().map(|l| l.split(' ').collect()).collect();
    let opaque: Vec<&str> = lines
        .iter()
        .filter(|l| l[0] == "opaque")
        .map(|l| l[1])
        .collect();
    let layer = Layer {
        root: at.as_os_str().as_bytes(),
        format,
        opaque,
    };
    for line in &lines {
        match layer.entry(line) {
            Ok(()) | Err(libc::ENOENT | libc::ENOTDIR | libc::EEXIST) => {}
            Err(e) => panic!("{line:?} in {}: {}", at.display(), sys::errno_name(e)),
        }
    }
    // Times last: every entry made in a directory changes the directory's.
    for line in lines.iter().rev() {
        let at = match line[0] {
            "dir" | "file" | "node" | "symlink" => time(line[4]),
            _ => continue,
        };
        let times = [(at.0 + 5000, at.1), at];
        match sys::utimens(layer.path(line[1]), times) {
            Ok(()) | Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(e) => panic!("times of {line:?}: {}", sys::errno_name(e)),
        }
    }
}

struct Layer<'a> {
    root: &'a [u8],
    format: MarkFormat,
    opaque: Vec<&'a str>,
}

impl Layer<'_> {
    fn path(&self, word: &str) -> Vec<u8> {
        [self.root, b"/", &unescape(word)].concat()
    }

    fn entry(&self, line: &[&str]) -> sys::Res<()> {
        let path = self.path(line[1]);
        match line[0] {
            "dir" => {
                if line[1] != "." {
                    sys::mkdir(&path, 0o755)?;
                }
                dress(&path, line)
            }
            "file" => {
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
                let fd = sys::open(&path, flags, 0o600)?;
                sys::ftruncate(&fd, number(line[5]))?;
                for extent in line[6].split(',').filter(|e| *e != "-") {
                    let part: Vec<u64> = extent.split('+').map(number).collect();
                    sys::pwrite(&fd, &fill(part[2], part[0], part[1] as usize), part[0])?;
                }
                dress(&path, line)
            }
            "node" => {
                sys::mknod(&path, octal(line[2]), number(line[5]))?;
                dress(&path, line)
            }
            "symlink" => {
                sys::symlink(unescape(line[2]), &path)?;
                let (uid, gid) = owner(line[3]);
                sys::lchown(&path, uid, gid)
            }
            "link" => sys::link(self.path(line[2]), &path),
            "xattr" => sys::lsetxattr(&path, unescape(line[2]), &unescape(line[3]), 0),
            "whiteout" => self.whiteout(line[1]),
            "opaque" => self.mark_opaque(line[1]),
            other => panic!("{other:?} is not a line of a layer"),
        }
    }

    fn whiteout(&self, word: &str) -> sys::Res<()> {
        let path = self.path(word);
        let (parent, name) = match word.rsplit_once('/') {
            Some((parent, name)) => (parent, name),
            None => (".", word),
        };
        let empty = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
        match self.format.at(&path) {
            MarkFormat::Files => {
                let mark = [&self.path(parent)[..], b"/.wh.", &unescape(name)].concat();
                sys::open(mark, empty, 0o000).map(drop)
            }
            // An opaque directory has no room for the `x`; its whiteouts are devices.
            MarkFormat::XattrWhiteout if !self.opaque.contains(&parent) => {
                drop(sys::open(&path, empty, 0o644)?);
                sys::lsetxattr(&path, "trusted.overlay.whiteout", b"", 0)?;
                sys::lsetxattr(self.path(parent), "trusted.overlay.opaque", b"x", 0)
            }
            _ => sys::mknod(&path, libc::S_IFCHR, 0),
        }
    }

    fn mark_opaque(&self, word: &str) -> sys::Res<()> {
        let path = self.path(word);
        let name = match self.format.at(&path) {
            MarkFormat::Files => {
                let mark = [&path[..], b"/.wh..wh..opq"].concat();
                let flags = libc::O_CREAT | libc::O_WRONLY;
                return sys::open(mark, flags, 0o000).map(drop);
            }
            MarkFormat::UserXattr => "user.overlay.opaque",
            MarkFormat::FuseOverlayfs => "user.fuseoverlayfs.opaque",
            _ => "trusted.overlay.opaque",
        };
        sys::lsetxattr(path, name, b"y", 0)
    }
}

/// Owner and mode, in the order in which the one does not undo the other.
fn dress(path: &[u8], line: &[&str]) -> sys::Res<()> {
    let (uid, gid) = owner(line[3]);
    sys::lchown(path, uid, gid)?;
    sys::chmod(path, octal(line[2]) & 0o7777)
}
