//! Names are bytes, up to 255 of them.

use std::os::unix::ffi::OsStrExt;

use super::support::lab::{Lab, outline};
use super::support::layers::MarkFormat;
use super::support::sys;

fn long(first: u8, len: usize) -> Vec<u8> {
    let mut name = vec![b'n'; len];
    name[0] = first;
    name
}

/// Names of every length near the longest can be used in every way, and deleted.
fn long_names(words: &str, longest: usize) {
    let Some(lab) = Lab::new() else { return };
    let lower = lab.dir("l");
    let in_lower = |name: &[u8]| [lower.as_os_str().as_bytes(), b"/", name].concat();
    let lengths: Vec<usize> = (248..=longest).collect();
    for &len in &lengths {
        std::fs::write(
            std::ffi::OsStr::from_bytes(&in_lower(&long(b'a', len))),
            "a",
        )
        .expect("a lower file");
        sys::mkdir(in_lower(&long(b'd', len)), 0o755).expect("a lower directory");
    }
    let stack = lab.stack("long", std::slice::from_ref(&lower)).words(words);
    let mounted = lab.mount_stack("long", &stack);
    let p = |name: &[u8]| [mounted.path().as_os_str().as_bytes(), b"/", name].concat();
    for &len in &lengths {
        let new = p(&long(b'n', len));
        sys::open(&new, libc::O_CREAT | libc::O_WRONLY, 0o644).expect("create");
        sys::rename(&new, p(&long(b'm', len)), 0).expect("rename");
        sys::link(p(&long(b'm', len)), p(&long(b'h', len))).expect("link");
        sys::symlink("x", p(&long(b's', len))).expect("symlink");
        sys::mkdir(p(&long(b'k', len)), 0o755).expect("mkdir");
        sys::chmod(p(&long(b'a', len)), 0o600).expect("copy-up");
        sys::unlink(p(&long(b'a', len))).unwrap_or_else(|e| panic!("unlink, {len}: {e}"));
        sys::rmdir(p(&long(b'd', len))).unwrap_or_else(|e| panic!("rmdir, {len}: {e}"));
        sys::mkdir(p(&long(b'd', len)), 0o755).expect("mkdir again");
        sys::rmdir(p(&long(b'd', len))).expect("rmdir again");
    }
    assert_eq!(
        sys::mkdir(p(&long(b'x', 256)), 0o755),
        Err(libc::ENAMETOOLONG)
    );
    let view = outline(mounted.path());
    assert_eq!(view.len(), lengths.len() * 4 + 1);
    mounted.unmount().expect("it unmounts");
    let again = lab.mount_stack("long", &stack);
    assert_eq!(outline(again.path()), view, "after a remount");
}

#[test]
fn names_of_255_bytes_work() {
    long_names("allow_other,suid,dev", 255);
}

/// `.wh.` takes four bytes: longer names cannot be marked by a file, all others can.
#[test]
fn names_of_251_bytes_can_be_deleted_by_files() {
    long_names("allow_other,suid,dev,marks=files", 251);
}

#[test]
fn any_bytes_are_a_name() {
    let Some(lab) = Lab::new() else { return };
    let lower = lab.layer("l", MarkFormat::Overlay, &["dir d"]);
    let mounted = lab.mount("bytes", &[lower]);
    let p = |name: &[u8]| [mounted.path().as_os_str().as_bytes(), b"/d/", name].concat();
    let names: Vec<Vec<u8>> = (1..=255u8)
        .filter(|b| *b != b'/')
        .map(|b| vec![b, b'-', b])
        .collect();
    for name in &names {
        sys::open(p(name), libc::O_CREAT | libc::O_WRONLY, 0o644).expect("create");
    }
    let mut seen: Vec<Vec<u8>> = sys::list(p(b"."))
        .expect("it can be listed")
        .into_iter()
        .map(|e| e.name)
        .collect();
    seen.sort();
    assert_eq!(seen, names);
    for name in &names {
        sys::unlink(p(name)).expect("unlink");
    }
    for refused in [&b"."[..], b".."] {
        assert!(sys::mkdir(p(refused), 0o755).is_err());
    }
}
