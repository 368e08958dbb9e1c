//! What the event log is told of marks: where they lie once the operation is over.

use crate::merge::decide::Step;
use crate::merge::name::Name;
use crate::node::Node;
use crate::observe::{self, Mark};

/// `mark` was written for `name` in `dir`, or taken from there.
pub(super) fn marked(mark: Mark, dir: &Node, name: &Name) {
    observe::marked(mark, |way| dir.tell_way_to(name, way), None);
}

/// Something new took the place of the whiteout of `name` in `dir`; a directory hides what
/// is below it.
pub(super) fn over_whiteout(dir: &Node, name: &Name, is_dir: bool) {
    marked(Mark::WhiteoutGone, dir, name);
    if is_dir {
        marked(Mark::Opaque, dir, name);
    }
}

/// What the target of a rename was to the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A whiteout, which is gone.
    Whiteout,
    /// A file of a lower layer alone, which is hidden now.
    Lower,
    /// Neither.
    Other,
}

/// A rename took `steps` from one name to another.
pub(super) fn renamed(steps: &[Step], from: (&Node, &Name), to: (&Node, &Name), target: Target) {
    let taken = |step| steps.contains(&step);
    match target {
        Target::Whiteout => marked(Mark::WhiteoutGone, to.0, to.1),
        Target::Lower => marked(Mark::Covered, to.0, to.1),
        Target::Other => {}
    }
    let swapped = taken(Step::Exchange) && !taken(Step::DropWhiteoutAtSource);
    if target == Target::Whiteout && swapped || taken(Step::MoveLeavingWhiteout) {
        marked(Mark::Whiteout, from.0, from.1);
    }
    if taken(Step::OpaqueSource) {
        marked(Mark::Opaque, to.0, to.1);
    }
    if taken(Step::OpaqueTarget) {
        marked(Mark::Opaque, from.0, from.1);
    }
}
