//! The differences from the kernel's overlayfs that are meant, each with its reason.

use super::execute::{Outcome, Step};

/// One kind of difference in what a call answers.
struct Intended {
    reason: &'static str,
    applies: fn(&Step<'_>, kernel: &Outcome, plyfs: &Outcome) -> bool,
}

const OUTCOMES: &[Intended] = &[
    Intended {
        reason: "a file of a lower that is unlinked while it is open cannot be changed in the kernel's",
        applies: |step, kernel, plyfs| {
            step.on_slot() && matches!(kernel, Err(libc::ENOENT | libc::EEXIST)) && plyfs.is_ok()
        },
    },
    Intended {
        reason: "removing an ACL that is not there is ENODATA for a file of a lower and fine for one of \
                 the upper; the kernel copies up at open already",
        applies: |step, kernel, plyfs| {
            let answers = [Ok(String::new()), Err(libc::ENODATA)];
            step.verb() == "removexattr"
                && step.words[2].starts_with("system.posix_acl_")
                && answers.contains(kernel)
                && answers.contains(plyfs)
        },
    },
    Intended {
        reason: "without redirects a rename over a directory that is not empty is wrong twice over",
        applies: |step, kernel, plyfs| {
            step.verb() == "rename" && *kernel == Err(libc::EXDEV) && *plyfs == Err(libc::ENOTEMPTY)
        },
    },
    Intended {
        reason: "xfs says EEXIST for a rename over a directory that is not empty; POSIX allows both",
        applies: |step, kernel, plyfs| {
            step.verb() == "rename"
                && *kernel == Err(libc::EEXIST)
                && *plyfs == Err(libc::ENOTEMPTY)
        },
    },
    Intended {
        reason: "opening for writing copies up the data of a file whose data is in a lower layer \
                 still, and changes its mtime by that; see forgive_opening",
        applies: |step, kernel, plyfs| match (kernel, plyfs) {
            (Ok(theirs), Ok(ours)) => {
                let mtime = |w: &&str| w.starts_with("mtime=");
                let recent = |text: &str| text.split(' ').any(|w| w == "mtime=recent");
                step.verb() == "open"
                    && (recent(theirs) || recent(ours))
                    && theirs
                        .split(' ')
                        .filter(|w| !mtime(w))
                        .eq(ours.split(' ').filter(|w| !mtime(w)))
            }
            _ => false,
        },
    },
    Intended {
        reason: "an open file without a name has no link; the kernel goes on counting a lower's",
        applies: |step, kernel, plyfs| match (kernel, plyfs) {
            (Ok(theirs), Ok(ours)) => {
                let links = |text: &str| {
                    text.split(' ')
                        .find_map(|w| w.strip_prefix("nlink=").map(String::from))
                };
                let others = |text: &str| -> Vec<String> {
                    text.split(' ')
                        .filter(|w| !w.starts_with("nlink="))
                        .map(String::from)
                        .collect()
                };
                step.verb() == "fstat"
                    && links(ours).as_deref() == Some("0")
                    && others(ours) == others(theirs)
            }
            _ => false,
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
