//! The plots, as SVG that takes its colours from the page.

use super::table::short;
use super::{Outcome, Report, Row};

/// Of the drawing, in its own units.
const WIDTH: f64 = 960.0;
/// Where the names of the rows end and the plot begins.
const LEFT: f64 = 372.0;
/// Where the plot ends.
const RIGHT: f64 = WIDTH - 24.0;
/// Between two subjects in one row.
const STEP: f64 = 9.0;
/// Above and below the subjects of one row.
const GAP: f64 = 6.0;
/// Room for the axis.
const AXIS: f64 = 24.0;

/// How many colours the page has.
const COLOURS: usize = 7;

/// How many shapes there are.
const SHAPES: usize = 7;

/// The ratios that a plot shows at most; what lies beyond is drawn at its edge.
const EXTENT: (f64, f64) = (0.02, 50.0);

/// Text that means nothing to HTML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// The mark of the subject at `index`, with a shape of its own: colour alone is not enough.
fn mark(index: usize, x: f64, y: f64) -> String {
    let class = format!("c{}", index % COLOURS);
    let r = 4.5;
    let path = |d: String| format!("<path class=\"{class}\" d=\"{d}\"/>");
    match index % SHAPES {
        1 => format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\"/>"),
        2 => path(format!(
            "M{x:.1} {:.1}l{r} {}h-{}z",
            y - r,
            r * 1.8,
            r * 2.0
        )),
        3 => path(format!("M{x:.1} {:.1}l{r} {r}l-{r} {r}l-{r} -{r}z", y - r)),
        4 => path(format!(
            "M{x:.1} {:.1}l{r} -{}h-{}z",
            y + r,
            r * 1.8,
            r * 2.0
        )),
        5 => path(format!("M{:.1} {:.1}h9v3h-9z", x - 4.5, y - 1.5)),
        6 => path(format!("M{:.1} {:.1}v9h3v-9z", x - 1.5, y - 4.5)),
        _ => format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/>",
            x - 4.0,
            y - 4.0
        ),
    }
}

/// The key to the marks.
pub fn key(report: &Report) -> String {
    let mut out = String::from("<ul class=\"key\">");
    for (index, subject) in report.subjects.iter().enumerate() {
        let note = if subject.label == report.reference {
            " (the reference, 1.0)"
        } else {
            ""
        };
        out.push_str(&format!(
            "<li><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">{}</svg>{}{note}</li>",
            mark(index, 7.0, 7.0),
            escaped(&subject.label)
        ));
    }
    out.push_str("</ul>\n");
    out
}

