//! Layers made to mislead: nothing outside a layer is ever read or changed.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::support::lab::{Lab, at, build, outline, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{Stack, Subject};
use super::support::sys;

/// Swaps two names for as long as `work` runs, as fast as it can.
fn while_swapping<T>(a: &Path, b: &Path, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sys::rename(
                    a.as_os_str().as_bytes(),
                    b.as_os_str().as_bytes(),
                    libc::RENAME_EXCHANGE,
                )
                .expect("two names of a layer can be swapped");
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        while rounds.load(Ordering::Relaxed) == 0 && !swapper.is_finished() {
            std::thread::yield_now();
        }
        let result = work();
        stop.store(true, Ordering::Relaxed);
        swapper.join().expect("the swapper does not panic");
        result
    })
}

/// A lower `l` with d/file, beside it a secret, and in `l` a symlink `trap` that leads there. Seen
/// from the mount, the symlink's target leads nowhere.
fn trapped(lab: &Lab, layer: &str) {
    build(
        &lab.path(layer),
        MarkFormat::Overlay,
        &["dir d", "file d/file", "symlink trap ../secret", "dir d/s"],
    );
    build(
        &lab.path("secret"),
        MarkFormat::Overlay,
        &["file file 20", "file only-secret", "dir s", "file s/deep"],
    );
}

#[test]
fn a_directory_swapped_for_a_symlink_does_not_lead_out_of_a_lower() {
    let Some(lab) = Lab::new() else { return };
    trapped(&lab, "l");
    let stack = lab.stack("swap", &[lab.path("l")]);
    let secret = outline(&lab.path("secret"));
    let end = Instant::now() + Duration::from_secs(4);
    let mut round = 0;
    while Instant::now() < end {
        // A fresh mount each time: what is cached cannot be misled.
        let mounted = lab.mount_stack("swap", &stack);
        let m = mounted.path();
        while_swapping(&lab.path("l/d"), &lab.path("l/trap"), || {
            for _ in 0..40 {
                round += 1;
                let new = at(m, &format!("d/new{round}"));
                let made = sys::open(&new, libc::O_CREAT | libc::O_WRONLY, 0o644);
                drop(made);
                for name in ["d/only-secret", "d/s/deep"] {
                    assert!(
                        sys::lstat(at(m, name)).is_err(),
                        "{name} shows through a symlink of the layer"
                    );
                }
                if let Ok(stat) = sys::lstat(at(m, "d/file")) {
                    assert_eq!(stat.size, 10, "d/file is the layer's own");
                }
                let gone = sys::unlink(at(m, "d/file"));
                assert_ne!(gone, Err(libc::ENOTCONN), "the mount lives");
                if let Ok(entries) = sys::list(at(m, "d")) {
                    assert!(
                        !entries.iter().any(|e| e.name == b"only-secret"),
                        "a listing leads out"
                    );
                }
            }
        });
        mounted.unmount().expect("it unmounts");
    }
    assert_eq!(
        outline(&lab.path("secret")),
        secret,
        "what lies outside is as it was"
    );
}

#[test]
fn an_upper_directory_swapped_for_a_symlink_does_not_lead_out() {
    let Some(lab) = Lab::new() else { return };
    build(&lab.path("l"), MarkFormat::Overlay, &["dir x"]);
    build(
        &lab.path("u-up"),
        MarkFormat::Overlay,
        &["dir d", "file d/file", "dir d/s", "symlink trap ../secret"],
    );
    build(
        &lab.path("secret"),
        MarkFormat::Overlay,
        &["file file 20", "file only-secret"],
    );
    let secret = outline(&lab.path("secret"));
    let end = Instant::now() + Duration::from_secs(3);
    let mut round = 0;
    while Instant::now() < end {
        let mounted = lab.mount("up", &[lab.path("l")]);
        let m = mounted.path();
        while_swapping(&lab.path("u-up/d"), &lab.path("u-up/trap"), || {
            for _ in 0..40 {
                round += 1;
                let tries = [
                    sys::mkdir(at(m, &format!("d/n{round}")), 0o755),
                    sys::unlink(at(m, "d/file")),
                    sys::truncate(at(m, "d/file"), 3),
                    sys::chmod(at(m, "d/file"), 0o600),
                    sys::rename(at(m, "d/file"), at(m, "d/other"), 0),
                    sys::link(at(m, "d/other"), at(m, &format!("d/l{round}"))),
                ];
                assert!(
                    tries.iter().all(|t| t != &Err(libc::ENOTCONN)),
                    "the mount lives"
                );
            }
        });
        mounted.unmount().expect("it unmounts");
    }
    assert_eq!(
        outline(&lab.path("secret")),
        secret,
        "what lies outside is as it was"
    );
}

#[test]
fn symlinks_of_a_layer_are_shown_and_not_followed() {
    let Some(lab) = Lab::new() else { return };
    let top = lab.layer(
        "top",
        MarkFormat::Overlay,
        &["symlink d /etc", "symlink e ../bottom/e"],
    );
    let bottom = lab.layer(
        "bottom",
        MarkFormat::Overlay,
        &["dir d", "file d/below", "dir e", "file e/below"],
    );
    let mounted = lab.mount("links", &[top, bottom]);
    for name in ["d", "e"] {
        let stat = sys::lstat(at(mounted.path(), name)).expect("it is there");
        assert!(stat.is_symlink(), "{name}: a symlink ends the search");
    }
    assert_eq!(
        sys::lstat(at(mounted.path(), "e/below")).err(),
        Some(libc::ENOENT)
    );
}

