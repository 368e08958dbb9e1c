//! What is known of a node's xattrs, so that a walk that asks every file for its
//! capabilities and its list of xattrs is answered from memory.

use std::sync::atomic::{AtomicU8, Ordering};

/// What one look at the list of a node's xattrs has told; 0 before it.
#[derive(Debug, Default)]
pub struct KnownXattrs(AtomicU8);

/// It has none that a user could see.
const NONE: u8 = 1;
/// It has some, and no capabilities.
const NO_CAPABILITY: u8 = 2;
/// Some were set since: every question goes to the file. The highest, and so it stays.
const CHANGED: u8 = 3;

impl KnownXattrs {
    /// Whether it is known to have none that a user could see.
    pub fn are_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == NONE
    }

    /// Whether it is known to have no capabilities.
    pub fn have_no_capability(&self) -> bool {
        matches!(self.0.load(Ordering::Acquire), NONE | NO_CAPABILITY)
    }

    /// Notes what the list says. Nothing is learned from one that may have been read before
    /// an xattr was set.
    pub fn learn(&self, none: bool, capability: bool) {
        let told = match (none, capability) {
            (true, _) => NONE,
            (false, false) => NO_CAPABILITY,
            (false, true) => return,
        };
        // Whoever set one meanwhile was faster, and is right.
        self.0.fetch_max(told, Ordering::AcqRel);
    }

    /// Notes that one is about to be set.
    pub fn change(&self) {
        self.0.store(CHANGED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_believed_after_it() {
        let known = KnownXattrs::default();
        assert!(!known.are_none() && !known.have_no_capability());
        known.learn(true, false);
        assert!(known.are_none() && known.have_no_capability());
        known.change();
        known.learn(true, false);
        assert!(!known.are_none() && !known.have_no_capability());
    }

    #[test]
    fn a_list_without_capabilities_says_so() {
        let known = KnownXattrs::default();
        known.learn(false, true);
        assert!(!known.have_no_capability());
        known.learn(false, false);
        assert!(known.have_no_capability() && !known.are_none());
    }
}
