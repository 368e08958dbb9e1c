//! `plyfs run`, as root and as an ordinary user, over the machine's own root directory.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::child::Ending;
use crate::support::mount::run as run_limited;
use crate::support::{skip, sys};
use crate::tools::{
    LIMIT, Stage, as_user, await_that, can_play_user, can_run_as_user, has_ended, send, stderr,
    stdout, told,
};

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Root,
    User,
}

impl Who {
    fn command(self, stage: &Stage, args: &[&str]) -> Command {
        match self {
            Who::Root => stage.plyfs(args),
            Who::User => stage.plyfs_as_user(args),
        }
    }

    /// Another program, called in the stage's directory.
    fn program(self, stage: &Stage, program: &str) -> Command {
        let mut command = match self {
            Who::Root => Command::new(program),
            Who::User => as_user(program),
        };
        stage.tidy(&mut command);
        command
    }

    /// What a shell of root's puts before a command of theirs.
    fn prefix(self) -> &'static str {
        match self {
            Who::Root => "",
            Who::User => "setpriv --reuid 1 --regid 1 --clear-groups",
        }
    }

    /// `plyfs run ARGS -- sh -c SCRIPT`, to its end.
    pub fn runs(self, stage: &Stage, args: &[&str], script: &str) -> Output {
        let args = [&["run"], args, &["--", "sh", "-c", script]].concat();
        run_limited(&mut self.command(stage, &args), LIMIT).expect("it ends in time")
    }
}

/// Everyone who can run it here, each with a stage of their own.
pub fn everyone() -> Vec<(Who, Stage)> {
    let mut all = Vec::new();
    if sys::is_root() && skip::can_mount() {
        all.push((Who::Root, Stage::new()));
    }
    if can_run_as_user() {
        let stage = Stage::new();
        for name in ["home", "low", "low/one", "low/in", "up", "mnt"] {
            stage.give(name);
        }
        all.push((Who::User, stage));
    }
    all
}

/// The lines about changes, with `$D` for the stage's directory.
pub fn changes(stage: &Stage, out: &Output) -> Vec<String> {
    let dir = stage.scratch.path().display().to_string();
    stdout(out)
        .lines()
        .filter(|line| line.starts_with(['A', 'M', 'D']) && line[1..].starts_with(" /"))
        .map(|line| line.replace(&dir, "$D"))
        .collect()
}

/// Where the upper is kept.
pub fn kept(out: &Output) -> Option<String> {
    let said = stdout(out);
    let place = said
        .lines()
        .find_map(|line| line.strip_prefix("upper kept in "));
    place.map(str::to_owned)
}

fn is_empty_or_missing(path: &Path) -> bool {
    std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn what_the_command_does_stays_inside_and_is_listed() {
    for (who, stage) in everyone() {
        stage.write("low/in/x", "x");
        let script = "rm low/one; echo more >> low/in/x; mkdir low/new; echo n > low/new/file
            cat low/in/x low/new/file; exit 3";
        let out = who.runs(&stage, &["--lower", "/"], script);
        assert_eq!(out.status.code(), Some(3), "{who:?}: {}", told(&out));
        assert!(
            stdout(&out).starts_with("xmore\nn\n"),
            "{who:?}: {}",
            told(&out)
        );
        assert_eq!(
            changes(&stage, &out),
            [
                "M $D/low/in/x",
                "A $D/low/new",
                "A $D/low/new/file",
                "D $D/low/one"
            ],
            "{who:?}: {}",
            told(&out)
        );
        assert_eq!(stderr(&out), "", "{who:?}");
        assert_eq!(
            stage.read("low/one") + &stage.read("low/in/x"),
            "1x",
            "{who:?}"
        );
        assert!(!stage.path("low/new").exists(), "{who:?}");
        let upper = kept(&out).expect("it says where the upper is");
        let file = format!("{upper}{}/new/file", stage.path("low").display());
        assert_eq!(
            std::fs::read_to_string(file).expect("kept"),
            "n\n",
            "{who:?}"
        );
        assert!(upper.starts_with(&*stage.path("home/.local/state").to_string_lossy()));
    }
}

#[test]
fn the_exit_status_is_the_commands() {
    for (who, stage) in everyone() {
        for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)] {
            let out = who.runs(&stage, &["--discard"], script);
            assert_eq!(out.status.code(), Some(code), "{who:?}: {}", told(&out));
            assert!(
                out.stdout.is_empty() && out.stderr.is_empty(),
                "{}",
                told(&out)
            );
        }
        for (program, code) in [("no-such-program", 127), ("./file", 126)] {
            let args = ["run", "--", program];
            let mut command = who.command(&stage, &args);
            let out = run_limited(&mut command, LIMIT).expect("it ends in time");
            assert_eq!(out.status.code(), Some(code), "{who:?}: {}", told(&out));
            assert_eq!(stderr(&out).lines().count(), 1, "{who:?}: {}", told(&out));
        }
        assert!(
            is_empty_or_missing(&stage.path("home/.local/state/plyfs")),
            "{who:?}"
        );
    }
}

