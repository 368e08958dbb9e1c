//! plyfs: a union filesystem in userspace.
//!
//! A stack of read-only *lower* layers and one writable *upper* layer are shown
//! as one tree. The words used throughout:
//!
//! | word | meaning |
//! |---|---|
//! | layer | one real directory tree that takes part in the union |
//! | lower / upper | read-only layer / the one writable layer |
//! | work | scratch directory on the upper's filesystem |
//! | stack | for one file: the ordered places where it really lives |
//! | mark | how a layer says "deleted here" (whiteout) or "hides all below" (opaque) |
//! | copy-up | making a file of a lower layer exist in the upper |
//! | origin | the lower file that an upper file was copied up from |
//!
//! The map of the house, top to bottom; an arrow never points back up:
//!
//! ```text
//! cli -> config, fuse, upkeep, bench
//! bench -> sys
//! fuse -> control
//! fuse, control, upkeep -> union -> copyup -> node -> layer -> merge, sys
//! ```
//!
//! `observe` is called from anywhere, and calls nobody.

#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod config;
pub mod control;
pub mod copyup;
pub mod error;
pub mod fuse;
pub mod layer;
pub mod merge;
pub mod node;
pub mod observe;
pub mod sys;
pub mod union;
pub mod upkeep;
