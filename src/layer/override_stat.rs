//! Owner, mode and type of a file in an xattr of a regular file or directory that belongs to
//! the daemon: for stores whose owner may not give files away.
//!
//! ```text
//! value = uid ":" gid ":" mode [ ":" type ]          mode in octal, with or without its type
//! type  = "file" | "dir" | "symlink" | "pipe" | "socket"
//!       | "block-" major "-" minor | "char-" major "-" minor
//! ```
//! Three fields are what fuse-overlayfs writes and older stores have, four what plyfs and
//! newer ones do. The mode on disk grants the daemon what it needs, and others no more than
//! the kept one grants everybody; write access it grants to nobody else.

use crate::sys::fs::{
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, Stat,
};

/// The bits of a mode that chmod(2) changes.
pub const BITS: u32 = 0o7777;
/// What no id is; fuse-overlayfs 1.10 writes it for one that it did not know.
const NO_ID: i64 = -1;

/// What the xattr says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: u32,
    /// Type and device numbers.
    kind: Option<(u32, (u32, u32))>,
}

fn parse_id(word: &str) -> Option<Option<u32>> {
    match word.parse::<i64>().ok()? {
        NO_ID => Some(None),
        id => Some(Some(u32::try_from(id).ok()?).filter(|id| *id != u32::MAX)),
    }
}

fn parse_kind(word: &str) -> Option<(u32, (u32, u32))> {
    let device = |format, numbers: &str| {
        let (major, minor) = numbers.split_once('-')?;
        Some((format, (major.parse().ok()?, minor.parse().ok()?)))
    };
    match word {
        "file" => Some((S_IFREG, (0, 0))),
        "dir" => Some((S_IFDIR, (0, 0))),
        "symlink" => Some((S_IFLNK, (0, 0))),
        "pipe" => Some((S_IFIFO, (0, 0))),
        "socket" => Some((S_IFSOCK, (0, 0))),
        _ => match (word.strip_prefix("block-"), word.strip_prefix("char-")) {
            (Some(numbers), _) => device(S_IFBLK, numbers),
            (_, Some(numbers)) => device(S_IFCHR, numbers),
            _ => None,
        },
    }
}

impl Override {
    /// What `value` says; `None` where that makes no sense.
    pub fn parse(value: &[u8]) -> Option<Override> {
        let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
        let mut words = text.split(':');
        let (uid, gid) = (parse_id(words.next()?)?, parse_id(words.next()?)?);
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let kind = match words.next() {
            Some(word) => Some(parse_kind(word)?),
            None => match mode & S_IFMT {
                // Their device numbers are not there.
                0 | S_IFBLK | S_IFCHR => None,
                format => Some((format, (0, 0))),
            },
        };
        (words.next().is_none() && mode & !(S_IFMT | BITS) == 0).then_some(Override {
            uid,
            gid,
            mode: mode & BITS,
            kind,
        })
    }

    /// What a file is that `stat` describes as it is on disk.
    pub fn apply(&self, stat: &mut Stat) {
        let real = stat.format();
        (stat.uid, stat.gid) = (self.uid.unwrap_or(stat.uid), self.gid.unwrap_or(stat.gid));
        stat.mode = real | self.mode;
        // A directory is one, and nothing else is.
        if let Some((format, rdev)) = self.kind
            && real == S_IFREG
            && format != S_IFDIR
        {
            stat.mode = format | self.mode;
            stat.rdev = rdev;
        }
    }
}

/// The value for a file that `stat` describes.
pub fn format(stat: &Stat) -> String {
    let (major, minor) = stat.rdev;
    let kind = match stat.format() {
        S_IFDIR => "dir".to_owned(),
        S_IFLNK => "symlink".to_owned(),
        S_IFIFO => "pipe".to_owned(),
        S_IFSOCK => "socket".to_owned(),
        S_IFBLK => format!("block-{major}-{minor}"),
        S_IFCHR => format!("char-{major}-{minor}"),
        _ => "file".to_owned(),
    };
    let bits = stat.mode & BITS;
    format!("{}:{}:0{bits:o}:{kind}", stat.uid, stat.gid)
}

