//! Files that say their data is elsewhere, made to mislead: nothing outside the layers is read,
//! nothing hangs, and the rest of the tree works.

use super::support::lab::{Lab, at, build};
use super::support::layers::MarkFormat;
use super::support::siege::Siege;
use super::support::sys;
use super::support::tree::{self, Tree};

/// What a reference may lead to in the lower.
const LOWER: &[&str] = &[
    "symlink link ../secret/only-secret",
    "symlink absolute @SECRET/only-secret",
    "symlink secrets @SECRET",
    "dir dir",
    "symlink dir/link ../../secret/only-secret",
    "fifo fifo",
    "node null 20666 0:0 1.5 259",
    "node zero-zero 20644 0:0 1.5 0",
    "file other 20",
    "file m 300",
];

/// Whatever cannot be read says so by EIO, and nothing else is wrong.
fn fails_cleanly(name: &str, view: &Tree) {
    for (path, node) in view {
        let shown = String::from_utf8_lossy(path);
        let clean = ["reading: EIO", "reading: ELOOP"];
        let odd: Vec<&String> = node
            .trouble
            .iter()
            .filter(|t| !clean.contains(&t.as_str()))
            .collect();
        assert!(odd.is_empty(), "{name}: /{shown}: {odd:?}");
    }
}

