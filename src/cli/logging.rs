//! Where the log goes: stderr, or a file; how much of it, PLYFS_LOG says.

use crate::error::MountError;
use crate::error::plain;
use env_logger::{Builder, Target};
use log::LevelFilter;
use std::fs::OpenOptions;
use std::path::Path;

/// The variable that says what is logged, in env_logger's words.
pub const VARIABLE: &str = "PLYFS_LOG";

/// Sets up the log for this process and those that it forks.
///
/// # Errors
/// Where `file` cannot be written.
pub fn start(file: Option<&Path>, debug: bool) -> Result<(), MountError> {
    let mut builder = Builder::new();
    // On stderr success is silent: engines show every line there to their users.
    builder.filter_level(match (file, debug) {
        (_, true) => LevelFilter::Debug,
        (Some(_), false) => LevelFilter::Info,
        (None, false) => LevelFilter::Error,
    });
    builder.parse_env(VARIABLE);
    builder.format_timestamp_millis();
    if let Some(path) = file {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|e| {
                MountError::new(
                    format_args!("log file {}", path.display()),
                    plain(&e),
                    "name a file that can be written",
                )
            })?;
        builder.target(Target::Pipe(Box::new(file)));
    }
    // A second logger can only be set up in tests; the first one stays.
    crate::error::best_effort("set up the log", builder.try_init());
    Ok(())
}

/// Sends panics to the log: a daemon has no stderr, and its users want no stack traces.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        log::error!("a bug in plyfs: {info}");
    }));
}
