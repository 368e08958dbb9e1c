//! `plyfs umount`: unmount, then wait until the daemon has let go of the layers.

use super::args::UmountArgs;
use super::say;
use crate::control::client::{Daemon, Left};
use crate::error::{MountError, best_effort, plain};
use crate::fuse::mounting::{Unmounted, unmount};
use crate::fuse::session::WATCHER;
use crate::sys::mountinfo::{self, Mount};
use crate::sys::process::wait_gone;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How often it is asked how much is left to be done.
const LOOK: Duration = Duration::from_millis(200);
/// How often, and after how long, it is tried again where somebody uses it: a program that is
/// about to be started holds the files of the one that starts it for a moment.
const TRIES: u32 = 10;
const MOMENT: Duration = Duration::from_millis(10);
/// How long the daemon may take to let go.
const PATIENCE: Duration = Duration::from_secs(10);

fn refuse(path: &Path, cause: impl std::fmt::Display, remedy: &str) -> MountError {
    MountError::new(
        format_args!("mount point {}", path.display()),
        cause,
        remedy,
    )
}

/// Unmounts.
///
/// # Errors
/// Where no plyfs is mounted there, or someone uses it.
pub fn run(args: &UmountArgs) -> Result<ExitCode, MountError> {
    let given = &args.mount_point;
    let mount = find(given)?;
    let left = best_effort("ask the daemon", Daemon::of(mount.dev.1).left());
    let named = || daemon_of(&mount);
    let daemon = left.as_ref().and_then(Left::pid).or_else(named);
    let mut tries = 1;
    let unmounted = loop {
        match unmount(&mount.point, args.lazy) {
            Unmounted::Busy if tries < TRIES => std::thread::sleep(MOMENT),
            other => break other,
        }
        tries += 1;
    };
    match unmounted {
        Unmounted::Yes => {}
        Unmounted::Busy => {
            return Err(refuse(
                given,
                "it is in use",
                "end what uses it (fuser -vm shows it), or detach it with --lazy",
            ));
        }
        Unmounted::No(reason) => {
            return Err(refuse(
                given,
                reason,
                "unmount as the user who mounted it, or as root",
            ));
        }
    }
    if args.lazy {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(pid) = daemon
        && await_end(pid, left, given) == Some(false)
    {
        say(&format!(
            "{}: unmounted, but its daemon ({pid}) still serves it elsewhere",
            given.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits as long as the daemon `pid` gives partly copied files the rest of their data, which it
/// tells by `left`, and shows on a terminal how much that still is; then for its end. Whether it
/// has ended, if that can be told.
fn await_end(pid: i32, mut left: Option<Left>, given: &Path) -> Option<bool> {
    let target = ProgressDrawTarget::stderr_with_hz(5);
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
        bar.set_style(style);
    }
    let mut most = 0;
    let mut gone = Some(false);
    while gone == Some(false) {
        let lack = left.as_mut().and_then(|left| left.ask().ok());
        let Some((files, bytes)) = lack.filter(|(files, _)| *files > 0) else {
            gone = best_effort("wait for the daemon", wait_gone(pid, PATIENCE));
            break;
        };
        most = most.max(bytes);
        bar.set_length(most);
        bar.set_position(most - bytes);
        let lack = match bytes {
            0 => "are not on the disk yet".to_owned(),
            bytes => format!("lack {} still", HumanBytes(bytes)),
        };
        bar.set_message(format!(
            "{}: unmounted; {files} files {lack}",
            given.display()
        ));
        gone = best_effort("wait for the daemon", wait_gone(pid, LOOK));
    }
    bar.finish_and_clear();
    if most > 0 && gone == Some(true) && !bar.is_hidden() {
        say(&format!(
            "{}: unmounted, and all files are whole",
            given.display()
        ));
    }
    gone
}

/// The plyfs mount at `given`. Nothing is asked of the mount itself: it may be dead.
fn find(given: &Path) -> Result<Mount, MountError> {
    let table = mountinfo::read()
        .map_err(|e| refuse(given, plain(&e), "mount /proc: unmounting needs it"))?;
    let at = |point: &Path| table.iter().rev().find(|mount| mount.point == point);
    let found = beside_itself(given)
        .and_then(|point| at(&point))
        .or_else(|| at(&given.canonicalize().ok()?));
    let Some(mount) = found else {
        let (cause, remedy) = match std::fs::symlink_metadata(given) {
            Ok(_) => (
                "nothing is mounted there".to_owned(),
                "give a mount point: grep plyfs /proc/mounts shows them",
            ),
            Err(e) => (plain(&e), "correct the path"),
        };
        return Err(refuse(given, cause, remedy));
    };
    if mount.fs_type != "fuse.plyfs" && !(is_fuse(mount) && mount.source == "plyfs") {
        return Err(refuse(
            given,
            format_args!("not a plyfs mount but {}", mount.fs_type),
            "use umount for it",
        ));
    }
    Ok(mount.clone())
}

fn is_fuse(mount: &Mount) -> bool {
    mount.fs_type == "fuse" || mount.fs_type.starts_with("fuse.")
}

/// `given` with all symlinks resolved but for the last name, which is not looked at.
fn beside_itself(given: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(given).ok()?;
    let parent = absolute.parent()?.canonicalize().ok()?;
    Some(parent.join(absolute.file_name()?))
}

/// The process that serves `mount`, by the name of the thread that awaits its signals; that of an
/// earlier mount may have the same until it knows that it is over.
fn daemon_of(mount: &Mount) -> Option<i32> {
    let wanted = format!("{WATCHER}{}", mount.dev.1);
    let numbers = |dir: &str| -> Vec<i32> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    };
    let named = |path: String, name: &str| {
        std::fs::read_to_string(path).is_ok_and(|comm| comm.trim_end() == name)
    };
    numbers("/proc").into_iter().find(|pid| {
        numbers(&format!("/proc/{pid}/task"))
            .into_iter()
            .any(|task| named(format!("/proc/{pid}/task/{task}/comm"), &wanted))
    })
}
