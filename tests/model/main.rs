//! The oracle: random scripts on random layers, run on plyfs and on the kernel's overlayfs side by
//! side; every result and every whole tree must agree, but for the differences in `intended.rs`.
//!
//! Parameters, by environment:
//! - `PLYFS_ORACLE_SCRIPTS`: how many scripts (300; in `modes.rs` 80, in `interchange.rs` and `settled.rs` 60)
//! - `PLYFS_ORACLE_OPS`: operations in each (200)
//! - `PLYFS_ORACLE_LAYERS`: at most so many lower layers (5; in the test of many, 20)
//! - `PLYFS_ORACLE_FS`: ext4, xfs, btrfs or tmpfs, below all layers (ext4)
//! - `PLYFS_ORACLE_SEED`: the first script's seed (1); the others follow it
//! - `PLYFS_ORACLE_WORKERS`: scripts at the same time (2)
//! - `PLYFS_ORACLE_SUBJECT`: plyfs, kernel or fuse-overlayfs, to judge the oracle itself (plyfs)
//! - `PLYFS_ORACLE_WORDS`: more words for plyfs's `-o`, such as `marks=files`
//! - `PLYFS_ORACLE_KEEP_GOING`: report every failing seed, not only the first; do not shrink
//! - `PLYFS_FUSE_OVERLAYFS`: the programs, with colons between, whose uppers are read (the one in
//!   PATH)
//! - `PLYFS_ORACLE_TRACE`: print every operation with both answers

mod case;
mod execute;
mod forgive;
mod fuse_overlayfs;
mod game;
mod generate;
mod intended;
mod interchange;
mod modes;
mod namespace;
mod regressions;
mod run;
mod script;
mod settled;
mod shrink;
mod side;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use case::Case;
use run::{Ending, Failure, Length, Runner};
use support::backing::{Backing, Kind};
use support::mount::{Subject, tests_with};
use support::skip;

/// What the environment asks for.
pub struct Settings {
    scripts: u64,
    length: Length,
    filesystem: Kind,
    seed: u64,
    workers: usize,
    subject: Subject,
    keep_going: bool,
    words: String,
    ending: Ending,
}

impl Settings {
    fn read(scripts: u64, ops: u64) -> Settings {
        fn number(name: &str, default: u64) -> u64 {
            std::env::var(name).map_or(default, |v| {
                v.parse()
                    .unwrap_or_else(|_| panic!("{name}: not a number: {v}"))
            })
        }
        fn word<T>(name: &str, default: T, parse: fn(&str) -> Option<T>) -> T {
            std::env::var(name).map_or(default, |v| {
                parse(&v).unwrap_or_else(|| panic!("{name}: unknown: {v}"))
            })
        }
        Settings {
            scripts: number("PLYFS_ORACLE_SCRIPTS", scripts),
            length: Length {
                ops: number("PLYFS_ORACLE_OPS", ops) as usize,
                layers: number("PLYFS_ORACLE_LAYERS", LAYERS),
                leg: None,
            },
            filesystem: word("PLYFS_ORACLE_FS", Kind::Ext4, Kind::named),
            seed: number("PLYFS_ORACLE_SEED", 1),
            workers: number("PLYFS_ORACLE_WORKERS", 2) as usize,
            subject: word("PLYFS_ORACLE_SUBJECT", Subject::Plyfs, Subject::named),
            words: std::env::var("PLYFS_ORACLE_WORDS").unwrap_or_default(),
            ending: Ending::Interchange,
            keep_going: std::env::var_os("PLYFS_ORACLE_KEEP_GOING").is_some(),
        }
    }
}

/// At most so many lower layers, where nobody says otherwise.
const LAYERS: u64 = 5;

fn can_run() -> bool {
    skip::can_mount() && skip::has_filesystem("overlay")
}

#[test]
fn random_scripts_give_what_the_kernels_overlayfs_gives() {
    if can_run() {
        play(&Settings::read(300, 200));
    }
}

#[test]
fn random_scripts_on_many_layers_give_what_the_kernels_overlayfs_gives() {
    if can_run() {
        let mut settings = Settings::read(30, 120);
        settings.length.layers = settings.length.layers.max(20);
        play(&settings);
    }
}

/// Where the layers are of unions that are mounted with `words` in plyfs's `-o`.
fn backing(kind: Kind, words: &str) -> Option<Backing> {
    let backing = Backing::new(kind)?;
    let passed = words.contains("io=passthrough") || tests_with("io=passthrough");
    if !passed || skip::in_user_namespace() {
        return Some(backing);
    }
    // What is passed through changes access times as the upper's own mount says.
    let quiet = backing.without_atime();
    Some(quiet.expect("it can be mounted again"))
}

/// Plays the scripts that `settings` ask for, and fails if any of them differs.
fn play(settings: &Settings) {
    let Some(backing) = backing(settings.filesystem, &settings.words) else {
        return;
    };
    let started = Instant::now();
    let next = AtomicU64::new(settings.seed);
    let end = settings.seed + settings.scripts;
    let failures = Mutex::new(Vec::<(u64, Case, Failure)>::new());
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..settings.workers {
            let (next, failures, done) = (&next, &failures, &done);
            let dir = backing.dir(&format!("worker{worker}"));
            scope.spawn(move || {
                let runner = Runner::new(dir, settings.subject, &settings.words);
                let runner = runner.ending(settings.ending);
                loop {
                    let stop =
                        !settings.keep_going && !failures.lock().expect("not poisoned").is_empty();
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end || stop {
                        return;
                    }
                    let (case, outcome) = runner.generate_and_run(seed, settings.length);
                    done.fetch_add(1, Ordering::SeqCst);
                    if let Err(failure) = outcome {
                        println!("seed {seed}: {failure}");
                        failures
                            .lock()
                            .expect("not poisoned")
                            .push((seed, case, failure));
                    }
                }
            });
        }
    });
    println!(
        "{} scripts of {} operations on {} in {:.1} s",
        done.load(Ordering::SeqCst),
        settings.length.ops,
        settings.filesystem.name(),
        started.elapsed().as_secs_f64()
    );
    let failures = failures.into_inner().expect("not poisoned");
    report(settings, &backing, &failures);
}

fn report(settings: &Settings, backing: &Backing, failures: &[(u64, Case, Failure)]) {
    let Some((seed, case, failure)) = failures.first() else {
        return;
    };
    let mut smallest = case.clone();
    let mut what = failure.to_string();
    if !settings.keep_going {
        let runner = Runner::new(backing.dir("shrink"), settings.subject, &settings.words);
        let runner = runner.ending(settings.ending);
        if let Some((small, failure)) = shrink::shrink(&runner, case) {
            smallest = small;
            what = failure.to_string();
        }
    }
    let seeds: Vec<String> = failures.iter().map(|(seed, ..)| seed.to_string()).collect();
    panic!(
        "\n{} of the scripts differ: seeds {}\nto repeat the first:\n  PLYFS_ORACLE_SEED={seed} PLYFS_ORACLE_SCRIPTS=1 \
         PLYFS_ORACLE_OPS={} PLYFS_ORACLE_LAYERS={} PLYFS_ORACLE_FS={} PLYFS_ORACLE_WORDS={} cargo test --test model {} -- --nocapture\n\
         {what}\nthe smallest script that fails:\n{smallest}",
        failures.len(),
        seeds.join(" "),
        settings.length.ops,
        settings.length.layers,
        settings.filesystem.name(),
        settings.words,
        settings.length.test(),
    );
}
