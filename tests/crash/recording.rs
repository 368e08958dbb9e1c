//! A workload on a disk that records: what was written when, and what was to be seen then.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::disk::{BLOCK, Disk, Event, Image, LoopDevice};
use crate::inside::{File, Files, Inside, plan};
use crate::outside::Outside;
use crate::scenes::{BOTTOM, TOP};
use crate::support::backing::{Backing, Kind};
use crate::support::lab::build;
use crate::support::layers::MarkFormat;
use crate::support::mount::{Subject, umount_when_free};
use crate::support::rng::Rng;
use crate::support::{skip, sys};
use crate::workload::{Union, WORK, make_up, synced};

/// Where things are on a mounted filesystem.
pub struct Site {
    pub mount: PathBuf,
    /// Lower layers that are not on the disk.
    pub elsewhere: Option<PathBuf>,
    pub subject: Subject,
    pub union: PathBuf,
    /// Options of the mount.
    pub words: String,
}

impl Site {
    /// Where plyfs is mounted as it is by itself, all of its layers on the disk.
    pub fn of_plyfs(backing: &Backing) -> Site {
        Site {
            mount: backing.dir("mnt"),
            elsewhere: None,
            subject: Subject::Plyfs,
            union: backing.dir("union"),
            words: String::new(),
        }
    }

    pub fn lowers(&self) -> Vec<PathBuf> {
        let base = self.elsewhere.as_ref().unwrap_or(&self.mount);
        vec![base.join("l1"), base.join("l2")]
    }

    /// Whether partly copied files get the rest of their data meanwhile.
    fn completes(&self) -> bool {
        self.words.contains("complete=idle")
    }

    pub fn open(&self) -> Result<Box<dyn Union>, String> {
        let (upper, work) = (self.mount.join("u"), self.mount.join("w"));
        match self.subject {
            Subject::Kernel => Ok(Box::new(Outside::mount(
                &self.lowers(),
                (&upper, &work),
                &self.union,
            )?)),
            _ => {
                let plan = plan(self.lowers(), (&upper, &work), &self.union, &self.words)?;
                Ok(Box::new(Inside::open(&plan)?))
            }
        }
    }
}

/// What the workload was seen to do.
pub struct Record {
    pub base: Image,
    pub work: Vec<String>,
    pub events: Vec<Event>,
    /// What the union showed before each line, and after the last.
    pub states: Vec<Files>,
    /// Where each line began and ended among the events.
    pub spans: Vec<(usize, usize)>,
    pub made_up: bool,
    /// What was in the lower layers at the start.
    pub durable: BTreeSet<Vec<u8>>,
}

/// A mounted device; unmounted on drop.
pub struct Mounted<'p>(&'p Path);

