//! run
use super::args::RunArgs;
use crate::error::MountError;
use std::process::ExitCode;
/// run
pub fn run(_: RunArgs) -> Result<ExitCode, MountError> {
    Ok(ExitCode::SUCCESS)
}
