//! The figures, and what they were measured on.

pub mod html;
pub mod json;
pub mod svg;
pub mod table;

use super::machine::Machine;
use super::stats::{Ratio, Summary, geometric_mean, ratio, summary};
use serde::{Deserialize, Serialize};

/// Everything that one run found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this program.
    pub version: String,
    /// When it began, in UTC.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// The filesystem of the layers.
    pub filesystem: String,
    /// Whose root the measuring process was.
    pub setting: String,
    /// Lower layers; there is an upper besides.
    pub layers: usize,
    /// The sizes, as a multiple of the usual ones.
    pub scale: f64,
    /// Rounds.
    pub rounds: usize,
    /// What cold means here; empty where nothing was.
    pub cold: String,
    /// The subjects, in the order of the columns.
    pub subjects: Vec<SubjectLine>,
    /// The label of the subject that the others are compared with.
    pub reference: String,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// A subject, for the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubjectLine {
    /// Its name here.
    pub label: String,
    /// What it is.
    pub version: String,
    /// Its option words.
    pub options: String,
}

/// One workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The heading that it stands under.
    pub group: String,
    /// What it is.
    pub title: String,
    /// What came of it, by subject, in their order.
    pub results: Vec<Outcome>,
}

/// One workload on one subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The subject's label.
    pub subject: String,
    /// Operations in one round.
    pub ops: usize,
    /// Bytes in one round; none where they are not the point.
    pub bytes: usize,
    /// Seconds, round by round.
    pub seconds: Vec<f64>,
    /// The same in short.
    pub summary: Option<Summary>,
    /// Beside the reference.
    pub ratio: Option<Ratio>,
    /// Why there is nothing.
    pub failure: Option<String>,
}

impl Row {
    /// Sums up what was measured, against the subject called `reference`.
    pub fn sum_up(&mut self, reference: &str) {
        let of_reference = self
            .results
            .iter()
            .find(|outcome| outcome.subject == reference && outcome.failure.is_none())
            .map(|outcome| outcome.seconds.clone());
        for outcome in &mut self.results {
            outcome.summary = summary(&outcome.seconds);
            outcome.ratio = match &of_reference {
                Some(seconds) if outcome.failure.is_none() => ratio(&outcome.seconds, seconds),
                _ => None,
            };
        }
    }

    /// What became of it on the subject called `label`.
    pub fn of(&self, label: &str) -> Option<&Outcome> {
        self.results.iter().find(|outcome| outcome.subject == label)
    }
}

impl Report {
    /// The geometric mean of all ratios of the subject called `label`, over those rows
    /// that have one for every subject.
    pub fn mean(&self, label: &str) -> Option<f64> {
        let all_have = |row: &&Row| {
            let mut labels = self.subjects.iter().map(|subject| &subject.label);
            labels.all(|label| row.of(label).is_some_and(|outcome| outcome.ratio.is_some()))
        };
        let ratios: Vec<f64> = self
            .rows
            .iter()
            .filter(all_have)
            .filter_map(|row| Some(row.of(label)?.ratio?.of_medians))
            .collect();
        geometric_mean(&ratios)
    }
}

/// A time for people, with three digits.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s >= 1e-6 => (s * 1e6, "us"),
        s => (s * 1e9, "ns"),
    };
    let digits = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

impl Outcome {
    /// The median: per operation where there are many, with the throughput where bytes count;
    /// with the 99th percentile of single operations where there are enough of them.
    pub fn figure(&self) -> Option<String> {
        let median = self.summary?.median;
        if self.ops > 1 {
            return Some(format!("{}/op", time(median / self.ops as f64)));
        }
        if self.bytes > 0 {
            let rate = self.bytes as f64 / median / f64::from(1 << 20);
            return Some(format!("{rate:.0} MiB/s"));
        }
        let figure = time(median);
        if self.seconds.len() < MANY {
            return Some(figure);
        }
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * 99).div_ceil(100);
        let late = sorted.get(rank.checked_sub(1)?)?;
        Some(format!("{figure}, p99 {}", time(*late)))
    }
}

/// So many rounds say something of the slowest ones.
const MANY: usize = 20;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with a bit of everything in it.
    pub(crate) fn example() -> Report {
        let outcome = |subject: &str, seconds: &[f64], failure: Option<&str>| Outcome {
            subject: subject.into(),
            ops: 10,
            bytes: 0,
            seconds: seconds.to_vec(),
            failure: failure.map(str::to_owned),
            ..Outcome::default()
        };
        let mut row = Row {
            name: "walk-warm".into(),
            group: "looking and reading".into(),
            title: "walk <warm> & \"quick\"".into(),
            results: vec![
                outcome("overlayfs", &[1.0, 2.0, 3.0], None),
                outcome("plyfs", &[0.6, 1.0, 1.2], None),
                outcome("broken", &[], Some("it <broke>")),
            ],
        };
        row.sum_up("overlayfs");
        Report {
            version: "0.0.1".into(),
            subjects: ["overlayfs", "plyfs", "broken"]
                .map(|label| SubjectLine {
                    label: label.into(),
                    ..SubjectLine::default()
                })
                .to_vec(),
            reference: "overlayfs".into(),
            rounds: 3,
            rows: vec![row],
            ..Report::default()
        }
    }

    #[test]
    fn a_row_is_summed_up_against_the_reference() {
        let report = example();
        let row = &report.rows[0];
        assert_eq!(
            row.of("plyfs").and_then(|o| o.ratio).map(|r| r.of_medians),
            Some(0.5)
        );
        assert_eq!(row.of("broken").and_then(|o| o.ratio), None);
        assert_eq!(
            row.of("plyfs").and_then(Outcome::figure).as_deref(),
            Some("100 ms/op")
        );
    }

    #[test]
    fn times_have_three_digits() {
        for (seconds, expected) in [
            (12.34, "12.3 s"),
            (1.0, "1.00 s"),
            (0.1234, "123 ms"),
            (0.000_001_2, "1.20 us"),
            (0.000_000_05, "50.0 ns"),
        ] {
            assert_eq!(time(seconds), expected);
        }
    }
}
