//! `plyfs check`: is an upper sound?

use super::args::CheckArgs;
use super::preflight::Nesting;
use super::{logging, mount, say};
use crate::config::plan::MountPlan;
use crate::error::{MountError, best_effort};
use crate::upkeep::check::{Finding, Report, check};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

/// Something is wrong with the upper.
const UNSOUND: u8 = 1;
/// Whether something is wrong could not be found out.
pub const NOT_TOLD: u8 = 2;

/// Checks, and prints what was found.
pub fn run(args: CheckArgs) -> ExitCode {
    let (repair, json) = (args.repair, args.json);
    match look(args) {
        Ok((plan, report)) => {
            let text = if json {
                document(&plan, &report)
            } else {
                lines(&plan, &report, repair)
            };
            let mut out = std::io::stdout();
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            best_effort("write to stdout", written);
            ExitCode::from(if report.is_sound() { 0 } else { UNSOUND })
        }
        Err(refusal) => {
            say(&refusal.to_string());
            ExitCode::from(NOT_TOLD)
        }
    }
}

fn look(args: CheckArgs) -> Result<(MountPlan, Report), MountError> {
    let mut request = mount::request(args.layers)?;
    logging::start(None, request.debug)?;
    // Who only looks need not be allowed to write.
    request.flags.read_only = !args.repair;
    let plan = request.check_unmounted(Nesting::Allowed)?;
    let report = check(&plan, args.repair)?;
    Ok((plan, report))
}

/// A line for each finding, and one that sums up.
fn lines(plan: &MountPlan, report: &Report, repair: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&finding.to_string());
        text.push('\n');
    }
    let mended = report
        .findings
        .iter()
        .filter(|f| f.mended.is_some())
        .count();
    let left = report.findings.len() - mended;
    let upper = plan
        .upper
        .as_ref()
        .map(|paths| paths.upper.display().to_string());
    let mut sum = format!("{}: ", upper.unwrap_or_default());
    sum.push_str(&match (left, mended) {
        (0, 0) => "sound".to_owned(),
        (0, n) => format!("sound now: {n} mended"),
        (n, 0) if repair => format!("{n} found, none of which can be mended without a doubt"),
        (n, 0) => format!("{n} found"),
        (n, m) => format!("{n} left, {m} mended"),
    });
    let names = report.names;
    sum.push_str(&format!(" ({names} names looked at"));
    if report.untold_origins > 0 {
        let untold = report.untold_origins;
        sum.push_str(&format!(
            "; of {untold} origins only root can tell whether they still exist"
        ));
    }
    sum.push_str(")\n");
    text + &sum
}

/// The same for programs.
fn document(plan: &MountPlan, report: &Report) -> String {
    let upper = plan.upper.as_ref().map(|paths| paths.upper.as_os_str());
    let upper = crate::upkeep::printable(upper.unwrap_or_default().as_encoded_bytes());
    let findings: Vec<_> = report.findings.iter().map(object).collect();
    format!(
        "{{\n  \"upper\": {},\n  \"sound\": {},\n  \"names\": {},\n  \"untold_origins\": {},\n  \
         \"findings\": [{}]\n}}\n",
        quoted(&upper),
        report.is_sound(),
        report.names,
        report.untold_origins,
        findings.join(",")
    )
}

fn object(finding: &Finding) -> String {
    format!(
        "\n    {{\"path\": {}, \"kind\": {}, \"what\": {}, \"meaning\": {}, \"remedy\": {}, \
         \"mended\": {}}}",
        quoted(&finding.path.to_string()),
        quoted(finding.kind.word()),
        quoted(&finding.what),
        quoted(finding.meaning()),
        quoted(finding.remedy()),
        finding.mended.is_some()
    )
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                best_effort("write to a string", write!(out, "\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_string_is_quoted() {
        assert_eq!(quoted("a\"b\\c\n\u{e4}"), "\"a\\\"b\\\\c\\u000a\u{e4}\"");
    }
}
