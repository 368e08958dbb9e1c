//! Every system call of every operation fails, or is the last: the caller gets the error, names
//! show what was before or what is to be after, now and when the union is opened again, nothing is
//! left in work, and the lower layers are as they were.
//!
//! `PLYFS_FAULT=all` tries every call of every scene with every errno, which takes half an hour for
//! each filesystem; `PLYFS_FAULT_SCENE` keeps to the operations that contain its text, and
//! `PLYFS_FAULT_WORDS` to the unions with just these options.

use std::collections::BTreeSet;

use plyfs::config::plan::Durability;
use plyfs::error::Errno;
use plyfs::sys::fault::{Fault, arm};

use crate::inside::{Inside, Shown};
use crate::scenes::{SCENES, STEPS};
use crate::support::backing::{Backing, Kind};
use crate::support::temp::Scratch;
use crate::support::{skip, sys, tree};
use crate::wrong::{Wrong, changes, errnos, points, syncs};
use crate::yard::{APART, PARTS, PLAIN, VARIANTS, Variant, Yard};

/// What there is to compare a broken run with.
struct Reference {
    calls: Vec<&'static str>,
    old: Shown,
    new: Shown,
    entries: BTreeSet<String>,
    /// What may be seen beside the old and the new.
    between: Option<Shown>,
}

impl Reference {
    /// Whether `seen` is what there was or what is to be.
    fn allows(&self, seen: &Shown) -> bool {
        *seen == self.new || self.is_undone(seen)
    }

    fn is_undone(&self, seen: &Shown) -> bool {
        *seen == self.old || Some(seen) == self.between.as_ref()
    }

    /// The same after the last call: a name that comes to a directory changes its time, until
    /// that is put back.
    fn allows_ended(&self, seen: &Shown) -> bool {
        let timeless = |shown: &Shown| -> Shown {
            let cut = |line: &String| {
                let is_dir = line.starts_with('4');
                let is_time = |word: &str| is_dir && word.starts_with("mtime=");
                let words = line.split(' ').filter(|word| !is_time(word));
                words.collect::<Vec<_>>().join(" ")
            };
            shown
                .iter()
                .map(|(path, line)| (path.clone(), cut(line)))
                .collect()
        };
        self.allows(seen) || timeless(seen) == timeless(&self.old)
    }
}

/// `None` where the operation is not for this filesystem or variant.
fn reference(yard: &Yard, (before, line): (&[&str], &str), warm: bool) -> Option<Reference> {
    let union = yard.try_reset(before)?;
    let old = union.shown().expect("a whole union can be read");
    let mut entries = yard.entries();
    let union = if warm { union } else { yard.reset(before) };
    let request = union.resolve(line);
    let armed = arm(Fault::None);
    let done = union.act(&request);
    let calls = armed.calls();
    drop(armed);
    match done {
        Err(Errno::EOPNOTSUPP | Errno::EXDEV) => return None,
        other => assert_eq!(other, Ok(()), "{line} where nothing fails"),
    }
    let new = union.shown().expect("a whole union can be read");
    entries.extend(yard.entries());
    drop(union);
    let again = yard.open().shown().expect("a whole union can be read");
    assert_eq!(again, new, "{line}: another union after it is opened again");
    let steps = STEPS
        .iter()
        .find(|(words, of, _)| *of == line && yard.words.contains(words));
    let between = steps.map(|(_, _, steps)| {
        let union = yard.reset(&[before, steps].concat());
        union.shown().expect("a whole union can be read")
    });
    Some(Reference {
        between,
        calls,
        old,
        new,
        entries,
    })
}

#[derive(Default)]
struct Count {
    points: usize,
    /// The operation was done in spite of the fault.
    tolerated: usize,
    wrong: Vec<String>,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.points += other.points;
        self.tolerated += other.tolerated;
        self.wrong.extend(other.wrong);
    }
}

fn difference(seen: &Shown, wanted: &Shown) -> String {
    let only = |a: &Shown, b: &Shown| {
        let lines: Vec<String> = a
            .iter()
            .filter(|(path, line)| b.get(*path) != Some(line))
            .map(|(path, line)| format!("{path} {line}"))
            .collect();
        lines.join("; ")
    };
    format!(
        "seen [{}] wanted [{}]",
        only(seen, wanted),
        only(wanted, seen)
    )
}

