//! Room that is about to be made: a full disk can be worked on.

use super::Union;
use crate::error::{Errno, Result};
use std::time::Duration;

/// How often, and how long each time, a change waits for the room that files take which
/// were deleted a moment before it.
const WAITS: usize = 40;
const WAIT: Duration = Duration::from_millis(5);
/// Files that were deleted longer ago than this are kept open by somebody.
const A_MOMENT: Duration = Duration::from_millis(500);

impl Union {
    /// Does `change`, and does it again where it finds the disk full while files take
    /// room that have just been deleted.
    ///
    /// A file system frees a file when its last name goes, before unlink(2) returns.
    /// plyfs keeps it until the kernel says that it has forgotten it, which is a moment
    /// later. `change` must leave no trace when it fails.
    ///
    /// # Errors
    /// Those of `change`.
    pub(super) fn with_room<T>(&self, mut change: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..WAITS {
            match change() {
                Err(Errno::ENOSPC) if self.tree.holds_deleted(A_MOMENT) => {
                    std::thread::sleep(WAIT);
                }
                other => return other,
            }
        }
        change()
    }
}
