//! A union over layers made to mislead, and everything that a program might try in it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bytes::escape;
use super::lab::{Lab, at, build};
use super::layers::MarkFormat;
use super::mount::{Mounted, Stack, run};
use super::sys::{self, Errno};
use super::tree::{self, Tree};

/// What lies outside, in a directory beside the layers' own.
const SECRET: &[&str] = &[
    "dir .",
    "file only-secret 4321",
    "file file 4321",
    "dir s",
    "file s/deep 4321",
    "symlink link only-secret",
];

/// In the lowest layer, whatever else is there.
const ORDINARY: &[&str] = &[
    "dir plain",
    "file plain/untouched",
    "dir real",
    "file real/in",
];

/// Nothing that is done to a small tree takes longer, not on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(30);

/// Layers, with what lies outside, and how they were.
pub struct Siege<'a> {
    lab: &'a Lab,
    name: String,
    pub stack: Stack,
    outside: Tree,
    lowers: Vec<Tree>,
}

impl<'a> Siege<'a> {
    /// An upper and lowers (topmost first) of shortened lines, in which `@SECRET` stands for the
    /// place that must not be reached.
    pub fn new(lab: &'a Lab, name: &str, upper: &[&str], lowers: &[&[&str]]) -> Siege<'a> {
        let dir = |layer: &str| lab.path(name).join(layer);
        let secret = dir("secret");
        build(&secret, MarkFormat::Overlay, SECRET);
        let real = escape(secret.as_os_str().as_encoded_bytes());
        let make = |layer: &str, lines: &[&str]| -> PathBuf {
            let lines: Vec<String> = lines.iter().map(|l| l.replace("@SECRET", &real)).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            build(&dir(layer), MarkFormat::Overlay, &lines);
            dir(layer)
        };
        let mut paths: Vec<PathBuf> = lowers
            .iter()
            .enumerate()
            .map(|(i, lines)| make(&format!("l{i}"), lines))
            .collect();
        paths.push(make("bottom", ORDINARY));
        make("u", upper);
        let stack = Stack::new(&paths)
            .upper(&dir("u"), &dir("w"))
            .words("allow_other");
        Siege {
            lab,
            name: name.into(),
            outside: tree::read(&secret),
            lowers: paths.iter().map(|at| tree::read(at)).collect(),
            stack,
        }
    }

    pub fn words(mut self, words: &str) -> Siege<'a> {
        self.stack.words = words.into();
        self
    }

    /// A place in the directory of the layers.
    pub fn path(&self, below: &str) -> PathBuf {
        self.lab.path(&self.name).join(below)
    }

    /// Takes what lies outside and in the lowers as it is now for what it has to be.
    pub fn settle(&mut self) {
        self.outside = tree::read(&self.path("secret"));
        self.lowers = self.stack.lowers.iter().map(|at| tree::read(at)).collect();
    }

    fn log(&self) -> PathBuf {
        self.path("log")
    }

    /// Mounts it, or says what plyfs says.
    pub fn mount(&self) -> Result<Mounted, String> {
        // Deep enough that the `..` of a layer's symlink leads nowhere.
        let at = self.lab.dir(&format!("mnt/{}", self.name));
        let mut command = self.stack.plyfs_command(&at);
        command.arg("--log-file").arg(self.log());
        let out = run(&mut command, PATIENCE)?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        Ok(self.lab.watch(Mounted::found(&at)))
    }

    /// Looks at everything, tries everything, mounts again and looks at everything again.
    /// `judge` sees each mount before anything was tried, and after.
    pub fn lay(&self, judge: impl Fn(&Tree)) {
        let start = Instant::now();
        for round in 0..2 {
            let mounted = self
                .mount()
                .unwrap_or_else(|e| panic!("{}: mount {round}: {e}", self.name));
            let view = tree::read(mounted.path());
            self.nothing_leaks(&view);
            if round == 0 {
                judge(&view);
            }
            self.try_everything(&mounted, &view);
            self.nothing_leaks(&tree::read(mounted.path()));
            self.lives(&mounted);
            mounted.unmount().expect("it unmounts");
        }
        self.nothing_harmed();
        let took = start.elapsed();
        assert!(took < PATIENCE, "{}: it took {took:?}", self.name);
    }

