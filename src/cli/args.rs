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
    /// Show what a mounted union does: requests, caches, copy-ups, memory.
    ///
    /// Times are those between the arrival of a request and its answer; quantiles are right to
    /// 6.25 %. Answered are the user who mounted the union, and root.
    Stat(StatArgs),
    /// Print what a mounted union copies up and marks: a line of JSON for each.
    ///
    /// Each line tells the path, what was done to it, by which process, how many bytes that
    /// copied and how long it took. Prints what the daemon still knows, then what comes, until
    /// the union is unmounted.
    Events(EventsArgs),
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
    /// Measure this plyfs beside the kernel's overlayfs, fuse-overlayfs and a bare directory.
    ///
    /// All of them show the same layers, made for the purpose in a directory of their own
    /// that is removed at the end, and do the same work in turn, round after round. The table
    /// has medians, and their ratio to the reference, with that of the best and the worst
    /// round.
    Bench(BenchArgs),
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
    /// Write figures for Prometheus to this file, every 15 seconds and at the end
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub metrics: Option<PathBuf>,
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

/// What `plyfs stat` takes.
#[derive(Args, Clone, Debug)]
pub struct StatArgs {
    /// Print one JSON document instead of tables
    #[arg(long)]
    pub json: bool,
    /// Print the figures as Prometheus reads them
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    pub prometheus: bool,
    /// Print what came in each interval, until the union is unmounted; with --json the sums
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "1")]
    pub watch: Option<OsString>,
    /// Where the union is mounted, or anything in it
    #[arg(value_name = "MNT", required_unless_present = "watch", value_hint = ValueHint::AnyPath)]
    pub mount_point: Option<PathBuf>,
}

/// What `plyfs events` takes.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// End after what the daemon still knows
    #[arg(long)]
    pub no_follow: bool,
    /// Print those after the one with this number
    #[arg(long, value_name = "NUMBER")]
    pub since: Option<u64>,
    /// Print those to come, none of the past
    #[arg(long, conflicts_with_all = ["since", "no_follow"])]
    pub new: bool,
    /// Where the union is mounted, or anything in it
    #[arg(value_name = "MNT", value_hint = ValueHint::AnyPath)]
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

/// What `plyfs bench` takes.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Where to measure: a directory with a few GiB of room
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Only these workloads, separated by commas; `walk` is walk-warm and walk-cold
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// All but these
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub skip: Vec<String>,
    /// Show which workloads there are
    #[arg(long)]
    pub list: bool,
    /// A small fraction of the work, to see that it works
    #[arg(long)]
    pub quick: bool,
    /// The sizes, as a multiple of the usual ones
    #[arg(long, value_name = "FACTOR")]
    pub scale: Option<f64>,
    /// How often each is measured
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// How many lower layers
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub layers: usize,
    /// What to measure, `[LABEL=]KIND[@PROGRAM][:OPTIONS]`; may be repeated
    ///
    /// KIND is plyfs, overlay, fuse-overlayfs or bare, OPTIONS are words as for -o. For instance
    /// `--subject old=plyfs@/usr/bin/plyfs --subject new=plyfs --subject plyfs:metacopy=off`.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Vec<String>,
    /// A root filesystem of Debian's kind, to install a package in
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub rootfs: Option<PathBuf>,
    /// Leave out subjects that cannot be mounted here, instead of refusing to start
    #[arg(long)]
    pub lenient: bool,
    /// The label of the subject that the others are compared with; overlayfs
    #[arg(long, value_name = "LABEL")]
    pub reference: Option<String>,
    /// Measure as root of the machine, or of a user namespace; the former if you are root
    #[arg(long, value_name = "WHOSE", value_parser = ["root", "userns"])]
    pub setting: Option<String>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
    /// Write one self-contained page with plots to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub html: Option<PathBuf>,
    /// Measure nothing: show the report that --json has written
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from: Option<PathBuf>,
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
