//! Uppers on filesystems that lack something.

use super::scenario::Day;
use super::support::lab::Lab;
use super::support::tree::Tree;

fn day_without(filter: &str) -> Option<Tree> {
    let lab = Lab::new()?;
    let day = Day::new(&lab, &lab.path("room")).without(filter);
    day.passes();
    Some(day.upper())
}

#[test]
fn without_xattrs() {
    day_without("no-xattrs");
}

#[test]
fn without_device_nodes() {
    day_without("no-devices");
}

#[test]
fn without_xattrs_and_device_nodes() {
    day_without("no-xattrs-no-devices");
}

#[test]
fn without_any_flag_of_rename() {
    day_without("no-rename-flags");
}

#[test]
fn without_whiteouts_left_by_rename() {
    day_without("no-whiteout-flag");
}

#[test]
fn without_rename_flags_and_xattrs() {
    day_without("no-rename-flags-no-xattrs");
}

#[test]
fn without_mknod() {
    let Some(lab) = Lab::new() else { return };
    let day = Day::new(&lab, &lab.path("room"))
        .without("no-mknod")
        .without_nodes();
    day.passes();
}

#[test]
fn without_holes_clones_and_copies() {
    day_without("plain-data");
}

#[test]
fn without_handles_uuid_and_locks() {
    day_without("no-identity");
}

#[test]
fn without_hard_links() {
    let Some(lab) = Lab::new() else { return };
    let day = Day::new(&lab, &lab.path("room"))
        .without("no-links")
        .without_links();
    day.passes();
}

#[test]
fn without_all_of_that() {
    let Some(lab) = Lab::new() else { return };
    let day = Day::new(&lab, &lab.path("room"))
        .without("poorest")
        .without_links()
        .without_nodes();
    day.passes();
}
