//! Opens the layers of a plan.

use super::dirfds::{DirFds, RealDir};
use super::kept::Kept;
use super::marks::Known;
use super::owners::Owners;
use super::scratch::{MOUNT_PATIENCE, SETTLING, Scratch, lock_patiently};
use super::{Layer, LayerSet, probe};
use crate::config::plan::{Durability, MountPlan, UpperPlan, Uuid};
use crate::error::{Errno, MountError, SysError, best_effort};
use crate::sys::creds;
use crate::sys::fs::{self, O_DIRECTORY, O_PATH, O_RDONLY};
use crate::sys::mountinfo;
use crate::sys::path::At;
use crate::sys::xattr;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Descriptors for directories: at most this share of what the process may open.
const DIR_FD_SHARE: u64 = 4;
const DIR_FDS_MAX: u64 = 16384;
/// As many for one walk through the upper.
const INSPECTION_FDS: usize = 256;
/// How long a human who asks is kept waiting for an upper that is in use.
const INSPECTION_PATIENCE: Duration = Duration::from_secs(1);

/// Opens all layers of `plan`, locks the upper and its work directory, and sweeps.
///
/// # Errors
/// One line that names the path, the cause and the remedy; nothing is changed then.
pub fn open_layers(plan: &MountPlan) -> Result<LayerSet, MountError> {
    let limit = best_effort("raise the limit of open files", creds::raise_file_limit());
    let fds = DirFds::new((limit.unwrap_or(1024) / DIR_FD_SHARE).min(DIR_FDS_MAX) as usize);
    let (upper, scratch) = match &plan.upper {
        Some(paths) => {
            let (upper, scratch) = open_upper(plan, paths)?;
            (Some(Arc::new(upper)), Some(scratch))
        }
        None => (None, None),
    };
    let first = usize::from(upper.is_some());
    let lowers = open_lowers(plan, first)?;
    if let Some(upper) = &upper {
        upper.check_kept(plan, lowers.first().map(|lower| &**lower))?;
    }
    let data_only = open_data_only(plan, first + lowers.len())?;
    let mut layers = LayerSet {
        upper,
        lowers,
        data_only,
        scratch,
        fds,
    };
    heed_uuids(plan, &mut layers);
    Ok(layers)
}

/// With `uuid=off` no file is told by its filesystem's UUID, which takes that all layers
/// are on one filesystem (as overlayfs has it).
fn heed_uuids(plan: &MountPlan, layers: &mut LayerSet) {
    if plan.uuid != Uuid::Off {
        return;
    }
    let mut devices = layers.upper.iter().chain(&layers.lowers).map(|l| l.dev);
    let first = devices.next();
    if devices.any(|dev| Some(dev) != first) {
        log::warn!("uuid=off: without effect, for the layers are on several filesystems");
        return;
    }
    for layer in layers.upper.iter_mut().chain(&mut layers.lowers) {
        // Nobody else has it yet.
        if let Some(layer) = Arc::get_mut(layer) {
            layer.caps.uuid = Default::default();
        }
    }
}

fn open_lowers(plan: &MountPlan, first: usize) -> Result<Vec<Arc<Layer>>, MountError> {
    let views = Views::new(plan);
    plan.lowers
        .iter()
        .enumerate()
        .map(|(i, path)| open_lower(plan, path, first + i, &views).map(Arc::new))
        .collect()
}

/// How owners are shown: by a mount that shows its own, and by all others.
struct Views {
    plain: Owners,
    idmapped: Owners,
    /// The mounts that do, if that matters.
    mounts: HashSet<u64>,
    privileged: bool,
}

impl Views {
    fn new(plan: &MountPlan) -> Views {
        let mut mounts = HashSet::new();
        if plan.owners.is_mapped()
            && let Some(all) = best_effort("read mountinfo", mountinfo::read())
        {
            mounts.extend(all.iter().filter(|m| m.idmapped).map(|m| m.id));
        }
        Views {
            plain: Owners::new(&plan.owners),
            idmapped: Owners::of_idmapped(&plan.owners),
            mounts,
            privileged: creds::is_system_admin(),
        }
    }

    /// That of a layer with the root `root`, as it was named.
    fn of(&self, root: &OwnedFd) -> Owners {
        let stat = fs::stat(At::fd(root));
        let idmapped =
            !self.mounts.is_empty() && stat.is_ok_and(|stat| self.mounts.contains(&stat.mnt_id));
        if idmapped {
            &self.idmapped
        } else {
            &self.plain
        }
        .clone()
    }
}

