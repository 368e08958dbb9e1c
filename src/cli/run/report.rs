//! What the command changed, and where that is kept.

use super::Ground;
use super::space::Fate;
use super::submounts::How;
use super::unions::Unions;
use crate::cli::changes::{Change, Tree};
use crate::error::best_effort;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Prints one line for each change, and where the changes are kept; whether there are any.
pub fn print(ground: &Ground, unions: &Unions) -> bool {
    for name in unions.created() {
        // Made for the inside to have; fails where the command put something in.
        best_effort(
            "remove what the inside needed",
            fs::remove_dir(ground.space.upper().join(name)),
        );
    }
    let mut changes = Vec::new();
    let upper = ground.space.upper();
    let root = Path::new("/");
    compare(ground, unions, root, &ground.lowers, &mut changes);
    let mut kept = vec![(root, upper.to_owned())];
    for submount in ground.submounts.iter().filter(|s| unions.has(&s.inside)) {
        let How::Union(lowers) = &submount.how else {
            continue;
        };
        let upper = ground.space.upper_of(&submount.inside);
        let before = changes.len();
        compare(ground, unions, &submount.inside, lowers, &mut changes);
        if changes.len() > before {
            kept.push((&submount.inside, upper));
        }
    }
    changes.sort();
    let mut text = Vec::new();
    for change in &changes {
        change.write_line(&mut text);
    }
    if ground.space.fate() == Fate::StayAlways || !changes.is_empty() {
        for (inside, upper) in kept.iter().filter(|_| ground.space.fate() != Fate::Go) {
            let of = if *inside == Path::new("/") {
                String::new()
            } else {
                format!(" of {}", inside.display())
            };
            text.extend_from_slice(format!("upper{of} kept in {}\n", upper.display()).as_bytes());
        }
    }
    best_effort("print the changes", std::io::stdout().write_all(&text));
    !changes.is_empty()
}

fn compare(
    ground: &Ground,
    unions: &Unions,
    inside: &Path,
    lowers: &[PathBuf],
    changes: &mut Vec<Change>,
) {
    let space = &ground.space;
    let (upper, work) = if inside == Path::new("/") {
        (space.upper().to_owned(), space.work())
    } else {
        (space.upper_of(inside), space.work_of(inside))
    };
    let tree = Tree {
        inside,
        upper: &upper,
        lowers,
        before: unions.look(inside),
        index: Some(&work.join("index")),
        redirects: ground.settings.redirects,
    };
    if let Err(e) = tree.changes(changes) {
        super::left_out(&upper, format_args!("its changes cannot be listed ({e})"));
    }
}
