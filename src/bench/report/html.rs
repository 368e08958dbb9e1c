//! The report as one page that needs nothing else.

use super::svg::{Curves, curves, escaped, key, ratios};
use super::table::{failures, range, setting, short};
use super::{Outcome, Report, Row, time};
use crate::bench::workloads::grouped;

const STYLE: &str = include_str!("page.css");

/// From here on a ratio is told apart from 1.
const NOTABLE: f64 = 0.05;

/// The page.
pub fn write(report: &Report) -> String {
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n");
    page.push_str("<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<title>plyfs bench</title>\n");
    page.push_str(&format!("<style>\n{STYLE}</style>\n</head>\n<body>\n"));
    page.push_str("<h1>plyfs bench</h1>\n");
    page.push_str(&format!(
        "<p class=\"quiet\">{} workloads on {} subjects, {} rounds, {}</p>\n",
        report.rows.len(),
        report.subjects.len(),
        report.rounds,
        escaped(&report.date)
    ));
    page.push_str(&facts(report));
    page.push_str(&plots(report));
    page.push_str(&copy_ups(report));
    page.push_str(&clients(report));
    page.push_str(&table(report));
    page.push_str(METHOD);
    page.push_str("</body>\n</html>\n");
    page
}

const METHOD: &str = "<h2>How it was measured</h2>\n\
<p>Every subject shows the same layers, whose files are dealt out evenly. In each round every \
subject does the work once, on a new mount with a new, empty upper, and each round begins with \
another subject. A ratio is the median of a subject's times by the median of the reference's; \
the range is that of the ratios of single rounds. The bare directory is the merged tree \
without any union: what the filesystem below costs alone. The figures hold for this machine \
and this load.</p>\n";

fn facts(report: &Report) -> String {
    let machine = &report.machine;
    let mut facts = vec![
        (
            "machine".to_owned(),
            format!(
                "{} x {}, {:.1} GiB of memory, load {} at the start",
                machine.processors,
                machine.processor,
                machine.memory_kib as f64 / f64::from(1 << 20),
                machine.load
            ),
        ),
        (
            "system".to_owned(),
            format!("Linux {}, {}", machine.kernel, machine.system),
        ),
        (
            "layers".to_owned(),
            format!(
                "{} lower layers and an upper on {}, measured as {}",
                report.layers,
                report.filesystem,
                setting(&report.setting)
            ),
        ),
        (
            "sizes".to_owned(),
            format!("{} of the usual ones", report.scale),
        ),
    ];
    if !machine.idle.is_empty() {
        facts.push(("idle processors".to_owned(), machine.idle.clone()));
    }
    if !report.cold.is_empty() {
        facts.push(("cold".to_owned(), report.cold.clone()));
    }
    for subject in &report.subjects {
        let options = match subject.options.as_str() {
            "" => "no options".to_owned(),
            words => format!("options {words}"),
        };
        facts.push((
            subject.label.clone(),
            format!("{}, {options}", subject.version),
        ));
    }
    let mut out = String::from("<dl class=\"facts\">\n");
    for (name, value) in facts {
        out.push_str(&format!(
            "<dt>{}</dt><dd>{}</dd>\n",
            escaped(&name),
            escaped(&value)
        ));
    }
    out.push_str("</dl>\n");
    out
}

/// The groups in their order, each with its rows.
fn groups(report: &Report) -> Vec<(&str, Vec<&Row>)> {
    let mut groups: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in &report.rows {
        match groups.last_mut() {
            Some((group, rows)) if *group == row.group => rows.push(row),
            _ => groups.push((&row.group, vec![row])),
        }
    }
    groups
}

fn plots(report: &Report) -> String {
    let mut out = format!(
        "<h2>Time, as a multiple of {}'s</h2>\n\
         <p class=\"quiet\">Further left is faster. A mark is the ratio of the medians, its line \
         the range of the rounds. The axis is logarithmic.</p>\n",
        escaped(&report.reference)
    );
    out.push_str(&key(report));
    for (group, rows) in groups(report) {
        out.push_str(&format!("<h3>{}</h3>\n<figure>", escaped(group)));
        out.push_str(&ratios(report, &rows));
        out.push_str("</figure>\n");
    }
    out
}

/// The rows whose names are `prefix` and a step; the steps and each subject's values.
type Series = (Vec<String>, Vec<(usize, Vec<Option<f64>>)>);

fn series(report: &Report, prefix: &str, value: impl Fn(&Outcome) -> Option<f64>) -> Series {
    let rows: Vec<(&str, &Row)> = report
        .rows
        .iter()
        .filter_map(|row| Some((row.name.strip_prefix(prefix)?, row)))
        .collect();
    let steps = rows.iter().map(|(step, _)| (*step).to_owned()).collect();
    let values = report.subjects.iter().enumerate().map(|(index, subject)| {
        let of_rows = rows
            .iter()
            .map(|(_, row)| row.of(&subject.label).and_then(&value));
        (index, of_rows.collect())
    });
    (steps, values.collect())
}

