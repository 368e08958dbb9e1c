//! The inside: the first process there makes the union its root, fills in /proc, /dev
//! and /sys, runs the command and reaps what it leaves behind.

use super::idmap::Identity;
use crate::error::plain;
use crate::error::{SysError, best_effort};
use crate::sys::mount::{Flags, bind, mount, pivot_root_here, set_read_only, unmount};
use crate::sys::process::{exit_now, pipe, reap};
use crate::sys::signal::{self, SIGCHLD, SIGHUP, SIGTERM, SIGUSR1, SIGUSR2};
use crate::sys::userns;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The end of the channel that the first process inside has.
#[derive(Debug)]
pub struct Inside(File);

/// The end that the server has.
#[derive(Debug)]
pub struct Outside(File);

impl Outside {
    /// Tells that the unions are mounted.
    pub fn go(mut self) {
        best_effort("start the command", self.0.write_all(b"+"));
    }
}

/// The shell's codes for a command that is not there, or is no program.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;

/// Device nodes of the host that the inside has, too: those that change nothing outside.
const DEVICES: [&str; 8] = [
    "null", "zero", "full", "random", "urandom", "tty", "fuse", "kvm",
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Where the host's root could change the running system through /proc.
const KERNEL_KNOBS: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

impl Inside {
    /// A channel through which the server says when.
    ///
    /// # Errors
    /// pipe2's.
    pub fn channel() -> Result<(Inside, Outside), SysError> {
        let (read, write) = pipe()?;
        Ok((Inside(read), Outside(write)))
    }

    /// Everything that the first process does. It must not return into the server's code.
    pub fn run(
        mut self,
        root: &Path,
        identity: Identity,
        cwd: Option<PathBuf>,
        command: &[OsString],
    ) -> ! {
        let mut word = [0];
        if self.0.read_exact(&mut word).is_err() {
            // The server gave up, and has said why.
            exit_now(1);
        }
        drop(self);
        let code = match enter(root, identity, cwd) {
            Ok(()) => run_command(command),
            Err(e) => {
                super::super::say(&format!("the inside of the union: {e}; see --log-file"));
                1
            }
        };
        exit_now(code)
    }
}

/// Makes the union at `root` the root of this process.
fn enter(root: &Path, identity: Identity, cwd: Option<PathBuf>) -> Result<(), String> {
    let io = |what: &'static str| move |e: std::io::Error| format!("{what}: {}", plain(&e));
    let sys = |what: &'static str| move |e: SysError| format!("{what}: {e}");
    userns::enter_mounts().map_err(sys("mount namespace"))?;
    proc(&root.join("proc"), identity).map_err(sys("/proc"))?;
    system(&root.join("sys"));
    devices(&root.join("dev")).map_err(io("/dev"))?;
    std::env::set_current_dir(root).map_err(io("working directory"))?;
    pivot_root_here().map_err(sys("root directory"))?;
    let cwd = cwd.unwrap_or_else(|| "/".into());
    if std::env::set_current_dir(&cwd).is_err() {
        log::info!("{}: not there inside; starting in /", cwd.display());
        std::env::set_current_dir("/").map_err(io("working directory"))?;
    }
    Ok(())
}

const QUIET: Flags = Flags {
    read_only: false,
    no_suid: true,
    no_dev: true,
    no_exec: true,
    no_atime: false,
    synchronous: false,
};

/// A /proc that shows the processes inside; the host's, where the kernel allows no other.
fn proc(target: &Path, identity: Identity) -> Result<(), SysError> {
    if let Err(e) = mount("proc", target, "proc", QUIET, "") {
        log::info!("/proc: the host's, since a new one was refused: {e}");
        bind(Path::new("/proc"), target, true)?;
    }
    if identity == Identity::Same {
        for knob in KERNEL_KNOBS.map(|name| target.join(name)) {
            if knob.exists() {
                bind(&knob, &knob, false)?;
                set_read_only(&knob)?;
            }
        }
    }
    Ok(())
}

/// The host's /sys, to look at; rather none than one that can be written.
fn system(target: &Path) {
    if let Err(e) = bind(Path::new("/sys"), target, true) {
        log::warn!("/sys: left out: {e}");
    } else if let Err(e) = set_read_only(target) {
        log::warn!("/sys: left out, since it cannot be made read-only: {e}");
        best_effort("take /sys back", unmount(target, true));
    }
}

/// A /dev of our own, with the host's harmless devices.
fn devices(target: &Path) -> io::Result<()> {
    let flags = Flags {
        no_suid: true,
        ..Flags::default()
    };
    mount("tmpfs", target, "tmpfs", flags, "mode=755,size=64m")?;
    for name in DEVICES {
        let (host, here) = (Path::new("/dev").join(name), target.join(name));
        if host.exists() {
            File::create(&here)?;
            bind(&host, &here, false)?;
        }
    }
    for (points_to, name) in LINKS {
        symlink(points_to, target.join(name))?;
    }
    terminals(target)?;
    let shm = target.join("shm");
    fs::create_dir(&shm)?;
    let flags = Flags {
        no_exec: false,
        ..QUIET
    };
    mount("shm", &shm, "tmpfs", flags, "mode=1777")?;
    Ok(())
}

/// The terminal that the command is started from.
fn own_terminal() -> Option<PathBuf> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [
        stdin.is_terminal(),
        stdout.is_terminal(),
        stderr.is_terminal(),
    ];
    let number = streams.iter().position(|is_terminal| *is_terminal)?;
    let name = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    (name.starts_with("/dev") && name.exists()).then_some(name)
}

