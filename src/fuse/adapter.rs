//! fuser::Filesystem: convert, call Union, answer once.

use crate::union::Union;
use std::sync::Arc;

/// Answers the kernel's requests from a [`Union`].
#[derive(Debug)]
pub struct Adapter {
    union: Arc<Union>,
}

impl Adapter {
    /// An adapter over `union`.
    pub fn new(union: Arc<Union>) -> Adapter {
        Adapter { union }
    }

    /// The union that it answers from.
    pub fn union(&self) -> &Arc<Union> {
        &self.union
    }
}

impl fuser::Filesystem for Adapter {}
