//! Where the changes go, and how that place is kept out of the command's sight.
//!
//! ```text
//! BASE/upper            the changes
//! BASE/work             scratch
//! BASE/mounts/NAME/…    the same for each filesystem mounted below a lower layer
//! ```
//! With `--upper DIR`, DIR is the upper and BASE is `DIR.plyfs` beside it. While the
//! command runs, an empty filesystem covers BASE (and DIR) in our own mount namespace:
//! the lower layers end there, so the union never shows its own changes as a layer. It
//! also holds the union's mount point.

use super::super::args::RunArgs;
use super::super::changes::Look;
use super::refused;
use crate::cli::preflight::overlap::Place;
use crate::cli::preflight::{UPPER, WORK, directory, writable};
use crate::error::plain;
use crate::error::{MountError, SysError, best_effort};
use crate::layer::private::{is_own, names};
use crate::sys::creds::overflow_ids;
use crate::sys::fs::{O_DIRECTORY, S_IFCHR, S_IFREG, chmod, chown, mknod, open_path, stat, unlink};
use crate::sys::mount::{Flags, mount, unmount};
use crate::sys::path::At;
use crate::sys::process::O_PATH;
use crate::sys::xattr;
use std::ffi::CString;
use std::fs;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What happens to the changes at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They stay, unless there are none.
    Stay,
    /// They stay in any case: the user named the place.
    StayAlways,
    /// They are removed.
    Go,
}

/// The directories of one run.
#[derive(Debug)]
pub struct Space {
    base: PathBuf,
    upper: PathBuf,
    fate: Fate,
    /// Whether `base` was made for this run.
    fresh: bool,
    /// Whether `upper` was.
    fresh_upper: bool,
}

/// An upper and its work directory, reached past what covers them.
#[derive(Debug)]
pub struct Pair {
    /// Holds the directories open: the paths below go through it.
    held: (OwnedFd, OwnedFd),
    /// Their own paths, for messages.
    named: (PathBuf, PathBuf),
    /// What a new upper looks like before the command has changed anything.
    look: Option<Look>,
}

impl Pair {
    /// Opens both; to be called before they are covered.
    fn open(upper: &Path, work: &Path, is_new: bool) -> Result<Pair, MountError> {
        let open = |path: &Path| {
            open_path(path, O_PATH | O_DIRECTORY)
                .map_err(|e| refused("upper", path, &e.into(), REMEDY))
        };
        let held = (open(upper)?, open(work)?);
        let look = is_new.then(|| best_effort("look at the upper", Look::of(&held.0)));
        Ok(Pair {
            held,
            named: (upper.to_owned(), work.to_owned()),
            look: look.flatten(),
        })
    }

    /// The upper, by a path that leads past the cover.
    pub fn upper(&self) -> PathBuf {
        through(&self.held.0)
    }

    /// The work directory, likewise.
    pub fn work(&self) -> PathBuf {
        through(&self.held.1)
    }

    /// What a new upper looked like.
    pub fn look(&self) -> Option<Look> {
        self.look.clone()
    }

    /// `refusal` in the names that the user knows.
    pub fn explain(&self, mut refusal: MountError) -> MountError {
        for (path, name) in [(self.upper(), &self.named.0), (self.work(), &self.named.1)] {
            let (path, name) = (path.display().to_string(), name.display().to_string());
            for part in [&mut refusal.what, &mut refusal.cause, &mut refusal.remedy] {
                *part = part.replace(&path, &name);
            }
        }
        refusal
    }
}

fn through(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

const REMEDY: &str = "choose a place of your own with --keep DIR";

/// Makes a directory unless it is there; whether it was made.
fn make(path: &Path) -> Result<bool, MountError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(refused("directory", path, &e, REMEDY)),
    }
}

/// Makes an upper; whether it was made. A new one is given what the topmost lower layer has, since the root
/// of a union is seen with the attributes of its upper.
fn make_upper(path: &Path, lowers: &[PathBuf]) -> Result<bool, MountError> {
    let is_new = make(path)?;
    if let Some(top) = lowers.first().filter(|_| is_new) {
        best_effort(
            "give the upper the attributes of its lower",
            dress(path, top),
        );
    }
    Ok(is_new)
}

fn dress(path: &Path, like: &Path) -> Result<(), SysError> {
    let (new, old) = (open_path(path, O_DIRECTORY)?, open_path(like, O_PATH)?);
    let (new, old) = (At::fd(&new), At::fd(&old));
    let stat = stat(old)?;
    let (no_uid, no_gid) = overflow_ids();
    let owner = |id: u32, nobody: u32| (id != nobody).then_some(id);
    // An ordinary user may not give it away; inside it will be root's.
    best_effort(
        "give the upper its owner",
        chown(new, owner(stat.uid, no_uid), owner(stat.gid, no_gid)),
    );
    let list = xattr::list(old).unwrap_or_default();
    for name in names(&list).filter(|name| !is_own(name)) {
        if let Ok(name) = CString::new(name) {
            let copied = xattr::get(old, &name).and_then(|value| xattr::set(new, &name, &value, 0));
            best_effort("copy an xattr to the upper", copied);
        }
    }
    chmod(new, stat.mode & 0o7777)
}

