//! Cold caches: what the kernel has in memory of the layers is thrown away.

use crate::error::{Errno, SysError, best_effort};
use crate::sys::io::forget_pages;
use crate::sys::process::{self, Forked, exit_now, fork};
use crate::sys::signal::{self, TERMINATION};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

/// Where root tells the kernel to drop its caches.
const DROP: &str = "/proc/sys/vm/drop_caches";

/// A process that stays outside of all namespaces, where it may still drop caches.
#[derive(Debug)]
pub struct Dropper {
    ask: File,
    answer: File,
}

/// How cold it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cold {
    /// The kernel drops pages, dentries and inodes of everything.
    Everything,
    /// A new mount, and the pages of the layers' files are dropped one by one.
    Pages,
}

impl Cold {
    /// For the report.
    pub fn describe(self) -> &'static str {
        match self {
            Cold::Everything => "a new mount, after sync and /proc/sys/vm/drop_caches",
            Cold::Pages => {
                "a new mount, after posix_fadvise(DONTNEED) on every file of the layers; \
                 directories stay cached below, since only root can drop them"
            }
        }
    }
}

impl Dropper {
    /// Starts it, before any thread exists; `None` where nobody here may drop caches.
    pub fn start() -> Option<Dropper> {
        fs::OpenOptions::new().write(true).open(DROP).ok()?;
        best_effort("start what drops caches", Dropper::fork())
    }

    fn fork() -> Result<Dropper, SysError> {
        let (mut asked, ask) = process::pipe()?;
        let (answer, mut reply) = process::pipe()?;
        match fork()? {
            Forked::Parent(_) => Ok(Dropper { ask, answer }),
            Forked::Child => {
                drop((ask, answer));
                for signal in TERMINATION {
                    best_effort("outlive signals", signal::set_ignored(signal, true));
                }
                let mut word = [0];
                // Ends with whoever asks.
                while asked.read_exact(&mut word).is_ok() {
                    let dropped = fs::write(DROP, "3").is_ok();
                    if reply.write_all(&[u8::from(dropped)]).is_err() {
                        break;
                    }
                }
                exit_now(0)
            }
        }
    }

    fn drop_all(&mut self) -> std::io::Result<bool> {
        self.ask.write_all(b"+")?;
        let mut word = [0];
        self.answer.read_exact(&mut word)?;
        Ok(word == [1])
    }
}

/// Makes the layers below `dir` cold, as far as `dropper` lets us.
///
/// # Errors
/// Where the layers cannot be read.
pub fn make_cold(dropper: Option<&mut Dropper>, dir: &Path) -> std::io::Result<Cold> {
    let here = File::open(dir)?;
    crate::sys::io::sync_filesystem(&here)?;
    if let Some(dropper) = dropper
        && best_effort("drop caches", dropper.drop_all()) == Some(true)
    {
        return Ok(Cold::Everything);
    }
    forget_below(dir)?;
    Ok(Cold::Pages)
}

fn forget_below(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            forget_below(&entry.path())?;
        } else if kind.is_file() {
            match File::open(entry.path()) {
                Ok(file) => forget_pages(&file)?,
                Err(e) if e.raw_os_error() == Some(Errno::EACCES.0) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}
