//! The figures as Prometheus reads them: text in the exposition format 0.0.4.

use super::figures::Figures;
use std::fmt::{Display, Write};

/// The ends of the buckets that are told, as powers of two of nanoseconds: 1 us to 17 s,
/// each four times the one before.
const ENDS: [u32; 13] = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34];

/// A text under way.
struct Text {
    text: String,
    /// The label that tells this mount from others.
    mount: String,
}

fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace('\n', "\\n"))
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn put(&mut self, what: impl Display) {
        crate::error::best_effort("write to a string", write!(self.text, "{what}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut all = self.mount.clone();
        for (label, value) in labels {
            all.push_str(&format!(",{label}={}", quoted(value)));
        }
        self.put(format_args!("{name}{{{all}}} {value}\n"));
    }

    /// A family of one sample.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A family with a sample for each part `of` a whole.
    fn parts(&mut self, name: &str, kind: &str, help: &str, counts: [(&str, u64); 3]) {
        self.family(name, kind, help);
        for (of, count) in counts {
            self.sample(name, &[("of", of)], count);
        }
    }
}

/// The text of `figures`.
pub fn text(figures: &Figures) -> String {
    let mount = format!("mount={}", quoted(&figures.present.mount));
    let mut out = Text {
        text: String::new(),
        mount,
    };
    requests(&mut out, figures);
    copyups(&mut out, figures);
    present(&mut out, figures);
    out.text
}

fn requests(out: &mut Text, figures: &Figures) {
    let name = "plyfs_request_seconds";
    out.family(name, "histogram", "How long requests of the kernel took.");
    for (kind, requests) in &figures.requests {
        let durations = requests.durations();
        if durations.count() == 0 {
            continue;
        }
        let bucket = format!("{name}_bucket");
        for power in ENDS {
            let end = ((1u64 << power) as f64 / 1e9).to_string();
            let labels = [("kind", kind.as_str()), ("le", end.as_str())];
            out.sample(&bucket, &labels, durations.below(power));
        }
        let count = durations.count();
        out.sample(&bucket, &[("kind", kind.as_str()), ("le", "+Inf")], count);
        let seconds = durations.sum as f64 / 1e9;
        out.sample(&format!("{name}_sum"), &[("kind", kind.as_str())], seconds);
        out.sample(&format!("{name}_count"), &[("kind", kind.as_str())], count);
    }
    let name = "plyfs_requests_total";
    out.family(
        name,
        "counter",
        "Requests of the kernel that were answered.",
    );
    for (kind, requests) in &figures.requests {
        out.sample(name, &[("kind", kind.as_str())], requests.count);
    }
    let name = "plyfs_request_errors_total";
    out.family(
        name,
        "counter",
        "Requests that were answered with an error.",
    );
    for (kind, requests) in &figures.requests {
        out.sample(name, &[("kind", kind.as_str())], requests.errors);
    }
    let name = "plyfs_cache_asked_total";
    out.family(name, "counter", "How often a cache was asked.");
    for (cache, asked) in &figures.caches {
        out.sample(
            name,
            &[("cache", cache.as_str()), ("result", "hit")],
            asked.hits,
        );
        out.sample(
            name,
            &[("cache", cache.as_str()), ("result", "miss")],
            asked.misses,
        );
    }
}

fn copyups(out: &mut Text, figures: &Figures) {
    let name = "plyfs_copyups_total";
    out.family(name, "counter", "Files that were copied up.");
    for (cause, all) in &figures.copyups {
        let parts = [
            ("meta", all.meta),
            ("data", all.data),
            ("whole", all.whole),
            ("partial", all.partial),
        ];
        for (part, count) in parts {
            out.sample(name, &[("cause", cause.as_str()), ("part", part)], count);
        }
    }
    let name = "plyfs_copyup_failures_total";
    out.family(name, "counter", "Copy-ups that failed.");
    for (cause, all) in &figures.copyups {
        out.sample(name, &[("cause", cause.as_str())], all.failed);
    }
    let name = "plyfs_copyup_bytes_total";
    out.family(name, "counter", "Bytes of data that were copied up.");
    for (cause, all) in &figures.copyups {
        out.sample(name, &[("cause", cause.as_str())], all.bytes);
    }
    let name = "plyfs_copyup_seconds_total";
    out.family(name, "counter", "How long copy-ups took.");
    for (cause, all) in &figures.copyups {
        out.sample(name, &[("cause", cause.as_str())], all.total_us / 1e6);
    }
    let name = "plyfs_marks_total";
    out.family(
        name,
        "counter",
        "Marks that were written to the upper, or went.",
    );
    for (mark, count) in &figures.marks {
        out.sample(name, &[("mark", mark.as_str())], count);
    }
}

fn present(out: &mut Text, figures: &Figures) {
    let (events, now) = (&figures.events, &figures.present);
    let help = "Events that were written.";
    out.one("plyfs_events_total", "counter", help, events.written);
    let help = "Events that found no place in the log.";
    out.one(
        "plyfs_events_dropped_total",
        "counter",
        help,
        events.dropped,
    );
    out.one(
        "plyfs_nodes",
        "gauge",
        "Files that the kernel knows.",
        now.nodes,
    );
    let partly = &now.partly_copied;
    let help = "Files that have a part of their data in the upper.";
    out.one("plyfs_partly_copied_files", "gauge", help, partly.files);
    let help = "Bytes that those lack.";
    out.one(
        "plyfs_partly_copied_missing_bytes",
        "gauge",
        help,
        partly.missing_bytes,
    );
    let ahead = &now.fetched_ahead;
    let help = "What was fetched before anybody asked for it.";
    let counts = [
        ("file", ahead.files),
        ("directory", ahead.directories),
        ("entry", ahead.entries),
    ];
    out.parts("plyfs_fetched_ahead_total", "counter", help, counts);
    let help = "Bytes of the files among those.";
    out.one(
        "plyfs_fetched_ahead_bytes_total",
        "counter",
        help,
        ahead.bytes,
    );
    let fds = &now.descriptors;
    let help = "Open descriptors of the daemon.";
    let counts = [
        ("directory", fds.directories),
        ("file", fds.files),
        (
            "other",
            fds.open.saturating_sub(fds.directories + fds.files),
        ),
    ];
    out.parts("plyfs_descriptors", "gauge", help, counts);
    let help = "Descriptors that the daemon may open.";
    out.one("plyfs_descriptors_limit", "gauge", help, fds.limit);
    let help = "Resident memory of the daemon.";
    out.one(
        "plyfs_resident_bytes",
        "gauge",
        help,
        now.memory.resident_bytes,
    );
    let help = "How long the mount has been counting.";
    out.one(
        "plyfs_uptime_seconds",
        "gauge",
        help,
        figures.uptime_seconds,
    );
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Figures, Present};
    use super::super::*;
    use std::sync::Arc;

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_its_family() {
        let observer = Arc::new(Observer::default());
        for _ in 0..7 {
            let _span = begin(Some(&observer), Kind::Write, 0);
            copying().done(Part::Whole, 0o100_000, |_| false);
        }
        observer.count(Kind::Forget);
        let present = Present::default().at(b"/a \"b\"\\\n");
        let text = super::text(&Figures::of(&observer, present));
        let mut family = "";
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                family = comment.split(' ').nth(1).expect("a name");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(
                series.starts_with(family) && series.ends_with('}'),
                "{line}"
            );
            assert!(series.contains(r#"{mount="/a \"b\"\\\n""#), "{line}");
        }
        let count = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .expect(name);
            line.rsplit_once(' ')
                .expect("a value")
                .1
                .parse::<f64>()
                .expect("a number")
        };
        assert_eq!(count("plyfs_request_seconds_count"), 7.0);
        assert!(text.contains("le=\"+Inf\"} 7\n"), "{text}");
        assert!(
            text.contains("cause=\"write\",part=\"whole\"} 7\n"),
            "{text}"
        );
        assert!(text.contains("kind=\"forget\"} 1\n"), "{text}");
        // Buckets add up as they go on.
        let buckets: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with("plyfs_request_seconds_bucket"))
            .map(|line| {
                line.rsplit_once(' ')
                    .expect("a value")
                    .1
                    .parse()
                    .expect("a number")
            })
            .collect();
        assert!(
            buckets.windows(2).all(|two| two[0] <= two[1]),
            "{buckets:?}"
        );
    }
}
