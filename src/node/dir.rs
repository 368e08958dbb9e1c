//! `DirPart`: what a directory node has beside any other: its names.

use crate::layer::marks::{Hints, Known};
use crate::merge::listing::Listing;
use parking_lot::RwLock;
use std::sync::atomic::AtomicBool;

/// The directory part of a node.
#[derive(Debug, Default)]
pub struct DirPart {
    /// Read by lookups and readers, written by whoever changes a name.
    pub names: RwLock<DirState>,
    /// Marks within the upper's part.
    pub upper_hints: Hints,
    /// Whether the upper's part holds files whose number comes from their origin
    /// (`overlay.impure`).
    pub impure: Known,
    /// Made by this mount: nothing is in its upper part but what the union shows.
    pub born: AtomicBool,
}

/// What is known of a directory's names.
#[derive(Debug, Default)]
pub struct DirState {
    /// All of them, once somebody asked; kept true by every change.
    pub listing: Option<Listing>,
}
