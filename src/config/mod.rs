//! What the user asked for: raw words, the TOML file, and the checked plan.

pub mod check;
pub mod file;
pub mod options;
pub mod overlap;
pub mod plan;
pub mod request;
