//! The verbs, one file each, and the form that mount(8) and container engines use.

pub mod args;
pub mod bench;
pub mod changes;
pub mod check;
pub mod helper;
pub mod logging;
pub mod manual;
pub mod mount;
pub mod observing;
pub mod preflight;
pub mod run;
pub mod settle;
pub mod umount;

use crate::config::options::nearest;
use crate::error::MountError;
use args::{Cli, Verb};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// Runs the command line `args`, the program's own name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    logging::report_panics();
    if let Some(meant) = misspelt_verb(&args) {
        say(&meant);
        return ExitCode::FAILURE;
    }
    if is_helper_form(&args) {
        return finish(helper::run(args.get(1..).unwrap_or_default()));
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(e) if args.get(1).is_some_and(|verb| verb == "check") => {
            return refuse_usage(&e, ExitCode::from(check::NOT_TOLD));
        }
        Err(e) => return refuse_usage(&e, ExitCode::FAILURE),
    };
    finish(match cli.verb {
        Verb::Mount(args) => mount::run(args),
        Verb::Umount(args) => umount::run(&args),
        Verb::Run(args) => run::run(args),
        Verb::Stat(args) => observing::stat::run(&args),
        Verb::Events(args) => observing::events::run(&args),
        Verb::Check(args) => return check::run(args),
        Verb::Settle(args) => settle::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Man(args) => manual::man(&args).map(|()| ExitCode::SUCCESS),
        Verb::Completions(args) => manual::completions(&args).map(|()| ExitCode::SUCCESS),
    })
}

/// What to say to `plyfs monut …`. In the helper form there is always a list of options.
fn misspelt_verb(args: &[OsString]) -> Option<String> {
    let has_list = args.iter().any(|arg| arg.as_bytes().starts_with(b"-o"));
    if has_list || !is_helper_form(args) || has_others_name(args) {
        return None;
    }
    let first = args.get(1)?.to_string_lossy();
    let verbs = [
        "mount", "umount", "run", "stat", "events", "check", "settle", "bench",
    ];
    let near = nearest(&first, verbs)?;
    Some(format!("verb {first}: no such verb; did you mean {near}?"))
}

/// Whether the program was called by the name of the one whose place it takes, which has no
/// verbs: a mount point may be called as one is.
fn has_others_name(args: &[OsString]) -> bool {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| name.to_string_lossy().contains("fuse-overlayfs"))
}

/// Whether no verb stands first: then these are the words of mount(8) or of an engine.
fn is_helper_form(args: &[OsString]) -> bool {
    if has_others_name(args) {
        return true;
    }
    let Some(first) = args.get(1).map(|arg| arg.to_string_lossy()) else {
        return false;
    };
    let asks = ["-h", "--help", "--version", "-V", "help"].contains(&first.as_ref());
    let verb = Cli::command()
        .get_subcommands()
        .any(|verb| verb.get_name() == first);
    !asks && !verb
}

/// Writes one line to stderr; where that is closed, there is nobody to tell.
pub fn say(line: &str) {
    let line = format!("plyfs: {line}\n");
    crate::error::best_effort(
        "write to stderr",
        std::io::stderr().write_all(line.as_bytes()),
    );
}

fn finish(result: Result<ExitCode, MountError>) -> ExitCode {
    result.unwrap_or_else(|refusal| {
        say(&refusal.to_string());
        ExitCode::FAILURE
    })
}

/// Help and version go to stdout; a wrong call is one line on stderr.
fn refuse_usage(error: &clap::Error, status: ExitCode) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        crate::error::best_effort("write the help", error.print());
        return if error.use_stderr() {
            status
        } else {
            ExitCode::SUCCESS
        };
    }
    say(&usage_line(error));
    status
}

fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let message = text
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    // A message in several lines lists what is missing, one a line.
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand]
        .iter()
        .find_map(|kind| match error.get(*kind) {
            Some(ContextValue::String(one)) => Some(one.clone()),
            Some(ContextValue::Strings(all)) => all.first().cloned(),
            _ => None,
        });
    match meant {
        Some(meant) => format!("{message}; did you mean {meant}?"),
        None => format!("{message}; see plyfs --help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_verb_first_is_ours_and_anything_else_is_the_helper_form() {
        for line in [
            "plyfs mount /m",
            "plyfs run true",
            "plyfs --help",
            "plyfs -V",
            "plyfs",
        ] {
            assert!(!is_helper_form(&args(line)), "{line}");
        }
        for line in [
            "plyfs -o lowerdir=/a /m",
            "plyfs src /m",
            "plyfs /m -f",
            "plyfs -oro",
            "/usr/bin/fuse-overlayfs",
            "fuse-overlayfs run -o lowerdir=/a",
            "mount.fuse-overlayfs --version",
        ] {
            assert!(is_helper_form(&args(line)), "{line}");
        }
    }

    #[test]
    fn a_wrong_call_is_told_in_one_line() {
        for (line, expected) in [
            (
                "plyfs mount --lowr /a /m",
                "unexpected argument '--lowr' found; did you mean --lower?",
            ),
            (
                "plyfs umount",
                "the following required arguments were not provided: <MNT>; see plyfs --help",
            ),
        ] {
            let error = Cli::try_parse_from(args(line)).expect_err(line);
            assert_eq!(usage_line(&error), expected, "{line}");
        }
    }
}
