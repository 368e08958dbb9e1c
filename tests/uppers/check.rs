//! `plyfs check`: what is wrong is found, said in one line, and mended where it can be.

use std::path::{Path, PathBuf};

use crate::support::lab::{Lab, shell};
use crate::support::layers::MarkFormat;
use crate::support::mount::Stack;
use crate::support::skip;
use crate::support::tree;
use crate::{assert_sound, changed, stderr, stdout, verb};

#[test]
fn what_plyfs_leaves_is_sound_and_checking_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let (stack, _) = changed(&lab, "a");
    let both = [lab.upper("a"), lab.path("w-a")];
    // The first check waits for the daemon, which lets go of its last temporary.
    assert_sound(&stack);
    let before: Vec<_> = both.iter().map(|at| tree::read(at)).collect();
    assert_sound(&stack);
    assert_eq!(verb(&stack, "check", &["--repair"]).status.code(), Some(0));
    for (at, before) in both.iter().zip(&before) {
        let after = tree::read(at);
        let lines = tree::differences(("before", before), ("after", &after));
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
}

#[test]
fn what_the_kernel_leaves_is_sound() {
    let Some(lab) = Lab::new() else { return };
    if !skip::has_filesystem("overlay") {
        return;
    }
    lab.layer("l", MarkFormat::Overlay, crate::LOWER);
    for (name, words) in [
        ("plain", crate::PLAINEST),
        ("all", "redirect_dir=on,metacopy=on,index=on,xino=off"),
        (
            "nfs",
            "redirect_dir=nofollow,metacopy=off,nfs_export=on,index=on",
        ),
    ] {
        let stack = lab.stack(name, &[lab.path("l")]);
        let mounted = lab.mount_kernel(name, &stack.clone().words(words));
        shell(mounted.path(), crate::CHANGES);
        mounted.unmount().expect("it unmounts");
        assert_sound(&stack);
    }
}

