//! Runs columns of the table: the scripts beside this file, in a place of their own.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::support::skip;
use super::support::temp::Scratch;
use super::table::{Cell, Table};

/// Root, and an ordinary user with subordinate ids.
pub const WHO: [&str; 2] = ["root", "user"];

const SCRIPTS: [&str; 10] = [
    "site.sh",
    "images.sh",
    "environment.sh",
    "column.sh",
    "case.sh",
    "podman.sh",
    "buildah.sh",
    "docker.sh",
    "containerd.sh",
    "switch.sh",
];

/// A storage program: its name in the table, and its path, or `overlay` for the kernel's own.
#[derive(Clone)]
pub struct Program {
    pub name: String,
    path: String,
}

/// One engine on one program as one user.
pub struct Column<'a> {
    engine: &'a str,
    who: &'a str,
    program: &'a Program,
}

impl<'a> Column<'a> {
    pub fn new(engine: &'a str, who: &'a str, program: &'a Program) -> Column<'a> {
        Column {
            engine,
            who,
            program,
        }
    }
}

/// Where scripts, programs, images and the stores of the engines are.
pub struct Site {
    scratch: Scratch,
    images: PathBuf,
    rivals: Vec<Program>,
}

/// True where everything is there that the scripts themselves call; else prints what is missing.
pub fn has_tools() -> bool {
    ["unshare", "setpriv", "newuidmap", "busybox", "bash"]
        .iter()
        .all(|tool| skip::has_tool(tool))
}

impl Site {
    /// `None`, with the reason printed, where no image can be made.
    pub fn new() -> Option<Site> {
        let images = std::env::var_os("PLYFS_CLIENTS_IMAGES")
            .map_or_else(|| PathBuf::from("/var/tmp/plyfs-clients"), PathBuf::from);
        let mut site = Site {
            scratch: Scratch::new(),
            images,
            rivals: Vec::new(),
        };
        site.install_rivals();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        for script in SCRIPTS {
            install(&scripts.join(script), &site.scripts().join(script));
        }
        install(
            Path::new(env!("CARGO_BIN_EXE_plyfs")),
            &site.programs_dir().join("plyfs"),
        );
        let made = Command::new("bash")
            .arg(site.scripts().join("images.sh"))
            .arg(&site.images)
            .output()
            .expect("bash can be started");
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            skip::skipped(&format!("no images (no network?): {}", last_line(&said)));
            return site.images.join("busybox.tar").exists().then_some(site);
        }
        Some(site)
    }

    fn scripts(&self) -> PathBuf {
        self.scratch.dir("scripts")
    }

    fn programs_dir(&self) -> PathBuf {
        self.scratch.dir("programs")
    }

    pub fn plyfs(&self) -> Program {
        Program {
            name: "plyfs".into(),
            path: self.programs_dir().join("plyfs").display().to_string(),
        }
    }

    fn install_rivals(&mut self) {
        let rivals = std::env::var_os("PLYFS_FUSE_OVERLAYFS").unwrap_or_default();
        for rival in std::env::split_paths(&rivals).filter(|path| !path.as_os_str().is_empty()) {
            let name = version(&rival);
            let at = self.scratch.dir(&format!("programs/{name}"));
            install(&rival, &at.join("fuse-overlayfs"));
            self.rivals.push(Program {
                path: at.join("fuse-overlayfs").display().to_string(),
                name,
            });
        }
    }

    /// The rivals' paths, as the scripts take them.
    fn rivals(&self) -> String {
        let paths: Vec<&str> = self.rivals.iter().map(|one| one.path.as_str()).collect();
        paths.join(":")
    }

    /// plyfs, the rivals that the environment names, and the kernel's overlayfs.
    pub fn programs(&self) -> Vec<Program> {
        let mut programs = vec![self.plyfs()];
        programs.extend(self.rivals.iter().cloned());
        if self.rivals.is_empty() {
            skip::skipped("fuse-overlayfs: PLYFS_FUSE_OVERLAYFS names none");
        }
        programs.push(Program {
            name: "overlayfs".into(),
            path: "overlay".into(),
        });
        programs
    }

    /// Runs `cases` (all, if none are named) and enters what comes out.
    pub fn run(&self, column: &Column<'_>, cases: &[&str], table: &mut Table) {
        let Column {
            engine,
            who,
            program,
        } = column;
        let command = match *engine {
            "containerd" => "ctr",
            // A store is taken from one program to another by podman.
            "switch" => "podman",
            itself => itself,
        };
        if !skip::has_tool(command) {
            return;
        }
        println!("{engine} as {who} on {}", program.name);
        let dir = self.scratch.dir("site");
        let script = |name| self.scripts().join(name);
        let mut child = Command::new("bash")
            .args([&script("site.sh"), &dir])
            .arg("bash")
            .args([&script("column.sh"), &self.images])
            .args([&program.path, *who, *engine])
            .args(cases)
            .env("PLYFS_CLIENTS_OTHER", self.rivals())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        for line in lines.lines() {
            let line = line.expect("a line of the script");
            let cell = Cell::parse(&line).unwrap_or_else(|| panic!("column.sh said {line}"));
            match cell.skipped() {
                Some(why) => skip::skipped(why),
                None => println!("  {}", line.replace('\t', "  ")),
            }
            table.enter((who, engine), &program.name, cell);
        }
        let status = child.wait().expect("the script can be waited for");
        assert!(
            status.success(),
            "column.sh for {engine} as {who}: {status}"
        );
        super::support::temp::remove_tree(&dir);
    }
}

/// The name and version that a program tells: `fuse-overlayfs-1.10`.
fn version(program: &Path) -> String {
    let said = Command::new(program)
        .arg("--version")
        .output()
        .unwrap_or_else(|e| panic!("PLYFS_FUSE_OVERLAYFS: {}: {e}", program.display()))
        .stdout;
    String::from_utf8_lossy(&said)
        .lines()
        .find(|line| line.starts_with("fuse-overlayfs"))
        .unwrap_or("fuse-overlayfs")
        .replace(": version", "")
        .replace(' ', "-")
}

fn last_line(said: &str) -> &str {
    said.lines().last().unwrap_or("no message")
}

/// A copy that every user can read and run.
fn install(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}
