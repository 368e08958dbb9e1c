//! The union itself: one file per verb family; knows no FUSE.

use crate::config::plan::MountPlan;
use crate::error::MountError;

/// A stack of layers shown as one tree.
#[derive(Debug)]
pub struct Union {}

impl Union {
    /// Opens the layers of `plan` and takes the work directory's lock.
    ///
    /// # Errors
    /// One line that names the path, the cause and the remedy.
    pub fn open(plan: &MountPlan) -> Result<Union, MountError> {
        log::debug!("opening {plan:?}");
        Ok(Union {})
    }
}
