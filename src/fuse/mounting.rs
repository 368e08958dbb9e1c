//! One mount in the kernel's table: made, found again, taken down.

use crate::config::plan::device_number;
use crate::config::plan::{MountFlags, MountPlan};
use crate::error::plain;
use crate::error::{Errno, MountError, SysError, best_effort};
use crate::sys::fusermount::{self, Failure};
use crate::sys::mount::{self, Flags};
use crate::sys::mountinfo::{self, Mount};
use crate::sys::process::{is_connected, take_fuse_device};
use crate::sys::userns::real_ids;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A mount that this process made. Dropped, it takes down what is left of it.
#[derive(Debug)]
pub struct Mounted {
    /// As the kernel's table had it right after; `None` where it was mounted already.
    entry: Option<Mount>,
    /// Where it was asked for.
    point: PathBuf,
    /// A copy of the device's descriptor, to ask whether the mount is still connected.
    device: Option<OwnedFd>,
    /// Set once the kernel has said that the mount is no more. From then on its numbers
    /// in the kernel's table may be those of another mount.
    gone: AtomicBool,
}

/// How an unmount went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It is gone, or was before.
    Yes,
    /// Someone still uses it.
    Busy,
    /// It was refused, for this reason.
    No(String),
}

/// Mounts the union of `plan`; the device to serve it from.
///
/// # Errors
/// Where there is no FUSE, or the kernel or fusermount3 refuses.
pub fn mount_union(plan: &MountPlan) -> Result<(OwnedFd, Mounted), MountError> {
    let point = &plan.mount_point;
    if let Some(number) = device_number(point) {
        let device = take_fuse_device(number).ok_or_else(|| {
            MountError::new(
                point.display(),
                "not an open FUSE device",
                "give a directory, or a descriptor of /dev/fuse",
            )
        })?;
        return Ok((device, Mounted::new(None, point, None)));
    }
    let device = mount::open_fuse().map_err(no_device)?;
    // With nothing to write to, opening for writing has to fail, and nobody asks us.
    let flags = &MountFlags {
        read_only: plan.flags.read_only || plan.upper.is_none(),
        ..plan.flags.clone()
    };
    let kind = format!("fuse.{}", flags.subtype);
    let data = kernel_words(&device, flags);
    let device = match mount::mount(&flags.fsname, point, &kind, kernel_flags(flags), &data) {
        Ok(()) => device,
        Err(e) if e.errno == Errno::EPERM => {
            drop(device);
            fusermount::mount(point, &helper_words(flags)).map_err(|e| not_helped(point, e))?
        }
        Err(e) => return Err(not_mounted(point, e)),
    };
    let entry = best_effort("find the mount in mountinfo", mountinfo::at(point)).flatten();
    let copy = best_effort("copy the device's descriptor", device.try_clone());
    Ok((device, Mounted::new(entry, point, copy)))
}

fn no_device(e: SysError) -> MountError {
    let remedy = match e.errno {
        Errno::EACCES | Errno::EPERM => {
            "let this user read and write it, or pass it into the container with --device"
        }
        _ => "load the module with modprobe fuse, or pass it into the container with --device",
    };
    MountError::new("/dev/fuse", plain(&e.into()), remedy)
}

fn not_mounted(point: &Path, e: SysError) -> MountError {
    let remedy = match e.errno {
        Errno::ENODEV => "load the module with modprobe fuse",
        Errno::ENOSPC | Errno::ENOMEM => "unmount something: the system takes no more mounts",
        _ => "check the mount point and the options",
    };
    MountError::new(
        format_args!("mount point {}", point.display()),
        format_args!("the kernel refused the mount: {}", plain(&e.into())),
        remedy,
    )
}

fn not_helped(point: &Path, e: Failure) -> MountError {
    let what = format!("mount point {}", point.display());
    match e {
        Failure::Missing => MountError::new(
            what,
            "only root may mount, and fusermount3 is not installed",
            "install fuse3, or run as root or inside `unshare -rm`",
        ),
        Failure::Broken(e) => MountError::new(
            what,
            format_args!("fusermount3: {}", plain(&e)),
            "check that fusermount3 is installed setuid root",
        ),
        Failure::Refused(reason) => {
            let remedy = if reason.contains("user_allow_other") {
                "leave allow_other out, or add user_allow_other to /etc/fuse.conf"
            } else if reason.contains("write access") || reason.contains("not owner") {
                "choose a mount point of your own"
            } else if reason.contains("username") {
                "give this user an entry in /etc/passwd, or run inside `unshare -rm`"
            } else if reason.contains("mount_max") {
                "unmount something, or raise mount_max in /etc/fuse.conf"
            } else {
                "check that fusermount3 is installed setuid root, or run inside `unshare -rm`"
            };
            MountError::new(what, format_args!("fusermount3: {reason}"), remedy)
        }
    }
}

fn kernel_flags(flags: &MountFlags) -> Flags {
    Flags {
        read_only: flags.read_only,
        no_suid: !flags.suid,
        no_dev: !flags.dev,
        no_exec: !flags.exec,
        no_atime: !flags.atime,
        synchronous: flags.synchronous,
    }
}

