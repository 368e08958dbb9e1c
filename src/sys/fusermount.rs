//! fusermount3, the setuid program that mounts FUSE for those who may not call mount(2).

use super::path::check;
use crate::error::SysError;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Why the program did not do it.
#[derive(Debug)]
pub enum Failure {
    /// Neither fusermount3 nor fusermount is installed.
    Missing,
    /// It said no; its last line, without its own name.
    Refused(String),
    /// It could not be run or answered nonsense.
    Broken(io::Error),
}

/// Where it is looked for: on PATH first, then where distributions keep it.
const PROGRAMS: [&str; 6] = [
    "fusermount3",
    "fusermount",
    "/usr/bin/fusermount3",
    "/bin/fusermount3",
    "/usr/bin/fusermount",
    "/bin/fusermount",
];

/// Runs the first program that exists, as `prepare` sets it up.
fn run(prepare: impl Fn(&mut Command)) -> Result<Output, Failure> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env("LC_ALL", "C");
        prepare(&mut command);
        match command.output() {
            Ok(output) => return Ok(output),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::Broken(e)),
        }
    }
    Err(Failure::Missing)
}

/// The last thing that the program said, without its own name in front.
fn reason(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().rfind(|line| !line.trim().is_empty());
    let line = line.unwrap_or("it gave no reason").trim();
    let without_name = line.split_once(": ").filter(|(name, _)| {
        name.rsplit('/')
            .next()
            .is_some_and(|program| program.starts_with("fusermount"))
    });
    without_name.map_or(line, |(_, rest)| rest).to_owned()
}

/// Mounts at `target` with the words `options`; the connected device.
pub fn mount(target: &Path, options: &str) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = UnixStream::pair().map_err(Failure::Broken)?;
    let raw = theirs.as_raw_fd();
    let output = run(|command| {
        command
            .arg("-o")
            .arg(options)
            .arg("--")
            .arg(target)
            .env("_FUSE_COMMFD", raw.to_string());
        // SAFETY: only fcntl(2) runs between fork and exec: async-signal-safe, and `raw`
        // is open until `theirs` is dropped below.
        unsafe { command.pre_exec(move || keep_across_exec(raw)) };
    })?;
    drop(theirs);
    if !output.status.success() {
        return Err(Failure::Refused(reason(&output)));
    }
    receive_descriptor(&ours).map_err(Failure::Broken)
}

/// Unmounts `target`; `lazy` detaches it at once.
pub fn unmount(target: &Path, lazy: bool) -> Result<(), Failure> {
    let output = run(|command| {
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        command.arg("--").arg(target);
    })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Failure::Refused(reason(&output)))
    }
}

fn keep_across_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; F_SETFD with no flags clears close-on-exec.
    check("fcntl", unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
    Ok(())
}

/// Receives the one descriptor that the program sends with SCM_RIGHTS.
fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    #[repr(align(16))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    let got = loop {
        // SAFETY: `message` points at buffers of the stated sizes that outlive the call.
        let got =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if got >= 0 {
            break got;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let nothing = || io::Error::new(io::ErrorKind::InvalidData, "it sent no descriptor");
    if got == 0 {
        return Err(nothing());
    }
    // SAFETY: the kernel has filled `message`; the macro checks the control length.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        return Err(nothing());
    }
    // SAFETY: not null, so it points at a whole cmsghdr inside `control`.
    let (level, kind, len) = unsafe {
        (
            (*header).cmsg_level,
            (*header).cmsg_type,
            (*header).cmsg_len as usize,
        )
    };
    // SAFETY: arithmetic only.
    let wanted = unsafe { libc::CMSG_LEN(size_of::<RawFd>() as u32) } as usize;
    if level != libc::SOL_SOCKET || kind != libc::SCM_RIGHTS || len < wanted {
        return Err(nothing());
    }
    // SAFETY: the header says that a descriptor follows it; it may be unaligned. The
    // kernel has just given it to us alone.
    let fd = unsafe {
        let raw = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>());
        OwnedFd::from_raw_fd(raw)
    };
    Ok(fd)
}

impl From<SysError> for Failure {
    fn from(e: SysError) -> Failure {
        Failure::Broken(e.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn failed(said: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(256),
            stdout: Vec::new(),
            stderr: said.as_bytes().to_vec(),
        }
    }

    #[test]
    fn the_reason_is_the_last_line_without_the_programs_name() {
        let said = "warning\n/usr/bin/fusermount3: user has no write access: denied\n\n";
        assert_eq!(reason(&failed(said)), "user has no write access: denied");
        assert_eq!(reason(&failed("odd: thing")), "odd: thing");
        assert_eq!(reason(&failed("")), "it gave no reason");
    }
}
