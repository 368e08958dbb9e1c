//! Both unions side by side: each line done to both, and every way in which they may differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::case::Case;
use super::execute::{self, Outcome, Step, path, show};
use super::intended;
use super::run::Ending;
use super::side::Side;
use super::support::bytes::escape;
use super::support::layers::MarkFormat;
use super::support::mount::{KERNEL_WORDS, PLYFS_WORDS, Subject, copies_parts, forgive_volatile};
use super::support::tree::{self, NodeView, Tree};
use super::support::watchdog::Watchdog;
use super::support::{skip, sys};

/// Names that a script's lines may have changed since a directory was opened.
type Touched = BTreeMap<String, BTreeSet<Vec<u8>>>;

/// A case being played.
pub struct Game {
    /// Whether plyfs can read the kernel's upper with its own words.
    reads_kernels: bool,
    /// Whether the kernel can read plyfs's layers.
    for_kernel: bool,
    /// Whether only files and directories can be given an origin.
    by_user: bool,
    /// The same without redirects and index.
    pub plain: bool,
    /// Whether the lines hand the upper from one program to the other.
    relay: bool,
    /// Whether the kernel has a part in what is compared.
    by_kernel: bool,
    /// In a user namespace the kernel's overlayfs looks no origin up, so that a copy-up or a
    /// remount changes its numbers.
    pub confined: bool,
    /// Whether the upper was not written by a mount.
    made_by_hand: bool,
    kernels_words: String,
    plyfss_words: String,
    pub kernel: Side,
    pub other: Side,
    watchdog: Watchdog,
    touched: Touched,
    /// A recursive removal has happened: any name may be touched.
    wild: bool,
}

/// No script takes as long as this unless something hangs.
const LIMIT: Duration = Duration::from_secs(60);

impl Game {
    /// Both sides of `case` below `dir`, not mounted yet.
    pub fn new(dir: &Path, subject: Subject, words: &str, case: &Case) -> Game {
        // A mount that believes the `user.` xattrs has no redirects and no index with the kernel.
        // Where plyfs has them all the same, it has to do what the kernel does with `trusted.`.
        let by_user = words.contains("userxattr");
        let plain = by_user && words.contains("redirect_dir=off") && words.contains("index=off");
        let case = &match by_user {
            true => case.without_links(plain),
            false => case.clone(),
        };
        let case = &match skip::in_user_namespace() {
            true => case.unprivileged(),
            false => case.clone(),
        };
        let own = if by_user {
            MarkFormat::UserXattr
        } else {
            MarkFormat::Overlay
        };
        let kernels = if plain { own } else { MarkFormat::Overlay };
        let dirs = (dir.join("k"), dir.join("o"));
        let mut kernel = Side::prepare("kernel", Subject::Kernel, dirs.0, case, (kernels, kernels));
        // Whoever reads an upper with files for marks knows no redirects.
        let marks_are_files = words.contains("marks=files");
        if plain {
            kernel.stack.words = "index=off,userxattr,xino=off,volatile".into();
        } else if marks_are_files {
            kernel.stack.words = KERNEL_WORDS
                .replace("redirect_dir=on", "redirect_dir=off")
                .replace("metacopy=on", "metacopy=off");
        }
        // The others read their own marks alone, and a user's mount no trusted ones.
        let foreign = matches!(case.format, MarkFormat::Files | MarkFormat::FuseOverlayfs);
        let (name, format) = match subject {
            Subject::Plyfs if foreign || !by_user => ("plyfs", case.format),
            Subject::Plyfs => ("plyfs", own),
            _ => ("other", own),
        };
        let mut other = Side::prepare(name, subject, dirs.1, case, (format, own));
        if subject == Subject::Plyfs && !words.is_empty() {
            other.stack.words = format!("{PLYFS_WORDS},{words}");
        }
        other.mixes = words.contains("partial=") || copies_parts();
        if subject == Subject::Kernel {
            other.stack.words.clone_from(&kernel.stack.words);
        }
        Game {
            reads_kernels: own == kernels,
            for_kernel: format == kernels && !marks_are_files,
            by_user,
            plain,
            relay: false,
            by_kernel: false,
            confined: skip::in_user_namespace(),
            made_by_hand: !case.upper.is_empty(),
            kernels_words: kernel.stack.words.clone(),
            plyfss_words: other.stack.words.clone(),
            kernel,
            other,
            watchdog: Watchdog::new(LIMIT),
            touched: Touched::new(),
            wild: false,
        }
    }

    /// Where the kernel's union is mounted.
    pub fn expected_root(&self) -> PathBuf {
        self.kernel.root()
    }

    /// Mounts both.
    pub fn mount(&mut self) -> Result<(), Vec<String>> {
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
        lines.extend(self.renumbered(&before, &after, |_, _| true));
        report(lines)?;
        self.compare()
    }

