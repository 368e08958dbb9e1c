//! Marks, redirects and records of origin made to mislead: nothing outside the layers is reached,
//! nothing hangs, and the rest of the tree works.

use super::support::lab::Lab;
use super::support::siege::Siege;
use super::support::sys;
use super::support::tree::Tree;

/// What `path` shows, if it is there.
fn size(view: &Tree, path: &str) -> Option<u64> {
    view.get(path.as_bytes()).map(|node| node.stat.size)
}

fn has(view: &Tree, path: &str) -> bool {
    view.contains_key(path.as_bytes())
}

/// Nowhere does a view say that something is wrong.
fn is_sound(name: &str, view: &Tree) {
    is_sound_but(name, view, |_| false);
}

/// The same, but for the trouble that `expected` knows.
fn is_sound_but(name: &str, view: &Tree, expected: impl Fn(&str) -> bool) {
    for (path, node) in view {
        let shown = String::from_utf8_lossy(path);
        let trouble: Vec<_> = node.trouble.iter().filter(|t| !expected(t)).collect();
        assert!(trouble.is_empty(), "{name}: /{shown}: {trouble:?}");
    }
}

/// A redirect that is none, and where it might lead a careless reader.
#[test]
fn redirects_that_lead_out_are_not_followed() {
    let Some(lab) = Lab::new() else { return };
    let long = "/a".repeat(1500);
    let wide = format!("/{}", "a".repeat(300));
    let values = [
        "..",
        ".",
        "../secret",
        "/../secret",
        "/../../secret",
        "/../../../../../../../../etc",
        "/real/../../secret",
        "/real/./in",
        "real/in",
        "/",
        "//",
        "/real/",
        "/real//in",
        "//real",
        "%",
        "/real%00/../secret",
        "@SECRET",
        "/@SECRET",
        "/link",
        "/link/s",
        "/absolute",
        "/absolute/s",
        "link",
        "absolute",
        "/dir/link",
        "/dir/link/s",
        "/real/in",
        "/fifo",
        "/fifo/x",
        "/nowhere",
        &long,
        &wide,
    ];
    let lower = [
        "symlink link ../secret",
        "symlink absolute @SECRET",
        "dir dir",
        "symlink dir/link ../../secret",
        "fifo fifo",
        "dir r",
        "file r/hidden-by-the-redirect",
    ];
    for key in ["trusted", "user"] {
        for (i, value) in values.iter().enumerate() {
            let mark = format!("xattr r {key}.overlay.redirect {value}");
            let name = format!("redirect-{key}-{i}");
            let words = if key == "user" {
                "allow_other,userxattr"
            } else {
                "allow_other"
            };
            let siege = Siege::new(&lab, &name, &["dir r", "file r/own", &mark], &[&lower]);
            siege.words(words).lay(|view| {
                is_sound(value, view);
                assert_eq!(size(view, "r/own"), Some(10), "{value}");
            });
        }
    }
}

#[test]
fn redirects_in_circles_end() {
    let Some(lab) = Lab::new() else { return };
    let to = |dir: &str, path: &str| format!("xattr {dir} trusted.overlay.redirect {path}");
    let both = [
        "dir a".to_string(),
        "dir b".into(),
        to("a", "/b"),
        to("b", "/a"),
        "file a/of-a".into(),
        "file b/of-b".into(),
    ];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    let stack: Vec<&[&str]> = vec![&both; 40];
    Siege::new(&lab, "swap", &both, &stack).lay(|view| {
        is_sound("swap", view);
        assert!(has(view, "a/of-a") && has(view, "b/of-b"));
        assert!(has(view, "a/of-b") && has(view, "b/of-a"));
    });
    let (a, b) = (to("a", "/a"), to("a/b", "/a"));
    let own = ["dir a", "dir a/b", &a, &b, "file a/f"];
    Siege::new(&lab, "own", &own, &[&own, &own, &own]).lay(|view| {
        is_sound("own", view);
        // The ancestor's content shows below it once for each layer that says so.
        assert!(has(view, "a/b/f"));
    });
}

/// Each component of a long redirect is itself redirected, in every layer: a reader that
/// resolves each anew each time never ends.
#[test]
fn redirects_that_multiply_end() {
    let Some(lab) = Lab::new() else { return };
    let deep = |n: usize| vec!["a"; n].join("/");
    let path = format!("/{}", deep(8));
    let lines: Vec<String> = (1..=8)
        .flat_map(|n| {
            let dir = deep(n);
            let mark = format!("xattr {dir} trusted.overlay.redirect {path}");
            [format!("dir {dir}"), mark]
        })
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let stack: Vec<&[&str]> = vec![&lines; 24];
    Siege::new(&lab, "multiply", &lines, &stack).lay(|view| is_sound("multiply", view));
}

