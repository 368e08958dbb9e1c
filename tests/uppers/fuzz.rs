//! Random changes over random layers, settled: the kernel shows the same.

use std::path::Path;

use crate::support::lab::Lab;
use crate::support::layers::MarkFormat;
use crate::support::rng::Rng;
use crate::support::skip;
use crate::support::sys;
use crate::support::tree;
use crate::{PLAINEST, assert_same, assert_sound, settle, view};

/// `PLYFS_SETTLE_SCRIPTS`: how many scripts.
fn scripts() -> u64 {
    std::env::var("PLYFS_SETTLE_SCRIPTS").map_or(12, |v| v.parse().expect("a number"))
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn name(rng: &mut Rng) -> &'static str {
    rng.pick::<&str>(&NAMES)
}

fn path(rng: &mut Rng, depth: u64) -> String {
    let parts = 1 + rng.below(depth);
    let names: Vec<_> = (0..parts).map(|_| name(rng)).collect();
    names.join("/")
}

/// A lower layer: directories, files, deletions, and hard links in the topmost one, where
/// none of their names is hidden by another layer: such a name counts in `st_nlink` as long
/// as the file is the layer's, and never comes to the upper.
fn layer(rng: &mut Rng, topmost: bool) -> Vec<String> {
    let mut lines = vec!["dir .".to_owned()];
    // A link needs a file, and which lines make one shows itself later.
    let linked = format!("x{}", rng.below(100));
    lines.push(format!("file {linked} 4000"));
    let mut taken = std::collections::BTreeSet::new();
    for _ in 0..rng.below(25) + 5 {
        let at = path(rng, 3);
        if !taken.insert(at.clone()) {
            continue;
        }
        match rng.below(8) {
            0..3 => lines.push(format!("dir {at}")),
            3..5 => lines.push(format!("file {at} {}", rng.below(9000))),
            5 if topmost => lines.push(format!("link {at} {linked}")),
            5 | 6 => lines.push(format!("whiteout {at}")),
            _ => lines.extend([format!("dir {at}"), format!("opaque {at}")]),
        }
    }
    lines
}

/// One change; most of those at random fail, which is no matter.
fn change(rng: &mut Rng, at: &Path) {
    let full = |rng: &mut Rng| at.join(path(rng, 4)).into_os_string().into_encoded_bytes();
    let (p, q) = (full(rng), full(rng));
    let done = match rng.below(16) {
        0..5 => sys::rename(&p, &q, 0),
        5 => sys::rename(&p, &q, libc::RENAME_EXCHANGE),
        6 | 7 => sys::mkdir(&p, 0o751),
        8 => sys::open(&p, libc::O_CREAT | libc::O_WRONLY, 0o640)
            .and_then(|fd| sys::pwrite(&fd, b"written", rng.below(5000)).map(drop)),
        9 => sys::link(&p, &q),
        10 => sys::unlink(&p),
        11 => match String::from_utf8(p.clone()).map(std::fs::remove_dir_all) {
            Ok(Ok(())) => Ok(()),
            _ => Err(libc::ENOENT),
        },
        12 => sys::chmod(&p, 0o600 | rng.below(64) as u32),
        13 => sys::lchown(&p, rng.below(3) as u32, 5),
        14 => sys::symlink("target", &p),
        _ => sys::lsetxattr(&p, "user.note", b"x", 0),
    };
    // A refusal is an answer, too, but not that of a bug.
    assert!(
        !matches!(done, Err(libc::EIO | libc::ESTALE)),
        "{}: {done:?}",
        String::from_utf8_lossy(&p)
    );
}

#[test]
fn random_uppers_are_the_kernels_once_settled() {
    if !skip::has_filesystem("overlay") {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    let first: u64 = std::env::var("PLYFS_SETTLE_SEED").map_or(1, |v| v.parse().expect("a number"));
    for seed in first..first + scripts() {
        let mut rng = Rng::new(seed);
        let mut lowers = Vec::new();
        for i in 0..rng.below(3) + 1 {
            let lines = layer(&mut rng, i == 0);
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            // Opaque marks that the kernel does not read are covered.
            let formats = [
                MarkFormat::Overlay,
                MarkFormat::UserXattr,
                MarkFormat::FuseOverlayfs,
            ];
            let format = *rng.pick(&formats);
            lowers.push(lab.layer(&format!("l{seed}-{i}"), format, &lines));
        }
        let stack = lab.stack(&format!("{seed}"), &lowers);
        for _ in 0..3 {
            let mounted = lab.mount_stack("m", &stack);
            for _ in 0..60 {
                change(&mut rng, mounted.path());
            }
            mounted.unmount().expect("it unmounts");
        }
        assert_sound(&stack);
        let mounted = lab.mount_stack("m", &stack);
        let wanted = view(mounted.path());
        mounted.unmount().expect("it unmounts");
        settle(&stack, &[]);
        let mounted = lab.mount_kernel("k", &stack.clone().words(PLAINEST));
        let mut got = view(mounted.path());
        // It lists stray whiteouts of unmerged lower directories, and then denies them.
        let upper = tree::read(&lab.upper(&format!("{seed}")));
        got.retain(|path, node| {
            upper.contains_key(path) || node.trouble != ["listed, but lstat says ENOENT"]
        });
        for node in got.values_mut() {
            // Those of lower layers, which it does not know for marks.
            node.xattrs.retain(|key, _| {
                !key.starts_with(b"user.overlay.") && !key.starts_with(b"user.fuse")
            });
        }
        assert_same(
            &format!("seed {seed}"),
            ("plyfs", &wanted),
            ("kernel", &got),
        );
        mounted.unmount().expect("it unmounts");
        assert_sound(&stack);
        let before = tree::read(&lab.upper(&format!("{seed}")));
        settle(&stack, &[]);
        let after = tree::read(&lab.upper(&format!("{seed}")));
        let lines = tree::differences(("first", &before), ("second", &after));
        assert!(
            lines.is_empty(),
            "seed {seed}, settled twice:\n{}",
            lines.join("\n")
        );
    }
}
