//! From a request to a plan: everything that can be checked from the paths alone.

pub mod overlap;

use crate::config::plan::{MountPlan, Observe, UpperPlan, device_number};
use crate::config::request::Request;
use crate::error::{Errno, MountError, plain};
use crate::sys::creds::effective_ids;
use crate::sys::fs::{open_path, stat, statfs};
use crate::sys::path::At;
use crate::sys::process::{Access, ECONNABORTED, ENOTCONN, O_PATH, may_access};
use overlap::Place;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// More lower layers than this are refused, as overlayfs does.
pub const LOWERS_MAX: usize = 500;

/// The part that a directory plays, for messages.
pub const LOWER: &str = "lower layer";
/// See [`LOWER`].
pub const UPPER: &str = "upper";
/// See [`LOWER`].
pub const WORK: &str = "work directory";
/// See [`LOWER`].
pub const MOUNT_POINT: &str = "mount point";

/// See [`LOWER`].
const METRICS: &str = "directory of the metrics file";

fn refuse(role: &str, path: &Path, cause: impl Display, remedy: impl Display) -> MountError {
    MountError::new(format_args!("{role} {}", path.display()), cause, remedy)
}

/// Why `path` cannot be looked at.
fn unusable(role: &str, path: &Path, error: &io::Error) -> MountError {
    let (cause, remedy) = match error.raw_os_error().map(Errno) {
        Some(Errno::ENOENT) => (
            "no such directory".to_owned(),
            "create it with mkdir, or correct the path",
        ),
        Some(Errno::EACCES) => (plain(error), "ask for access to it, or run as its owner"),
        Some(Errno::ENOTDIR) => (plain(error), "give a directory"),
        // The one once it is dead, the other while it dies.
        Some(Errno(ENOTCONN | ECONNABORTED)) => (
            "a mount there has lost its daemon".to_owned(),
            "unmount it first: fusermount3 -u, or umount",
        ),
        _ => (plain(error), "correct the path"),
    };
    refuse(role, path, cause, remedy)
}

/// Looks at the directory `given`, which may be reached through symlinks.
///
/// # Errors
/// Where there is none, or it may not be looked at.
pub fn directory(role: &'static str, given: &Path) -> Result<Place, MountError> {
    let fail = |e: io::Error| unusable(role, given, &e);
    let real = given.canonicalize().map_err(fail)?;
    let fd = open_path(&real, O_PATH).map_err(|e| fail(e.into()))?;
    let stat = stat(At::fd(&fd)).map_err(|e| fail(e.into()))?;
    if !stat.is_dir() {
        return Err(refuse(role, given, "not a directory", "give a directory"));
    }
    // The kernel knows the attributes of a dead mount's files by heart, but asks for this.
    match statfs(&fd).map_err(|e| e.errno) {
        Err(e @ Errno(ENOTCONN | ECONNABORTED)) => Err(fail(io::Error::from_raw_os_error(e.0))),
        Ok(_) | Err(_) => Ok(()),
    }?;
    Ok(Place {
        role,
        given: given.to_owned(),
        above: overlap::ids_above(&real),
        real,
        id: (stat.dev, stat.ino),
        mount: stat.mnt_id,
    })
}

/// Whether the layer may be read.
///
/// # Errors
/// Where it may not.
pub fn readable(place: &Place) -> Result<(), MountError> {
    may_access(&place.real, Access::List).map_err(|e| {
        refuse(
            place.role,
            &place.given,
            plain(&e.into()),
            "it must be readable; ask for access to it, or run as its owner",
        )
    })
}

/// Whether the layer may be written.
///
/// # Errors
/// Where it may not, or its filesystem is read-only.
pub fn writable(place: &Place) -> Result<(), MountError> {
    may_access(&place.real, Access::Change).map_err(|e| {
        let remedy = if e.errno == Errno::EROFS {
            "put it on a writable filesystem, or leave the upper out"
        } else {
            "it must be writable; ask for access to it, or choose a directory of your own"
        };
        refuse(place.role, &place.given, plain(&e.into()), remedy)
    })
}

