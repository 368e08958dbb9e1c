//! The ways of showing one stack of layers as one tree, behind one trait.

use crate::error::{Errno, MountError, best_effort};
use crate::sys::mount::{self, Flags};
use crate::sys::mountinfo;
use crate::sys::signal;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a mount may take, and how long an unmount may find its mount in use.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether something awaited has come.
const GLANCE: Duration = Duration::from_millis(2);

/// Whose root the measuring process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Root of the machine.
    Root,
    /// Root of a user namespace.
    Userns,
}

impl Setting {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Root => "root",
            Setting::Userns => "userns",
        }
    }
}

/// The layers of one mount.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
    /// The upper, empty before its first mount.
    pub upper: PathBuf,
    /// The scratch directory.
    pub work: PathBuf,
    /// Where a program's last words go.
    pub said: PathBuf,
}

/// A way of showing a stack.
pub trait Subject: Debug {
    /// What the report calls it.
    fn label(&self) -> &str;

    /// The program or kernel that it is, and its version.
    fn version(&self) -> String;

    /// The option words it is mounted with.
    fn words(&self) -> &str;

    /// Whether it merges layers. What does not is given the merged tree itself.
    fn is_union(&self) -> bool {
        true
    }

    /// Shows `stack` at `at`, a directory.
    ///
    /// # Errors
    /// Where it is not there, or refuses.
    fn mount(&self, stack: &Stack, at: &Path) -> io::Result<Mounted>;
}

/// Something mounted, until [`Mounted::unmount`].
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    server: Option<Child>,
    is_mount: bool,
}

impl Mounted {
    /// A directory that needs no mount.
    pub fn bare(at: &Path) -> Mounted {
        Mounted {
            at: at.to_owned(),
            server: None,
            is_mount: false,
        }
    }

    /// The root of the tree.
    pub fn root(&self) -> &Path {
        &self.at
    }

    /// Unmounts, and waits until the server has ended.
    ///
    /// # Errors
    /// Where it stays in use.
    pub fn unmount(mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_mount) {
            return Ok(());
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match mount::unmount(&self.at, false) {
                Ok(()) => break,
                Err(e) if e.errno == Errno::EBUSY && Instant::now() < end => sleep(GLANCE),
                Err(e) => {
                    best_effort("detach", mount::unmount(&self.at, true));
                    self.end_server();
                    return Err(e.into());
                }
            }
        }
        if let Some(mut server) = self.server.take() {
            while server.try_wait()?.is_none() {
                if Instant::now() > end {
                    self.server = Some(server);
                    self.end_server();
                    return Err(io::Error::other("its server outlived it, and was ended"));
                }
                sleep(GLANCE);
            }
        }
        Ok(())
    }

    fn end_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            best_effort("end a server", server.kill());
            best_effort("wait for a server", server.wait());
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mount {
            best_effort("detach", mount::unmount(&self.at, true));
            self.end_server();
        }
    }
}

/// What kinds of subject there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// plyfs.
    Plyfs,
    /// The kernel's overlayfs.
    Overlay,
    /// fuse-overlayfs, any version.
    FuseOverlayfs,
    /// The merged tree as a directory.
    Bare,
}

const KINDS: [(&str, Kind); 4] = [
    ("plyfs", Kind::Plyfs),
    ("overlay", Kind::Overlay),
    ("fuse-overlayfs", Kind::FuseOverlayfs),
    ("bare", Kind::Bare),
];

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// A subject as the command line names it: `[LABEL=]KIND[@PROGRAM][:WORDS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What the report calls it.
    pub label: Option<String>,
    /// Its kind.
    pub kind: Kind,
    /// Which program, where it is one.
    pub program: Option<PathBuf>,
    /// Further option words.
    pub words: String,
}

impl Spec {
    /// The subject of this kind, as it is without being told anything.
    pub fn plain(kind: Kind) -> Spec {
        Spec {
            label: None,
            kind,
            program: None,
            words: String::new(),
        }
    }

