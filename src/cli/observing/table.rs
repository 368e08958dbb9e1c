//! The figures as a table.

use crate::observe::Kind;
use crate::observe::figures::{Figures, Requests};
use std::fmt::Write;

/// Columns, each as wide as its widest cell; the first to the left, the others to the right.
#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if i == 0 {
                    text.push_str(&format!("{cell:<width$}"));
                } else {
                    text.push_str(&format!("  {cell:>width$}"));
                }
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// So many of something that has these names.
fn several(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { more })
}

/// A number with its thousands apart.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three figures and a unit.
fn scaled(mut value: f64, units: &[(&str, f64)]) -> String {
    let mut unit = "";
    for (name, next) in units {
        unit = name;
        if value < *next {
            break;
        }
        value /= next;
    }
    let digits = match value {
        v if v >= 100.0 || v == v.trunc() => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

fn time(micros: f64) -> String {
    let units = [("us", 1000.0), ("ms", 1000.0), ("s", f64::INFINITY)];
    scaled(micros, &units)
}

fn bytes(n: u64) -> String {
    let units = [
        ("B", 1024.0),
        ("KiB", 1024.0),
        ("MiB", 1024.0),
        ("GiB", 1024.0),
        ("TiB", f64::INFINITY),
    ];
    scaled(n as f64, &units)
}

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds:.1} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// All that was counted since the mount began.
pub fn of(figures: &Figures) -> String {
    let up = duration(figures.uptime_seconds);
    let head = format!(
        "{}: plyfs {}, device {}, pid {}, up {up}\n",
        shown(&figures.present.mount),
        shown(&figures.plyfs),
        shown(&figures.present.device),
        figures.present.pid,
    );
    head + &body(figures)
}

/// What was counted since `before`.
pub fn since(now: &Figures, before: &Figures) -> String {
    let new = now.since(before);
    let head = format!(
        "{}: in the last {}\n",
        shown(&now.present.mount),
        duration(new.uptime_seconds)
    );
    head + &body(&new)
}

/// Text of another user's daemon, for a terminal.
fn shown(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

fn heads<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(str::to_owned)
}

fn body(figures: &Figures) -> String {
    let mut text = String::new();
    for table in [requests(figures), caches(figures), copyups(figures)] {
        text.push('\n');
        text.push_str(&table.text());
    }
    text.push('\n');
    text.push_str(&present(figures).text());
    text
}

fn requests(figures: &Figures) -> Table {
    let mut table = Table::default();
    table.row(heads([
        "REQUEST", "COUNT", "ERRORS", "MEAN", "P50", "P99", "MAX",
    ]));
    // Kinds that this program does not know come last.
    let known = Kind::ALL.iter().map(|kind| kind.name());
    let known: Vec<&str> = known
        .filter(|k| figures.requests.contains_key(*k))
        .collect();
    let others = figures.requests.keys().map(String::as_str);
    let others = others.filter(|kind| !known.contains(kind));
    for kind in known.iter().copied().chain(others) {
        let Some(all) = figures.requests.get(kind) else {
            continue;
        };
        let Requests {
            mean_us,
            p50_us,
            p99_us,
            max_us,
            ..
        } = all;
        let [mean, half, most, max] =
            [mean_us, p50_us, p99_us, max_us].map(|us| us.map_or("-".to_owned(), time));
        let (answered, errors) = (count(all.count), count(all.errors));
        table.row([shown(kind), answered, errors, mean, half, most, max]);
    }
    table
}

fn caches(figures: &Figures) -> Table {
    let mut table = Table::default();
    table.row(heads(["CACHE", "HITS", "MISSES", "RATE"]));
    for (cache, asked) in &figures.caches {
        let all = asked.hits + asked.misses;
        let rate = if all == 0 {
            "-".to_owned()
        } else {
            format!("{:.1} %", asked.hits as f64 * 100.0 / all as f64)
        };
        let name = shown(cache).replace('_', " ");
        table.row([name, count(asked.hits), count(asked.misses), rate]);
    }
    table
}

fn copyups(figures: &Figures) -> Table {
    let mut table = Table::default();
    table.row(heads([
        "COPY-UP BY",
        "META",
        "DATA",
        "WHOLE",
        "PARTIAL",
        "FAILED",
        "BYTES",
        "TIME",
    ]));
    for (cause, all) in &figures.copyups {
        let numbers = [all.meta, all.data, all.whole, all.partial, all.failed].map(count);
        let [meta, data, whole, partial, failed] = numbers;
        let (size, took) = (bytes(all.bytes), time(all.total_us));
        table.row([shown(cause), meta, data, whole, partial, failed, size, took]);
    }
    table
}

fn present(figures: &Figures) -> Table {
    let (now, events) = (&figures.present, &figures.events);
    let mut table = Table::default();
    let mut line = |name: &str, text: String| {
        table.rows.push(vec![format!("{name:<15}{text}")]);
    };
    let marks: Vec<String> = figures
        .marks
        .iter()
        .map(|(mark, n)| format!("{} {}", count(*n), shown(mark).replace('_', " ")))
        .collect();
    line("marks", marks.join(", "));
    line(
        "events",
        format!(
            "{} written, {} dropped, {} kept",
            count(events.written),
            count(events.dropped),
            count(events.kept)
        ),
    );
    line("nodes", count(now.nodes));
    let partly = &now.partly_copied;
    line(
        "partly copied",
        format!(
            "{}, lacking {}",
            several(partly.files, "file", "files"),
            bytes(partly.missing_bytes)
        ),
    );
    let ahead = &now.fetched_ahead;
    line(
        "fetched ahead",
        format!(
            "{} ({}), {}, {}",
            several(ahead.files, "file", "files"),
            bytes(ahead.bytes),
            several(ahead.directories, "directory", "directories"),
            several(ahead.entries, "entry", "entries")
        ),
    );
    let fds = &now.descriptors;
    line(
        "descriptors",
        format!(
            "{} of {} ({}, {})",
            count(fds.open),
            count(fds.limit),
            several(fds.directories, "directory", "directories"),
            several(fds.files, "file", "files")
        ),
    );
    let memory = &now.memory;
    let mut told = format!(
        "{} resident, {} at most",
        bytes(memory.resident_bytes),
        bytes(memory.peak_bytes)
    );
    if let Some(each) = memory.per_node_bytes {
        crate::error::best_effort("write to a string", write!(told, ", {each} B a node"));
    }
    line("memory", told);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_their_unit() {
        assert_eq!(
            [count(0), count(999), count(1_234_567)],
            ["0", "999", "1,234,567"]
        );
        assert_eq!(time(0.5), "0.50 us");
        assert_eq!(time(12.34), "12.3 us");
        assert_eq!(time(123_456.0), "123 ms");
        assert_eq!(time(7_200_000_000.0), "7200 s");
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536)],
            ["0 B", "1023 B", "1.50 KiB"]
        );
        assert_eq!(duration(3.25), "3.2 s");
        assert_eq!(duration(90_061.0), "1 d 1 h");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::default();
        table.row(heads(["A", "N"]));
        table.row(heads(["long", "1"]));
        table.row(heads(["b", "1,000"]));
        assert_eq!(table.text(), "A         N\nlong      1\nb     1,000\n");
    }
}
