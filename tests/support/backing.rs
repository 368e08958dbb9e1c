//! The filesystem that layers lie on.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{skip, sys, temp::Scratch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
}

impl Kind {
    pub fn named(name: &str) -> Option<Kind> {
        match name {
            "ext4" => Some(Kind::Ext4),
            "xfs" => Some(Kind::Xfs),
            "btrfs" => Some(Kind::Btrfs),
            "tmpfs" => Some(Kind::Tmpfs),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Tmpfs => "tmpfs",
        }
    }
}

/// A directory on a filesystem of the wanted kind, with the mount and image that it took.
pub struct Backing {
    // Declared first, so that they are unmounted before the scratch directory goes.
    cover: Option<Unmount>,
    mount: Option<Unmount>,
    dir: PathBuf,
    scratch: Scratch,
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        if sys::umount(self.0.as_os_str().as_encoded_bytes(), 0).is_err() {
            let gone = sys::umount(self.0.as_os_str().as_encoded_bytes(), libc::MNT_DETACH);
            eprintln!("{}: busy, detached: {gone:?}", self.0.display());
        }
    }
}

const EXT4_MAGIC: i64 = 0xef53;

impl Backing {
    /// The plain disk where it is of this kind, else a loop image (or a tmpfs). `None`, with the
    /// reason printed, where the machine has not got it.
    pub fn new(kind: Kind) -> Option<Backing> {
        let scratch = Scratch::new();
        let here = sys::statfs(scratch.path().as_os_str().as_encoded_bytes()).ok()?;
        if kind == Kind::Ext4 && here.f_type == EXT4_MAGIC {
            let dir = scratch.path().to_owned();
            return Some(Backing {
                cover: None,
                mount: None,
                dir,
                scratch,
            });
        }
        Backing::image(kind, 1 << 31, scratch)
    }

    /// A filesystem of its own, of `size` bytes.
    pub fn sized(kind: Kind, size: u64) -> Option<Backing> {
        Backing::image(kind, size, Scratch::new())
    }

    fn image(kind: Kind, size: u64, scratch: Scratch) -> Option<Backing> {
        let dir = scratch.dir("fs");
        if kind == Kind::Tmpfs {
            let words = format!("size={size},mode=755");
            sys::mount(
                "tmpfs",
                dir.as_os_str().as_encoded_bytes(),
                "tmpfs",
                0,
                words.as_bytes(),
            )
            .ok()?;
        } else {
            let tool = format!("mkfs.{}", kind.name());
            if !skip::has_filesystem(kind.name()) || !skip::has_tool(&tool) {
                return None;
            }
            let image = scratch.path().join("image");
            std::fs::File::create(&image)
                .and_then(|file| file.set_len(size))
                .expect("an image file can be made");
            run(Command::new(tool).args(["-q"]).arg(&image))?;
            run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&dir))?;
        }
        Some(Backing {
            cover: None,
            mount: Some(Unmount(dir.clone())),
            dir,
            scratch,
        })
    }

    /// The same, mounted once more so that reading changes no access time.
    pub fn without_atime(mut self) -> Option<Backing> {
        let at = self.dir.as_os_str().as_encoded_bytes();
        let source = self.dir.to_str()?;
        sys::mount(source, at, "none", libc::MS_BIND, b"").ok()?;
        self.cover = Some(Unmount(self.dir.clone()));
        let quiet = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOATIME;
        sys::mount("none", at, "none", quiet, b"").ok()?;
        Some(self)
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A new directory on it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path).expect("a directory on the backing filesystem can be made");
        path
    }
}

/// Runs a tool of the machine; `None`, with what it said, where it fails.
fn run(command: &mut Command) -> Option<()> {
    let out = command.output().ok()?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        skip::skipped(&format!("{command:?} failed: {}", said.trim()));
        return None;
    }
    Some(())
}
