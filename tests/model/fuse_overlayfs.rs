//! What fuse-overlayfs wrote, plyfs reads: a random script runs on fuse-overlayfs alone, and over
//! the same upper plyfs shows what fuse-overlayfs showed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::case::Case;
use super::execute::{self, Step};
use super::generate;
use super::run::{Length, mounting};
use super::script::Author;
use super::side::Side;
use super::support::bytes::escape;
use super::support::layers::MarkFormat;
use super::support::mount::{PLYFS_WORDS, Subject, run};
use super::support::rng::Rng;
use super::support::skip;
use super::support::tree::{self, NodeView};
use super::support::watchdog::Watchdog;
use super::{Settings, can_run, namespace};

/// Parts of lines in which what it shows is not what it wrote: its own reading changes access
/// times, it counts links that are none, and passes over some that are.
const UNTRUE: [&str; 2] = [": atime: ", ": nlink: "];

/// The programs to try: those that the environment names, else the one in PATH.
fn programs() -> Vec<PathBuf> {
    match std::env::var_os("PLYFS_FUSE_OVERLAYFS") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => skip::find_tool("fuse-overlayfs").into_iter().collect(),
    }
}

fn version(program: &Path) -> String {
    let out = run(
        Command::new(program).arg("--version"),
        Duration::from_secs(10),
    );
    let out = out.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find(|l| l.contains("fuse-overlayfs"));
    line.unwrap_or("fuse-overlayfs, of no version").to_string()
}

/// What one script came to.
struct Outcome {
    /// In what the program itself showed something else after a remount.
    fickle: usize,
    /// In what plyfs shows something else than the program did before and after.
    misread: Vec<String>,
    /// Whether the script ended the program.
    died: bool,
}

/// One script on a mount of `program`.
fn judge(dir: &Path, program: &Path, seed: u64, length: Length) -> Result<Outcome, Vec<String>> {
    let mut rng = Rng::new(seed);
    let mut case: Case = generate::layers(&mut rng, length.layers);
    case.upper.clear();
    let mut own = MarkFormat::Overlay;
    if skip::in_user_namespace() {
        case = case.unprivileged();
        own = MarkFormat::FuseOverlayfs;
    }
    for layer in &mut case.lowers {
        layer.retain(|line| !line.starts_with("link "));
        layer.iter_mut().for_each(|line| *line = after_1970(line));
    }
    let subject = Subject::FuseOverlayfs;
    let mut side = Side::prepare("fuse-overlayfs", subject, dir.to_owned(), &case, (own, own));
    side.stack.program = program.to_owned();
    let watchdog = Watchdog::new(Duration::from_secs(60));
    side.mount(&watchdog)?;
    let mut author = Author::new(rng);
    let trace = std::env::var_os("PLYFS_ORACLE_TRACE").is_some();
    let mut died = false;
    for at in 0..length.ops {
        if at.is_multiple_of(6) {
            author.look(&side.root());
        }
        let line = after_1970(&author.line());
        let step = Step::parse(&line);
        if !matches!(step.verb(), "check" | "remount" | "restack") && !is_fatal(&step) {
            // Right or wrong is not the question here, as long as it lives.
            let outcome = side.perform(&step);
            if trace {
                println!("{line} -> {}", execute::show(&outcome));
            }
            died = matches!(outcome, Err(libc::ENOTCONN | libc::ECONNABORTED));
        }
        if died {
            // It may have taken its mount along.
            let _gone = side.unmount();
            side.root = dir.join("m1");
            side.mount(&watchdog)?;
            break;
        }
    }
    let shown = side.view();
    side.unmount()?;
    // A daemon of version 2.0.0 that ends takes down whatever is mounted where it was.
    side.root = dir.join("m2");
    side.mount(&watchdog)?;
    let again = side.view();
    side.unmount()?;
    side.root = dir.join("m3");
    side.subject = Subject::Plyfs;
    side.stack.words = PLYFS_WORDS.into();
    side.mount(&watchdog)?;
    let read = side.view();
    side.unmount()?;
    let fickle = tree::differences(("shown", &shown), ("again", &again));
    let misread = tree::differences(("fuse-overlayfs", &shown), ("plyfs", &read));
    let path_of = |line: &str| line.split(": ").next().unwrap_or_default().to_string();
    let own: Vec<String> = fickle.iter().map(|line| path_of(line)).collect();
    let odd: Vec<String> = shown
        .iter()
        .filter(|(_, node)| contradicts_itself(node))
        .map(|(path, _)| format!("/{}", escape(path)))
        .collect();
    let settled = |line: &String| {
        let path = path_of(line);
        let below = |dir: &String| path.starts_with(&format!("{}/", dir.trim_end_matches("/%")));
        !own.contains(&path)
            && !UNTRUE.iter().any(|part| line.contains(part))
            && !odd.contains(&path)
            && !odd.iter().any(below)
    };
    Ok(Outcome {
        misread: misread.into_iter().filter(settled).collect(),
        fickle: fickle.len(),
        died,
    })
}

/// Its own calls fail, or say different things of one file.
fn contradicts_itself(node: &NodeView) -> bool {
    let len = node.data.as_ref().map(|data| data.len);
    !node.trouble.is_empty() || len.is_some_and(|len| len != node.stat.size)
}

/// A time before 1970 ends version 2.0.0, too.
fn after_1970(line: &str) -> String {
    let positive = |word: &str| match word.strip_prefix('-') {
        Some(time) if time.contains('.') => time.to_string(),
        _ => word.to_string(),
    };
    line.split(' ').map(positive).collect::<Vec<_>>().join(" ")
}

/// A rename of a name to itself ends version 2.0.0.
fn is_fatal(step: &Step<'_>) -> bool {
    step.verb() == "rename" && step.words[1] == step.words[2]
}

#[test]
fn uppers_of_fuse_overlayfs_are_read_as_it_wrote_them() {
    if !can_run() {
        return;
    }
    let settings = Settings::read(40, 100);
    let Some(backing) = super::backing(settings.filesystem, &settings.words) else {
        return;
    };
    let _mounting = mounting();
    let programs = programs();
    if programs.is_empty() {
        skip::skipped("needs the program fuse-overlayfs");
    }
    let mut lines = Vec::new();
    for program in programs {
        let (mut fickle, mut deaths, before) = (0, 0, lines.len());
        let seeds = settings.seed..settings.seed + settings.scripts;
        for seed in seeds {
            let dir = backing.dir(&format!("dir{}", seed % 4));
            // The script's thread enters other roots.
            let outcome = std::thread::scope(|scope| {
                let work = || {
                    super::support::sys::unshare_fs().expect("root may unshare");
                    judge(&dir, &program, seed, settings.length)
                };
                scope.spawn(work).join().expect("the script does not panic")
            });
            match outcome {
                Ok(outcome) => {
                    fickle += outcome.fickle;
                    deaths += usize::from(outcome.died);
                    lines.extend(outcome.misread.iter().map(|l| format!("seed {seed}: {l}")));
                }
                Err(what) => lines.extend(what.iter().map(|l| format!("seed {seed}: {l}"))),
            }
        }
        println!(
            "{}: {} scripts of {} operations; {deaths} ended it; it shows {fickle} lines otherwise \
             after a remount; plyfs differs in {}",
            version(&program),
            settings.scripts,
            settings.length.ops,
            lines.len() - before
        );
    }
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// Without privilege it marks otherwise.
#[test]
fn uppers_of_fuse_overlayfs_in_a_user_namespace_are_read() {
    namespace::run_test("fuse_overlayfs::uppers_of_fuse_overlayfs_are_read_as_it_wrote_them");
}
