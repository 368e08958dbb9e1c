//! Which ids the command's namespace has, and who writes them into the kernel.
//!
//! Root brings all its ids along, each as itself. An ordinary user is root inside, and
//! its ranges of /etc/subuid and /etc/subgid are the others, if newuidmap and newgidmap
//! are there to say so; otherwise there is root alone.

use crate::error::{Errno, SysError, best_effort};
use crate::sys::process::{self, Forked, exit_now, fork, wait_for};
use crate::sys::{creds, userns};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Whose ids the namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Root outside is root inside, and owns the same files.
    Same,
    /// Root inside is an ordinary user outside.
    User,
}

/// `count` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// The two maps, where someone outside has to write them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Maps {
    uids: Vec<Range>,
    gids: Vec<Range>,
    /// Written by newuidmap and newgidmap; else straight into /proc.
    by_helpers: bool,
}

/// Enters a new user and mount namespace and becomes root there.
///
/// # Errors
/// Where the kernel refuses.
pub fn enter() -> Result<Identity, SysError> {
    let (uid, gid) = creds::effective_ids();
    let (identity, maps) = if uid == 0 {
        (Identity::Same, own_maps())
    } else {
        (Identity::User, subordinate_maps(uid, gid))
    };
    let mapper = maps.map(Mapper::start).transpose()?;
    userns::enter_user_and_mounts()?;
    let mapped = mapper.is_some_and(|mapper| mapper.finish());
    if !mapped {
        log::info!("root is the only user inside: no subordinate ids for uid {uid}");
        map_alone(uid, gid)?;
    }
    userns::become_root()?;
    Ok(if mapped { identity } else { Identity::User })
}

fn io_error(call: &'static str) -> impl Fn(std::io::Error) -> SysError {
    move |e| SysError {
        call,
        errno: Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)),
    }
}

/// The map that everyone may write: one id.
fn map_alone(uid: u32, gid: u32) -> Result<(), SysError> {
    let write = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
    // gid_map can only be written alone by someone who cannot drop groups any more. A
    // helper may have written one of the two maps; then that one stays.
    best_effort("deny setgroups", write("setgroups", "deny".into()));
    let uids = write("uid_map", format!("0 {uid} 1"));
    let gids = write("gid_map", format!("0 {gid} 1"));
    let has_map = |file: &str| fs::read(format!("/proc/self/{file}")).is_ok_and(|m| !m.is_empty());
    if !has_map("uid_map") {
        uids.map_err(io_error("write of uid_map"))?;
    }
    if !has_map("gid_map") {
        gids.map_err(io_error("write of gid_map"))?;
    }
    Ok(())
}

/// All ids that there are in this namespace, each as itself.
fn own_maps() -> Option<Maps> {
    let read = |file: &str| {
        let text = fs::read_to_string(file).ok()?;
        let ranges: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut numbers = line.split_whitespace().map(str::parse);
                let inside = numbers.next()?.ok()?;
                let count = numbers.nth(1)?.ok()?;
                Some(Range {
                    inside,
                    outside: inside,
                    count,
                })
            })
            .collect();
        (!ranges.is_empty()).then_some(ranges)
    };
    Some(Maps {
        uids: read("/proc/self/uid_map")?,
        gids: read("/proc/self/gid_map")?,
        by_helpers: false,
    })
}

/// The user's own id as root, and its subordinate ids after it.
fn subordinate_maps(uid: u32, gid: u32) -> Option<Maps> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = user_name(&passwd, uid);
    let read = |file: &str, own: u32| {
        let text = best_effort(file, fs::read_to_string(file))?;
        let ranges = subordinate_ranges(&text, name, uid);
        let mut next = 1u32;
        let mut map = vec![Range {
            inside: 0,
            outside: own,
            count: 1,
        }];
        for (outside, count) in ranges {
            map.push(Range {
                inside: next,
                outside,
                count,
            });
            next = next.checked_add(count)?;
        }
        (map.len() > 1).then_some(map)
    };
    Some(Maps {
        uids: read("/etc/subuid", uid)?,
        gids: read("/etc/subgid", gid)?,
        by_helpers: true,
    })
}

/// The name of `uid` in /etc/passwd.
fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The lines of /etc/subuid for this user, by name or number: first id and count.
fn subordinate_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            if Some(owner) != name && owner.parse() != Ok(uid) {
                return None;
            }
            let first = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok()?;
            (count > 0).then_some((first, count))
        })
        .collect()
}

/// A child that stays outside until the namespace is there, and then writes its maps.
struct Mapper {
    pid: i32,
    go: fs::File,
}

impl Mapper {
    fn start(maps: Maps) -> Result<Mapper, SysError> {
        let target = std::process::id();
        let (mut wait, go) = process::pipe()?;
        match fork()? {
            Forked::Parent(pid) => Ok(Mapper { pid, go }),
            Forked::Child => {
                drop(go);
                let mut word = [0];
                // Nothing to read: the namespace was refused.
                if wait.read_exact(&mut word).is_err() {
                    exit_now(1);
                }
                let written = if maps.by_helpers {
                    ask_helper("newuidmap", target, &maps.uids)
                        && ask_helper("newgidmap", target, &maps.gids)
                } else {
                    write_map(&format!("/proc/{target}/uid_map"), &maps.uids)
                        && write_map(&format!("/proc/{target}/gid_map"), &maps.gids)
                };
                exit_now(i32::from(!written));
            }
        }
    }

    /// Lets the child write, and waits for it; whether it could.
    fn finish(mut self) -> bool {
        if best_effort("start the id mapper", self.go.write_all(b"+")).is_none() {
            return false;
        }
        best_effort("wait for the id mapper", wait_for(self.pid))
            .is_some_and(|status| status.success())
    }
}

fn write_map(file: &str, map: &[Range]) -> bool {
    let text: String = map
        .iter()
        .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
        .collect();
    best_effort(file, fs::write(Path::new(file), text)).is_some()
}

fn ask_helper(program: &str, target: u32, map: &[Range]) -> bool {
    let mut command = Command::new(program);
    command.arg(target.to_string());
    for range in map {
        for number in [range.inside, range.outside, range.count] {
            command.arg(number.to_string());
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match best_effort(program, command.output()) {
        Some(output) if output.status.success() => true,
        Some(output) => {
            log::warn!("{}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "eve:1:2\nada:100000:65536\n1000:300000:10\nada:bad:1\nada:5:0\n";
        assert_eq!(
            subordinate_ranges(text, Some("ada"), 1000),
            [(100000, 65536), (300000, 10)]
        );
        assert_eq!(subordinate_ranges(text, None, 7), []);
    }

    #[test]
    fn the_name_of_a_uid_is_read_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("ada"));
        assert_eq!(user_name(passwd, 1), None);
    }
}