/// The data of mount(2). The root is a directory: S_IFDIR in octal.
fn kernel_words(device: &OwnedFd, flags: &MountFlags) -> String {
    let (uid, gid) = real_ids();
    let mut words = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid}",
        device.as_raw_fd()
    );
    if flags.default_permissions {
        words.push_str(",default_permissions");
    }
    if flags.allow_other || flags.allow_root {
        words.push_str(",allow_other");
    }
    if let Some(word) = context_word(flags) {
        words.push(',');
        words.push_str(&word);
    }
    words
}

/// The word for an SELinux label: other kernels refuse it.
fn context_word(flags: &MountFlags) -> Option<String> {
    let label = flags.context.as_deref()?;
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        log::info!("option context={label}: without effect, for SELinux is off");
        return None;
    }
    Some(format!("context=\"{label}\""))
}

/// The words for `fusermount3 -o`.
fn helper_words(flags: &MountFlags) -> String {
    let pick = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
    let mut words = vec![
        pick(flags.read_only, "ro", "rw").to_owned(),
        pick(flags.suid, "suid", "nosuid").to_owned(),
        pick(flags.dev, "dev", "nodev").to_owned(),
        pick(flags.exec, "exec", "noexec").to_owned(),
        pick(flags.atime, "atime", "noatime").to_owned(),
        format!("fsname={}", flags.fsname),
        format!("subtype={}", flags.subtype),
    ];
    if flags.default_permissions {
        words.push("default_permissions".to_owned());
    }
    if flags.allow_other || flags.allow_root {
        words.push("allow_other".to_owned());
    }
    if flags.synchronous {
        words.push("sync".to_owned());
    }
    words.extend(context_word(flags));
    words.join(",")
}

impl Mounted {
    fn new(entry: Option<Mount>, point: &Path, device: Option<OwnedFd>) -> Mounted {
        Mounted {
            entry,
            point: point.to_owned(),
            device,
            gone: AtomicBool::new(false),
        }
    }

    /// Where the union appears.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Whether who called has mounted it, and unmounts it: only the device was handed over.
    pub fn is_anothers(&self) -> bool {
        device_number(&self.point).is_some()
    }

    /// The device that its files are on: major and minor number.
    pub fn device(&self) -> Option<(u32, u32)> {
        self.entry.as_ref().map(|entry| entry.dev)
    }

    /// The number of the FUSE connection: the minor of the mount's device.
    pub fn connection(&self) -> Option<u32> {
        self.entry.as_ref().map(|entry| entry.dev.1)
    }

    /// Where this very mount is now, if it is still in this mount namespace. Someone may
    /// have moved it, or unmounted it and mounted another at its place.
    fn place_now(&self) -> Option<PathBuf> {
        let entry = self.entry.as_ref()?;
        if self.gone.load(Ordering::Acquire) {
            return None;
        }
        let table = best_effort("read mountinfo", mountinfo::read())?;
        table
            .into_iter()
            .find(|mount| mount.id == entry.id && mount.dev == entry.dev)
            .map(|mount| mount.point)
    }

    /// Notes that the kernel has ended the connection: nothing is mounted any more.
    pub fn note_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether the kernel still has the connection; an aborted one it has not.
    pub fn is_connected(&self) -> bool {
        let asked = self.device.as_ref().map(is_connected);
        !self.gone.load(Ordering::Acquire) && asked.unwrap_or(true)
    }

    /// Unmounts; `lazy` detaches it at once and lets those inside finish.
    pub fn unmount(&self, lazy: bool) -> Unmounted {
        match self.place_now() {
            Some(point) => unmount(&point, lazy),
            None => Unmounted::Yes,
        }
    }
}

/// Unmounts what lies at `point`, with fusermount3 where umount2(2) is not allowed.
pub fn unmount(point: &Path, lazy: bool) -> Unmounted {
    match mount::unmount(point, lazy) {
        Ok(()) => Unmounted::Yes,
        Err(e) if e.errno == Errno::EBUSY => Unmounted::Busy,
        Err(e) if e.errno == Errno::EPERM => match fusermount::unmount(point, lazy) {
            Ok(()) => Unmounted::Yes,
            Err(Failure::Refused(reason)) if reason.ends_with("busy") => Unmounted::Busy,
            Err(Failure::Refused(reason)) => Unmounted::No(format!("fusermount3: {reason}")),
            Err(Failure::Missing) => {
                Unmounted::No("only root may unmount, and fusermount3 is not installed".into())
            }
            Err(Failure::Broken(e)) => Unmounted::No(format!("fusermount3: {}", plain(&e))),
        },
        Err(e) => Unmounted::No(plain(&e.into())),
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.place_now().is_some() {
            log::warn!("{}: unmounting what is left", self.point.display());
            if let Unmounted::No(reason) = self.unmount(true) {
                log::error!("{}: not unmounted: {reason}", self.point.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fusermount_is_told_every_flag() {
        let flags = MountFlags {
            read_only: true,
            allow_other: true,
            ..MountFlags::default()
        };
        assert_eq!(
            helper_words(&flags),
            "ro,nosuid,nodev,exec,noatime,fsname=plyfs,subtype=plyfs,default_permissions,\
             allow_other"
        );
    }

    #[test]
    fn a_refusal_of_fusermount_is_one_line_with_a_remedy() {
        let said = "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf";
        let refusal = not_helped(Path::new("/m"), Failure::Refused(said.into()));
        assert_eq!(
            refusal.to_string(),
            format!(
                "mount point /m: fusermount3: {said}; leave allow_other out, or add \
                 user_allow_other to /etc/fuse.conf"
            )
        );
    }
}
