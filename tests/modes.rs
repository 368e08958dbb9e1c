//! The suites that mount, in every mode of serving: one command for all of them,
//! `cargo test --release --test modes -- --ignored --nocapture`.
//!
//! `PLYFS_MODES` names other modes, with spaces between; `PLYFS_MODES_SUITES` other suites. One of them
//! alone: `PLYFS_TEST_OPTIONS=io=passthrough cargo test --release --test mounted`.

use std::process::{Command, Stdio};

/// Words for `-o`, and one more. The first is what a mount is without any.
const MODES: &[&str] = &[
    "io=cached",
    "copyup=open",
    "io=passthrough",
    "partial=0,complete=idle",
    "partial=0,complete=unmount",
    SLOW,
];

/// Not an option: all that is read counts as having waited for a disk, so that what is read in
/// any order is fetched ahead.
const SLOW: &str = "slow-disk";

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

/// What the tests of `suite` said at their end, in `mode`; whether they passed.
fn run(mode: &str, suite: &str) -> (bool, String) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--test", suite]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let (variable, value) = match mode {
        SLOW => ("PLYFS_FAULT_WAITS", "1"),
        options => ("PLYFS_TEST_OPTIONS", options),
    };
    let out = cargo
        .env(variable, value)
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
#[ignore = "every suite six times over: a quarter of an hour"]
fn every_suite_passes_in_every_mode() {
    let mut failed = Vec::new();
    for mode in list("PLYFS_MODES", MODES) {
        for suite in list("PLYFS_MODES_SUITES", SUITES) {
            let (passed, result) = run(&mode, &suite);
            println!("{mode} {suite}: {result}");
            if !passed {
                failed.push(format!("{mode} {suite}"));
            }
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}
