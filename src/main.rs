//! Parse, run, exit code.

fn main() -> std::process::ExitCode {
    plyfs::cli::main(std::env::args_os().collect())
}
