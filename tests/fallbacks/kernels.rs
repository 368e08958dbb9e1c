//! Kernels without the calls that came after Linux 4.18, and filters that do not know them.

use std::process::Command;
use std::time::Duration;

use super::scenario::Day;
use super::support::filter::{named, refuse};
use super::support::lab::{Lab, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{Subject, plyfs_binary, run};

const LIMIT: Duration = Duration::from_secs(60);

fn day_without(filter: &str) {
    let Some(lab) = Lab::new() else { return };
    Day::new(&lab, &lab.path("room")).without(filter).passes();
}

#[test]
fn linux_4_18_is_new_enough() {
    day_without("linux-4.18");
}

#[test]
fn a_filter_that_refuses_what_it_does_not_know_is_no_hindrance() {
    day_without("linux-4.18-eperm");
}

#[test]
fn statx_may_be_missing() {
    day_without("no-statx");
    day_without("no-statx-eperm");
}

/// What a program says that succeeds.
fn finish(mut command: Command) -> String {
    let out = run(&mut command, LIMIT).unwrap_or_else(|e| panic!("{e}"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{command:?}: {}: {said}", out.status);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// plyfs with `arguments` alone, under the filter.
fn plyfs(filter: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(plyfs_binary());
    refuse(&mut command, &named(filter).expect("a filter of this name"));
    command.args(arguments);
    command
}

#[test]
fn every_verb_does_on_linux_4_18() {
    for filter in [
        "linux-4.18",
        "linux-4.18-eperm",
        "no-statx",
        "no-statx-eperm",
    ] {
        let Some(lab) = Lab::new() else { return };
        let lower = lab.layer(
            "lower",
            MarkFormat::Overlay,
            &["dir d", "file d/f", "file g"],
        );
        let stack = lab.stack("verbs", &[lower]).without(filter);
        let mounted = stack.mount(Subject::Plyfs, &lab.path("mnt"));
        let mounted = mounted.unwrap_or_else(|e| panic!("{e}"));
        let at = mounted.path().to_str().expect("a plain name").to_owned();
        shell(mounted.path(), "mv d e; rm g; printf more >> e/f");
        let figures = finish(plyfs(filter, &["stat", "--json", &at]));
        assert!(figures.starts_with('{'), "{filter}: {figures}");
        finish(plyfs(filter, &["umount", &at]));
        // Its number may be another mount's by now.
        std::mem::forget(mounted);
        finish(stack.plyfs_verb("check"));
        finish(stack.plyfs_verb("settle"));
        finish(plyfs(
            filter,
            &["run", "--discard", "--", "rm", "/etc/passwd"],
        ));
        assert!(std::path::Path::new("/etc/passwd").exists());
    }
}

/// What Linux 4.18 offers of FUSE (`FUSE_ABORT_ERROR` is the last), and a kernel that offers
/// nothing at all.
#[test]
fn no_feature_of_fuse_is_needed() {
    for offered in ["3fffff", "0"] {
        let Some(lab) = Lab::new() else { return };
        let mut day = Day::new(&lab, &lab.path("room")).without("linux-4.18");
        day.stack.variables = vec![("PLYFS_FAULT_OFFERS", offered)];
        day.passes();
    }
}

/// With a private copy of the layer's mount, with the mounts' numbers, and with neither.
#[test]
fn what_is_mounted_in_a_layer_is_no_part_of_it() {
    for filter in ["", "linux-4.18", "linux-4.18-no-statx"] {
        let Some(lab) = Lab::new() else { return };
        let lower = lab.layer("lower", MarkFormat::Overlay, &["dir d", "dir d/m"]);
        shell(&lower, "mount -t tmpfs none d/m; touch d/m/hidden");
        let mounted = lab.mount_stack(
            "m",
            &lab.stack("m", std::slice::from_ref(&lower)).without(filter),
        );
        let said = shell(mounted.path(), "ls d/m; touch d/m/new; ls d/m");
        assert_eq!(said, "new\n", "{filter}");
        mounted.unmount().unwrap_or_else(|e| panic!("{e}"));
        shell(&lower, "umount d/m");
    }
}
