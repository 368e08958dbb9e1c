//! The grammar of the command line, from which help, man pages and completions come.

use clap::{Args, Parser, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// A union filesystem in userspace.
///
/// Shows a stack of read-only layer directories and one writable upper directory as one
/// tree. As a mount helper it is called so, too: plyfs SOURCE MNT -o WORDS
#[derive(Debug, Parser)]
#[command(name = "plyfs", version, max_term_width = 90)]
#[command(after_help = "PLYFS_LOG sets what is logged: error, warn, info, debug or trace.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Mount a union.
    Mount(MountArgs),
    /// Unmount a union, and wait until its daemon has let go of the layers.
    Umount(UmountArgs),
    /// Run a command inside a union, as root of a namespace of its own; needs no privilege.
    ///
    /// At the end each change is a line: `A` for what is new, `M` for what was changed or
    /// replaced, `D` for what is gone, a directory with all that was in it. What the user may
    /// not read outside cannot be read inside either, nor changed.
    Run(RunArgs),
    /// Check whether an upper and its work directory are sound.
    ///
    /// Each thing that is wrong is a line on stdout: the path, what it is, what it means, and
    /// what to do. The upper must not be mounted. Exits with 0 if all is sound (or was mended),
    /// with 1 if something is wrong, and with 2 if that could not be found out.
    Check(CheckArgs),
    /// Turn an upper into plain overlayfs format, for mounts by the kernel with any options.
    ///
    /// Renamed directories become copies, hard links that were copied up become hard links of
    /// the upper, and marks of all formats become overlayfs's own, so that the kernel shows what
    /// plyfs showed, without `redirect_dir`, `metacopy` or `index`. The upper must not be
    /// mounted. It may be interrupted at any point, and run again.
    Settle(SettleArgs),
    /// Write the man pages.
    #[command(hide = true)]
    Man(ManArgs),
    /// Write the completions of a shell to stdout.
    #[command(hide = true)]
    Completions(CompletionsArgs),
}

/// How layers are named.
#[derive(Args, Clone, Debug, Default)]
pub struct LayerArgs {
    /// A lower layer; may be repeated, topmost first
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub lower: Vec<PathBuf>,
    /// The upper layer, which takes all changes; a union without one is read-only
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub upper: Option<PathBuf>,
    /// The upper's scratch directory, on the same filesystem
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub work: Option<PathBuf>,
    /// A TOML file with layers, upper, work and options
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Options as for mount(8), separated by commas
    #[arg(short = 'o', long = "options", value_name = "WORDS")]
    pub options: Vec<OsString>,
}

/// What `plyfs mount` takes.
#[derive(Args, Clone, Debug, Default)]
pub struct MountArgs {
    /// The layers, and how they are mounted
    #[command(flatten)]
    pub layers: LayerArgs,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// What is on the disk when: auto, strict or volatile; as -o durability=HOW
    #[arg(long, value_name = "HOW")]
    pub durability: Option<OsString>,
    /// Write the log to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    /// Where the union appears
    #[arg(value_name = "MNT", value_hint = ValueHint::DirPath)]
    pub mount_point: PathBuf,
}

/// What `plyfs check` takes.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The layers, as they are mounted
    #[command(flatten)]
    pub layers: LayerArgs,
    /// Mend what can be mended without a doubt
    #[arg(long)]
    pub repair: bool,
    /// Print one JSON document instead of lines
    #[arg(long)]
    pub json: bool,
}

/// What `plyfs settle` takes.
#[derive(Args, Clone, Debug)]
pub struct SettleArgs {
    /// The layers, as they are mounted
    #[command(flatten)]
    pub layers: LayerArgs,
    /// Put the marks into user.overlay xattrs, for mounts with -o userxattr in a user namespace
    #[arg(long, conflicts_with = "trusted")]
    pub userxattr: bool,
    /// Put the marks into trusted.overlay xattrs, for mounts by root
    #[arg(long)]
    pub trusted: bool,
    /// Say nothing on success
    #[arg(short, long)]
    pub quiet: bool,
}

/// What `plyfs umount` takes.
#[derive(Args, Clone, Debug)]
pub struct UmountArgs {
    /// Detach at once and let those who still use it finish
    #[arg(short, long)]
    pub lazy: bool,
    /// Where the union is mounted
    #[arg(value_name = "MNT", value_hint = ValueHint::DirPath)]
    pub mount_point: PathBuf,
}

/// What `plyfs run` takes.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// A lower layer; may be repeated, topmost first; the host's root if none is given
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub lower: Vec<PathBuf>,
    /// Go on with this upper, for instance one that an earlier run kept
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["keep", "discard"])]
    pub upper: Option<PathBuf>,
    /// Keep the changes in this new or empty directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub keep: Option<PathBuf>,
    /// Throw the changes away at the end
    #[arg(long, conflicts_with = "keep")]
    pub discard: bool,
    /// Options of the union, as for plyfs mount
    #[arg(short = 'o', long = "options", value_name = "WORDS")]
    pub options: Vec<OsString>,
    /// Write the log to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, allow_hyphen_values = true, value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// What `plyfs man` takes.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Write all pages into this directory; without it the main page goes to stdout
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// What `plyfs completions` takes.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