/// A logarithmic axis.
struct Axis {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Axis {
    /// From `low` to `high` on the page, for values from `from` to `to`.
    fn new(from: f64, to: f64, low: f64, high: f64) -> Axis {
        Axis {
            from,
            to,
            low,
            high,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        let part = (value / self.from).ln() / (self.to / self.from).ln();
        self.low + part * (self.high - self.low)
    }

    /// 1, 2 and 5 times the powers of ten that lie on it; where there are too many of
    /// them, the powers alone.
    fn ticks(&self) -> Vec<f64> {
        let all = |steps: &[f64]| -> Vec<f64> {
            (-12..=12)
                .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
                .filter(|tick| *tick >= self.from * 0.999 && *tick <= self.to * 1.001)
                .collect()
        };
        let fine = all(&[1.0, 2.0, 5.0]);
        if fine.len() > 13 { all(&[1.0]) } else { fine }
    }
}

/// The extent of all ratios, rounded out to ticks.
fn extent(report: &Report) -> (f64, f64) {
    let ratios = report
        .rows
        .iter()
        .flat_map(|row| &row.results)
        .filter_map(|outcome| outcome.ratio.map(|ratio| ratio.of_medians));
    let (mut least, mut greatest) = (0.5, 2.0);
    for ratio in ratios {
        least = f64::min(least, ratio * 0.8);
        greatest = f64::max(greatest, ratio * 1.25);
    }
    (least.max(EXTENT.0), greatest.min(EXTENT.1))
}

/// The ratios of the rows of one group, a line each.
pub fn ratios(report: &Report, rows: &[&Row]) -> String {
    let (from, to) = extent(report);
    let axis = Axis::new(from, to, LEFT, RIGHT);
    let shown: Vec<(usize, &str)> = report
        .subjects
        .iter()
        .enumerate()
        .filter(|(_, subject)| subject.label != report.reference)
        .map(|(index, subject)| (index, subject.label.as_str()))
        .collect();
    let height = GAP * 2.0 + STEP * shown.len().max(1) as f64;
    let bottom = height * rows.len() as f64;
    let mut out = format!(
        "<svg class=\"plot\" role=\"img\" aria-label=\"ratios of time\" \
         viewBox=\"0 0 {WIDTH} {:.0}\">",
        bottom + AXIS
    );
    for index in (0..rows.len()).step_by(2) {
        out.push_str(&format!(
            "<rect class=\"band\" x=\"0\" y=\"{:.1}\" width=\"{WIDTH}\" height=\"{height:.1}\"/>",
            index as f64 * height
        ));
    }
    out.push_str(&vertical_grid(&axis, bottom));
    for (index, row) in rows.iter().enumerate() {
        let top = index as f64 * height;
        out.push_str(&format!(
            "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
            LEFT - 12.0,
            top + height / 2.0 + 4.0,
            escaped(&row.title)
        ));
        for (line, (colour, label)) in shown.iter().enumerate() {
            let y = top + GAP + STEP * (line as f64 + 0.5);
            if let Some(outcome) = row.of(label) {
                out.push_str(&ratio_mark(&axis, outcome, *colour, y));
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

fn vertical_grid(axis: &Axis, bottom: f64) -> String {
    let mut out = String::new();
    for tick in axis.ticks() {
        let x = axis.at(tick);
        let class = if (tick - 1.0).abs() < 1e-9 {
            "one"
        } else {
            "grid"
        };
        out.push_str(&format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick mid\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 16.0,
            plain_number(tick)
        ));
    }
    out
}

/// A tick without needless zeros.
fn plain_number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn ratio_mark(axis: &Axis, outcome: &Outcome, colour: usize, y: f64) -> String {
    let Some(ratio) = outcome.ratio else {
        return String::new();
    };
    let x = axis.at(ratio.of_medians);
    let mut out = format!(
        "<g><title>{}: {} ({} to {}), {}</title>",
        escaped(&outcome.subject),
        escaped(&short(ratio.of_medians)),
        escaped(&short(ratio.min)),
        escaped(&short(ratio.max)),
        outcome.figure().unwrap_or_default(),
    );
    // What is drawn at the edge says where it really is.
    let beyond = |class: &str, x: f64| {
        let text = short(ratio.of_medians);
        format!(
            "<text class=\"tick {class}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            escaped(&text)
        )
    };
    if ratio.of_medians < axis.from {
        out.push_str(&beyond("start", x + 8.0));
    } else if ratio.of_medians > axis.to {
        out.push_str(&beyond("end", x - 8.0));
    } else {
        out.push_str(&format!(
            "<line class=\"range c{}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            colour % COLOURS,
            axis.at(ratio.min),
            axis.at(ratio.max),
        ));
    }
    out + &mark(colour, x, y) + "</g>"
}

/// One value of a curve for each of a few steps.
pub struct Curves<'a> {
    /// The steps, from left to right.
    pub steps: &'a [String],
    /// Of each subject, by its place among the subjects.
    pub values: &'a [(usize, Vec<Option<f64>>)],
    /// How a value is written.
    pub unit: fn(f64) -> String,
    /// What the plot is, for those who cannot see it.
    pub name: &'a str,
}

/// Curves over a few steps, the values on a logarithmic axis.
pub fn curves(curves: &Curves<'_>) -> String {
    let (left, top, bottom) = (92.0, 12.0, 292.0);
    let all = || curves.values.iter().flat_map(|(_, v)| v.iter().flatten());
    let least = all().copied().fold(f64::INFINITY, f64::min);
    let greatest = all().copied().fold(0.0, f64::max);
    if !least.is_finite() || least <= 0.0 || greatest <= 0.0 {
        return String::new();
    }
    let axis = Axis::new(least * 0.8, greatest * 1.25, bottom, top);
    let mut out = format!(
        "<svg class=\"plot\" role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {WIDTH} {}\">",
        escaped(curves.name),
        bottom + AXIS
    );
    for tick in axis.ticks() {
        let y = axis.at(tick);
        out.push_str(&format!(
            "<line class=\"grid\" x1=\"{left}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{}</text>",
            left - 8.0,
            y + 4.0,
            escaped(&(curves.unit)(tick))
        ));
    }
    let width = (RIGHT - left) / curves.steps.len().max(1) as f64;
    let x = |index: usize| left + width * (index as f64 + 0.5);
    for (index, step) in curves.steps.iter().enumerate() {
        out.push_str(&format!(
            "<text class=\"tick mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(index),
            bottom + 18.0,
            escaped(step)
        ));
    }
    for (colour, values) in curves.values {
        out.push_str(&curve(&axis, *colour, values, x, curves.unit));
    }
    out.push_str("</svg>\n");
    out
}

fn curve(
    axis: &Axis,
    colour: usize,
    values: &[Option<f64>],
    x: impl Fn(usize) -> f64,
    unit: fn(f64) -> String,
) -> String {
    let points: Vec<(f64, f64, f64)> = values
        .iter()
        .enumerate()
        .filter_map(|(index, value)| value.map(|value| (x(index), axis.at(value), value)))
        .collect();
    let line: Vec<String> = points
        .iter()
        .map(|(x, y, _)| format!("{x:.1},{y:.1}"))
        .collect();
    let mut out = format!(
        "<polyline class=\"curve c{}\" points=\"{}\"/>",
        colour % COLOURS,
        line.join(" ")
    );
    for (x, y, value) in points {
        out.push_str(&format!(
            "<g><title>{}</title>{}</g>",
            escaped(&unit(value)),
            mark(colour, x, y)
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_lie_on_the_axis_and_are_not_too_many() {
        for (from, to) in [(0.5, 2.0), (0.02, 50.0), (1e-6, 1e6)] {
            let axis = Axis::new(from, to, 0.0, 100.0);
            let ticks = axis.ticks();
            assert!((2..=13).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks.iter().all(|t| (0.0..=100.0).contains(&axis.at(*t))));
        }
    }

    #[test]
    fn what_lies_beyond_the_axis_is_drawn_at_its_edge() {
        let axis = Axis::new(0.1, 10.0, 0.0, 100.0);
        assert_eq!(axis.at(1000.0), 100.0);
        assert_eq!(axis.at(0.0), 0.0);
        assert!((axis.at(1.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_have_no_needless_zeros() {
        assert_eq!(plain_number(0.5), "0.5");
        assert_eq!(plain_number(20.0), "20");
        assert_eq!(plain_number(100.0), "100");
    }
}