fn open_data_only(plan: &MountPlan, first: usize) -> Result<Vec<Arc<RealDir>>, MountError> {
    let views = Views::new(&MountPlan::new("", Vec::new()));
    plan.data_only
        .iter()
        .enumerate()
        .map(|(i, path)| open_lower(plan, path, first + i, &views))
        .map(|layer| Ok(Arc::new(RealDir::root(Arc::new(layer?)))))
        .collect()
}

/// Opens all layers of `plan` for looking at the upper, which is locked as for a mount,
/// while nothing is swept, made or tried out in it: there is no scratch. The work
/// directory comes with its lock.
///
/// # Errors
/// As [`open_layers`]; where the plan has no upper.
pub fn inspect_layers(plan: &MountPlan) -> Result<(LayerSet, OwnedFd), MountError> {
    let Some(paths) = &plan.upper else {
        return Err(MountError::new(
            "upper",
            "none given",
            "name the upper and its work directory",
        ));
    };
    let rooms = enter_upper(plan, paths, INSPECTION_PATIENCE)?;
    lock_patiently(
        &rooms.work,
        &paths.work,
        "work directory",
        INSPECTION_PATIENCE,
    )?;
    let mut caps = probe::lower(plan, &rooms.upper, creds::is_system_admin());
    let trusted = xattr::get(At::fd(&rooms.upper), c"trusted.overlay.opaque");
    caps.trusted &= !trusted.is_err_and(|e| e.errno == Errno::EOPNOTSUPP);
    let lowers = open_lowers(plan, 1)?;
    let data_only = open_data_only(plan, 1 + lowers.len())?;
    let mut layers = LayerSet {
        lowers,
        data_only,
        scratch: None,
        fds: DirFds::new(INSPECTION_FDS),
        upper: Some(Arc::new(upper_layer(
            plan,
            &paths.upper,
            rooms.upper,
            (&rooms.stat, rooms.mount),
            caps,
        ))),
    };
    heed_uuids(plan, &mut layers);
    Ok((layers, rooms.work))
}

fn open_root(path: &Path, flags: i32, role: &str) -> Result<OwnedFd, MountError> {
    fs::open_path(path, flags | O_DIRECTORY).map_err(|e| {
        let (cause, remedy) = match e.errno {
            Errno::ENOENT => ("does not exist", "create it, or name another"),
            Errno::ENOTDIR => ("is not a directory", "name a directory"),
            Errno::EACCES | Errno::EPERM => (
                "may not be opened by you",
                "give yourself read and search permission on it",
            ),
            _ => ("cannot be opened", "look at the path and its filesystem"),
        };
        MountError::new(
            path.display(),
            format_args!("the {role} {cause} ({})", e.errno),
            remedy,
        )
    })
}

fn unusable(path: &Path, e: SysError) -> MountError {
    MountError::new(
        path.display(),
        format_args!("the layer cannot be used: {e}"),
        "look at its filesystem",
    )
}

fn open_lower(
    plan: &MountPlan,
    path: &Path,
    index: usize,
    views: &Views,
) -> Result<Layer, MountError> {
    let mut root = open_root(path, O_PATH, "lower layer")?;
    let owners = views.of(&root);
    // A copy of the mount shows the layer's own directories where something is
    // mounted on them, and keeps access times as they are.
    let mut private_mount = false;
    if !plan.respect_mounts
        && views.privileged
        && let Some(copy) = best_effort("copy the lower's mount", fs::clone_mount_read_only(&root))
    {
        root = copy;
        private_mount = true;
    }
    let stat = fs::stat(At::fd(&root)).map_err(|e| unusable(path, e))?;
    Ok(Layer {
        index,
        is_upper: false,
        path: path.into(),
        mnt_id: stat.mnt_id,
        dev: stat.dev,
        private_mount,
        _mount: None,
        clones: Known::default(),
        tells_holes: Known::default(),
        log_tree: None,
        owners,
        kept_owners: views.plain.clone(),
        kept: Kept::of(plan, At::fd(&root), views.privileged),
        caps: probe::lower(plan, &root, views.privileged),
        root: Arc::new(root),
    })
}

/// The upper and its work directory, opened and not yet tried out.
struct UpperRooms {
    upper: OwnedFd,
    work: OwnedFd,
    /// The private copy of the mount that they are reached through.
    mount: Option<OwnedFd>,
    stat: fs::Stat,
}

