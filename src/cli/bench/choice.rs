//! What the arguments ask for.

use super::chosen;
use crate::bench::subject::{Kind, Setting, Spec, Stack, Subject, is_installed};
use crate::bench::workloads::Workload;
use crate::cli::args::BenchArgs;
use crate::cli::say;
use crate::error::{MountError, plain};
use crate::sys::creds::effective_ids;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Checked arguments.
#[derive(Debug)]
pub struct Choice {
    /// Whose root the measuring process will be.
    pub setting: Setting,
    /// How many of everything.
    pub scale: f64,
    /// How many rounds.
    pub rounds: usize,
    /// How many lower layers.
    pub layers: usize,
    /// A root filesystem to install a package in.
    pub rootfs: Option<PathBuf>,
    specs: Vec<Spec>,
    /// Whether each of them has to work.
    strict: bool,
    reference: Option<String>,
    only: Vec<String>,
    skip: Vec<String>,
}

/// Most lower layers that overlayfs takes.
const LAYERS_MAX: usize = 500;

/// The scale and the rounds of `--quick`.
const QUICK: (f64, usize) = (0.05, 3);

/// The usual number of rounds.
const ROUNDS: usize = 5;

impl Choice {
    /// Checks the arguments.
    ///
    /// # Errors
    /// Where one of them makes no sense.
    pub fn of(args: &BenchArgs) -> Result<Choice, MountError> {
        let out_of = |flag: &str, value: String, range: &str| {
            MountError::new(
                format_args!("{flag} {value}"),
                "out of range",
                format_args!("give {range}"),
            )
        };
        let (scale, rounds) = if args.quick { QUICK } else { (1.0, ROUNDS) };
        let scale = args.scale.unwrap_or(scale);
        let rounds = args.rounds.unwrap_or(rounds);
        if !(0.001..=100.0).contains(&scale) {
            return Err(out_of("--scale", scale.to_string(), "0.001 to 100"));
        }
        if !(1..=1000).contains(&rounds) {
            return Err(out_of("--rounds", rounds.to_string(), "1 to 1000"));
        }
        if !(1..=LAYERS_MAX).contains(&args.layers) {
            let range = format!("1 to {LAYERS_MAX}");
            return Err(out_of("--layers", args.layers.to_string(), &range));
        }
        let specs = args
            .subject
            .iter()
            .map(|text| Spec::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        chosen(scale, &args.only, &args.skip)?;
        Ok(Choice {
            setting: setting(args.setting.as_deref())?,
            scale,
            rounds,
            layers: args.layers,
            rootfs: args.rootfs.as_deref().map(rootfs).transpose()?,
            strict: !specs.is_empty() && !args.lenient,
            specs: if specs.is_empty() { usual() } else { specs },
            reference: args.reference.clone(),
            only: args.only.clone(),
            skip: args.skip.clone(),
        })
    }

    /// The workloads to measure.
    pub fn workloads(&self) -> Vec<Workload> {
        let all = chosen(self.scale, &self.only, &self.skip).unwrap_or_default();
        // Without a root filesystem they are measured only where they are asked for by name.
        let can = |w: &Workload| !w.in_rootfs || self.rootfs.is_some() || !self.only.is_empty();
        all.into_iter().filter(can).collect()
    }

    /// The subjects that can be mounted below `dir`, and the label of the reference.
    ///
    /// # Errors
    /// Where one that was named cannot be mounted, or no subject is the reference.
    pub fn subjects(
        &self,
        own: &Path,
        dir: &Path,
    ) -> Result<(Vec<Box<dyn Subject>>, String), MountError> {
        let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
        for spec in &self.specs {
            let subject = spec.subject(self.setting, own);
            if subjects
                .iter()
                .any(|other| other.label() == subject.label())
            {
                return Err(MountError::new(
                    format_args!("subject {}", subject.label()),
                    "there are two that are called so",
                    "give one of them a name: --subject NAME=KIND",
                ));
            }
            match probe(subject.as_ref(), dir) {
                Ok(()) => subjects.push(subject),
                Err(e) if self.strict => {
                    return Err(MountError::new(
                        format_args!("subject {}", subject.label()),
                        format_args!("it cannot be mounted here: {}", plain(&e)),
                        "leave it out, try another DIR or --setting, or give --lenient",
                    ));
                }
                Err(e) => say(&format!("{}: left out: {}", subject.label(), plain(&e))),
            }
        }
        let reference = match &self.reference {
            Some(label) => subjects.iter().find(|s| s.label() == label),
            None => subjects
                .iter()
                .find(|s| s.label() == "overlayfs")
                .or(subjects.first()),
        };
        let reference = reference.map(|s| s.label().to_owned()).ok_or_else(|| {
            let labels: Vec<_> = subjects.iter().map(|s| s.label()).collect();
            MountError::new(
                format_args!("--reference {}", self.reference.as_deref().unwrap_or("?")),
                "no subject is called so",
                format_args!("choose one of: {}", labels.join(", ")),
            )
        })?;
        Ok((subjects, reference))
    }
}

fn rootfs(dir: &Path) -> Result<PathBuf, MountError> {
    let found = dir.canonicalize().and_then(|dir| {
        fs::read_dir(&dir)?;
        Ok(dir)
    });
    found.map_err(|e| {
        MountError::new(
            format_args!("--rootfs {}", dir.display()),
            plain(&e),
            "name the directory of a root filesystem",
        )
    })
}

fn usual() -> Vec<Spec> {
    let mut kinds = vec![Kind::Overlay, Kind::Plyfs];
    if is_installed("fuse-overlayfs") {
        kinds.push(Kind::FuseOverlayfs);
    }
    kinds.push(Kind::Bare);
    kinds.into_iter().map(Spec::plain).collect()
}

fn setting(name: Option<&str>) -> Result<Setting, MountError> {
    let is_root = effective_ids().0 == 0;
    match name {
        Some("userns") => Ok(Setting::Userns),
        Some("root") if is_root => Ok(Setting::Root),
        Some("root") => Err(MountError::new(
            "--setting root",
            "only root is root",
            "use sudo, or --setting userns",
        )),
        None | Some(_) if is_root => Ok(Setting::Root),
        None | Some(_) => Ok(Setting::Userns),
    }
}

/// Mounts a stack of nothing, and unmounts it.
fn probe(subject: &dyn Subject, dir: &Path) -> io::Result<()> {
    let place = dir.join("probe");
    let stack = Stack {
        lowers: vec![place.join("lower")],
        upper: place.join("upper"),
        work: place.join("work"),
        said: dir.join("said"),
    };
    let at = place.join("mnt");
    fs::create_dir_all(&at)?;
    for dir in stack.lowers.iter().chain([&stack.upper, &stack.work]) {
        fs::create_dir_all(dir)?;
    }
    let mounted = subject.mount(&stack, &at);
    let done = mounted.and_then(|mounted| mounted.unmount());
    fs::remove_dir_all(&place)?;
    done
}