/// Breaks one operation at one point; what is wrong with what is left.
fn try_point(
    yard: &Yard,
    (before, line): (&[&str], &str),
    warm: bool,
    reference: &Reference,
    wrong: Wrong,
) -> (bool, Vec<String>) {
    let mut found = Vec::new();
    let union = yard.reset(before);
    if warm {
        union.shown().expect("a whole union can be read");
    }
    let request = union.resolve(line);
    let armed = arm(wrong.fault());
    let done = union.act(&request);
    if let Wrong::Ends(_) = wrong {
        drop(union);
        drop(armed);
        judge_after(yard, line, reference, None, &mut found);
        return (false, found);
    }
    drop(armed);
    match done {
        // A directory that cannot be redirected is copied by whoever moves it.
        // So is a file whose data stays below.
        Err(Errno::EXDEV)
            if ["rename", "exchange", "noreplace"]
                .iter()
                .any(|v| line.contains(v)) => {}
        Err(e) if e != wrong.errno() => found.push(format!("answered {e:?}")),
        _ => {}
    }
    let stuck = match wrong {
        Wrong::ReadOnly(_) => true,
        Wrong::DiskFull(_) => reference.between.is_some(),
        _ => false,
    };
    if stuck {
        // Nothing can be taken back then, but the next mount has to see one or the other.
        drop(union);
        judge_after(yard, line, reference, None, &mut found);
        return (done.is_ok(), found);
    }
    let seen = match union.shown() {
        Ok(seen) => seen,
        Err(e) => {
            found.push(format!("the union cannot be read any more: {e:?}"));
            return (done.is_ok(), found);
        }
    };
    match done {
        // What was replaced could not be removed: its other names count it until it is swept.
        Ok(()) if yard.words == "!marks=overlay" && reference.calls[wrong.at()] == "unlinkat" => {
            return (true, found);
        }
        Ok(()) if seen != reference.new => {
            found.push(format!(
                "answered Ok, {}",
                difference(&seen, &reference.new)
            ));
        }
        // It was done, and is not on the disk.
        Err(_)
            if seen == reference.new
                && yard.plan.durability == Durability::Strict
                && syncs(reference.calls[wrong.at()]) => {}
        // Looking at what was made is no part of making it.
        Err(_) if seen == reference.new && !changes(reference.calls[wrong.at()]) => {}
        Err(_) if seen == reference.new && seen != reference.old => {
            found.push("answered an error after it was done".into());
        }
        Err(_) if !reference.is_undone(&seen) => {
            found.push(format!("half done: {}", difference(&seen, &reference.old)));
        }
        _ => {}
    }
    drop(union);
    judge_after(
        yard,
        line,
        reference,
        Some((&seen, done.is_err())),
        &mut found,
    );
    (done.is_ok(), found)
}

/// Opens the union again; `before` is what it showed, and whether the operation failed.
fn judge_after(
    yard: &Yard,
    line: &str,
    reference: &Reference,
    before: Option<(&Shown, bool)>,
    found: &mut Vec<String>,
) {
    let union = yard.open();
    let seen = match union.shown() {
        Ok(seen) => seen,
        Err(e) => {
            found.push(format!("opened again, it cannot be read: {e:?}"));
            return;
        }
    };
    match before {
        Some((before, _)) if seen != *before => {
            found.push(format!("opened again: {}", difference(&seen, before)));
        }
        None if !reference.allows_ended(&seen) => {
            found.push(format!(
                "opened again, neither before nor after: {} / {}",
                difference(&seen, &reference.old),
                difference(&seen, &reference.new)
            ));
        }
        _ => {}
    }
    // What is shown may be copied up, and more names of it may be in the upper.
    let line_moves = ["rename", "noreplace"].iter().any(|v| line.contains(v));
    let is_shown = |entry: &String| {
        let (path, kind) = entry.split_once(' ').unwrap_or_default();
        let line = path.strip_prefix('u').and_then(|path| seen.get(path));
        let mode = line.and_then(|line| u32::from_str_radix(line.split(' ').next()?, 8).ok());
        match mode {
            Some(mode) => format!("{:o}", mode & libc::S_IFMT) == kind,
            // A mark that hides nothing, since all is shown that is to be.
            None if path.contains("/.wh.") => true,
            // Likewise.
            None => path.starts_with("u/") && kind == "20000" && line_moves,
        }
    };

    let stray: Vec<String> = yard
        .entries()
        .difference(&reference.entries)
        .filter(|entry| !is_shown(entry))
        .cloned()
        .collect();
    if !stray.is_empty() {
        found.push(format!("left in the upper or in work: {stray:?}"));
    }
    if reference.is_undone(&seen) && seen != reference.new && found.is_empty() {
        let done = union.perform(line);
        match union.shown() {
            Ok(seen) if done.is_ok() && seen == reference.new => {}
            Ok(seen) => found.push(format!(
                "tried again: {done:?}, {}",
                difference(&seen, &reference.new)
            )),
            Err(e) => found.push(format!("tried again: {done:?}, then {e:?}")),
        }
    }
}

