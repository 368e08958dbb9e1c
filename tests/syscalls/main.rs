//! How many system calls each operation takes, and which: as the table in docs/performance.md says,
//! no more and no less.
//!
//! The operations are done by a union in this process, request by request as the kernel sends
//! them; the calls are those that `src/sys/fault.rs` sees: all but close(2) and what changes
//! the ids of a thread.

#[path = "../crash/inside.rs"]
#[allow(dead_code)]
mod inside;
#[path = "../support/mod.rs"]
mod support;

mod ahead;
mod desk;

use desk::Desk;
use support::backing::{Backing, Kind};
use support::skip;

const TABLE: &str = include_str!("../../docs/performance.md");
const HEADING: &str = "## System calls per operation\n";

/// The name of an operation, what is done before it, and it.
type Row = (&'static str, fn(&Desk), fn(&Desk));

const ROWS: &[Row] = &[
    ("lookup of a lower file", used, |u| {
        u.lookup("d/low");
    }),
    ("lookup of an upper file", made_new, |u| {
        u.lookup("d/new");
    }),
    ("lookup of a missing name", used, |u| {
        u.lookup("d/none");
    }),
    ("the same in a directory that was listed", listed, |u| {
        u.lookup("d/none");
    }),
    (
        "lookup of a directory that both lower layers have",
        used,
        |u| {
            u.lookup("d/full");
        },
    ),
    ("lookup of a directory that one layer has", used, |u| {
        u.lookup("d/empty");
    }),
    ("that in a directory that was listed", listed, |u| {
        u.lookup("d/empty");
    }),
    ("the first lookup in a directory of both", seen_dir, |u| {
        u.lookup("d/full/none");
    }),
    ("the third", twice, |u| {
        u.find("d/full/none");
    }),
    ("what is done after its answer", thrice, |u| u.list_asked()),
    ("getattr of a lower file", seen, |u| u.getattr("d/low")),
    ("getattr of an upper file", made_new, |u| u.getattr("d/new")),
    ("getattr after chmod of a lower file", chmodded, |u| {
        u.getattr("d/low");
    }),
    ("its capabilities and its list of xattrs", seen, |u| {
        u.ask_for_xattrs("d/low");
    }),
    ("the same once more", asked, |u| u.ask_for_xattrs("d/low")),
    ("open, read and close of a lower file", used, |u| {
        u.lookup("d/low");
        u.read("d/low");
    }),
    ("create, write and close", used, |u| {
        u.file("d/new");
        u.write("d/new", 0);
    }),
    ("the same in a directory of the upper alone", own, |u| {
        u.file("own/new");
        u.write("own/new", 0);
    }),
    ("the same in a directory that was listed", listed, |u| {
        u.file("d/new");
        u.write("d/new", 0);
    }),
    ("the same where a lower file was deleted", removed, |u| {
        u.file("d/low");
        u.write("d/low", 0);
    }),
    ("mkdir", used, |u| u.dir("d/new")),
    (
        "mkdir in a directory that is not in the upper yet",
        lower,
        |u| {
            u.dir("d/new");
        },
    ),
    ("symlink", used, |u| u.symlink("d/new")),
    ("link of an upper file", made_new, |u| {
        u.link("d/new", "d/other")
    }),
    ("unlink of an upper file", made_new, |u| u.unlink("d/new")),
    (
        "the same in a directory of the upper alone",
        own_file,
        |u| {
            u.unlink("own/new");
        },
    ),
    ("unlink of a lower file", seen, |u| u.unlink("d/low")),
    (
        "the same where another name was looked up since",
        stale,
        |u| {
            u.unlink("d/low");
        },
    ),
    ("unlink of a copied-up file", appended, |u| {
        u.unlink("d/low")
    }),
    ("rmdir of an upper directory", made_dir, |u| {
        u.rmdir("d/new")
    }),
    ("rmdir of a lower directory", seen_dir, |u| {
        u.rmdir("d/empty")
    }),
    ("rename of an upper file", made_new, |u| {
        u.rename("d/new", "d/other");
    }),
    (
        "the same in a directory of the upper alone",
        own_file,
        |u| {
            u.rename("own/new", "own/other");
        },
    ),
    ("rename of an upper file over another", two_own, |u| {
        u.rename("own/new", "own/second");
    }),
    ("rename of a lower file", seen, |u| {
        u.rename("d/low", "d/other")
    }),
    ("rename of a lower directory", seen_dir, |u| {
        u.rename("d/full", "d/other");
    }),
    ("rename of an upper directory", made_dir, |u| {
        u.rename("d/new", "d/other");
    }),
    ("chmod of an upper file", made_new, |u| u.chmod("d/new")),
    ("chmod of a lower file", seen, |u| u.chmod("d/low")),
    ("chown of a lower file", seen, |u| u.chown("d/low")),
    ("append to a lower file", seen, |u| u.write("d/low", 4096)),
    ("append once more", appended, |u| u.write("d/low", 8192)),
    ("write to a lower file after chmod of it", chmodded, |u| {
        u.write("d/low", 0);
    }),
    ("truncate of a lower file to nothing", seen, |u| {
        u.truncate("d/low");
    }),
    ("readdirplus of 1,000 lower files", look_at_many, |u| {
        assert_eq!(u.list("many"), 1002);
    }),
];

/// Nothing was done but that the directory is known.
fn lower(u: &Desk) {
    u.ino("d");
    // What is found out once for each directory, or for all.
    u.lookup("e/one");
    u.chmod("e/one");
    u.write("e/two", 4096);
    u.unlink("e/three");
    u.rename("e/one", "e/four");
}

/// Something was changed in the directory before.
fn used(u: &Desk) {
    lower(u);
    u.chmod("d/first");
    // At every other of so many lookups it is considered whether to read the directory.
    for _ in 0..6 {
        u.lookup("d/absent");
    }
    u.lookup("d/first");
}

fn listed(u: &Desk) {
    used(u);
    u.list("d");
}

fn seen(u: &Desk) {
    used(u);
    u.lookup("d/low");
}

fn asked(u: &Desk) {
    seen(u);
    u.ask_for_xattrs("d/low");
}

fn stale(u: &Desk) {
    seen(u);
    u.lookup("d/none");
    u.lookup("d/first");
}

fn seen_dir(u: &Desk) {
    used(u);
    u.lookup("d/empty");
    u.lookup("d/full");
}

fn twice(u: &Desk) {
    seen_dir(u);
    for _ in 0..2 {
        u.lookup("d/full/absent");
    }
}

fn thrice(u: &Desk) {
    twice(u);
    u.find("d/full/absent");
}

fn made_new(u: &Desk) {
    used(u);
    u.file("d/new");
    u.write("d/new", 0);
}

fn made_dir(u: &Desk) {
    used(u);
    u.dir("d/new");
}

fn own(u: &Desk) {
    used(u);
    u.dir("own");
    u.file("own/first");
}

fn own_file(u: &Desk) {
    own(u);
    u.file("own/new");
}

fn two_own(u: &Desk) {
    own_file(u);
    u.file("own/second");
}

fn removed(u: &Desk) {
    seen(u);
    u.unlink("d/low");
}

fn chmodded(u: &Desk) {
    seen(u);
    u.chmod("d/low");
}

fn appended(u: &Desk) {
    seen(u);
    u.write("d/low", 4096);
}

fn look_at_many(u: &Desk) {
    used(u);
    u.lookup("many");
}

/// The upper one of two lower layers.
fn top() -> Vec<String> {
    let fixed = [
        "dir d",
        "file d/first 4096",
        "file d/low 4096",
        "dir d/empty",
        "dir d/full",
        "file d/full/x",
        "dir e",
        "file e/one 4096",
        "file e/two 4096",
        "file e/three 4096",
        "dir many",
    ];
    let many = (0..1000).map(|i| format!("file many/{i}"));
    // More than it pays to read for the lookups that are made here.
    let more = (0..600).map(|i| format!("file d/{i}"));
    let fixed = fixed.into_iter().map(str::to_owned);
    fixed.chain(many).chain(more).collect()
}

const BOTTOM: &[&str] = &[
    "dir d",
    "file d/deep",
    "dir d/full",
    "file d/full/y",
    "dir e",
];

#[test]
fn operations_take_the_system_calls_that_the_documentation_says() {
    if !skip::can_mount() {
        return;
    }
    if skip::in_user_namespace() {
        return skip::skipped("another root than that of the machine writes other marks");
    }
    // One with a journal, which not every disk has that is ext4.
    let Some(backing) = Backing::sized(Kind::Ext4, 2 << 30) else {
        return;
    };
    let top = top();
    let top: Vec<&str> = top.iter().map(String::as_str).collect();
    let mut counted = String::new();
    for (i, (name, before, operation)) in ROWS.iter().enumerate() {
        let desk = Desk::new(&backing.dir(&format!("row{i}")), &top, BOTTOM);
        before(&desk);
        let calls = desk.count(operation);
        let total: usize = calls.values().sum();
        let names: Vec<String> = calls
            .iter()
            .map(|(call, count)| match count {
                1 => (*call).to_owned(),
                _ => format!("{count} {call}"),
            })
            .collect();
        counted += &format!("| {name} | {total} | {} |\n", names.join(", "));
    }
    let said = TABLE.split_once(HEADING).map_or("", |(_, section)| {
        section.split("\n## ").next().unwrap_or_default()
    });
    let rows = |text: &str| -> Vec<String> {
        let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| operation ");
        text.lines().filter(is_row).map(str::to_owned).collect()
    };
    let (said, counted_rows) = (rows(said), rows(&counted));
    let differing: Vec<String> = counted_rows
        .iter()
        .filter(|row| !said.contains(row))
        .map(|row| format!("counted  {row}"))
        .chain(
            said.iter()
                .filter(|row| !counted_rows.contains(row))
                .map(|row| format!("expected {row}")),
        )
        .collect();
    assert!(
        said == counted_rows,
        "docs/performance.md says otherwise:\n{}\nthe whole table would be\n{counted}",
        differing.join("\n")
    );
}
