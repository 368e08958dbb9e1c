//! A work directory made to mislead: an index whose entries are something else, link counts that
//! cannot be, and scratch directories that lead elsewhere.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::support::lab::{Lab, at};
use super::support::siege::Siege;
use super::support::sys;
use super::support::tree::Tree;

/// h1 and h2 are one file of 100 bytes.
const LINKED: &[&str] = &["file h1 100", "dir d", "link d/h2 h1", "file other 20"];
const UPPER: &[&str] = &["dir .", "file own 40"];

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn both_show(name: &str, view: &Tree, size: u64) {
    for path in ["h1", "d/h2"] {
        let node = view.get(path.as_bytes());
        let node = node.unwrap_or_else(|| panic!("{name}: {path} is gone"));
        assert_eq!(node.stat.size, size, "{name}: {path}");
        assert!(
            node.trouble.is_empty(),
            "{name}: {path}: {:?}",
            node.trouble
        );
    }
}

/// A siege whose linked file was copied up, and the name of its entry in the index.
fn copied_up<'a>(lab: &'a Lab, name: &str) -> (Siege<'a>, PathBuf) {
    let mut siege = Siege::new(lab, name, UPPER, &[LINKED]);
    let mounted = siege.mount().expect("it mounts");
    let file = at(mounted.path(), "h1");
    sys::chmod(&file, 0o600).expect("a file of a lower is copied up");
    mounted.unmount().expect("it unmounts");
    siege.settle();
    let index = siege.path("w/index");
    let mut entries = sys::list(bytes(&index)).expect("there is an index");
    let entry = entries.pop().expect("with an entry");
    assert!(entries.is_empty(), "one is expected");
    (siege, index.join(std::ffi::OsStr::from_bytes(&entry.name)))
}

/// The same with the copy taken away: only the entry's place is left.
fn with_a_place(lab: &Lab, name: &str, plant: impl FnOnce(&Siege<'_>, &[u8]) -> sys::Res<()>) {
    let (mut siege, entry) = copied_up(lab, name);
    sys::unlink(bytes(&entry)).expect("the entry can be removed");
    sys::unlink(bytes(&siege.path("u/h1"))).expect("the copy can be removed");
    plant(&siege, bytes(&entry)).unwrap_or_else(|e| panic!("{name}: {}", sys::errno_name(e)));
    siege.settle();
    siege.lay(|view| {
        both_show(name, view, 100);
        assert_eq!(view[&b"own"[..]].stat.size, 40, "{name}");
    });
}

#[test]
fn an_entry_of_the_index_that_is_something_else_shows_nothing_of_it() {
    let Some(lab) = Lab::new() else { return };
    let node = |mode: u32, rdev: u64| move |_: &Siege<'_>, at: &[u8]| sys::mknod(at, mode, rdev);
    with_a_place(&lab, "symlink", |_, at| {
        sys::symlink("../../secret/only-secret", at)
    });
    with_a_place(&lab, "absolute", |siege, at| {
        sys::symlink(bytes(&siege.path("secret/only-secret")), at)
    });
    with_a_place(&lab, "directory", |_, at| {
        sys::mkdir(at, 0o755)?;
        sys::mkdir([at, b"/d"].concat(), 0o755)
    });
    with_a_place(&lab, "fifo", node(libc::S_IFIFO | 0o644, 0));
    with_a_place(&lab, "socket", node(libc::S_IFSOCK | 0o644, 0));
    with_a_place(&lab, "null", node(libc::S_IFCHR | 0o666, 0x103));
    with_a_place(&lab, "whiteout", node(libc::S_IFCHR, 0));
    with_a_place(&lab, "empty", node(libc::S_IFREG | 0o644, 0));
    with_a_place(&lab, "secret", |siege, at| {
        sys::link(bytes(&siege.path("secret/only-secret")), at)
    });
    with_a_place(&lab, "own", |siege, at| {
        sys::link(bytes(&siege.path("u/own")), at)
    });
}

#[test]
fn entries_of_the_index_that_nobody_wrote_are_passed_over() {
    let Some(lab) = Lab::new() else { return };
    let (mut siege, entry) = copied_up(&lab, "foreign");
    let index = siege.path("w/index");
    for name in ["x", "00fb", &"0".repeat(58), &"f".repeat(255), "#1"] {
        let made = sys::mknod(bytes(&index.join(name)), libc::S_IFREG | 0o644, 0);
        made.expect("an entry can be made");
    }
    assert!(entry.exists());
    siege.settle();
    siege.lay(|view| both_show("foreign", view, 100));
}

#[test]
fn link_counts_that_cannot_be_are_harmless() {
    let Some(lab) = Lab::new() else { return };
    let values: [&[u8]; 17] = [
        b"",
        b"U",
        b"U+",
        b"U-",
        b"U-1000",
        b"U+4294967295",
        b"U+4294967290",
        b"U+9223372036854775807",
        b"U-9223372036854775808",
        b"U+9223372036854775808",
        b"L-1000",
        b"L+9223372036854775807",
        b"L+4294967290",
        b"X+1",
        b"U+\xff",
        "U\u{661}".as_bytes(),
        &[b'9'; 3000],
    ];
    for (i, value) in values.iter().enumerate() {
        let name = format!("nlink-{i}");
        let (mut siege, entry) = copied_up(&lab, &name);
        let set = sys::lsetxattr(bytes(&entry), "trusted.overlay.nlink", value, 0);
        set.expect("root may set it");
        siege.settle();
        siege.lay(|view| both_show(&name, view, 100));
        let mounted = siege.mount().expect("it mounts");
        for path in ["h1", "d/h2"] {
            let file = at(mounted.path(), path);
            let shown = value.escape_ascii();
            assert_eq!(sys::unlink(&file), Ok(()), "{shown}: {path}");
            assert_eq!(sys::lstat(&file).err(), Some(libc::ENOENT), "{shown}");
        }
        mounted.unmount().expect("it unmounts");
        siege.nothing_harmed();
    }
}

/// What is in the way of a scratch directory is never followed, opened up or swept.
#[test]
fn scratch_directories_that_lead_elsewhere_are_refused_or_done_without() {
    let Some(lab) = Lab::new() else { return };
    for (dir, needed) in [("work", true), ("index", false)] {
        for target in ["../secret", "@SECRET", "file", "fifo"] {
            let name = format!("scratch-{dir}-{}", target.trim_matches(['.', '/', '@']));
            let siege = Siege::new(&lab, &name, UPPER, &[LINKED]);
            let place = siege.path("w").join(dir);
            let made = match target {
                "file" => sys::mknod(bytes(&place), libc::S_IFREG | 0o644, 0),
                "fifo" => sys::mknod(bytes(&place), libc::S_IFIFO | 0o644, 0),
                "@SECRET" => sys::symlink(bytes(&siege.path("secret")), bytes(&place)),
                other => sys::symlink(other, bytes(&place)),
            };
            made.expect("something can be put there");
            match siege.mount() {
                Err(said) => {
                    assert_eq!(said.lines().count(), 1, "{name}: {said}");
                    assert!(said.contains("/w"), "{name}: {said}");
                }
                Ok(mounted) => {
                    assert!(!needed, "{name}: it is mounted without a work directory");
                    mounted.unmount().expect("it unmounts");
                    siege.lay(|view| both_show(&name, view, 100));
                }
            }
            siege.nothing_harmed();
        }
    }
}