    /// Reads `text`.
    ///
    /// # Errors
    /// Where it names no kind that there is.
    pub fn parse(text: &str) -> Result<Spec, MountError> {
        let (head, words) = text.split_once(':').unwrap_or((text, ""));
        let (label, rest) = match head.split_once('=') {
            Some((label, rest)) => (Some(label.to_owned()), rest),
            None => (None, head),
        };
        let (kind, program) = match rest.split_once('@') {
            Some((kind, program)) => (kind, Some(PathBuf::from(program))),
            None => (rest, None),
        };
        let kind = KINDS
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                MountError::new(
                    format_args!("--subject {text}"),
                    format_args!("no subject is called {kind:?}"),
                    "write [LABEL=]KIND[@PROGRAM][:WORDS], KIND being plyfs, overlay, \
                     fuse-overlayfs or bare",
                )
            })?;
        if program.is_some() && !matches!(kind, Kind::Plyfs | Kind::FuseOverlayfs) {
            return Err(MountError::new(
                format_args!("--subject {text}"),
                format_args!("{} is no program", kind.name()),
                "leave out what stands after @",
            ));
        }
        Ok(Spec {
            label: label.filter(|label| !label.is_empty()),
            kind,
            program,
            words: words.to_owned(),
        })
    }

    /// The subject itself. `own` is the plyfs to take where no other is named.
    pub fn subject(&self, setting: Setting, own: &Path) -> Box<dyn Subject> {
        match self.kind {
            Kind::Plyfs => {
                let program = self.program.clone().unwrap_or_else(|| own.to_owned());
                Box::new(Program::plyfs(self, program))
            }
            Kind::FuseOverlayfs => {
                let program = self.program.clone();
                let program = program.unwrap_or_else(|| "fuse-overlayfs".into());
                Box::new(Program::fuse_overlayfs(self, program))
            }
            Kind::Overlay => Box::new(Overlay::new(self, setting)),
            Kind::Bare => Box::new(Bare(self.named("bare"))),
        }
    }

    /// Its label: the one that was given, else `name` and the option words.
    fn named(&self, name: &str) -> String {
        match (&self.label, self.words.as_str()) {
            (Some(label), _) => label.clone(),
            (None, "") => name.to_owned(),
            (None, words) => format!("{name} {words}"),
        }
    }
}

/// The kernel's own.
#[derive(Debug)]
struct Overlay {
    label: String,
    words: String,
}

impl Overlay {
    fn new(spec: &Spec, setting: Setting) -> Overlay {
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
        format!("Linux {}", super::machine::kernel())
    }

    fn words(&self) -> &str {
        &self.words
    }

    fn mount(&self, stack: &Stack, at: &Path) -> io::Result<Mounted> {
        let mut data = layer_words(stack)?;
        if !self.words.is_empty() {
            data.push(',');
            data.push_str(&self.words);
        }
        mount::mount("overlay", at, "overlay", Flags::default(), &data)?;
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
struct Program {
    label: String,
    program: PathBuf,
    words: String,
    version: String,
    command: fn(&Program, &Stack, &Path) -> io::Result<Command>,
}

impl Program {
    fn plyfs(spec: &Spec, program: PathBuf) -> Program {
        Program {
            label: spec.named("plyfs"),
            version: version_of(&program),
            words: spec.words.clone(),
            command: Program::plyfs_command,
            program,
        }
    }

    fn fuse_overlayfs(spec: &Spec, program: PathBuf) -> Program {
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
        io::Error::other(format!("{}: {what}: {line}", self.program.display()))
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
struct Bare(String);

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

/// Whether the program `name` is there to be run.
pub fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Ends the process `pid`, which measures, and with it all that it started.
pub fn end(pid: i32) {
    best_effort(
        "end the measuring process",
        signal::send(pid, signal::SIGKILL),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_with_all_its_parts() {
        let spec = Spec::parse("new=plyfs@/opt/plyfs:io=cached,threads=1").expect("a subject");
        assert_eq!(spec.label.as_deref(), Some("new"));
        assert_eq!(spec.kind, Kind::Plyfs);
        assert_eq!(spec.program.as_deref(), Some(Path::new("/opt/plyfs")));
        assert_eq!(spec.words, "io=cached,threads=1");
        let spec = Spec::parse("plyfs:metacopy=off").expect("a subject");
        assert_eq!(spec.named("plyfs"), "plyfs metacopy=off");
        assert_eq!(Spec::parse("bare"), Ok(Spec::plain(Kind::Bare)));
    }

    #[test]
    fn what_is_no_subject_is_refused_in_one_line() {
        for text in ["", "zfs", "x=", "overlay@/bin/true"] {
            let refusal = Spec::parse(text).expect_err(text).to_string();
            assert!(refusal.starts_with("--subject"), "{refusal}");
            assert_eq!(refusal.lines().count(), 1, "{refusal}");
        }
    }
}
