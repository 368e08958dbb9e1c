//! What is done, and what it needs beforehand. The working directory of all of it is the
//! root of the mount.

pub mod change;
pub mod clients;
pub mod copyup;
pub mod create;
pub mod large;
pub mod programs;
pub mod read;
pub mod wait;

use super::data::{self, Set, Sizes};
use super::package;
use crate::error::MountError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where a workload works.
#[derive(Clone, Debug)]
pub struct Ground {
    /// How many of everything.
    pub sizes: Sizes,
    /// A directory outside of the union with what is read from there.
    pub inputs: PathBuf,
    /// An id other than root's that files can be given to.
    pub other_id: u32,
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// How long it took.
    pub elapsed: Duration,
    /// How many operations it was.
    pub ops: usize,
    /// How many bytes went; none where they are not the point.
    pub bytes: usize,
}

impl Work {
    /// Times `act`, which does `ops` operations.
    ///
    /// # Errors
    /// `act`'s own.
    pub fn timed(ops: usize, act: impl FnOnce() -> io::Result<()>) -> io::Result<Work> {
        let start = Instant::now();
        act()?;
        Ok(Work {
            elapsed: start.elapsed(),
            ops,
            bytes: 0,
        })
    }

    /// The same, with so many bytes.
    pub fn of_bytes(self, bytes: usize) -> Work {
        Work { bytes, ..self }
    }
}

/// What a workload is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Looking and reading small files.
    Looking,
    /// Making new files.
    Making,
    /// Changing what lies in a lower layer.
    Changing,
    /// How long copying up takes.
    CopyUp,
    /// Large files.
    Data,
    /// Real programs.
    Programs,
    /// Several clients at once.
    Clients,
    /// How long one operation takes.
    Waiting,
}

impl Group {
    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Looking => "looking and reading",
            Group::Making => "making files",
            Group::Changing => "changing lower files",
            Group::CopyUp => "copying up",
            Group::Data => "large files",
            Group::Programs => "programs",
            Group::Clients => "clients",
            Group::Waiting => "waiting",
        }
    }
}

/// A file that is read from outside of the union, made where it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// An archive of many small files.
    Headers,
    /// A Debian package.
    Package,
}

impl Input {
    /// Its name among the inputs.
    pub fn name(self) -> &'static str {
        match self {
            Input::Headers => "headers.tar",
            Input::Package => "plyfs-bench.deb",
        }
    }

    /// Makes it in `dir`.
    ///
    /// # Errors
    /// Where it cannot be written, or a program is missing.
    pub fn make(self, sizes: &Sizes, dir: &Path) -> io::Result<()> {
        let path = dir.join(self.name());
        match self {
            Input::Headers => data::headers(&path, dir, sizes.header_files()),
            Input::Package => package::make(&path, dir, sizes.package_files()),
        }
    }
}

type Prepare = Box<dyn Fn(&Ground) -> io::Result<()>>;
type Measure = Box<dyn Fn(&Ground) -> io::Result<Work>>;

/// Something to do.
pub struct Workload {
    /// Its name on the command line.
    pub name: String,
    /// What it is about.
    pub group: Group,
    /// What it is, in a few words.
    pub title: String,
    /// What has to be in the layers.
    pub needs: Vec<Set>,
    /// Whether it changes that.
    pub changes: bool,
    /// Whether caches are dropped between the preparation and the measurement.
    pub cold: bool,
    /// A program without which it cannot be done.
    pub program: Option<&'static str>,
    /// A file that is read from outside of the union.
    pub input: Option<Input>,
    /// Whether it is done only where it is named: it takes long, or much room.
    pub on_request: bool,
    /// Whether its only layer is a root filesystem that the user has named.
    pub in_rootfs: bool,
    prepare: Option<Prepare>,
    measure: Measure,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Workload").field(&self.name).finish()
    }
}

impl Workload {
    /// A workload that measures `measure` on a new mount.
    pub fn new(
        group: Group,
        name: impl Into<String>,
        title: impl Into<String>,
        measure: impl Fn(&Ground) -> io::Result<Work> + 'static,
    ) -> Workload {
        Workload {
            name: name.into(),
            group,
            title: title.into(),
            needs: Vec::new(),
            changes: false,
            cold: false,
            program: None,
            input: None,
            on_request: false,
            in_rootfs: false,
            prepare: None,
            measure: Box::new(measure),
        }
    }

    /// It needs `set`, and leaves it as it is.
    pub fn on(mut self, set: Set) -> Workload {
        self.needs.push(set);
        self
    }

    /// It needs `set`, and changes it.
    pub fn changing(self, set: Set) -> Workload {
        Workload {
            changes: true,
            ..self.on(set)
        }
    }

