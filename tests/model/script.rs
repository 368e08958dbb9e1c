//! Random operations, chosen by what is there, so that most of them succeed.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::generate::{self, name};
use super::support::bytes::{escape, fill};
use super::support::rng::Rng;
use super::support::sys;

/// Names of a moment: where the next operation may strike.
#[derive(Default)]
pub struct Survey {
    /// Escaped path below the root, and its d_type.
    found: Vec<(String, u8)>,
}

impl Survey {
    pub fn of(root: &Path) -> Survey {
        let mut survey = Survey::default();
        survey.visit(root.as_os_str().as_bytes(), "");
        survey
    }

    fn visit(&mut self, dir: &[u8], path: &str) {
        let Ok(mut entries) = sys::list(dir) else {
            return;
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let name = escape(&entry.name);
            let below = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            self.found.push((below.clone(), entry.kind));
            if entry.kind == libc::DT_DIR && below.len() < 60 {
                self.visit(&[dir, b"/", &entry.name].concat(), &below);
            }
        }
    }

    fn any(&self, rng: &mut Rng, kind: Option<u8>) -> Option<String> {
        let fitting: Vec<&String> = self
            .found
            .iter()
            .filter(|(_, k)| kind.is_none_or(|kind| kind == *k))
            .map(|(path, _)| path)
            .collect();
        (!fitting.is_empty()).then(|| (*rng.pick(&fitting)).clone())
    }
}

/// Writes the script, line by line, as it goes.
pub struct Author {
    rng: Rng,
    survey: Survey,
    /// Paths just used, because trouble comes from doing two things to one name.
    hot: Vec<String>,
    /// Slots that most likely hold an open file, or an open directory.
    files: BTreeSet<u64>,
    dirs: BTreeSet<u64>,
}

const SLOTS: u64 = 4;
const OFFSETS: &[u64] = &[
    0, 0, 1, 10, 100, 4000, 4096, 5000, 8192, 12_288, 40_000, 70_000,
];
const LENGTHS: &[u64] = &[1, 5, 50, 96, 4096, 5000, 9000];

impl Author {
    pub fn new(rng: Rng) -> Author {
        Author {
            rng,
            survey: Survey::default(),
            hot: Vec::new(),
            files: BTreeSet::new(),
            dirs: BTreeSet::new(),
        }
    }

    /// Looks again at what is there.
    pub fn look(&mut self, root: &Path) {
        self.survey = Survey::of(root);
    }

    /// A path that exists, most likely, of this kind.
    fn existing(&mut self, kind: Option<u8>) -> String {
        if !self.hot.is_empty() && self.rng.chance(25) {
            return self.rng.pick(&self.hot).clone();
        }
        if self.rng.chance(93)
            && let Some(path) = self.survey.any(&mut self.rng, kind)
        {
            return self.used(path);
        }
        self.fresh()
    }

    /// A path whose parent exists, most likely, and which may be new.
    fn fresh(&mut self) -> String {
        if !self.hot.is_empty() && self.rng.chance(25) {
            return self.rng.pick(&self.hot).clone();
        }
        let parent = if self.rng.chance(35) {
            None
        } else {
            self.survey.any(&mut self.rng, Some(libc::DT_DIR))
        };
        let path = match parent {
            None => name(&mut self.rng, 0),
            Some(parent) => {
                let depth = parent.matches('/').count() + 1;
                format!("{parent}/{}", name(&mut self.rng, depth))
            }
        };
        self.used(path)
    }

    fn used(&mut self, path: String) -> String {
        self.hot.push(path.clone());
        if self.hot.len() > 5 {
            self.hot.remove(0);
        }
        path
    }

    fn file(&mut self) -> String {
        self.existing(Some(libc::DT_REG))
    }

    fn dir(&mut self) -> String {
        self.existing(Some(libc::DT_DIR))
    }

    fn dir_or_root(&mut self) -> String {
        if self.rng.chance(25) {
            ".".into()
        } else {
            self.dir()
        }
    }

    /// One of the slots `held`, most likely.
    fn slot(&mut self, held: &BTreeSet<u64>) -> u64 {
        let held: Vec<u64> = held.iter().copied().collect();
        if held.is_empty() || self.rng.chance(10) {
            self.rng.below(SLOTS)
        } else {
            *self.rng.pick(&held)
        }
    }

    fn extent(&mut self) -> String {
        format!("{} {}", self.rng.pick(OFFSETS), self.rng.pick(LENGTHS))
    }

    fn set_time(&mut self) -> String {
        match self.rng.below(6) {
            0 => "omit".into(),
            1 => "now".into(),
            _ => generate::time(&mut self.rng),
        }
    }