/// How something goes wrong, as a snippet with the upper as `$U` and the work directory as
/// `$W`; the word for it; where it is; and whether it can be mended.
const WRONG: &[(&str, &str, &str, bool)] = &[
    ("mkdir -p $W/work/#7a/x", "temporary", "W/work/#7a", true),
    (
        "mkdir -p $W/work/incompat/volatile",
        "volatile",
        "W/work/incompat/volatile",
        false,
    ),
    (
        "printf user.overlay. > $W/settling",
        "half-settled",
        "W/settling",
        false,
    ),
    ("mknod $U/nothing c 0 0", "whiteout", "U/nothing", true),
    (
        "mknod $U/gone/w c 0 0", // opaque
        "whiteout",
        "U/gone/w",
        true,
    ),
    (
        "mkdir $U/own; mknod $U/own/w c 0 0", // of the upper alone
        "whiteout",
        "U/own/w",
        true,
    ),
    ("touch $U/.wh.nothing", "whiteout", "U/.wh.nothing", true),
    (
        "setfattr -n trusted.overlay.opaque -v x $U/e; touch $U/e/w
         setfattr -n trusted.overlay.whiteout -v y $U/e/w",
        "whiteout",
        "U/e/w",
        true,
    ),
    (
        "setfattr -n trusted.overlay.opaque -v x $U/e",
        "stale-x",
        "U/e",
        true,
    ),
    (
        "touch $U/e/w; setfattr -n trusted.overlay.whiteout -v y $U/e/w",
        "stray-whiteout",
        "U/e/w",
        true,
    ),
    (
        "setfattr -n trusted.overlay.redirect -v /d/../e $U/elsewhere",
        "bad-redirect",
        "U/elsewhere",
        false,
    ),
    (
        "setfattr -n trusted.overlay.redirect -v /nowhere/at/all $U/elsewhere",
        "dangling-redirect",
        "U/elsewhere",
        false,
    ),
    (
        "setfattr -n trusted.overlay.origin -v nonsense $U/e/f",
        "bad-origin",
        "U/e/f",
        true,
    ),
    (
        "touch $U/e/n; setfattr -n trusted.overlay.origin \
         -v $(getfattr --only-values --absolute-names -n trusted.overlay.origin $U/e/f | \
              od -An -tx1 | tr -d ' \\n' | sed 's/\\(.*\\)......../0x\\1ffffffff/') $U/e/n",
        "dangling-origin",
        "U/e/n",
        false,
    ),
    (
        "touch $U/e/n; setfattr -n trusted.overlay.origin \
         -v 0x00fb1d000111111111111111111111111111111111000000010000000a $U/e/n",
        "far-origins",
        "U/e/n",
        false,
    ),
    (
        "setfattr -x trusted.overlay.origin $U/e/f; setfattr -n trusted.overlay.metacopy \
         -v 0x002a000031010000000000000000fb1d000111111111111111111111111111111111000000010000000a \
         $U/e/f",
        "far-origins",
        "U/e/f",
        false,
    ),
    (
        "setfattr -n trusted.overlay.metacopy -v 0x000d0000320100000000000000 $U/e/f",
        "metacopy",
        "U/e/f",
        false,
    ),
    (
        "setfattr -x trusted.overlay.impure $U/e",
        "impure",
        "U/e",
        true,
    ),
    (
        "setfattr -n trusted.overlay.redirect -v /nowhere/f $U/e/f",
        "metacopy",
        "U/e/f",
        false,
    ),
    (
        "echo x > $W/index/00fb00; setfattr -n trusted.overlay.nlink -v U+0 $W/index/00fb00",
        "index-name",
        "W/index/00fb00",
        false,
    ),
    (
        "mv $W/index/* $W/index/00fb1d000111111111111111111111111111111111000000010000000a",
        "index-origin",
        "W/index/00fb1d000111111111111111111111111111111111000000010000000a",
        false,
    ),
    (
        "rm $U/d/b $U/fresh/link; setfattr -n trusted.overlay.nlink -v U-1 $W/index/*",
        "index-unused",
        "W/index/00fb*",
        true,
    ),
    (
        "setfattr -n trusted.overlay.nlink -v L+0 $W/index/*",
        "index-unsettled",
        "W/index/00fb*",
        true,
    ),
    (
        "setfattr -n trusted.overlay.nlink -v U-9 $W/index/*",
        "index-count",
        "W/index/00fb*",
        false,
    ),
    (
        "setfattr -n trusted.overlay.nlink -v U+3 $U/e/f",
        "stray-count",
        "U/e/f",
        true,
    ),
    (
        "setfattr -n user.overlay.opaque -v y $U/e",
        "unbelieved",
        "U/e",
        false,
    ),
    (
        "setfattr -n user.fuseoverlayfs.opaque -v y $U/e",
        "fuse-overlayfs",
        "U/e",
        false,
    ),
];

fn spoil(lab: &Lab, name: &str, snippet: &str) {
    let (upper, work) = (lab.upper(name), lab.path(&format!("w-{name}")));
    let script = format!("U={} W={}\n{snippet}", upper.display(), work.display());
    shell(&upper, &script);
}

/// The lines of a report but for the last, which sums up.
fn findings(stack: &Stack, more: &[&str]) -> (Vec<String>, Option<i32>) {
    let out = verb(stack, "check", more);
    assert_eq!(stderr(&out), "");
    let text = stdout(&out);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let sum = lines.pop().expect("a line that sums up");
    assert!(sum.contains("names looked at"), "{sum}");
    (lines, out.status.code())
}

/// Whether a line begins with the path that `place` stands for.
fn is_at(line: &str, place: &str, lab: &Lab, name: &str) -> bool {
    let (letter, below) = place.split_at(1);
    let dir: PathBuf = match letter {
        "U" => lab.upper(name),
        _ => lab.path(&format!("w-{name}")),
    };
    let wanted = format!("{}{below}", dir.display());
    match wanted.strip_suffix('*') {
        Some(start) => line.starts_with(start),
        None => line.starts_with(&format!("{wanted}: ")),
    }
}

fn mtime(at: &Path) -> std::time::SystemTime {
    let meta = std::fs::symlink_metadata(at).expect("it is there");
    meta.modified().expect("a time")
}