    /// What was written so far becomes a lower of another mount. Not where a lower has hard links:
    /// of a file that was changed through one name the others live in the index, which stays
    /// behind, and which name was changed first the two need not agree on.
    fn restack(&mut self) -> Result<(), Vec<String>> {
        if self.kernel.has_lower_links() || self.links_would_break() {
            return self.compare();
        }
        self.unmount()?;
        if self.other.mixes {
            // The kernel reads no partly copied file of a lower layer.
            match self.other.is_by_chance() {
                true => self.other.complete(&self.watchdog)?,
                false => self.for_kernel = false,
            }
        }
        self.kernel.restack();
        self.other.restack();
        self.mount()?;
        self.compare()
    }

    /// Whether the upper has hard links that, in a lower, no index could hold together.
    fn links_would_break(&self) -> bool {
        let linked = |n: &NodeView| !n.stat.is_dir() && n.stat.nlink > 1;
        let indexed = |n: &NodeView| !self.plain && n.stat.is_file();
        let view = self.other.view();
        self.by_user && view.values().any(|n| linked(n) && !indexed(n))
    }

    /// The upper goes from plyfs to the kernel's overlayfs, or back: what was seen before is
    /// seen after it, under the same numbers.
    fn switch(&mut self) -> Result<(), Vec<String>> {
        if self.other.mixes && !self.for_kernel {
            return self.compare();
        }
        self.relay = true;
        self.by_kernel = true;
        let before = self.other.view();
        self.unmount()?;
        self.other.complete(&self.watchdog)?;
        let from = self.other.subject;
        let to = match from {
            Subject::Kernel => (Subject::Plyfs, &self.plyfss_words),
            _ => (Subject::Kernel, &self.kernels_words),
        };
        self.other.subject = to.0;
        self.other.stack.words.clone_from(to.1);
        forgive_volatile(&self.other.dir.join("w"));
        self.mount()?;
        let after = self.other.view();
        let (was, is) = match from {
            Subject::Kernel => ("read by the kernel", "then by plyfs"),
            _ => ("read by plyfs", "then by the kernel"),
        };
        let mut lines = tree::differences((was, &before), (is, &after));
        // FUSE's root has a number of its own, and so has a merged directory of an upper that was
        // made by hand: the kernel shows its lower's.
        let same_in_both = |path: &[u8], node: &NodeView| {
            !path.is_empty() && (!self.made_by_hand || !node.stat.is_dir())
        };
        lines.extend(self.renumbered(&before, &after, same_in_both));
        self.by_kernel = self.other.subject == Subject::Kernel;
        report(lines)?;
        self.compare()
    }

    /// The files that have another number now.
    fn renumbered(
        &self,
        before: &Tree,
        after: &Tree,
        counts: impl Fn(&[u8], &NodeView) -> bool,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        if self.by_kernel && self.confined {
            return lines;
        }
        for (path, node) in before {
            if let Some(now) = after.get(path)
                && (!self.by_user || now.stat.is_dir() || now.stat.is_file())
                && now.stat.ino != node.stat.ino
                && counts(path, node)
            {
                lines.push(format!(
                    "/{}: st_ino: {} became {} by a remount",
                    escape(path),
                    node.stat.ino,
                    now.stat.ino
                ));
            }
        }
        lines
    }

    /// Does one line, and says in what the two differ then.
    pub fn step(&mut self, line: &str) -> Result<(), Vec<String>> {
        self.do_line(line).map_err(|mut what| {
            if self.watchdog.fired() {
                what.insert(
                    0,
                    format!("no answer after {LIMIT:?}: the connection was aborted"),
                );
            }
            what
        })
    }

