//! What the mounted tests share; each test crate includes it with `#[path]`.

// Each test crate uses its own part of this module.
#![allow(dead_code)]

pub mod backing;
pub mod bytes;
pub mod child;
pub mod filter;
pub mod lab;
pub mod layers;
pub mod mount;
pub mod patience;
pub mod rng;
pub mod siege;
pub mod skip;
pub mod sys;
pub mod temp;
pub mod tree;
pub mod watchdog;