/// Whether an upper may lie in a lower layer: that of `plyfs run` may, and can be looked at
/// afterwards, but not mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// It may not.
    Refused,
    /// It may.
    Allowed,
}

impl Request {
    /// Checks the request against the filesystem, and settles what was left open.
    ///
    /// # Errors
    /// The first thing that stands against the mount.
    pub fn check(self) -> Result<MountPlan, MountError> {
        if self.mount_point.is_none() {
            return Err(MountError::new(
                MOUNT_POINT,
                "none given",
                "name the directory where the union shall appear, last",
            ));
        }
        self.check_presence()?;
        let mount_point = self.check_mount_point()?;
        self.check_layers(mount_point, Nesting::Refused)
    }

    /// As [`Request::check`], for an upper that is not going to be mounted.
    ///
    /// # Errors
    /// The first thing that stands against using the layers; where there is no upper.
    pub fn check_unmounted(self, nesting: Nesting) -> Result<MountPlan, MountError> {
        if self.upper.is_none() {
            return Err(MountError::new(
                UPPER,
                "none given",
                "name it and its work directory: --upper DIR --work DIR, or -o upperdir=DIR,workdir=DIR",
            ));
        }
        self.check_presence()?;
        self.check_layers(None, nesting)
    }

    fn check_layers(
        self,
        mount_point: Option<Place>,
        nesting: Nesting,
    ) -> Result<MountPlan, MountError> {
        if self.metacopy == Some(true) && !self.spares_data() {
            return Err(MountError::new(
                "option metacopy=on",
                "it needs redirects, which redirect_dir switches off",
                "leave out one of the two",
            ));
        }
        let (metacopy, partial) = (self.spares_data(), self.partial_from());
        let mut lowers = self
            .lowers
            .iter()
            .chain(&self.data_only)
            .map(|path| {
                let place = directory(LOWER, path)?;
                readable(&place)?;
                Ok(place)
            })
            .collect::<Result<Vec<_>, MountError>>()?;
        overlap::no_layer_twice(&lowers)?;
        let upper = self.check_upper(&lowers, mount_point.as_ref(), nesting)?;
        check_metrics(&self.observe, mount_point.as_ref())?;
        let data_only = lowers.split_off(self.lowers.len());
        let (uid, _) = effective_ids();
        let mut flags = self.flags;
        if !flags.allow_root {
            flags.allow_other = flags.allow_other || uid == 0 || everyone_may_allow_other();
        }
        Ok(MountPlan {
            mount_point: match mount_point {
                Some(place) => place.real,
                None => self.mount_point.unwrap_or_default(),
            },
            lowers: lowers.into_iter().map(|place| place.real).collect(),
            data_only: data_only.into_iter().map(|place| place.real).collect(),
            upper,
            marks: self.marks,
            xattrs: self.xattrs,
            timeout: self.timeout,
            copyup: self.copyup,
            durability: self.durability,
            uuid: self.uuid,
            io: self.io,
            index: self.index,
            redirects: self.redirects,
            metacopy,
            partial,
            complete: self.complete,
            max_write: self.max_write,
            threads: self.threads.or(self.without.threads.then_some(1)),
            owners: self.owners.view(),
            ownership: self.owners.ownership,
            acls: !self.without.acls,
            user_xattrs: !self.without.xattrs,
            static_nlink: self.without.directory_links,
            fsync: !self.without.fsync,
            observe: self.observe,
            flags,
            ..MountPlan::new("", Vec::new())
        })
    }

    fn check_presence(&self) -> Result<(), MountError> {
        if self.lowers.is_empty() && (self.lowers_required || self.upper.is_none()) {
            return Err(MountError::new(
                "layers",
                "none given",
                "name at least one: --lower DIR, or -o lowerdir=DIR",
            ));
        }
        if self.lowers.is_empty() && !self.data_only.is_empty() {
            return Err(MountError::new(
                "layers",
                "only data-only ones given",
                "name the layer whose files have their data there: lowerdir=DIR::DATA",
            ));
        }
        if self.lowers.len() + self.data_only.len() > LOWERS_MAX {
            return Err(MountError::new(
                "layers",
                format_args!(
                    "{} lower layers given",
                    self.lowers.len() + self.data_only.len()
                ),
                format_args!("merge some: there may be {LOWERS_MAX} at most"),
            ));
        }
        match (&self.upper, &self.work) {
            (Some(upper), None) => Err(refuse(
                UPPER,
                upper,
                "it has no work directory",
                "name an empty directory beside it: --work DIR, or -o workdir=DIR",
            )),
            (None, Some(work)) if !self.lowers_required => Err(refuse(
                WORK,
                work,
                "there is no upper that needs it",
                "name the upper too: --upper DIR; or leave the work directory out",
            )),
            _ => Ok(()),
        }
    }

