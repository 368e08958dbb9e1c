//! Measuring: round after round, every subject in turn.

use super::cold::{Cold, Dropper, make_cold};
use super::data::{self, Set, Sizes};
use super::machine::{self, Machine};
use super::report::{Outcome, Report, Row, SubjectLine};
use super::subject::{Mounted, Setting, Stack, Subject};
use super::workloads::{Ground, Input, Work, Workload};
use crate::error::{Errno, best_effort, plain};
use crate::sys::io::{flags, flags_ioctl, sync_filesystem};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What to measure, and how.
#[derive(Debug)]
pub struct Plan {
    /// An empty directory on the filesystem to measure on.
    pub dir: PathBuf,
    /// The subjects, in the order of the columns.
    pub subjects: Vec<Box<dyn Subject>>,
    /// The label of the one that the others are compared with.
    pub reference: String,
    /// What to do.
    pub workloads: Vec<Workload>,
    /// How many of everything.
    pub scale: f64,
    /// How many rounds.
    pub rounds: usize,
    /// How many lower layers.
    pub layers: usize,
    /// Whose root this process is.
    pub setting: Setting,
    /// A root filesystem, for those workloads that need one.
    pub rootfs: Option<PathBuf>,
}

/// Is told how far it has got.
pub trait Progress {
    /// Something that is not measured begins.
    fn preparing(&mut self, what: &str);
    /// A measurement begins.
    fn measuring(&mut self, workload: &str, subject: &str, round: usize);
    /// A workload has been measured on all.
    fn row(&mut self, row: &Row);
}

/// The state of a run.
struct Bench<'a> {
    plan: &'a Plan,
    dropper: Option<Dropper>,
    ground: Ground,
    lowers: Vec<PathBuf>,
    made: BTreeSet<Set>,
    merged: BTreeSet<Set>,
    inputs: BTreeSet<Input>,
    cold: Option<Cold>,
    samples: usize,
}

/// Measures all that `plan` asks for. The working directory changes meanwhile.
///
/// # Errors
/// Where the directory cannot be used at all; a subject or workload that fails is told in
/// the report.
pub fn run(
    plan: &Plan,
    dropper: Option<Dropper>,
    progress: &mut dyn Progress,
) -> io::Result<Report> {
    let mut report = empty_report(plan);
    spread(&plan.dir)?;
    let lowers: Vec<_> = (0..plan.layers)
        .map(|i| plan.dir.join(format!("l{i}")))
        .collect();
    for dir in lowers
        .iter()
        .chain(&[plan.dir.join("merged"), plan.dir.join("inputs")])
    {
        fs::create_dir(dir)?;
    }
    let mut bench = Bench {
        plan,
        dropper,
        ground: Ground {
            sizes: Sizes::new(plan.scale),
            inputs: plan.dir.join("inputs"),
            other_id: other_id(),
        },
        lowers,
        made: BTreeSet::new(),
        merged: BTreeSet::new(),
        inputs: BTreeSet::new(),
        cold: None,
        samples: 0,
    };
    for workload in &plan.workloads {
        let row = bench.row(workload, progress);
        progress.row(&row);
        report.rows.push(row);
    }
    report.cold = bench.cold.map_or("", Cold::describe).to_owned();
    std::env::set_current_dir("/")?;
    Ok(report)
}

/// Has ext4 put each directory in `dir` elsewhere on the disk. Where files were deleted in the
/// last minutes it looks at the inode of each of them before it makes another
/// (`recently_deleted` in fs/ext4/ialloc.c), and so whoever is measured next would pay for
/// those of the one before: creation took up to five times as long.
fn spread(dir: &Path) -> io::Result<()> {
    let dir = File::open(dir)?;
    let mut room = [0; 32];
    let set = flags_ioctl(&dir, flags::GET_FLAGS, &mut room).and_then(|()| {
        let [a, b, c, d, ..] = room;
        let now = u32::from_ne_bytes([a, b, c, d]) | flags::TOP_DIR;
        for (to, from) in room.iter_mut().zip(now.to_ne_bytes()) {
            *to = from;
        }
        flags_ioctl(&dir, flags::SET_FLAGS, &mut room)
    });
    match set {
        // Other filesystems have no such flag.
        Err(e) if matches!(e.errno, Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL) => Ok(()),
        other => Ok(other?),
    }
}

