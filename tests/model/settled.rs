//! Settled uppers: the kernel shows them without any feature, also where nobody has privilege.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::execute::Step;
use super::generate;
use super::run::{Ending, Length, mounting};
use super::script::Author;
use super::side::Side;
use super::support::layers::MarkFormat;
use super::support::mount::{PLYFS_WORDS, Subject, plyfs_binary, run};
use super::support::rng::Rng;
use super::support::watchdog::Watchdog;
use super::support::{skip, sys, tree};
use super::{Settings, can_run, namespace, play};

fn can_settle() -> bool {
    let mut help = Command::new(plyfs_binary());
    let verbs = run(help.arg("--help"), Duration::from_secs(10)).expect("plyfs runs");
    let found = String::from_utf8_lossy(&verbs.stdout).contains("settle");
    if !found {
        skip::skipped("needs plyfs settle");
    }
    found
}

/// Scripts whose uppers are settled at the end; see `Game::settle`.
fn settle_with(words: &str) {
    if !can_run() || !can_settle() {
        return;
    }
    let mut settings = Settings::read(60, 200);
    settings.words = words.into();
    settings.ending = Ending::Settle;
    play(&settings);
}

#[test]
fn the_kernel_shows_a_settled_upper_without_any_feature() {
    settle_with("");
}

#[test]
fn the_kernel_shows_a_settled_upper_with_user_xattrs() {
    settle_with("userxattr");
}

#[test]
fn the_kernel_shows_a_settled_upper_that_had_parts_of_files() {
    settle_with("partial=0");
}

/// A script on plyfs with all features in `user.` xattrs, its upper settled and mounted by the
/// kernel with `userxattr`: in what the two differ.
fn judge(dir: &Path, seed: u64, length: Length) -> Result<Vec<String>, Vec<String>> {
    let mut rng = Rng::new(seed);
    let mut case = generate::layers(&mut rng, length.layers).unprivileged();
    case.upper.clear();
    let own = (MarkFormat::UserXattr, MarkFormat::UserXattr);
    let mut side = Side::prepare("plyfs", Subject::Plyfs, dir.to_owned(), &case, own);
    side.stack.words = format!("{PLYFS_WORDS},userxattr");
    let watchdog = Watchdog::new(Duration::from_secs(60));
    side.mount(&watchdog)?;
    let mut author = Author::new(rng);
    for at in 0..length.ops {
        if at.is_multiple_of(6) {
            author.look(&side.root());
        }
        let line = author.line();
        let step = Step::parse(&line);
        if !matches!(step.verb(), "check" | "remount" | "restack") {
            // The oracle asks elsewhere whether it is right.
            let _outcome = side.perform(&step);
        }
    }
    let shown = side.view();
    side.unmount()?;
    side.settle().map_err(|e| vec![e])?;
    side.subject = Subject::Kernel;
    side.stack.words = "userxattr,index=off,xino=off,volatile".into();
    side.mount(&watchdog)?;
    let read = side.view();
    side.unmount()?;
    let mut lines = tree::differences(("plyfs", &shown), ("settled, by the kernel", &read));
    // As in `Game::settle`.
    lines.retain(|line| !line.contains(": nlink: "));
    Ok(lines)
}

#[test]
fn features_in_user_xattrs_are_settled() {
    if !can_run() || !can_settle() {
        return;
    }
    let settings = Settings::read(60, 150);
    let Some(backing) = super::backing(settings.filesystem, &settings.words) else {
        return;
    };
    let _mounting = mounting();
    let mut lines = Vec::new();
    for seed in settings.seed..settings.seed + settings.scripts {
        let dir = backing.dir("one");
        // The script's thread enters other roots.
        let outcome = std::thread::scope(|scope| {
            let work = || {
                sys::unshare_fs().expect("root may unshare");
                judge(&dir, seed, settings.length)
            };
            scope.spawn(work).join().expect("the script does not panic")
        });
        let what = outcome.unwrap_or_else(|failed| failed);
        lines.extend(what.iter().map(|l| format!("seed {seed}: {l}")));
    }
    println!(
        "{} scripts of {} operations, settled; {} lines differ",
        settings.scripts,
        settings.length.ops,
        lines.len()
    );
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn features_in_user_xattrs_are_settled_in_a_user_namespace() {
    namespace::run_test("settled::features_in_user_xattrs_are_settled");
}
