//! Lower layers on idmapped mounts, as podman hands them over.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::lab::{Lab, shell};
use crate::support::layers::MarkFormat;
use crate::support::skip;
use crate::{owners, shell_as};

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;

/// A user namespace in which `inside` is `outside`, by a child that sleeps in it.
pub fn namespace(map: &str) -> (std::process::Child, OwnedFd) {
    let mut child = Command::new("unshare")
        .args(["-U", "sh", "-c", "echo in; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare starts");
    let mut said = [0u8; 3];
    let out = child.stdout.as_mut().expect("piped");
    std::io::Read::read_exact(out, &mut said).expect("it is in its namespace");
    let proc = format!("/proc/{}", child.id());
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("{proc}/{file}"), map).expect("a map");
    }
    let ns = std::fs::File::open(format!("{proc}/ns/user")).expect("a namespace");
    (child, ns.into())
}

/// Mounts `from` at `to`, with the owners of the namespace `ns`.
fn bind_idmapped(from: &Path, to: &Path, ns: &OwnedFd) -> std::io::Result<()> {
    let path = |p: &Path| std::ffi::CString::new(p.as_os_str().as_encoded_bytes()).expect("a path");
    let (from, to) = (path(from), path(to));
    let check = |status: i64| match status {
        -1 => Err(std::io::Error::last_os_error()),
        value => Ok(value as i32),
    };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let attr = libc::mount_attr {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: ns.as_raw_fd() as u64,
    };
    let empty = c"".as_ptr();
    // SAFETY: NUL-terminated strings, live descriptors, and one mount_attr of its own size.
    unsafe {
        let tree = check(libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            from.as_ptr(),
            flags,
        ))?;
        let tree = OwnedFd::from_raw_fd(tree);
        check(libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty,
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        ))?;
        check(libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty,
            libc::AT_FDCWD,
            to.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        ))?;
    }
    Ok(())
}

#[test]
fn the_owners_of_an_idmapped_lower_are_not_mapped_again() {
    let Some(lab) = Lab::new() else { return };
    if !skip::has_tool("unshare") || !crate::has_tools() {
        return;
    }
    let lines = [
        "file f 644 0:0 1000000000.5 10 0+10+7",
        "file g 644 7:8 1000000000.5 10 0+10+7",
    ];
    let plain = lab.layer("plain", MarkFormat::Overlay, &["dir p 777", "file p/h"]);
    let layer = lab.layer("l", MarkFormat::Overlay, &lines);
    let at = lab.dir("idmapped");
    let (mut child, ns) = namespace("0 1 5000\n");
    if let Err(e) = bind_idmapped(&layer, &at, &ns) {
        child.kill().expect("it ends");
        child.wait().expect("it ends");
        return skip::skipped(&format!("no idmapped mounts here: {e}"));
    }
    let words = "allow_other,uidmapping=:0:1:5000,gidmapping=:0:1:5000";
    let stack = lab.stack("m", &[at.clone(), plain]).words(words);
    let mounted = lab.mount_stack("m", &stack);
    let m = mounted.path();
    assert_eq!(owners(m, "f g p/h"), "1:1 8:9 1:1");
    shell_as(1, m, "echo x >> f; touch p/new");
    shell(m, "chmod 600 g; chown 3 p/h");
    assert_eq!(owners(m, "f g p/h p/new"), "1:1 8:9 3:1 1:1");
    assert_eq!(owners(&lab.upper("m"), "f g p/h p/new"), "0:0 7:8 2:0 0:0");
    mounted.unmount().expect("it unmounts");
    // What is kept in xattrs no mount maps.
    let key = "user.containers.override_stat";
    shell(&layer, &format!("setfattr -n {key} -v 3:4:0640:file f"));
    let words = format!("{words},xattr_permissions=2");
    let stack = lab.stack("k", std::slice::from_ref(&at)).words(&words);
    let mounted = lab.mount_stack("k", &stack);
    let m = mounted.path();
    assert_eq!(owners(m, "f g"), "4:5 8:9");
    shell(m, "touch f g; chmod g+w f");
    assert_eq!(owners(m, "f g"), "4:5 8:9");
    let kept = shell(
        &lab.upper("k"),
        &format!("getfattr --only-values -n {key} f g"),
    );
    assert_eq!(kept, "3:4:0660:file7:8:0644:file");
    mounted.unmount().expect("it unmounts");
    shell(&lab.path("."), "umount idmapped");
    child.kill().expect("it ends");
    child.wait().expect("it ends");
}
