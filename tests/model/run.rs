//! Runs a case on two unions and stops at the first thing in which they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::case::Case;
use super::execute::{self, Hands, Outcome, Step, path, show};
use super::generate;
use super::intended;
use super::script::Author;
use super::support::bytes::escape;
use super::support::layers::{MarkFormat, materialise};
use super::support::mount::{Mounted, Stack, Subject};
use super::support::rng::Rng;
use super::support::sys;
use super::support::temp::remove_tree;
use super::support::tree::{self, Tree};
use super::support::watchdog::Watchdog;

/// No script takes as long as this unless something hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Where and in what the two unions differed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Number of the script's line (from 1), and the line; the layers alone for 0.
    pub at: usize,
    pub line: String,
    pub what: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} `{}`:", self.at, self.line)?;
        for line in self.what.iter().take(12) {
            write!(f, "\n    {line}")?;
        }
        if self.what.len() > 12 {
            write!(f, "\n    … and {} more", self.what.len() - 12)?;
        }
        Ok(())
    }
}

/// Runs cases one after the other in a directory of its own, on one thread.
pub struct Runner {
    dir: PathBuf,
    subject: Subject,
}

/// One of the two unions.
struct Side {
    name: &'static str,
    subject: Subject,
    dir: PathBuf,
    stack: Stack,
    mounted: Option<Mounted>,
    hands: Hands,
    /// The machine's root, to come back to from the union's.
    machine: OwnedFd,
    /// The lowers as they were made.
    pristine: Vec<Tree>,
}

impl Side {
    fn prepare(
        name: &'static str,
        subject: Subject,
        dir: PathBuf,
        case: &Case,
        format: MarkFormat,
    ) -> Side {
        if dir.exists() {
            remove_tree(&dir);
        }
        let mut lowers = Vec::new();
        for (i, lines) in case.lowers.iter().enumerate() {
            let at = dir.join(format!("l{i}"));
            materialise(lines, &at, format);
            lowers.push(at);
        }
        let stack = Stack::new(&lowers).upper(&dir.join("u"), &dir.join("w"));
        let mut upper = vec!["dir . 755 0:0 1000000000.5".to_string()];
        if !case.upper.is_empty() {
            upper.clone_from(&case.upper);
        }
        materialise(&upper, &dir.join("u"), MarkFormat::Overlay);
        let machine =
            sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("/ can be opened");
        let pristine = lowers.iter().map(|at| tree::read(at)).collect();
        Side {
            name,
            subject,
            dir,
            stack,
            mounted: None,
            hands: Hands::default(),
            machine,
            pristine,
        }
    }

    fn mount(&mut self, watchdog: &Watchdog) -> Result<(), Vec<String>> {
        let at = self.dir.join("m");
        let mounted = self.stack.mount(self.subject, &at).map_err(|e| vec![e])?;
        watchdog.cover(mounted.connection());
        self.mounted = Some(mounted);
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), Vec<String>> {
        self.hands.let_go();
        self.mounted
            .take()
            .map_or(Ok(()), |m| m.unmount().map_err(|e| vec![e]))
    }

    fn root(&self) -> PathBuf {
        self.dir.join("m")
    }

    /// As a program inside sees it: an absolute symlink on the way stays in the union.
    fn lstat(&self, word: &str) -> sys::Res<sys::Stat> {
        self.inside(|| sys::lstat(path(word)))
    }

    fn inside<T>(&self, work: impl FnOnce() -> sys::Res<T>) -> sys::Res<T> {
        sys::chroot(self.root().as_os_str().as_bytes())?;
        let outcome = work();
        sys::leave_chroot(&self.machine)?;
        outcome
    }

    /// The whole view, without what is known to be wrong in the kernel's: it lists stray whiteouts
    /// of unmerged directories and then denies them, and lists wrong numbers for directories that
    /// were put into an upper by hand.
    fn view(&self) -> Tree {
        let mut view = tree::read(&self.root());
        if self.subject == Subject::Kernel {
            view.retain(|_, node| node.trouble != ["listed, but lstat says ENOENT"]);
            for node in view.values_mut() {
                node.trouble.retain(|line| !line.starts_with("d_ino"));
            }
        }
        view
    }

    /// The lines in which the lowers are not what they were.
    fn harm(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, before) in self.stack.lowers.iter().zip(&self.pristine) {
            let name = at
                .file_name()
                .map_or_else(Default::default, |n| n.to_string_lossy());
            let now = tree::read(at);
            for line in tree::differences(("before", before), ("after", &now)) {
                lines.push(format!("lower {name} of {} changed: {line}", self.name));
            }
        }
        lines
    }
}