/// An operation that failed once can be tried again on the same union.
fn try_again(
    yard: &Yard,
    (before, line): (&[&str], &str),
    warm: bool,
    reference: &Reference,
    at: usize,
) -> Vec<String> {
    let union = yard.reset(before);
    if warm {
        union.shown().expect("a whole union can be read");
    }
    let request = union.resolve(line);
    let armed = arm(Fault::Once(at, Errno::EIO));
    let done = union.act(&request);
    drop(armed);
    if done.is_ok() || union.shown().as_ref() == Ok(&reference.new) {
        return Vec::new();
    }
    let done = union.perform(line);
    let seen = union.shown();
    drop(union);
    let again = yard.open().shown();
    let right = Ok(&reference.new);
    if done.is_ok() && seen.as_ref() == right && again.as_ref() == right {
        return Vec::new();
    }
    let tell = |s: &plyfs::error::Result<Shown>| match s {
        Ok(s) => difference(s, &reference.new),
        Err(e) => format!("{e:?}"),
    };
    vec![format!(
        "tried again on the same union: {done:?}; {}; opened again: {}",
        tell(&seen),
        tell(&again)
    )]
}

fn run_scene(yard: &Yard, number: usize, all: bool) -> Count {
    let scene = SCENES[number];
    let mut count = Count::default();
    for warm in [false, true] {
        if !all && warm != number.is_multiple_of(2) {
            continue;
        }
        let Some(reference) = reference(yard, scene, warm) else {
            continue;
        };
        let state = if warm { "warm" } else { "cold" };
        let tell = |count: &mut Count, what: String, at: usize, found: Vec<String>| {
            for what_is in found {
                let call = reference.calls.get(at).copied().unwrap_or_default();
                count.wrong.push(format!(
                    "[{}] {:?} {:?} ({state}), {what} at {call}: {what_is}",
                    yard.words, scene.0, scene.1
                ));
            }
        };
        for wrong in points(&reference.calls, all, number) {
            let (done, found) = try_point(yard, scene, warm, &reference, wrong);
            count.points += 1;
            count.tolerated += usize::from(done);
            let (Wrong::Fails(at, _) | Wrong::DiskFull(at) | Wrong::ReadOnly(at) | Wrong::Ends(at)) =
                wrong;
            tell(&mut count, format!("{wrong:?}"), at, found);
        }
        for at in 0..reference.calls.len() {
            if all || at % 5 == number % 5 {
                let found = try_again(yard, scene, warm, &reference, at);
                count.points += 1;
                tell(&mut count, "once EIO".into(), at, found);
            }
        }
    }
    count
}

