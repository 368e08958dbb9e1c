//! When the kernel need not ask for xattrs any more: after one ENOSYS it answers by itself, for
//! all files of the mount and for good, that there can be none.

use super::readers::caught;
use crate::union::Union;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::Builder;

/// Who asked so often walks the tree; to look through it is cheaper than to be asked for all of it.
const OFTEN: u32 = 50;

/// Whether a union has no xattrs, once somebody wanted to know of many files.
#[derive(Debug, Default)]
pub struct Bare {
    asked: AtomicU32,
    known: AtomicBool,
}

impl Bare {
    /// Counts a question for xattrs of `union`. Whether it is known by now that there are none.
    pub fn is_known(self: &Arc<Self>, union: &Arc<Union>) -> bool {
        if !union.never_changes() {
            return false;
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) == OFTEN {
            self.find_out(union.clone());
        }
        self.known.load(Ordering::Relaxed)
    }

    /// Looks through the layers, while the questions are answered as ever.
    fn find_out(self: &Arc<Self>, union: Arc<Union>) {
        let bare = self.clone();
        let look = move || match union.is_bare() {
            Ok(none) => bare.known.store(none, Ordering::Relaxed),
            Err(e) => log::info!("the layers cannot be looked through for xattrs: {e}"),
        };
        let thread = Builder::new().name("xattrs".into());
        if let Err(e) = thread.spawn(move || caught("look for xattrs", look)) {
            log::info!("no thread that looks for xattrs: {e}");
        }
    }
}