/// Names that a script's lines may have changed since a directory was opened.
type Touched = BTreeMap<String, BTreeSet<Vec<u8>>>;

struct Match {
    format: MarkFormat,
    kernel: Side,
    other: Side,
    watchdog: Watchdog,
    touched: Touched,
    /// A recursive removal has happened: any name may be touched.
    wild: bool,
}

enum Source<'a> {
    Author(Author, usize),
    Lines(&'a [String]),
}

impl Runner {
    pub fn new(dir: PathBuf, subject: Subject) -> Runner {
        // One thread may enter another root and umask without the others.
        sys::unshare_fs().expect("root may unshare");
        Runner { dir, subject }
    }

    /// The case of `seed`, its script written while it runs.
    pub fn generate_and_run(&self, seed: u64, ops: usize) -> (Case, Result<(), Failure>) {
        let mut rng = Rng::new(seed);
        let mut case = generate::layers(&mut rng);
        let source = Source::Author(Author::new(rng), ops);
        let mut done = Vec::new();
        let outcome = self.play(&case, source, &mut done);
        case.script = done;
        (case, outcome)
    }

    pub fn run(&self, case: &Case) -> Result<(), Failure> {
        self.play(case, Source::Lines(&case.script), &mut Vec::new())
    }

    fn play(
        &self,
        case: &Case,
        mut source: Source<'_>,
        done: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let fail = |at: usize, line: &str| {
            let line = line.to_string();
            move |what: Vec<String>| Failure { at, line, what }
        };
        let kernel = Side::prepare(
            "kernel",
            Subject::Kernel,
            self.dir.join("k"),
            case,
            MarkFormat::Overlay,
        );
        let other_name = if self.subject == Subject::Plyfs {
            "plyfs"
        } else {
            "other"
        };
        // The others read their own marks alone.
        let format = if self.subject == Subject::Plyfs {
            case.format
        } else {
            MarkFormat::Overlay
        };
        let other = Side::prepare(other_name, self.subject, self.dir.join("o"), case, format);
        let mut game = Match {
            format,
            kernel,
            other,
            watchdog: Watchdog::new(LIMIT),
            touched: Touched::new(),
            wild: false,
        };
        game.mount().map_err(fail(0, "mount"))?;
        game.compare().map_err(fail(0, "the layers' first view"))?;
        let mut at = 0;
        loop {
            let line = match &mut source {
                Source::Lines(lines) => match lines.get(at) {
                    Some(line) => line.clone(),
                    None => break,
                },
                Source::Author(author, ops) => {
                    if at >= *ops {
                        break;
                    }
                    if at.is_multiple_of(6) {
                        author.look(&game.kernel.root());
                    }
                    author.line()
                }
            };
            at += 1;
            done.push(line.clone());
            game.step(&line).map_err(|mut what| {
                if game.watchdog.fired() {
                    what.insert(
                        0,
                        format!("no answer after {LIMIT:?}: the connection was aborted"),
                    );
                }
                fail(at, &line)(what)
            })?;
        }
        game.compare().map_err(fail(at, "the view at the end"))?;
        game.finish().map_err(fail(at, "after the end"))
    }
}

impl Match {
    fn mount(&mut self) -> Result<(), Vec<String>> {
        self.kernel.mount(&self.watchdog)?;
        self.other.mount(&self.watchdog)
    }

    fn unmount(&mut self) -> Result<(), Vec<String>> {
        self.touched.clear();
        let other = self.other.unmount();
        self.kernel.unmount()?;
        other
    }

    fn remount(&mut self) -> Result<(), Vec<String>> {
        let before = self.other.view();
        self.unmount()?;
        self.mount()?;
        let after = self.other.view();
        let mut lines = tree::differences(("before the remount", &before), ("after it", &after));
        for (path, node) in &before {
            if let Some(now) = after.get(path)
                && now.stat.ino != node.stat.ino
            {
                lines.push(format!(
                    "/{}: st_ino {} became {} by a remount",
                    escape(path),
                    node.stat.ino,
                    now.stat.ino
                ));
            }
        }
        report(lines)?;
        self.compare()
    }

    /// Does `line` on one side, from inside its root.
    fn on(side: &mut Side, step: &Step<'_>) -> Outcome {
        let mut hands = std::mem::take(&mut side.hands);
        let outcome = side.inside(|| execute::execute(step, &mut hands));
        side.hands = hands;
        outcome
    }

