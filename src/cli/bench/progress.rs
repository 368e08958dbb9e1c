//! How far it has got, on stderr.

use crate::bench::report::Row;
use crate::bench::report::table::short;
use crate::bench::run::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar where stderr is a terminal; else a line for each row.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar of so many measurements.
    pub fn new(measurements: usize) -> Bar {
        // Drawn when a step is made, and at no other time: nothing else is to run while
        // something is measured.
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(Some(measurements as u64), target);
        let style = "{bar:24} {pos}/{len} {elapsed} (left: {eta}) {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Bar { bar }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, line: &str) {
        if self.bar.is_hidden() {
            crate::cli::say(line);
        } else {
            self.bar.println(line);
        }
    }
}

impl Progress for Bar {
    fn preparing(&mut self, what: &str) {
        self.bar.set_message(format!("making {what}"));
        self.bar.tick();
    }

    fn measuring(&mut self, workload: &str, subject: &str, round: usize) {
        self.bar
            .set_message(format!("{workload} on {subject}, round {}", round + 1));
        self.bar.tick();
        self.bar.inc(1);
    }

    fn row(&mut self, row: &Row) {
        let mut line = format!("{}:", row.name);
        for outcome in &row.results {
            let figure = match (&outcome.ratio, outcome.figure(), &outcome.failure) {
                (Some(ratio), Some(figure), None) => {
                    format!("{figure} ({})", short(ratio.of_medians))
                }
                (None, Some(figure), None) => figure,
                (.., Some(failure)) => failure.clone(),
                _ => "-".into(),
            };
            line.push_str(&format!(" {} {figure};", outcome.subject));
        }
        self.line(line.trim_end_matches(';'));
    }
}
