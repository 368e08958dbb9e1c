//! `plyfs stat` and `plyfs events`: what they tell, to whom, and when it ends.

mod events;
mod figures;
mod socket;

use crate::support::mount::run;
use crate::support::skip;
use crate::tools::{LIMIT, Stage, stdout, told};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const MOUNT: [&str; 9] = [
    "mount", "--lower", "low", "--lower", "low2", "--upper", "up", "--work", "work",
];

/// A stage whose control sockets are in a runtime directory of its own, `run`.
struct Observed(Stage);

impl Observed {
    fn new() -> Option<Observed> {
        if !skip::can_mount() {
            return None;
        }
        let stage = Stage::new();
        stage.scratch.dir("run");
        stage.chmod("run", 0o700);
        Some(Observed(stage))
    }

    /// The same, with the union mounted at `mnt`.
    fn mounted(words: &[&str]) -> Option<Observed> {
        let observed = Observed::new()?;
        observed.mount(words);
        Some(observed)
    }

    fn mount(&self, words: &[&str]) {
        let out = self.call(&[&MOUNT[..], words, &["mnt"]].concat());
        assert!(out.status.success(), "{}", told(&out));
        assert_eq!(out.stdout.len() + out.stderr.len(), 0, "{}", told(&out));
    }

    fn unmount(&self) {
        let out = self.call(&["umount", "mnt"]);
        assert!(out.status.success(), "{}", told(&out));
    }

    fn plyfs<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.0.plyfs(args);
        command.env("XDG_RUNTIME_DIR", self.path("run"));
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        run(&mut self.plyfs(args), LIMIT).expect("plyfs ends in time")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn stat(&self) -> Value {
        let out = self.call(&["stat", "--json", "mnt"]);
        assert!(out.status.success(), "{}", told(&out));
        serde_json::from_slice(&out.stdout).expect("a JSON document")
    }

    /// The events that the daemon still knows.
    fn events(&self) -> Vec<Value> {
        let out = self.call(&["events", "--no-follow", "mnt"]);
        assert!(out.status.success(), "{}", told(&out));
        lines(&stdout(&out))
    }

    /// `plyfs events`, which follows.
    fn follow(&self) -> Child {
        self.plyfs(&["events", "mnt"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("plyfs starts")
    }

    /// The names of the control sockets.
    fn sockets(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("run/plyfs")) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("UTF-8"))
            .collect()
    }

    fn mode(&self, name: &str) -> u32 {
        let found = std::fs::symlink_metadata(self.path(name)).expect("it is there");
        found.permissions().mode() & 0o7777
    }

    fn shell(&self, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", script]);
        self.0.tidy(&mut command);
        let out = run(&mut command, LIMIT).expect("it ends in time");
        assert!(out.status.success(), "{script}: {}", told(&out));
        stdout(&out)
    }
}

/// Lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect("each line is JSON");
    text.lines().map(parse).collect()
}

/// The events as short texts: what, and to which path.
fn shorts(events: &[Value]) -> Vec<String> {
    let word = |event: &Value, field: &str| event[field].as_str().unwrap_or("-").to_owned();
    events
        .iter()
        .map(|event| {
            let what = match event["part"].as_str() {
                Some(part) => format!("{part} {}", word(event, "type")),
                None => word(event, "event"),
            };
            format!("{what} {} by {}", word(event, "path"), word(event, "cause"))
        })
        .collect()
}