    fn do_line(&mut self, line: &str) -> Result<(), Vec<String>> {
        let step = Step::parse(line);
        match step.verb() {
            "check" => return self.compare(),
            "remount" => return self.remount(),
            "restack" => return self.restack(),
            "switch" => return self.switch(),
            _ => {}
        }
        let paths = step.paths();
        let before: Vec<_> = paths.iter().map(|p| self.other.lstat(p)).collect();
        if self.is_beyond_compare(&step, &before) {
            return Ok(());
        }
        let expected = self.kernel.perform(&step);
        let got = self.other.perform(&step);
        self.touch(&step);
        if step.verb() == "rename" && expected.is_err() {
            self.forgive_parents(&paths);
        }
        if matches!(step.verb(), "truncate" | "ftruncate") && expected.is_ok() && got.is_ok() {
            self.forgive_truncation(&step);
        }
        if step.verb() == "fallocate" && expected.is_ok() && got.is_ok() {
            self.forgive_punching(&step);
        }
        if matches!(step.verb(), "open" | "create") && expected.is_ok() && got.is_ok() {
            self.forgive_opening(&step);
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
            _ if self.confined && self.other.subject == Subject::Kernel => vec![],
            "rename" if got.is_ok() && step.words[3] == "2" => vec![(0, 1), (1, 0)],
            // A way through the moved name leads nowhere now.
            "rename" if got.is_ok() && !way_through(paths[1], paths[0]) => vec![(0, 1)],
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
    pub fn compare(&self) -> Result<(), Vec<String>> {
        let (a, b) = (self.kernel.view(), self.other.view());
        let mut lines = tree::differences(("kernel", &a), (self.other.name, &b));
        lines.retain(|line| !intended::view(line));
        let (x, y) = (tree::groups(&a), tree::groups(&b));
        if lines.is_empty() && x != y && !self.confined {
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

    /// Remounts, unmounts, and looks at what lies on the disk.
    pub fn finish(&mut self, ending: Ending) -> Result<(), Vec<String>> {
        self.remount()?;
        if self.relay {
            self.switch()?;
            self.unmount()?;
            return report(self.other.harm());
        }
        let seen = [self.kernel.view(), self.other.view()];
        self.unmount()?;
        let mut lines = self.other.harm();
        if self.other.subject != Subject::Kernel {
            lines.extend(leftovers(&self.other.dir.join("w"), self.other.mixes));
        }
        report(lines)?;
        if ending == Ending::Settle {
            return self.settle(&seen[1]);
        }
        if self.other.subject == Subject::Plyfs && self.reads_kernels {
            self.interchange(&seen)
        } else {
            Ok(())
        }
    }

    /// A settled upper shows the same, to the kernel without any feature and to plyfs.
    fn settle(&mut self, seen: &Tree) -> Result<(), Vec<String>> {
        match self.other.settle() {
            // A foreign mark at the top of a lower layer cannot be settled in the upper.
            Err(said) if said.contains("at its top, which overlayfs does not read") => {
                return Ok(());
            }
            other => other.map_err(|e| vec![e])?,
        }
        let plain = "index=off,xino=off,volatile";
        let kernels = match self.by_user {
            true => format!("userxattr,{plain}"),
            false => format!("redirect_dir=nofollow,metacopy=off,{plain}"),
        };
        let readers = [
            (Subject::Kernel, kernels, "settled, read by the kernel"),
            (
                Subject::Plyfs,
                self.plyfss_words.clone(),
                "settled, read by plyfs",
            ),
        ];
        let mut lines = Vec::new();
        for (subject, words, name) in readers {
            self.other.subject = subject;
            self.other.stack.words = words;
            forgive_volatile(&self.other.dir.join("w"));
            self.other.mount(&self.watchdog)?;
            let view = self.other.view();
            self.other.unmount()?;
            lines.extend(tree::differences(("plyfs's own", seen), (name, &view)));
        }
        // Names of a lower file that other layers hide count as links, as in the kernel, until
        // the visible ones are links of the upper.
        lines.retain(|line| !line.contains(": nlink: "));
        report(lines)
    }

    /// Each mounts what the other wrote, and sees what the other saw. The kernel reads only its
    /// own marks in lowers.
    fn interchange(&mut self, seen: &[Tree; 2]) -> Result<(), Vec<String>> {
        let [kernels, plyfss] = seen;
        self.kernel.subject = Subject::Plyfs;
        self.kernel.stack.words.clone_from(&self.plyfss_words);
        self.kernel.mount(&self.watchdog)?;
        let read_by_plyfs = self.kernel.view();
        self.kernel.unmount()?;
        let mut lines = tree::differences(
            ("kernel's own", kernels),
            ("the kernel's read by plyfs", &read_by_plyfs),
        );
        if self.for_kernel {
            self.other.complete(&self.watchdog)?;
            let work = self.other.dir.join("w");
            lines.extend(leftovers(&work, false));
            self.other.subject = Subject::Kernel;
            self.other.stack.words.clone_from(&self.kernels_words);
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

/// Whether `path` goes through `name`.
fn way_through(path: &str, name: &str) -> bool {
    path.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Temporaries that a clean unmount left in work: anything but directories, and files of an index,
/// and, where they may be left, the note that there are partly copied files.
fn leftovers(work: &Path, partial: bool) -> Vec<String> {
    tree::read(work)
        .iter()
        .filter(|(path, node)| {
            let inside = path.iter().filter(|&&b| b == b'/').count();
            let index = path.windows(5).any(|part| part == b"index");
            let noted = partial && path.starts_with(b"work/incompat");
            inside > 0 && !index && !noted && node.stat.mode != 0
        })
        .map(|(path, node)| format!("left in work: {} ({:06o})", escape(path), node.stat.mode))
        .collect()
}

fn report(lines: Vec<String>) -> Result<(), Vec<String>> {
    if lines.is_empty() { Ok(()) } else { Err(lines) }
}
