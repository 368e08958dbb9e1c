//! The power goes out at any moment of a workload, on a real block device: every filesystem mounts
//! again, and the union over it shows each name as it was or as it was to be, files that were copied
//! up with the lower data or later data and never empty or torn, and all that was synced.
//!
//! A disk records the order of the writes and flushes (`disk.rs`). It is put together again for
//! every flush, and for what came after a flush with a random part of the writes, and of their
//! blocks, left out.
//!
//! `PLYFS_POWER_POINTS` is how many points are tried on each filesystem (120), `PLYFS_POWER_ROUNDS`
//! how many workloads are run for that (1; all but the first are made up), `PLYFS_POWER_SEED` the chance in it;
//! `PLYFS_POWER_WORDS` are options of the mount, `PLYFS_POWER_SUBJECT=kernel` does the same to the kernel's overlayfs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::disk::{Event, Image, LoopDevice};
use crate::inside::File;
use crate::moments::{judge_file, judge_names, may_be_at};
use crate::recording::{Cut, Mounted, Record, Site, make_base, record};
use crate::support::backing::{Backing, Kind};
use crate::support::mount::Subject;
use crate::support::rng::Rng;
use crate::support::{skip, tree};
use crate::workload::synced;

/// Puts the disk together, and says what is wrong with what the union shows.
fn try_cut(
    kind: Kind,
    dir: &Path,
    site: &Site,
    record: &Record,
    image: &Image,
    cut: &Cut,
) -> Vec<String> {
    let mut image = image.clone();
    for (i, part) in &cut.kept {
        if let Event::Write(at, data) = &record.events[*i] {
            image.write(at + part.start as u64, &data[part.clone()]);
        }
    }
    let file = dir.join("cut");
    image.save(&file);
    let device = LoopDevice::new(&file, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mounted = match Mounted::new(kind, device.path(), &site.mount) {
        Ok(mounted) => mounted,
        Err(e) => return vec![e],
    };
    let found = judge(kind, site, record, cut);
    drop(mounted);
    drop(device);
    std::fs::remove_file(&file).expect("the image can be removed");
    found
}

fn judge(kind: Kind, site: &Site, record: &Record, cut: &Cut) -> Vec<String> {
    let union = match site.open() {
        Ok(union) => union,
        Err(e) => return vec![e],
    };
    let seen = match union.files() {
        Ok(seen) => seen,
        Err(e) => return vec![e],
    };
    let mut found = Vec::new();
    let states = &record.states;
    // Names are on the disk when they were made.
    let is_strict = site.words.contains("strict");
    let mut paths: BTreeSet<&String> = seen.keys().collect();
    paths.extend(states.iter().flat_map(|s| s.keys()));
    let mut durable = record.durable.clone();
    for (i, line) in record.work.iter().enumerate() {
        let done = record.spans[i].1 <= cut.at;
        match synced(line) {
            Some(path) if done => durable.extend(states[i][&format!("/{path}")].data.clone()),
            _ if done && line == "sync" => {
                durable.extend(states[i].values().filter_map(|f| f.data.clone()));
            }
            _ => {}
        }
    }
    for path in paths {
        let range = record.range(cut.at, path);
        let moments = if is_strict {
            &states[record.done(cut.at)]
        } else {
            &states[range.clone()]
        };
        let may = may_be_at(moments, path);
        let history = |ino: &u64| record.history(cut.at, range.clone(), *ino);
        let histories: Vec<Vec<&File>> = may.inos.iter().map(history).collect();
        found.extend(judge_file(
            path,
            seen.get(path),
            may.be_absent,
            &histories,
            &durable,
        ));
    }
    let (in_order, moments) = if is_strict {
        (true, record.done(cut.at))
    } else {
        (kind != Kind::Btrfs, record.range(cut.at, ""))
    };
    found.extend(judge_names(in_order, &states[moments], &seen));
    if let Err(e) = union.perform("mkdir works") {
        found.push(format!("nothing can be made: {e}"));
    }
    drop(union);
    let mut left = tree::read(&site.mount.join("w/work"));
    left.retain(|path, _| !path.starts_with(b"incompat"));
    if left.len() > 1 && site.subject == Subject::Plyfs {
        found.push(format!("{} remains in work", left.len() - 1));
    }
    found
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |v| v.parse().expect("a number"))
}