    fn step(&mut self, line: &str) -> Result<(), Vec<String>> {
        let step = Step::parse(line);
        match step.verb() {
            "check" => return self.compare(),
            "remount" => return self.remount(),
            _ => {}
        }
        let paths = step.paths();
        let before: Vec<_> = paths.iter().map(|p| self.other.lstat(p)).collect();
        let expected = Self::on(&mut self.kernel, &step);
        let got = Self::on(&mut self.other, &step);
        self.touch(&step);
        if step.verb() == "rename" && expected.is_err() {
            self.forgive_parents(&paths);
        }
        if std::env::var_os("PLYFS_ORACLE_TRACE").is_some() {
            println!("{line} -> {} | {}", show(&expected), show(&got));
        }
        let mut lines = Vec::new();
        if expected != got {
            if intended::outcome(&step, &expected, &got).is_none() {
                lines.push(format!("kernel: {}", show(&expected)));
                lines.push(format!("{}: {}", self.other.name, show(&got)));
            } else if step.on_slot() && expected.is_err() != got.is_err() {
                // From here on the open file is not the same one.
                self.kernel.hands.drop_slot(step.words[1]);
                self.other.hands.drop_slot(step.words[1]);
            }
        }
        lines.extend(self.compare_paths(&step, &paths));
        lines.extend(self.constancy(&step, &paths, &before, &got));
        if step.verb() == "opendir" && got.is_ok() {
            self.touched.insert(step.words[1].into(), BTreeSet::new());
        }
        if step.verb() == "readrest" && got.is_ok() && expected.is_ok() {
            lines.extend(self.judge_reading(step.words[1]));
        }
        report(lines)
    }

    fn touch(&mut self, step: &Step<'_>) {
        self.wild |= step.verb() == "rmtree";
        for names in self.touched.values_mut() {
            for word in step.paths() {
                names.extend(path(word).split(|&b| b == b'/').map(<[u8]>::to_vec));
            }
        }
    }

    /// A rename that fails changes the mtime of parents in the kernel's union, and nothing in
    /// plyfs's. The kernel's are put back.
    fn forgive_parents(&self, paths: &[&str]) {
        for word in paths {
            let parent = word.rsplit_once('/').map_or(".", |(parent, _)| parent);
            let (Ok(theirs), Ok(ours)) = (self.kernel.lstat(parent), self.other.lstat(parent))
            else {
                continue;
            };
            if theirs.mtime != ours.mtime && tree::time(theirs.mtime) == "recent" {
                let times = [sys::OMIT, ours.mtime];
                let put_back = self.kernel.inside(|| sys::utimens(path(parent), times));
                assert!(put_back.is_ok(), "{parent}: {put_back:?}");
            }
        }
    }