#[test]
fn the_command_is_root_with_the_devices_and_processes_of_its_own() {
    for (who, stage) in everyone() {
        let script = "set -e; id -u; pwd; test -r /proc/self/status; test -d /sys/kernel
            echo x > /dev/null; head -c 1 /dev/zero > /dev/shm/z; test -e /dev/pts/ptmx
            test \"$(cat /proc/1/comm)\" = plyfs; test -L /dev/stdout
            echo x > /tmp/plyfs-test-inside; test ! -e /dev/mem";
        let out = who.runs(&stage, &["--discard"], script);
        assert_eq!(out.status.code(), Some(0), "{who:?}: {}", told(&out));
        let here = stage.scratch.path().display();
        assert!(
            stdout(&out).starts_with(&format!("0\n{here}\n")),
            "{}",
            told(&out)
        );
        assert_eq!(
            changes(&stage, &out),
            ["A /tmp/plyfs-test-inside"],
            "{who:?}"
        );
        assert!(!Path::new("/tmp/plyfs-test-inside").exists(), "{who:?}");
        assert!(!Path::new("/dev/shm/z").exists(), "{who:?}");
    }
}

#[test]
fn programs_find_their_terminal_and_can_make_new_ones() {
    if !skip::has_tool("script") {
        return;
    }
    for (who, stage) in everyone() {
        // `script` gives the command a new terminal: once outside, and once inside of it.
        let inner = "script -qec tty /dev/null; tty";
        let call = format!("./plyfs run --discard -- sh -c '{inner}'");
        let mut command = who.program(&stage, "script");
        command.args(["-qec", &call, "/dev/null"]);
        let out = run_limited(command.stdin(Stdio::null()), LIMIT).expect("it ends in time");
        // The outer one echoes the end of its input somewhere in between.
        let said = stdout(&out).replace("^@", "").replace("^D\u{8}\u{8}", "");
        assert_eq!(
            said,
            "/dev/pts/0\r\n/dev/console\r\n",
            "{who:?}: {}",
            told(&out)
        );
    }
}

#[test]
fn the_kernels_own_files_cannot_be_changed() {
    for (who, stage) in everyone() {
        let script = "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm/ksm/run
            do (echo 0 > $f) 2> /dev/null && echo \"written: $f\"; done; rm -rf /sys/module
            rm -f /dev/null; test -d /sys/module";
        let out = who.runs(&stage, &["--discard"], script);
        assert_eq!(out.status.code(), Some(0), "{who:?}: {}", told(&out));
        assert!(!stdout(&out).contains("written"), "{who:?}: {}", told(&out));
        assert!(Path::new("/dev/null").exists());
    }
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    for (who, stage) in everyone() {
        let script = "sleep 1000 & echo $!; setsid sleep 1000 & exit 5";
        let out = who.runs(&stage, &["--discard"], script);
        assert_eq!(out.status.code(), Some(5), "{who:?}: {}", told(&out));
        // Had one of them lived on, it would have kept stdout open, and this not ended.
        assert_eq!(stdout(&out).lines().count(), 1, "{who:?}: {}", told(&out));
    }
}

#[test]
fn the_changes_are_kept_where_asked_and_can_be_gone_on_with() {
    for (who, stage) in everyone() {
        let out = who.runs(
            &stage,
            &["--keep", "home/keep"],
            "echo a > low/a; rm low/one",
        );
        assert_eq!(
            changes(&stage, &out),
            ["A $D/low/a", "D $D/low/one"],
            "{}",
            told(&out)
        );
        let upper = stage.path("home/keep/upper").display().to_string();
        assert_eq!(kept(&out), Some(upper), "{who:?}");
        let script = "cat low/a; ls low; echo b > low/b";
        for args in [["--keep", "home/keep"], ["--upper", "home/keep/upper"]] {
            let out = who.runs(&stage, &args, script);
            assert!(
                stdout(&out).starts_with("a\na\n"),
                "{who:?}: {}",
                told(&out)
            );
            assert_eq!(
                changes(&stage, &out),
                ["A $D/low/a", "A $D/low/b", "D $D/low/one"],
                "{who:?}: {}",
                told(&out)
            );
        }
        assert!(!stage.path("home/keep/work").exists(), "{who:?}");
    }
}

