//! Processes: forking, letting go of the terminal, waiting.

use super::fault;
use super::path::check;
use crate::error::{SysError, best_effort};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

pub use libc::{ECONNABORTED, ENOTCONN, O_PATH};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The one that was there before; the child's number.
    Parent(i32),
    /// The new one.
    Child,
}

/// fork(2). Only for a process that has one thread: the child could otherwise find
/// locked locks.
pub fn fork() -> Result<Forked, SysError> {
    // SAFETY: callers fork before any thread exists, so the child is whole.
    match check("fork", unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// A pipe, both ends close-on-exec: what is written to the second is read from the first.
pub fn pipe() -> Result<(File, File), SysError> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for two descriptors.
    check("pipe2", unsafe {
        libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC)
    })?;
    let [read, write] = ends;
    // SAFETY: the kernel has just given both descriptors to us alone.
    unsafe { Ok((File::from_raw_fd(read), File::from_raw_fd(write))) }
}

/// Waits for the child `pid`.
pub fn wait_for(pid: i32) -> Result<ExitStatus, SysError> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is live across the call.
        match check("waitpid", unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Ok(_) => return Ok(ExitStatus::from_raw(status)),
            Err(e) if e.errno == crate::error::Errno::EINTR => {}
            Err(e) => return Err(e),
        }
    }
}

/// Takes one child that has ended, without waiting; `None` where none has.
pub fn reap() -> Result<Option<(i32, ExitStatus)>, SysError> {
    let mut status = 0;
    // SAFETY: `status` is live across the call.
    let pid = check("waitpid", unsafe {
        libc::waitpid(-1, &raw mut status, libc::WNOHANG)
    })?;
    Ok((pid > 0).then(|| (pid, ExitStatus::from_raw(status))))
}

/// Ends this process at once: nothing is flushed, dropped or awaited.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: no pointers; never returns.
    unsafe { libc::_exit(code) }
}

/// Where the daemon tells the process that started it how it went.
#[derive(Debug)]
pub struct Reporter(File);

impl Reporter {
    /// Says that all is well, and lets go.
    pub fn ready(mut self) -> io::Result<()> {
        self.0.write_all(b"+")
    }

    /// Says why not, and lets go.
    pub fn failed(mut self, line: &str) -> io::Result<()> {
        self.0.write_all(b"-")?;
        self.0.write_all(line.as_bytes())
    }
}

/// What became of the daemon.
#[derive(Debug)]
pub enum Outcome {
    /// It works.
    Ready,
    /// It refused, with this line.
    Failed(String),
    /// It ended without a word.
    Died(ExitStatus),
}

/// The starting process's side of [`fork_daemon`].
#[derive(Debug)]
pub struct Daemon {
    pid: i32,
    news: File,
}

impl Daemon {
    /// Waits for the daemon's one word.
    pub fn outcome(mut self) -> io::Result<Outcome> {
        let mut said = Vec::new();
        self.news.read_to_end(&mut said)?;
        match said.split_first() {
            Some((b'+', _)) => Ok(Outcome::Ready),
            Some((_, line)) => {
                // Its exit is awaited, so that nothing of it is left behind.
                wait_for(self.pid)?;
                Ok(Outcome::Failed(String::from_utf8_lossy(line).into_owned()))
            }
            None => Ok(Outcome::Died(wait_for(self.pid)?)),
        }
    }
}

/// The two sides of [`fork_daemon`].
#[derive(Debug)]
pub enum Side {
    /// The process that the user started.
    Starter(Daemon),
    /// The daemon: alone in its session, its working directory `/`, standard streams on
    /// /dev/null.
    Daemon(Reporter),
}

/// Forks a daemon. Only before any thread exists.
pub fn fork_daemon() -> Result<Side, SysError> {
    let (news, report) = pipe()?;
    match fork()? {
        Forked::Parent(pid) => {
            drop(report);
            Ok(Side::Starter(Daemon { pid, news }))
        }
        Forked::Child => {
            drop(news);
            let reporter = Reporter(report);
            // Whoever called is the starter's code: this process must not return there.
            if let Err(e) = detach() {
                let line = format!("daemon: {e}; it needs /dev/null, or use --foreground");
                exit_now(i32::from(reporter.failed(&line).is_ok()));
            }
            Ok(Side::Daemon(reporter))
        }
    }
}

fn detach() -> Result<(), SysError> {
    // SAFETY: no pointers.
    check("setsid", unsafe { libc::setsid() })?;
    // SAFETY: a NUL-terminated string.
    check("chdir", unsafe { libc::chdir(c"/".as_ptr()) })?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|_| SysError::last("open of /dev/null"))?;
    for stream in 0..=2 {
        // SAFETY: no pointers; the standard streams stay open, on another file.
        check("dup2", unsafe { libc::dup2(null.as_raw_fd(), stream) })?;
    }
    Ok(())
}

/// Sets the mask of file modes; the one before.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { libc::umask(mask) }
}

