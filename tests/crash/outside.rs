//! A union that the kernel's overlayfs shows, for the same experiment: the yardstick.

use std::path::{Path, PathBuf};

use crate::inside::{File, Files};

use crate::support::bytes::{escape, fill};
use crate::support::lab::at;
use crate::support::mount::{Mounted, Stack, Subject};
use crate::support::{sys, tree};
use crate::workload::Union;

/// What makes overlayfs do the same as plyfs does.
const WORDS: &str = "index=on,redirect_dir=on,metacopy=off";

pub struct Outside {
    mounted: Mounted,
}

impl Outside {
    pub fn mount(
        lowers: &[PathBuf],
        (upper, work): (&Path, &Path),
        point: &Path,
    ) -> Result<Outside, String> {
        let stack = Stack::new(lowers).upper(upper, work).words(WORDS);
        let mounted = stack.mount(Subject::Kernel, point)?;
        Ok(Outside { mounted })
    }

    fn act(&self, line: &str) -> sys::Res<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let word = words.get(2).copied().unwrap_or_default();
        let number = word.parse::<u64>().unwrap_or(0);
        let p = at(self.mounted.path(), words[1]);
        let q = at(self.mounted.path(), word);
        match words[0] {
            "create" => {
                sys::open(&p, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o640).map(drop)
            }
            "mkdir" => sys::mkdir(&p, 0o750),
            "symlink" => sys::symlink("target", &p),
            "link" => sys::link(&p, &q),
            "unlink" => sys::unlink(&p),
            "rmdir" => sys::rmdir(&p),
            "rename" => sys::rename(&p, &q, 0),
            "exchange" => sys::rename(&p, &q, libc::RENAME_EXCHANGE),
            "write" => {
                // A pipe would wait for a reader.
                let fd = sys::open(&p, libc::O_WRONLY | libc::O_NONBLOCK, 0)?;
                sys::pwrite(&fd, &fill(9, number, 3000), number).map(drop)
            }
            "truncate" => sys::truncate(&p, number),
            "chmod" => sys::chmod(&p, 0o711),
            "chown" => sys::lchown(&p, 7, 8),
            "utimens" => sys::utimens(&p, [(77, 7), (77, 7)]),
            "setxattr" => sys::lsetxattr(&p, "user.new", b"2", 0),
            "fsync" => sys::fsync(&sys::open(&p, libc::O_RDONLY | libc::O_NONBLOCK, 0)?),
            "fdatasync" => sys::fdatasync(&sys::open(&p, libc::O_RDONLY | libc::O_NONBLOCK, 0)?),
            other => panic!("{other:?} is no operation here"),
        }
    }

    fn gather(&self, path: &str, files: &mut Files) -> sys::Res<()> {
        let full = at(self.mounted.path(), path.trim_start_matches('/'));
        let stat = sys::lstat(&full)?;
        let mut file = File {
            what: format!("{:o} {}:{}", stat.mode, stat.uid, stat.gid),
            ino: stat.ino,
            ..File::default()
        };
        if stat.is_file() {
            let fd = sys::open(&full, libc::O_RDONLY, 0)?;
            file.data = Some(sys::read_all(&fd)?);
        }
        if stat.is_symlink() {
            file.what += &format!(" to={}", escape(&sys::readlink(&full)?));
        }
        let mut names = sys::llistxattr(&full)?;
        names.sort();
        for name in names {
            let value = sys::lgetxattr(&full, &name)?;
            file.what += &format!(" {}={}", escape(&name), escape(&value));
        }
        if !stat.is_dir() {
            file.mtime = tree::time(stat.mtime);
        }
        files.insert(path.to_owned(), file);
        if stat.is_dir() {
            for entry in sys::list(&full)? {
                self.gather(&format!("{path}/{}", escape(&entry.name)), files)?;
            }
        }
        Ok(())
    }
}

impl Union for Outside {
    fn perform(&self, line: &str) -> Result<(), String> {
        self.act(line)
            .map_err(|e| format!("{line}: {}", sys::errno_name(e)))
    }

    fn files(&self) -> Result<Files, String> {
        let mut files = Files::new();
        self.gather("", &mut files)
            .map_err(|e| format!("reading: {}", sys::errno_name(e)))?;
        Ok(files)
    }
}