    /// It is done with cold caches.
    pub fn cold(self) -> Workload {
        Workload { cold: true, ..self }
    }

    /// It cannot be done without `program`.
    pub fn with(self, program: &'static str) -> Workload {
        Workload {
            program: Some(program),
            ..self
        }
    }

    /// It reads `input`.
    pub fn reading(self, input: Input) -> Workload {
        Workload {
            input: Some(input),
            ..self
        }
    }

    /// It is done only where it is named.
    pub fn on_request(self) -> Workload {
        Workload {
            on_request: true,
            ..self
        }
    }

    /// It is done in a root filesystem.
    pub fn in_rootfs(self) -> Workload {
        Workload {
            in_rootfs: true,
            ..self
        }
    }

    /// Something is done first that is not measured.
    pub fn after(self, prepare: impl Fn(&Ground) -> io::Result<()> + 'static) -> Workload {
        Workload {
            prepare: Some(Box::new(prepare)),
            ..self
        }
    }

    /// Does what has to be done first.
    ///
    /// # Errors
    /// Where it fails.
    pub fn prepare(&self, ground: &Ground) -> io::Result<()> {
        self.prepare.as_ref().map_or(Ok(()), |act| act(ground))
    }

    /// Does it.
    ///
    /// # Errors
    /// Where it fails.
    pub fn measure(&self, ground: &Ground) -> io::Result<Work> {
        (self.measure)(ground)
    }
}

/// All of them, in the order of the report.
pub fn all(sizes: &Sizes) -> Vec<Workload> {
    let mut all = read::workloads(sizes);
    all.extend(create::workloads(sizes));
    all.extend(change::workloads(sizes));
    all.extend(copyup::workloads(sizes));
    all.extend(large::workloads(sizes));
    all.extend(programs::workloads(sizes));
    all.extend(clients::workloads(sizes));
    all.extend(wait::workloads(sizes));
    all
}

/// Those of `all` that `only` names, all that are done without being named if it names none, without those that `skip` names.
/// A name stands for all that begin with it and a hyphen, too: `walk` for `walk-warm`.
///
/// # Errors
/// Where a name names nothing.
pub fn choose(
    all: Vec<Workload>,
    only: &[String],
    skip: &[String],
) -> Result<Vec<Workload>, MountError> {
    let means = |word: &str, name: &str| {
        let rest = name.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for (flag, words) in [("--only", only), ("--skip", skip)] {
        for word in words {
            if !all.iter().any(|w| means(word, &w.name)) {
                return Err(MountError::new(
                    format_args!("{flag} {word}"),
                    "no workload is called so",
                    "see plyfs bench --list",
                ));
            }
        }
    }
    let named = |words: &[String], name: &str| words.iter().any(|word| means(word, name));
    Ok(all
        .into_iter()
        .filter(|w| match only {
            [] => !w.on_request,
            only => named(only, &w.name),
        })
        .filter(|w| !named(skip, &w.name))
        .collect())
}

/// A number for people: 30,000.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes for people: 1 GiB.
pub fn bytes(number: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = units.get(unit).copied().unwrap_or_default();
    if (value - value.round()).abs() < 0.05 {
        format!("{} {unit}", value.round())
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str], skip: &[&str]) -> Result<Vec<String>, MountError> {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let chosen = choose(all(&Sizes::new(1.0)), &owned(only), &owned(skip))?;
        Ok(chosen.into_iter().map(|w| w.name).collect())
    }

    #[test]
    fn a_name_chooses_itself_and_its_kin() {
        assert_eq!(
            names(&["walk"], &[]),
            Ok(vec!["walk-warm".into(), "walk-cold".into()])
        );
        assert_eq!(
            names(&["walk"], &["walk-cold"]),
            Ok(vec!["walk-warm".into()])
        );
        let unnamed = names(&[], &[]).expect("some");
        assert!(!unnamed.iter().any(|name| name.starts_with("change-")));
        assert_eq!(names(&["change-1g"], &[]).map(|names| names.len()), Ok(2));
        assert_eq!(
            names(&["wal"], &[]).expect_err("no such name").to_string(),
            "--only wal: no workload is called so; see plyfs bench --list"
        );
    }

    #[test]
    fn no_two_workloads_have_one_name() {
        let all = all(&Sizes::new(1.0));
        let mut names: Vec<_> = all.into_iter().map(|w| w.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(30_000), "30,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!(bytes(1 << 30), "1 GiB");
        assert_eq!(bytes(107_374_182), "102.4 MiB");
        assert_eq!(bytes(4096), "4 KiB");
    }
}
