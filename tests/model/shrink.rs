//! Makes a failing case small: fewer lines of script, fewer layers, fewer files.

use super::case::Case;
use super::run::{Failure, Runner};

/// The smallest case found that still fails, and how; `None` where it does not fail again.
pub fn shrink(runner: &Runner, case: &Case) -> Option<(Case, Failure)> {
    let mut best = case.clone();
    let mut failure = runner.run(&best).err()?;
    best.script.truncate(failure.at);
    loop {
        let size = best.to_string().len();
        let mut attempt = Attempt {
            runner,
            best: &mut best,
            failure: &mut failure,
        };
        attempt.lines(|case| &mut case.script);
        attempt.layers();
        attempt.lines(|case| &mut case.upper);
        for layer in 0..attempt.best.lowers.len() {
            attempt.lines(|case| &mut case.lowers[layer]);
        }
        if best.to_string().len() == size {
            return Some((best, failure));
        }
    }
}

struct Attempt<'a> {
    runner: &'a Runner,
    best: &'a mut Case,
    failure: &'a mut Failure,
}

impl Attempt<'_> {
    /// Takes `smaller` over if it fails in the same way.
    fn keep(&mut self, smaller: Case) -> bool {
        match self.runner.run(&smaller) {
            Ok(()) => false,
            Err(failure) if failure.kind() != self.failure.kind() => false,
            Err(failure) => {
                *self.best = smaller;
                *self.failure = failure;
                true
            }
        }
    }

    /// Takes away runs of lines, half of them first, single ones last.
    fn lines(&mut self, part: impl Fn(&mut Case) -> &mut Vec<String>) {
        let mut chunk = part(self.best).len().div_ceil(2);
        while chunk > 0 {
            let mut at = part(self.best).len();
            while at > 0 {
                let from = at.saturating_sub(chunk);
                let mut smaller = self.best.clone();
                part(&mut smaller).drain(from..at);
                self.keep(smaller);
                at = from.min(part(self.best).len());
            }
            chunk /= 2;
        }
    }

    /// Takes away whole lowers.
    fn layers(&mut self) {
        let mut at = self.best.lowers.len();
        while at > 0 && self.best.lowers.len() > 1 {
            at -= 1;
            let mut smaller = self.best.clone();
            smaller.lowers.remove(at);
            self.keep(smaller);
        }
    }
}
