//! User, mount and process namespaces for `plyfs run`.

use super::path::check;
use super::process::Forked;
use crate::error::SysError;

/// Moves this process into a new user namespace and a new mount namespace of it.
/// Only for a process that has one thread.
pub fn enter_user_and_mounts() -> Result<(), SysError> {
    // SAFETY: no pointers.
    check("unshare", unsafe {
        libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
    })
    .map(drop)
}

/// Moves this process into a copy of its mount namespace.
pub fn enter_mounts() -> Result<(), SysError> {
    // SAFETY: no pointers.
    check("unshare", unsafe { libc::unshare(libc::CLONE_NEWNS) }).map(drop)
}

/// As [`fork`](super::process::fork); the child is the first process of a new process
/// namespace, so that all it leaves behind ends with it.
pub fn fork_first_of_new_pids() -> Result<Forked, SysError> {
    let flags = libc::CLONE_NEWPID as libc::c_ulong | libc::SIGCHLD as libc::c_ulong;
    // SAFETY: without CLONE_VM and with no stack given this is fork(2) with one more
    // namespace; callers have one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    match check("clone", pid as libc::c_int)? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Becomes root of this user namespace, in every respect.
pub fn become_root() -> Result<(), SysError> {
    // SAFETY: no pointers.
    unsafe {
        check("setresgid", libc::setresgid(0, 0, 0))?;
        check("setresuid", libc::setresuid(0, 0, 0))?;
    }
    Ok(())
}

/// The real uid and gid.
pub fn real_ids() -> (u32, u32) {
    // SAFETY: no pointers.
    unsafe { (libc::getuid(), libc::getgid()) }
}
