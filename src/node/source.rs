//! `Source`: the data of a lower file, which may itself be partly copied from another.

use super::partial::Run;
use super::stack::{DataBelow, DataFile};
use super::{Node, Tree};
use crate::error::{Errno, Result, SysError};
use crate::layer::Layer;
use crate::layer::extents::Extents;
use crate::sys::fs::{self, O_NONBLOCK, O_RDONLY, Stat};
use crate::sys::io::{self, SEEK_DATA, SEEK_HOLE};
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An open lower file that is read.
#[derive(Debug)]
pub struct Source {
    /// The layer that it is in.
    pub layer: Arc<Layer>,
    /// It itself.
    pub file: OwnedFd,
    /// What it is like.
    pub stat: Stat,
    over: Option<Over>,
}

/// What is below one that is partly copied.
#[derive(Debug)]
struct Over {
    limit: u64,
    own: Extents,
    below: Box<Source>,
}

impl Source {
    /// Whether all of its data is in one file.
    pub fn is_whole(&self) -> bool {
        self.over.is_none()
    }

    /// Fills `room` from offset `at`; how many bytes came: fewer only at the end.
    ///
    /// # Errors
    /// pread's.
    pub fn read_at(&self, room: &mut [u8], at: u64) -> std::result::Result<usize, SysError> {
        match &self.over {
            None => io::read_full(&self.file, room, at),
            Some(over) => {
                let size = self.stat.size;
                let run = |at| Run::of(&over.own, at, over.limit, size);
                read_mixed(run, &self.file, &over.below, room, at)
            }
        }
    }

    /// Where data begins (or a hole, as `whence` says) at or after `at`, before its end.
    ///
    /// # Errors
    /// ENXIO where there is none, else lseek's.
    pub fn seek(&self, at: u64, whence: i32) -> std::result::Result<u64, SysError> {
        match &self.over {
            None => io::seek(&self.file, at as i64, whence),
            Some(over) => {
                let size = self.stat.size;
                let run = |at| Run::of(&over.own, at, over.limit, size);
                seek_mixed(run, (&self.file, size), &over.below, at, whence)
            }
        }
    }
}

/// Reads a file that is `own` where `run` says so, and has the data of `below` else.
///
/// # Errors
/// pread's.
pub fn read_mixed(
    run: impl Fn(u64) -> Run,
    own: &OwnedFd,
    below: &Source,
    room: &mut [u8],
    at: u64,
) -> std::result::Result<usize, SysError> {
    let mut done = 0;
    while let Some(rest) = room.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let from = at + done as u64;
        let run = run(from);
        let want = rest.len().min((run.end - from).min(1 << 30) as usize);
        let Some(piece) = rest.get_mut(..want).filter(|piece| !piece.is_empty()) else {
            break;
        };
        let got = if run.own {
            io::read_full(own, piece, from)?
        } else {
            let got = below.read_at(piece, from)?;
            piece.get_mut(got..).unwrap_or_default().fill(0);
            want
        };
        done += got;
        if got < want {
            break;
        }
    }
    Ok(done)
}

/// Where data or a hole begins in such a file, of `size` bytes, at or after `at`.
///
/// # Errors
/// ENXIO where there is none, else lseek's.
pub fn seek_mixed(
    run: impl Fn(u64) -> Run,
    (own, size): (&OwnedFd, u64),
    below: &Source,
    at: u64,
    whence: i32,
) -> std::result::Result<u64, SysError> {
    const NONE: SysError = SysError {
        call: "lseek",
        errno: Errno::ENXIO,
    };
    if at >= size {
        return Err(NONE);
    }
    let mut at = at;
    while at < size {
        let run = run(at);
        let end = run.end.min(size);
        if end <= at {
            break;
        }
        let found = if run.own {
            io::seek(own, at as i64, whence)
        } else {
            below.seek(at, whence)
        };
        let found = match found {
            Ok(found) => found,
            // Past the end of the lower file all is a hole.
            Err(e) if e.errno == Errno::ENXIO && !run.own && whence == SEEK_HOLE => at,
            Err(e) if e.errno == Errno::ENXIO => end,
            Err(e) => return Err(e),
        };
        if found < end {
            return Ok(found);
        }
        at = end;
    }
    match whence {
        SEEK_DATA => Err(NONE),
        _ => Ok(size),
    }
}

impl Tree {
    /// Opens the lower file `node`, which is in no upper, has its data itself, and was found
    /// to be what `stat` says.
    ///
    /// # Errors
    /// openat's.
    pub fn open_lower(&self, node: &Node, stat: Stat) -> Result<Source> {
        let (layer, _) = self.door(node)?;
        let file = self.open(node, O_RDONLY | O_NONBLOCK)?;
        Ok(Source {
            layer,
            file,
            stat,
            over: None,
        })
    }

    /// Opens what has the data `below`.
    ///
    /// # Errors
    /// EIO where it is lost, else openat's and lseek's.
    pub fn open_source(&self, below: &DataBelow) -> Result<Source> {
        // A layer is open once for each: a chain is as long as there are layers at most.
        let DataBelow::File(DataFile { over, .. }) = below else {
            return Err(Errno::EIO);
        };
        let (layer, file) = self.open_below(below, O_RDONLY | O_NONBLOCK)?;
        let stat = fs::stat(At::fd(&file))?;
        let over = match over {
            None => None,
            Some(over) => {
                let (limit, below) = &**over;
                let limit = (*limit).min(stat.size);
                Some(Over {
                    limit,
                    own: Extents::load(&file, limit)?,
                    below: Box::new(self.open_source(below)?),
                })
            }
        };
        Ok(Source {
            layer,
            file,
            stat,
            over,
        })
    }
}
