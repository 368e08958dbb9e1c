//! What a change of names means for the upper: decided here, done in `union/`.

/// What the upper itself has at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpperHas {
    /// No entry.
    Nothing,
    /// A whiteout.
    Whiteout,
    /// A file or directory.
    Something,
}

/// How a name goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Remove the upper's entry; nothing lies below.
    Plain,
    /// The upper has none: put a whiteout there.
    Whiteout,
    /// Put a whiteout in the place of the upper's entry, at one stroke.
    Replace,
}

/// Removing a name of which `upper` is the upper's part and which is visible below
/// the upper or not.
pub fn removal(in_upper: bool, below: bool) -> Removal {
    match (in_upper, below) {
        (true, false) => Removal::Plain,
        (true, true) => Removal::Replace,
        (false, _) => Removal::Whiteout,
    }
}

/// How a new name is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Directly: nothing is in the way.
    InPlace,
    /// In work first, then exchanged with the whiteout; a directory is made opaque,
    /// or what was deleted would be back.
    OverWhiteout,
}

/// Creating a name that the union does not show.
pub fn creation(upper: UpperHas) -> Creation {
    match upper {
        UpperHas::Whiteout => Creation::OverWhiteout,
        UpperHas::Nothing | UpperHas::Something => Creation::InPlace,
    }
}

/// One side of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// What the upper has there, after copy-up of the source.
    pub upper: UpperHas,
    /// Whether a layer below shows something at that name.
    pub below: bool,
    /// Whether the union shows a directory there.
    pub is_dir: bool,
    /// Whether what the union shows there has lower content, by its name or a redirect: a
    /// merged directory, or a file whose data is below.
    pub redirected: bool,
}

/// One step of a rename, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the source directory opaque: its new place has something below it.
    OpaqueSource,
    /// Note in the source where its lower content lies.
    RedirectSource,
    /// The same in the target (of an exchange).
    RedirectTarget,
    /// Make the target directory opaque (of an exchange).
    OpaqueTarget,
    /// Put an empty opaque directory in the place of the target directory, whose
    /// upper holds whiteouts.
    EmptyTarget,
    /// Rename, leaving nothing behind.
    Move,
    /// Rename, leaving a whiteout behind.
    MoveLeavingWhiteout,
    /// Exchange source and target: the target is a whiteout and the source a
    /// directory, which cannot replace it; or both were asked to change places.
    Exchange,
    /// Remove the whiteout that an exchange left at the source.
    DropWhiteoutAtSource,
}

/// The steps of a rename without RENAME_EXCHANGE.
///
/// `to_dirty`: the target is a directory whose upper part is not really empty.
pub fn rename(from: Side, to: Side, to_dirty: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if from.redirected {
        steps.push(Step::RedirectSource);
    } else if from.is_dir && to.below {
        steps.push(Step::OpaqueSource);
    }
    if to.is_dir && to_dirty {
        steps.push(Step::EmptyTarget);
    }
    if from.is_dir && to.upper == UpperHas::Whiteout {
        steps.push(Step::Exchange);
        if !from.below {
            steps.push(Step::DropWhiteoutAtSource);
        }
    } else if from.below {
        steps.push(Step::MoveLeavingWhiteout);
    } else {
        steps.push(Step::Move);
    }
    steps
}