#[test]
fn an_upper_of_the_users_own_gets_nothing_but_changes() {
    for (who, stage) in everyone() {
        stage.scratch.dir("home/changes");
        if who == Who::User {
            stage.give("home/changes");
        }
        let out = who.runs(
            &stage,
            &["--upper", "home/changes"],
            "echo a > low/a; ls home/changes",
        );
        assert_eq!(
            changes(&stage, &out),
            ["A $D/low/a"],
            "{who:?}: {}",
            told(&out)
        );
        let mut left: Vec<_> = std::fs::read_dir(stage.path("home"))
            .expect("home")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["changes"], "{who:?}");
        let out = who.runs(&stage, &["--upper", "home/changes"], "cat low/a");
        assert!(stdout(&out).starts_with("a\n"), "{who:?}: {}", told(&out));
    }
}

#[test]
fn discarded_changes_leave_nothing() {
    for (who, stage) in everyone() {
        let out = who.runs(
            &stage,
            &["--discard"],
            "rm low/one; mkdir -p low/d/e; echo x > low/d/e/f",
        );
        assert_eq!(out.status.code(), Some(0), "{who:?}: {}", told(&out));
        assert_eq!(
            changes(&stage, &out),
            [
                "A $D/low/d",
                "A $D/low/d/e",
                "A $D/low/d/e/f",
                "D $D/low/one"
            ],
            "{who:?}"
        );
        assert_eq!(kept(&out), None, "{who:?}");
        assert!(
            is_empty_or_missing(&stage.path("home/.local/state/plyfs")),
            "{who:?}"
        );
    }
}

#[test]
fn the_upper_does_not_show_in_the_union() {
    for (who, stage) in everyone() {
        let script = "echo x > low/x; find home -name x; find home -name upper; ls -A home/keep";
        let out = who.runs(&stage, &["--keep", "home/keep"], script);
        assert_eq!(
            changes(&stage, &out),
            ["A $D/low/x"],
            "{who:?}: {}",
            told(&out)
        );
        let found: Vec<_> = stdout(&out).lines().map(str::to_owned).collect();
        assert_eq!(
            found.len(),
            2,
            "the change and where it is kept: {}",
            told(&out)
        );
    }
}

#[test]
fn a_run_inside_a_run_works() {
    for (who, stage) in everyone() {
        let script = "./plyfs run --discard -- sh -c 'echo b > low/b; ls low'; ls low";
        let out = who.runs(&stage, &["--discard"], script);
        assert_eq!(out.status.code(), Some(0), "{who:?}: {}", told(&out));
        let lines = stdout(&out);
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines[..3], ["b", "in", "one"], "{who:?}: {}", told(&out));
        assert!(lines[3].starts_with("A /"), "{who:?}: {}", told(&out));
        assert_eq!(lines[4..], ["in", "one"], "{who:?}: {}", told(&out));
    }
}

