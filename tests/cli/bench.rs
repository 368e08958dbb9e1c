//! `plyfs bench`: what it measures it shows in every form, and nothing of it is left.

use crate::support::mount::run;
use crate::support::skip;
use crate::tools::{Stage, can_run_as_user, stderr, stdout, told};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

/// A debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Little of everything.
const LITTLE: &[&str] = &["--scale", "0.002", "--rounds", "2"];

/// The workloads that need no program besides plyfs.
const ONLY: &str = "walk,stat-missing,create,rename-lower,chmod-lower,rand-write,mmap-write,\
                    clients-2,copyup-4k";

/// A stage whose directory anyone may measure in.
fn stage() -> Stage {
    let stage = Stage::new();
    stage.scratch.dir("here");
    stage.chmod("here", 0o777);
    stage
}

fn judge(stage: &Stage, out: &Output, subjects: &[&str]) {
    assert!(out.status.success(), "{}", told(out));
    let left: Vec<_> = std::fs::read_dir(stage.path("here"))
        .expect("it can be read")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with("out."))
        .collect();
    assert!(left.is_empty(), "{left:?} left behind; {}", told(out));
    let report: Value = serde_json::from_str(&stage.read("here/out.json")).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names.len(), 12, "{names:?}");
    for row in rows {
        for subject in subjects {
            let results = row["results"].as_array().expect("results");
            let found = results.iter().find(|one| one["subject"] == *subject);
            let found = found.unwrap_or_else(|| panic!("no {subject} in {row}"));
            assert_eq!(found["failure"], Value::Null, "{row}");
            let seconds = found["seconds"].as_array().expect("seconds");
            assert_eq!(seconds.len(), 2, "{row}");
            assert!(found["summary"]["median"].as_f64() > Some(0.0), "{row}");
            assert!(found["ratio"]["of_medians"].as_f64() > Some(0.0), "{row}");
        }
        let title = row["title"].as_str().expect("a title");
        assert!(stdout(out).contains(title), "{title}: {}", told(out));
    }
    for fact in ["kernel", "processor", "memory_kib"] {
        assert!(!report["machine"][fact].is_null(), "{fact}: {report}");
    }
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["bench", "here", "--only", ONLY, "--json", "here/out.json"];
    args.extend(LITTLE);
    args.extend(more);
    args
}

#[test]
fn a_user_measures_in_a_namespace_and_nothing_is_left() {
    if !can_run_as_user() {
        return;
    }
    let stage = stage();
    let args = arguments(&[
        "--subject",
        "plyfs",
        "--subject",
        "bare",
        "--reference",
        "bare",
    ]);
    let out = run(&mut stage.plyfs_as_user(&args), LIMIT).expect("it ends in time");
    judge(&stage, &out, &["plyfs", "bare"]);
}

#[test]
fn root_measures_with_options_of_each_subject_and_gets_a_page() {
    if !skip::can_mount() {
        return;
    }
    let stage = stage();
    let more = [
        "--setting=root",
        "--html=here/out.html",
        "--subject=plyfs",
        "--subject=other=plyfs:metacopy=off",
        "--reference=plyfs",
    ];
    let out = run(&mut stage.plyfs(&arguments(&more)), LIMIT).expect("it ends in time");
    judge(&stage, &out, &["plyfs", "other"]);
    assert!(stdout(&out).contains("other: plyfs"), "{}", told(&out));
    let page = stage.read("here/out.html");
    assert!(page.contains("options metacopy=off"), "{page}");
    assert!(
        !page.contains("http:") && !page.contains("https:"),
        "{page}"
    );
    // The same page again, from the figures alone.
    let again = ["bench", "--from=here/out.json", "--html=again.html"];
    let out = run(&mut stage.plyfs(&again), LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", told(&out));
    assert_eq!(stage.read("again.html"), page);
}

#[test]
fn a_workload_that_fails_is_told_and_the_others_are_measured() {
    if !can_run_as_user() {
        return;
    }
    let stage = stage();
    let mut args = vec!["bench", "here", "--only=package,create", "--subject=plyfs"];
    args.extend(LITTLE);
    let out = run(&mut stage.plyfs_as_user(&args), LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", told(&out));
    let said = stdout(&out);
    assert!(said.contains("package, plyfs: needs --rootfs"), "{said}");
    assert!(said.contains("us/op"), "{said}");
}

#[test]
fn a_subject_that_cannot_be_mounted_is_refused_or_left_out() {
    if !can_run_as_user() {
        return;
    }
    let stage = stage();
    let call = |more: &[&str]| {
        let mut args = vec!["bench", "here", "--only=create"];
        args.extend(["--subject=bare", "--subject=plyfs:nonsense"]);
        args.extend(LITTLE);
        args.extend(more);
        run(&mut stage.plyfs_as_user(&args), LIMIT).expect("it ends in time")
    };
    let cause = "option nonsense: no such option; see plyfs-mount(1) for those there are";
    let out = call(&[]);
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert_eq!(
        stderr(&out),
        format!(
            "plyfs: subject plyfs nonsense: it cannot be mounted here: {cause}; leave it out, \
             try another DIR or --setting, or give --lenient\n"
        )
    );
    let out = call(&["--lenient"]);
    assert!(out.status.success(), "{}", told(&out));
    let first = stderr(&out).lines().next().map(str::to_owned);
    assert_eq!(
        first,
        Some(format!("plyfs: plyfs nonsense: left out: {cause}"))
    );
}

#[test]
fn stopped_by_a_signal_nothing_is_left() {
    if !can_run_as_user() {
        return;
    }
    let stage = stage();
    let args = [
        "bench",
        "here",
        "--only=walk-warm",
        "--subject=plyfs",
        "--scale=1",
    ];
    let mut command: Command = stage.plyfs_as_user(&args);
    command.stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("it starts");
    crate::tools::await_that("the layers are being made", || {
        let made = std::fs::read_dir(stage.path("here")).into_iter().flatten();
        made.flatten()
            .any(|dir| dir.path().join("l4/small").exists())
    });
    crate::tools::send(child.id(), libc::SIGINT);
    let out = child.wait_with_output().expect("it ends");
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert_eq!(stderr(&out), "plyfs: SIGINT: stopped, nothing is left\n");
    let left = std::fs::read_dir(stage.path("here")).expect("it can be read");
    assert_eq!(left.count(), 0);
}

#[test]
fn the_workloads_are_listed() {
    let stage = Stage::new();
    let out = stage.call(&["bench", "--list", "--only=walk,git"]);
    assert!(out.status.success(), "{}", told(&out));
    let names: Vec<_> = stdout(&out)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert_eq!(
        names,
        ["walk-warm", "walk-cold", "git-status", "git-checkout"]
    );
}
