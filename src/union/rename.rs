//! Moving names: prepare (copy up, unlocked), lock, look again, act, commit.

use super::remove::Try;
use super::spot::Spot;
use super::told::Target;
use super::{Union, told};
use crate::copyup::{self, Need, meta};
use crate::error::{Errno, Result, best_effort};
use crate::layer::dirfds::open_listing;
use crate::layer::marks::whiteout_file;
use crate::merge::decide::{self, Side, Step, UpperHas};
use crate::merge::inomap::{Ino, RealId};
use crate::merge::name::Name;
use crate::node::dir::DirState;
use crate::node::lock::{Pair, hold_still, wait_for_copyup};
use crate::node::stack::Stack;
use crate::node::{Node, Place};
use crate::observe::{self, Mark};
use crate::sys::dir::for_each;
use crate::sys::fs::{self, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
use crate::sys::path::At;
use std::os::fd::AsFd;
use std::sync::Arc;

impl Union {
    /// Moves `name` in `parent` to `new_name` in `new_parent`, with RENAME_NOREPLACE or
    /// RENAME_EXCHANGE.
    ///
    /// # Errors
    /// Those of rename(2); EXDEV for a directory with lower content where redirects are
    /// not written.
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        flags: u32,
    ) -> Result<()> {
        if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0
            || flags == RENAME_NOREPLACE | RENAME_EXCHANGE
        {
            return Err(Errno::EINVAL);
        }
        let upper = self.tree.upper_layer()?;
        if flags == RENAME_EXCHANGE && !upper.caps.rename_exchange {
            return Err(Errno::EINVAL);
        }
        let (name, new_name) = (self.existing_name(name)?, self.new_name(new_name)?);
        self.with_room(|| self.move_name(parent, &name, new_parent, &new_name, flags))?;
        self.persist_dirs([parent, new_parent])
    }

    fn move_name(
        &self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        flags: u32,
    ) -> Result<()> {
        let (from_dir, to_dir) = (self.live_dir(parent)?, self.live_dir(new_parent)?);
        self.ensure(&from_dir, Need::Meta)?;
        self.ensure(&to_dir, Need::Meta)?;
        loop {
            let mut pair = self.tree.lock_pair(&from_dir, &to_dir)?;
            let absence = pair.to().take_absence();
            pair.from().take_absence();
            let (from_names, to_names) = pair.both();
            let from = self.spot(&from_dir, from_names, name, None)?;
            let to = self.spot(&to_dir, to_names, new_name, absence.as_ref())?;
            let outcome = self.rename_locked(&mut pair, &from, &to, flags)?;
            if let (Some(absence), false) = (absence, matches!(outcome, Try::Done(()))) {
                pair.to().note_absence(absence);
            }
            drop(pair);
            match outcome {
                Try::Done(()) => return Ok(()),
                Try::CopyUp(node, need) => self.ensure(&node, need)?,
                Try::Busy(node) => wait_for_copyup(&node),
            }
        }
    }

    fn rename_locked(
        &self,
        pair: &mut Pair<'_>,
        from: &Spot<'_>,
        to: &Spot<'_>,
        flags: u32,
    ) -> Result<Try<()>> {
        let src = from.node().ok_or(Errno::ENOENT)?;
        let tgt = to.node();
        let exchange = flags == RENAME_EXCHANGE;
        if let Some(done) = check(src, tgt, to, flags)? {
            return Ok(done);
        }
        let moves_merged =
            src.stack().is_merged() || exchange && tgt.is_some_and(|t| t.stack().is_merged());
        if moves_merged && !self.redirects.writes() {
            return Err(Errno::EXDEV);
        }
        for (node, spot) in [(Some(src), from), (tgt, to)] {
            let Some(node) = node else { continue };
            let moves = node.ino == src.ino || exchange;
            // A file leaves its data below only where it can note where that is.
            let need = if moves && !self.redirects.writes() {
                Need::All
            } else {
                Need::Meta
            };
            if (moves || self.must_alias(node, spot.lower_links)) && !need.is_met(node) {
                return Ok(Try::CopyUp(node.clone(), need));
            }
        }
        let mut still = Vec::new();
        if let Err(busy) = hold_still(std::iter::once(src).chain(tgt), &mut still) {
            return Ok(Try::Busy(busy));
        }
        let mut inner = match tgt {
            Some(t) if !exchange => t.dir.as_ref().map(|part| part.changing()),
            _ => None,
        };
        if let (Some(inner), Some(t)) = (&mut inner, tgt)
            && !self.load(t, inner)?.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.alias(src, from.dir, from.name, from.lower_links)?;
        if let Some(t) = tgt {
            self.alias(t, to.dir, to.name, to.lower_links)?;
        }
        let (from_names, to_names) = pair.both();
        let sides = (
            self.side(from, from_names, Some(src))?,
            self.side(to, to_names, tgt)?,
        );
        self.act((from, to), sides, src, tgt, exchange)?;
        let below = (sides.0.below, sides.1.below);
        self.commit(pair, (from, to), below, src, tgt.filter(|_| exchange));
        Ok(Try::Done(()))
    }

    /// Does to the upper what the rename means.
    fn act(
        &self,
        (from, to): (&Spot<'_>, &Spot<'_>),
        (from_side, to_side): (Side, Side),
        src: &Arc<Node>,
        tgt: Option<&Arc<Node>>,
        exchange: bool,
    ) -> Result<()> {
        let dirty = match tgt {
            Some(t) if t.is_dir() && !exchange && t.in_upper() => {
                !self.upper_is_empty(&self.tree.parts(t)?)?
            }
            _ => false,
        };
        let steps = if exchange {
            decide::exchange(from_side, to_side)
        } else {
            decide::rename(from_side, to_side, dirty)
        };
        for end in [from, to] {
            self.mark_impure_for(end, src)?;
            if let Some(t) = tgt.filter(|_| exchange) {
                self.mark_impure_for(end, t)?;
            }
        }
        let held = match tgt {
            Some(t) if !exchange => {
                let in_upper = to_side.upper == UpperHas::Something;
                self.hold_last(t, to, in_upper)?
            }
            _ => None,
        };
        let layer = self.tree.upper_layer()?;
        let beside = self.is_hidden_beside(to)?;
        if steps.contains(&Step::MoveLeavingWhiteout) || steps.contains(&Step::Exchange) {
            from.dir.as_dir()?.whiteouts.learn(true);
        }
        for step in &steps {
            self.step(*step, (from, src), (to, tgt))?;
        }
        if beside || layer.marks_opaque_by_file() && steps.contains(&Step::EmptyTarget) {
            self.drop_whiteout_file(&to.fd, to.name);
        }
        let target = match (to_side.upper, tgt) {
            (UpperHas::Whiteout, _) => Target::Whiteout,
            (_, None) if beside => Target::Whiteout,
            (UpperHas::Nothing, Some(_)) => Target::Lower,
            _ => Target::Other,
        };
        told::renamed(&steps, (from.dir, from.name), (to.dir, to.name), target);
        if let Some(t) = tgt.filter(|_| !exchange) {
            self.after_removal(t, to.dir, to.name, held);
        }
        Ok(())
    }

    fn side(&self, end: &Spot<'_>, names: &DirState, node: Option<&Arc<Node>>) -> Result<Side> {
        let upper = self.upper_at(end)?;
        Ok(Side {
            upper,
            below: self.below_at(end, names, upper)?,
            is_dir: node.is_some_and(|n| n.is_dir()),
            redirected: node.is_some_and(|n| n.stack().needs_redirect()),
        })
    }

    /// Notes in `node`, a merged directory or a file whose data is below, where its lower
    /// content lies, before it goes from one end to the other. EXDEV, where that cannot be noted, makes the caller
    /// copy.
    fn redirect(&self, node: &Node, from: &Spot<'_>, to: &Spot<'_>) -> Result<()> {
        let same = from.dir.ino == to.dir.ino;
        let at = from.at();
        if let Some(redirect) = self.redirect_for(node, from.dir, from.name, same, at)? {
            node.set_plain(false);
            let set = self.tree.upper_layer()?.set_redirect(at, &redirect);
            if let Err(e) = set {
                log::info!(
                    "{:?} is not redirected: {e}",
                    from.name.escape_ascii().to_string()
                );
                return Err(Errno::EXDEV);
            }
            let target = redirect.to_disk();
            observe::marked(
                Mark::Redirect,
                |way| to.dir.tell_way_to(to.name, way),
                Some(&target),
            );
        }
        Ok(())
    }

    /// A directory that a file with an origin comes to lists it by looking it up.
    fn mark_impure_for(&self, end: &Spot<'_>, node: &Node) -> Result<()> {
        let own = node.stack().upper.map(|ino| {
            self.tree.ino_of(RealId {
                dev: self.tree.layers.upper.as_ref().map_or(0, |u| u.dev),
                ino,
            })
        });
        if own.is_some_and(|own| own != node.ino) {
            copyup::mark_impure(&self.tree, end.dir, &end.fd)?;
        }
        Ok(())
    }

    fn step(
        &self,
        step: Step,
        (from, src): (&Spot<'_>, &Arc<Node>),
        (to, tgt): (&Spot<'_>, Option<&Arc<Node>>),
    ) -> Result<()> {
        let layer = self.tree.upper_layer()?;
        match step {
            Step::RedirectSource => self.redirect(src, from, to)?,
            Step::RedirectTarget => self.redirect(tgt.ok_or(Errno::EIO)?, to, from)?,
            Step::OpaqueSource => layer.make_opaque(from.at())?,
            Step::OpaqueTarget => layer.make_opaque(to.at())?,
            Step::EmptyTarget if layer.marks_opaque_by_file() => {
                self.strip_target(to, tgt.ok_or(Errno::EIO)?)?;
            }
            Step::EmptyTarget => self.empty_target(to)?,
            Step::Move if src.is_dir() || tgt.is_none() && self.replaces_mark(to)? => {
                layer.rename_with_mark(from.at(), to.at(), 0)?;
            }
            Step::Move => fs::rename(from.at(), to.at(), 0)?,
            Step::Exchange if !layer.caps.rename_exchange => self.move_onto_whiteout(from, to)?,
            Step::Exchange => layer.rename_with_mark(from.at(), to.at(), RENAME_EXCHANGE)?,
            // It has nothing to hide, so it may as well stay.
            Step::DropWhiteoutAtSource if !layer.caps.rename_exchange => {
                self.drop_whiteout_file(&from.fd, from.name);
            }
            Step::DropWhiteoutAtSource => {
                best_effort("drop a whiteout", fs::unlink(from.at()));
            }
            Step::MoveLeavingWhiteout if layer.caps.writes_files => {
                layer.make_whiteout_file(At::fd(&*from.fd), from.name)?;
                from.dir.as_dir()?.upper_hints.files.learn(true);
                fs::rename(from.at(), to.at(), 0)?;
            }
            Step::MoveLeavingWhiteout if layer.caps.rename_whiteout => {
                layer.rename_with_mark(from.at(), to.at(), RENAME_WHITEOUT)?;
            }
            Step::MoveLeavingWhiteout => self.move_over_own_whiteout(from, to)?,
        }
        Ok(())
    }

    /// Whether what moves to `to` takes the place of a whiteout, where that makes a difference.
    fn replaces_mark(&self, to: &Spot<'_>) -> Result<bool> {
        let apart = self.tree.upper_layer()?.logs_files_apart();
        Ok(apart && self.upper_at(to)? != UpperHas::Nothing)
    }

    /// Moves a directory to where a whiteout device is, where the two cannot change places:
    /// whiteout files hide at both names what is below until it has moved.
    fn move_onto_whiteout(&self, from: &Spot<'_>, to: &Spot<'_>) -> Result<()> {
        let layer = self.tree.upper_layer()?;
        for end in [from, to] {
            layer.make_whiteout_file(At::fd(&*end.fd), end.name)?;
            end.dir.as_dir()?.upper_hints.files.learn(true);
        }
        fs::unlink(to.at())?;
        fs::rename(from.at(), to.at(), 0)?;
        self.drop_whiteout_file(&to.fd, to.name);
        Ok(())
    }

    /// Where rename leaves no whiteout by itself: beside the source stands a whiteout file
    /// while it moves, which hides only what is below as long as the source is there.
    fn move_over_own_whiteout(&self, from: &Spot<'_>, to: &Spot<'_>) -> Result<()> {
        let layer = self.tree.upper_layer()?;
        if !layer.caps.reads_files || whiteout_file(from.name).is_none() {
            return self.change_places_with_whiteout(from, to);
        }
        layer.make_whiteout_file(At::fd(&*from.fd), from.name)?;
        from.dir.as_dir()?.upper_hints.files.learn(true);
        if let Err(e) = fs::rename(from.at(), to.at(), 0) {
            self.drop_whiteout_file(&from.fd, from.name);
            return Err(e.errno);
        }
        // The mark that overlayfs knows takes its place.
        let device = self.scratch()?.make_whiteout(from.at());
        if best_effort("leave a whiteout behind", device).is_some() {
            self.drop_whiteout_file(&from.fd, from.name);
        }
        Ok(())
    }

    /// The same without whiteout files: a whiteout is put at the target, where it shows
    /// nothing or hides what is about to be replaced, and changes places with the source.
    fn change_places_with_whiteout(&self, from: &Spot<'_>, to: &Spot<'_>) -> Result<()> {
        let scratch = self.scratch()?;
        let temp_name = scratch.temp_name();
        let temp = At::new(scratch.dir(), &temp_name);
        let replaces = match fs::stat(to.at()) {
            Ok(_) => true,
            Err(e) if e.errno == Errno::ENOENT => false,
            Err(e) => return Err(e.errno),
        };
        scratch.make_whiteout(temp)?;
        to.dir.as_dir()?.whiteouts.learn(true);
        let flags = if replaces {
            RENAME_EXCHANGE
        } else {
            RENAME_NOREPLACE
        };
        if let Err(e) = fs::rename(temp, to.at(), flags) {
            scratch.discard(&temp_name);
            return Err(e.errno);
        }
        let moved = fs::rename(from.at(), to.at(), RENAME_EXCHANGE);
        if moved.is_err() {
            let back = if replaces {
                fs::rename(temp, to.at(), RENAME_EXCHANGE)
            } else {
                fs::unlink(to.at())
            };
            best_effort("put the target back", back);
        }
        scratch.discard(&temp_name);
        Ok(moved?)
    }

    /// Makes the upper's part of `to`, a directory that is empty in the union, really empty
    /// where opaque marks are files, so that a rename can replace it: a whiteout file beside it
    /// comes to hide what those in it do.
    fn strip_target(&self, to: &Spot<'_>, tgt: &Node) -> Result<()> {
        let layer = self.tree.upper_layer()?;
        layer.make_whiteout_file(At::fd(&*to.fd), to.name)?;
        to.dir.as_dir()?.upper_hints.files.learn(true);
        let upper = tgt.stack().upper.ok_or(Errno::EIO)?;
        let dir = self.tree.upper_dir(tgt)?;
        if layer.redirect(At::directory(&*dir))?.is_some() {
            layer.drop_redirect(At::directory(&*dir))?;
        }
        // Nothing of what is below counts any more, whatever becomes of the rename.
        tgt.set_stack(Stack::upper_only(upper));
        let before = fs::stat(At::fd(&*dir))?;
        let mut marks = Vec::new();
        for_each(&open_listing(dir.as_fd())?, |entry| {
            marks.push(entry.name.to_vec());
            Ok::<_, Errno>(())
        })?;
        let stripped = marks
            .iter()
            .try_for_each(|mark| fs::unlink(At::new(&*dir, mark)));
        let times = meta::copy_times(&before, At::fd(&*dir));
        best_effort("restore a directory's times", times);
        Ok(stripped?)
    }

    /// Puts an empty opaque directory, otherwise the same, in the place of a directory
    /// that is empty in the union but not in the upper.
    fn empty_target(&self, to: &Spot<'_>) -> Result<()> {
        let scratch = self.scratch()?;
        let temp_name = scratch.temp_name();
        let temp = At::new(scratch.dir(), &temp_name);
        let layer = self.tree.upper_layer()?;
        let made = (|| {
            let look = layer.look(to.at())?;
            fs::mkdir(temp, 0o700)?;
            let now = fs::stat(temp)?;
            meta::copy((layer, to.at(), &look), (layer, temp, &now), false)?;
            layer.make_opaque(temp)?;
            meta::copy_times(&look.stat, temp)?;
            layer.rename_with_mark(temp, to.at(), RENAME_EXCHANGE)
        })();
        scratch.discard(&temp_name);
        Ok(made?)
    }

    /// Commits the move to memory.
    fn commit(
        &self,
        pair: &mut Pair<'_>,
        (from, to): (&Spot<'_>, &Spot<'_>),
        (below_from, below_to): (bool, bool),
        src: &Arc<Node>,
        exchanged: Option<&Arc<Node>>,
    ) {
        if let Some(listing) = &mut pair.from().listing {
            listing.remove(&self.tree.cookies, from.name);
        }
        self.list(pair.to(), to.name, src.ino, src.kind);
        self.replace(src, from, (to, below_to));
        if let Some(other) = exchanged {
            self.list(pair.from(), from.name, other.ino, other.kind);
            self.replace(other, to, (from, below_from));
        }
    }

    /// `node` went from one end to the other, below which there is something or not.
    fn replace(&self, node: &Node, from: &Spot<'_>, (to, below): (&Spot<'_>, bool)) {
        if node.is_at(from.dir, from.name) || node.is_removed() {
            let place = Place::Named(to.dir.clone(), to.name.clone());
            self.tree.set_place(node, place);
            node.set_covers(below);
        }
    }
}

/// What rename(2) refuses, or has nothing to do for.
fn check(
    src: &Node,
    target: Option<&Arc<Node>>,
    to: &Spot<'_>,
    flags: u32,
) -> Result<Option<Try<()>>> {
    let mut above = Some(to.dir.clone());
    while let Some(dir) = above {
        if dir.ino == src.ino {
            return Err(Errno::EINVAL);
        }
        above = match dir.place() {
            Place::Named(parent, _) => Some(parent),
            _ => None,
        };
    }
    let Some(tgt) = target else {
        return if flags == RENAME_EXCHANGE {
            Err(Errno::ENOENT)
        } else {
            Ok(None)
        };
    };
    if flags == RENAME_NOREPLACE {
        return Err(Errno::EEXIST);
    }
    if src.ino == tgt.ino {
        return Ok(Some(Try::Done(())));
    }
    match (src.is_dir(), tgt.is_dir()) {
        _ if flags == RENAME_EXCHANGE => Ok(None),
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(None),
    }
}
