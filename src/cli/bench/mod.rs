//! `plyfs bench`: measures this plyfs beside other ways of showing the same layers.
//!
//! ```text
//! plyfs bench          new mount namespace, and user namespace where it is asked for
//!  ├─ dropper          stays outside: drops caches, where the user is root
//!  └─ first            pid 1 of a new process namespace: measures
//!      └─ servers      end with `first`, whatever ends it
//! ```

mod choice;
mod progress;

use super::args::BenchArgs;
use super::run::idmap;
use super::{logging, say};
use crate::bench::cold::Dropper;
use crate::bench::report::{Report, html, json, table};
use crate::bench::run::{Plan, run as measure};
use crate::bench::subject::Setting;
use crate::bench::workloads::{self, Workload};
use crate::error::{MountError, SysError, best_effort, plain};
use crate::sys::creds::raise_file_limit;
use crate::sys::process::{Forked, exit_now, set_parent_death_signal, set_umask, wait_for};
use crate::sys::signal::{self, SIGCHLD, SIGKILL, TERMINATION};
use crate::sys::{mount as sys_mount, mountinfo, userns};
use choice::Choice;
use progress::Bar;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures, and prints the table.
///
/// # Errors
/// Where an argument makes no sense, a file cannot be written, or a named subject cannot
/// be mounted.
pub fn run(args: BenchArgs) -> Result<ExitCode, MountError> {
    logging::start(None, false)?;
    if args.list {
        return list(&args);
    }
    if let Some(from) = &args.from {
        let report = read_report(from)?;
        return Outputs::open(&args)?.write(&report);
    }
    let choice = Choice::of(&args)?;
    let outputs = Outputs::open(&args)?;
    let space = Space::make(&args.dir)?;
    let done = in_namespaces(&choice, &outputs, &space);
    space.remove();
    done
}

