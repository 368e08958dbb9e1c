//! Promises of a live mount, one by one; the oracle in `tests/model` tries everything at random.

mod attributes;
mod directories;
mod fixtures;
mod full;
mod hostile;
mod hostile_index;
mod hostile_marks;
mod hostile_metacopy;
mod identity;
mod links;
mod metacopy;
mod names;
mod partial;
mod partial_shapes;
mod read_ahead;
mod recreate;
mod stacks;
#[path = "../support/mod.rs"]
mod support;
mod writing;
mod xattrs;
