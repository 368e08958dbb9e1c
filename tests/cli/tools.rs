//! What these tests share: the program called in many ways, and conditions awaited.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::mount::{plyfs_binary, run};
pub use crate::support::patience::await_that;
use crate::support::temp::Scratch;
use crate::support::{skip, sys};

/// Longer than any call here may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// An ordinary user whom every system has (fusermount3 asks for the name), and who owns nothing.
pub const USER: u32 = 1;

/// A directory with the usual parts of a union in it, and the program where all may run it.
pub struct Stage {
    pub scratch: Scratch,
}

impl Stage {
    /// `low`, `low2`, `up`, `work` and `mnt`, with a file or two in the lowers.
    pub fn new() -> Stage {
        enter_own_mounts();
        let stage = Stage {
            scratch: Scratch::new(),
        };
        for dir in ["low/in", "low2", "up/in", "work/in", "mnt", "home"] {
            stage.scratch.dir(dir);
        }
        stage.write("low/one", "1");
        stage.write("low2/two", "2");
        stage.write("file", "");
        // Not copied by us: a child of another test would inherit the file open for writing,
        // and a program that is open for writing cannot be run.
        let copied = Command::new("cp")
            .arg(plyfs_binary())
            .arg(stage.path("plyfs"))
            .output()
            .expect("cp starts");
        assert!(copied.status.success(), "{}", told(&copied));
        stage.chmod("", 0o755);
        stage.chmod("plyfs", 0o755);
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file can be written");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| format!("({e})"))
    }

    pub fn chmod(&self, name: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), permissions).expect("chmod");
    }

    /// Gives a file to the ordinary user, who has it already where we are not root.
    pub fn give(&self, name: &str) {
        if sys::is_root() {
            let id = Some(USER);
            std::os::unix::fs::chown(self.path(name), id, id).expect("chown");
        }
    }

    /// The program, called in the stage's directory.
    pub fn plyfs<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(self.path("plyfs"));
        command.args(args);
        self.tidy(&mut command);
        command
    }

    /// The program, called by an ordinary user: ourselves, if we are one.
    pub fn plyfs_as_user<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = as_user(self.path("plyfs"));
        command.args(args);
        self.tidy(&mut command);
        command
    }

    /// `script` in a mount namespace of its own, `$P` being the program.
    pub fn in_own_mounts(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-ec", script]);
        command.env("P", self.path("plyfs"));
        self.tidy(&mut command);
        command
    }

    /// Makes `command` start in the stage's directory.
    pub fn tidy(&self, command: &mut Command) {
        command
            .current_dir(self.scratch.path())
            .env("HOME", self.path("home"))
            .env_remove("XDG_STATE_HOME")
            .env_remove("PLYFS_LOG");
    }

    /// A call that must succeed without a word.
    pub fn quietly(&self, args: &[&str]) {
        let out = self.call(args);
        assert!(out.status.success(), "{args:?}: {}", told(&out));
        assert_eq!(
            (out.stdout.len(), out.stderr.len()),
            (0, 0),
            "{}",
            told(&out)
        );
    }

    pub fn call(&self, args: &[&str]) -> Output {
        run(&mut self.plyfs(args), LIMIT).expect("plyfs ends in time")
    }

    /// The place of `name`, if something is mounted there: (device minor, type).
    pub fn mounted(&self, name: &str) -> Option<(u64, String)> {
        let wanted = self.path(name);
        let all = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is mounted");
        all.lines().rev().find_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let at = fields.get(4).map(Path::new)?;
            let minor = fields.get(2)?.split(':').nth(1)?.parse().ok()?;
            let dash = fields.iter().position(|field| *field == "-")?;
            (at == wanted).then(|| (minor, fields[dash + 1].to_owned()))
        })
    }

    /// The daemon of the union at `name`.
    pub fn daemon(&self, name: &str) -> u32 {
        let what = "the union is mounted, and its daemon has a thread named after it";
        await_that(what, || self.find_daemon(name).is_some());
        self.find_daemon(name).expect(what)
    }

    /// The daemon of the union at `name`, once it is ready for signals, and that of another
    /// test's which had the same number knows that it is over.
    pub fn find_daemon(&self, name: &str) -> Option<u32> {
        let (minor, _) = self.mounted(name)?;
        let thread = format!("plyfs:{minor}");
        let numbers = |dir: String| -> Vec<u32> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect()
        };
        let mut named = numbers("/proc".into()).into_iter().filter(|pid| {
            numbers(format!("/proc/{pid}/task")).iter().any(|task| {
                std::fs::read_to_string(format!("/proc/{pid}/task/{task}/comm"))
                    .is_ok_and(|comm| comm.trim_end() == thread)
            })
        });
        let first = named.next();
        first.filter(|_| named.next().is_none())
    }
}

/// Puts this thread, and what it starts, into a mount namespace of its own, if it may: else
/// whoever makes one meanwhile has a copy of our mounts in it, and keeps their daemons alive.
fn enter_own_mounts() {
    thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
    if ENTERED.replace(true) || !sys::is_root() {
        return;
    }
    // SAFETY: no memory is involved, and a thread may leave the others' mount namespace.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    if left {
        sys::mount("none", b"/", "", private, b"").expect("mounts of our own can be made private");
    }
}

/// What a command prints that must succeed without a word on stderr.
pub fn said_by(command: &mut Command) -> String {
    let out = run(command, LIMIT).expect("it ends in time");
    let well = out.status.success() && stderr(&out).is_empty();
    assert!(well, "{command:?}: {}", told(&out));
    stdout(&out)
}

/// What a call printed.
pub fn told(out: &Output) -> String {
    format!(
        "{}: stdout {:?}, stderr {:?}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

pub fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Whether process `pid` has ended with all its threads (though nobody may have asked for its
/// status yet).
pub fn has_ended(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit(") ").next();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads <= 1 && state.is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

pub fn send(pid: u32, signal: i32) {
    sys::kill(pid, signal).expect("the process is there");
}

/// `program`, called by an ordinary user.
pub fn as_user(program: impl AsRef<OsStr>) -> Command {
    if !sys::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = USER.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    command.arg(program);
    command
}

/// True where root can play an ordinary user who has FUSE; else prints the reason.
pub fn can_play_user() -> bool {
    skip::can_mount() && skip::has_tool("setpriv") && fuse_is_for_everyone()
}

fn fuse_is_for_everyone() -> bool {
    let mode = std::fs::metadata("/dev/fuse").map(|found| found.permissions().mode());
    let open = mode.is_ok_and(|mode| mode & 0o006 == 0o006);
    if !open {
        skip::skipped("/dev/fuse is not for everyone here");
    }
    open
}

/// True where an ordinary user may make user namespaces; else prints the reason.
pub fn can_run_as_user() -> bool {
    let is_user = !sys::is_root() || skip::has_tool("setpriv");
    if !is_user || !skip::has_tool("unshare") || !fuse_is_for_everyone() {
        return false;
    }
    let out = as_user("unshare").args(["-Urm", "true"]).output();
    let may = out.is_ok_and(|out| out.status.success());
    if !may {
        skip::skipped("user namespaces are not for everyone here");
    }
    may
}
