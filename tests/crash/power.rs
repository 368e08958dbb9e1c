//! The power goes out at any moment of a workload, on a real block device: every filesystem mounts
//! again, and the union over it shows each name as it was or as it was to be, files that were copied
//! up with the lower data or later data and never empty or torn, and all that was synced.
//!
//! A disk records the order of the writes and flushes (`disk.rs`). It is put together again for
//! every flush, and for what came after a flush with a random part of the writes, and of their
//! blocks, left out.
//!
//! `PLYFS_POWER_POINTS` is how many points are tried on each filesystem (120), `PLYFS_POWER_ROUNDS`
//! how many workloads are run for that (1; all but the first are made up), `PLYFS_POWER_SEED` the chance in it;
//! `PLYFS_POWER_WORDS` are options of the mount, `PLYFS_POWER_SUBJECT=kernel` does the same to the kernel's overlayfs.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{BLOCK, Disk, Event, Image, LoopDevice};
use crate::inside::{File, Files, Inside, plan};
use crate::moments::{judge_file, judge_names, may_be_at, may_be_reached};
use crate::outside::Outside;
use crate::scenes::{BOTTOM, TOP};
use crate::support::backing::{Backing, Kind};
use crate::support::lab::build;
use crate::support::layers::MarkFormat;
use crate::support::mount::Subject;
use crate::support::rng::Rng;
use crate::support::{skip, sys, tree};

/// The workload: `sync` makes everything durable, `fsync PATH` one file.
const WORK: &[&str] = &[
    "write d/f 5000",
    "chmod d/g",
    "create d/new",
    "write d/new 0",
    "fsync d/new",
    "write d/h 5",
    "rename top d/top",
    "unlink e/y",
    "create e/y",
    "write e/y 0",
    "rename m m2",
    "write m2/a 3",
    "fsync m2/a",
    "rename m2/sub d/sub",
    "setxattr d/sub/q",
    "truncate big 1000",
    "write big 500",
    "chown e",
    "setxattr d/low",
    "unlink d/g",
    "sync",
    "unlink gone/z",
    "rmdir gone",
    "mkdir gone",
    "create gone/n",
    "write gone/n 0",
    "exchange d/f below",
    "link below l2",
    "write l2 9000",
    "fsync below",
    "rename m2 e/m2",
    "symlink sl",
    "rename d/new e/new",
    "rename e/new d/top",
    "write suid 3",
    "mkdir dd",
    "rename e/in dd/in",
    "write dd/in/x 1",
    "fsync dd/in/x",
    "unlink top2",
    "chmod e/m2",
    "write e/m2/b 100",
    "rename e/m2/b e/m2/a",
    "write d/low 7",
    "sync",
    "rename s s2",
    "rename e ee",
    "utimens ee/low",
];

/// Anything that shows a union: the subject of the experiment.
pub trait Union {
    fn perform(&self, line: &str) -> Result<(), String>;
    fn files(&self) -> Result<Files, String>;
}

impl Union for Inside {
    fn perform(&self, line: &str) -> Result<(), String> {
        Inside::perform(self, line).map_err(|e| format!("{line}: {e:?}"))
    }

    fn files(&self) -> Result<Files, String> {
        Inside::files(self).map_err(|e| format!("reading: {e:?}"))
    }
}

/// Where things are on a mounted filesystem.
struct Site {
    mount: PathBuf,
    /// Lower layers that are not on the disk.
    elsewhere: Option<PathBuf>,
    subject: Subject,
    union: PathBuf,
    /// Options of the mount.
    words: String,
}

impl Site {
    fn lowers(&self) -> Vec<PathBuf> {
        let base = self.elsewhere.as_ref().unwrap_or(&self.mount);
        vec![base.join("l1"), base.join("l2")]
    }