/// Besieges a union whose upper has `m` with these marks, in either namespace; afterwards `m` can
/// be deleted.
fn besiege(lab: &Lab, name: &str, lines: &[String], lowers: &[&[&str]]) {
    for key in ["trusted", "user"] {
        let lines: Vec<String> = lines.iter().map(|l| l.replace("@KEY", key)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let name = format!("{name}-{key}");
        let words = match key {
            "user" => "allow_other,userxattr,metacopy=on",
            _ => "allow_other,metacopy=on",
        };
        let siege = Siege::new(lab, &name, &lines, lowers).words(words);
        siege.lay(|view| fails_cleanly(&name, view));
        let mounted = siege.mount().expect("it mounts");
        let m = at(mounted.path(), "m");
        assert_eq!(sys::unlink(&m), Ok(()), "{name}");
        assert_eq!(sys::lstat(&m).err(), Some(libc::ENOENT), "{name}");
        mounted.unmount().expect("it unmounts");
        siege.nothing_harmed();
    }
}

#[test]
fn data_is_found_in_files_of_the_layers_below_or_nowhere() {
    let Some(lab) = Lab::new() else { return };
    let long = "/a".repeat(1500);
    let targets = [
        "..",
        "../secret/only-secret",
        "/../secret/only-secret",
        "/../../secret/only-secret",
        "/real/../../secret/only-secret",
        "@SECRET/only-secret",
        "/",
        "%",
        "/link",
        "link",
        "/absolute",
        "/secrets/only-secret",
        "/dir/link",
        "/dir",
        "/dir/",
        "dir",
        "/real/in",
        "/fifo",
        "fifo",
        "/null",
        "/zero-zero",
        "/other",
        "/nowhere",
        "/m",
        "m",
        &long,
    ];
    for (i, target) in targets.iter().enumerate() {
        let lines = [
            "file m 4096".to_string(),
            "xattr m @KEY.overlay.metacopy %".into(),
            format!("xattr m @KEY.overlay.redirect {target}"),
        ];
        besiege(&lab, &format!("target-{i}"), &lines, &[LOWER]);
    }
}

#[test]
fn references_to_references_end() {
    let Some(lab) = Lab::new() else { return };
    let to = |name: &str, other: &str| {
        vec![
            format!("file {name} 4096"),
            format!("xattr {name} trusted.overlay.metacopy %"),
            format!("xattr {name} trusted.overlay.redirect /{other}"),
        ]
    };
    let swap: Vec<String> = [to("m", "n"), to("n", "m")].concat();
    let swap_lower: Vec<&str> = swap.iter().map(String::as_str).collect();
    let upper: Vec<String> = swap.iter().map(|l| l.replace("trusted", "@KEY")).collect();
    let stack: Vec<&[&str]> = vec![&swap_lower; 60];
    besiege(&lab, "swap", &upper, &stack);
    let own = to("m", "m");
    let own_lower: Vec<&str> = own.iter().map(String::as_str).collect();
    let upper: Vec<String> = own.iter().map(|l| l.replace("trusted", "@KEY")).collect();
    besiege(&lab, "own", &upper, &[&own_lower, &own_lower, LOWER]);
}

#[test]
fn references_where_none_can_be_are_harmless() {
    let Some(lab) = Lab::new() else { return };
    let values = [
        "%",
        "x",
        "%00",
        "%00%04%00%00",
        "%00%04%00%01",
        "%00%ff%00%01",
        "%01%04%00%00",
        "%00%24%00%01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "%00%24%ff%ffaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        &"a".repeat(3000),
    ];
    for (i, value) in values.iter().enumerate() {
        let lines = [
            "file m 4096".to_string(),
            format!("xattr m @KEY.overlay.metacopy {value}"),
            "dir d".into(),
            format!("xattr d @KEY.overlay.metacopy {value}"),
            "file d/alone 12".into(),
            format!("xattr d/alone @KEY.overlay.metacopy {value}"),
            "file other 40".into(),
            format!("xattr other @KEY.overlay.metacopy {value}"),
            "xattr other @KEY.overlay.redirect /other".into(),
        ];
        besiege(&lab, &format!("value-{i}"), &lines, &[LOWER]);
    }
}

/// What a data-only layer may have in the place of data.
const DATA: &[&str] = &[
    "symlink link ../secret/only-secret",
    "symlink absolute @SECRET/only-secret",
    "symlink secrets @SECRET",
    "dir dir",
    "symlink dir/link ../../secret/only-secret",
    "fifo fifo",
    "node null 20666 0:0 1.5 259",
    "node zero-zero 20644 0:0 1.5 0",
    "file short 20",
    "file long 10000",
    "file right 4096",
    "file again 4096",
    "xattr again @KEY.overlay.metacopy %",
    "xattr again @KEY.overlay.redirect /../secret/only-secret",
    "file .wh.right 0",
];

/// Nothing but a regular file of a data-only layer itself gives data, whatever leads to it, from
/// an upper or a lower layer.
#[test]
fn a_data_only_layer_leads_nowhere_else() {
    let Some(lab) = Lab::new() else { return };
    let targets = [
        "/..",
        "/../secret/only-secret",
        "/dir/../../secret/only-secret",
        "@SECRET/only-secret",
        "/link",
        "/absolute",
        "/secrets/only-secret",
        "/secrets/../secret/only-secret",
        "/dir",
        "/dir/link",
        "/fifo",
        "/fifo/x",
        "/null",
        "/zero-zero",
        "/short/x",
        "/nowhere",
        "short",
        "/short",
        "/long",
        "/right",
        "/again",
    ];
    for (i, target) in targets.iter().enumerate() {
        for (key, place) in [("trusted", 0), ("trusted", 1), ("user", 0), ("user", 1)] {
            let name = format!("data-{i}-{key}-{place}");
            let lines = [
                "file m 644 0:0 1.5 4096 -".to_string(),
                format!("xattr m {key}.overlay.metacopy %"),
                format!("xattr m {key}.overlay.redirect {target}"),
            ];
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let (upper, lower): (&[&str], &[&str]) = match place {
                0 => (&lines, &[]),
                _ => (&[], &lines),
            };
            let siege = Siege::new(&lab, &name, upper, &[lower]);
            let secret = siege.path("secret").display().to_string();
            let data: Vec<String> = DATA
                .iter()
                .map(|l| l.replace("@SECRET", &secret).replace("@KEY", key))
                .collect();
            let data: Vec<&str> = data.iter().map(String::as_str).collect();
            build(&siege.path("data"), MarkFormat::Overlay, &data);
            let before = tree::read(&siege.path("data"));
            let user = if key == "user" { ",userxattr" } else { "" };
            let words = format!(
                "allow_other,datadir+={}{user}",
                siege.path("data").display()
            );
            let siege = siege.words(&words);
            siege.lay(|view| {
                fails_cleanly(&name, view);
                let data = &view.get(&b"m"[..]).expect("it is shown").data;
                let found = ["/short", "/long", "/right", "/again"].contains(target);
                assert_eq!(data.is_some(), found, "{name}: {target}: {data:?}");
            });
            let after = tree::read(&siege.path("data"));
            let harm = tree::differences(("before", &before), ("after", &after));
            assert!(harm.is_empty(), "{name}: {harm:?}");
        }
    }
}