impl<'p> Mounted<'p> {
    pub fn new(kind: Kind, device: &Path, at: &'p Path) -> Result<Mounted<'p>, String> {
        let out = Command::new("mount")
            .args(["-t", kind.name(), "-o", "nodiscard"])
            .arg(device)
            .arg(at)
            .output()
            .map_err(|e| format!("mount: {e}"))?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            return Err(format!("it cannot be mounted: {}", said.trim()));
        }
        Ok(Mounted(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(e) = umount_when_free(self.0) {
            eprintln!("umount {}: {}", self.0.display(), sys::errno_name(e));
        }
    }
}

/// An empty filesystem with the layers on it.
pub fn make_base(kind: Kind, dir: &Path, site: &Site) -> Option<Image> {
    let file = dir.join("base");
    let (size, words): (u64, &[&str]) = match kind {
        Kind::Xfs => (300 << 20, &["-q", "-K"]),
        Kind::Btrfs => (128 << 20, &["-q", "-K"]),
        _ => (
            64 << 20,
            &[
                "-q",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
            ],
        ),
    };
    std::fs::File::create(&file)
        .and_then(|f| f.set_len(size))
        .expect("an image can be made");
    let made = Command::new(format!("mkfs.{}", kind.name()))
        .args(words)
        .arg(&file)
        .output()
        .expect("mkfs can be run");
    if !made.status.success() {
        skip::skipped(&String::from_utf8_lossy(&made.stderr));
        return None;
    }
    let device = LoopDevice::new(&file, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, device.path(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let lowers = site.lowers();
    build(&lowers[0], MarkFormat::Overlay, TOP);
    build(&lowers[1], MarkFormat::Overlay, BOTTOM);
    for name in ["u", "w"] {
        std::fs::create_dir(site.mount.join(name)).expect("a directory can be made");
    }
    std::fs::File::create(site.mount.join("tick")).expect("a file can be made");
    drop(mounted);
    drop(device);
    let image = Image::load(&file);
    std::fs::remove_file(&file).expect("the image can be removed");
    Some(image)
}

/// Runs the workload on a recording disk. Meanwhile another file is written and synced again and
/// again, so that the filesystem commits at any moment and not only when the union asks for it.
pub fn record(kind: Kind, dir: &Path, site: &Site, base: Image, lines: Lines<'_>) -> Record {
    let pauses: Vec<u64> = (0..64).map(|_| lines.1.below(2000)).collect();
    let made_up = lines.0;
    let (work, states) = rehearse(kind, dir, site, &base, lines);
    let served = dir.join("served");
    std::fs::create_dir_all(&served).expect("a mount point can be made");
    let disk = Disk::new(base.clone(), &served).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, disk.device(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let (stop, ticks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut spans = Vec::new();
    std::thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            for pause in pauses.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                tick(&site.mount.join("tick"));
                ticks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(*pause));
            }
        });
        let union = site.open().unwrap_or_else(|e| panic!("{e}"));
        for (i, line) in work.iter().enumerate() {
            let start = disk.position();
            do_line(&*union, site, line).unwrap_or_else(|e| panic!("{e}"));
            spans.push((start, disk.position()));
            if site.completes() && i % 2 > 0 {
                union.fill().unwrap_or_else(|e| panic!("{e}"));
            }
            // However quick the union is, the filesystem commits now and then.
            let seen = ticks.load(Ordering::Relaxed);
            let enough = || i % 3 > 0 || ticks.load(Ordering::Relaxed) > seen + 1;
            while !enough() && !ticker.is_finished() {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let events = disk.events();
    drop(mounted);
    let durable = states[0].values().filter_map(|f| f.data.clone()).collect();
    Record {
        base,
        work,
        made_up,
        events,
        states,
        spans,
        durable,
    }
}

/// Writes to a file that is none of the union's, and syncs it.
pub fn tick(path: &Path) {
    let done = std::fs::File::options()
        .append(true)
        .open(path)
        .and_then(|mut file| {
            std::io::Write::write_all(&mut file, b"tick")?;
            file.sync_all()
        });
    done.expect("a file beside the upper can be synced");
}

pub fn do_line(union: &dyn Union, site: &Site, line: &str) -> Result<(), String> {
    if line != "sync" {
        return union.perform(line);
    }
    let dir = sys::open(site.mount.as_os_str().as_encoded_bytes(), libc::O_RDONLY, 0);
    let done = dir.and_then(|dir| sys::syncfs(&dir));
    done.map_err(|e| format!("syncfs: {}", sys::errno_name(e)))?;
    // XFS does not flush the disk where its log was clean already; an fsync does.
    tick(&site.mount.join("tick"));
    Ok(())
}

/// Whether the lines are made up, and what they are made up with.
pub type Lines<'r> = (bool, &'r mut Rng);

/// What is done, and what the union shows before each line and at the end, where the power stays on.
pub fn rehearse(
    kind: Kind,
    dir: &Path,
    site: &Site,
    base: &Image,
    (made_up, rng): Lines<'_>,
) -> (Vec<String>, Vec<Files>) {
    let file = dir.join("rehearsal");
    base.save(&file);
    let device = LoopDevice::new(&file, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, device.path(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let union = site.open().unwrap_or_else(|e| panic!("{e}"));
    let mut states = vec![union.files().unwrap_or_else(|e| panic!("{e}"))];
    let mut work = Vec::new();
    let times = if made_up { 3 } else { 1 };
    for line in WORK.iter().cycle().take(WORK.len() * times) {
        let line = match states.last() {
            Some(now) if made_up => match make_up(now, rng) {
                Some(line) => line,
                None => continue,
            },
            _ => (*line).to_owned(),
        };
        match do_line(&*union, site, &line) {
            Ok(()) => work.push(line),
            // Not everything that is made up can be done.
            Err(_) if made_up => continue,
            Err(e) => panic!("{e}"),
        }
        states.push(union.files().unwrap_or_else(|e| panic!("{e}")));
    }
    drop(union);
    drop(mounted);
    drop(device);
    std::fs::remove_file(&file).expect("the image can be removed");
    (work, states)
}

/// A power cut: all events before `flushed` are on the disk, of those up to `at` the parts in `kept`.
pub struct Cut {
    pub flushed: usize,
    pub at: usize,
    pub kept: Vec<(usize, Range<usize>)>,
}

impl Record {
    /// Power cuts at `count` points: half right after a flush, half between two.
    pub fn cuts(&self, count: usize, rng: &mut Rng) -> Vec<Cut> {
        let mut flushes: Vec<usize> = vec![0];
        flushes.extend(
            (0..self.events.len())
                .filter(|i| matches!(self.events[*i], Event::Flush))
                .map(|i| i + 1),
        );
        let mut cuts = Vec::new();
        let step = (flushes.len() * 2 / count).max(1);
        for i in (rng.below(step as u64) as usize..flushes.len()).step_by(step) {
            let flushed = flushes[i];
            let end = flushes
                .get(i + 1)
                .map_or(self.events.len(), |next| next - 1);
            cuts.push(Cut {
                flushed,
                at: flushed,
                kept: Vec::new(),
            });
            let at = flushed + rng.below((end - flushed) as u64 + 1) as usize;
            let share = 1 + rng.below(9);
            let mut kept = Vec::new();
            for i in flushed..at {
                if rng.below(10) < share {
                    self.keep(i, rng, &mut kept);
                }
            }
            cuts.push(Cut { flushed, at, kept });
        }
        cuts
    }

    /// Keeps a write: mostly whole, else some of its blocks.
    pub fn keep(&self, i: usize, rng: &mut Rng, kept: &mut Vec<(usize, Range<usize>)>) {
        let Event::Write(_, data) = &self.events[i] else {
            return;
        };
        let torn = rng.chance(25);
        for from in (0..data.len()).step_by(BLOCK) {
            if !torn || rng.chance(50) {
                kept.push((i, from..data.len().min(from + BLOCK)));
            }
        }
    }

    pub fn describe(&self, cut: &Cut) -> String {
        let begun = *self.range(cut.at, "").end();
        let line = self.work.get(begun.saturating_sub(1));
        format!(
            "event {} of {}, {} blocks of {} writes after the flush, during or after {line:?}",
            cut.at,
            self.events.len(),
            cut.kept.len(),
            cut.at - cut.flushed
        )
    }

    /// The states that may be seen at `path` after a cut at `at`. A synced file has its name too,
    /// which can be told where it was synced right after it was named.
    pub fn range(&self, at: usize, path: &str) -> RangeInclusive<usize> {
        let begun = self.spans.iter().filter(|(start, _)| *start <= at).count();
        let synced = self.last(at, |_, line| {
            let it = synced(line).is_some_and(|p| path == format!("/{p}"));
            it && !self.made_up || line == "sync"
        });
        synced..=begun
    }

    /// The state after the last line that was done by `at`, and after one that had begun.
    pub fn done(&self, at: usize) -> RangeInclusive<usize> {
        self.last(at, |_, _| true)..=*self.range(at, "").end()
    }

    /// The first state after the last line that was done by `at` and is one of `which`.
    pub fn last(&self, at: usize, which: impl Fn(usize, &str) -> bool) -> usize {
        let lines = self.work.iter().zip(&self.spans).enumerate();
        let of = lines.filter(|(i, (line, span))| span.1 <= at && which(*i, line));
        of.last().map_or(0, |(i, _)| i + 1)
    }

    /// What file `ino` was in `range`, under any name, since it was last synced.
    pub fn history(&self, at: usize, range: RangeInclusive<usize>, ino: u64) -> Vec<&File> {
        let synced = self.last(at, |i, line| {
            let path = synced(line).map(|p| format!("/{p}"));
            path.and_then(|p| self.states[i].get(&p))
                .is_some_and(|f| f.ino == ino)
        });
        let states = &self.states[synced.max(*range.start())..=*range.end()];
        let files = states.iter().flat_map(|state| state.values());
        files.filter(|file| file.ino == ino).collect()
    }
}