#[test]
fn each_thing_that_is_wrong_is_found_and_mended_where_it_can_be() {
    if !skip::has_tool("setfattr") {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    for (i, (snippet, word, place, mendable)) in WRONG.iter().enumerate() {
        let name = format!("s{i}");
        let (stack, _) = changed(&lab, &name);
        spoil(&lab, &name, snippet);
        let (lines, code) = findings(&stack, &[]);
        assert_eq!(code, Some(1), "{word}: {lines:#?}");
        let of_it = lines.iter().find(|line| is_at(line, place, &lab, &name));
        let line = of_it.unwrap_or_else(|| panic!("{word} is not found: {lines:#?}"));
        let text = stdout(&verb(&stack, "check", &["--json"]));
        assert!(
            text.contains(&format!("\"kind\": \"{word}\"")),
            "{word}: {text}"
        );
        assert_eq!(line.contains("--repair"), *mendable, "{line}");
        let times = mtime(&lab.upper(&name).join("e"));
        let (repaired, code) = findings(&stack, &["--repair"]);
        assert_eq!(repaired.len(), lines.len(), "{word}");
        assert_eq!(code, Some(i32::from(!mendable)), "{word}: {repaired:#?}");
        assert_eq!(mtime(&lab.upper(&name).join("e")), times, "{word}");
        let (left, _) = findings(&stack, &[]);
        let still = left.iter().any(|line| is_at(line, place, &lab, &name));
        assert_eq!(still, !mendable, "{word}: {left:#?}");
    }
}

#[test]
fn a_mark_name_is_told_of_where_it_is_an_ordinary_one() {
    let Some(lab) = Lab::new() else { return };
    let (stack, _) = changed(&lab, "a");
    let stack = stack.words("marks=overlay");
    spoil(&lab, "a", "touch $U/.wh.top");
    let (lines, code) = findings(&stack, &[]);
    assert_eq!((lines.len(), code), (1, Some(1)), "{lines:#?}");
    assert!(
        lines[0].contains("/u-a/.wh.top: name of a mark: "),
        "{}",
        lines[0]
    );
}

#[test]
fn whiteouts_that_hide_something_are_left_alone_in_every_format() {
    let Some(lab) = Lab::new() else { return };
    lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d", "file d/a", "file d/b", "file e"],
    );
    for format in [
        MarkFormat::Overlay,
        MarkFormat::Files,
        MarkFormat::XattrWhiteout,
    ] {
        let name = format.name();
        let stack = lab.stack(name, &[lab.path("l")]);
        let lines = ["dir d", "whiteout d/a", "whiteout e", "dir o", "opaque o"];
        crate::support::lab::build(&lab.upper(name), format, &lines);
        assert_sound(&stack);
    }
}

#[test]
fn the_status_tells_unsound_from_unknown_and_an_upper_in_use_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let (stack, _) = changed(&lab, "a");
    let mut nowhere = stack.clone();
    nowhere.upper = Some((lab.path("missing"), lab.path("w-a")));
    for (args, text) in [
        (&["--repiar"][..], "did you mean --repair?"),
        (&["-o", "nonsense"], "no such option"),
    ] {
        let out = verb(&stack, "check", args);
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(stderr(&out).contains(text), "{}", stderr(&out));
    }
    let out = verb(&nowhere, "check", &[]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        stderr(&out).contains("missing: no such directory; "),
        "{}",
        stderr(&out)
    );
    let out = verb(&Stack::new(&[lab.path("l")]), "check", &[]);
    assert_eq!(out.status.code(), Some(2));
    let mounted = lab.mount_stack("a", &stack);
    for name in ["check", "settle"] {
        let out = verb(&stack, name, &[]);
        let status = if name == "check" { 2 } else { 1 };
        assert_eq!(out.status.code(), Some(status));
        assert_eq!(stderr(&out).lines().count(), 1, "{}", stderr(&out));
        assert!(
            stderr(&out).contains("in use by another plyfs mount"),
            "{}",
            stderr(&out)
        );
    }
    mounted.unmount().expect("it unmounts");
    assert_sound(&stack);
}
