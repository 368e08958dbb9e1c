//! Hard links of a lower layer stay hard links: random changes through random names, the union
//! mounted anew every so often, by plyfs and by the kernel's overlayfs in turns; contents, modes,
//! numbers and link counts are those of an in-memory model throughout.
//!
//! Parameters, by environment:
//! - `PLYFS_LINKS_GROUPS`: how many files of the lower have several names (1000)
//! - `PLYFS_LINKS_OPS`: how many changes (6000)
//! - `PLYFS_LINKS_SEED`: (1)

mod model;
#[path = "../support/mod.rs"]
mod support;

use std::time::Instant;

use model::{Model, Size};
use support::lab::Lab;
use support::layers::{MarkFormat, materialise};
use support::mount::{KERNEL_WORDS, PLYFS_WORDS, Subject, forgive_volatile};
use support::rng::Rng;
use support::{skip, tree};

/// How often the union is mounted anew.
const MOUNTS: usize = 12;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |v| {
        v.parse()
            .unwrap_or_else(|_| panic!("{name}: not a number: {v}"))
    })
}

/// Who mounts the union, with which words; each takes its turn.
type Turns<'a> = &'a [(Subject, &'a str)];

fn play(turns: Turns<'_>) {
    let Some(lab) = Lab::new() else { return };
    let started = Instant::now();
    let size = Size {
        groups: number("PLYFS_LINKS_GROUPS", 1000),
        ops: number("PLYFS_LINKS_OPS", 6000),
    };
    let mut rng = Rng::new(number("PLYFS_LINKS_SEED", 1) as u64);
    let (mut model, lines) = Model::new(&mut rng, size);
    let lower = lab.path("l");
    materialise(&lines, &lower, MarkFormat::Overlay);
    let before = tree::read(&lower);
    let mut stack = lab.stack("links", std::slice::from_ref(&lower));
    for turn in 0..MOUNTS {
        let (subject, words) = turns[turn % turns.len()];
        stack.words = words.into();
        forgive_volatile(&lab.path("w-links"));
        let mounted = lab
            .try_mount("links", &stack, subject)
            .unwrap_or_else(|e| panic!("mount {turn}: {e}"));
        let say = |what: String| format!("mount {turn} ({subject:?} {words}): {what}");
        model
            .judge_all(mounted.path())
            .unwrap_or_else(|e| panic!("{}", say(format!("at first sight: {e}"))));
        for op in 0..size.ops / MOUNTS {
            model
                .step(&mut rng, mounted.path())
                .unwrap_or_else(|e| panic!("{}", say(format!("change {op}: {e}"))));
        }
        model
            .judge_all(mounted.path())
            .unwrap_or_else(|e| panic!("{}", say(format!("at the end: {e}"))));
        mounted.unmount().expect("it unmounts");
    }
    let harm = tree::differences(("before", &before), ("after", &tree::read(&lower)));
    assert!(harm.is_empty(), "the lower changed: {harm:?}");
    println!(
        "{} groups, {} changes over {MOUNTS} mounts, {} names at the end, in {:.1} s",
        size.groups,
        size.ops,
        model.names(),
        started.elapsed().as_secs_f64()
    );
}

#[test]
fn hard_links_stay_hard_links_through_changes_and_remounts() {
    play(&[(Subject::Plyfs, PLYFS_WORDS)]);
}

#[test]
fn hard_links_stay_hard_links_while_plyfs_and_the_kernel_take_turns() {
    if skip::can_mount() && skip::has_filesystem("overlay") {
        play(&[
            (Subject::Plyfs, PLYFS_WORDS),
            (Subject::Kernel, KERNEL_WORDS),
        ]);
    }
}

#[test]
fn hard_links_stay_hard_links_in_user_xattrs() {
    if skip::can_mount() && skip::has_filesystem("overlay") {
        let words = format!("{PLYFS_WORDS},userxattr,metacopy=off");
        play(&[
            (Subject::Kernel, "userxattr,index=on,xino=off,volatile"),
            (Subject::Plyfs, &words),
        ]);
    }
}
