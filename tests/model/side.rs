//! One of the two unions that a script is done to.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::case::Case;
use super::execute::{self, Hands, Outcome, Step, path};
use super::support::layers::{MarkFormat, materialise};
use super::support::mount::{Mounted, PLYFS_WORDS, Stack, Subject, run};
use super::support::sys;
use super::support::temp::remove_tree;
use super::support::tree::{self, Tree};
use super::support::watchdog::Watchdog;

/// When partly copied files get the rest of their data, by turns.
const COMPLETIONS: &[&str] = &[
    "complete=off",
    "complete=2G",
    "complete=off",
    "complete=unmount",
    "complete=idle",
];

/// One of the two unions.
pub struct Side {
    pub name: &'static str,
    pub subject: Subject,
    pub dir: PathBuf,
    pub stack: Stack,
    /// Where it is mounted.
    pub root: PathBuf,
    mounted: Option<Mounted>,
    /// plyfs copies files up in parts here, and from mount to mount it is another that gives them
    /// the rest.
    pub mixes: bool,
    mounts: usize,
    pub hands: Hands,
    /// The machine's root, to come back to from the union's.
    machine: OwnedFd,
    /// The lowers as they were made.
    pristine: Vec<Tree>,
}

impl Side {
    pub fn prepare(
        name: &'static str,
        subject: Subject,
        dir: PathBuf,
        case: &Case,
        (format, upper_format): (MarkFormat, MarkFormat),
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
        new_upper(&dir.join("u"), &case.upper, upper_format);
        let machine =
            sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("/ can be opened");
        let pristine = lowers.iter().map(|at| tree::read(at)).collect();
        Side {
            name,
            subject,
            stack,
            root: dir.join("m"),
            dir,
            mounted: None,
            mixes: false,
            mounts: 0,
            hands: Hands::default(),
            machine,
            pristine,
        }
    }

    pub fn mount(&mut self, watchdog: &Watchdog) -> Result<(), Vec<String>> {
        let completes = *COMPLETIONS
            .get(self.mounts % COMPLETIONS.len())
            .unwrap_or(&"");
        self.mounts += 1;
        self.mount_with(completes, watchdog)
    }

    /// One or the other, by how often it was mounted.
    pub fn is_by_chance(&self) -> bool {
        self.mounts.is_multiple_of(2)
    }

    /// Where files may be partly copied, gives them the rest: another program is to read them.
    pub fn complete(&mut self, watchdog: &Watchdog) -> Result<(), Vec<String>> {
        if self.mixes && self.subject == Subject::Plyfs {
            self.mount_with("complete=unmount", watchdog)?;
            self.unmount()?;
        }
        Ok(())
    }

    fn mount_with(&mut self, completes: &str, watchdog: &Watchdog) -> Result<(), Vec<String>> {
        let mut stack = self.stack.clone();
        if self.mixes && self.subject == Subject::Plyfs {
            let words = match &*stack.words {
                "" => PLYFS_WORDS,
                words => words,
            };
            stack.words = format!("{words},{completes}");
        }
        let mounted = stack.mount(self.subject, &self.root).map_err(|e| vec![e])?;
        watchdog.cover(mounted.connection());
        self.mounted = Some(mounted);
        Ok(())
    }

    pub fn unmount(&mut self) -> Result<(), Vec<String>> {
        self.hands.let_go();
        self.mounted
            .take()
            .map_or(Ok(()), |m| m.unmount().map_err(|e| vec![e]))
    }

    /// Runs `plyfs settle` on the layers.
    pub fn settle(&self) -> Result<(), String> {
        let mut command = self.stack.plyfs_verb("settle");
        let out = run(&mut command, Duration::from_secs(60))?;
        let said = String::from_utf8_lossy(&out.stderr);
        match out.status.success() {
            true => Ok(()),
            false => Err(format!("plyfs settle: {}: {}", out.status, said.trim())),
        }
    }

    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// As a program inside sees it: an absolute symlink on the way stays in the union.
    pub fn lstat(&self, word: &str) -> sys::Res<sys::Stat> {
        self.inside(|| sys::lstat(path(word)))
    }

    pub fn inside<T>(&self, work: impl FnOnce() -> sys::Res<T>) -> sys::Res<T> {
        sys::chroot(self.root().as_os_str().as_bytes())?;
        let outcome = work();
        sys::leave_chroot(&self.machine)?;
        outcome
    }

    /// The whole view, without what is known to be wrong in the kernel's: it lists stray whiteouts
    /// of unmerged directories and then denies them, and lists wrong numbers for directories that
    /// were put into an upper by hand.
    pub fn view(&self) -> Tree {
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
    pub fn harm(&self) -> Vec<String> {
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

    /// Whether a file of a lower has more than one name.
    pub fn has_lower_links(&self) -> bool {
        let linked = |tree: &Tree| tree.values().any(|n| !n.stat.is_dir() && n.stat.nlink > 1);
        self.pristine.iter().any(linked)
    }

    /// The upper becomes the topmost lower, and a new one takes its place.
    pub fn restack(&mut self) {
        let place = self.dir.join(format!("r{}", self.stack.lowers.len()));
        std::fs::rename(self.dir.join("u"), &place).expect("an unmounted upper can be renamed");
        remove_tree(&self.dir.join("w"));
        self.pristine.insert(0, tree::read(&place));
        self.stack.lowers.insert(0, place);
        new_upper(&self.dir.join("u"), &[], MarkFormat::Overlay);
        std::fs::create_dir(self.dir.join("w")).expect("a work directory can be made");
    }

    /// Does `step` as a program inside would.
    pub fn perform(&mut self, step: &Step<'_>) -> Outcome {
        let mut hands = std::mem::take(&mut self.hands);
        let outcome = self.inside(|| execute::execute(step, &mut hands));
        self.hands = hands;
        outcome
    }
}

/// An upper of `lines`, or an empty one.
fn new_upper(at: &Path, lines: &[String], format: MarkFormat) {
    let empty = ["dir . 755 0:0 1000000000.5".to_string()];
    let lines = if lines.is_empty() { &empty } else { lines };
    materialise(lines, at, format);
}
