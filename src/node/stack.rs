//! `Stack`: the ordered places where one file really lives. Immutable; a copy-up
//! replaces it whole.

use crate::layer::dirfds::RealDir;
use crate::merge::name::Name;
use std::sync::Arc;

/// Where a file lives.
#[derive(Debug)]
pub struct Stack {
    /// The inode number of its part in the upper, if it has one.
    pub upper: Option<u64>,
    /// Its parts below.
    pub lower: Lower,
}

/// The parts of a file in lower layers.
#[derive(Debug)]
pub enum Lower {
    /// None, or none that counts any more.
    None,
    /// A non-directory: this name in that directory.
    File(Arc<RealDir>, Name),
    /// A directory: every layer's part that is merged, topmost first.
    Dirs(Box<[Arc<RealDir>]>),
}

impl Stack {
    /// Of a file that is in the upper alone.
    pub fn upper_only(ino: u64) -> Stack {
        Stack {
            upper: Some(ino),
            lower: Lower::None,
        }
    }

    /// The lower directories that are merged.
    pub fn lower_dirs(&self) -> &[Arc<RealDir>] {
        match &self.lower {
            Lower::Dirs(dirs) => dirs,
            _ => &[],
        }
    }

    /// Whether a directory shows lower content.
    pub fn is_merged(&self) -> bool {
        !self.lower_dirs().is_empty()
    }

    /// The same with a part in the upper: a copied-up file needs its lower part no
    /// more, a directory goes on merging.
    pub fn copied_up(&self, ino: u64) -> Stack {
        Stack {
            upper: Some(ino),
            lower: match &self.lower {
                Lower::Dirs(dirs) => Lower::Dirs(dirs.clone()),
                _ => Lower::None,
            },
        }
    }
}
