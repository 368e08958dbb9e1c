//! The kernel's side: requests in, answers out. The only place that names fuser.

pub mod adapter;
mod answer;
mod backing;
mod bare;
pub mod convert;
mod filling;
mod handshake;
mod invalidate;
pub mod mounting;
mod readers;
pub mod session;
