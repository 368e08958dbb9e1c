//! Runs a case on two unions and stops at the first thing in which they differ.

use std::fmt;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::case::Case;
use super::game::Game;
use super::generate;
use super::script::Author;
use super::support::layers::MarkFormat;
use super::support::mount::Subject;
use super::support::rng::Rng;
use super::support::sys;

/// Where and in what the two unions differed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Number of the script's line (from 1), and the line; the layers alone for 0.
    pub at: usize,
    pub line: String,
    pub what: Vec<String>,
}

impl Failure {
    /// What kind of difference it is, so that a case made smaller shows the same one: the two
    /// errnos, or which attribute of some file.
    pub fn kind(&self) -> String {
        let short = |line: &String| line.split(": mode=").next().unwrap_or_default().to_string();
        let first = self.what.first().cloned().unwrap_or_default();
        if first.starts_with("kernel: ") {
            return self.what.iter().take(2).map(short).collect();
        }
        let parts: Vec<&str> = first.splitn(3, ": ").collect();
        match parts[..] {
            [path, attribute, _] if path.starts_with('/') => attribute.to_string(),
            _ => first
                .split([':', '/'])
                .next()
                .unwrap_or_default()
                .to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} `{}`:", self.at, self.line)?;
        for line in self.what.iter().take(12) {
            write!(f, "\n    {line}")?;
        }
        if self.what.len() > 12 {
            write!(f, "\n    … and {} more", self.what.len() - 12)?;
        }
        Ok(())
    }
}

/// Runs cases one after the other in a directory of its own, on one thread.
pub struct Runner {
    dir: PathBuf,
    subject: Subject,
    /// Words for plyfs's `-o`, over its default ones.
    words: String,
    ending: Ending,
    _mounts: RwLockReadGuard<'static, ()>,
}

/// Held for reading by whoever mounts, for writing by whoever copies all mounts into another
/// namespace: there they would go on, and their uppers would be in use.
pub static MOUNTS: RwLock<()> = RwLock::new(());

/// The lock of those who mount.
pub fn mounting() -> RwLockReadGuard<'static, ()> {
    MOUNTS.read().unwrap_or_else(PoisonError::into_inner)
}

/// What is done with the uppers when a script is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Each program mounts what the other wrote.
    Interchange,
    /// plyfs's is settled, and the kernel mounts it without any feature.
    Settle,
}

/// How long a script is, and how high the stack.
#[derive(Clone, Copy)]
pub struct Length {
    pub ops: usize,
    /// At most so many lower layers.
    pub layers: u64,
    /// After how many lines each plyfs and the kernel take turns at the upper.
    pub leg: Option<usize>,
}

impl Length {
    /// The test that plays scripts of this kind.
    pub fn test(self) -> &'static str {
        match self.leg {
            Some(_) => "take_turns",
            None => "random_scripts",
        }
    }

    /// Whether the line `at` is a change of turns; every other script begins with one.
    fn switches(self, at: usize, seed: u64) -> bool {
        self.leg
            .is_some_and(|leg| at.is_multiple_of(leg) && (at > 0 || seed.is_multiple_of(2)))
    }
}

enum Source<'a> {
    Author(Author, Length, u64),
    Lines(&'a [String]),
}

impl Runner {
    pub fn new(dir: PathBuf, subject: Subject, words: &str) -> Runner {
        // One thread may enter another root and umask without the others.
        sys::unshare_fs().expect("root may unshare");
        Runner {
            dir,
            subject,
            words: words.to_string(),
            ending: Ending::Interchange,
            _mounts: mounting(),
        }
    }

    pub fn ending(mut self, ending: Ending) -> Runner {
        self.ending = ending;
        self
    }

    /// The case of `seed`, its script written while it runs.
    pub fn generate_and_run(&self, seed: u64, length: Length) -> (Case, Result<(), Failure>) {
        let mut rng = Rng::new(seed);
        let mut case = generate::layers(&mut rng, length.layers);
        if length.leg.is_some() {
            // The kernel reads no others.
            case.format = MarkFormat::Overlay;
        }
        let source = Source::Author(Author::new(rng), length, seed);
        let mut done = Vec::new();
        let outcome = self.play(&case, source, &mut done);
        case.script = done;
        (case, outcome)
    }

    pub fn run(&self, case: &Case) -> Result<(), Failure> {
        self.play(case, Source::Lines(&case.script), &mut Vec::new())
    }

    fn play(
        &self,
        case: &Case,
        mut source: Source<'_>,
        done: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let fail = |at: usize, line: &str| {
            let line = line.to_string();
            move |what: Vec<String>| Failure { at, line, what }
        };
        let mut game = Game::new(&self.dir, self.subject, &self.words, case);
        game.mount().map_err(fail(0, "mount"))?;
        game.compare().map_err(fail(0, "the layers' first view"))?;
        let mut at = 0;
        loop {
            let line = match &mut source {
                Source::Lines(lines) => match lines.get(at) {
                    Some(line) => line.clone(),
                    None => break,
                },
                Source::Author(author, length, seed) => {
                    if at >= length.ops {
                        break;
                    }
                    if at.is_multiple_of(6) {
                        author.look(&game.expected_root());
                    }
                    if length.switches(at, *seed) {
                        author.end_of_mount("switch")
                    } else {
                        author.line()
                    }
                }
            };
            at += 1;
            done.push(line.clone());
            game.step(&line).map_err(fail(at, &line))?;
        }
        game.compare().map_err(fail(at, "the view at the end"))?;
        game.finish(self.ending).map_err(fail(at, "after the end"))
    }
}
