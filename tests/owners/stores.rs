//! Stores that fuse-overlayfs has written, and those that it reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::has_tools;
use crate::support::lab::{Lab, shell};
use crate::support::layers::MarkFormat;
use crate::support::mount::{Stack, Subject, run};
use crate::support::skip;

/// The programs to compare with; with a reason printed where there are none.
fn programs() -> Vec<PathBuf> {
    let named = std::env::var_os("PLYFS_FUSE_OVERLAYFS");
    let found: Vec<PathBuf> = match &named {
        Some(list) => std::env::split_paths(list).collect(),
        None => skip::find_tool("fuse-overlayfs").into_iter().collect(),
    };
    if found.is_empty() {
        skip::skipped("needs fuse-overlayfs");
    }
    found
}

/// The first number of its version.
fn version(program: &Path) -> u32 {
    let limit = std::time::Duration::from_secs(10);
    let out = run(Command::new(program).arg("--version"), limit).expect("it tells its version");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let after = said
        .split("fuse-overlayfs: version ")
        .nth(1)
        .unwrap_or_default();
    let first = after.split('.').next().unwrap_or_default();
    first.trim().parse().unwrap_or(0)
}

const NAMES: &str = "f low e tool sub sub/inner link";
const WRITE: &str = "echo n > f; chown 5:6 f; chmod 640 f; chmod 4711 low; chown 7:8 low; \
    mkdir sub; chmod 2750 sub; chown 9:10 sub; echo x > sub/inner; chown 11:12 sub/inner; \
    mkdir e; chmod 1777 e; touch tool; chmod 755 tool; chown 3:3 tool; ln -s f link";

fn told(at: &Path) -> String {
    shell(
        at,
        &format!("stat -c '%n %F %a %u:%g' {NAMES}; ls . d; cat f"),
    )
}

#[test]
fn a_store_of_fuse_overlayfs_is_read_and_the_other_way_round() {
    let Some(lab) = Lab::new().filter(|_| has_tools()) else {
        return;
    };
    let l = lab.layer("l", MarkFormat::Overlay, &["file low", "dir d", "file d/x"]);
    for (i, program) in programs().into_iter().enumerate() {
        if version(&program) < 2 {
            skip::skipped("fuse-overlayfs 1 keeps other modes than it was told");
            continue;
        }
        let stack = |name: &str| Stack {
            program: program.clone(),
            ..lab
                .stack(&format!("{name}{i}"), std::slice::from_ref(&l))
                .words("xattr_permissions=2")
        };
        let (theirs, ours) = (stack("theirs"), stack("ours"));
        let mount = |name: &str, stack: &Stack, subject| {
            lab.try_mount(&format!("{name}{i}"), stack, subject)
                .unwrap_or_else(|e| panic!("{e}"))
        };
        for (name, stack, first, second) in [
            ("theirs", &theirs, Subject::FuseOverlayfs, Subject::Plyfs),
            ("ours", &ours, Subject::Plyfs, Subject::FuseOverlayfs),
        ] {
            let written = mount(name, stack, first);
            shell(written.path(), WRITE);
            let before = told(written.path());
            written.unmount().expect("it unmounts");
            let read = mount(name, stack, second);
            assert_eq!(told(read.path()), before, "{name}");
            read.unmount().expect("it unmounts");
        }
    }
}