fn list(args: &BenchArgs) -> Result<ExitCode, MountError> {
    let choice = Choice::of(args)?;
    let mut text = String::new();
    let all = workloads::all(&crate::bench::data::Sizes::new(choice.scale));
    let listed = match (&*args.only, &*args.skip) {
        ([], []) => all,
        (only, skip) => workloads::choose(all, only, skip)?,
    };
    for Workload {
        name,
        title,
        on_request,
        ..
    } in &listed
    {
        let note = if *on_request { " (only if named)" } else { "" };
        text.push_str(&format!("{name:<20} {title}{note}\n"));
    }
    to_stdout(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn to_stdout(text: &str) -> Result<(), MountError> {
    let mut out = io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| MountError::new("stdout", plain(&e), "give it somewhere to go"))
}

fn read_report(path: &Path) -> Result<Report, MountError> {
    let refused = |cause: String| {
        MountError::new(
            format_args!("--from {}", path.display()),
            cause,
            "name a file that plyfs bench --json has written",
        )
    };
    let text = fs::read_to_string(path).map_err(|e| refused(plain(&e)))?;
    json::read(&text).map_err(|e| refused(format!("no report: {e}")))
}

/// Where the report goes. The files are made beforehand: nobody wants to learn after half
/// an hour that they cannot be.
struct Outputs {
    json: Option<(PathBuf, File)>,
    html: Option<(PathBuf, File)>,
}

impl Outputs {
    fn open(args: &BenchArgs) -> Result<Outputs, MountError> {
        let open = |flag: &str, path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            // An earlier report stays until there is a new one.
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path);
            match file {
                Ok(file) => Ok(Some((path.clone(), file))),
                Err(e) => Err(MountError::new(
                    format_args!("{flag} {}", path.display()),
                    plain(&e),
                    "name a file that can be written",
                )),
            }
        };
        Ok(Outputs {
            json: open("--json", &args.json)?,
            html: open("--html", &args.html)?,
        })
    }

    fn write(&self, report: &Report) -> Result<ExitCode, MountError> {
        to_stdout(&table::write(report))?;
        if let Some((path, file)) = &self.json {
            let written = json::write(report).map_err(io::Error::from);
            put(path, file, written)?;
        }
        if let Some((path, file)) = &self.html {
            put(path, file, Ok(html::write(report)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn put(path: &Path, mut file: &File, text: io::Result<String>) -> Result<(), MountError> {
    text.and_then(|text| {
        file.set_len(0)?;
        file.write_all(text.as_bytes())
    })
    .map_err(|e| MountError::new(path.display(), plain(&e), "make room for it"))
}

/// The directory that all is done in, and that nothing is left of.
struct Space(PathBuf);

impl Space {
    fn make(dir: &Path) -> Result<Space, MountError> {
        let refused = |e: io::Error| {
            MountError::new(
                format_args!("directory {}", dir.display()),
                plain(&e),
                "name a directory that can be written, on the filesystem to measure",
            )
        };
        let dir = dir.canonicalize().map_err(refused)?;
        let path = dir.join(format!("plyfs-bench.{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(refused)?;
        Ok(Space(path))
    }

    /// Takes down what was left mounted there, and removes it.
    fn remove(&self) {
        let mounts = mountinfo::read().unwrap_or_default();
        for mount in mounts.iter().rev() {
            if mount.point.starts_with(&self.0) {
                best_effort("detach", sys_mount::unmount(&mount.point, true));
            }
        }
        if let Err(e) = fs::remove_dir_all(&self.0) {
            say(&format!(
                "{}: left behind: {}; remove it by hand",
                self.0.display(),
                plain(&e)
            ));
        }
    }
}

fn refused(what: &'static str) -> impl Fn(SysError) -> MountError {
    move |e| {
        MountError::new(
            what,
            format_args!("the kernel refused it: {e}"),
            "allow user namespaces: see sysctl user.max_user_namespaces, or be root",
        )
    }
}

/// Measures in a process of its own, all of whose servers end with it.
fn in_namespaces(
    choice: &Choice,
    outputs: &Outputs,
    space: &Space,
) -> Result<ExitCode, MountError> {
    let own = std::env::current_exe()
        .map_err(|e| MountError::new("this program", plain(&e), "call it by its full path"))?;
    let dropper = Dropper::start();
    match choice.setting {
        Setting::Userns => {
            idmap::enter().map_err(refused("user namespace"))?;
        }
        Setting::Root => userns::enter_mounts().map_err(refused("mount namespace"))?,
    }
    sys_mount::make_private(Path::new("/")).map_err(refused("mounts"))?;
    let mut wanted = TERMINATION.to_vec();
    wanted.push(SIGCHLD);
    let signals = signal::block(&wanted).map_err(refused("signals"))?;
    let first = match userns::fork_first_of_new_pids().map_err(refused("process namespace"))? {
        Forked::Child => {
            best_effort("end with the parent", set_parent_death_signal(SIGKILL));
            let done = first(choice, outputs, space, dropper, &own);
            exit_now(match done {
                Ok(_) => 0,
                Err(refusal) => {
                    say(&refusal.to_string());
                    1
                }
            });
        }
        Forked::Parent(pid) => pid,
    };
    drop(dropper);
    let mut stopped = None;
    match signals.wait().map_err(refused("signals"))? {
        SIGCHLD => {}
        signal => {
            stopped = Some(signal);
            best_effort("end the measuring", signal::send(first, SIGKILL));
        }
    }
    let status = wait_for(first).map_err(refused("waiting"))?;
    match stopped {
        Some(signal) => {
            say(&format!(
                "{}: stopped, nothing is left",
                signal::name(signal)
            ));
            Ok(ExitCode::FAILURE)
        }
        None if status.success() => Ok(ExitCode::SUCCESS),
        None => {
            if status.code().is_none() {
                say(&format!("the measuring process ended: {status}"));
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// All that the measuring process does.
fn first(
    choice: &Choice,
    outputs: &Outputs,
    space: &Space,
    dropper: Option<Dropper>,
    own: &Path,
) -> Result<ExitCode, MountError> {
    set_umask(0o022);
    best_effort("raise the limit of open files", raise_file_limit());
    let (subjects, reference) = choice.subjects(own, &space.0)?;
    let chosen = choice.workloads();
    let mut bar = Bar::new(chosen.len() * subjects.len() * choice.rounds);
    let plan = Plan {
        dir: space.0.clone(),
        subjects,
        reference,
        workloads: chosen,
        scale: choice.scale,
        rounds: choice.rounds,
        layers: choice.layers,
        setting: choice.setting,
        rootfs: choice.rootfs.clone(),
    };
    let report = measure(&plan, dropper, &mut bar).map_err(|e| {
        MountError::new(
            space.0.display(),
            plain(&e),
            "choose another directory, with room for the layers",
        )
    })?;
    bar.finish();
    outputs.write(&report)
}

/// The chosen workloads, at the chosen sizes.
fn chosen(scale: f64, only: &[String], skip: &[String]) -> Result<Vec<Workload>, MountError> {
    let sizes = crate::bench::data::Sizes::new(scale);
    workloads::choose(workloads::all(&sizes), only, skip)
}