/// The steps of RENAME_EXCHANGE.
pub fn exchange(from: Side, to: Side) -> Vec<Step> {
    let mut steps = Vec::new();
    if from.redirected {
        steps.push(Step::RedirectSource);
    } else if from.is_dir && to.below {
        steps.push(Step::OpaqueSource);
    }
    if to.redirected {
        steps.push(Step::RedirectTarget);
    } else if to.is_dir && from.below {
        steps.push(Step::OpaqueTarget);
    }
    steps.push(Step::Exchange);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name in the upper, for carrying out steps on paper.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Slot {
        Nothing,
        Whiteout,
        Source { dir: bool, opaque: bool },
        Target { dir: bool, opaque: bool },
    }

    fn opaque(slot: &mut Slot) {
        match slot {
            Slot::Source { dir: true, opaque } | Slot::Target { dir: true, opaque } => {
                *opaque = true
            }
            other => panic!("{other:?} made opaque"),
        }
    }

    /// Whether lower content shows through a slot that has something below it.
    fn shows_below(slot: Slot) -> bool {
        matches!(
            slot,
            Slot::Nothing
                | Slot::Source {
                    dir: true,
                    opaque: false
                }
                | Slot::Target {
                    dir: true,
                    opaque: false
                }
        )
    }

    fn run(steps: &[Step], mut from: Slot, mut to: Slot) -> (Slot, Slot) {
        for step in steps {
            match step {
                Step::OpaqueSource => opaque(&mut from),
                Step::OpaqueTarget => opaque(&mut to),
                Step::RedirectSource | Step::RedirectTarget => unreachable!("nothing is merged"),
                Step::EmptyTarget => assert!(matches!(to, Slot::Target { dir: true, .. })),
                Step::Move => (from, to) = (Slot::Nothing, from),
                Step::MoveLeavingWhiteout => (from, to) = (Slot::Whiteout, from),
                Step::Exchange => (from, to) = (to, from),
                Step::DropWhiteoutAtSource => {
                    assert_eq!(from, Slot::Whiteout);
                    from = Slot::Nothing;
                }
            }
        }
        (from, to)
    }

    #[test]
    fn after_a_rename_nothing_from_below_shows_at_either_name() {
        let bools = [false, true];
        for dir in bools {
            for from_below in bools {
                for to_below in bools {
                    for to_upper in [UpperHas::Nothing, UpperHas::Whiteout, UpperHas::Something] {
                        for to_shown in bools {
                            // A shown target without an upper part lies below.
                            let possible = match (to_upper, to_shown) {
                                (UpperHas::Nothing, shown) => shown == to_below,
                                (UpperHas::Whiteout, shown) => !shown,
                                (UpperHas::Something, shown) => shown,
                            };
                            if !possible {
                                continue;
                            }
                            let side = |upper, below, is_dir| Side {
                                upper,
                                below,
                                is_dir,
                                redirected: false,
                            };
                            let from = side(UpperHas::Something, from_below, dir);
                            let to = side(to_upper, to_below, dir && to_shown);
                            let steps = rename(from, to, false);
                            let slot = match to_upper {
                                UpperHas::Nothing => Slot::Nothing,
                                UpperHas::Whiteout => Slot::Whiteout,
                                UpperHas::Something => Slot::Target { dir, opaque: false },
                            };
                            let (a, b) = run(&steps, Slot::Source { dir, opaque: false }, slot);
                            assert!(matches!(b, Slot::Source { .. }), "{from:?} {to:?}");
                            assert!(
                                matches!(a, Slot::Nothing | Slot::Whiteout),
                                "{from:?} {to:?}"
                            );
                            assert_eq!(a == Slot::Whiteout, from_below, "{from:?} {to:?}");
                            assert!(!(to_below && shows_below(b)), "{from:?} {to:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_merged_directory_is_redirected_before_it_moves_and_never_made_opaque() {
        let side = Side {
            upper: UpperHas::Something,
            below: true,
            is_dir: true,
            redirected: true,
        };
        assert_eq!(
            rename(side, side, false),
            [Step::RedirectSource, Step::MoveLeavingWhiteout]
        );
        assert_eq!(
            exchange(side, side),
            [Step::RedirectSource, Step::RedirectTarget, Step::Exchange]
        );
    }

    #[test]
    fn deleting_leaves_exactly_the_whiteouts_that_are_needed() {
        assert_eq!(removal(true, false), Removal::Plain);
        assert_eq!(removal(true, true), Removal::Replace);
        assert_eq!(removal(false, true), Removal::Whiteout);
    }
}
