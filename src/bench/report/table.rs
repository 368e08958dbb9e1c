//! The report for a terminal.

use super::{Outcome, Report, Row};
use crate::bench::stats::Ratio;

/// Cells of one line.
type Cells = Vec<String>;

/// The whole table: what it was measured on, the ratios, the times.
pub fn write(report: &Report) -> String {
    let mut text = head(report);
    let mut lines: Vec<(Option<String>, Cells)> = Vec::new();
    let mut header = vec![String::new()];
    for subject in &report.subjects {
        header.push(subject.label.clone());
        if subject.label != report.reference {
            header.push("ratio".into());
        }
    }
    lines.push((None, header));
    let mut group = "";
    for row in &report.rows {
        let heading = (row.group != group).then(|| row.group.clone());
        group = &row.group;
        lines.push((heading, cells(report, row)));
    }
    if report.rows.len() > 1 {
        lines.push((Some("all".into()), mean_cells(report)));
    }
    text.push_str(&aligned(&lines));
    for (row, outcome) in failures(report) {
        let cause = outcome.failure.as_deref().unwrap_or_default();
        text.push_str(&format!("{}, {}: {cause}\n", row.name, outcome.subject));
    }
    text
}

/// What it was measured on, a line each.
fn head(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "plyfs {}, {}: {} x {}, {} MiB, Linux {}, {}\n",
        report.version,
        report.date,
        machine.processors,
        machine.processor,
        machine.memory_kib / 1024,
        machine.kernel,
        machine.system,
    );
    text.push_str(&format!(
        "{}, {} lower layers and an upper, as {}; scale {}, {} rounds, medians; load {}\n",
        report.filesystem,
        report.layers,
        setting(&report.setting),
        report.scale,
        report.rounds,
        machine.load,
    ));
    if !machine.idle.is_empty() {
        text.push_str(&format!("idle processors: {}\n", machine.idle));
    }
    for subject in &report.subjects {
        let options = match subject.options.as_str() {
            "" => String::new(),
            words => format!(", -o {words}"),
        };
        text.push_str(&format!(
            "{}: {}{options}\n",
            subject.label, subject.version
        ));
    }
    if !report.cold.is_empty() {
        text.push_str(&format!("cold: {}\n", report.cold));
    }
    text.push('\n');
    text
}

/// The setting in words.
pub fn setting(name: &str) -> &str {
    match name {
        "userns" => "root of a user namespace",
        "root" => "root",
        other => other,
    }
}

fn cells(report: &Report, row: &Row) -> Cells {
    let mut cells = vec![row.title.clone()];
    for subject in &report.subjects {
        let outcome = row.of(&subject.label);
        cells.push(
            outcome
                .and_then(Outcome::figure)
                .unwrap_or_else(|| "-".into()),
        );
        if subject.label != report.reference {
            cells.push(match outcome.and_then(|outcome| outcome.ratio) {
                Some(ratio) => match range(&ratio) {
                    Some(range) => format!("{} ({range})", short(ratio.of_medians)),
                    None => short(ratio.of_medians),
                },
                None => "-".into(),
            });
        }
    }
    cells
}

fn mean_cells(report: &Report) -> Cells {
    let mut cells = vec!["geometric mean of the ratios".to_owned()];
    for subject in &report.subjects {
        cells.push(String::new());
        if subject.label != report.reference {
            let mean = report.mean(&subject.label);
            cells.push(mean.map_or("-".into(), short));
        }
    }
    cells
}

/// A ratio with as many digits as it is worth.
pub fn short(ratio: f64) -> String {
    match ratio {
        r if r >= 99.5 => format!("{r:.0}"),
        r if r >= 9.95 => format!("{r:.1}"),
        r if r >= 0.095 => format!("{r:.2}"),
        r if r < 0.001 => "<0.001".into(),
        r => format!("{r:.3}"),
    }
}

/// The ratios of the best and the worst round; `None` where that says nothing more.
pub fn range(ratio: &Ratio) -> Option<String> {
    let (min, max) = (short(ratio.min), short(ratio.max));
    (min != max).then(|| format!("{min}-{max}"))
}

/// Every outcome that is none, with its row.
pub fn failures(report: &Report) -> impl Iterator<Item = (&Row, &Outcome)> {
    report.rows.iter().flat_map(|row| {
        row.results
            .iter()
            .filter(|outcome| outcome.failure.is_some())
            .map(move |outcome| (row, outcome))
    })
}

/// The first cell to the left, the others to the right, each column as wide as it must be.
fn aligned(lines: &[(Option<String>, Cells)]) -> String {
    let columns = lines
        .iter()
        .map(|(_, cells)| cells.len())
        .max()
        .unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|(_, cells)| cells.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (heading, cells) in lines {
        if let Some(heading) = heading {
            text.push_str(&format!("[{heading}]\n"));
        }
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if column == 0 {
                line.push_str(&format!("{cell:<width$}"));
            } else {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::example;

    #[test]
    fn the_table_has_the_figures_the_ratios_and_the_failures() {
        let text = write(&example());
        for expected in [
            "[looking and reading]",
            "100 ms/op",
            "0.50 (0.40-0.60)",
            "walk-warm, broken: it <broke>",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn ratios_have_the_digits_that_they_are_worth() {
        for (ratio, expected) in [
            (0.0123, "0.012"),
            (1.0, "1.00"),
            (14.94, "14.9"),
            (0.000_2, "<0.001"),
            (123.4, "123"),
        ] {
            assert_eq!(short(ratio), expected);
        }
    }
}