    /// The mount point; `None` for a device that is mounted already.
    fn check_mount_point(&self) -> Result<Option<Place>, MountError> {
        let given = self.mount_point.clone().unwrap_or_default();
        if let Some(fd) = device_number(&given) {
            return crate::sys::process::is_fuse_device(fd)
                .then_some(None)
                .ok_or_else(|| {
                    refuse(
                        MOUNT_POINT,
                        &given,
                        "not an open FUSE device",
                        "give a directory, or a descriptor of /dev/fuse",
                    )
                });
        }
        directory(MOUNT_POINT, &given).map(Some)
    }

    fn check_upper(
        &self,
        lowers: &[Place],
        mount_point: Option<&Place>,
        nesting: Nesting,
    ) -> Result<Option<UpperPlan>, MountError> {
        let (Some(upper), Some(work)) = (&self.upper, &self.work) else {
            return Ok(None);
        };
        let upper = directory(UPPER, upper)?;
        let work = directory(WORK, work)?;
        overlap::upper_and_work_apart(&upper, &work)?;
        overlap::same_mount(&upper, &work)?;
        for lower in lowers.iter().filter(|_| nesting == Nesting::Refused) {
            overlap::apart_from_lower(&upper, lower)?;
            overlap::apart_from_lower(&work, lower)?;
        }
        for taken in [&upper, &work] {
            if let Some(point) = mount_point {
                overlap::not_mounted_inside(point, taken)?;
            }
            if self.flags.read_only {
                readable(taken)?;
            } else {
                writable(taken)?;
            }
        }
        Ok(Some(UpperPlan {
            upper: upper.real,
            work: work.real,
        }))
    }
}

/// Whether there is a place for the file with the figures.
///
/// # Errors
/// Where there is none, or there are no figures.
pub fn check_metrics(observe: &Observe, point: Option<&Place>) -> Result<(), MountError> {
    let Some(file) = &observe.metrics else {
        return Ok(());
    };
    if !observe.on {
        return Err(MountError::new(
            "option metrics",
            "there are no figures with observe=off",
            "leave out one of the two",
        ));
    }
    let beside = file.parent().unwrap_or(Path::new("/"));
    let place = directory(METRICS, beside)?;
    if point.is_some_and(|point| place.real.starts_with(&point.real)) {
        return Err(refuse(
            METRICS,
            beside,
            "it lies in the union that is about to be mounted",
            "choose a directory outside of it",
        ));
    }
    if file.is_dir() {
        return Err(refuse(
            "metrics file",
            file,
            "it is a directory",
            "name a file",
        ));
    }
    writable(&place)
}

/// Whether the administrator lets everyone use `allow_other`.
fn everyone_may_allow_other() -> bool {
    let conf = ["/etc/fuse.conf", "/usr/local/etc/fuse.conf"];
    conf.iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .any(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}

/// `path` as it will still be true after the daemon has left this directory.
///
/// # Errors
/// Where the working directory itself is gone.
pub fn absolute(path: &Path) -> Result<PathBuf, MountError> {
    std::path::absolute(path).map_err(|e| {
        MountError::new(
            path.display(),
            plain(&e),
            "give an absolute path, or run from a directory that exists",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_alone_is_a_union_unless_lower_layers_are_required() {
        let mut request = Request {
            mount_point: Some("/nowhere".into()),
            upper: Some("/u".into()),
            work: Some("/w".into()),
            ..Request::default()
        };
        assert_eq!(request.check_presence(), Ok(()));
        request.lowers_required = true;
        assert!(request.check_presence().is_err());
    }
}
