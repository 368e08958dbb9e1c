//! The differences from the kernel's overlayfs that are meant, each with its reason.

use super::execute::{Outcome, Step};
use super::support::tree::{self, Tree};

/// One kind of difference in what a call answers.
struct Intended {
    reason: &'static str,
    applies: fn(&Step<'_>, kernel: &Outcome, plyfs: &Outcome) -> bool,
}

const OUTCOMES: &[Intended] = &[
    Intended {
        reason: "a file of a lower that is unlinked while it is open cannot be changed in the kernel's",
        applies: |step, kernel, plyfs| {
            step.on_slot() && *kernel == Err(libc::ENOENT) && plyfs.is_ok()
        },
    },
    Intended {
        reason: "the kernel's copy-up fills the holes inside each MiB that holds data; plyfs keeps them",
        applies: |step, kernel, plyfs| {
            let segments =
                |outcome: &Outcome| outcome.as_ref().ok().map(|text| parse_segments(text));
            step.verb() == "segments"
                && match (segments(plyfs), segments(kernel)) {
                    (Some(ours), Some(theirs)) => tree::within(&ours, &theirs),
                    _ => false,
                }
        },
    },
];

const ATTRIBUTES: &[Intended] = &[];

/// Parts of lines of a whole view's comparison.
const VIEWS: &[(&str, &str)] = &[];

fn reason(
    table: &[Intended],
    step: &Step<'_>,
    kernel: &Outcome,
    plyfs: &Outcome,
) -> Option<&'static str> {
    table
        .iter()
        .find(|i| (i.applies)(step, kernel, plyfs))
        .map(|i| i.reason)
}

/// Why the two answers of one call may differ like this.
pub fn outcome(step: &Step<'_>, kernel: &Outcome, plyfs: &Outcome) -> Option<&'static str> {
    reason(OUTCOMES, step, kernel, plyfs)
}

/// Why a path that the call named may look different afterwards.
pub fn attributes(step: &Step<'_>, kernel: &Outcome, plyfs: &Outcome) -> Option<&'static str> {
    reason(ATTRIBUTES, step, kernel, plyfs)
}

/// Whether a line of a whole comparison is one of the intended kind.
pub fn view(line: &str) -> bool {
    VIEWS.iter().any(|(part, _reason)| line.contains(part))
}

/// The numbers of a line like `[(0, 4096), (8192, 12288)]`.
fn parse_segments(text: &str) -> Vec<(u64, u64)> {
    let numbers: Vec<u64> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

/// In a whole view too plyfs may have holes where the kernel's copy-up left none.
pub fn keep_more_holes(kernel: &Tree, plyfs: &mut Tree) {
    for (path, node) in plyfs {
        let theirs = kernel.get(path).and_then(|n| n.data.as_ref());
        if let (Some(ours), Some(theirs)) = (&mut node.data, theirs)
            && tree::within(&ours.segments, &theirs.segments)
        {
            ours.segments.clone_from(&theirs.segments);
        }
    }
}
