//! What the kernel is told to ask for again, since it changed without its doing.

use crate::merge::inomap::Ino;
use fuser::{INodeNo, Notifier};
use std::sync::OnceLock;

/// Tells the kernel what it knows no more, once there is somebody to tell it.
#[derive(Debug, Default)]
pub struct Invalidator {
    notifier: OnceLock<Notifier>,
}

impl Invalidator {
    /// Has the kernel told by `notifier`, from now on.
    pub fn notify_by(&self, notifier: Notifier) {
        // Set once for each session.
        self.notifier.get_or_init(|| notifier);
    }

    /// The attributes of `ino` changed; its data did not.
    pub fn attributes(&self, ino: Ino) {
        if let Some(notifier) = self.notifier.get() {
            // -1: attributes alone. An inode that the kernel has forgotten is up to date.
            let told = notifier.inval_inode(INodeNo(ino), -1, 0);
            if let Err(e) = told {
                log::debug!("invalidate the attributes of inode {ino}: {e}");
            }
        }
    }
}
