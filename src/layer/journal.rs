//! Filesystems that put what was changed on the disk in the order in which it was changed.
//!
//! On these, a file whose data has been written out may be named, or lose a mark, without
//! being synced first: after a power cut the name is there only together with the data.
//!
//! ext4 and XFS write data before they note in their journal that a block holds any
//! (`ext4_convert_unwritten_extents`, `xfs_iomap_write_unwritten`: when the write has
//! ended, and before whoever waits for it goes on). What is changed after that comes into
//! the same transaction of the journal or into a later one, and a transaction begins to
//! count with a record before which the disk is told to flush all that it was given, the
//! data too (REQ_PREFLUSH in `journal_submit_commit_record`, XLOG_ICL_NEED_FLUSH).
//!
//! That needs one journal on the disk that has the data, and flushing that is not switched
//! off. btrfs is no such filesystem: a file that is synced is logged on its own.

use crate::sys::fs::Stat;
use crate::sys::magic;
use crate::sys::mountinfo;
use std::path::Path;

/// Since then sync_file_range(2) can be told to leave no page out.
const WRITES_ALL: (u32, u32) = (5, 2);

/// Whether the filesystem with `magic` is one of them; `root` is a directory of it. Where
/// that cannot be found out, it is not.
pub fn keeps_order(magic: i64, root: &Stat) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let asked = match magic {
        magic::EXT4 => ext4(root),
        magic::XFS => xfs(root),
        _ => None,
    };
    is_since(&release, WRITES_ALL) && asked == Some(true)
}

fn is_since(release: &str, least: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    next().zip(next()).is_some_and(|version| version >= least)
}

/// A journal of its own inode, `barrier`, and no mode that writes data by another way.
fn ext4(root: &Stat) -> Option<bool> {
    let (major, minor) = root.device();
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let device = link.file_name()?.to_str()?;
    let options = std::fs::read_to_string(format!("/proc/fs/ext4/{device}/options")).ok()?;
    // A journal on another disk is called like that disk.
    let inside = Path::new(&format!("/proc/fs/jbd2/{device}-8")).exists();
    Some(inside && ext4_keeps_order(&options))
}

fn ext4_keeps_order(options: &str) -> bool {
    let has = |word: &str| options.lines().any(|line| line == word);
    has("barrier") && (has("data=ordered") || has("data=writeback")) && !has("journal_async_commit")
}

/// No second disk.
fn xfs(root: &Stat) -> Option<bool> {
    let mounts = mountinfo::read().ok()?;
    let mount = mounts.iter().find(|m| m.dev == root.device())?;
    Some(xfs_keeps_order(&mount.fs_options))
}

fn xfs_keeps_order(options: &str) -> bool {
    let elsewhere = |word: &str| word.starts_with("logdev=") || word.starts_with("rtdev=");
    !options.split(',').any(elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_journal_with_flushes_keeps_the_order() {
        assert!(ext4_keeps_order("rw\nbarrier\ncommit=5\ndata=ordered\n"));
        for not in [
            "rw\nnobarrier\ndata=ordered\n",
            "rw\nbarrier\ndata=journal\n",
            "rw\nnojournal\nbarrier\n",
            "rw\nbarrier\ndata=ordered\njournal_async_commit\n",
            "",
        ] {
            assert!(!ext4_keeps_order(not), "{not:?}");
        }
        assert!(xfs_keeps_order("rw,inode64,logbufs=8,noquota"));
        assert!(!xfs_keeps_order("rw,logdev=/dev/sdb,noquota"));
        assert!(!xfs_keeps_order("rw,rtdev=/dev/sdb"));
    }

    #[test]
    fn old_kernels_are_known_by_their_release() {
        assert!(is_since("6.18.0-rc1+\n", WRITES_ALL));
        assert!(is_since("5.2\n", WRITES_ALL));
        assert!(!is_since("5.1.21-generic\n", WRITES_ALL));
        assert!(!is_since("4.20", WRITES_ALL));
        assert!(!is_since("", WRITES_ALL));
    }
}
