//! What goes wrong: which system calls fail, and with what.

use plyfs::error::Errno;
use plyfs::sys::fault::Fault;

/// No system call answers this: what comes after the last call.
pub const ENDED: Errno = Errno(3999);

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Wrong {
    /// This call, once.
    Fails(usize, Errno),
    /// All calls from this one on that need room.
    DiskFull(usize),
    /// All calls from this one on that change anything.
    ReadOnly(usize),
    /// Nothing is done any more from this call on.
    Ends(usize),
}

impl Wrong {
    pub fn fault(self) -> Fault {
        match self {
            Wrong::Fails(at, errno) => Fault::Once(at, errno),
            Wrong::DiskFull(at) => Fault::From(at, takes_room, Errno::ENOSPC),
            Wrong::ReadOnly(at) => Fault::From(at, changes, Errno::EROFS),
            Wrong::Ends(at) => Fault::From(at, |_| true, ENDED),
        }
    }

    /// The call that it begins with.
    pub fn at(self) -> usize {
        match self {
            Wrong::Fails(at, _) | Wrong::DiskFull(at) | Wrong::ReadOnly(at) | Wrong::Ends(at) => at,
        }
    }

    pub fn errno(self) -> Errno {
        match self {
            Wrong::Fails(_, errno) => errno,
            Wrong::DiskFull(_) => Errno::ENOSPC,
            Wrong::ReadOnly(_) => Errno::EROFS,
            Wrong::Ends(_) => ENDED,
        }
    }
}

pub fn takes_room(call: &str) -> bool {
    matches!(
        call,
        "openat(O_CREAT)"
            | "mkdirat"
            | "mknodat"
            | "symlinkat"
            | "linkat"
            | "renameat2"
            | "setxattr"
            | "pwrite"
            | "copy_file_range"
            | "fallocate"
            | "ioctl(FICLONE)"
    )
}

pub fn changes(call: &str) -> bool {
    takes_room(call)
        || matches!(
            call,
            "unlinkat" | "removexattr" | "ftruncate" | "fchmodat2" | "fchownat" | "utimensat"
        )
        || syncs(call)
}

pub fn syncs(call: &str) -> bool {
    matches!(call, "fsync" | "sync_file_range" | "syncfs")
}

/// What a call may well answer.
pub fn errnos(call: &str) -> &'static [Errno] {
    match call {
        "openat(O_CREAT)" => &[
            Errno::ENOSPC,
            Errno::EDQUOT,
            Errno::EIO,
            Errno::EMFILE,
            Errno::EPERM,
        ],
        "openat" => &[Errno::EIO, Errno::EMFILE, Errno::EACCES, Errno::ENOMEM],
        "linkat" => &[
            Errno::ENOSPC,
            Errno::EDQUOT,
            Errno::EIO,
            Errno::EPERM,
            Errno::EMLINK,
        ],
        "ioctl(FICLONE)" => &[Errno::EOPNOTSUPP, Errno::ENOSPC, Errno::EIO],
        "pwrite" | "copy_file_range" | "ftruncate" | "fallocate" => {
            &[Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EFBIG]
        }
        call if syncs(call) => &[Errno::EIO, Errno::ENOSPC, Errno::EDQUOT],
        call if takes_room(call) => &[Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EPERM],
        call if changes(call) => &[Errno::EIO, Errno::EPERM, Errno::ENOSPC],
        _ => &[Errno::EIO, Errno::ENOMEM],
    }
}

/// Which points of an operation are tried.
pub fn points(calls: &[&str], all: bool, salt: usize) -> Vec<Wrong> {
    let mut points = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let errnos = errnos(call);
        if all {
            points.extend(errnos.iter().map(|e| Wrong::Fails(at, *e)));
            points.extend([Wrong::DiskFull(at), Wrong::ReadOnly(at), Wrong::Ends(at)]);
        } else if changes(call) {
            points.push(Wrong::Fails(at, errnos[(at + salt) % errnos.len()]));
            points.push(match (at + salt) % 2 {
                0 => Wrong::DiskFull(at),
                _ => Wrong::ReadOnly(at),
            });
            points.push(Wrong::Ends(at));
        } else if (at + salt).is_multiple_of(4) {
            points.push(Wrong::Fails(at, errnos[(at / 4) % errnos.len()]));
        }
    }
    points
}
