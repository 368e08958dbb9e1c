//! Thirteen ways of deleting and making again: nothing that was deleted may come back. The judge
//! is the same snippet on a plain directory with the same files.

use std::path::{Path, PathBuf};

use super::support::lab::{Lab, build, outline, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{Stack, Subject};

/// Name and snippet. Every snippet finds the tree of `VIEW`.
const KINDS: [(&str, &str); 13] = [
    ("a directory, emptied and made again", "rm -rf d; mkdir d"),
    ("a nested directory", "rm -rf d/s; mkdir -p d/s/sub"),
    (
        "a directory with one of its old names",
        "rm -rf d; mkdir d; echo new > d/a",
    ),
    (
        "a move over an emptied directory",
        "rm -rf d/*; mkdir n; echo n > n/n; mv -T n d",
    ),
    (
        "a move to a deleted directory's name",
        "rm -rf d; mkdir n; echo n > n/n; mv n d",
    ),
    (
        "a file to a directory and back",
        "rm f; mkdir f; touch f/in; rm -r f; echo back > f",
    ),
    (
        "a directory to a file and back",
        "rm -rf d; echo file > d; rm d; mkdir d",
    ),
    (
        "a directory to a symlink and back",
        "rm -rf d; ln -s e d; rm d; mkdir d; touch d/x",
    ),
    (
        "twice the same",
        "rm -rf d; mkdir d; touch d/a; rm -rf d; mkdir d",
    ),
    ("away, changed, and back", "mv d c; rm c/s/x; mv c d"),
    (
        "exchanged through a third name",
        "mv d t; mv e d; mv t e; rm e/a d/p",
    ),
    (
        "deep: every level again",
        "rm -rf deep; mkdir -p deep/m/sub; touch deep/m/2",
    ),
    (
        "a hard link's names one by one",
        "rm h1; ln h2 h1; rm h2; echo other > h2; rm h1; mkdir h1",
    ),
];

/// Top layer and bottom layer: between them every mark is used.
const TOP: &[&str] = &[
    "dir d",
    "file d/b 20",
    "whiteout d/gone",
    "dir e",
    "opaque e",
    "file e/p",
    "dir deep",
    "dir deep/m",
    "file deep/m/1",
    "whiteout dead",
    "whiteout deep/m/sub/y",
];
const BOTTOM: &[&str] = &[
    "dir d",
    "file d/a",
    "file d/b",
    "file d/gone",
    "dir d/s",
    "file d/s/x",
    "file d/s/y",
    "dir e",
    "file e/hidden",
    "file f",
    "dir dead",
    "file dead/x",
    "dir deep",
    "dir deep/m",
    "file deep/m/1",
    "file deep/m/2",
    "dir deep/m/sub",
    "file deep/m/sub/z",
    "file h1",
    "link h2 h1",
];
const VIEW: &[&str] = &[
    "dir d",
    "file d/a",
    "file d/b 20",
    "dir d/s",
    "file d/s/x",
    "file d/s/y",
    "dir e",
    "file e/p",
    "file f",
    "dir deep",
    "dir deep/m",
    "file deep/m/1",
    "file deep/m/2",
    "dir deep/m/sub",
    "file deep/m/sub/z",
    "file h1",
    "link h2 h1",
];

/// The lines with every path put below `top` (nothing for the mount's root).
fn below(lines: &[&str], top: &str) -> Vec<String> {
    if top.is_empty() {
        return lines.iter().map(|l| (*l).to_string()).collect();
    }
    let mut out = Vec::new();
    for (end, _) in top.match_indices('/').chain([(top.len(), "")]) {
        out.push(format!("dir {}", &top[..end]));
    }
    for line in lines {
        let mut words: Vec<String> = line.split(' ').map(String::from).collect();
        words[1] = format!("{top}/{}", words[1]);
        if words[0] == "link" {
            words[2] = format!("{top}/{}", words[2]);
        }
        out.push(words.join(" "));
    }
    out
}

fn layer(at: &Path, format: MarkFormat, lines: &[&str], top: &str) {
    let lines = below(lines, top);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    build(at, format, &lines);
}

fn check(format: MarkFormat, words: &str, top: &str) {
    let Some(lab) = Lab::new() else { return };
    let lowers: Vec<PathBuf> = vec![lab.path("top"), lab.path("bottom")];
    layer(&lowers[0], format, TOP, top);
    layer(&lowers[1], format, BOTTOM, top);
    let mut wrong = Vec::new();
    for (i, (name, snippet)) in KINDS.iter().enumerate() {
        let plain = lab.path(&format!("plain{i}"));
        layer(&plain, MarkFormat::Overlay, VIEW, top);
        let id = format!("k{i}");
        let stack = lab.stack(&id, &lowers).words(words);
        let mounted = lab.mount_stack(&id, &stack);
        assert_eq!(
            outline(mounted.path()),
            outline(&plain),
            "the first view, {format:?}"
        );
        shell(&plain.join(top), snippet);
        shell(&mounted.path().join(top), snippet);
        let expected = outline(&plain);
        let mut judge = |state: &str, seen: Vec<String>| {
            if seen != expected {
                wrong.push(format!(
                    "{name} ({snippet}), {state}: {seen:#?} instead of {expected:#?}"
                ));
            }
        };
        judge("live", outline(mounted.path()));
        mounted.unmount().expect("it unmounts");
        let again = lab.mount_stack(&id, &stack);
        judge("after a remount", outline(again.path()));
        again.unmount().expect("it unmounts");
        let mut layers = vec![lab.upper(&id)];
        layers.extend(lowers.iter().cloned());
        let over = lab.mount(&format!("over{i}"), &layers);
        judge("as the lower of another mount", outline(over.path()));
        over.unmount().expect("it unmounts");
        // The kernel reads only its own marks.
        if format == MarkFormat::Overlay && words.is_empty() {
            let kernel =
                lab.try_mount(&format!("kernel{i}"), &Stack::new(&layers), Subject::Kernel);
            judge(
                "as the kernel sees it",
                outline(kernel.expect("the kernel mounts it").path()),
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

macro_rules! formats {
    ($($test:ident: $format:expr, $words:expr;)*) => {
        $(
            mod $test {
                use super::*;

                #[test]
                fn nothing_deleted_comes_back_in_the_mounts_root() {
                    check($format, $words, "");
                }

                #[test]
                fn nothing_deleted_comes_back_below_the_root() {
                    check($format, $words, "up/per");
                }
            }
        )*
    };
}

formats! {
    overlay_marks: MarkFormat::Overlay, "";
    file_marks: MarkFormat::Files, "";
    user_xattr_marks: MarkFormat::UserXattr, "";
    fuse_overlayfs_marks: MarkFormat::FuseOverlayfs, "";
    xattr_whiteouts: MarkFormat::XattrWhiteout, "";
    all_marks_mixed: MarkFormat::Mixed, "";
    file_marks_written_too: MarkFormat::Files, "allow_other,suid,dev,marks=files";
}
