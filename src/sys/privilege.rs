//! What the kernel lets a caller keep of the setuid and setgid bits that he could lose: two
//! questions, asked of CAP_FSETID.
//!
//! ```text
//! a write, truncation or allocation   capable(): in the first user namespace alone
//! chmod, chown, an ACL                capable_wrt_inode_uidgid(): in the caller's own, over a
//!                                     file whose owner and group have a name there
//! ```
//! So root of a container in a user namespace loses setuid by a write, but is no stranger to
//! the groups of his files.

use super::creds::{Caller, groups_of};
use std::fs;

const CAP_FSETID: u32 = 3;

/// Whether the process `status` (proc(5)) is about has the capability `number`, in its own user
/// namespace.
fn has_capability(status: &str, number: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set & (1 << number) != 0)
}

/// Whether `map` (uid_map or gid_map, see user_namespaces(7)) is that of the first namespace.
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether `map`, which was read from outside its namespace, has a name for `id` there.
fn names(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().skip(1).map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(length))) = (numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first.saturating_add(length)).contains(&u64::from(id))
    })
}

/// What /proc says of the caller.
struct Process {
    /// Whether he has CAP_FSETID where he is.
    capable: bool,
    /// Whether he is in the user namespace of the daemon.
    is_here: bool,
    /// Whether that is the first one.
    here_is_first: bool,
}

fn here_is_first() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_whole(&map))
}

impl Process {
    /// `None` where the process has no number here, or is gone.
    fn of(caller: &Caller) -> Option<Process> {
        if caller.pid == 0 {
            return None;
        }
        let place = |who: &str| fs::read_link(format!("/proc/{who}/ns/user")).ok();
        let pid = caller.pid.to_string();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Process {
            capable: has_capability(&status, CAP_FSETID),
            is_here: place(&pid)? == place("self")?,
            here_is_first: here_is_first(),
        })
    }
}

/// Whether a write by `caller` leaves setuid and setgid alone.
pub fn keeps_at_write(caller: &Caller) -> bool {
    match Process::of(caller) {
        Some(it) => it.capable && it.is_here && it.here_is_first,
        None => caller.uid == 0 && here_is_first(),
    }
}

/// Whether `caller` may keep setgid on a file of `uid` and `gid`, as the daemon calls them: for
/// being in that group, or for ruling over both.
pub fn keeps_setgid(caller: &Caller, uid: u32, gid: u32) -> bool {
    if caller.gid == gid || groups_of(caller.pid).contains(&gid) {
        return true;
    }
    let map = |which: &str| {
        fs::read_to_string(format!("/proc/{}/{which}", caller.pid)).unwrap_or_default()
    };
    match Process::of(caller) {
        Some(it) if !it.capable => false,
        Some(it) => it.is_here || names(&map("uid_map"), uid) && names(&map("gid_map"), gid),
        None => caller.uid == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_bits_of_a_hexadecimal_number() {
        let status = "Name:\tsh\nCapInh:\t0000000000000000\nCapEff:\t0000000000000008\n";
        assert!(has_capability(status, CAP_FSETID));
        assert!(!has_capability(status, 2));
        assert!(!has_capability("CapEff:\tnone\n", CAP_FSETID));
        assert!(!has_capability("", CAP_FSETID));
    }

    #[test]
    fn an_id_has_a_name_where_a_line_of_the_map_covers_it() {
        let map = "         0     100000       1000\n      1000       5000          1\n";
        for (id, named) in [
            (99_999, false),
            (100_000, true),
            (100_999, true),
            (101_000, false),
            (5_000, true),
            (0, false),
        ] {
            assert_eq!(names(map, id), named, "{id}");
        }
        assert!(!names("", 0) && !names("0 x 1", 0));
        assert!(is_whole("         0          0 4294967295\n") && !is_whole(map));
    }
}
