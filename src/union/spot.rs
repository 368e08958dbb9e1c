//! What is at one name of a directory whose names are locked: from memory where that
//! suffices, else from the layers.

use super::Union;
use crate::error::{Errno, Result};
use crate::merge::decide::UpperHas;
use crate::merge::name::Name;
use crate::node::Node;
use crate::node::dir::{Absence, DirState};
use crate::node::table::LookupRef;
use crate::sys::fs;
use crate::sys::path::At;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A name that somebody removes or moves, or moves something to.
pub(super) struct Spot<'a> {
    pub dir: &'a Arc<Node>,
    pub name: &'a Name,
    /// The upper's part of the directory.
    pub fd: Arc<OwnedFd>,
    /// What the union shows there.
    shown: Option<LookupRef<'a>>,
    /// What the upper has there, as far as a look has told.
    upper: Option<UpperHas>,
    /// How many names the lower file has that was seen there.
    pub lower_links: Option<u32>,
}

impl Spot<'_> {
    /// For the system calls that change the upper there.
    pub fn at(&self) -> At<'_> {
        At::new(&*self.fd, self.name)
    }

    /// What the union shows there.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.shown.as_ref().map(LookupRef::node)
    }
}

impl Union {
    /// What is at `name` in `dir`, which has a part in the upper; `names` are its names, and
    /// `absence` is what was known not to be there when they were locked.
    ///
    /// # Errors
    /// ENOENT in a directory that was removed; those of looking at the layers.
    pub(super) fn spot<'a>(
        &'a self,
        dir: &'a Arc<Node>,
        names: &DirState,
        name: &'a Name,
        absence: Option<&Absence>,
    ) -> Result<Spot<'a>> {
        if dir.is_removed() {
            return Err(Errno::ENOENT);
        }
        let mut spot = Spot {
            dir,
            name,
            fd: self.tree.upper_dir(dir)?,
            shown: None,
            upper: None,
            lower_links: None,
        };
        if let Some(absence) = absence.filter(|absence| absence.name == *name) {
            spot.upper = Some(whiteout_if(absence.in_upper));
            return Ok(spot);
        }
        if let Some(listing) = self.known(names)
            && listing.get(&self.tree.cookies, name).is_none()
        {
            return Ok(spot);
        }
        if let Some(known) = self.recall(dir, names, name) {
            spot.shown = Some(known);
            return Ok(spot);
        }
        let parts = self.tree.parts(dir)?;
        let seen = self.see(dir, &parts, name)?;
        spot.lower_links = seen.lower_links().filter(|_| !seen.is_in_first());
        spot.upper = Some(if seen.is_in_first() {
            UpperHas::Something
        } else {
            whiteout_if(seen.first_has_entry())
        });
        spot.shown = self.intern(dir, name, &parts, &seen)?.map(|e| e.node);
        Ok(spot)
    }

    /// The node at `name` in `dir`, where the table has it and no look could tell more: a
    /// node says itself where it is. What may be one of several links is looked at, and so
    /// is all where layers change under the mount.
    fn recall(&self, dir: &Node, names: &DirState, name: &Name) -> Option<LookupRef<'_>> {
        if self.listing_life.is_some() {
            return None;
        }
        let known = self.tree.refer(names.guess(&self.tree.cookies, name))?;
        let node = known.node();
        let sure = node.in_upper() || node.is_dir() || node.is_single();
        (sure && node.is_at(dir, name)).then_some(known)
    }

    /// What the upper has at `spot`, whose node, if there is one, is held still.
    pub(super) fn upper_at(&self, spot: &Spot<'_>) -> Result<UpperHas> {
        if let Some(node) = spot.node() {
            // It may have been copied up since, and an alias made.
            if node.is_at(spot.dir, spot.name) {
                return Ok(if node.in_upper() {
                    UpperHas::Something
                } else {
                    UpperHas::Nothing
                });
            }
            if spot.upper == Some(UpperHas::Something) {
                return Ok(UpperHas::Something);
            }
        } else if let Some(known) = spot.upper {
            return Ok(known);
        }
        let part = spot.dir.as_dir()?;
        if spot.shown.is_none() && part.whiteouts.get() == Some(false) {
            return Ok(UpperHas::Nothing);
        }
        match fs::stat(spot.at()) {
            Ok(_) if spot.shown.is_some() => Ok(UpperHas::Something),
            Ok(_) => Ok(UpperHas::Whiteout),
            Err(e) if e.errno == Errno::ENOENT => Ok(UpperHas::Nothing),
            Err(e) => Err(e.errno),
        }
    }

    /// Whether the layers below the upper show anything at `spot`, at which the upper has
    /// `upper`.
    pub(super) fn below_at(
        &self,
        spot: &Spot<'_>,
        names: &DirState,
        upper: UpperHas,
    ) -> Result<bool> {
        if !spot.dir.stack().is_merged() {
            return Ok(false);
        }
        if let Some(node) = spot.node() {
            if upper == UpperHas::Nothing {
                return Ok(true);
            }
            if node.is_at(spot.dir, spot.name)
                && let Some(known) = node.covers()
            {
                return Ok(known);
            }
            let listed = self.known(names);
            let listed = listed.and_then(|listing| listing.get(&self.tree.cookies, spot.name));
            if listed.is_some_and(|entry| entry.lower.is_some()) {
                return Ok(true);
            }
        } else if upper == UpperHas::Nothing && !self.is_hidden_beside(spot)? {
            return Ok(false);
        }
        let below = self.shows_below(spot.dir, &self.tree.parts(spot.dir)?, spot.name)?;
        if let Some(node) = spot.node()
            && node.is_at(spot.dir, spot.name)
        {
            node.set_covers(below);
        }
        Ok(below)
    }

    /// Whether a whiteout file is beside the name.
    pub(super) fn is_hidden_beside(&self, spot: &Spot<'_>) -> Result<bool> {
        let hints = &spot.dir.as_dir()?.upper_hints;
        let layer = self.tree.upper_layer()?;
        Ok(layer.whiteout_beside(At::fd(&*spot.fd), hints, spot.name)?)
    }
}

/// What the upper has at a name that the union does not show.
fn whiteout_if(has_entry: bool) -> UpperHas {
    if has_entry {
        UpperHas::Whiteout
    } else {
        UpperHas::Nothing
    }
}