/// The signal that this process gets when the one that started it ends.
pub fn set_parent_death_signal(signal: i32) -> Result<(), SysError> {
    // SAFETY: no pointers.
    check("prctl", unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0)
    })
    .map(drop)
}

/// How often the calling thread had slept to wait for something (getrusage(2), RUSAGE_THREAD).
#[derive(Clone, Copy, Debug)]
pub struct Waits(libc::c_long);

impl Waits {
    /// Until now.
    pub fn so_far() -> Waits {
        // SAFETY: zeros are a rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` outlives the call.
        let got = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        best_effort("count waits", check("getrusage", got));
        Waits(usage.ru_nvcsw)
    }

    /// Whether it has since.
    pub fn are_more(self) -> bool {
        fault::waited(Waits::so_far().0 > self.0)
    }
}

/// Has the calling thread give way to others, on the processor and on disks that know of it.
///
/// # Errors
/// setpriority's.
pub fn give_way() -> Result<(), SysError> {
    const NICE: libc::c_int = 10;
    const WHO_PROCESS: libc::c_int = 1;
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: no pointers; 0 is the calling thread, which Linux takes for a process here.
    unsafe {
        check(
            "ioprio_set",
            libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE) as libc::c_int,
        )?;
        check(
            "setpriority",
            libc::setpriority(libc::PRIO_PROCESS, 0, NICE),
        )
        .map(drop)
    }
}

/// Waits until the process `pid` has ended, at most `limit`; whether it has.
pub fn wait_gone(pid: i32, limit: Duration) -> Result<bool, SysError> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = match check("pidfd_open", fd as libc::c_int) {
        Ok(fd) => fd,
        Err(e) if e.errno.0 == libc::ESRCH => return Ok(true),
        // Before Linux 5.3, or under a filter that does not know the call.
        Err(e) if matches!(e.errno.0, libc::ENOSYS | libc::EPERM) => {
            return Ok(look_until_gone(pid, limit));
        }
        Err(e) => return Err(e),
    };
    // SAFETY: the kernel has just given this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut wanted = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `wanted` is one live pollfd.
    let ready = check("poll", unsafe { libc::poll(&raw mut wanted, 1, millis) })?;
    Ok(ready > 0)
}

/// [`wait_gone`] without a descriptor of the process to wait on.
fn look_until_gone(pid: i32, limit: Duration) -> bool {
    const PAUSE: Duration = Duration::from_millis(5);
    let end = std::time::Instant::now() + limit;
    loop {
        // SAFETY: no pointers; signal 0 only asks whether there is such a process.
        if unsafe { libc::kill(pid, 0) } != 0
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
        {
            return true;
        }
        if std::time::Instant::now() >= end {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether this process may `access` the file at `path` with its effective ids.
pub fn may_access(path: &std::path::Path, access: Access) -> Result<(), SysError> {
    let path = super::path::c_path("faccessat", path)?;
    let mode = match access {
        Access::Enter => libc::X_OK,
        Access::List => libc::R_OK | libc::X_OK,
        Access::Change => libc::R_OK | libc::W_OK | libc::X_OK,
    };
    // SAFETY: `path` is NUL-terminated.
    let asked = check("faccessat", unsafe {
        libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS)
    });
    match asked {
        // The C library asks by faccessat2(2), which a filter may not know; EACCES is what
        // says that access is denied.
        Err(e) if e.errno.0 == libc::EPERM => {
            // SAFETY: `path` is NUL-terminated.
            let status =
                unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), mode) };
            check("faccessat", status as libc::c_int).map(drop)
        }
        other => other.map(drop),
    }
}

/// What [`may_access`] asks for, of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reach what is in it.
    Enter,
    /// See what is in it.
    List,
    /// See and change what is in it.
    Change,
}

/// Whether `fd` is an open FUSE device.
pub fn is_fuse_device(fd: i32) -> bool {
    /// The number of /dev/fuse: misc major, its own minor.
    const FUSE: (u32, u32) = (10, 229);
    let mut out = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `out` has room for one stat; a wrong descriptor is answered with EBADF.
    let status = unsafe { libc::fstat(fd, out.as_mut_ptr()) };
    // SAFETY: zeroed is a valid stat.
    let found = unsafe { out.assume_init() };
    status == 0
        && found.st_mode & libc::S_IFMT == libc::S_IFCHR
        && (libc::major(found.st_rdev), libc::minor(found.st_rdev)) == FUSE
}

/// Takes over the descriptor `fd`, which whoever started this process left open for it;
/// `None` where it is no FUSE device.
pub fn take_fuse_device(fd: i32) -> Option<OwnedFd> {
    if !is_fuse_device(fd) {
        return None;
    }
    // SAFETY: no pointers; a copy, so that nobody else's descriptor is closed by us.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: the kernel has just given this descriptor to us alone.
    (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Whether the kernel still has the connection of the FUSE device `fd`.
pub fn is_connected(fd: &OwnedFd) -> bool {
    let mut asked = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: `asked` is one live pollfd; no time is waited.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready == 0 || asked.revents & libc::POLLERR == 0
}