/// Terminals of our own: the host's are none of ours to open, and new ones among them
/// cannot be made through a bound /dev/ptmx. Programs that ask for the name of the one
/// that they run on look through /dev, and find it as the console.
fn terminals(dev: &Path) -> io::Result<()> {
    let (pts, ptmx) = (dev.join("pts"), dev.join("ptmx"));
    fs::create_dir(&pts)?;
    let flags = Flags {
        no_suid: true,
        no_exec: true,
        ..Flags::default()
    };
    let data = "newinstance,ptmxmode=0666,mode=0620";
    best_effort(
        "make terminals",
        mount("devpts", &pts, "devpts", flags, data),
    );
    if let Some(own) = own_terminal() {
        let console = dev.join("console");
        File::create(&console)?;
        best_effort("bring in our terminal", bind(&own, &console, false));
    }
    symlink("pts/ptmx", ptmx)
}

fn is_on_path(program: &OsStr) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
}

/// Runs the command to its end; its exit code.
fn run_command(command: &[OsString]) -> i32 {
    let Some((program, arguments)) = command.split_first() else {
        return NOT_FOUND;
    };
    let awaited = [SIGCHLD, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];
    let signals = match signal::block(&awaited) {
        Ok(signals) => signals,
        Err(e) => {
            super::super::say(&format!("signals: {e}; this is a bug"));
            return 1;
        }
    };
    let mut command = Command::new(program);
    command.args(arguments);
    signals.release_in(&mut command);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            // A directory of PATH that may not be entered gives EACCES for every name.
            let is_there = program.as_bytes().contains(&b'/') || is_on_path(program);
            let (cause, code) = match e.kind() {
                ErrorKind::PermissionDenied if is_there => (plain(&e), NOT_RUNNABLE),
                ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                    ("no such program".to_owned(), NOT_FOUND)
                }
                _ => (plain(&e), NOT_RUNNABLE),
            };
            let name = program.to_string_lossy();
            super::super::say(&format!("{name}: {cause}; name a program that is inside"));
            return code;
        }
    };
    let Ok(pid) = i32::try_from(child.id()) else {
        return 1;
    };
    loop {
        match signals.wait() {
            Ok(SIGCHLD) => {
                while let Some(Some((ended, status))) = best_effort("reap", reap()) {
                    if ended == pid {
                        let killed = 128 + status.signal().unwrap_or(0);
                        return status.code().unwrap_or(killed);
                    }
                }
            }
            Ok(signal) => {
                best_effort("forward a signal", signal::send(pid, signal));
            }
            Err(e) => {
                log::error!("signals cannot be awaited: {e}");
                return 1;
            }
        }
    }
}
