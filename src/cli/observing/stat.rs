//! `plyfs stat`: the figures of a mount, once or again and again.

use super::{daemon_of, not_told, print, table};
use crate::cli::args::StatArgs;
use crate::control::client::Daemon;
use crate::error::MountError;
use crate::observe::figures::Figures;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Prints the figures.
///
/// # Errors
/// Where no plyfs is mounted there, or its daemon tells us nothing.
pub fn run(args: &StatArgs) -> Result<ExitCode, MountError> {
    let (point, pause) = what(args)?;
    let daemon = daemon_of(point)?;
    let refusal = |e| not_told(point, &e);
    if args.prometheus {
        print(&daemon.prometheus().map_err(refusal)?);
        return Ok(ExitCode::SUCCESS);
    }
    let figures = daemon.figures().map_err(refusal)?;
    match pause {
        Some(pause) => watch(args.json, daemon, figures, pause),
        None => {
            print(&if args.json {
                document(&figures, true)
            } else {
                table::of(&figures)
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The mount point, and how often to look. What follows `--watch` may be either.
fn what(args: &StatArgs) -> Result<(&Path, Option<Duration>), MountError> {
    let Some(word) = &args.watch else {
        return Ok((args.mount_point.as_deref().unwrap_or(Path::new("")), None));
    };
    let seconds = word.to_str().and_then(|word| word.parse::<f64>().ok());
    match (seconds, &args.mount_point) {
        (Some(seconds), Some(point)) if (0.1..=86_400.0).contains(&seconds) => {
            Ok((point, Some(Duration::from_secs_f64(seconds))))
        }
        (None, None) => Ok((Path::new(word), Some(Duration::from_secs(1)))),
        (Some(_), None) => Err(MountError::new(
            "mount point",
            "none given",
            "name it: plyfs stat --watch SECS MNT",
        )),
        _ => Err(MountError::new(
            format_args!("argument --watch {}", word.display()),
            "not a number of seconds between 0.1 and 86400",
            "write for instance --watch 5",
        )),
    }
}

fn document(figures: &Figures, readable: bool) -> String {
    let text = if readable {
        serde_json::to_string_pretty(figures)
    } else {
        serde_json::to_string(figures)
    };
    // Strings and numbers alone: there is nothing that could fail.
    text.unwrap_or_default() + "\n"
}

/// Prints what came in each interval, until the mount goes away or nobody reads any more.
fn watch(json: bool, daemon: Daemon, mut before: Figures, pause: Duration) {
    let clear = if std::io::stdout().is_terminal() {
        "\x1b[H\x1b[J"
    } else {
        ""
    };
    let mut text = if json {
        document(&before, false)
    } else {
        format!("{clear}{}", table::of(&before))
    };
    while print(&text) {
        std::thread::sleep(pause);
        let Ok(now) = daemon.figures() else { return };
        if now.present.pid != before.present.pid {
            return;
        }
        text = if json {
            document(&now, false)
        } else {
            let gap = if clear.is_empty() { "\n" } else { clear };
            format!("{gap}{}", table::since(&now, &before))
        };
        before = now;
    }
}