impl Space {
    /// Makes the directories that `args` ask for.
    ///
    /// # Errors
    /// Where they cannot be made, or overlap with a lower layer in the wrong way.
    pub fn prepare(args: &RunArgs, lowers: &[Place]) -> Result<Space, MountError> {
        let mut space = if let Some(upper) = &args.upper {
            Space::around(upper)?
        } else if let Some(keep) = &args.keep {
            Space::kept(keep)?
        } else {
            Space::fresh(if args.discard { Fate::Go } else { Fate::Stay })?
        };
        for dir in ["work", "mounts"] {
            make(&space.base.join(dir))?;
        }
        let paths: Vec<_> = lowers.iter().map(|lower| lower.real.clone()).collect();
        space.fresh_upper = make_upper(&space.upper, &paths)?;
        space.check(lowers).inspect_err(|_| space.give_up())?;
        Ok(space)
    }

    /// Around an upper that the user named.
    fn around(given: &Path) -> Result<Space, MountError> {
        let upper = directory(UPPER, given)?;
        writable(&upper)?;
        let upper = upper.real;
        // An upper that an earlier run kept: what lies beside it belongs to it.
        let beside = upper.parent().filter(|dir| {
            upper.file_name().is_some_and(|name| name == "upper") && dir.join("mounts").is_dir()
        });
        let base = match (beside, upper.file_name()) {
            (Some(dir), _) => dir.to_owned(),
            (None, Some(name)) => {
                let mut name = name.to_owned();
                name.push(".plyfs");
                upper.with_file_name(name)
            }
            (None, None) => {
                return Err(MountError::new(
                    format_args!("upper {}", given.display()),
                    "it is the root directory",
                    "name a directory for the changes",
                ));
            }
        };
        make(&base)?;
        Ok(Space {
            base,
            upper,
            fate: Fate::StayAlways,
            fresh: false,
            fresh_upper: false,
        })
    }

    /// In a directory that the user named: new, empty, or of an earlier run.
    fn kept(given: &Path) -> Result<Space, MountError> {
        fs::create_dir_all(given).map_err(|e| refused("directory", given, &e, REMEDY))?;
        let base = directory("directory", given)?;
        writable(&base)?;
        let base = base.real;
        let mut entries =
            fs::read_dir(&base).map_err(|e| refused("directory", given, &e, REMEDY))?;
        if entries.next().is_some()
            && !(base.join("upper").is_dir() && base.join("mounts").is_dir())
        {
            return Err(MountError::new(
                format_args!("directory {}", given.display()),
                "it is not empty",
                "name a new or empty directory, or one that an earlier run kept",
            ));
        }
        Ok(Space {
            upper: base.join("upper"),
            base,
            fate: Fate::StayAlways,
            fresh: false,
            fresh_upper: false,
        })
    }

    /// In a new directory below the first of the usual places that can be written.
    fn fresh(fate: Fate) -> Result<Space, MountError> {
        let mut failure = None;
        for place in places() {
            match fresh_below(&place) {
                Ok(base) => {
                    return Ok(Space {
                        upper: base.join("upper"),
                        base,
                        fate,
                        fresh: true,
                        fresh_upper: true,
                    });
                }
                Err(e) => {
                    log::info!("{}: {}", place.display(), plain(&e));
                    failure.get_or_insert((place, e));
                }
            }
        }
        Err(match failure {
            Some((place, e)) => refused("directory", &place, &e, REMEDY),
            None => MountError::new("upper", "no place for it", REMEDY),
        })
    }

    /// The upper may lie below a lower layer, since it is covered, but not the other way.
    fn check(&self, lowers: &[Place]) -> Result<(), MountError> {
        let upper = directory(UPPER, &self.upper)?;
        let work = directory(WORK, &self.base.join("work"))?;
        crate::cli::preflight::overlap::same_mount(&upper, &work)?;
        for lower in lowers {
            crate::cli::preflight::overlap::lower_not_inside(lower, &upper)?;
            crate::cli::preflight::overlap::lower_not_inside(lower, &work)?;
        }
        Ok(())
    }

    /// The upper of the union itself and its work directory.
    ///
    /// # Errors
    /// Where they cannot be opened.
    pub fn pair(&self) -> Result<Pair, MountError> {
        Pair::open(&self.upper, &self.base.join("work"), self.fresh_upper)
    }

