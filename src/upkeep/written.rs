//! In which namespace the marks of an upper are, whatever is believed.

use super::trouble;
use super::walk::{believed, each_file};
use crate::error::MountError;
use crate::layer::private::Space;
use crate::union::Union;

/// How many marks there are in each namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// In `trusted.overlay`, which only root sees.
    pub trusted: u64,
    /// In `user.overlay`.
    pub user: u64,
}

impl Written {
    /// Counts the marks of the upper.
    ///
    /// # Errors
    /// Where something cannot be read.
    pub fn count(union: &Union) -> Result<Written, MountError> {
        let mut written = Written::default();
        each_file(union, |_, marks| {
            for mark in marks {
                match mark.space {
                    Space::Trusted => written.trusted += 1,
                    Space::User => written.user += 1,
                    Space::FuseOverlayfs => {}
                }
            }
            Ok(())
        })?;
        Ok(written)
    }

    /// The namespace that all marks are in, if there are any and all are in one.
    pub fn only(self) -> Option<Space> {
        match (self.trusted, self.user) {
            (0, 0) => None,
            (_, 0) => Some(Space::Trusted),
            (0, _) => Some(Space::User),
            _ => None,
        }
    }

    /// Where they are, and how that is said, if none is where this mount believes them:
    /// another kind of mount made the upper then.
    ///
    /// # Errors
    /// Where there is no upper.
    pub fn elsewhere(self, union: &Union) -> Result<Option<(Space, String)>, MountError> {
        let upper = union.tree.upper_layer().map_err(|e| trouble("upper", e))?;
        let others = self.only().filter(|space| *space != believed(upper));
        Ok(others.map(|space| {
            let prefix = match space {
                Space::Trusted => "trusted.overlay",
                Space::User | Space::FuseOverlayfs => "user.overlay",
            };
            let said = match self.trusted + self.user {
                1 => format!("its only mark is in {prefix}"),
                n => format!("all of its {n} marks are in {prefix}"),
            };
            (space, said)
        }))
    }
}
