//! Uppers on filesystems that lack something.

use std::time::Duration;

use super::scenario::Day;
use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{PLYFS_WORDS, Subject, run};
use super::support::sys;
use super::support::tree::{NodeView, Tree};

fn day_without(filter: &str) -> Option<Tree> {
    let lab = Lab::new()?;
    let day = Day::new(&lab, &lab.path("room")).without(filter);
    day.passes();
    Some(day.upper())
}

/// How many whiteouts are in an upper: devices, files; and opaque marks that are files.
fn marks(upper: &Tree) -> [usize; 3] {
    let count = |is: &dyn Fn(&[u8], &NodeView) -> bool| {
        let name = |path: &[u8]| path.rsplit(|&b| b == b'/').next().map(<[u8]>::to_vec);
        let named =
            |(path, node): &(&Vec<u8>, &NodeView)| is(&name(path).unwrap_or_default(), node);
        upper.iter().filter(named).count()
    };
    let is_opaque = |name: &[u8]| name == b".wh..wh..opq";
    let is_device = |node: &NodeView| node.stat.mode & libc::S_IFMT == libc::S_IFCHR;
    [
        count(&|_, node| is_device(node)),
        count(&|name, _| name.starts_with(b".wh.") && !is_opaque(name)),
        count(&|name, _| is_opaque(name)),
    ]
}

/// A day on an upper that lacks what `filter` takes, whose opaque marks are files then; and its
/// whiteouts too, unless they can be `devices`.
fn marks_are_files_without(filter: &str, devices: bool) {
    let Some(upper) = day_without(filter) else {
        return;
    };
    let [made, files, opaque] = marks(&upper);
    let (many, none) = if devices {
        (made, files)
    } else {
        (files, made)
    };
    assert!(
        many > 5 && none == 0 && opaque > 2,
        "{filter}: {:?}",
        upper.keys()
    );
}

#[test]
fn without_xattrs() {
    marks_are_files_without("no-xattrs", true);
}

#[test]
fn without_device_nodes() {
    marks_are_files_without("no-devices", false);
}

#[test]
fn without_xattrs_and_device_nodes() {
    marks_are_files_without("no-xattrs-no-devices", false);
}

/// Where nothing can be noted, a rename that would have to says EXDEV, and the numbers of
/// files stay the same as long as the mount.
#[test]
fn what_cannot_be_noted_is_refused_or_remembered() {
    for filter in ["no-xattrs", "no-devices", "poorest"] {
        let Some(lab) = Lab::new() else { return };
        let lines = ["dir d", "file d/f", "file a", "link b a", "file c"];
        let lower = lab.layer("lower", MarkFormat::Overlay, &lines);
        let mounted = lab.mount_stack("m", &lab.stack("m", &[lower]).without(filter));
        let path = |name: &str| at(mounted.path(), name);
        assert_eq!(
            sys::rename(path("d"), path("e"), 0),
            Err(libc::EXDEV),
            "{filter}"
        );
        let number = |name: &str| sys::lstat(path(name)).map(|stat| stat.ino);
        let before = [number("d/f"), number("a"), number("c")];
        shell(
            mounted.path(),
            "printf more >> d/f; printf more >> a; mv c g",
        );
        assert_eq!(
            [number("d/f"), number("a"), number("g")],
            before,
            "{filter}"
        );
        if filter == "no-xattrs" {
            // No index holds the names of a lower file together.
            let said = shell(mounted.path(), "wc -c < a; wc -c < b");
            assert_eq!(said, "14\n10\n");
        }
        let refused = sys::lsetxattr(path("a"), "user.x", b"1", 0);
        let expected = if filter == "no-devices" {
            Ok(())
        } else {
            Err(libc::EOPNOTSUPP)
        };
        assert_eq!(refused, expected, "{filter}");
    }
}

