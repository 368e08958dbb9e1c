//! `settle`: turns everything in an upper that not every overlayfs reads into what all of
//! them do, whatever their options: plain copies, devices 0:0, `overlay.opaque`.
//!
//! It goes in steps, each of which leaves the view as it is, so that it may be killed at
//! any point and run again. (Two things may have changed then: the times of the file or
//! directory that was just worked on and, up to the next run, a link count with one too
//! many.)
//!
//! 1. `whole`: what overlayfs would merge otherwise than the union does (redirected
//!    directories above all) is copied up, all that is below it too, and made opaque
//!    then. Copies of attributes alone get their data.
//! 2. `links`: every name of a hard link that was copied up gets a link in the upper;
//!    then the index is not needed any more, and goes.
//! 3. `marks`: the marks of each directory are turned into devices and xattrs, each
//!    before the old one goes, and what is needless is dropped.
//! 4. `spaces`: if the marks are to be in the other namespace, all are written there,
//!    that is noted, and the old ones go.
//!
//! The first two are done through the union as it would be mounted, the others on the
//! upper as it is on disk.

mod links;
mod marks;
mod plain;
mod spaces;
mod tour;
mod whole;

use super::written::Written;
use super::{Shown, trouble};
use crate::config::plan::{MountPlan, XattrSpace};
use crate::error::{Errno, MountError};
use crate::layer::keys::{Keys, TRUSTED, USER};
use crate::layer::private::Space;
use crate::sys::io;
use crate::union::Union;

/// What was done, and how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Names looked at, of the union and of the upper.
    pub names: u64,
    /// Directories that were made whole.
    pub directories: u64,
    /// Files that were copied, and files that were given their data.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Hard links that were given an entry.
    pub links: u64,
    /// Marks that were turned into overlayfs's own or into the other namespace.
    pub converted: u64,
    /// Marks that were dropped.
    pub dropped: u64,
    /// Users' attributes that overlayfs is going to show under another name, since plyfs
    /// keeps more names than overlayfs to itself.
    pub escaped: u64,
}

impl Tally {
    /// Whether anything was done.
    pub fn is_nothing(&self) -> bool {
        *self
            == Tally {
                names: self.names,
                escaped: self.escaped,
                ..Tally::default()
            }
    }
}

/// The namespace that the marks are in afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// That in which a mount of the plan believes them.
    #[default]
    AsMounted,
    /// `trusted.overlay`, for mounts by root.
    Trusted,
    /// `user.overlay`, for mounts in a user namespace.
    User,
}

impl Target {
    fn space(self, mounted: Space) -> Space {
        match self {
            Target::AsMounted => mounted,
            Target::Trusted => Space::Trusted,
            Target::User => Space::User,
        }
    }
}

/// Settles the upper of `plan`. Its marks are read in the namespace that a mount would
/// believe, or, if `target` names one, in the only one that has any. `watch` is told of
/// every step.
///
/// # Errors
/// One line that names the path, the cause and the remedy; what was done up to there
/// stays, and the view is the same.
pub fn settle(
    plan: &MountPlan,
    target: Target,
    watch: &mut dyn FnMut(&Tally),
) -> Result<Tally, MountError> {
    let mut plan = plan.clone();
    // What is in the index was shown by mounts with it, which is the default.
    plan.index = true;
    plan.metacopy = false;
    let mut job = Job {
        tally: Tally::default(),
        watch,
    };
    if spaces::finish(&plan, &mut job)? {
        return Ok(job.tally);
    }
    choose_space(&mut plan, target)?;
    {
        let union = Union::open(&plan)?;
        let space = space_of(&union);
        whole::make(&union, space, target.space(space), &mut job)?;
        links::give_names(&union, &mut job)?;
        sync(&union)?;
        // All have their data by now: the note that they may not have goes.
        let completed = union.complete_rest(true, || true);
        completed.map_err(|e| trouble("upper", e))?;
    }
    let (union, work) = Union::inspect(&plan)?;
    links::drop_index(&union, &work, &plan, &mut job)?;
    marks::convert(&union, &work, &mut job)?;
    sync(&union)?;
    let space = space_of(&union);
    if target.space(space) != space {
        spaces::change(&union, &work, &plan, target.space(space), &mut job)?;
    }
    Ok(job.tally)
}

/// Reads the marks where they are, if the target says where they shall be; otherwise an
/// upper whose marks are all where this mount believes none was made by another kind of
/// mount, and would lose them all.
fn choose_space(plan: &mut MountPlan, target: Target) -> Result<(), MountError> {
    let (union, _work) = Union::inspect(plan)?;
    let written = Written::count(&union)?;
    if target != Target::AsMounted {
        plan.xattrs = match written.only() {
            Some(Space::User) => XattrSpace::User,
            Some(_) => XattrSpace::Auto,
            None => plan.xattrs,
        };
        return Ok(());
    }
    let Some((space, said)) = written.elsewhere(&union)? else {
        return Ok(());
    };
    let remedy = match space {
        Space::Trusted => "leave userxattr out, or move them with --userxattr",
        Space::User | Space::FuseOverlayfs => "add -o userxattr, or move them with --trusted",
    };
    let upper = plan.upper.as_ref().map(|paths| paths.upper.clone());
    Err(MountError::new(
        Shown::new(&upper.unwrap_or_default(), b""),
        format_args!("{said}, which this kind of mount does not believe"),
        remedy,
    ))
}

/// One settling.
struct Job<'w> {
    tally: Tally,
    watch: &'w mut dyn FnMut(&Tally),
}

impl Job<'_> {
    /// One more name.
    fn step(&mut self) {
        self.tally.names += 1;
        (self.watch)(&self.tally);
    }
}

/// The namespace that the upper's marks are in.
fn space_of(union: &Union) -> Space {
    match union.tree.upper_layer() {
        Ok(upper) => super::walk::believed(upper),
        Err(_) => Space::User,
    }
}

/// The keys of one namespace.
fn keys(space: Space) -> &'static Keys {
    match space {
        Space::Trusted => &TRUSTED,
        Space::User | Space::FuseOverlayfs => &USER,
    }
}

/// All that was done so far is on disk before anything is built on it.
fn sync(union: &Union) -> Result<(), MountError> {
    let upper = union.tree.upper_layer();
    let upper = upper.map_err(|e| trouble("upper", e))?;
    let synced = io::sync_filesystem(&*upper.root);
    synced.map_err(|e| trouble(Shown::new(&upper.path, b""), e))
}

/// The refusal of a filesystem that cannot hold overlayfs's marks.
fn unfit(path: Shown, errno: Errno) -> MountError {
    match errno {
        Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP => MountError::new(
            path,
            format_args!("overlayfs's mark cannot be put there ({errno})"),
            "run as the owner of the upper; if you do, overlayfs cannot use this filesystem for \
             an upper: copy it to another",
        ),
        other => trouble(path, other),
    }
}
