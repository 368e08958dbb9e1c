//! Which directories of a mount may lie where, seen from each other.
//!
//! overlayfs refuses every layer inside another. plyfs refuses what would let a
//! layer change under the mount: an upper or work directory that shares files with
//! a lower layer. Two lower layers, one inside the other, are both only read: that
//! is how a directory is laid over the tree that holds it.

use crate::error::MountError;
use crate::sys::fs::{open_path, stat};
use crate::sys::path::At;
use crate::sys::process::O_PATH;
use std::path::{Path, PathBuf};

/// A directory that takes part in the mount.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its part, for messages.
    pub role: &'static str,
    /// As the user wrote it.
    pub given: PathBuf,
    /// Absolute, without symlinks.
    pub real: PathBuf,
    /// Device and inode number.
    pub id: (u64, u64),
    /// Those of the directories that it lies in, as far as they can be looked at.
    pub above: Vec<(u64, u64)>,
    /// The mount that it is on.
    pub mount: u64,
}

fn refuse(place: &Place, cause: String, remedy: &str) -> MountError {
    let what = format!("{} {}", place.role, place.given.display());
    MountError::new(what, cause, remedy)
}

/// Device and inode number of each directory that `path` lies in.
pub fn ids_above(path: &Path) -> Vec<(u64, u64)> {
    let id_of = |path: &Path| {
        let fd = open_path(path, O_PATH).ok()?;
        let stat = stat(At::fd(&fd)).ok()?;
        Some((stat.dev, stat.ino))
    };
    path.ancestors().skip(1).filter_map(id_of).collect()
}

/// Whether `inner` is `outer` or lies below it, by whatever path.
fn within(inner: &Place, outer: &Place) -> bool {
    inner.id == outer.id || inner.real.starts_with(&outer.real) || inner.above.contains(&outer.id)
}

/// No lower layer may be given twice.
pub fn no_layer_twice(lowers: &[Place]) -> Result<(), MountError> {
    let mut seen = std::collections::HashMap::new();
    for lower in lowers {
        if let Some(first) = seen.insert(lower.id, &lower.given) {
            let cause = if first == &lower.given {
                "given twice".to_owned()
            } else {
                format!("the same directory as {}", first.display())
            };
            return Err(refuse(lower, cause, "name each layer once"));
        }
    }
    Ok(())
}

/// Upper and work may not be the same, nor one inside the other.
pub fn upper_and_work_apart(upper: &Place, work: &Place) -> Result<(), MountError> {
    let remedy = "put it beside the upper";
    if upper.id == work.id {
        return Err(refuse(work, "it is the upper itself".into(), remedy));
    }
    if within(work, upper) {
        let cause = format!("it lies inside the upper {}", upper.given.display());
        return Err(refuse(work, cause, remedy));
    }
    if within(upper, work) {
        let cause = format!("it lies inside the work directory {}", work.given.display());
        return Err(refuse(upper, cause, "put the work directory beside it"));
    }
    Ok(())
}

/// Files move between work and upper by rename, which needs one filesystem and one mount.
pub fn same_mount(upper: &Place, work: &Place) -> Result<(), MountError> {
    if upper.id.0 == work.id.0 && upper.mount == work.mount {
        return Ok(());
    }
    let kind = if upper.id.0 == work.id.0 {
        "mount"
    } else {
        "filesystem"
    };
    let cause = format!("on another {kind} than the upper {}", upper.given.display());
    Err(refuse(work, cause, "put it beside the upper"))
}

/// `mine` (upper or work) may share no file with a lower layer.
pub fn apart_from_lower(mine: &Place, lower: &Place) -> Result<(), MountError> {
    if mine.id == lower.id {
        let cause = format!("it is the lower layer {} too", lower.given.display());
        return Err(refuse(mine, cause, "give it a directory of its own"));
    }
    // A layer ends where another filesystem is mounted on it.
    if mine.id.0 != lower.id.0 {
        return Ok(());
    }
    if within(mine, lower) {
        let cause = format!("it lies inside the lower layer {}", lower.given.display());
        return Err(refuse(mine, cause, "put it outside of every layer"));
    }
    lower_not_inside(lower, mine)
}

/// No lower layer may be `mine` (upper or work) or lie in it.
pub fn lower_not_inside(lower: &Place, mine: &Place) -> Result<(), MountError> {
    if within(lower, mine) {
        let is = if mine.id == lower.id {
            "is"
        } else {
            "lies inside"
        };
        let cause = format!("it {is} the {} {}", mine.role, mine.given.display());
        return Err(refuse(lower, cause, "put it outside of upper and work"));
    }
    Ok(())
}

/// The mount point may not lie in what the union writes to.
pub fn not_mounted_inside(point: &Place, taken: &Place) -> Result<(), MountError> {
    if within(point, taken) {
        let is = if point.id == taken.id {
            "is"
        } else {
            "lies inside"
        };
        let cause = format!("it {is} the {} {}", taken.role, taken.given.display());
        return Err(refuse(point, cause, "choose a directory outside of it"));
    }
    Ok(())
}
