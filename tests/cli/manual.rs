//! What is generated: version, help, man pages, completions.

use crate::tools::{Stage, stderr, stdout, told};

#[test]
fn the_version_is_the_first_line_in_every_form() {
    let stage = Stage::new();
    let expected = concat!("plyfs ", env!("CARGO_PKG_VERSION"));
    for args in [
        &["--version"][..],
        &["-V"],
        &["/mnt", "-V"],
        &["-o", "ro", "--version"],
    ] {
        let out = stage.call(args);
        assert!(out.status.success(), "{args:?}: {}", told(&out));
        assert_eq!(stdout(&out).lines().next(), Some(expected), "{args:?}");
    }
}

#[test]
fn help_goes_to_stdout() {
    let stage = Stage::new();
    for (args, word) in [
        (&["--help"][..], "umount"),
        (&["mount", "--help"], "--lower <DIR>"),
        (&["/mnt", "-h"], "lowerdir="),
    ] {
        let out = stage.call(args);
        assert!(out.status.success(), "{args:?}: {}", told(&out));
        assert!(stdout(&out).contains(word), "{args:?}: {}", told(&out));
        assert_eq!(stderr(&out), "", "{args:?}");
    }
}

#[test]
fn man_pages_are_written_for_every_verb() {
    let stage = Stage::new();
    stage.quietly(&["man", "--out", "pages"]);
    let mut pages: Vec<_> = std::fs::read_dir(stage.path("pages"))
        .expect("the directory was made")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    pages.sort();
    assert_eq!(
        pages,
        [
            "plyfs-bench.1",
            "plyfs-check.1",
            "plyfs-events.1",
            "plyfs-mount.1",
            "plyfs-run.1",
            "plyfs-settle.1",
            "plyfs-stat.1",
            "plyfs-umount.1",
            "plyfs.1"
        ]
    );
    for page in &pages {
        let text = stage.read(&format!("pages/{page}"));
        assert!(text.contains(".TH plyfs"), "{page}: {text}");
    }
    let mount = stage.read("pages/plyfs-mount.1");
    assert!(
        mount.contains("OPTION WORDS") && mount.contains("timeout=SECONDS"),
        "{mount}"
    );
    let out = stage.call(&["man"]);
    assert!(stdout(&out).contains(".TH plyfs"), "{}", told(&out));
}

#[test]
fn completions_are_written_for_the_usual_shells() {
    let stage = Stage::new();
    for shell in ["bash", "zsh", "fish"] {
        let out = stage.call(&["completions", shell]);
        assert!(out.status.success(), "{shell}: {}", told(&out));
        assert!(stdout(&out).contains("umount"), "{shell}: {}", told(&out));
    }
    let out = stage.call(&["completions", "csh"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(stderr(&out).lines().count(), 1, "{}", told(&out));
}
