//! The benchmark harness: the same work done on several ways of showing one stack of layers.
//!
//! ```text
//! Plan      what to measure: subjects, workloads, sizes, rounds
//! Subject   a way to show the layers: plyfs, overlayfs, fuse-overlayfs, the bare directory
//! Workload  something to do, with what it needs beforehand
//! Report    the figures, and what they were measured on
//! ```
//!
//! In each round every subject does the same work once, on a new mount with a new upper,
//! so that whatever else goes on in the machine meets all of them.

pub mod cold;
pub mod data;
pub mod machine;
pub mod package;
pub mod report;
pub mod run;
pub mod stats;
pub mod subject;
pub mod workloads;