/// Whoever may write an upper may write `user.` xattrs into it: a privileged mount believes none
/// of them, and an unprivileged one none of root's.
#[test]
fn marks_of_the_other_namespace_are_not_believed_in_an_upper() {
    let Some(lab) = Lab::new() else { return };
    let lower = [
        "dir d",
        "file d/f",
        "dir r",
        "file r/f",
        "dir x",
        "file x/w",
        "file o 20",
    ];
    for (key, words) in [
        ("user", "allow_other"),
        ("trusted", "allow_other,userxattr"),
    ] {
        let marks = [
            "dir d".to_string(),
            format!("xattr d {key}.overlay.opaque y"),
            "dir r".into(),
            format!("xattr r {key}.overlay.redirect /d"),
            "dir x".into(),
            format!("xattr x {key}.overlay.opaque x"),
            "file x/w 0".into(),
            format!("xattr x/w {key}.overlay.whiteout %"),
            "file m 30".into(),
            format!("xattr m {key}.overlay.metacopy %"),
            format!("xattr m {key}.overlay.redirect /o"),
        ];
        let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
        let siege = Siege::new(&lab, &format!("other-{key}"), &marks, &[&lower]);
        siege.words(words).lay(|view| {
            is_sound(key, view);
            assert!(has(view, "d/f"), "{key}: an opaque mark is believed");
            assert!(has(view, "r/f"), "{key}: a redirect is believed");
            assert_eq!(size(view, "x/w"), Some(0), "{key}: a whiteout is believed");
            assert_eq!(size(view, "m"), Some(30), "{key}: a metacopy is believed");
        });
    }
}

/// An origin in the kernel's format (`struct ovl_fb`) with a handle of ext4's: inode number and
/// generation.
fn origin(ino: u32, uuid: [u8; 16]) -> String {
    let mut bytes = vec![0, 0xfb, 29, 0, 1];
    bytes.extend(uuid);
    bytes.extend(ino.to_ne_bytes());
    bytes.extend([0; 4]);
    super::support::bytes::escape(&bytes)
}

/// The UUID that plyfs writes into the origins of files here.
fn uuid_here(lab: &Lab) -> [u8; 16] {
    let siege = Siege::new(lab, "uuid", &["dir d"], &[&["dir d", "file d/f"]]);
    let mounted = siege.mount().expect("it mounts");
    let file = super::support::lab::at(mounted.path(), "d/f");
    sys::chmod(&file, 0o600).expect("a file of a lower is copied up");
    mounted.unmount().expect("it unmounts");
    let copy = siege.path("u/d/f");
    let value = sys::lgetxattr(
        copy.as_os_str().as_encoded_bytes(),
        "trusted.overlay.origin",
    );
    let value = value.expect("a copied-up file has an origin");
    value[5..21].try_into().expect("16 bytes")
}

/// Two files never share a number, and each shows its own bytes, whatever an origin says.
#[test]
fn origins_that_point_elsewhere_mislead_nobody() {
    let Some(lab) = Lab::new() else { return };
    let here = uuid_here(&lab);
    let lower = ["file other 20", "dir d", "file d/below 30", "file g 50"];
    let upper = [
        "dir .",
        "file f 40",
        "dir d",
        "file d/f 41",
        "file g 51",
        "dir e",
    ];
    let cases = |siege: &Siege<'_>| -> Vec<String> {
        let ino = |path: &str| {
            let at = siege.path(path);
            let stat = sys::lstat(at.as_os_str().as_encoded_bytes());
            stat.expect("it is there").ino as u32
        };
        vec![
            origin(ino("l0/other"), here),
            origin(ino("l0/d"), here),
            origin(ino("bottom/plain/untouched"), here),
            origin(ino("secret/only-secret"), here),
            origin(ino("u/g"), here),
            origin(ino("l0/other"), [7; 16]),
            origin(0, here),
            origin(1, here),
            origin(u32::MAX, here),
            "%".into(),
            "garbage".into(),
            "%00%fb%ff".into(),
            format!("%00%fb%03{}", "a".repeat(60)),
            "a".repeat(3000),
        ]
    };
    let count = cases(&Siege::new(&lab, "origin-count", &upper, &[&lower])).len();
    for i in 0..count {
        let name = format!("origin-{i}");
        let mut siege = Siege::new(&lab, &name, &upper, &[&lower]);
        let value = super::support::bytes::unescape(&cases(&siege)[i]);
        for path in ["u", "u/d"] {
            set(&siege, path, "impure", b"y");
        }
        for path in ["u/f", "u/d/f", "u/d", "u/e", "u/g"] {
            set(&siege, path, "origin", &value);
        }
        siege.settle();
        siege.lay(|view| {
            // Five claim one number, and it goes to whoever is looked at first: if the kernel
            // forgets that one between readdir and lstat, to another.
            is_sound_but(&name, view, |trouble| trouble.starts_with("d_ino "));
            let sizes = [
                ("f", 40),
                ("d/f", 41),
                ("g", 51),
                ("other", 20),
                ("d/below", 30),
                ("plain/untouched", 10),
            ];
            for (path, bytes) in sizes {
                assert_eq!(size(view, path), Some(bytes), "{name}: {path}");
            }
            let shared = super::support::tree::groups(view);
            assert!(shared.is_empty(), "{name}: one number for {shared:?}");
        });
    }
}

/// Sets an xattr of overlayfs on a file of a layer.
fn set(siege: &Siege<'_>, path: &str, key: &str, value: &[u8]) {
    let at = siege.path(path);
    let done = sys::lsetxattr(
        at.as_os_str().as_encoded_bytes(),
        format!("trusted.overlay.{key}"),
        value,
        0,
    );
    assert_eq!(done, Ok(()), "{path}: {key}");
}
