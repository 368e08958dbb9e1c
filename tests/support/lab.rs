//! A place to build unions in: layers from short lines, mounts under watch, shell snippets.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::backing::{Backing, Kind};
use super::layers::{MarkFormat, materialise};
use super::mount::{Mounted, Stack, Subject, run};
use super::skip;
use super::tree::{self, Tree};
use super::watchdog::Watchdog;

/// Nothing that one test does to a mount takes longer.
const LIMIT: Duration = Duration::from_secs(120);

pub struct Lab {
    watchdog: Watchdog,
    backing: Backing,
}

impl Lab {
    /// A lab on the plain disk; `None`, with the reason printed, where nothing can be mounted.
    pub fn new() -> Option<Lab> {
        Lab::on(Kind::Ext4)
    }

    pub fn on(kind: Kind) -> Option<Lab> {
        if !skip::can_mount() {
            return None;
        }
        Some(Lab {
            watchdog: Watchdog::new(LIMIT),
            backing: Backing::new(kind)?,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.backing.path().join(name)
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.backing.dir(name)
    }

    /// A layer of `lines` as in `layers.rs`, where what is left out at the end has a default.
    pub fn layer(&self, name: &str, format: MarkFormat, lines: &[&str]) -> PathBuf {
        let at = self.path(name);
        build(&at, format, lines);
        at
    }

    /// The layers with an upper of its own, `u-NAME`, at `mnt/NAME` (where the `..` of
    /// a layer's symlink leads nowhere).
    pub fn mount(&self, name: &str, lowers: &[PathBuf]) -> Mounted {
        self.mount_stack(name, &self.stack(name, lowers))
    }

    pub fn stack(&self, name: &str, lowers: &[PathBuf]) -> Stack {
        Stack::new(lowers).upper(&self.upper(name), &self.path(&format!("w-{name}")))
    }

    pub fn upper(&self, name: &str) -> PathBuf {
        self.path(&format!("u-{name}"))
    }

    pub fn mount_stack(&self, name: &str, stack: &Stack) -> Mounted {
        self.try_mount(name, stack, Subject::Plyfs)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn mount_kernel(&self, name: &str, stack: &Stack) -> Mounted {
        self.try_mount(name, stack, Subject::Kernel)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn try_mount(
        &self,
        name: &str,
        stack: &Stack,
        subject: Subject,
    ) -> Result<Mounted, String> {
        let mounted = stack.mount(subject, &self.path(&format!("mnt/{name}")))?;
        Ok(self.watch(mounted))
    }

    /// Puts a mount under watch.
    pub fn watch(&self, mounted: Mounted) -> Mounted {
        self.watchdog.cover(mounted.connection());
        mounted
    }
}

/// Makes a layer of shortened lines: `dir PATH`, `file PATH [SIZE]`, `symlink PATH TARGET`,
/// `fifo PATH`, and every full line of `layers.rs`.
pub fn build(at: &Path, format: MarkFormat, lines: &[&str]) {
    const TAIL: &str = "0:0 1000000000.5";
    let full: Vec<String> = lines
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["dir", path] => format!("dir {path} 755 {TAIL}"),
                ["dir", path, mode] => format!("dir {path} {mode} {TAIL}"),
                ["file", path] => format!("file {path} 644 {TAIL} 10 0+10+7"),
                ["file", path, size] => format!("file {path} 644 {TAIL} {size} 0+{size}+7"),
                ["symlink", path, target] => format!("symlink {path} {target} {TAIL}"),
                ["fifo", path] => format!("node {path} 10644 {TAIL} 0"),
                _ => (*line).to_string(),
            }
        })
        .collect();
    materialise(&full, at, format);
}

/// Runs a shell snippet in `at`; it must succeed.
pub fn shell(at: &Path, snippet: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", snippet]).current_dir(at);
    let out = run(&mut command, LIMIT).unwrap_or_else(|e| panic!("{snippet}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "`{snippet}` in {}: {}: {said}",
        at.display(),
        out.status
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The names and contents of a tree, without owners, times and numbers.
pub fn outline(at: &Path) -> Vec<String> {
    outline_of(&tree::read(at))
}

pub fn outline_of(tree: &Tree) -> Vec<String> {
    tree.iter()
        .map(|(path, node)| {
            let data = node.data.as_ref().map_or(0, |d| d.digest);
            let kind = node.stat.mode & libc::S_IFMT;
            let shown = super::bytes::escape(path);
            let target = super::bytes::escape(&node.target);
            // A filesystem without xattrs says so; it is no trouble.
            let trouble: Vec<&String> = node
                .trouble
                .iter()
                .filter(|t| *t != "llistxattr: EOPNOTSUPP")
                .collect();
            format!("{shown} {kind:o} {data:x} {target} {trouble:?}")
        })
        .collect()
}

/// A path below `base`, as bytes for the system calls.
pub fn at(base: &Path, below: &str) -> Vec<u8> {
    base.join(below).as_os_str().as_bytes().to_vec()
}
