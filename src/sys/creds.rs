//! Acting with a caller's ids: per-thread filesystem uid, gid and umask.
//!
//! Linux keeps these three per thread. A file that is created under them has the
//! right owner, group (SGID directories), quota and default ACL from its first
//! instant, which no chown afterwards can give.

use super::path::check;
use crate::error::SysError;
use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Who asks: the ids and the umask that a new file is made with, and the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem uid.
    pub uid: u32,
    /// Filesystem gid.
    pub gid: u32,
    /// Bits that are masked out unless a default ACL says otherwise.
    pub umask: u32,
    /// The process, for its supplementary groups.
    pub pid: u32,
}

#[derive(Clone, Copy)]
struct ThreadState {
    /// Whether this thread may change its ids and keep its capabilities.
    switches: bool,
    own: (u32, u32),
    umask: u32,
}

thread_local! {
    static STATE: Cell<Option<ThreadState>> = const { Cell::new(None) };
}

fn prepare() -> ThreadState {
    if let Some(state) = STATE.get() {
        return state;
    }
    // SAFETY: no pointers; a thread of its own umask and working directory.
    let own_umask = unsafe { libc::unshare(libc::CLONE_FS) } == 0;
    if !own_umask {
        log::warn!("unshare(CLONE_FS) failed: umasks of callers may mix");
    }
    // SAFETY: no pointers. Without the fix-up, leaving uid 0 keeps the capabilities
    // that let the daemon write where only a supplementary group of the caller may.
    let kept = unsafe {
        let now = libc::prctl(libc::PR_GET_SECUREBITS);
        now >= 0
            && libc::prctl(
                libc::PR_SET_SECUREBITS,
                now as libc::c_ulong | libc::SECBIT_NO_SETUID_FIXUP as libc::c_ulong,
            ) == 0
    };
    // SAFETY: no pointers.
    let (own, umask) = unsafe { ((libc::geteuid(), libc::getegid()), libc::umask(0)) };
    log::trace!("thread prepared: umask was {umask:o}, ids can be switched: {kept}");
    let state = ThreadState {
        switches: kept,
        own,
        umask: 0,
    };
    STATE.set(Some(state));
    state
}

/// Sets this thread's filesystem ids; the call reports nothing, so ask again.
fn set_ids(uid: u32, gid: u32) {
    // SAFETY: no pointers.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

fn current_ids() -> (u32, u32) {
    // SAFETY: no pointers; an id of -1 changes nothing and answers the present one.
    unsafe {
        (
            libc::syscall(libc::SYS_setfsuid, u32::MAX) as u32,
            libc::syscall(libc::SYS_setfsgid, u32::MAX) as u32,
        )
    }
}

/// Runs `act` with the filesystem ids and the umask of `caller`.
///
/// Where the daemon may not change its ids, files belong to the daemon.
pub fn as_caller<T>(caller: &Caller, act: impl FnOnce() -> T) -> T {
    struct Back(Option<(u32, u32)>);
    impl Drop for Back {
        fn drop(&mut self) {
            if let Some((uid, gid)) = self.0 {
                set_ids(uid, gid);
            }
        }
    }
    let mut state = prepare();
    if state.umask != caller.umask {
        // SAFETY: no pointers.
        unsafe { libc::umask(caller.umask) };
        state.umask = caller.umask;
        STATE.set(Some(state));
    }
    let wanted = (caller.uid, caller.gid);
    let _back = if state.switches && wanted != state.own {
        set_ids(wanted.0, wanted.1);
        if current_ids() != wanted {
            log::debug!("ids {wanted:?} have no name here: files belong to the daemon");
        }
        Back(Some(state.own))
    } else {
        Back(None)
    };
    act()
}

/// The supplementary groups of process `pid`, from /proc; empty where it is gone.
pub fn groups_of(pid: u32) -> Vec<u32> {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return Vec::new();
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .map(|list| {
            list.split_whitespace()
                .filter_map(|g| g.parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

/// The effective uid and gid of the daemon.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: no pointers.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// The uid and gid that the kernel shows for ids without a name in this user namespace.
pub fn overflow_ids() -> (u32, u32) {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|s| s.trim().parse().ok())
            .unwrap_or(65534)
    };
    (
        read("/proc/sys/kernel/overflowuid"),
        read("/proc/sys/kernel/overflowgid"),
    )
}

/// Raises the limit of open files to what the system allows; the new limit.
pub fn raise_file_limit() -> Result<u64, SysError> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives across both calls.
    check("getrlimit", unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit)
    })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check("setrlimit", unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    })?;
    Ok(limit.rlim_cur)
}

/// Makes this process's table of descriptors large enough for `count` of them at once, by a
/// copy of `any` that is closed again. Whenever it has to grow while there are threads the
/// kernel waits until no processor looks at the old one (`expand_fdtable` in fs/file.c), which
/// takes 10 ms and more each time that the number of descriptors has doubled.
///
/// # Errors
/// fcntl's.
pub fn reserve_descriptors(any: &impl AsFd, count: u64) -> Result<(), SysError> {
    let last = libc::c_int::try_from(count.saturating_sub(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: `any` is open as long as it is borrowed.
    let copy = unsafe { libc::fcntl(any.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) };
    let copy = check("fcntl", copy)?;
    // SAFETY: it was made just now, and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    Ok(())
}

/// Whether this process has CAP_SYS_ADMIN where it counts for `trusted.` xattrs and
/// whole mounts: in the first user namespace.
pub fn is_system_admin() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let effective = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0);
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
    initial && effective & (1 << CAP_SYS_ADMIN) != 0
}
