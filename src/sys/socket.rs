//! What the standard library does not do with Unix sockets.

use super::path::check;
use crate::error::SysError;
use std::os::fd::{AsFd, AsRawFd};

/// The uid of who is connected through `socket`, as this user namespace has it.
pub fn peer_uid(socket: &impl AsFd) -> Result<u32, SysError> {
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
    check("getsockopt", status).map(|_| peer.uid)
}

/// Wakes up whoever waits on `socket`: nothing comes any more.
pub fn shut_down(socket: &impl AsFd) -> Result<(), SysError> {
    // SAFETY: no pointers.
    check("shutdown", unsafe {
        libc::shutdown(socket.as_fd().as_raw_fd(), libc::SHUT_RDWR)
    })
    .map(drop)
}