    fn open(&self) -> Result<Box<dyn Union>, String> {
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
struct Record {
    base: Image,
    work: Vec<String>,
    events: Vec<Event>,
    /// What the union showed before each line, and after the last.
    states: Vec<Files>,
    /// Where each line began and ended among the events.
    spans: Vec<(usize, usize)>,
    made_up: bool,
    /// What was in the lower layers at the start.
    durable: BTreeSet<Vec<u8>>,
}

/// A mounted device; unmounted on drop.
struct Mounted<'p>(&'p Path);

impl<'p> Mounted<'p> {
    fn new(kind: Kind, device: &Path, at: &'p Path) -> Result<Mounted<'p>, String> {
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
        let at = self.0.as_os_str().as_encoded_bytes();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while sys::umount(at, 0) == Err(libc::EBUSY) && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
    }
}

/// An empty filesystem with the layers on it.
fn make_base(kind: Kind, dir: &Path, site: &Site) -> Option<Image> {
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
fn record(kind: Kind, dir: &Path, site: &Site, base: Image, lines: Lines<'_>) -> Record {
    let pauses: Vec<u64> = (0..64).map(|_| lines.1.below(4000)).collect();
    let made_up = lines.0;
    let (work, states) = rehearse(kind, dir, site, &base, lines);
    let served = dir.join("served");
    std::fs::create_dir_all(&served).expect("a mount point can be made");
    let disk = Disk::new(base.clone(), &served).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, disk.device(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let stop = AtomicBool::new(false);
    let mut spans = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tick = site.mount.join("tick");
            for pause in pauses.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let file = std::fs::File::options().append(true).open(&tick);
                let done = file.and_then(|mut f| {
                    std::io::Write::write_all(&mut f, b"tick")?;
                    f.sync_all()
                });
                done.expect("a file beside the upper can be synced");
                std::thread::sleep(std::time::Duration::from_micros(*pause));
            }
        });
        let union = site.open().unwrap_or_else(|e| panic!("{e}"));
        for line in &work {
            let start = disk.position();
            do_line(&*union, site, line).unwrap_or_else(|e| panic!("{e}"));
            spans.push((start, disk.position()));
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

fn do_line(union: &dyn Union, site: &Site, line: &str) -> Result<(), String> {
    if line != "sync" {
        return union.perform(line);
    }
    let dir = sys::open(site.mount.as_os_str().as_encoded_bytes(), libc::O_RDONLY, 0);
    let done = dir.and_then(|dir| sys::syncfs(&dir));
    done.map_err(|e| format!("syncfs: {}", sys::errno_name(e)))
}

/// Whether the lines are made up, and what they are made up with.
type Lines<'r> = (bool, &'r mut Rng);

/// What is done, and what the union shows before each line and at the end, where the power stays on.
fn rehearse(
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

/// Something to do with what there is now; `None` for what the kernel refuses without asking.
fn make_up(now: &Files, rng: &mut Rng) -> Option<String> {
    let paths: Vec<&str> = now.keys().map(|p| p.trim_start_matches('/')).collect();
    let here = *rng.pick(&paths[1..]);
    let dirs: Vec<&str> = now
        .iter()
        .filter(|(_, file)| file.data.is_none() && file.mtime.is_empty())
        .map(|(path, _)| path.trim_start_matches('/'))
        .collect();
    let dir = *rng.pick(&dirs);
    let name = *rng.pick(&["n1", "n2", "n3", "f", "a", "top", "sub", "in"]);
    let new = if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    };
    let there = *rng.pick(&paths[1..]);
    let is_link = now[&format!("/{here}")].what.starts_with("12");
    let inside = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
    let nested = |a: &str, b: &str| inside(a, b) || inside(b, a);
    if is_link || nested(here, there) || nested(here, &new) {
        return None;
    }
    Some(match rng.below(24) {
        0..5 => format!("write {here} {}", rng.below(6) * 1000),
        5..7 => format!("create {new}"),
        7 => format!("mkdir {new}"),
        8 => format!("link {here} {new}"),
        9 => format!("unlink {here}"),
        10 => format!("rmdir {dir}"),
        11..14 => format!("rename {here} {new}"),
        14 => format!("rename {here} {there}"),
        15 => format!("exchange {here} {there}"),
        16 => format!("truncate {here} {}", rng.below(3000)),
        17 => format!("chmod {here}"),
        18 => format!("setxattr {here}"),
        19 => format!("utimens {here}"),
        20..23 => format!("fsync {here}"),
        _ => "sync".to_owned(),
    })
}

/// A power cut: all events before `flushed` are on the disk, of those up to `at` the parts in `kept`.
struct Cut {
    flushed: usize,
    at: usize,
    kept: Vec<(usize, Range<usize>)>,
}

impl Record {
    /// Power cuts at `count` points: half right after a flush, half between two.
    fn cuts(&self, count: usize, rng: &mut Rng) -> Vec<Cut> {
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
    fn keep(&self, i: usize, rng: &mut Rng, kept: &mut Vec<(usize, Range<usize>)>) {
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

    fn describe(&self, cut: &Cut) -> String {
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
    fn range(&self, at: usize, path: &str) -> RangeInclusive<usize> {
        let begun = self.spans.iter().filter(|(start, _)| *start <= at).count();
        let synced = self.last(at, |_, line| {
            let it = line
                .strip_prefix("fsync ")
                .is_some_and(|p| path == format!("/{p}"));
            it && !self.made_up || line == "sync"
        });
        synced..=begun
    }

    /// The first state after the last line that was done by `at` and is one of `which`.
    fn last(&self, at: usize, which: impl Fn(usize, &str) -> bool) -> usize {
        let lines = self.work.iter().zip(&self.spans).enumerate();
        let of = lines.filter(|(i, (line, span))| span.1 <= at && which(*i, line));
        of.last().map_or(0, |(i, _)| i + 1)
    }

    /// What file `ino` was in `range`, under any name, since it was last synced.
    fn history(&self, at: usize, range: RangeInclusive<usize>, ino: u64) -> Vec<&File> {
        let synced = self.last(at, |i, line| {
            let path = line.strip_prefix("fsync ").map(|p| format!("/{p}"));
            path.and_then(|p| self.states[i].get(&p))
                .is_some_and(|f| f.ino == ino)
        });
        let states = &self.states[synced.max(*range.start())..=*range.end()];
        let files = states.iter().flat_map(|state| state.values());
        files.filter(|file| file.ino == ino).collect()
    }
}

/// Puts the disk together, and says what is wrong with what the union shows.
fn try_cut(
    kind: Kind,
    dir: &Path,
    site: &Site,
    record: &Record,
    image: &Image,
    cut: &Cut,
) -> Vec<String> {
    let mut image = image.clone();
    for (i, part) in &cut.kept {
        if let Event::Write(at, data) = &record.events[*i] {
            image.write(at + part.start as u64, &data[part.clone()]);
        }
    }
    let file = dir.join("cut");
    image.save(&file);
    let device = LoopDevice::new(&file, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = match Mounted::new(kind, device.path(), &site.mount) {
        Ok(mounted) => mounted,
        Err(e) => return vec![e],
    };
    let found = judge(kind, site, record, cut);
    drop(mounted);
    drop(device);
    std::fs::remove_file(&file).expect("the image can be removed");
    found
}

fn judge(kind: Kind, site: &Site, record: &Record, cut: &Cut) -> Vec<String> {
    let union = match site.open() {
        Ok(union) => union,
        Err(e) => return vec![e],
    };
    let seen = match union.files() {
        Ok(seen) => seen,
        Err(e) => return vec![e],
    };
    let mut found = Vec::new();
    let states = &record.states;
    let mut paths: BTreeSet<&String> = seen.keys().collect();
    paths.extend(states.iter().flat_map(|s| s.keys()));
    let mut durable = record.durable.clone();
    for (i, line) in record.work.iter().enumerate() {
        let done = record.spans[i].1 <= cut.at;
        match line.strip_prefix("fsync ") {
            Some(path) if done => durable.extend(states[i][&format!("/{path}")].data.clone()),
            _ if done && line == "sync" => {
                durable.extend(states[i].values().filter_map(|f| f.data.clone()));
            }
            _ => {}
        }
    }
    for path in paths {
        let range = record.range(cut.at, path);
        let moments = &states[range.clone()];
        let may = if kind == Kind::Btrfs {
            may_be_reached(moments, path)
        } else {
            may_be_at(moments, path)
        };
        let history = |ino: &u64| record.history(cut.at, range.clone(), *ino);
        let histories: Vec<Vec<&File>> = may.inos.iter().map(history).collect();
        found.extend(judge_file(
            path,
            seen.get(path),
            may.be_absent,
            &histories,
            &durable,
        ));
    }
    found.extend(judge_names(
        kind != Kind::Btrfs,
        &states[record.range(cut.at, "")],
        &seen,
    ));
    if let Err(e) = union.perform("mkdir works") {
        found.push(format!("nothing can be made: {e}"));
    }
    drop(union);
    let left = tree::read(&site.mount.join("w/work"));
    if left.len() > 1 && site.subject == Subject::Plyfs {
        found.push(format!("{} remains in work", left.len() - 1));
    }
    found
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |v| v.parse().expect("a number"))
}

/// Runs the experiment; what is wrong, or `None` where it cannot be done here.
fn experiment(kind: Kind, apart: bool, words: &str) -> Option<Vec<String>> {
    let subject = match std::env::var("PLYFS_POWER_SUBJECT") {
        Ok(name) => Subject::named(&name).expect("plyfs or kernel"),
        Err(_) => Subject::Plyfs,
    };
    let tool = format!("mkfs.{}", kind.name());
    if !skip::can_mount() || !skip::has_filesystem(kind.name()) || !skip::has_tool(&tool) {
        return None;
    }
    let mut rng = Rng::new(number("PLYFS_POWER_SEED", 1));
    let rounds = number("PLYFS_POWER_ROUNDS", 1);
    let points = number("PLYFS_POWER_POINTS", 120) / rounds;
    let (mut tried, mut wrong) = (0, Vec::new());
    for round in 0..rounds {
        let backing = Backing::sized(Kind::Tmpfs, 4 << 30)?;
        let dir = backing.path();
        let apart = apart == round.is_multiple_of(2);
        let site = Site {
            mount: backing.dir("mnt"),
            elsewhere: apart.then(|| backing.dir("lowers")),
            subject,
            union: backing.dir("union"),
            words: words.to_owned(),
        };
        let base = make_base(kind, dir, &site)?;
        let record = record(kind, dir, &site, base, (round > 0, &mut rng));
        let mut image = record.base.clone();
        let mut applied = 0;
        for cut in record.cuts(points as usize, &mut rng) {
            for event in &record.events[applied..cut.flushed] {
                if let Event::Write(at, data) = event {
                    image.write(*at, data);
                }
            }
            applied = cut.flushed;
            for what in try_cut(kind, dir, &site, &record, &image, &cut) {
                wrong.push(format!("round {round}, {}: {what}", record.describe(&cut)));
            }
            tried += 1;
        }
    }
    println!(
        "power cut, {}, {subject:?} [{words}]: {tried} points, {} inconsistencies",
        kind.name(),
        wrong.len()
    );
    Some(wrong)
}

fn run_on(kind: Kind, apart: bool) {
    let words = std::env::var("PLYFS_POWER_WORDS").unwrap_or_default();
    let wrong = experiment(kind, apart, &words).unwrap_or_default();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_power_cut_leaves_old_or_new_on_ext4() {
    run_on(Kind::Ext4, false);
}

#[test]
fn a_power_cut_leaves_old_or_new_on_xfs() {
    run_on(Kind::Xfs, true);
}

#[test]
fn a_power_cut_leaves_old_or_new_on_btrfs() {
    run_on(Kind::Btrfs, true);
}

/// The experiment finds what is to be found.
#[test]
fn a_power_cut_is_seen_to_tear_what_is_never_synced() {
    let Some(wrong) = experiment(Kind::Ext4, true, "volatile") else {
        return;
    };
    assert!(
        wrong.iter().any(|what| what.contains("bytes")),
        "copies without data: {wrong:#?}"
    );
}
