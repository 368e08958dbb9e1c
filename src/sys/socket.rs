//! What the standard library does not do with Unix sockets.

use super::path::check;
use crate::error::SysError;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Connects to the socket at `path`; waits no longer than `patience` (and at least 1 µs)
/// where too many others wait for the same listener.
///
/// # Errors
/// WouldBlock where that was not enough, else those of connect(2).
pub fn connect_within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    let bytes = path.as_os_str().as_bytes();
    // One is left for the NUL at the end.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    stream.set_write_timeout(Some(patience.max(Duration::from_micros(1))))?;
    // SAFETY: `address` is a whole sockaddr_un, and its length is said.
    let status = unsafe {
        libc::connect(
            stream.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Who is connected through a socket; of one that listened, who made it listen.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its process; `None` where this process cannot see it.
    pub pid: Option<i32>,
    /// Its uid, as this user namespace has it.
    pub uid: u32,
}

/// Who is connected through `socket` (SO_PEERCRED in unix(7)).
pub fn peer(socket: &impl AsFd) -> Result<Peer, SysError> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` has room for the `len` bytes that are said.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    check("getsockopt", status).map(|_| Peer {
        pid: (peer.pid != 0).then_some(peer.pid),
        uid: peer.uid,
    })
}

/// Wakes up whoever waits on `socket`: nothing comes any more.
pub fn shut_down(socket: &impl AsFd) -> Result<(), SysError> {
    // SAFETY: no pointers.
    check("shutdown", unsafe {
        libc::shutdown(socket.as_fd().as_raw_fd(), libc::SHUT_RDWR)
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_listener_that_takes_nobody_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let moment = Duration::from_millis(1);
        let kind = |connected: io::Result<UnixStream>| connected.map(drop).map_err(|e| e.kind());
        assert_eq!(
            kind(connect_within(&path, moment)),
            Err(io::ErrorKind::NotFound)
        );
        let listener = UnixListener::bind(&path).expect("a socket");
        // SAFETY: no pointers. A listener that is told to keep none waiting keeps one.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let first = connect_within(&path, moment).expect("it connects");
        assert_eq!(
            kind(connect_within(&path, moment)),
            Err(io::ErrorKind::WouldBlock)
        );
        drop((first, listener));
        assert_eq!(
            kind(connect_within(&path, moment)),
            Err(io::ErrorKind::ConnectionRefused)
        );
    }
}
