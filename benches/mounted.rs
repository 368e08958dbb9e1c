//! How do mounts compare? The harness of `plyfs bench`, with every subject that is here,
//! as root of a user namespace and, where we are root, as root of the machine.
//!
//! `cargo bench --bench mounted -- [FLAGS of plyfs bench]`, for instance `--quick`. It
//! measures in the directory that PLYFS_BENCH_DIR names, else in the one for temporary files,
//! and leaves its figures in the target directory: bench-SETTING.json and .html.
//!
//! `fuse-overlayfs` is the one in PATH; FUSE_OVERLAYFS names others, separated by colons.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

/// The subjects besides plyfs itself, in the settings where they are different.
fn subjects(setting: &str, plyfs: &str) -> Vec<String> {
    let mut subjects = vec!["overlay".into(), format!("plyfs=plyfs@{plyfs}")];
    if setting == "root" {
        subjects.push("overlay:redirect_dir=on,metacopy=on,index=on".into());
        for io in ["cached", "passthrough"] {
            subjects.push(format!("plyfs {io}=plyfs@{plyfs}:io={io}"));
        }
    }
    let others = std::env::var("FUSE_OVERLAYFS").unwrap_or_default();
    if others.is_empty() {
        subjects.push("fuse-overlayfs".into());
    }
    for program in others.split(':').filter(|program| !program.is_empty()) {
        subjects.push(format!("fuse-overlayfs@{program}"));
    }
    subjects.push("bare".into());
    subjects
}

fn main() -> ExitCode {
    // Everything else that cargo runs bench targets for is a test.
    if !std::env::args().any(|arg| arg == "--bench") {
        println!("skipped: cargo bench measures, cargo test does not");
        return ExitCode::SUCCESS;
    }
    let plyfs = std::env::var("PLYFS_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_plyfs").into());
    let flags: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let mut all_well = true;
    for setting in ["userns", "root"] {
        println!("{setting}:");
        match measure(setting, &plyfs, &flags) {
            // Who is not root cannot measure as root.
            Ok(status) => all_well &= status.success() || setting == "root",
            Err(e) => {
                eprintln!("{plyfs}: {e}");
                all_well = false;
            }
        }
    }
    ExitCode::from(u8::from(!all_well))
}

fn measure(setting: &str, plyfs: &str, flags: &[String]) -> std::io::Result<ExitStatus> {
    let dir = std::env::var_os("PLYFS_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut command = Command::new(plyfs);
    command.arg("bench").arg(&dir);
    command.args(["--setting", setting, "--lenient"]);
    for subject in subjects(setting, plyfs) {
        command.args(["--subject", &subject]);
    }
    for ending in ["json", "html"] {
        let file = target.join(format!("bench-{setting}.{ending}"));
        command.arg(format!("--{ending}")).arg(file);
    }
    command.args(flags).status()
}
