//! The only unsafe code and the only libc calls of the project.
//!
//! Every function here is a thin, safe face of one system call: owned
//! descriptors in and out, a [`SysError`](crate::error::SysError) that names the
//! call when it fails, and no policy.
#![allow(unsafe_code)]

pub mod cache;
pub mod clock;
pub mod creds;
pub mod dir;
pub mod errno;
pub mod fault;
pub mod fs;
pub mod fusermount;
pub mod identity;
pub mod io;
pub mod magic;
pub mod memory;
pub mod mount;
pub mod mountinfo;
pub mod path;
pub mod privilege;
pub mod process;
pub mod signal;
pub mod socket;
pub mod userns;
pub mod xattr;