#[test]
fn signals_reach_the_command() {
    for (who, stage) in everyone() {
        let script = "trap 'echo caught > low/caught; exit 9' TERM; echo ready > low/ready
            touch low/go; while :; do sleep 0.05; done";
        let args = ["run", "--keep", "home/keep", "--", "sh", "-c", script];
        let mut command = who.command(&stage, &args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = Ending::spawn(&mut command).expect("it starts");
        let inside = format!("home/keep/upper{}/go", stage.path("low").display());
        await_that("the command runs", || stage.path(&inside).exists());
        send(child.id(), libc::SIGTERM);
        let out = child.wait_with_output().expect("it ends");
        assert_eq!(out.status.code(), Some(9), "{who:?}: {}", told(&out));
        assert!(
            changes(&stage, &out).contains(&"A $D/low/caught".to_owned()),
            "{who:?}: {}",
            told(&out)
        );
    }
}

#[test]
fn a_killed_server_takes_the_command_with_it() {
    for (who, stage) in everyone() {
        let script = "echo $$ > low/go; exec sleep 1000";
        let args = ["run", "--keep", "home/keep", "--", "sh", "-c", script];
        let mut command = who.command(&stage, &args);
        let mut child = Ending::spawn(command.stdin(Stdio::null())).expect("it starts");
        let inside = format!("home/keep/upper{}/go", stage.path("low").display());
        await_that("the command runs", || stage.path(&inside).exists());
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let first = std::fs::read_to_string(&children).unwrap_or_default();
        let first: u32 = first.trim().parse().expect("one child: the first inside");
        send(child.id(), libc::SIGKILL);
        child.wait().expect("it is dead");
        await_that("the inside ends", || has_ended(first));
    }
}

#[test]
fn lower_layers_of_the_users_own_make_a_root_directory() {
    if std::fs::read_link("/bin").is_err() {
        skip::skipped("needs a system whose programs are all in /usr");
        return;
    }
    for (who, stage) in everyone() {
        if !skip::can_mount() || !skip::has_tool("unshare") {
            return;
        }
        let script = format!(
            "mkdir -p root/usr; mount --bind /usr root/usr
            for d in bin lib lib64; do test ! -L /$d || ln -s usr/$d root/$d; done
            {} \"$P\" run --lower low --lower root --discard -- sh -c '
                ls -d /proc/1 /dev/null /sys/kernel; cat /one; pwd; echo x > /new
                echo x > /usr/new'",
            who.prefix()
        );
        let out = run_limited(&mut stage.in_own_mounts(&script), LIMIT).expect("it ends in time");
        assert_eq!(out.status.code(), Some(0), "{who:?}: {}", told(&out));
        let said = stdout(&out);
        let expected = "/dev/null\n/proc/1\n/sys/kernel\n1/\n";
        assert!(said.starts_with(expected), "{who:?}: {}", told(&out));
        assert_eq!(
            changes(&stage, &out),
            ["A /new", "A /usr/new"],
            "{who:?}: {}",
            told(&out)
        );
        assert!(!Path::new("/usr/new").exists());
    }
}

/// A script in a mount namespace with filesystems mounted below the stage.
fn with_submounts(who: Who, stage: &Stage, script: &str) -> Output {
    let user = who.prefix();
    let setup = "mkdir sub ro; mount -t tmpfs -o mode=1777 none sub; echo s > sub/f
        mkdir -m 777 sub/deep; mount -t tmpfs -o mode=777 none sub/deep; echo d > sub/deep/g
        mount -t tmpfs -o mode=777 none ro; echo r > ro/f; mount -o remount,ro ro
        chmod 666 sub/f sub/deep/g; echo over > over; echo under > under
        chmod 666 over under; mount --bind over under";
    let script = format!(
        "{setup}\n{user} \"$P\" run --log-file home/log --keep home/keep -- sh -c '{script}'
        echo \"after: $(cat sub/f) $(cat sub/deep/g) $(cat over)\""
    );
    run_limited(&mut stage.in_own_mounts(&script), LIMIT).expect("it ends in time")
}

#[test]
fn filesystems_mounted_below_are_unions_of_their_own() {
    for (who, stage) in everyone() {
        if !skip::can_mount() || !skip::has_tool("unshare") {
            return;
        }
        let script = "stat -c %a sub sub/deep; echo x >> sub/f; rm sub/deep/g; echo n > sub/deep/n
            (echo x > ro/f) 2> /dev/null || echo \"ro: $(cat ro/f)\"; cat under; echo u > under";
        let out = with_submounts(who, &stage, script);
        let said = stdout(&out);
        assert!(out.status.success(), "{who:?}: {}", told(&out));
        assert!(
            said.starts_with("1777\n777\nro: r\nover\n"),
            "{who:?}: {}",
            told(&out)
        );
        assert!(
            said.ends_with("after: s d over\n"),
            "{who:?}: {}",
            told(&out)
        );
        assert_eq!(
            changes(&stage, &out),
            [
                "D $D/sub/deep/g",
                "A $D/sub/deep/n",
                "M $D/sub/f",
                "M $D/under"
            ],
            "{who:?}: {}",
            told(&out)
        );
        for place in ["/sub kept in ", "/sub/deep kept in "] {
            assert!(said.contains(place), "{who:?}: {}", told(&out));
        }
        let log = stage.read("home/log");
        assert!(log.contains("/sub: a union of its own"), "{log}");
        assert!(log.contains("/ro: read-only"), "{log}");
        assert_eq!(stderr(&out), "", "{who:?}");
    }
}

#[test]
fn subordinate_ids_are_other_users_inside() {
    if !can_play_user()
        || !can_run_as_user()
        || !skip::has_tool("newuidmap")
        || !skip::has_tool("unshare")
    {
        return;
    }
    let stage = Stage::new();
    stage.give("home");
    stage.write("ids", "1:300000:65536\n");
    stage.write(
        "script",
        "cat /proc/self/uid_map; touch home/f; chown 7:8 home/f; stat -c %u:%g home/f",
    );
    stage.chmod("script", 0o755);
    let script = "for f in subuid subgid; do touch /etc/$f; mount --bind ids /etc/$f; done
        setpriv --reuid 1 --regid 1 --clear-groups \"$P\" run -- sh ./script";
    let out = run_limited(&mut stage.in_own_mounts(script), LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", told(&out));
    let said = stdout(&out);
    let words: Vec<_> = said.split_whitespace().take(7).collect();
    assert_eq!(
        words,
        ["0", "1", "1", "1", "300000", "65536", "7:8"],
        "{}",
        told(&out)
    );
    assert_eq!(changes(&stage, &out), ["A $D/home/f"]);
    let upper = kept(&out).expect("kept");
    let file = format!("{upper}{}/f", stage.path("home").display());
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&file).expect("kept"));
    assert_eq!(owner, 300_006);
    let mode = std::fs::metadata(&upper)
        .expect("the upper")
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o777,
        0o755,
        "the root directory looks like its lower"
    );
}
