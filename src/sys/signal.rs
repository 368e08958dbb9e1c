//! Signals: blocked everywhere and awaited in one place.

use super::path::check;
use crate::error::{Errno, SysError};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;

pub use libc::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// What asks a daemon to end.
pub const TERMINATION: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// Signals that were blocked and are awaited.
#[derive(Clone, Copy)]
pub struct Blocked(libc::sigset_t);

impl std::fmt::Debug for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blocked")
    }
}

/// Blocks `signals` in this thread and in every thread and process that it starts.
pub fn block(signals: &[i32]) -> Result<Blocked, SysError> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` has room for one sigset_t, which sigemptyset fills.
    check("sigemptyset", unsafe {
        libc::sigemptyset(set.as_mut_ptr())
    })?;
    for &signal in signals {
        // SAFETY: `set` was initialised above.
        check("sigaddset", unsafe {
            libc::sigaddset(set.as_mut_ptr(), signal)
        })?;
    }
    // SAFETY: initialised above.
    let set = unsafe { set.assume_init() };
    mask(libc::SIG_BLOCK, &set)?;
    Ok(Blocked(set))
}

fn mask(how: i32, set: &libc::sigset_t) -> Result<(), SysError> {
    // SAFETY: `set` is a live sigset_t; no old mask is asked for.
    let status = unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) };
    if status == 0 {
        Ok(())
    } else {
        Err(SysError {
            call: "pthread_sigmask",
            errno: Errno(status),
        })
    }
}

impl Blocked {
    /// Waits for the next of these signals.
    pub fn wait(&self) -> Result<i32, SysError> {
        let mut signal = 0;
        // SAFETY: both pointers are live across the call.
        let status = unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        if status == 0 {
            Ok(signal)
        } else {
            Err(SysError {
                call: "sigwait",
                errno: Errno(status),
            })
        }
    }

    /// Lets these signals through again in the child that `command` starts, which would
    /// otherwise inherit that they are blocked.
    pub fn release_in(self, command: &mut Command) {
        let release = move || mask(libc::SIG_UNBLOCK, &self.0).map_err(std::io::Error::from);
        // SAFETY: only pthread_sigmask(3) runs between fork and exec: async-signal-safe.
        unsafe { command.pre_exec(release) };
    }
}

/// Sets whether `signal` is ignored, or does what it does by default.
pub fn set_ignored(signal: i32, ignored: bool) -> Result<(), SysError> {
    let action = if ignored {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: neither disposition is a function of ours.
    let before = unsafe { libc::signal(signal, action) };
    if before == libc::SIG_ERR {
        Err(SysError::last("signal"))
    } else {
        Ok(())
    }
}

/// kill(2) of one process.
pub fn send(pid: i32, signal: i32) -> Result<(), SysError> {
    // SAFETY: no pointers.
    check("kill", unsafe { libc::kill(pid, signal) }).map(drop)
}

/// The name of `signal`, for the log.
pub fn name(signal: i32) -> &'static str {
    match signal {
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "a signal",
    }
}
