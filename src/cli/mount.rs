//! `plyfs mount`: flags, file and words to a plan; the daemon.

use super::args::{LayerArgs, MountArgs};
use super::{logging, say};
use crate::cli::preflight::absolute;
use crate::config::file;
use crate::config::options::{Word, split_words};
use crate::config::plan::MountPlan;
use crate::config::request::Request;
use crate::error::plain;
use crate::error::{MountError, best_effort};
use crate::fuse::session::serve;
use crate::sys::creds::raise_file_limit;
use crate::sys::process::{Outcome, Reporter, Side, exit_now, fork_daemon, set_umask};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Mounts, and stays or leaves a daemon behind.
///
/// # Errors
/// Whatever stands against the mount.
pub fn run(args: MountArgs) -> Result<ExitCode, MountError> {
    let (foreground, log_file) = (args.foreground, args.log_file.clone());
    let mut request = request(args.layers)?;
    if let Some(value) = args.durability {
        request.apply_strictly(&Word {
            name: "durability".into(),
            value: Some(value),
        })?;
    }
    request.mount_point = Some(args.mount_point);
    request.observe.metrics = args.metrics.or(request.observe.metrics);
    logging::start(log_file.as_deref(), request.debug)?;
    mount(request, foreground)
}

/// What the flags, the file and the words ask for; the mount point is left open.
///
/// # Errors
/// Where a flag, a key or a word makes no sense.
pub fn request(args: LayerArgs) -> Result<Request, MountError> {
    let mut request = Request::default();
    if let Some(path) = &args.config {
        file::read_into(path, &mut request)?;
    }
    let before = request.lowers.clone();
    apply_words(&mut request, &args.options)?;
    if !args.lower.is_empty() {
        if request.lowers != before {
            return Err(MountError::new(
                "layers",
                "given both by --lower and by -o lowerdir",
                "keep one of them",
            ));
        }
        request.lowers = args.lower;
    }
    request.upper = args.upper.or(request.upper);
    request.work = args.work.or(request.work);
    Ok(request)
}

/// Heeds the words of every `-o`; an unknown one is refused.
///
/// # Errors
/// Where a word is unknown or its value makes no sense.
pub fn apply_words(request: &mut Request, options: &[OsString]) -> Result<(), MountError> {
    for list in options {
        for word in split_words(list) {
            request.apply_strictly(&word)?;
        }
    }
    Ok(())
}

/// Checks the request and serves the mount, here or in a daemon.
///
/// # Errors
/// Whatever stands against the mount.
pub fn mount(mut request: Request, foreground: bool) -> Result<ExitCode, MountError> {
    for note in std::mem::take(&mut request.notes) {
        log::info!("{note}");
    }
    make_absolute(&mut request)?;
    let plan = request.check()?;
    if foreground {
        prepare();
        serve(&plan, || Ok(()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let side = fork_daemon().map_err(|e| {
        MountError::new(
            "daemon",
            plain(&e.into()),
            "end some processes, or use --foreground",
        )
    })?;
    match side {
        Side::Daemon(reporter) => daemon(&plan, reporter),
        Side::Starter(daemon) => match daemon.outcome() {
            Ok(Outcome::Ready) => Ok(ExitCode::SUCCESS),
            Ok(Outcome::Failed(line)) => {
                say(&line);
                Ok(ExitCode::FAILURE)
            }
            Ok(Outcome::Died(status)) => Err(died(status)),
            Err(e) => Err(died(plain(&e))),
        },
    }
}

fn died(how: impl std::fmt::Display) -> MountError {
    MountError::new(
        "daemon",
        format_args!("it ended before the mount answered ({how})"),
        "run again with --foreground -o debug to see why",
    )
}

/// The daemon's whole life. It must not return into the starter's code.
fn daemon(plan: &MountPlan, reporter: Reporter) -> ! {
    prepare();
    let mut reporter = Some(reporter);
    let served = serve(plan, || reporter.take().map_or(Ok(()), Reporter::ready));
    let code = i32::from(served.is_err());
    if let Err(refusal) = served {
        log::error!("{refusal}");
        if let Some(reporter) = reporter {
            best_effort("tell why not", reporter.failed(&refusal.to_string()));
        }
    }
    exit_now(code)
}

/// What a server needs: files with exactly the modes asked for, and many of them.
fn prepare() {
    set_umask(0);
    best_effort("raise the limit of open files", raise_file_limit());
}

/// The daemon's working directory is `/`, so no path may depend on this one.
fn make_absolute(request: &mut Request) -> Result<(), MountError> {
    let named = [
        &mut request.mount_point,
        &mut request.upper,
        &mut request.work,
        &mut request.observe.metrics,
    ];
    let paths = named
        .into_iter()
        .flatten()
        .chain(&mut request.lowers)
        .chain(&mut request.data_only);
    for path in paths {
        if path.is_relative() && !is_unnamed(path) {
            *path = absolute(path)?;
        }
    }
    Ok(())
}

fn is_unnamed(path: &Path) -> bool {
    path.as_os_str().is_empty()
}