    /// The upper and work directory of the filesystem mounted at `inside`, a union over
    /// `lowers`.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn pair_for(&self, inside: &Path, lowers: &[PathBuf]) -> Result<Pair, MountError> {
        let dir = self.mount_dir(inside);
        make(&dir)?;
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        let is_new = make_upper(&upper, lowers)?;
        make(&work)?;
        Pair::open(&upper, &work, is_new)
    }

    fn mount_dir(&self, inside: &Path) -> PathBuf {
        self.base
            .join("mounts")
            .join(super::submounts::name_of(inside))
    }

    /// The upper of the union itself.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// The upper of the filesystem mounted at `inside`.
    pub fn upper_of(&self, inside: &Path) -> PathBuf {
        self.mount_dir(inside).join("upper")
    }

    /// The work directory of the union itself.
    pub fn work(&self) -> PathBuf {
        self.base.join("work")
    }

    /// The work directory of the filesystem mounted at `inside`.
    pub fn work_of(&self, inside: &Path) -> PathBuf {
        self.mount_dir(inside).join("work")
    }

    /// Where the union is mounted while the command runs.
    pub fn union_root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// Whether the changes outlive the run.
    pub fn fate(&self) -> Fate {
        self.fate
    }

    /// Covers the directories, in this mount namespace, and makes the mount point.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn cover(&self) -> Result<(), MountError> {
        let flags = Flags {
            no_suid: true,
            no_dev: true,
            ..Flags::default()
        };
        for dir in self.covered() {
            mount("plyfs", dir, "tmpfs", flags, "mode=755,size=64k")
                .map_err(|e| refused("directory", dir, &e.into(), REMEDY))?;
        }
        make(&self.union_root()).map(drop)
    }

    fn covered(&self) -> Vec<&Path> {
        let mut dirs = vec![self.base.as_path()];
        if !self.upper.starts_with(&self.base) {
            dirs.push(&self.upper);
        }
        dirs
    }

    /// Takes the covers away again.
    pub fn uncover(&self) {
        for dir in self.covered() {
            best_effort("uncover the upper", unmount(dir, true));
        }
    }

    /// Removes what was made for a run that did not come about.
    pub fn give_up(&self) {
        self.uncover();
        if self.fresh {
            best_effort("remove the upper", fs::remove_dir_all(&self.base));
        } else {
            self.remove_scratch();
        }
    }

    /// Removes scratch, and the changes if they shall not stay.
    pub fn finish(&self, changed: bool) {
        if self.fate == Fate::Go || (self.fate == Fate::Stay && !changed) {
            if let Err(e) = fs::remove_dir_all(&self.base) {
                super::left_out(&self.base, format_args!("not removed: {}", plain(&e)));
            }
        } else {
            self.remove_scratch();
        }
    }

    /// Removes work directories, uppers of mounts that took no changes, and the base
    /// beside a user's upper if nothing is left in it.
    fn remove_scratch(&self) {
        remove_work(&self.work());
        let mounts = self.base.join("mounts");
        for mount in fs::read_dir(&mounts).into_iter().flatten().flatten() {
            let dir = mount.path();
            remove_work(&dir.join("work"));
            // These two fail on purpose where something is in them.
            best_effort("remove an empty upper", fs::remove_dir(dir.join("upper")));
            best_effort("remove an empty mount", fs::remove_dir(&dir));
        }
        if !self.upper.starts_with(&self.base) {
            best_effort("remove empty mounts", fs::remove_dir(&mounts));
            best_effort("remove an empty base", fs::remove_dir(&self.base));
        }
    }
}

/// Removes a work directory, unless its index has files in it: those are changes, too, seen
/// by names of hard links that the upper does not have.
fn remove_work(work: &Path) {
    let index = work.join("index");
    let mut entries = fs::read_dir(&index).into_iter().flatten();
    if entries.next().is_none() {
        best_effort("remove work", fs::remove_dir_all(work));
    } else {
        best_effort("remove work/work", fs::remove_dir_all(work.join("work")));
    }
}

/// Where fresh uppers may go, the best place first.
fn places() -> Vec<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = variable("XDG_STATE_HOME");
    let home = variable("HOME").map(|home| home.join(".local/state"));
    let state = state.or(home).map(|dir| dir.join("plyfs"));
    let temporary = variable("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    state
        .into_iter()
        .chain([temporary, "/tmp".into(), "/dev/shm".into()])
        .collect()
}

/// Whether a whiteout can be made in `dir`, as a device or as a file. On a union neither
/// can: there they would be its own.
fn takes_marks(dir: &Path) -> bool {
    let Ok(dir) = open_path(dir, O_PATH | O_DIRECTORY) else {
        return false;
    };
    [(&b"0"[..], S_IFCHR), (b".wh.0", S_IFREG | 0o600)]
        .into_iter()
        .any(|(name, mode)| {
            let at = At::new(&dir, name);
            let made = mknod(at, mode, (0, 0)).is_ok();
            made && best_effort("remove a trial whiteout", unlink(at)).is_some()
        })
}

/// A new directory below `place`, named after the time.
fn fresh_below(place: &Path) -> std::io::Result<PathBuf> {
    fs::create_dir_all(place)?;
    let place = place.canonicalize()?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map(|time| time.as_secs()).unwrap_or_default();
    let mut number = 0;
    loop {
        let name = format!("plyfs-run-{seconds}-{}-{number}", std::process::id());
        let base = place.join(name);
        match fs::create_dir(&base) {
            Ok(()) if takes_marks(&base) => return Ok(base),
            Ok(()) => {
                fs::remove_dir(&base)?;
                let cause = "its filesystem, perhaps itself a union, takes no whiteouts";
                return Err(Error::new(ErrorKind::Unsupported, cause));
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e),
        }
    }
}
