//! What the user asked for: raw words, the TOML file, and the checked plan.

pub mod file;
pub mod idmap;
pub mod options;
pub mod owners;
pub mod plan;
pub mod request;
