//! What the layers show at one name, top-down, becomes what the union shows.
//!
//! The rules are those of overlayfs.rst: a whiteout hides the name in all layers
//! below; a non-directory ends the search; directories merge down to the first
//! opaque one. Marks which cost a look of their own (a `.wh.NAME` file beside the
//! name, the opaque mark of a directory) are asked for only when a layer further
//! down has something that they could hide.

/// What one layer has at a name, as a single look at the name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// No entry.
    Nothing,
    /// A whiteout in its own right.
    Whiteout,
    /// Anything but a directory.
    NonDirectory,
    /// A directory.
    Directory,
}

/// A layer's mark that may hide what lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The layer has no entry: is there a whiteout file for the name?
    WhiteoutBeside,
    /// The layer has a directory: is it opaque, or is there a whiteout file beside it?
    Opaque,
}

/// What the union shows at a name: indices of the layers that count, topmost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The name is absent.
    Absent,
    /// A non-directory of that layer.
    NonDirectory(usize),
    /// A directory merged from those layers; never empty.
    Directory(Vec<usize>),
}

/// Resolves one name over `layers` (indices, topmost first).
///
/// `look` says what a layer has; `hides` answers a [`Question`] about one.
///
/// # Errors
/// The first of `look` or `hides`.
pub fn resolve<E>(
    layers: impl IntoIterator<Item = usize>,
    mut look: impl FnMut(usize) -> Result<Sighting, E>,
    mut hides: impl FnMut(usize, Question) -> Result<bool, E>,
) -> Result<Resolution, E> {
    let mut dirs: Vec<usize> = Vec::new();
    let mut unasked: Vec<(usize, Question)> = Vec::new();
    for layer in layers {
        let seen = look(layer)?;
        match seen {
            Sighting::Nothing => {
                unasked.push((layer, Question::WhiteoutBeside));
                continue;
            }
            Sighting::Whiteout => break,
            Sighting::NonDirectory | Sighting::Directory => {}
        }
        let mut hidden = false;
        for (above, question) in unasked.drain(..) {
            if hides(above, question)? {
                hidden = true;
                break;
            }
        }
        if hidden {
            break;
        }
        if seen == Sighting::NonDirectory {
            if dirs.is_empty() {
                return Ok(Resolution::NonDirectory(layer));
            }
            break;
        }
        dirs.push(layer);
        unasked.push((layer, Question::Opaque));
    }
    Ok(if dirs.is_empty() {
        Resolution::Absent
    } else {
        Resolution::Directory(dirs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Everything that one layer can have at a name.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Have {
        Nothing,
        WhiteoutDevice,
        WhiteoutFile,
        File,
        FileAndWhiteoutFile,
        Dir,
        OpaqueDir,
        DirAndWhiteoutFile,
    }
    use Have::*;
    const ALL: [Have; 8] = [
        Nothing,
        WhiteoutDevice,
        WhiteoutFile,
        File,
        FileAndWhiteoutFile,
        Dir,
        OpaqueDir,
        DirAndWhiteoutFile,
    ];

    /// The rules said the plain way, from the bottom up.
    fn reference(stack: &[Have]) -> Resolution {
        let mut shown = Resolution::Absent;
        for (i, have) in stack.iter().enumerate().rev() {
            shown = match have {
                Nothing => shown,
                WhiteoutDevice | WhiteoutFile => Resolution::Absent,
                File | FileAndWhiteoutFile => Resolution::NonDirectory(i),
                OpaqueDir | DirAndWhiteoutFile => Resolution::Directory(vec![i]),
                Dir => match shown {
                    Resolution::Directory(mut below) => {
                        below.insert(0, i);
                        Resolution::Directory(below)
                    }
                    _ => Resolution::Directory(vec![i]),
                },
            };
        }
        shown
    }

    fn run(stack: &[Have]) -> Resolution {
        let look = |i: usize| -> Result<_, Infallible> {
            Ok(match stack[i] {
                Nothing | WhiteoutFile => Sighting::Nothing,
                WhiteoutDevice => Sighting::Whiteout,
                File | FileAndWhiteoutFile => Sighting::NonDirectory,
                Dir | OpaqueDir | DirAndWhiteoutFile => Sighting::Directory,
            })
        };
        let hides = |i: usize, q| {
            Ok(match q {
                Question::WhiteoutBeside => stack[i] == WhiteoutFile,
                Question::Opaque => matches!(stack[i], OpaqueDir | DirAndWhiteoutFile),
            })
        };
        let Ok(found) = resolve(0..stack.len(), look, hides);
        found
    }

    #[test]
    fn names_resolve_top_down_in_every_stack_of_up_to_four_layers() {
        let mut stacks: Vec<Vec<Have>> = vec![vec![]];
        for _ in 0..4 {
            stacks = stacks
                .into_iter()
                .flat_map(|s| {
                    ALL.into_iter().map(move |h| {
                        let mut longer = s.clone();
                        longer.push(h);
                        longer
                    })
                })
                .collect();
            for stack in &stacks {
                assert_eq!(run(stack), reference(stack), "{stack:?}");
            }
        }
        assert_eq!(stacks.len(), ALL.len().pow(4));
    }

    #[test]
    fn marks_are_not_looked_for_where_nothing_lies_below() {
        let asked = |look: &[Sighting]| {
            let mut count = 0;
            let Ok(_) = resolve::<Infallible>(
                0..look.len(),
                |i| Ok(look[i]),
                |_, _| {
                    count += 1;
                    Ok(false)
                },
            );
            count
        };
        assert_eq!(asked(&[Sighting::Nothing, Sighting::Nothing]), 0);
        assert_eq!(asked(&[Sighting::Directory, Sighting::Nothing]), 0);
        assert_eq!(asked(&[Sighting::Nothing, Sighting::NonDirectory]), 1);
    }
}