#[test]
fn marks_made_by_hand_do_what_they_say_or_nothing() {
    let Some(lab) = Lab::new() else { return };
    let top = lab.layer(
        "top",
        MarkFormat::Overlay,
        &[
            // A whiteout hides what lies below, not its own layer's file.
            "file .wh.both 0",
            "file both 20",
            "file .wh.gone 0",
            "file .wh..wh.plnk 0",
            "dir .wh..wh.orph",
            "dir d",
            "file d/.wh..wh..opq 0",
            "file d/own",
            "dir e",
            "dir e/.wh.in",
            "file .wh. 0",
        ],
    );
    let bottom = lab.layer(
        "bottom",
        MarkFormat::Overlay,
        &[
            "file both",
            "file gone",
            "dir d",
            "file d/hidden",
            "dir e",
            "file e/in",
            "file stays",
        ],
    );
    let mounted = lab.mount("marks", &[top, bottom]);
    let names: Vec<String> = {
        let mut all: Vec<String> = sys::list(mounted.path().as_os_str().as_bytes())
            .expect("the root can be listed")
            .iter()
            .map(|e| String::from_utf8_lossy(&e.name).into_owned())
            .collect();
        all.sort();
        all
    };
    assert_eq!(names, ["both", "d", "e", "stays"]);
    assert_eq!(
        sys::lstat(at(mounted.path(), "both")).map(|s| s.size),
        Ok(20)
    );
    assert_eq!(shell(mounted.path(), "ls d"), "own\n");
    for hidden in [
        ".wh.both",
        ".wh.gone",
        ".wh..wh.plnk",
        "d/.wh..wh..opq",
        "e/.wh.in",
        "gone",
        "d/hidden",
    ] {
        assert_eq!(
            sys::lstat(at(mounted.path(), hidden)).err(),
            Some(libc::ENOENT),
            "{hidden}"
        );
    }
}

#[test]
fn a_user_cannot_make_a_mark() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["dir d", "file d/f", "file f"]);
    let mounted = lab.mount("mark", &[l]);
    let m = mounted.path();
    let einval = Err(libc::EINVAL);
    for name in [".wh.f", "d/.wh.f", "d/.wh..wh..opq", ".wh."] {
        let p = at(m, name);
        assert_eq!(
            sys::open(&p, libc::O_CREAT | libc::O_WRONLY, 0o644).map(drop),
            einval,
            "create {name}"
        );
        assert_eq!(sys::mkdir(&p, 0o755), einval, "mkdir {name}");
        assert_eq!(sys::symlink("x", &p), einval, "symlink {name}");
        assert_eq!(
            sys::mknod(&p, libc::S_IFIFO | 0o644, 0),
            einval,
            "mknod {name}"
        );
        assert_eq!(sys::link(at(m, "f"), &p), einval, "link to {name}");
        assert_eq!(sys::rename(at(m, "f"), &p, 0), einval, "rename to {name}");
    }
    let device = sys::mknod(at(m, "dev"), libc::S_IFCHR | 0o644, 0);
    assert_eq!(
        device,
        Err(libc::EPERM),
        "a device 0:0 is a whiteout, and the kernel refuses it too"
    );
    assert!(sys::lstat(at(m, "d/f")).is_ok());
    assert_eq!(
        outline(&lab.upper("mark")),
        outline(&lab.dir("empty")),
        "nothing was written"
    );
}

#[test]
fn overlayfs_marks_alone_let_wh_names_through() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file f", "file .wh.f 3"]);
    let stack = lab
        .stack("plain", &[l])
        .words("allow_other,suid,dev,marks=overlay");
    let mounted = lab.mount_stack("plain", &stack);
    let names = shell(mounted.path(), "touch .wh.new; ls -A");
    assert_eq!(names, ".wh.f\n.wh.new\nf\n");
}

/// What only the kernel's own layers may say is not believed from a user's xattr, and the other
/// way round nothing hostile gets a mount to fail.
#[test]
fn odd_values_of_marks_are_harmless() {
    let Some(lab) = Lab::new() else { return };
    let top = lab.layer(
        "top",
        MarkFormat::Overlay,
        &[
            "dir a",
            "xattr a trusted.overlay.opaque yes",
            "dir b",
            "xattr b trusted.overlay.redirect /etc",
            "dir c",
            "xattr c trusted.overlay.origin garbage",
            "file f",
            "xattr f trusted.overlay.metacopy %",
        ],
    );
    let bottom = lab.layer(
        "bottom",
        MarkFormat::Overlay,
        &[
            "dir a", "file a/x", "dir b", "file b/x", "dir c", "file c/x",
        ],
    );
    let stack = Stack::new(&[top, bottom]);
    let mounted = lab
        .try_mount("odd", &stack, Subject::Plyfs)
        .expect("it mounts");
    let _names = shell(mounted.path(), "ls -l a b c >/dev/null || true; ls c");
    assert!(
        sys::lstat(at(mounted.path(), "b/passwd")).is_err(),
        "a redirect does not lead out"
    );
}
