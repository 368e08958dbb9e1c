//! The command line as its users meet it: refusals, the daemon, mount(8), `plyfs run`.

mod bad_input;
mod bench;
mod changes;
mod daemon;
mod engines;
mod helper_form;
mod load;
mod manual;
mod observing;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod tools;
mod waiting;
