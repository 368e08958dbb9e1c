//! The kernel's side: requests in, answers out. The only place that names fuser.

pub mod adapter;
pub mod convert;
pub mod mounting;
pub mod session;
