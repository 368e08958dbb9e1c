//! What plyfs does where a kernel or an upper's filesystem lacks something.
//!
//! A filter of system calls (`tests/support/filter.rs`) takes it from the program under test, or
//! the upper lies on a filesystem that has not got it. The same script is done to the union and
//! to a plain directory with the same files: both must look the same afterwards, and after a
//! remount.

#[path = "../crash/inside.rs"]
#[allow(dead_code)]
mod inside;
mod kernels;
mod rooms;
mod scenario;
mod stale;
#[path = "../support/mod.rs"]
mod support;
mod uppers;
