//! Container engines on plyfs: podman, buildah, docker and containerd do what a person has
//! them do, as root and as an ordinary user, on images that are made here without a registry.
//!
//! `cargo test --test clients` runs a selection on plyfs alone, in a minute or two. The whole
//! table, beside the kernel's overlayfs and the programs named in `PLYFS_FUSE_OVERLAYFS`
//! (with colons between):
//!
//! ```sh
//! PLYFS_FUSE_OVERLAYFS=/usr/bin/fuse-overlayfs \
//!     cargo test --release --test clients -- --ignored --nocapture the_whole_table
//! ```
//!
//! `PLYFS_CLIENTS_ENGINES`, `PLYFS_CLIENTS_WHO` and `PLYFS_CLIENTS_PROGRAMS` (with commas
//! between) narrow it; `PLYFS_CLIENTS_IMAGES` is where the images are kept for the next run.
//! Everything happens in namespaces of its own, below `PLYFS_TEST_DIR`: see `site.sh`.

mod column;
#[path = "../support/mod.rs"]
mod support;
mod table;

use column::{Column, Site, WHO};
use support::skip;
use table::Table;

/// What the short selection runs: engine, who, cases.
const SHORT: [(&str, &str, &[&str]); 7] = [
    (
        "podman",
        "root",
        &[
            "run",
            "returns_at_once",
            "write_delete_recreate",
            "diff",
            "commit_keeps_whiteouts",
            "volume_overlaid",
            "setuid",
            "userns_auto",
            "uidmap",
            "image_mount",
            "hard_links",
            "killed_daemon",
        ],
    ),
    (
        "podman",
        "user",
        &[
            "run",
            "stop_start",
            "save_load",
            "export_import",
            "cp",
            "rootfs_overlaid",
            "read_only",
            "user",
            "keep_id",
            "userns_auto",
            "six_at_once",
            "chown_recursive",
            "force_mask",
            "dpkg",
            "killed_daemon",
        ],
    ),
    (
        "switch",
        "root",
        &["read_by_overlayfs", "written_by_overlayfs"],
    ),
    (
        "switch",
        "user",
        &["read_by_overlayfs", "written_by_overlayfs"],
    ),
    ("buildah", "root", &["mount_and_change"]),
    (
        "buildah",
        "user",
        &["from_scratch", "run_and_commit", "build"],
    ),
    (
        "containerd",
        "user",
        &["snapshot_through_mount_fuse3", "run_on_a_snapshot"],
    ),
];

const ENGINES: [&str; 5] = ["podman", "buildah", "docker", "containerd", "switch"];

#[test]
fn container_engines_live_on_plyfs() {
    if !skip::can_mount() || !column::has_tools() {
        return;
    }
    for engine in ["podman", "buildah"] {
        if !skip::has_tool(engine) {
            return;
        }
    }
    let Some(site) = Site::new() else { return };
    let plyfs = site.plyfs();
    let mut table = Table::default();
    for (engine, who, cases) in SHORT {
        site.run(&Column::new(engine, who, &plyfs), cases, &mut table);
    }
    assert_eq!(table.failures(&plyfs.name), Vec::<String>::new());
    assert!(table.passes(&plyfs.name) >= 20, "hardly anything was run");
}

#[test]
#[ignore = "takes a quarter of an hour, and wants docker and the rivals too"]
fn the_whole_table() {
    if !skip::can_mount() || !column::has_tools() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let engines = chosen("PLYFS_CLIENTS_ENGINES", &ENGINES);
    let programs: Vec<_> = site
        .programs()
        .into_iter()
        .filter(|program| is_chosen("PLYFS_CLIENTS_PROGRAMS", &program.name))
        .collect();
    let mut table = Table::default();
    for who in chosen("PLYFS_CLIENTS_WHO", &WHO) {
        for engine in &engines {
            for program in &programs {
                site.run(&Column::new(engine, who, program), &[], &mut table);
            }
        }
    }
    println!("\n{table}");
    let plyfs = site.plyfs();
    assert_eq!(table.failures(&plyfs.name), Vec::<String>::new());
}

/// The words of `all` that the environment variable names; without it all of them.
fn chosen<'a>(variable: &str, all: &[&'a str]) -> Vec<&'a str> {
    all.iter()
        .copied()
        .filter(|word| is_chosen(variable, word))
        .collect()
}

fn is_chosen(variable: &str, word: &str) -> bool {
    std::env::var(variable).map_or(true, |list| list.split(',').any(|one| one == word))
}