/// Every call of a mount fails, or is the last: it is refused with a line, or shows all.
fn run_opening(yard: &Yard) -> Count {
    let before = &[
        "write d/g 0",
        "unlink top",
        "rename m m2",
        "empty e",
        "write d/f 0",
    ];
    let mut count = Count::default();
    let Some(union) = yard.try_reset(before) else {
        return count;
    };
    let old = union.shown().expect("a whole union can be read");
    drop(union);
    let entries = yard.entries();
    yard.litter();
    let armed = arm(Fault::None);
    drop(Inside::open(&yard.plan));
    let calls = armed.calls();
    drop(armed);
    for (at, call) in calls.iter().enumerate() {
        let errnos = errnos(call).iter().map(|e| Wrong::Fails(at, *e));
        for wrong in errnos.chain([Wrong::DiskFull(at), Wrong::ReadOnly(at), Wrong::Ends(at)]) {
            yard.litter();
            let armed = arm(wrong.fault());
            let opened = Inside::open(&yard.plan);
            drop(armed);
            let mut tell = |what: String| {
                let words = yard.words;
                count
                    .wrong
                    .push(format!("[{words}] opening, {wrong:?} at {call}: {what}"));
            };
            match opened {
                // Opened with less than it should have: it may show other numbers, but no other files.
                // It was said that we may not: marks are in the other namespace then.
                Ok(union) if wrong.errno() == Errno::EPERM => drop(union),
                Ok(union) => match union.shown() {
                    Ok(seen) if seen.keys().eq(old.keys()) => {}
                    other => tell(format!("opened, and shows {other:?}")),
                },
                Err(refusal) if refusal.lines().count() == 1 => {}
                Err(refusal) => tell(format!("refused with {refusal:?}")),
            }
            let again = yard.open().shown();
            if again.as_ref() != Ok(&old) {
                tell(format!("opened again: {again:?}"));
            }
            let stray: Vec<_> = yard.entries().difference(&entries).cloned().collect();
            if !stray.is_empty() {
                tell(format!("left: {stray:?}"));
            }
            count.points += 1;
        }
    }
    count
}

fn run_on(kind: Kind, variants: &[Variant], every: usize) {
    if !sys::is_root() {
        skip::skipped("needs root");
        return;
    }
    let all = std::env::var("PLYFS_FAULT").is_ok_and(|v| v == "all");
    let only = std::env::var("PLYFS_FAULT_SCENE").ok();
    let Some(backing) = Backing::sized(kind, 1 << 29) else {
        return;
    };
    let mut wrong = Vec::new();
    let words = std::env::var("PLYFS_FAULT_WORDS").ok();
    for (i, variant) in variants.iter().enumerate() {
        if words.as_ref().is_some_and(|words| words != variant.0) {
            continue;
        }
        let elsewhere = Scratch::new();
        let base = backing.dir(&format!("v{i}"));
        let yard = Yard::new(&base, elsewhere.path(), *variant);
        let lower = yard.lower_trees();
        let mut count = Count::default();
        if only.is_none() && !variant.0.starts_with('!') {
            count.add(run_opening(&yard));
        }
        for (number, (_, line)) in SCENES.iter().enumerate() {
            // Without an index a hard link is a file of its own once it is copied up.
            let links = ["d/g", "d/h", "top2"];
            if variant.0 == "index=off" && links.iter().any(|l| line.contains(l)) {
                continue;
            }
            let wanted = only.as_ref().is_none_or(|o| line.contains(o.as_str()));
            if wanted && (all || (number + i).is_multiple_of(every)) {
                count.add(run_scene(&yard, number, all));
            }
        }
        for (was, is) in lower.iter().zip(&yard.lower_trees()) {
            count
                .wrong
                .extend(tree::differences(("was", was), ("is", is)));
        }
        println!(
            "fault, {}, [{}], lowers {}: {} points, {} tolerated, {} inconsistencies",
            kind.name(),
            variant.0,
            if variant.1 {
                "elsewhere"
            } else {
                "on the same disk"
            },
            count.points,
            count.tolerated,
            count.wrong.len()
        );
        wrong.extend(count.wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_failing_call_is_answered_and_leaves_nothing_on_ext4() {
    run_on(Kind::Ext4, VARIANTS, 6);
}

#[test]
fn a_failing_call_is_answered_and_leaves_nothing_on_xfs() {
    run_on(Kind::Xfs, &[PLAIN, APART, PARTS], 9);
}

#[test]
fn a_failing_call_is_answered_and_leaves_nothing_on_btrfs() {
    run_on(Kind::Btrfs, &[PLAIN, APART, PARTS], 9);
}

#[test]
fn a_failing_call_is_answered_and_leaves_nothing_on_tmpfs() {
    run_on(Kind::Tmpfs, VARIANTS, 7);
}
