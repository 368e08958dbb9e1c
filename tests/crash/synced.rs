//! What fdatasync makes durable: on the disk as it is right after.

use std::path::Path;
use std::process::Command;

use crate::disk::LoopDevice;
use crate::recording::{Mounted, Site, make_base};
use crate::support::backing::{Backing, Kind};
use crate::support::bytes::fill;
use crate::support::mount::Subject;
use crate::support::{skip, sys};

/// What a line of the union's operations changes, and whether `prepare` comes before, with a
/// commit of the filesystem in between.
const CASES: &[(&str, &str, u64)] = &[
    // A write where the copy has its data already: nothing but the name is new.
    ("", "d/f", 0),
    ("", "big", 300_000),
    // The data comes to a file that was copied up without.
    ("chmod d/f", "d/f", 0),
    ("chmod d/g", "d/h", 0),
    // As long as the name is new to the disk.
    ("write d/f 0", "d/f", 5000),
];

fn try_case(kind: Kind, tune: &[&str], backing: &Backing, case: usize) {
    let (prepare, path, offset) = CASES[case];
    let dir = backing.dir(&format!("{case}"));
    let site = Site {
        mount: backing.dir("mnt"),
        elsewhere: None,
        subject: Subject::Plyfs,
        union: backing.dir("union"),
        words: String::new(),
    };
    let Some(base) = make_base(kind, &dir, &site) else {
        return;
    };
    let (image, cut) = (dir.join("image"), dir.join("cut"));
    base.save(&image);
    if !tune.is_empty() {
        let tuned = Command::new("tune2fs").args(tune).arg(&image).output();
        let tuned = tuned.expect("tune2fs can be run");
        assert!(tuned.status.success(), "{tuned:?}");
    }
    let device = LoopDevice::new(&image, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, device.path(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let union = site.open().unwrap_or_else(|e| panic!("{e}"));
    if !prepare.is_empty() {
        union.perform(prepare).unwrap_or_else(|e| panic!("{e}"));
    }
    commit(&site.mount);
    for line in [
        format!("write {path} {offset}"),
        format!("fdatasync {path}"),
    ] {
        union.perform(&line).unwrap_or_else(|e| panic!("{e}"));
    }
    let wanted = union.files().unwrap_or_else(|e| panic!("{e}"));
    std::fs::copy(&image, &cut).expect("an image can be copied");
    drop(union);
    drop(mounted);
    drop(device);
    let device = LoopDevice::new(&cut, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = Mounted::new(kind, device.path(), &site.mount).unwrap_or_else(|e| panic!("{e}"));
    let union = site.open().unwrap_or_else(|e| panic!("{e}"));
    let seen = union.files().unwrap_or_else(|e| panic!("{e}"));
    let name = format!("/{path}");
    let data = seen[&name].data.as_ref().expect("a regular file");
    assert!(
        seen[&name].data == wanted[&name].data,
        "{}, {prepare:?}: {path} is {} bytes long and written {}",
        kind.name(),
        data.len(),
        data[offset as usize..].starts_with(&fill(9, offset, 3000))
    );
    drop(union);
    drop(mounted);
    drop(device);
}

fn commit(mount: &Path) {
    let dir = sys::open(mount.as_os_str().as_encoded_bytes(), libc::O_RDONLY, 0);
    dir.and_then(|dir| sys::syncfs(&dir))
        .expect("a filesystem can be synced");
}

fn run_on(kind: Kind, tune: &[&str]) {
    let tool = format!("mkfs.{}", kind.name());
    if !sys::is_root() || !skip::has_filesystem(kind.name()) || !skip::has_tool(&tool) {
        skip::skipped("needs root and the filesystem");
        return;
    }
    let Some(backing) = Backing::sized(Kind::Tmpfs, 2 << 30) else {
        return;
    };
    for case in 0..CASES.len() {
        try_case(kind, tune, &backing, case);
    }
}

#[test]
fn fdatasync_of_a_copied_up_file_syncs_its_name_on_ext4() {
    run_on(Kind::Ext4, &[]);
}

#[test]
fn fdatasync_of_a_copied_up_file_syncs_its_name_on_xfs() {
    run_on(Kind::Xfs, &[]);
}

#[test]
fn fdatasync_of_a_copied_up_file_syncs_its_name_on_btrfs() {
    run_on(Kind::Btrfs, &[]);
}

/// Where the journal does not keep the order, each copy is synced before it gets its name, and then
/// fdatasync by itself has nothing to do.
#[test]
fn fdatasync_of_a_copy_that_was_synced_syncs_its_name() {
    let options = [
        "-o",
        "journal_data_writeback",
        "-E",
        "mount_opts=journal_async_commit",
    ];
    run_on(Kind::Ext4, &options);
}
