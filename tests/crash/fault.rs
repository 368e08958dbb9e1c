//! Every system call of every operation fails, or is the last: the caller gets the error, names
//! show what was before or what is to be after, now and when the union is opened again, nothing is
//! left in work, and the lower layers are as they were.
//!
//! `PLYFS_FAULT=all` tries every call of every scene with every errno, which takes half an hour for
//! each filesystem; `PLYFS_FAULT_SCENE` keeps to the operations that contain its text.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plyfs::config::plan::MountPlan;
use plyfs::error::Errno;
use plyfs::sys::fault::{Fault, arm};

use crate::inside::{Inside, Shown, plan};
use crate::scenes::{BOTTOM, SCENES, STEPS, TOP};
use crate::support::backing::{Backing, Kind};
use crate::support::bytes::escape;
use crate::support::lab::build;
use crate::support::layers::MarkFormat;
use crate::support::temp::Scratch;
use crate::support::tree::{self, Tree};
use crate::support::{skip, sys};

/// No system call answers this: what comes after the last call.
const ENDED: Errno = Errno(3999);

/// How a union is made different from the usual one: its options, and whether the lower layers are
/// on another filesystem than the upper.
type Variant = (&'static str, bool);

const PLAIN: Variant = ("", false);
const APART: Variant = ("", true);

const VARIANTS: &[Variant] = &[
    PLAIN,
    APART,
    ("marks=files", false),
    ("userxattr", false),
    ("index=off", false),
    ("redirect_dir=off", false),
];

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// This call, once.
    Fails(usize, Errno),
    /// All calls from this one on that need room.
    DiskFull(usize),
    /// All calls from this one on that change anything.
    ReadOnly(usize),
    /// Nothing is done any more from this call on.
    Ends(usize),
}

impl Wrong {
    fn fault(self) -> Fault {
        match self {
            Wrong::Fails(at, errno) => Fault::Once(at, errno),
            Wrong::DiskFull(at) => Fault::From(at, takes_room, Errno::ENOSPC),
            Wrong::ReadOnly(at) => Fault::From(at, changes, Errno::EROFS),
            Wrong::Ends(at) => Fault::From(at, |_| true, ENDED),
        }
    }

    /// The call that it begins with.
    fn at(self) -> usize {
        match self {
            Wrong::Fails(at, _) | Wrong::DiskFull(at) | Wrong::ReadOnly(at) | Wrong::Ends(at) => at,
        }
    }

    fn errno(self) -> Errno {
        match self {
            Wrong::Fails(_, errno) => errno,
            Wrong::DiskFull(_) => Errno::ENOSPC,
            Wrong::ReadOnly(_) => Errno::EROFS,
            Wrong::Ends(_) => ENDED,
        }
    }
}

fn takes_room(call: &str) -> bool {
    matches!(
        call,
        "openat(O_CREAT)"
            | "mkdirat"
            | "mknodat"
            | "symlinkat"
            | "linkat"
            | "renameat2"
            | "setxattr"
            | "pwrite"
            | "copy_file_range"
            | "fallocate"
            | "ioctl(FICLONE)"
    )
}

fn changes(call: &str) -> bool {
    takes_room(call)
        || matches!(
            call,
            "unlinkat"
                | "removexattr"
                | "ftruncate"
                | "fchmodat2"
                | "fchownat"
                | "utimensat"
                | "fsync"
        )
}

/// What a call may well answer.
fn errnos(call: &str) -> &'static [Errno] {
    match call {
        "openat(O_CREAT)" => &[
            Errno::ENOSPC,
            Errno::EDQUOT,
            Errno::EIO,
            Errno::EMFILE,
            Errno::EPERM,
        ],
        "openat" => &[Errno::EIO, Errno::EMFILE, Errno::EACCES, Errno::ENOMEM],
        "linkat" => &[
            Errno::ENOSPC,
            Errno::EDQUOT,
            Errno::EIO,
            Errno::EPERM,
            Errno::EMLINK,
        ],
        "ioctl(FICLONE)" => &[Errno::EOPNOTSUPP, Errno::ENOSPC, Errno::EIO],
        "pwrite" | "copy_file_range" | "ftruncate" | "fallocate" => {
            &[Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EFBIG]
        }
        "fsync" => &[Errno::EIO, Errno::ENOSPC, Errno::EDQUOT],
        call if takes_room(call) => &[Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EPERM],
        call if changes(call) => &[Errno::EIO, Errno::EPERM, Errno::ENOSPC],
        _ => &[Errno::EIO, Errno::ENOMEM],
    }
}

/// Where unions are made and broken.
struct Yard {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    words: &'static str,
    plan: MountPlan,
}

