//! What `plyfs run` prints of renamed directories and of hard links.

use std::process::Command;

use crate::run::{Who, changes, everyone, kept};
use crate::tools::{Stage, stdout, told};

/// `low/dir` with `a`, `sub/b` and `sub/c` in it; all of it the ordinary user's, if `who` is one.
fn with_directory(who: Who, stage: &Stage) {
    let mut names = vec!["low/dir", "low/dir/sub"];
    names.iter().for_each(|name| {
        stage.scratch.dir(name);
    });
    for name in ["low/dir/a", "low/dir/sub/b", "low/dir/sub/c"] {
        stage.write(name, "x");
        names.push(name);
    }
    if who == Who::User {
        names.iter().for_each(|name| stage.give(name));
    }
}

#[test]
fn a_renamed_directory_is_deleted_at_its_old_name_and_added_at_the_new_one() {
    for (who, stage) in everyone() {
        with_directory(who, &stage);
        let script = "mv low/dir low/moved; rm low/moved/a; echo n > low/moved/sub/n
            echo more >> low/moved/sub/c; find low/moved | sort";
        let out = who.runs(&stage, &["--keep", "home/keep"], script);
        let want = [
            "A $D/low/moved",
            "A $D/low/moved/sub",
            "A $D/low/moved/sub/b",
            "A $D/low/moved/sub/c",
            "A $D/low/moved/sub/n",
            "D $D/low/dir",
        ];
        let mut found = changes(&stage, &out);
        found.sort();
        assert_eq!(found, want, "{who:?}: {}", told(&out));
        let seen = "low/moved\nlow/moved/sub\nlow/moved/sub/b\nlow/moved/sub/c\nlow/moved/sub/n\n";
        assert!(stdout(&out).starts_with(seen), "{who:?}: {}", told(&out));
        assert!(stage.path("low/dir/sub/b").exists());
        let upper = kept(&out).expect("kept");
        let copied = format!("{upper}{}/sub/b", stage.path("low/moved").display());
        assert!(!std::path::Path::new(&copied).exists(), "nothing is copied");

        let script = "mv low/moved low/dir; cat low/dir/sub/b low/dir/sub/n";
        let out = who.runs(&stage, &["--keep", "home/keep"], script);
        assert!(stdout(&out).starts_with("xn\n"), "{who:?}: {}", told(&out));
        let mut found = changes(&stage, &out);
        found.sort();
        let want = ["A $D/low/dir/sub/n", "D $D/low/dir/a", "M $D/low/dir/sub/c"];
        assert_eq!(found, want, "{who:?}: {}", told(&out));
    }
}

#[test]
fn a_directory_renamed_over_another_lists_what_that_one_had() {
    for (who, stage) in everyone() {
        with_directory(who, &stage);
        let script = "mv low/in low/empty; rm -r low/dir/sub/b low/dir/sub/c
            mv -T low/empty low/dir/sub; mkdir low/in; find low/dir low/in | sort";
        stage.write("low/in/x", "x");
        let out = who.runs(&stage, &["--discard"], script);
        let seen = "low/dir\nlow/dir/a\nlow/dir/sub\nlow/dir/sub/x\nlow/in\n";
        assert!(stdout(&out).starts_with(seen), "{who:?}: {}", told(&out));
        let mut found = changes(&stage, &out);
        found.sort();
        let want = [
            "A $D/low/dir/sub/x",
            "D $D/low/dir/sub/b",
            "D $D/low/dir/sub/c",
            "D $D/low/in/x",
            "M $D/low/dir/sub",
            "M $D/low/in",
        ];
        assert_eq!(found, want, "{who:?}: {}", told(&out));
    }
}

/// A file with the names `low/h1`, `low/h2` and `low/in/h3`.
fn with_links(who: Who, stage: &Stage) {
    stage.write("low/h1", "x");
    for name in ["low/h2", "low/in/h3"] {
        std::fs::hard_link(stage.path("low/h1"), stage.path(name)).expect("link");
    }
    if who == Who::User {
        stage.give("low/h1");
    }
}

#[test]
fn a_changed_hard_link_is_listed_by_all_its_names() {
    for (who, stage) in everyone() {
        with_links(who, &stage);
        let script = "echo more >> low/h1; rm low/h1; cat low/h2";
        let out = who.runs(&stage, &["--keep", "home/keep"], script);
        assert!(
            stdout(&out).starts_with("xmore\n"),
            "{who:?}: {}",
            told(&out)
        );
        let want = ["D $D/low/h1", "M $D/low/h2", "M $D/low/in/h3"];
        assert_eq!(changes(&stage, &out), want, "{who:?}: {}", told(&out));

        let script = "echo again >> low/in/h3; rm low/in/h3; cat low/h2; stat -c %h low/h2";
        let out = who.runs(&stage, &["--keep", "home/keep"], script);
        let seen = "xmore\nagain\n1\n";
        assert!(stdout(&out).starts_with(seen), "{who:?}: {}", told(&out));
        let want = ["D $D/low/h1", "M $D/low/h2", "D $D/low/in/h3"];
        assert_eq!(changes(&stage, &out), want, "{who:?}: {}", told(&out));
        let lower = Command::new("cat").arg(stage.path("low/h1")).output();
        assert_eq!(lower.expect("cat").stdout, b"x");
    }
}

#[test]
fn a_hard_link_that_is_only_renamed_or_deleted_leaves_its_other_names_alone() {
    for (who, stage) in everyone() {
        with_links(who, &stage);
        let out = who.runs(&stage, &["--discard"], "mv low/h1 low/new; rm low/h2");
        let want = ["D $D/low/h1", "D $D/low/h2", "A $D/low/new"];
        assert_eq!(changes(&stage, &out), want, "{who:?}: {}", told(&out));
    }
}
