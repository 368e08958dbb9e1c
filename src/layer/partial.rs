//! Partly copied files: what their filesystem must know, and the note that there may be some.
//!
//! Each says of itself how much it has (`overlay.metacopy`, see [`super::metacopy`]). While an
//! upper may hold such files, its work directory says so in the form in which overlayfs notes
//! what older kernels must not mount (`ovl_workdir_cleanup`): `WORK/work/incompat/partial`.

use super::Layer;
use super::extents::Extents;
use super::metacopy::PartMark;
use super::scratch::Scratch;
use crate::error::{Errno, SysError, best_effort};
use crate::sys::fs::{self, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR};
use crate::sys::io;
use crate::sys::magic;
use crate::sys::path::At;
use std::os::fd::OwnedFd;

/// Where overlayfs notes what others must not mount.
pub(super) const INCOMPAT: &[u8] = b"incompat";
pub(super) const PARTIAL: &[u8] = b"partial";

/// What a write to a partly copied file is rounded to: as much as a filesystem may take for
/// data without saying so.
pub const BLOCK: u64 = 4096;

impl Layer {
    /// Whether the filesystem of this upper, whose temporaries are in `scratch`, tells a
    /// hole from zeros that were written, block by block: tried out once.
    pub fn can_be_partial(&self, scratch: &Scratch) -> bool {
        if let Some(known) = self.tells_holes.get() {
            return known;
        }
        // Others may make holes of zeros (ZFS), or tell of holes what they like.
        let tried = matches!(
            self.caps.magic,
            magic::EXT4 | magic::XFS | magic::BTRFS | magic::TMPFS
        ) && best_effort("try out holes", try_holes(self, scratch)).unwrap_or(false);
        self.tells_holes.learn(tried);
        tried
    }

    /// Whether the filesystem, of those where files are partly copied, knows FALLOC_FL_ZERO_RANGE
    /// (`shmem_fallocate` in mm/shmem.c does not).
    pub fn zeroes_ranges(&self) -> bool {
        self.caps.magic != magic::TMPFS
    }
}

fn try_holes(layer: &Layer, scratch: &Scratch) -> Result<bool, SysError> {
    const SIZE: u64 = 16 << 20;
    const AT: u64 = 4 << 20;
    let name = scratch.temp_name();
    let at = At::new(scratch.dir(), &name);
    let file = fs::open(at, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600)?;
    fs::unlink(at)?;
    // Some keep small files where their attributes are, and know no holes there.
    io::truncate(&file, 100)?;
    if Extents::load(&file, 100)? != Extents::default() {
        return Ok(false);
    }
    io::truncate(&file, SIZE)?;
    let mut want = Extents::default();
    for at in [0, AT, AT + 2 * BLOCK] {
        io::write_full(&file, &[0; BLOCK as usize], at)?;
        want.insert(at, at + BLOCK);
    }
    let holds = Extents::load(&file, SIZE)? == want;
    if holds {
        layer.mark_partial(At::fd(&file), &PartMark::up_to(SIZE))?;
    }
    Ok(holds)
}

pub(super) fn open_incompat(work: &OwnedFd) -> Result<OwnedFd, SysError> {
    fs::open(
        At::new(work, INCOMPAT),
        O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
        0,
    )
}

/// Whether the upper whose temporaries are in `work` may hold partly copied files.
///
/// # Errors
/// Where that cannot be looked up.
pub fn may_be_there(work: &OwnedFd) -> Result<bool, SysError> {
    let noted = open_incompat(work).and_then(|incompat| fs::stat(At::new(&incompat, PARTIAL)));
    match noted {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Notes that it may.
///
/// # Errors
/// mkdirat's.
pub fn note(work: &OwnedFd) -> Result<(), SysError> {
    make_dir(At::new(work, INCOMPAT))?;
    make_dir(At::new(&open_incompat(work)?, PARTIAL))
}

/// Notes that it holds none any more.
///
/// # Errors
/// Those of removing the note.
pub fn clear(work: &OwnedFd) -> Result<(), SysError> {
    let incompat = match open_incompat(work) {
        Err(e) if e.errno == Errno::ENOENT => return Ok(()),
        other => other?,
    };
    match fs::rmdir(At::new(&incompat, PARTIAL)) {
        Err(e) if e.errno == Errno::ENOENT => {}
        other => other?,
    }
    match fs::rmdir(At::new(work, INCOMPAT)) {
        // Something else is noted there.
        Err(e) if matches!(e.errno, Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
        other => other,
    }
}

fn make_dir(at: At<'_>) -> Result<(), SysError> {
    match fs::mkdir(at, 0o700) {
        Err(e) if e.errno == Errno::EEXIST => Ok(()),
        other => other,
    }
}
