//! `DirPart`: what a directory node has beside any other: its names.

use crate::layer::marks::{Hints, Known};
use crate::merge::inomap::Ino;
use crate::merge::listing::{CookieKey, Listing};
use crate::merge::name::Name;
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// The directory part of a node.
#[derive(Debug, Default)]
pub struct DirPart {
    /// Read by lookups and readers, written by whoever changes a name.
    pub names: RwLock<DirState>,
    /// Marks within the upper's part.
    pub upper_hints: Hints,
    /// Whether something is in its upper part that the union does not show: whiteouts.
    pub whiteouts: Known,
    /// How many names were looked up while there was no listing.
    lookups: AtomicU32,
}

impl DirPart {
    /// Counts a lookup that no listing answers; how many there were with it.
    pub fn count_lookup(&self) -> u32 {
        self.lookups.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// How many lookups were counted.
    pub fn lookups(&self) -> u32 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// The names, to be changed: what was found absent may not be for long.
    pub fn changing(&self) -> RwLockWriteGuard<'_, DirState> {
        let mut names = self.names.write();
        names.take_absence();
        names
    }
}

/// What is known of a directory's names.
#[derive(Debug, Default)]
pub struct DirState {
    /// All of them, once somebody asked; kept true by every change.
    pub listing: Option<Listing>,
    /// When they were read, where layers change under the mount; never for a directory that
    /// this mount made.
    pub listed_at: Option<Instant>,
    absence: Mutex<Option<Absence>>,
    /// The number of what was found last.
    found: AtomicU64,
}

/// A name that was looked up and is not there. Whoever makes a file has looked for it a
/// moment before.
#[derive(Debug)]
pub struct Absence {
    /// The name.
    pub name: Name,
    /// Whether the upper's part has an entry there all the same, a whiteout.
    pub in_upper: bool,
}

impl DirState {
    /// Notes that `ino` was found by a name. Whoever moves or removes a file has looked for
    /// it a moment before.
    pub fn note_found(&self, ino: Ino) {
        self.found.store(ino, Ordering::Relaxed);
    }

    /// The number of what may be at `name`; the node's place tells whether it is.
    pub fn guess(&self, cookies: &CookieKey, name: &[u8]) -> Ino {
        let listing = self.listing.as_ref();
        let listed = listing.and_then(|listing| listing.get(cookies, name));
        match listed {
            Some(entry) if entry.ino != 0 => entry.ino,
            _ => self.found.load(Ordering::Relaxed),
        }
    }

    /// Notes that a name was not found.
    pub fn note_absence(&self, absence: Absence) {
        *self.absence.lock() = Some(absence);
    }

    /// The name that was not found last, unless names were changed since.
    pub fn take_absence(&mut self) -> Option<Absence> {
        self.absence.get_mut().take()
    }
}