fn empty_report(plan: &Plan) -> Report {
    let subjects = plan.subjects.iter().map(|subject| SubjectLine {
        label: subject.label().to_owned(),
        version: subject.version(),
        options: subject.words().to_owned(),
    });
    Report {
        version: env!("CARGO_PKG_VERSION").into(),
        date: super::machine::date(),
        machine: Machine::here(),
        filesystem: machine::filesystem(&plan.dir),
        setting: plan.setting.name().into(),
        layers: plan.layers,
        scale: plan.scale,
        rounds: plan.rounds,
        subjects: subjects.collect(),
        reference: plan.reference.clone(),
        ..Report::default()
    }
}

/// An id that files can be given to: another one, where this namespace has another.
fn other_id() -> u32 {
    let has_more = |file: &str| {
        let map = fs::read_to_string(file).unwrap_or_default();
        let mut lines = map.lines().map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            (numbers.next(), numbers.nth(1))
        });
        lines.any(|range| match range {
            (Some(Ok(0)), Some(Ok(count))) => count > 1,
            (Some(Ok(first)), _) => first == 1,
            _ => false,
        })
    };
    u32::from(has_more("/proc/self/uid_map") && has_more("/proc/self/gid_map"))
}

impl Bench<'_> {
    fn row(&mut self, workload: &Workload, progress: &mut dyn Progress) -> Row {
        let mut row = Row {
            name: workload.name.clone(),
            group: workload.group.title().to_owned(),
            title: workload.title.clone(),
            results: Vec::new(),
        };
        let ready = self.make_ready(workload, progress);
        for subject in &self.plan.subjects {
            row.results.push(Outcome {
                subject: subject.label().to_owned(),
                failure: ready.as_ref().err().map(plain),
                ..Outcome::default()
            });
        }
        for round in 0..self.plan.rounds {
            let count = row.results.len();
            for turn in 0..count {
                // Each round begins with another one.
                let index = (round + turn) % count;
                let plan = self.plan;
                let (Some(outcome), Some(subject)) =
                    (row.results.get_mut(index), plan.subjects.get(index))
                else {
                    continue;
                };
                if outcome.failure.is_some() {
                    continue;
                }
                progress.measuring(&workload.name, subject.label(), round);
                match self.sample(workload, subject.as_ref()) {
                    Ok(work) => {
                        outcome.ops = work.ops;
                        outcome.bytes = work.bytes;
                        outcome.seconds.push(work.elapsed.as_secs_f64());
                    }
                    Err(e) => outcome.failure = Some(plain(&e)),
                }
            }
        }
        row.sum_up(&self.plan.reference);
        row
    }

    /// Makes what the workload needs, once.
    fn make_ready(&mut self, workload: &Workload, progress: &mut dyn Progress) -> io::Result<()> {
        if let Some(program) = workload.program
            && !super::subject::is_installed(program)
        {
            return Err(io::Error::other(format!("{program} is not installed")));
        }
        for set in &workload.needs {
            if self.made.insert(*set) {
                progress.preparing(set.dir());
                set.make(&self.ground.sizes, &self.lowers)?;
            }
            let has_bare = self.plan.subjects.iter().any(|subject| !subject.is_union());
            if has_bare && self.merged.insert(*set) {
                self.merge(*set, &self.plan.dir.join("merged"))?;
            }
        }
        if let Some(input) = workload.input
            && self.inputs.insert(input)
        {
            progress.preparing(input.name());
            input.make(&self.ground.sizes, &self.ground.inputs)?;
        }
        if workload.in_rootfs && self.plan.rootfs.is_none() {
            return Err(io::Error::other("needs --rootfs"));
        }
        sync_filesystem(&File::open(&self.plan.dir)?)?;
        Ok(())
    }

    /// Copies a set out of all layers into `target`.
    fn merge(&self, set: Set, target: &Path) -> io::Result<()> {
        for lower in self.lowers.iter().rev() {
            let from = lower.join(set.dir());
            if from.is_dir() {
                let mut cp = std::process::Command::new("cp");
                cp.args(["-a", "--"]).arg(from).arg(target);
                data::complete(&mut cp)?;
            }
        }
        Ok(())
    }

    /// One measurement, on a new mount with a new upper.
    fn sample(&mut self, workload: &Workload, subject: &dyn Subject) -> io::Result<Work> {
        self.samples += 1;
        let place = self.plan.dir.join(format!("s{}", self.samples));
        let stack = Stack {
            lowers: match &self.plan.rootfs {
                Some(rootfs) if workload.in_rootfs => vec![rootfs.clone()],
                _ => self.lowers.clone(),
            },
            upper: place.join("upper"),
            work: place.join("work"),
            said: self.plan.dir.join("said"),
        };
        let at = place.join("mnt");
        for dir in [&place, &stack.upper, &stack.work, &at] {
            fs::create_dir(dir)?;
        }
        let given = self.give(workload, subject, &at)?;
        let work = self.on_mount(workload, subject, &stack, &at);
        std::env::set_current_dir("/")?;
        for set in given {
            fs::rename(
                at.join(set.dir()),
                self.plan.dir.join("merged").join(set.dir()),
            )?;
        }
        fs::remove_dir_all(&place)?;
        work
    }

    /// Gives a subject that merges nothing the merged sets: its own copies of what is
    /// changed, and for the time being those that there are of what is not.
    fn give(
        &mut self,
        workload: &Workload,
        subject: &dyn Subject,
        at: &Path,
    ) -> io::Result<Vec<Set>> {
        let mut lent = Vec::new();
        if subject.is_union() {
            return Ok(lent);
        }
        if let Some(rootfs) = &self.plan.rootfs
            && workload.in_rootfs
        {
            let mut cp = std::process::Command::new("cp");
            cp.args(["-a", "--"]).arg(rootfs.join(".")).arg(at);
            data::complete(&mut cp)?;
        }
        for set in &workload.needs {
            if workload.changes {
                self.merge(*set, at)?;
            } else {
                fs::rename(
                    self.plan.dir.join("merged").join(set.dir()),
                    at.join(set.dir()),
                )?;
                lent.push(*set);
            }
        }
        Ok(lent)
    }

    fn on_mount(
        &mut self,
        workload: &Workload,
        subject: &dyn Subject,
        stack: &Stack,
        at: &Path,
    ) -> io::Result<Work> {
        let mut mounted = subject.mount(stack, at)?;
        let prepared = inside(&mounted, || workload.prepare(&self.ground));
        if workload.cold {
            mounted.unmount()?;
            prepared?;
            self.cold = Some(make_cold(self.dropper.as_mut(), &self.plan.dir)?);
            mounted = subject.mount(stack, at)?;
        } else {
            prepared?;
            // What the preparation wrote is not to be written out during the measurement.
            sync_filesystem(&File::open(&self.plan.dir)?)?;
        }
        let work = inside(&mounted, || workload.measure(&self.ground));
        let gone = mounted.unmount();
        if work.is_ok() {
            gone?;
        } else {
            best_effort("unmount", gone);
        }
        work
    }
}

/// Does `act` in the root of the mount, and leaves it again.
fn inside<T>(mounted: &Mounted, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    std::env::set_current_dir(mounted.root())?;
    let done = act();
    std::env::set_current_dir("/")?;
    done
}
