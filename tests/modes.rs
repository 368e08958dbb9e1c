//! The suites that mount, in every mode of serving: one command for all of them,
//! `cargo test --release --test modes -- --ignored --nocapture`.
//!
//! `PLYFS_MODES` names other modes, with spaces between; `PLYFS_MODES_SUITES` other suites. One of them
//! alone: `PLYFS_TEST_OPTIONS=io=passthrough cargo test --release --test mounted`.

#[path = "support/mod.rs"]
mod support;

use std::ffi::OsString;
use std::process::{Command, Stdio};
use support::backing::{Backing, Kind};

/// Words for `-o`, and one more. The first is what a mount is without any.
const MODES: &[&str] = &[
    "io=cached",
    "copyup=open",
    "io=passthrough",
    "partial=0,complete=idle",
    "partial=0,complete=unmount",
    SLOW,
    JOURNAL,
];

/// Not an option: all that is read counts as having waited for a disk, so that what is read in
/// any order is fetched ahead.
const SLOW: &str = "slow-disk";

/// On an ext4 of its own, which has a journal: there copies are marked until their data is on the
/// disk, which here is when the union is unmounted.
const JOURNAL: &str = "journal";

const JOURNAL_BYTES: u64 = 16 << 30;

/// How the suites are told of a mode.
struct Way {
    variables: Vec<(&'static str, OsString)>,
    /// What has to be there as long as they run.
    _backing: Option<Backing>,
}

impl Way {
    /// `None` where the machine cannot do it.
    fn of(mode: &str) -> Option<Way> {
        let backing = match mode {
            JOURNAL => Some(Backing::sized(Kind::Ext4, JOURNAL_BYTES)?),
            _ => None,
        };
        let variables = match (mode, &backing) {
            (_, Some(backing)) => vec![
                ("PLYFS_TEST_DIR", backing.path().into()),
                ("PLYFS_TEST_OPTIONS", "complete=unmount".into()),
            ],
            (SLOW, None) => vec![("PLYFS_FAULT_WAITS", "1".into())],
            (options, None) => vec![("PLYFS_TEST_OPTIONS", options.into())],
        };
        Some(Way {
            variables,
            _backing: backing,
        })
    }
}

const SUITES: &[&str] = &[
    "model",
    "mounted",
    "race",
    "hardlinks",
    "uppers",
    "fallbacks",
    "crash",
];

fn list(variable: &str, default: &[&str]) -> Vec<String> {
    match std::env::var(variable) {
        Ok(words) => words.split_whitespace().map(str::to_owned).collect(),
        Err(_) => default.iter().map(|word| (*word).to_owned()).collect(),
    }
}

/// What the tests of `suite` said at their end; whether they passed.
fn run(way: &Way, suite: &str) -> (bool, String) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--test", suite]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let out = cargo
        .envs(way.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        println!("{said}");
    }
    let last = said.lines().rfind(|line| line.starts_with("test result: "));
    (out.status.success(), last.unwrap_or("no result").to_owned())
}

#[test]
#[ignore = "every suite seven times over: three quarters of an hour"]
fn every_suite_passes_in_every_mode() {
    let mut failed = Vec::new();
    for mode in list("PLYFS_MODES", MODES) {
        let Some(way) = Way::of(&mode) else {
            failed.push(mode);
            continue;
        };
        for suite in list("PLYFS_MODES_SUITES", SUITES) {
            let (passed, result) = run(&way, &suite);
            println!("{mode} {suite}: {result}");
            if !passed {
                failed.push(format!("{mode} {suite}"));
            }
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}
