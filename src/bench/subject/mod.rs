//! The ways of showing one stack of layers as one tree, behind one trait.

mod kinds;
mod spec;

pub use spec::{Kind, Spec};

use crate::error::{Errno, best_effort};
use crate::sys::mount;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a mount may take, and how long an unmount may find its mount in use.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a server without a mount may take to end: it may have to copy the rest of large
/// files, and to wait until a slow disk has them.
const ENDING: Duration = Duration::from_secs(600);

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

impl Stack {
    /// The same, its layers named as seen from `base` where they lie below it.
    fn relative_to(&self, base: &Path) -> Stack {
        let short = |path: &Path| path.strip_prefix(base).unwrap_or(path).to_owned();
        Stack {
            lowers: self.lowers.iter().map(|lower| short(lower)).collect(),
            upper: short(&self.upper),
            work: short(&self.work),
            said: self.said.clone(),
        }
    }
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
            let end = Instant::now() + ENDING;
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

/// Whether the program `name` is there to be run.
pub fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
