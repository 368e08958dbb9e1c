//! Extended attributes: the union's own do not show, a user's are never lost.

use super::support::lab::{Lab, at, build, shell};
use super::support::layers::MarkFormat;
use super::support::mount::Stack;
use super::support::sys;

fn names(path: &[u8]) -> Vec<String> {
    let mut names: Vec<String> = sys::llistxattr(path)
        .expect("xattrs can be listed")
        .into_iter()
        .map(|n| String::from_utf8_lossy(&n).into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn what_the_union_notes_for_itself_does_not_show() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "dir d",
            "file d/f",
            "xattr d/f user.mine 1",
            "file h1",
            "link h2 h1",
            "dir e",
            "file e/x",
            "dir g",
            "opaque g",
        ],
    );
    let mounted = lab.mount("hide", &[l]);
    let m = mounted.path();
    shell(
        m,
        "echo x >> d/f; echo y >> h1; rm -r e; mkdir e; chmod 700 d; touch g/new",
    );
    for (path, expected) in [
        (".", vec![]),
        ("d", vec![]),
        ("d/f", vec!["user.mine".to_string()]),
        ("h1", vec![]),
        ("h2", vec![]),
        ("e", vec![]),
        ("g", vec![]),
    ] {
        assert_eq!(names(&at(m, path)), expected, "{path}");
    }
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.origin",
        "user.fuseoverlayfs.opaque",
    ] {
        assert_eq!(
            sys::lgetxattr(at(m, "e"), name).err(),
            Some(libc::ENODATA),
            "{name}"
        );
        assert_eq!(
            sys::lremovexattr(at(m, "e"), name).err(),
            Some(libc::ENODATA),
            "{name}"
        );
    }
    assert_eq!(
        sys::list(at(m, "e")).map(|l| l.len()),
        Ok(0),
        "e stays opaque"
    );
}

#[test]
fn a_users_xattr_in_the_unions_namespace_is_kept_apart() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d", "file d/f", "dir e", "file e/f"],
    );
    let stack = lab.stack("escape", &[l]);
    let mounted = lab.mount_stack("escape", &stack);
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.overlay.opaque",
    ] {
        let d = at(mounted.path(), "d");
        sys::lsetxattr(&d, name, b"y", 0)
            .unwrap_or_else(|e| panic!("{name}: {}", sys::errno_name(e)));
        assert_eq!(sys::lgetxattr(&d, name).as_deref(), Ok(&b"y"[..]), "{name}");
        assert!(names(&d).contains(&name.to_string()), "{name}");
    }
    mounted.unmount().expect("it unmounts");
    let again = lab.mount_stack("escape", &stack);
    let d = at(again.path(), "d");
    assert_eq!(
        names(&d),
        [
            "trusted.overlay.opaque",
            "trusted.overlay.overlay.opaque",
            "trusted.overlay.redirect"
        ]
    );
    assert_eq!(
        shell(again.path(), "ls d"),
        "f\n",
        "a user's mark is only an xattr"
    );
    sys::lremovexattr(&d, "trusted.overlay.opaque").expect("a user's xattr can be removed");
    assert_eq!(names(&d).len(), 2);
    // The kernel reads the escaped ones as what they are.
    again.unmount().expect("it unmounts");
    let kernel = lab.mount_kernel(
        "escape-kernel",
        &Stack::new(&[lab.upper("escape"), lab.path("l")]),
    );
    assert_eq!(shell(kernel.path(), "ls d"), "f\n");
}

#[test]
fn every_xattr_of_a_lower_is_copied_up() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.path("l");
    build(
        &l,
        MarkFormat::Overlay,
        &["file f", "dir d", "symlink s f", "fifo p"],
    );
    let big = vec![b'v'; 2000];
    for (name, value) in [
        ("user.a", &b""[..]),
        ("user.b", &big),
        ("trusted.c", b"\0bin\xff"),
        ("user.\u{e9}", b"1"),
    ] {
        sys::lsetxattr(at(&l, "f"), name, value, 0).expect("an xattr of a lower file");
    }
    for path in ["d", "s", "p"] {
        sys::lsetxattr(at(&l, path), "trusted.t", path.as_bytes(), 0).expect("an xattr of a lower");
    }
    let mounted = lab.mount("copy", std::slice::from_ref(&l));
    let m = mounted.path();
    for path in ["f", "d", "s", "p"] {
        sys::lchown(at(m, path), 5, 6).expect("chown");
        assert_eq!(names(&at(m, path)), names(&at(&l, path)), "{path}");
        for name in names(&at(&l, path)) {
            assert_eq!(
                sys::lgetxattr(at(m, path), &name),
                sys::lgetxattr(at(&l, path), &name),
                "{path} {name}"
            );
        }
    }
}

#[test]
fn sizes_are_asked_for_with_no_buffer_as_getxattr_says() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["file f", "xattr f user.note 12345"],
    );
    let mounted = lab.mount("size", &[l]);
    let out = shell(
        mounted.path(),
        "getfattr -d -m - f 2>/dev/null || echo none; cp -a f g; getfattr -d -m - g",
    );
    assert!(out.contains("user.note=\"12345\""), "{out}");
    assert_eq!(out.matches("user.note").count(), 2, "{out}");
}

/// What asking for an xattr that no file has answers, in the end: until it answers otherwise,
/// or so many times.
fn asked_often(path: &[u8], times: usize) -> Option<libc::c_int> {
    let ask = || sys::lgetxattr(path, "user.other").err();
    (0..times)
        .map(|_| ask())
        .find(|answer| *answer != Some(libc::ENODATA))
        .unwrap_or_else(ask)
}

#[test]
fn the_kernel_asks_no_more_for_xattrs_where_nobody_writes_and_there_are_none() {
    let Some(lab) = Lab::new() else { return };
    let lines = ["dir d", "file d/f", "dir e", "opaque e", "whiteout gone"];
    let bare = lab.layer("bare", MarkFormat::Overlay, &lines);
    let mounted = lab.mount_stack("bare", &Stack::new(std::slice::from_ref(&bare)));
    let file = at(mounted.path(), "d/f");
    assert_eq!(asked_often(&file, 1_000_000), Some(libc::EOPNOTSUPP));
    // An upper may get some.
    let written = lab.mount("written", &[bare]);
    let file = at(written.path(), "d/f");
    assert_eq!(asked_often(&file, 5_000), Some(libc::ENODATA));
    sys::lsetxattr(&file, "user.mine", b"1", 0).expect("it can be set");
    assert_eq!(names(&file), ["user.mine"]);
}

#[test]
fn one_xattr_in_any_layer_is_seen_however_often_others_are_asked_for() {
    let Some(lab) = Lab::new() else { return };
    let upper = lab.layer("top", MarkFormat::Overlay, &["dir d", "file d/f"]);
    let lines = ["dir d", "dir d/e", "file d/e/x", "xattr d/e/x user.mine 1"];
    let lower = lab.layer("low", MarkFormat::Overlay, &lines);
    let mounted = lab.mount_stack("one", &Stack::new(&[upper, lower]));
    let file = at(mounted.path(), "d/f");
    assert_eq!(asked_often(&file, 5_000), Some(libc::ENODATA));
    let other = at(mounted.path(), "d/e/x");
    assert_eq!(sys::lgetxattr(other, "user.mine"), Ok(b"1".to_vec()));
}
