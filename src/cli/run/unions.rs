//! The unions of one run: the root and one for each filesystem mounted below it.

use super::space::Pair;
use super::submounts::{How, Submount};
use super::{Ground, left_out};
use crate::cli::changes::Look;
use crate::config::plan::{IdView, MountPlan, Observe, OwnerView, UpperPlan};
use crate::error::{MountError, best_effort};
use crate::fuse::session::Session;
use crate::sys::mount::{bind, set_read_only, unmount};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the last users may take after the command has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Directories that the inside needs, whether or not a layer has them.
const NEEDED: [&str; 3] = ["proc", "dev", "sys"];

/// What is mounted for the command, in the order of mounting.
#[derive(Debug, Default)]
pub struct Unions {
    sessions: Vec<Session>,
    bound: Vec<PathBuf>,
    /// Of [`NEEDED`], those that no layer had.
    created: Vec<&'static str>,
    /// Holds the uppers open for as long as they are served.
    pairs: Vec<Pair>,
    /// The unions by where they are inside, each with what its upper, if new, looked like
    /// before the command ran.
    looks: BTreeMap<PathBuf, Option<Look>>,
}

/// The plan of one union of this run.
fn plan(ground: &Ground, point: PathBuf, lowers: Vec<PathBuf>, pair: &Pair) -> MountPlan {
    let settings = &ground.settings;
    let mut flags = settings.flags.clone();
    // Root inside is nobody special outside: its setuid programs harm nobody, and its
    // other users must get in. The kernel opens no device here in any case.
    flags.suid = true;
    flags.allow_other = true;
    MountPlan {
        upper: Some(UpperPlan {
            upper: pair.upper(),
            work: pair.work(),
        }),
        marks: settings.marks,
        xattrs: settings.xattrs,
        timeout: settings.timeout,
        copyup: settings.copyup,
        io: settings.io,
        owners: OwnerView::both(IdView::OverflowIsRoot),
        respect_mounts: true,
        durability: settings.durability,
        uuid: settings.uuid,
        index: settings.index,
        redirects: settings.redirects,
        metacopy: settings.spares_data(),
        partial: settings.partial_from(),
        complete: settings.complete,
        max_write: settings.max_write,
        threads: settings.threads,
        observe: Observe {
            metrics: None,
            ..settings.observe.clone()
        },
        flags,
        ..MountPlan::new(point, lowers)
    }
}

/// `inside`, as seen from outside while the union is at `root`.
fn below(root: &Path, inside: &Path) -> PathBuf {
    root.join(inside.strip_prefix("/").unwrap_or(inside))
}

impl Unions {
    /// Mounts all unions of the run.
    ///
    /// # Errors
    /// Where the root cannot be mounted. What is mounted below it may be left out,
    /// which is said.
    pub fn mount(&mut self, ground: &Ground) -> Result<(), MountError> {
        let root = ground.space.union_root();
        let pair = ground.space.pair()?;
        // Every upper is opened before the cover is put over them.
        let uppers: Vec<_> = ground
            .submounts
            .iter()
            .map(|submount| match &submount.how {
                How::Union(lowers) => {
                    let pair = ground.space.pair_for(&submount.inside, lowers);
                    pair.map(Some)
                }
                How::ReadOnly => Ok(None),
            })
            .collect();
        ground.space.cover()?;
        let lowers = ground.lowers.clone();
        let mut plan = plan(ground, root.clone(), lowers, &pair);
        // One file holds the figures of one union.
        plan.observe = ground.settings.observe.clone();
        self.start(Path::new("/"), &plan, pair)?;
        self.create_needed(&root)?;
        for (submount, upper) in ground.submounts.iter().zip(uppers) {
            self.bring_in(ground, &root, submount, upper);
        }
        Ok(())
    }

    fn start(&mut self, inside: &Path, plan: &MountPlan, pair: Pair) -> Result<(), MountError> {
        let session = Session::start(plan).map_err(|refusal| pair.explain(refusal))?;
        self.sessions.push(session);
        self.looks.insert(inside.to_owned(), pair.look());
        self.pairs.push(pair);
        Ok(())
    }

    fn create_needed(&mut self, root: &Path) -> Result<(), MountError> {
        for name in NEEDED {
            let dir = root.join(name);
            match fs::create_dir(&dir) {
                Ok(()) => self.created.push(name),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => {
                    let remedy = "choose a lower layer that has it, or a writable upper";
                    return Err(super::refused("directory", Path::new(name), &e, remedy));
                }
            }
        }
        Ok(())
    }

    /// Brings in one filesystem: as a union, else read-only, else not at all.
    fn bring_in(
        &mut self,
        ground: &Ground,
        root: &Path,
        submount: &Submount,
        upper: Result<Option<Pair>, MountError>,
    ) {
        let point = below(root, &submount.inside);
        if !point.is_dir() {
            log::info!("{}: no longer there: left out", submount.inside.display());
            return;
        }
        let union = upper.and_then(|pair| match (&submount.how, pair) {
            (How::Union(lowers), Some(pair)) => {
                let plan = plan(ground, point.clone(), lowers.clone(), &pair);
                let started = self.start(&submount.inside, &plan, pair);
                started.map(|()| true)
            }
            _ => Ok(false),
        });
        match union {
            Ok(true) => {
                log::info!("{}: a union of its own", submount.inside.display());
                return;
            }
            Ok(false) => log::info!("{}: read-only", submount.inside.display()),
            Err(refusal) => left_out(
                &submount.inside,
                format_args!("read-only inside ({refusal})"),
            ),
        }
        let bound = bind(&submount.source, &point, true).and_then(|()| {
            self.bound.push(point.clone());
            set_read_only(&point)
        });
        if let Err(e) = bound {
            best_effort("take back what is not read-only", unmount(&point, true));
            left_out(&submount.inside, format_args!("left out inside ({e})"));
        }
    }

    /// Of the directories that the inside needs, those that were made for it.
    pub fn created(&self) -> &[&'static str] {
        &self.created
    }

    /// Whether there is a union at `inside`.
    pub fn has(&self, inside: &Path) -> bool {
        self.looks.contains_key(inside)
    }

    /// What the new upper at `inside` looked like before the command ran.
    pub fn look(&self, inside: &Path) -> Option<&Look> {
        self.looks.get(inside)?.as_ref()
    }

    /// Unmounts everything and waits until the uppers are complete.
    pub fn take_down(&mut self) {
        for point in self.bound.drain(..).rev() {
            best_effort("unmount what was bound", unmount(&point, true));
        }
        for session in self.sessions.drain(..).rev() {
            session.unmount();
            if !session.wait_at_most(PATIENCE) {
                log::warn!("a union is still in use: its last changes may be missing");
            }
        }
        self.pairs.clear();
    }
}