    /// The named paths must look the same on both sides now.
    fn compare_paths(&self, step: &Step<'_>, paths: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        for word in paths {
            let seen = |side: &Side| side.lstat(word).map(|s| execute::stat_line(&s));
            let (a, b) = (seen(&self.kernel), seen(&self.other));
            if a != b && intended::attributes(step, &a, &b).is_none() {
                lines.push(format!("then {word}: kernel: {}", show(&a)));
                lines.push(format!("then {word}: {}: {}", self.other.name, show(&b)));
            }
        }
        lines
    }

    /// A file keeps its number, whatever is done to it, and takes it along in a rename.
    fn constancy(
        &self,
        step: &Step<'_>,
        paths: &[&str],
        before: &[sys::Res<sys::Stat>],
        got: &Outcome,
    ) -> Vec<String> {
        let pairs: Vec<(usize, usize)> = match step.verb() {
            "rename" if got.is_ok() && step.words[3] == "2" => vec![(0, 1), (1, 0)],
            // Nothing happens to two names of one file.
            "rename" if got.is_ok() => vec![(0, 1)],
            "write" | "append" | "truncate" | "chmod" | "chown" | "utimens" | "setxattr"
            | "removexattr" | "read" | "stat" | "link" => vec![(0, 0)],
            _ => vec![],
        };
        let mut lines = Vec::new();
        for (from, to) in pairs {
            let (Some(Ok(old)), Some(word)) = (before.get(from), paths.get(to)) else {
                continue;
            };
            match self.other.lstat(word) {
                Ok(now) if now.ino == old.ino => {}
                Ok(now) => lines.push(format!("{word}: st_ino was {}, is {}", old.ino, now.ino)),
                Err(e) => lines.push(format!(
                    "{word}: had st_ino {}, is {}",
                    old.ino,
                    sys::errno_name(e)
                )),
            }
        }
        lines
    }

    /// Of a directory that changed while it was read, what was there all the time came once.
    fn judge_reading(&mut self, slot: &str) -> Vec<String> {
        let touched = self.touched.remove(slot).unwrap_or_default();
        let mut lines = Vec::new();
        for side in [&mut self.kernel, &mut self.other] {
            let Some(reading) = side.hands.dirs.remove(slot) else {
                continue;
            };
            if self.wild || sys::fstat(&reading.fd).is_ok_and(|s| s.nlink == 0) {
                continue;
            }
            let again = sys::lseek(&reading.fd, 0, libc::SEEK_SET)
                .and_then(|_| sys::read_rest(&reading.fd));
            let after: BTreeSet<Vec<u8>> = again
                .unwrap_or_default()
                .into_iter()
                .map(|e| e.name)
                .collect();
            for name in reading
                .before
                .iter()
                .filter(|n| after.contains(*n) && !touched.contains(*n))
            {
                let times = reading.seen.iter().filter(|e| e.name == *name).count();
                if times != 1 {
                    lines.push(format!(
                        "{}: the untouched {} was listed {times} times",
                        side.name,
                        escape(name)
                    ));
                }
            }
        }
        lines
    }

    /// Both whole views, file by file, and which names are one file.
    fn compare(&self) -> Result<(), Vec<String>> {
        let (a, b) = (self.kernel.view(), self.other.view());
        let mut lines = tree::differences(("kernel", &a), (self.other.name, &b));
        lines.retain(|line| !intended::view(line));
        let (x, y) = (tree::groups(&a), tree::groups(&b));
        if lines.is_empty() && x != y {
            for (name, groups, others) in [("kernel", &x, &y), (self.other.name, &y, &x)] {
                for group in groups.iter().filter(|g| !others.contains(g)) {
                    let names: Vec<String> =
                        group.iter().map(|n| format!("/{}", escape(n))).collect();
                    lines.push(format!("one file only in {name}: {}", names.join(" ")));
                }
            }
        }
        report(lines)
    }

    fn finish(&mut self) -> Result<(), Vec<String>> {
        self.remount()?;
        let seen = [self.kernel.view(), self.other.view()];
        self.unmount()?;
        let mut lines = self.other.harm();
        if self.other.subject != Subject::Kernel {
            lines.extend(leftovers(&self.other.dir.join("w")));
        }
        report(lines)?;
        if self.other.subject == Subject::Plyfs {
            self.interchange(&seen)
        } else {
            Ok(())
        }
    }

    /// Each mounts what the other wrote, and sees what the other saw. The kernel reads only its
    /// own marks in lowers.
    fn interchange(&mut self, seen: &[Tree; 2]) -> Result<(), Vec<String>> {
        let [kernels, plyfss] = seen;
        self.kernel.subject = Subject::Plyfs;
        self.kernel.mount(&self.watchdog)?;
        let read_by_plyfs = self.kernel.view();
        self.kernel.unmount()?;
        let mut lines = tree::differences(
            ("kernel's own", kernels),
            ("the kernel's read by plyfs", &read_by_plyfs),
        );
        if self.format == MarkFormat::Overlay {
            self.other.subject = Subject::Kernel;
            self.other.mount(&self.watchdog)?;
            let read_by_kernel = self.other.view();
            self.other.unmount()?;
            lines.extend(tree::differences(
                ("plyfs's own", plyfss),
                ("plyfs's read by the kernel", &read_by_kernel),
            ));
        }
        report(lines)
    }
}

/// Temporaries that a clean unmount left in work: anything but directories, and files of an index.
fn leftovers(work: &Path) -> Vec<String> {
    tree::read(work)
        .iter()
        .filter(|(path, node)| {
            let inside = path.iter().filter(|&&b| b == b'/').count();
            let index = path.windows(5).any(|part| part == b"index");
            inside > 0 && !index && node.stat.mode != 0
        })
        .map(|(path, node)| format!("left in work: {} ({:06o})", escape(path), node.stat.mode))
        .collect()
}

fn report(lines: Vec<String>) -> Result<(), Vec<String>> {
    if lines.is_empty() { Ok(()) } else { Err(lines) }
}
