//! What a union is to those who ask for the identity of a filesystem or of a file.

use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::{skip, sys};
use plyfs::sys::fs::{O_DIRECTORY, O_PATH, O_RDONLY, file_handle, has_handle, open_path};
use plyfs::sys::path::At;
use std::path::Path;

const ORIGIN: &str = "trusted.overlay.origin";

/// Where the UUID of the filesystem stands in an origin.
const UUID: std::ops::Range<usize> = 5..21;

fn origin(upper: &Path) -> Vec<u8> {
    sys::lgetxattr(at(upper, "f"), ORIGIN).expect("an origin")
}

#[test]
fn origins_are_overlayfss_own_with_every_uuid() {
    let Some(lab) = Lab::new() else { return };
    if !skip::has_filesystem("overlay") {
        return;
    }
    let lower = lab.layer("l", MarkFormat::Overlay, &["file f"]);
    for uuid in ["off", "null", "auto", "on"] {
        let (name, kernels) = (format!("p-{uuid}"), format!("k-{uuid}"));
        let words = format!("uuid={uuid}");
        let stack = lab.stack(&name, std::slice::from_ref(&lower)).words(&words);
        let mounted = lab.mount_stack(&name, &stack);
        shell(mounted.path(), "chmod 600 f");
        mounted.unmount().expect("it unmounts");
        let stack = lab
            .stack(&kernels, std::slice::from_ref(&lower))
            .words(&words);
        let mounted = lab.mount_kernel(&kernels, &stack);
        shell(mounted.path(), "chmod 600 f");
        mounted.unmount().expect("it unmounts");
        let found = origin(&lab.upper(&name));
        assert_eq!(found, origin(&lab.upper(&kernels)), "{uuid}");
        if uuid == "off" {
            assert!(found[UUID].iter().all(|b| *b == 0));
        }
    }
}

#[test]
fn with_uuid_off_a_copy_keeps_its_number_on_a_filesystem_of_another_uuid() {
    let Some(lab) = Lab::new() else { return };
    let lower = lab.layer("l", MarkFormat::Overlay, &["file f", "file g"]);
    let stack = lab.stack("a", &[lower]).words("uuid=off");
    let mounted = lab.mount_stack("a", &stack);
    let ino = || sys::lstat(at(mounted.path(), "f")).expect("lstat").ino;
    let before = ino();
    shell(mounted.path(), "echo x >> f");
    assert_eq!(ino(), before);
    mounted.unmount().expect("it unmounts");
    // An origin of a filesystem with a UUID is none for this mount.
    let mut other = origin(&lab.upper("a"));
    let mounted = lab.mount_stack("a", &stack);
    let ino = || sys::lstat(at(mounted.path(), "f")).expect("lstat").ino;
    assert_eq!(ino(), before, "found again");
    mounted.unmount().expect("it unmounts");
    other[UUID].fill(7);
    sys::lsetxattr(at(&lab.upper("a"), "f"), ORIGIN, &other, 0).expect("setxattr");
    let mounted = lab.mount_stack("a", &stack);
    let ino = || sys::lstat(at(mounted.path(), "f")).expect("lstat").ino;
    assert_ne!(ino(), before);
}

/// FUSE's answer to statfs has no room for an identity, and the kernel makes none up. It makes
/// file handles, and finds again whatever it has in memory; nothing more was ever promised to it.
#[test]
fn a_union_has_no_fsid_and_handles_for_as_long_as_the_kernel_knows_the_file() {
    let Some(lab) = Lab::new() else { return };
    let lower = lab.layer("l", MarkFormat::Overlay, &["file f"]);
    let stack = lab.stack("a", &[lower]);
    let open = |path: &Path, flags| open_path(path, flags).expect("open");
    let mounted = lab.mount_stack("a", &stack);
    let fs = sys::statfs(at(mounted.path(), "")).expect("statfs");
    let fsid = format!("{:?}", fs.f_fsid);
    assert!(
        !fsid.contains(['1', '2', '3', '4', '5', '6', '7', '8', '9']),
        "{fsid}"
    );
    let root = open(mounted.path(), O_RDONLY | O_DIRECTORY);
    let file = open(&mounted.path().join("f"), O_PATH);
    let handle = file_handle(At::fd(&file)).expect("a handle");
    assert_eq!(has_handle(&root, &handle), Ok(true));
    drop((root, file));
    mounted.unmount().expect("it unmounts");
    let mounted = lab.mount_stack("a", &stack);
    let root = open(mounted.path(), O_RDONLY | O_DIRECTORY);
    assert_eq!(
        has_handle(&root, &handle),
        Ok(false),
        "nobody looked it up yet"
    );
    drop(root);
}