/// Opens the upper and its work directory, and takes the upper's lock.
fn enter_upper(
    plan: &MountPlan,
    paths: &UpperPlan,
    patience: Duration,
) -> Result<UpperRooms, MountError> {
    let path = &paths.upper;
    let mut upper = open_root(path, O_RDONLY, "upper directory")?;
    let mut work = open_root(&paths.work, O_RDONLY, "work directory")?;
    let mut stat = fs::stat(At::fd(&upper)).map_err(|e| unusable(path, e))?;
    let work_stat = fs::stat(At::fd(&work)).map_err(|e| unusable(&paths.work, e))?;
    if stat.dev != work_stat.dev || stat.mnt_id != work_stat.mnt_id {
        return Err(MountError::new(
            paths.work.display(),
            format_args!(
                "the work directory is not on the same mount as the upper {}",
                path.display()
            ),
            "put it beside the upper",
        ));
    }
    let mut mount = None;
    if !plan.respect_mounts
        && creds::is_system_admin()
        && let Some(copy) = best_effort("copy the upper's mount", copy_of_mount(paths, &stat))
    {
        (upper, work) = (copy.upper, copy.work);
        mount = Some(copy.mount);
        stat = fs::stat(At::fd(&upper)).map_err(|e| unusable(path, e))?;
    }
    lock_patiently(&upper, path, "upper directory", patience)?;
    Ok(UpperRooms {
        upper,
        work,
        mount,
        stat,
    })
}

fn open_upper(plan: &MountPlan, paths: &UpperPlan) -> Result<(Layer, Scratch), MountError> {
    let path = &paths.upper;
    let rooms = enter_upper(plan, paths, MOUNT_PATIENCE)?;
    if fs::stat(At::new(&rooms.work, SETTLING)).is_ok() {
        return Err(MountError::new(
            path.display(),
            "plyfs settle was interrupted while it moved the marks to the other namespace",
            "run it again",
        ));
    }
    let volatile = plan.durability == Durability::Volatile;
    let scratch = Scratch::open(rooms.work, &paths.work, plan.index, volatile)?;
    let caps = probe::upper(plan, &rooms.upper, &scratch).map_err(|e| {
        MountError::new(
            paths.work.display(),
            format_args!("the upper's marks cannot be written there: {e}"),
            "name an upper and work directory on a filesystem that you may write, that has room and takes marks",
        )
    })?;
    log::debug!("upper {}: {caps:?}", path.display());
    let mut layer = upper_layer(plan, path, rooms.upper, (&rooms.stat, rooms.mount), caps);
    layer.log_tree = (layer.logs_files_apart() && !volatile).then(Default::default);
    Ok((layer, scratch))
}

/// The upper, open as `root`, of which `stat` tells; `mount` is its mount for plyfs alone.
fn upper_layer(
    plan: &MountPlan,
    path: &Path,
    root: OwnedFd,
    (stat, mount): (&fs::Stat, Option<OwnedFd>),
    caps: super::Caps,
) -> Layer {
    Layer {
        index: 0,
        is_upper: true,
        path: path.into(),
        mnt_id: stat.mnt_id,
        dev: stat.dev,
        private_mount: mount.is_some(),
        _mount: mount,
        clones: Known::default(),
        tells_holes: Known::default(),
        log_tree: None,
        owners: Owners::new(&plan.owners),
        kept_owners: Owners::new(&plan.owners),
        kept: Kept::of(plan, At::fd(&root), creds::is_system_admin()),
        caps,
        root: Arc::new(root),
    }
}

/// The upper and its work directory in a private copy of their mount, which pins no
/// mount point: whoever unmounts the union may unmount what the upper is on at once,
/// though the daemon still has it open (as with overlayfs).
struct UpperCopy {
    mount: OwnedFd,
    upper: OwnedFd,
    work: OwnedFd,
}

/// Copies the mount from the nearest directory that holds both, since files can only be
/// moved within one mount. `there` is the upper as it was opened.
fn copy_of_mount(paths: &UpperPlan, there: &fs::Stat) -> std::io::Result<UpperCopy> {
    use std::os::fd::AsRawFd;
    let upper = paths.upper.canonicalize()?;
    let work = paths.work.canonicalize()?;
    let both = upper
        .ancestors()
        .find(|a| work.starts_with(a))
        .unwrap_or(Path::new("/"));
    let above = fs::open_path(both, O_PATH | O_DIRECTORY)?;
    if fs::stat(At::fd(&above))?.mnt_id != there.mnt_id {
        return Err(std::io::Error::other("upper and work have their own mount"));
    }
    let mount = fs::clone_mount(&above)?;
    let open = |path: &Path| -> std::io::Result<OwnedFd> {
        let below = path.strip_prefix(both).map_err(std::io::Error::other)?;
        let within = Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string());
        Ok(fs::open_path(&within.join(below), O_RDONLY | O_DIRECTORY)?)
    };
    let copy = (open(&upper)?, open(&work)?);
    if fs::stat(At::fd(&copy.0))?.ino != there.ino {
        return Err(std::io::Error::other("the upper was moved meanwhile"));
    }
    Ok(UpperCopy {
        upper: copy.0,
        work: copy.1,
        mount,
    })
}