/// The mode on disk of what has `mode` in the union.
pub fn disk_mode(mode: u32) -> u32 {
    let others = mode & 0o005;
    let own = match mode & S_IFMT {
        S_IFDIR => 0o700,
        _ => 0o600 | mode & 0o100,
    };
    own | others << 3 | others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: &str, real: u32) -> (u32, u32, u32, (u32, u32)) {
        let mut stat = Stat {
            mode: real,
            uid: 1000,
            gid: 1001,
            ..Stat::default()
        };
        if let Some(said) = Override::parse(value.as_bytes()) {
            said.apply(&mut stat);
        }
        (stat.uid, stat.gid, stat.mode, stat.rdev)
    }

    #[test]
    fn both_widths_are_read() {
        let file = S_IFREG | 0o600;
        assert_eq!(told("5:6:644", file), (5, 6, S_IFREG | 0o644, (0, 0)));
        assert_eq!(told("5:6:0644", file), (5, 6, S_IFREG | 0o644, (0, 0)));
        assert_eq!(
            told("5:6:0104755:file", file),
            (5, 6, S_IFREG | 0o4755, (0, 0))
        );
        assert_eq!(
            told("0:0:040555", S_IFDIR | 0o700),
            (0, 0, S_IFDIR | 0o555, (0, 0))
        );
        assert_eq!(
            told("0:0:0555:dir", S_IFDIR | 0o700),
            (0, 0, S_IFDIR | 0o555, (0, 0))
        );
        assert_eq!(told("3:-1:10644", file), (3, 1001, S_IFIFO | 0o644, (0, 0)));
    }

    #[test]
    fn every_type_is_written_as_it_is_read() {
        for (mode, rdev) in [
            (S_IFREG | 0o6711, (0, 0)),
            (S_IFCHR | 0o666, (1, 3)),
            (S_IFBLK | 0o660, (259, 70000)),
            (S_IFIFO | 0o1600, (0, 0)),
            (S_IFSOCK | 0o755, (0, 0)),
            (S_IFLNK | 0o777, (0, 0)),
        ] {
            let stat = Stat {
                mode,
                rdev,
                uid: 7,
                gid: 8,
                ..Stat::default()
            };
            let value = format(&stat);
            assert_eq!(told(&value, S_IFREG | 0o600), (7, 8, mode, rdev), "{value}");
        }
    }

    #[test]
    fn a_directory_stays_one_and_no_file_becomes_one() {
        assert_eq!(told("0:0:0755:file", S_IFDIR | 0o700).2, S_IFDIR | 0o755);
        assert_eq!(
            told("0:0:0755:char-1-3", S_IFDIR | 0o700).2,
            S_IFDIR | 0o755
        );
        assert_eq!(told("0:0:0755:dir", S_IFREG | 0o600).2, S_IFREG | 0o755);
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for bad in [
            "",
            "0",
            "0:0",
            "0:0:",
            "0:0:9",
            "a:0:644",
            "0:0:644:",
            "0:0:644:door",
            "0:0:644:char-1",
            "0:0:644:char-1-x",
            "0:0:644:file:x",
            "0:0:7777777",
            "-2:0:644",
            "4294967296:0:644",
        ] {
            let real = S_IFREG | 0o600;
            assert_eq!(told(bad, real), (1000, 1001, real, (0, 0)), "{bad}");
        }
    }

    #[test]
    fn the_mode_on_disk_is_never_wider() {
        for mode in 0..0o10000 {
            let disk = disk_mode(S_IFREG | mode);
            assert_eq!(disk & 0o022, 0, "{mode:o}");
            assert_eq!(
                disk & 0o055 & !(mode & 0o005 | (mode & 0o005) << 3),
                0,
                "{mode:o}"
            );
            assert_eq!(disk & 0o7000, 0, "{mode:o}");
            assert_eq!(disk & 0o600, 0o600);
        }
        assert_eq!(disk_mode(S_IFDIR | 0o3777), 0o755);
        assert_eq!(disk_mode(S_IFREG | 0o640), 0o600);
    }
}