impl Yard {
    fn new(base: &Path, elsewhere: &Path, (words, apart): Variant) -> Yard {
        let below = if apart { elsewhere } else { base };
        let lowers = vec![below.join("l1"), below.join("l2")];
        build(&lowers[0], MarkFormat::Overlay, TOP);
        build(&lowers[1], MarkFormat::Overlay, BOTTOM);
        let (upper, work, point) = (base.join("u"), base.join("w"), base.join("m"));
        for dir in [&upper, &work, &point] {
            std::fs::create_dir(dir).expect("a directory can be made");
        }
        let plan = plan(lowers.clone(), (&upper, &work), &point, words);
        Yard {
            lowers,
            upper,
            work,
            words,
            plan: plan.unwrap_or_else(|e| panic!("{e}")),
        }
    }

    fn open(&self) -> Inside {
        Inside::open(&self.plan).unwrap_or_else(|e| panic!("{e}"))
    }

    /// An upper in which `before` was done.
    fn reset(&self, before: &[&str]) -> Inside {
        self.try_reset(before).expect("it was done once already")
    }

    /// The same; `None` where this filesystem or variant has no such operation.
    fn try_reset(&self, before: &[&str]) -> Option<Inside> {
        for dir in [&self.upper, &self.work] {
            if dir.exists() {
                std::fs::remove_dir_all(dir).expect("the last upper can be removed");
            }
            std::fs::create_dir(dir).expect("an upper can be made");
            // The thread's umask is what the last caller's was.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir, mode).expect("an upper's mode can be set");
        }
        if !before.is_empty() {
            let union = self.open();
            for line in before {
                match union.perform(line) {
                    Err(Errno::EOPNOTSUPP | Errno::EXDEV) => return None,
                    done => assert_eq!(done, Ok(()), "{line}"),
                }
            }
        }
        Some(self.open())
    }

    fn lower_trees(&self) -> Vec<Tree> {
        self.lowers.iter().map(|l| tree::read(l)).collect()
    }

    /// What lies in the upper and in work, as type and path: every mark is one of these.
    fn entries(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for dir in [&self.upper, &self.work] {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            for (path, node) in tree::read(dir) {
                let kind = node.stat.mode & libc::S_IFMT;
                all.insert(format!("{name}/{} {kind:o}", escape(&path)));
            }
        }
        all
    }
}

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
        Err(Errno::EXDEV) if line.contains("rename") || line.contains("exchange") => {}
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
        Ok(()) if seen != reference.new => {
            found.push(format!(
                "answered Ok, {}",
                difference(&seen, &reference.new)
            ));
        }
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
        None if !reference.allows(&seen) => {
            found.push(format!(
                "opened again, neither before nor after: {} / {}",
                difference(&seen, &reference.old),
                difference(&seen, &reference.new)
            ));
        }
        _ => {}
    }
    // What is shown may be copied up, and more names of it may be in the upper.
    let line_moves = line.contains("rename");
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

/// Which points of an operation are tried.
fn points(calls: &[&str], all: bool, salt: usize) -> Vec<Wrong> {
    let mut points = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let errnos = errnos(call);
        if all {
            points.extend(errnos.iter().map(|e| Wrong::Fails(at, *e)));
            points.extend([Wrong::DiskFull(at), Wrong::ReadOnly(at), Wrong::Ends(at)]);
        } else if changes(call) {
            points.push(Wrong::Fails(at, errnos[(at + salt) % errnos.len()]));
            points.push(match (at + salt) % 2 {
                0 => Wrong::DiskFull(at),
                _ => Wrong::ReadOnly(at),
            });
            points.push(Wrong::Ends(at));
        } else if (at + salt).is_multiple_of(4) {
            points.push(Wrong::Fails(at, errnos[(at / 4) % errnos.len()]));
        }
    }
    points
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

/// What a killed daemon may have left in work.
fn litter(yard: &Yard) {
    let dir = yard.work.join("work/#9/deep");
    std::fs::create_dir_all(&dir).expect("a directory in work can be made");
    for file in [dir.join("file"), yard.work.join("work/#a")] {
        std::fs::write(file, "x").expect("a file in work can be made");
    }
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
    litter(yard);
    let armed = arm(Fault::None);
    drop(Inside::open(&yard.plan));
    let calls = armed.calls();
    drop(armed);
    for (at, call) in calls.iter().enumerate() {
        let errnos = errnos(call).iter().map(|e| Wrong::Fails(at, *e));
        for wrong in errnos.chain([Wrong::DiskFull(at), Wrong::ReadOnly(at), Wrong::Ends(at)]) {
            litter(yard);
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
    for (i, variant) in variants.iter().enumerate() {
        let elsewhere = Scratch::new();
        let base = backing.dir(&format!("v{i}"));
        let yard = Yard::new(&base, elsewhere.path(), *variant);
        let lower = yard.lower_trees();
        let mut count = Count::default();
        if only.is_none() {
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
    run_on(Kind::Xfs, &[PLAIN, APART], 9);
}

#[test]
fn a_failing_call_is_answered_and_leaves_nothing_on_btrfs() {
    run_on(Kind::Btrfs, &[PLAIN, APART], 9);
}

#[test]
fn a_failing_call_is_answered_and_leaves_nothing_on_tmpfs() {
    run_on(Kind::Tmpfs, VARIANTS, 7);
}