    /// Owner and group to set. Never neither: that is a request to drop setuid which the kernel's
    /// FUSE client passes on as a request for nothing at all.
    fn ids(&mut self) -> String {
        self.rng
            .pick(&[
                "- 0",
                "- 1000",
                "- 1001",
                "0 -",
                "1000 -",
                "1001 -",
                "0 0",
                "1000 1000",
                "1001 1000",
                "0 1001",
            ])
            .to_string()
    }

    /// The next line of the script.
    pub fn line(&mut self) -> String {
        let body = if self.rng.chance(30) {
            self.on_descriptor()
        } else {
            self.on_path()
        };
        let mut prefix = String::new();
        if self.rng.chance(12) {
            prefix.push_str(self.rng.pick::<&str>(&["u1 ", "u1 ", "u2 "]));
        }
        if self.rng.chance(10) {
            prefix.push_str(
                self.rng
                    .pick::<&str>(&["umask=027 ", "umask=077 ", "umask=000 "]),
            );
        }
        prefix + &body
    }

    /// A line after which nothing is open any more.
    pub fn end_of_mount(&mut self, verb: &str) -> String {
        self.files.clear();
        self.dirs.clear();
        verb.into()
    }

    fn on_path(&mut self) -> String {
        let verbs = [
            (6, "create"),
            (7, "write"),
            (4, "append"),
            (3, "overwrite"),
            (4, "read"),
            (5, "truncate"),
            (8, "mkdir"),
            (7, "rmdir"),
            (9, "unlink"),
            (3, "rmtree"),
            (4, "symlink"),
            (7, "link"),
            (4, "mknod"),
            (16, "rename"),
            (6, "chmod"),
            (4, "chown"),
            (5, "utimens"),
            (5, "setxattr"),
            (3, "removexattr"),
            (2, "stat"),
            (1, "access"),
            (2, "list"),
            (2, "check"),
            (1, "remount"),
            (2, "restack"),
        ];
        let verb = self.rng.weighted(&verbs);
        let seed = self.rng.below(250);
        match verb {
            "create" => {
                let excl = if self.rng.chance(50) { " excl" } else { "" };
                format!(
                    "create {} {:o}{excl}",
                    self.fresh(),
                    generate::mode(&mut self.rng)
                )
            }
            "write" => format!("write {} {} {seed}", self.file(), self.extent()),
            "append" | "overwrite" => {
                format!("{verb} {} {} {seed}", self.file(), self.rng.pick(LENGTHS))
            }
            "truncate" => {
                format!("truncate {} {}", self.file(), self.rng.pick(OFFSETS))
            }
            "mkdir" => format!("mkdir {} {:o}", self.fresh(), generate::mode(&mut self.rng)),
            "rmdir" | "rmtree" => format!("{verb} {}", self.dir()),
            "list" => format!("{verb} {}", self.dir_or_root()),
            "symlink" => {
                let target = generate::target(&mut self.rng);
                format!("symlink {target} {}", self.fresh())
            }
            "link" => format!("link {} {}", self.existing(None), self.fresh()),
            "mknod" => {
                let (kind, rdev) = *self.rng.pick(&[
                    (libc::S_IFIFO, 0),
                    (libc::S_IFSOCK, 0),
                    (libc::S_IFREG, 0),
                    (libc::S_IFCHR, 0x501),
                    (libc::S_IFCHR, 0),
                    (libc::S_IFBLK, 0x1_0701),
                ]);
                let mode = kind | generate::mode(&mut self.rng) & 0o7777;
                format!("mknod {} {mode:o} {rdev}", self.fresh())
            }
            "rename" => {
                let from = self.existing(None);
                let to = if self.rng.chance(50) {
                    self.fresh()
                } else {
                    self.existing(None)
                };
                // NOREPLACE, EXCHANGE, WHITEOUT and none.
                format!(
                    "rename {from} {to} {}",
                    self.rng.pick(&[0, 0, 0, 0, 0, 1, 2, 2, 4])
                )
            }
            "chmod" => format!(
                "chmod {} {:o}",
                self.existing(None),
                generate::mode(&mut self.rng)
            ),
            "chown" => {
                let ids = self.ids();
                format!("chown {} {ids}", self.existing(None))
            }
            "utimens" => {
                let times = format!("{} {}", self.set_time(), self.set_time());
                format!("utimens {} {times}", self.existing(None))
            }
            "setxattr" => {
                let (path, kind) = *self.rng.pick(&[
                    (Some(libc::DT_REG), "file"),
                    (Some(libc::DT_DIR), "dir"),
                    (None, "any"),
                ]);
                let (name, value) = generate::xattr(&mut self.rng, kind);
                let flags = self
                    .rng
                    .pick(&[0, 0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE])
                    .to_owned();
                format!("setxattr {} {name} {value} {flags}", self.existing(path))
            }
            "removexattr" => {
                let (name, _) = generate::xattr(&mut self.rng, "dir");
                format!("removexattr {} {name}", self.existing(None))
            }
            "stat" | "read" | "unlink" => format!("{verb} {}", self.existing(None)),
            "access" => format!("access {} {}", self.existing(None), self.rng.below(8)),
            "remount" | "restack" => self.end_of_mount(verb),
            _ => verb.into(),
        }
    }

