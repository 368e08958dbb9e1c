//! `plyfs settle`: an upper becomes one that every overlayfs reads.

use super::args::SettleArgs;
use super::preflight::Nesting;
use super::{logging, mount};
use crate::error::{MountError, best_effort};
use crate::upkeep::settle::{Tally, Target, settle};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the line on the terminal changes.
const TICK: Duration = Duration::from_millis(200);

/// Settles, and says in one line what was done.
///
/// # Errors
/// Whatever stands against it.
pub fn run(args: SettleArgs) -> Result<ExitCode, MountError> {
    let mut request = mount::request(args.layers)?;
    logging::start(None, request.debug)?;
    request.flags.read_only = false;
    let plan = request.check_unmounted(Nesting::Refused)?;
    let mut line = Line::new(args.quiet);
    let target = match (args.trusted, args.userxattr) {
        (true, _) => Target::Trusted,
        (false, true) => Target::User,
        (false, false) => Target::AsMounted,
    };
    let done = settle(&plan, target, &mut |tally| line.show(tally));
    line.clear();
    let tally = done?;
    if !args.quiet {
        let upper = plan
            .upper
            .as_ref()
            .map(|paths| paths.upper.display().to_string());
        let text = format!("{}: {}\n", upper.unwrap_or_default(), summary(&tally));
        let written = std::io::stdout().write_all(text.as_bytes());
        best_effort("write to stdout", written);
    }
    Ok(ExitCode::SUCCESS)
}

/// How far it is, on a terminal.
struct Line {
    last: Option<Instant>,
    shown: bool,
}

impl Line {
    fn new(quiet: bool) -> Line {
        let wanted = !quiet && std::io::stderr().is_terminal();
        Line {
            last: wanted.then(Instant::now),
            shown: false,
        }
    }

    fn show(&mut self, tally: &Tally) {
        let Some(last) = self.last else { return };
        if last.elapsed() < TICK {
            return;
        }
        self.last = Some(Instant::now());
        self.shown = true;
        let text = format!(
            "\r\x1b[Kplyfs: {} names looked at, {} copied",
            tally.names,
            size(tally.bytes)
        );
        best_effort(
            "show progress",
            std::io::stderr().write_all(text.as_bytes()),
        );
    }

    fn clear(&self) {
        if self.shown {
            let cleared = std::io::stderr().write_all(b"\r\x1b[K");
            best_effort("clear the line", cleared);
        }
    }
}

/// What was done, in a few words.
fn summary(tally: &Tally) -> String {
    let escaped = match tally.escaped {
        0 => String::new(),
        n => format!(
            "; overlayfs shows {n} of users' xattrs as they are stored, under a longer name"
        ),
    };
    if tally.is_nothing() {
        return format!("was settled already{escaped}");
    }
    let count = |n: u64, one: &str, many: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    let copied = format!("files copied ({})", size(tally.bytes));
    let one_copied = format!("file copied ({})", size(tally.bytes));
    let parts = [
        count(
            tally.directories,
            "directory made whole",
            "directories made whole",
        ),
        count(tally.files, &one_copied, &copied),
        count(tally.links, "hard link made", "hard links made"),
        count(tally.converted, "mark converted", "marks converted"),
        count(tally.dropped, "mark dropped", "marks dropped"),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("settled: {}{escaped}", parts.join(", "))
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in UNITS.into_iter().skip(1) {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_one_line() {
        assert_eq!(summary(&Tally::default()), "was settled already");
        let tally = Tally {
            names: 7,
            directories: 1,
            files: 2,
            bytes: 3 << 20,
            ..Tally::default()
        };
        assert_eq!(
            summary(&tally),
            "settled: 1 directory made whole, 2 files copied (3.0 MiB)"
        );
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