#[test]
fn marks_of_overlayfs_alone_need_all_that_they_take() {
    for filter in ["no-xattrs", "no-devices", "no-rename-flags"] {
        let Some(lab) = Lab::new() else { return };
        let stack = lab.stack("m", &[lab.dir("lower")]).without(filter);
        let words = format!("{PLYFS_WORDS},marks=overlay");
        let refusal = lab
            .try_mount("m", &stack.words(&words), Subject::Plyfs)
            .err();
        let said = refusal.unwrap_or_else(|| panic!("{filter}: it is mounted"));
        assert!(
            said.contains("/w-m: the upper's marks cannot be written"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn without_any_flag_of_rename() {
    day_without("no-rename-flags");
}

#[test]
fn without_whiteouts_left_by_rename() {
    day_without("no-whiteout-flag");
}

#[test]
fn without_rename_flags_and_xattrs() {
    day_without("no-rename-flags-no-xattrs");
}

#[test]
fn without_mknod() {
    let Some(lab) = Lab::new() else { return };
    let day = Day::new(&lab, &lab.path("room"))
        .without("no-mknod")
        .without_nodes();
    day.passes();
}

#[test]
fn without_holes_clones_and_copies() {
    day_without("plain-data");
}

#[test]
fn without_handles_uuid_and_locks() {
    day_without("no-identity");
}

#[test]
fn without_hard_links() {
    let Some(lab) = Lab::new() else { return };
    let day = Day::new(&lab, &lab.path("room"))
        .without("no-links")
        .without_links();
    day.passes();
}

#[test]
fn without_all_of_that() {
    let Some(lab) = Lab::new() else { return };
    let day = Day::new(&lab, &lab.path("room"))
        .without("poorest")
        .without_links()
        .without_nodes();
    day.passes();
}

/// Where marks are files there is no room for the mark of the longest names.
#[test]
fn a_name_without_room_for_its_mark_stays() {
    let Some(lab) = Lab::new() else { return };
    let (long, longest) = ("l".repeat(251), "m".repeat(252));
    let lines = [&*format!("file {long}"), &*format!("file {longest}")];
    let lower = lab.layer("lower", MarkFormat::Overlay, &lines);
    let mounted = lab.mount_stack("m", &lab.stack("m", &[lower]).without("no-devices"));
    let path = |name: &str| at(mounted.path(), name);
    assert_eq!(sys::unlink(path(&long)), Ok(()));
    assert_eq!(sys::unlink(path(&longest)), Err(libc::ENAMETOOLONG));
    let moved = sys::rename(path(&longest), path("short"), 0);
    assert_eq!(moved, Err(libc::ENAMETOOLONG));
    assert_eq!(shell(mounted.path(), "ls").trim(), longest);
}

/// `plyfs check` finds nothing wrong with such uppers, and `plyfs settle` says why it cannot
/// write what overlayfs would read.
#[test]
fn an_upper_without_marks_of_overlayfs_is_sound_and_cannot_be_settled() {
    for filter in ["no-xattrs", "no-devices", "poorest"] {
        let Some(lab) = Lab::new() else { return };
        let lines = ["dir d", "file d/f", "file a", "dir e", "file e/x"];
        let lower = lab.layer("lower", MarkFormat::Overlay, &lines);
        let stack = lab.stack("m", &[lower]).without(filter);
        let mounted = lab.mount_stack("m", &stack);
        shell(mounted.path(), "rm a d/f; rm -r e; mkdir e; printf n > e/n");
        mounted.unmount().unwrap_or_else(|e| panic!("{e}"));
        let verb = |verb: &str| {
            let out = run(&mut stack.plyfs_verb(verb), Duration::from_secs(60));
            out.unwrap_or_else(|e| panic!("{filter} {verb}: {e}"))
        };
        let checked = verb("check");
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success(), "{filter}: {said}");
        let settled = verb("settle");
        let said = String::from_utf8_lossy(&settled.stderr).into_owned();
        assert_eq!(settled.status.code(), Some(1), "{filter}: {said}");
        assert_eq!(said.lines().count(), 1, "{filter}: {said}");
        println!("{filter}: {said}");
        let mounted = lab.mount_stack("m", &stack);
        assert_eq!(
            shell(mounted.path(), "echo *; ls e d"),
            "d e\nd:\n\ne:\nn\n",
            "{filter}"
        );
    }
}
