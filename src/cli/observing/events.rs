//! `plyfs events`: a line of JSON for each copy-up and each mark.

use super::{daemon_of, not_told, print};
use crate::cli::args::EventsArgs;
use crate::error::MountError;
use std::process::ExitCode;

/// Prints the events, until the mount goes away.
///
/// # Errors
/// Where no plyfs is mounted there, or its daemon tells us nothing.
pub fn run(args: &EventsArgs) -> Result<ExitCode, MountError> {
    let daemon = daemon_of(&args.mount_point)?;
    let from = args
        .since
        .map_or("0".to_owned(), |number| number.to_string());
    let from = if args.new { "new".to_owned() } else { from };
    let tell = |line: &str| print(&format!("{}\n", harmless(line)));
    daemon
        .events(&from, !args.no_follow, tell)
        .map_err(|e| not_told(&args.mount_point, &e))?;
    Ok(ExitCode::SUCCESS)
}

/// A line of another user's daemon, for root's terminal.
fn harmless(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
