//! What is left when something fails or everything ends: a system call that fails, a daemon that
//! is killed, a power cut.

mod btrfs;
mod disk;
mod fault;
mod inside;
mod kill;
mod moments;
mod moved;
mod outside;
mod power;
mod recording;
mod scenes;
mod synced;
mod workload;
mod wrong;
mod yard;

#[path = "../support/mod.rs"]
mod support;
