//! The kernel's side: requests in, answers out. The only place that names fuser.

pub mod adapter;
mod backing;
pub mod convert;
pub mod mounting;
mod readers;
pub mod session;
