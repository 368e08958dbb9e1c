//! The rules of the union, pure: no I/O, no locks, std only.

pub mod acl;
pub mod decide;
pub mod inomap;
pub mod listing;
pub mod name;
pub mod resolve;