    /// No name and no byte of what lies outside.
    fn nothing_leaks(&self, view: &Tree) {
        let secret = |at: &[u8]| self.outside[at].data.clone();
        for (path, node) in view {
            let shown = escape(path);
            let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
            assert_ne!(name, b"only-secret", "{}: /{shown} leads out", self.name);
            for at in [&b"only-secret"[..], b"s/deep"] {
                assert!(
                    node.data.is_none() || node.data != secret(at),
                    "{}: /{shown} shows what lies outside",
                    self.name
                );
            }
        }
    }

    /// Does to each file what can be done to a file. Whatever it is called, the answer is one of
    /// a filesystem that lives.
    fn try_everything(&self, mounted: &Mounted, view: &Tree) {
        let m = mounted.path();
        let moved = at(m, "moved");
        for (path, node) in view.iter().rev() {
            if path.is_empty() || path.starts_with(b"plain") {
                continue;
            }
            let p = [&at(m, ""), &path[..]].concat();
            let inside = [&p[..], b"/inside"].concat();
            let flags = libc::O_RDWR | libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOFOLLOW;
            let mut tries: Vec<(&str, Result<(), Errno>)> = vec![
                ("setxattr", sys::lsetxattr(&p, "user.note", b"x", 0)),
                ("utimens", sys::utimens(&p, [(7, 0), (7, 0)])),
                ("chown", sys::lchown(&p, 1, 1)),
                ("write", sys::open(&p, flags, 0).and_then(write_a_byte)),
                ("link", sys::link(&p, [&moved[..], b"-link"].concat())),
                ("rename", sys::rename(&p, &moved, 0)),
                ("back", sys::rename(&moved, &p, 0)),
                ("unlink", sys::unlink([&moved[..], b"-link"].concat())),
            ];
            // These follow symlinks, to wherever they lead in the test's own view.
            if !node.stat.is_symlink() {
                tries.extend([
                    ("chmod", sys::chmod(&p, 0o750)),
                    ("mkdir", sys::mkdir(&inside, 0o755)),
                    ("rmdir", sys::rmdir(&inside)),
                ]);
            }
            for (call, outcome) in tries {
                let dead = matches!(
                    outcome,
                    Err(libc::ENOTCONN | libc::ECONNABORTED | libc::ENOSYS)
                );
                let shown = escape(path);
                assert!(!dead, "{}: {call} /{shown}: {outcome:?}", self.name);
            }
        }
    }

    /// The rest of the tree works.
    fn lives(&self, mounted: &Mounted) {
        let m = mounted.path();
        let file = at(m, "plain/untouched");
        let read = sys::open(&file, libc::O_RDONLY, 0).and_then(|fd| sys::read_all(&fd));
        let ten = super::bytes::fill(7, 0, 10);
        assert_eq!(read, Ok(ten), "{}: an ordinary file is read", self.name);
        let new = at(m, "plain/new");
        assert_eq!(sys::mkdir(&new, 0o755), Ok(()), "{}", self.name);
        assert_eq!(sys::rmdir(&new), Ok(()), "{}", self.name);
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let bugs: Vec<&str> = log.lines().filter(|l| l.contains("a bug in")).collect();
        assert!(bugs.is_empty(), "{}: {bugs:?}", self.name);
    }

    /// What lies outside and the lowers are as they were, access times too.
    pub fn nothing_harmed(&self) {
        let secret = self.path("secret");
        let outside = [(&secret, &self.outside)];
        let lowers = self.stack.lowers.iter().zip(&self.lowers);
        for (at, before) in outside.into_iter().chain(lowers) {
            let now = tree::read(at);
            let harm = tree::differences(("before", before), ("after", &now));
            assert!(harm.is_empty(), "{}: {}: {harm:?}", self.name, at.display());
        }
    }
}

fn write_a_byte(fd: std::os::fd::OwnedFd) -> sys::Res<()> {
    if !sys::fstat(&fd)?.is_file() {
        return Ok(());
    }
    sys::pwrite(&fd, b"x", 0)?;
    sys::close(fd)
}
