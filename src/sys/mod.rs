//! The only unsafe code and the only libc calls of the project.
#![allow(unsafe_code)]

pub mod errno;