fn copy_ups(report: &Report) -> String {
    let (steps, values) = series(report, "copyup-", |outcome| {
        Some(outcome.summary?.median / outcome.ops.max(1) as f64)
    });
    if steps.len() < 2 {
        return String::new();
    }
    let steps: Vec<String> = steps
        .iter()
        .map(|step| {
            let number = step.trim_end_matches(|c: char| c.is_alphabetic());
            let unit = step.trim_start_matches(number).to_uppercase();
            format!("{number} {unit}iB")
        })
        .collect();
    let plot = curves(&Curves {
        steps: &steps,
        values: &values,
        unit: |seconds| time(seconds).replace(".00 ", " ").replace(".0 ", " "),
        name: "copy-up latency by file size",
    });
    format!(
        "<h2>Copy-up latency by file size</h2>\n\
         <p class=\"quiet\">Opening a lower file, changing one byte and closing it.</p>\n\
         {}<figure>{plot}</figure>\n",
        key(report)
    )
}

fn clients(report: &Report) -> String {
    let (steps, values) = series(report, "clients-", |outcome| {
        Some(outcome.ops as f64 / outcome.summary?.median)
    });
    if steps.len() < 2 {
        return String::new();
    }
    let steps: Vec<String> = steps.iter().map(|step| format!("{step} at once")).collect();
    let plot = curves(&Curves {
        steps: &steps,
        values: &values,
        unit: |rate| format!("{}/s", grouped(rate.round() as usize)),
        name: "throughput by number of clients",
    });
    format!(
        "<h2>Throughput by number of clients</h2>\n\
         <p class=\"quiet\">Files created, looked at and removed in a second, by all clients \
         together.</p>\n{}<figure>{plot}</figure>\n",
        key(report)
    )
}

fn table(report: &Report) -> String {
    let mut out = String::from("<h2>All figures</h2>\n<div class=\"wide\"><table>\n<thead><tr>");
    out.push_str("<th>workload</th>");
    for subject in &report.subjects {
        out.push_str(&format!("<th>{}</th>", escaped(&subject.label)));
        if subject.label != report.reference {
            out.push_str("<th>ratio</th>");
        }
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let columns = report.subjects.len() * 2;
    for (group, rows) in groups(report) {
        out.push_str(&format!(
            "<tr class=\"group\"><th colspan=\"{columns}\">{}</th></tr>\n",
            escaped(group)
        ));
        for row in rows {
            out.push_str(&format!("<tr><td>{}</td>", escaped(&row.title)));
            for subject in &report.subjects {
                let is_reference = subject.label == report.reference;
                out.push_str(&cells(row.of(&subject.label), is_reference));
            }
            out.push_str("</tr>\n");
        }
    }
    if report.rows.len() > 1 {
        out.push_str("<tr class=\"group\"><th>geometric mean of the ratios</th>");
        for subject in &report.subjects {
            out.push_str("<td></td>");
            if subject.label != report.reference {
                let mean = report.mean(&subject.label).map_or("-".into(), short);
                out.push_str(&format!("<td class=\"ratio\">{}</td>", escaped(&mean)));
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    let mut failed = failures(report).peekable();
    if failed.peek().is_some() {
        out.push_str("<h3>Not measured</h3>\n<ul>\n");
        for (row, outcome) in failed {
            out.push_str(&format!(
                "<li>{}, {}: {}</li>\n",
                escaped(&row.title),
                escaped(&outcome.subject),
                escaped(outcome.failure.as_deref().unwrap_or_default())
            ));
        }
        out.push_str("</ul>\n");
    }
    out
}

fn cells(outcome: Option<&Outcome>, is_reference: bool) -> String {
    let none = "<td class=\"none\">-</td>";
    let figure = outcome.and_then(Outcome::figure);
    let mut out = figure.map_or(none.to_owned(), |figure| {
        format!("<td>{}</td>", escaped(&figure))
    });
    if is_reference {
        return out;
    }
    out.push_str(
        &outcome
            .and_then(|outcome| outcome.ratio)
            .map_or(none.to_owned(), |ratio| {
                let class = match ratio.of_medians {
                    r if r < 1.0 - NOTABLE => "ratio good",
                    r if r > 1.0 + NOTABLE => "ratio bad",
                    _ => "ratio",
                };
                let range = range(&ratio).map_or(String::new(), |range| {
                    format!(" <small>{}</small>", escaped(&range))
                });
                let ratio = escaped(&short(ratio.of_medians));
                format!("<td class=\"{class}\">{ratio}{range}</td>")
            }),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::example;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = write(&example());
        for word in [
            "http:", "https:", "src=", "href=", "url(", "@import", "<script",
        ] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let page = write(&example());
        assert!(
            page.contains("walk &lt;warm&gt; &amp; &quot;quick&quot;"),
            "{page}"
        );
        assert!(page.contains("it &lt;broke&gt;"), "{page}");
        assert!(!page.contains("<warm>"), "{page}");
    }

    #[test]
    fn every_element_is_closed() {
        let page = write(&example());
        for element in [
            "svg", "g", "table", "tr", "td", "dl", "figure", "ul", "li", "body",
        ] {
            let opened = page.matches(&format!("<{element}>")).count()
                + page.matches(&format!("<{element} ")).count();
            let closed = page.matches(&format!("</{element}>")).count();
            assert_eq!(opened, closed, "{element}");
        }
    }

    #[test]
    fn a_report_of_nothing_is_a_page() {
        assert!(write(&Report::default()).ends_with("</html>\n"));
    }
}
