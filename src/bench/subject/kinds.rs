//! The kernel's overlayfs, the FUSE servers, and the bare directory.

use super::{GLANCE, Mounted, PATIENCE, Setting, Spec, Stack, Subject};
use crate::error::best_effort;
use crate::sys::mount::{self, Flags};
use crate::sys::mountinfo;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

/// The kernel's own.
#[derive(Debug)]
pub(super) struct Overlay {
    label: String,
    words: String,
}

impl Overlay {
    pub(super) fn new(spec: &Spec, setting: Setting) -> Overlay {
        // In a user namespace the kernel cannot write trusted xattrs.
        let own = match setting {
            Setting::Userns => "userxattr",
            Setting::Root => "",
        };
        let both = [own, &spec.words];
        let words: Vec<&str> = both.into_iter().filter(|w| !w.is_empty()).collect();
        Overlay {
            label: spec.named("overlayfs"),
            words: words.join(","),
        }
    }
}

impl Subject for Overlay {
    fn label(&self) -> &str {
        &self.label
    }

    fn version(&self) -> String {
        format!("Linux {}", crate::bench::machine::kernel())
    }

    fn words(&self) -> &str {
        &self.words
    }

    fn mount(&self, stack: &Stack, at: &Path) -> io::Result<Mounted> {
        // The words have to fit into one page: the paths are relative to the directory
        // that has them all.
        let base = stack.lowers.first().and_then(|lower| lower.parent());
        let base = base
            .filter(|base| at.starts_with(base))
            .unwrap_or(Path::new("/"));
        let mut data = layer_words(&stack.relative_to(base))?;
        if !self.words.is_empty() {
            data.push(',');
            data.push_str(&self.words);
        }
        std::env::set_current_dir(base)?;
        let mounted = mount::mount("overlay", at, "overlay", Flags::default(), &data);
        std::env::set_current_dir("/")?;
        mounted?;
        Ok(Mounted {
            at: at.to_owned(),
            server: None,
            is_mount: true,
        })
    }
}

/// `lowerdir=…,upperdir=…,workdir=…`.
fn layer_words(stack: &Stack) -> io::Result<String> {
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| io::Error::other("the directory's name is no UTF-8"))
    };
    let lowers: Vec<String> = stack
        .lowers
        .iter()
        .map(|lower| text(lower))
        .collect::<io::Result<_>>()?;
    Ok(format!(
        "lowerdir={},upperdir={},workdir={}",
        lowers.join(":"),
        text(&stack.upper)?,
        text(&stack.work)?
    ))
}

/// A FUSE server.
#[derive(Debug)]
pub(super) struct Program {
    label: String,
    program: PathBuf,
    words: String,
    version: String,
    command: fn(&Program, &Stack, &Path) -> io::Result<Command>,
}

impl Program {
    pub(super) fn plyfs(spec: &Spec, program: PathBuf) -> Program {
        Program {
            label: spec.named("plyfs"),
            version: version_of(&program),
            words: spec.words.clone(),
            command: Program::plyfs_command,
            program,
        }
    }

    pub(super) fn fuse_overlayfs(spec: &Spec, program: PathBuf) -> Program {
        let version = version_of(&program);
        let number = version
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let name = format!("fuse-overlayfs {}", number.unwrap_or_default());
        Program {
            label: spec.named(name.trim_end()),
            words: spec.words.clone(),
            command: Program::fuse_overlayfs_command,
            version,
            program,
        }
    }

    fn plyfs_command(&self, stack: &Stack, at: &Path) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(["mount", "--foreground"]);
        for lower in &stack.lowers {
            command.arg("--lower").arg(lower);
        }
        command.arg("--upper").arg(&stack.upper);
        command.arg("--work").arg(&stack.work);
        if !self.words.is_empty() {
            command.args(["-o", &self.words]);
        }
        command.arg(at);
        Ok(command)
    }

    fn fuse_overlayfs_command(&self, stack: &Stack, at: &Path) -> io::Result<Command> {
        let mut words = layer_words(stack)?;
        if !self.words.is_empty() {
            words.push(',');
            words.push_str(&self.words);
        }
        let mut command = Command::new(&self.program);
        command
            .arg("-f")
            .arg("-o")
            .arg(OsString::from(words))
            .arg(at);
        Ok(command)
    }

    fn last_words(&self, stack: &Stack, what: impl std::fmt::Display) -> io::Error {
        let said = fs::read_to_string(&stack.said).unwrap_or_default();
        let line = said.lines().last().unwrap_or_default().trim();
        match line.strip_prefix("plyfs: ").unwrap_or(line) {
            "" => io::Error::other(format!("{}: {what}", self.program.display())),
            line => io::Error::other(line.to_owned()),
        }
    }
}

impl Subject for Program {
    fn label(&self) -> &str {
        &self.label
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn words(&self) -> &str {
        &self.words
    }

    fn mount(&self, stack: &Stack, at: &Path) -> io::Result<Mounted> {
        let mut command = (self.command)(self, stack, at)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&stack.said)?);
        let server = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.program.display())))?;
        let mut mounted = Mounted {
            at: at.to_owned(),
            server: Some(server),
            is_mount: false,
        };
        let end = Instant::now() + PATIENCE;
        while mountinfo::at(at)?.is_none() {
            let Some(server) = mounted.server.as_mut() else {
                break;
            };
            if let Some(status) = server.try_wait()? {
                return Err(self.last_words(stack, status));
            }
            if Instant::now() > end {
                mounted.end_server();
                return Err(self.last_words(stack, "nothing was mounted"));
            }
            sleep(GLANCE);
        }
        mounted.is_mount = true;
        // Waits until it serves.
        fs::symlink_metadata(at)?;
        Ok(mounted)
    }
}

/// The first line of `--version` that has a number and names no helper of it.
fn version_of(program: &Path) -> String {
    let out = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let Some(out) = best_effort("ask for a version", out) else {
        return String::new();
    };
    let said =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    let mut lines = said
        .lines()
        .filter(|line| line.contains(|c: char| c.is_ascii_digit()));
    let own = lines
        .clone()
        .find(|line| line.starts_with("fuse-overlayfs"));
    own.or_else(|| lines.next())
        .unwrap_or_default()
        .replace("fuse-overlayfs: version", "fuse-overlayfs")
}

/// The merged tree itself, without any union.
#[derive(Debug)]
pub(super) struct Bare(pub(super) String);

impl Subject for Bare {
    fn label(&self) -> &str {
        &self.0
    }

    fn version(&self) -> String {
        "the merged tree as a directory".into()
    }

    fn words(&self) -> &str {
        ""
    }

    fn is_union(&self) -> bool {
        false
    }

    fn mount(&self, _: &Stack, at: &Path) -> io::Result<Mounted> {
        Ok(Mounted::bare(at))
    }
}
