//! What has to be on the disk before something else may be, and when (`durability=`).
//!
//! A copy of data gets its name, or loses the mark that it is not whole, when it can no
//! longer be lost without it. A copy without data needs nothing: whichever part of it is
//! lost in a power cut, either its name is lost too or its mark is there.

use super::Settings;
use crate::config::plan::Durability;
use crate::error::{Result, SysError};
use crate::layer::Layer;
use crate::sys::fs::{self, O_DIRECTORY, O_NOFOLLOW, O_RDONLY};
use crate::sys::io;
use crate::sys::path::At;
use std::os::fd::OwnedFd;

impl Settings {
    /// Whether changes of names and attributes are on the disk when they are answered.
    pub fn is_strict(&self) -> bool {
        self.durability == Durability::Strict
    }

    /// Has the disk begin with what [`Settings::order_data`] will wait for, while there is
    /// other work to do.
    pub fn begin_data(&self, file: &OwnedFd) {
        if self.durability != Durability::Volatile {
            io::begin_write_out(file);
        }
    }

    /// Sees to it that whatever is changed in `upper` after this is not on the disk without
    /// the data of `file`.
    ///
    /// # Errors
    /// Those of writing it to the disk.
    pub fn order_data(&self, upper: &Layer, file: &OwnedFd) -> std::result::Result<(), SysError> {
        match self.durability {
            Durability::Volatile => Ok(()),
            Durability::Auto if upper.caps.keeps_order => io::write_out(file),
            Durability::Auto | Durability::Strict => upper.sync(file, false),
        }
    }

    /// Sees to it that `file` is on the disk with its size before anybody relies on that,
    /// where it might lose it (see [`Layer::logs_files_apart`]).
    ///
    /// # Errors
    /// fsync's.
    pub fn order_size(&self, upper: &Layer, file: &OwnedFd) -> std::result::Result<(), SysError> {
        if self.durability != Durability::Volatile && upper.logs_files_apart() {
            return upper.sync(file, false);
        }
        Ok(())
    }

    /// Where that is asked for, brings the names of `dirs`, directories of `upper`, to the
    /// disk.
    ///
    /// # Errors
    /// fsync's.
    pub fn persist_names<'d>(
        &self,
        upper: &Layer,
        dirs: impl IntoIterator<Item = &'d OwnedFd>,
    ) -> Result<()> {
        if !self.is_strict() {
            return Ok(());
        }
        if upper.logs_files_apart() {
            return self.persist_all(upper);
        }
        for dir in dirs {
            let open = fs::open(At::new(dir, b"."), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)?;
            upper.sync(&open, false)?;
        }
        Ok(())
    }

    /// The same with all that was changed in `upper`.
    ///
    /// # Errors
    /// syncfs's.
    pub fn persist_all(&self, upper: &Layer) -> Result<()> {
        if self.is_strict() {
            io::sync_filesystem(&*upper.root)?;
        }
        Ok(())
    }
}
