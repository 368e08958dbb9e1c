//! A user namespace with 65,536 ids, as an ordinary user's subuids give it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The ids that a namespace gets when the test is run as root; nobody's.
const ROOTS_IDS: u32 = 100_000;
const COUNT: u32 = 65_536;

/// Inside, the sign that the namespace is there; then it waits for its ids.
const WAIT: &str = "echo ready; read go; exec timeout -k 5 560 \"$@\"";

/// Who the namespace's root is outside, and which ids it has.
pub struct Namespace {
    owner: u32,
    as_root: bool,
    /// First id and number of ids of the user's own range.
    uids: (u32, u32),
    gids: (u32, u32),
}

impl Namespace {
    /// Finds the ids; hands `dir` to the namespace's root.
    pub fn prepare(dir: &Path) -> Result<Namespace, String> {
        let owner = super::user_id();
        let namespace = if owner == 0 {
            Namespace {
                owner: ROOTS_IDS,
                as_root: true,
                uids: (ROOTS_IDS, COUNT),
                gids: (ROOTS_IDS, COUNT),
            }
        } else {
            Namespace {
                owner,
                as_root: false,
                uids: range("/etc/subuid", owner)?,
                gids: range("/etc/subgid", owner)?,
            }
        };
        if namespace.as_root {
            std::os::unix::fs::chown(dir, Some(ROOTS_IDS), Some(ROOTS_IDS))
                .map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        namespace
            .try_run(&["true".as_ref()])
            .map_err(|said| format!("user namespaces cannot be used here: {said}"))?;
        Ok(namespace)
    }

    /// Runs `command` as root inside; fails the test if the command fails.
    pub fn run(&self, command: &[&OsStr]) {
        if let Err(said) = self.try_run(command) {
            panic!("{command:?} failed:\n{said}");
        }
    }

    fn try_run(&self, command: &[&OsStr]) -> Result<(), String> {
        let mut child = self.spawn(command).map_err(|e| e.to_string())?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut output = BufReader::new(stdout);
        let mut line = String::new();
        output.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.trim() != "ready" {
            let _ended = child.wait();
            return Err("no namespace was made".into());
        }
        let mapped = self.map_ids(&child);
        if let Some(mut stdin) = child.stdin.take() {
            let word: &[u8] = if mapped.is_ok() { b"go\n" } else { b"" };
            stdin.write_all(word).map_err(|e| e.to_string())?;
        }
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut output, &mut said).map_err(|e| e.to_string())?;
        let status = child.wait().map_err(|e| e.to_string())?;
        mapped?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or(&[]);
        Err(format!("{status}\n{}", tail.join("\n")))
    }

    fn spawn(&self, command: &[&OsStr]) -> std::io::Result<Child> {
        let unshare = [
            "unshare",
            "--user",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ];
        let mut words: Vec<&OsStr> = Vec::new();
        let owner = self.owner.to_string();
        if self.as_root {
            let drop = [
                "setpriv",
                "--reuid",
                &owner,
                "--regid",
                &owner,
                "--clear-groups",
            ];
            words.extend(drop.map(OsStr::new));
        }
        words.extend(unshare.map(OsStr::new));
        // Both streams into one, so that the end of it tells the story.
        let wait = format!("exec 2>&1; {WAIT}");
        words.extend(["sh", "-c", &wait, "sh"].map(OsStr::new));
        words.extend(command);
        let (program, arguments) = words
            .split_first()
            .ok_or(std::io::ErrorKind::InvalidInput)?;
        Command::new(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    }

    fn map_ids(&self, child: &Child) -> Result<(), String> {
        if self.as_root {
            for (file, (start, count)) in [("uid_map", self.uids), ("gid_map", self.gids)] {
                let path = format!("/proc/{}/{file}", child.id());
                std::fs::write(&path, format!("0 {start} {count}\n"))
                    .map_err(|e| format!("{path}: {e}"))?;
            }
            return Ok(());
        }
        for (tool, (start, count)) in [("newuidmap", self.uids), ("newgidmap", self.gids)] {
            let own = if tool == "newuidmap" {
                self.owner
            } else {
                group_id()
            };
            let numbers = [child.id(), 0, own, 1, 1, start, count.min(COUNT - 1)];
            let output = Command::new(tool)
                .args(numbers.map(|n| n.to_string()))
                .output()
                .map_err(|e| format!("{tool}: {e}"))?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            }
        }
        Ok(())
    }
}

fn group_id() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |me| me.gid())
}

/// The user's line of /etc/subuid or /etc/subgid: name or number, start, count.
fn range(file: &str, owner: u32) -> Result<(u32, u32), String> {
    let name = Command::new("id")
        .arg("-un")
        .output()
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        .unwrap_or_default();
    let number = owner.to_string();
    let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let user = fields.next()?;
            let start = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok()?;
            (user == name || user == number).then_some((start, count))
        })
        .filter(|(_, count)| *count >= COUNT - 1)
        .ok_or_else(|| format!("{file} has no range of {COUNT} ids for this user"))
}
