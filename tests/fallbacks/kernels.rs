//! Kernels without the calls that came after Linux 4.18, and filters that do not know them.

use super::scenario::Day;
use super::support::lab::Lab;

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
