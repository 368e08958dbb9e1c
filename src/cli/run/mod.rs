//! `plyfs run`: a command inside a union, as root of namespaces of its own.
//!
//! ```text
//! plyfs run            new user and mount namespace; serves the unions
//!  ├─ mapper           stays outside for a moment: writes the id maps
//!  └─ first            pid 1 of a new process namespace; its root is the union
//!      └─ CMD          whatever CMD leaves running ends with `first`
//! ```

pub(super) mod idmap;
mod inside;
mod report;
mod space;
mod submounts;
mod unions;

use super::args::RunArgs;
use super::{logging, mount};
use crate::cli::preflight::overlap::{self, Place};
use crate::cli::preflight::{LOWER, LOWERS_MAX, absolute, check_metrics, directory, readable};
use crate::config::plan::Complete;
use crate::config::request::Request;
use crate::error::plain;
use crate::error::{MountError, SysError, best_effort};
use crate::sys::creds::raise_file_limit;
use crate::sys::process::{Forked, set_parent_death_signal, set_umask, wait_for};
use crate::sys::signal::{self, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use crate::sys::{mount as sys_mount, userns};
use inside::Inside;
use space::Space;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use submounts::Submount;
use unions::Unions;

/// What the union is made of.
struct Ground {
    lowers: Vec<PathBuf>,
    submounts: Vec<Submount>,
    space: Space,
    settings: Request,
}

/// Runs the command; the exit code is the command's.
///
/// # Errors
/// Whatever keeps it from running.
pub fn run(args: RunArgs) -> Result<ExitCode, MountError> {
    let mut settings = Request::default();
    if args.discard {
        // What is thrown away need not be whole.
        settings.complete = Complete::Off;
    }
    mount::apply_words(&mut settings, &args.options)?;
    if settings.upper.is_some() || settings.work.is_some() || !settings.lowers.is_empty() {
        return Err(MountError::new(
            "option lowerdir, upperdir or workdir",
            "not for plyfs run",
            "use --lower and --upper; the work directory is made beside the upper",
        ));
    }
    logging::start(args.log_file.as_deref(), settings.debug)?;
    if let Some(file) = &mut settings.observe.metrics {
        *file = absolute(file)?;
    }
    check_metrics(&settings.observe, None)?;
    let places = lowers(&args.lower)?;
    let space = Space::prepare(&args, &places)?;
    let lowers: Vec<_> = places.into_iter().map(|place| place.real).collect();
    let mut ground = Ground {
        lowers,
        submounts: Vec::new(),
        space,
        settings,
    };
    let result = in_namespaces(&mut ground, args.command);
    if result.is_err() {
        ground.space.give_up();
    }
    result
}

/// The lower layers: the host's root, if none is named.
fn lowers(given: &[PathBuf]) -> Result<Vec<Place>, MountError> {
    let root = [PathBuf::from("/")];
    let given = if given.is_empty() { &root } else { given };
    if given.len() > LOWERS_MAX {
        return Err(MountError::new(
            "layers",
            format_args!("{} lower layers given", given.len()),
            format_args!("merge some: there may be {LOWERS_MAX} at most"),
        ));
    }
    let places = given
        .iter()
        .map(|path| {
            let place = directory(LOWER, path)?;
            readable(&place)?;
            Ok(place)
        })
        .collect::<Result<Vec<_>, MountError>>()?;
    overlap::no_layer_twice(&places)?;
    Ok(places)
}

fn no_namespace(e: SysError) -> MountError {
    MountError::new(
        "user namespace",
        format_args!("the kernel refused it: {e}"),
        "allow them: see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone \
         and kernel.apparmor_restrict_unprivileged_userns",
    )
}

fn cannot(what: &'static str) -> impl Fn(SysError) -> MountError {
    move |e| {
        MountError::new(
            what,
            format_args!("refused inside the user namespace: {e}"),
            "allow unprivileged user namespaces in full: see \
             kernel.apparmor_restrict_unprivileged_userns and the container's seccomp profile",
        )
    }
}

/// From here on in namespaces of our own.
fn in_namespaces(ground: &mut Ground, command: Vec<OsString>) -> Result<ExitCode, MountError> {
    let cwd = best_effort("find the working directory", std::env::current_dir());
    let identity = idmap::enter().map_err(no_namespace)?;
    sys_mount::make_private(Path::new("/")).map_err(cannot("mounts"))?;
    // Only from here on does nobody else mount or unmount anything.
    ground.submounts = submounts::find(&ground.lowers);
    // Forwarded to the command, once it runs; until then they wait.
    let signals = signal::block(&[SIGTERM, SIGHUP]).map_err(cannot("signals"))?;
    let (inside, outside) = Inside::channel().map_err(cannot("pipe"))?;
    let first = match userns::fork_first_of_new_pids().map_err(no_namespace)? {
        Forked::Child => {
            drop(outside);
            best_effort("end with the server", set_parent_death_signal(SIGKILL));
            let root = ground.space.union_root();
            inside.run(&root, identity, cwd, &command)
        }
        Forked::Parent(pid) => pid,
    };
    drop(inside);
    let served = serve(ground, first, outside, signals);
    if served.is_err() {
        best_effort("end the command", signal::send(first, SIGKILL));
        best_effort("wait for the command", wait_for(first));
    }
    let (status, mut unions) = served?;
    unions.take_down();
    ground.space.uncover();
    let changed = report::print(ground, &unions);
    ground.space.finish(changed);
    Ok(status)
}

/// Serves the unions while the command runs; how it ended.
fn serve(
    ground: &Ground,
    first: i32,
    outside: inside::Outside,
    signals: signal::Blocked,
) -> Result<(ExitCode, Unions), MountError> {
    for terminal in [SIGINT, SIGQUIT] {
        // The terminal sends them to the command too: it is its decision.
        best_effort(
            "leave it to the command",
            signal::set_ignored(terminal, true),
        );
    }
    set_umask(0);
    best_effort("raise the limit of open files", raise_file_limit());
    let mut unions = Unions::default();
    unions.mount(ground)?;
    forward(first, signals);
    outside.go();
    let status = wait_for(first).map_err(cannot("waiting"))?;
    Ok((exit_code(status), unions))
}

/// Sends SIGTERM and SIGHUP on to the command; the third time, all is ended at once.
fn forward(first: i32, signals: signal::Blocked) {
    let forwarder = move || {
        let mut times = 0;
        while let Ok(signal) = signals.wait() {
            times += 1;
            let signal = if times > 2 { SIGKILL } else { signal };
            best_effort("forward a signal", signal::send(first, signal));
        }
    };
    let thread = std::thread::Builder::new()
        .name("plyfs-signals".into())
        .spawn(forwarder);
    best_effort("start the thread for signals", thread);
}

/// The shell's convention: 128 and the signal's number.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The one line for what could not be brought in.
fn left_out(path: &Path, cause: impl std::fmt::Display) {
    super::say(&format!("{}: {cause}", path.display()));
}

/// An I/O error as a refusal of `path`.
fn refused(what: &str, path: &Path, e: &std::io::Error, remedy: &str) -> MountError {
    MountError::new(format_args!("{what} {}", path.display()), plain(e), remedy)
}