/// Runs the experiment; what is wrong, or `None` where it cannot be done here.
fn experiment(kind: Kind, apart: bool, words: &str) -> Option<Vec<String>> {
    let subject = match std::env::var("PLYFS_POWER_SUBJECT") {
        Ok(name) => Subject::named(&name).expect("plyfs or kernel"),
        Err(_) => Subject::Plyfs,
    };
    let tool = format!("mkfs.{}", kind.name());
    if !skip::can_mount() || !skip::has_filesystem(kind.name()) || !skip::has_tool(&tool) {
        return None;
    }
    let mut rng = Rng::new(number("PLYFS_POWER_SEED", 1));
    let rounds = number("PLYFS_POWER_ROUNDS", 1);
    let points = number("PLYFS_POWER_POINTS", 120) / rounds;
    let (mut tried, mut wrong) = (0, Vec::new());
    for round in 0..rounds {
        let backing = Backing::sized(Kind::Tmpfs, 4 << 30)?;
        let dir = backing.path();
        let apart = apart == round.is_multiple_of(2);
        let site = Site {
            mount: backing.dir("mnt"),
            elsewhere: apart.then(|| backing.dir("lowers")),
            subject,
            union: backing.dir("union"),
            words: words.to_owned(),
        };
        let base = make_base(kind, dir, &site)?;
        let record = record(kind, dir, &site, base, (round > 0, &mut rng));
        let mut image = record.base.clone();
        let mut applied = 0;
        let right = wrong.len();
        for cut in record.cuts(points as usize, &mut rng) {
            for event in &record.events[applied..cut.flushed] {
                if let Event::Write(at, data) = event {
                    image.write(*at, data);
                }
            }
            applied = cut.flushed;
            for what in try_cut(kind, dir, &site, &record, &image, &cut) {
                wrong.push(format!("round {round}, {}: {what}", record.describe(&cut)));
            }
            tried += 1;
        }
        if wrong.len() > right {
            wrong.push(format!("round {round} did: {}", record.work.join("; ")));
        }
    }
    println!(
        "power cut, {}, {subject:?} [{words}]: {tried} points, {} inconsistencies",
        kind.name(),
        wrong.len()
    );
    Some(wrong)
}

fn run_on(kind: Kind, apart: bool) {
    let words = std::env::var("PLYFS_POWER_WORDS").unwrap_or_default();
    run_with(kind, apart, &words);
}

fn run_with(kind: Kind, apart: bool, words: &str) {
    let wrong = experiment(kind, apart, words).unwrap_or_default();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every file is copied up in parts, and gets a piece more after every other operation.
const PARTS: &str = "partial=0,complete=idle";

#[test]
fn a_power_cut_leaves_old_or_new_on_ext4() {
    run_on(Kind::Ext4, false);
}

#[test]
fn a_power_cut_leaves_old_or_new_on_xfs() {
    run_on(Kind::Xfs, true);
}

#[test]
fn a_power_cut_leaves_old_or_new_on_btrfs() {
    run_on(Kind::Btrfs, true);
}

/// Small copies are marked until their data is on the disk, which is seen to for one of them
/// after every other operation.
#[test]
fn a_power_cut_leaves_old_or_new_of_copies_that_come_to_the_disk_later() {
    run_with(Kind::Ext4, true, "complete=idle");
    run_with(Kind::Xfs, true, "complete=idle");
}

#[test]
fn a_power_cut_leaves_old_or_new_of_partly_copied_files_on_ext4() {
    run_with(Kind::Ext4, false, PARTS);
    run_with(Kind::Ext4, true, "partial=0,complete=off");
}

#[test]
fn a_power_cut_leaves_old_or_new_of_partly_copied_files_on_xfs() {
    run_with(Kind::Xfs, true, PARTS);
    run_with(Kind::Xfs, false, "partial=0,complete=off");
}

#[test]
fn a_power_cut_leaves_old_or_new_of_partly_copied_files_on_btrfs() {
    run_with(Kind::Btrfs, true, PARTS);
    run_with(Kind::Btrfs, true, "partial=0,complete=off");
}

/// The experiment finds what is to be found.
#[test]
fn a_power_cut_is_seen_to_tear_what_is_never_synced() {
    let Some(wrong) = experiment(Kind::Ext4, true, "volatile") else {
        return;
    };
    assert!(
        wrong
            .iter()
            .any(|what| what.contains(": /") && what.contains(" has ")),
        "copies without data: {wrong:#?}"
    );
}
