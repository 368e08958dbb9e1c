//! `Stack`: the ordered places where one file really lives. Immutable; a copy-up
//! replaces it whole.

use super::partial::Partial;
use crate::layer::dirfds::RealDir;
use crate::merge::name::Name;
use crate::sys::fs::Stat;
use std::sync::Arc;

/// Where a file lives.
#[derive(Debug)]
pub struct Stack {
    /// The inode number of its part in the upper, if it has one.
    pub upper: Option<u64>,
    /// Its parts below.
    pub lower: Lower,
    /// Where its data is, if the topmost part has only metadata.
    pub data: Option<Box<DataBelow>>,
    /// Which of that data is in the upper already, if some may be.
    pub partial: Option<Arc<Partial>>,
}

/// Where the data of a file is that has none of its own (`overlay.metacopy`).
#[derive(Clone, Debug)]
pub enum DataBelow {
    /// In this file.
    File(DataFile),
    /// Nowhere: it can be seen, renamed and removed, but not read.
    Lost,
}

/// A lower file that has another's data.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// The directory that it is in.
    pub dir: Arc<RealDir>,
    /// Its name there.
    pub name: Name,
    /// Its bytes, and the 512-byte blocks that they take.
    pub size: (u64, u64),
    /// If it is partly copied itself: the length up to which its holes are another's, and
    /// whose.
    pub over: Option<Box<(u64, DataBelow)>>,
}

impl DataFile {
    /// The file `name` in `dir`, which `stat` describes.
    pub fn new(dir: &Arc<RealDir>, name: &Name, stat: &Stat) -> DataFile {
        DataFile {
            dir: dir.clone(),
            name: name.clone(),
            size: (stat.size, stat.blocks),
            over: None,
        }
    }

    /// The same, whose holes up to `limit` are the data of `below`.
    pub fn over(self, limit: u64, below: DataBelow) -> DataFile {
        DataFile {
            over: Some(Box::new((limit, below))),
            ..self
        }
    }
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
            data: None,
            partial: None,
        }
    }

    /// Whether its data is in more than one file.
    pub fn is_mixed(&self) -> bool {
        let below = || match self.data.as_deref() {
            Some(DataBelow::File(file)) => file.over.is_some(),
            _ => false,
        };
        self.partial.is_some() || below()
    }

    /// The inode number of the upper file that is written to; `None` where there is none
    /// yet.
    pub fn written_upper(&self) -> Option<u64> {
        self.upper
            .filter(|_| self.data.is_none() || self.partial.is_some())
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

    /// Whether it must say where its lower content lies before it gets another name.
    pub fn needs_redirect(&self) -> bool {
        self.is_merged() || self.data.is_some()
    }

    /// The inode number of the upper file that has the data; `None` where a lower one
    /// has it.
    pub fn data_upper(&self) -> Option<u64> {
        self.upper.filter(|_| self.data.is_none())
    }

    /// The same with a part in the upper: a copied-up file needs its lower part no more,
    /// but for its data where that was not copied; a directory goes on merging. `stat`
    /// describes the lower part.
    pub fn copied_up(&self, ino: u64, with_data: bool, stat: &Stat) -> Stack {
        let data = || match (&self.data, &self.lower) {
            (Some(data), _) => Some(data.clone()),
            (None, Lower::File(dir, name)) => {
                Some(Box::new(DataBelow::File(DataFile::new(dir, name, stat))))
            }
            (None, _) => None,
        };
        Stack {
            upper: Some(ino),
            lower: match &self.lower {
                Lower::Dirs(dirs) => Lower::Dirs(dirs.clone()),
                _ => Lower::None,
            },
            data: if with_data { None } else { data() },
            partial: None,
        }
    }
}