    fn on_descriptor(&mut self) -> String {
        let verbs = [
            (16, "open"),
            (8, "close"),
            (12, "pwrite"),
            (6, "pread"),
            (6, "fstat"),
            (5, "ftruncate"),
            (4, "fchmod"),
            (2, "fchown"),
            (3, "futimens"),
            (3, "fsetxattr"),
            (2, "fgetxattr"),
            (6, "fallocate"),
            (6, "mmap"),
            (4, "segments"),
            (1, "fsync"),
            (4, "copyrange"),
            (2, "linkfd"),
            (5, "opendir"),
            (5, "readsome"),
            (5, "readrest"),
        ];
        let mut verb = self.rng.weighted(&verbs);
        let reads_dir = matches!(verb, "readsome" | "readrest");
        let held = if reads_dir {
            self.dirs.clone()
        } else {
            self.files.clone()
        };
        if held.is_empty() && self.rng.chance(90) {
            verb = if reads_dir { "opendir" } else { "open" };
        }
        let slot = match verb {
            "open" | "opendir" => self.rng.below(SLOTS),
            _ => self.slot(&held),
        };
        match verb {
            "open" => self.files.insert(slot),
            "opendir" => self.dirs.insert(slot),
            "close" => self.files.remove(&slot),
            "readrest" => self.dirs.remove(&slot),
            _ => false,
        };
        let seed = self.rng.below(250);
        match verb {
            "open" => {
                let flags = *self.rng.pick(&[
                    "rd",
                    "rdwr",
                    "rdwr",
                    "rdwr",
                    "wr",
                    "rdwr+append",
                    "rdwr+creat",
                    "rdwr+creat",
                    "wr+trunc",
                    "rdwr+creat+excl",
                    "rd+noatime",
                    "rdwr+creat+trunc",
                ]);
                format!(
                    "open {slot} {} {flags} {:o}",
                    self.file(),
                    generate::mode(&mut self.rng)
                )
            }
            "pwrite" | "mmap" => format!("{verb} {slot} {} {seed}", self.extent()),
            "pread" => format!("pread {slot} {}", self.extent()),
            "ftruncate" => format!("ftruncate {slot} {}", self.rng.pick(OFFSETS)),
            "fchmod" => format!("fchmod {slot} {:o}", generate::mode(&mut self.rng)),
            "fchown" => format!("fchown {slot} {}", self.ids()),
            "futimens" => format!("futimens {slot} {} {}", self.set_time(), self.set_time()),
            "fsetxattr" => {
                let (name, value) = generate::xattr(&mut self.rng, "file");
                format!("fsetxattr {slot} {name} {value} 0")
            }
            "fgetxattr" => {
                let (name, _) = generate::xattr(&mut self.rng, "file");
                format!("fgetxattr {slot} {name}")
            }
            "fallocate" => {
                let keep = libc::FALLOC_FL_KEEP_SIZE;
                let modes = [
                    0,
                    keep,
                    keep | libc::FALLOC_FL_PUNCH_HOLE,
                    keep | libc::FALLOC_FL_PUNCH_HOLE,
                    libc::FALLOC_FL_ZERO_RANGE,
                    keep | libc::FALLOC_FL_ZERO_RANGE,
                ];
                format!(
                    "fallocate {slot} {} {}",
                    self.rng.pick(&modes),
                    self.extent()
                )
            }
            "copyrange" => {
                let to = self.slot(&held);
                format!(
                    "copyrange {slot} {} {to} {}",
                    self.rng.pick(OFFSETS),
                    self.extent()
                )
            }
            "linkfd" => format!("linkfd {slot} {}", self.fresh()),
            "opendir" => format!("opendir {slot} {}", self.dir_or_root()),
            "readsome" => format!("readsome {slot} {}", self.rng.pick(&[80, 120, 200])),
            _ => format!("{verb} {slot}"),
        }
    }
}

/// Data for a `write`-like line.
pub fn data(offset: u64, len: u64, seed: u64) -> Vec<u8> {
    fill(seed, offset, len as usize)
}
