//! Where unions are made, broken and made again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plyfs::config::plan::MountPlan;
use plyfs::error::Errno;
use plyfs::sys::fault::{Fault, arm};

use crate::inside::{Inside, plan};
use crate::scenes::{BOTTOM, TOP};
use crate::support::bytes::escape;
use crate::support::lab::build;
use crate::support::layers::MarkFormat;
use crate::support::tree::{self, Tree};

/// How a union is made different from the usual one: its options, and whether the lower layers are
/// on another filesystem than the upper.
pub type Variant = (&'static str, bool);

pub const PLAIN: Variant = ("", false);
pub const APART: Variant = ("", true);
/// Every file is copied up in parts, and stays so.
pub const PARTS: Variant = ("partial=0,complete=off", false);

/// Options after this are those of a union over a filesystem whose rename leaves no whiteout.
const NO_RENAME_WHITEOUT: char = '!';

pub const VARIANTS: &[Variant] = &[
    PLAIN,
    APART,
    ("marks=files", false),
    ("userxattr", false),
    ("index=off", false),
    ("redirect_dir=off", false),
    ("metacopy=off", false),
    PARTS,
    ("partial=0,complete=off", true),
    ("partial=0,complete=off,durability=strict", false),
    ("durability=strict", false),
    ("!", false),
    ("!marks=overlay", false),
];

/// Where unions are made and broken.
pub struct Yard {
    pub lowers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub words: &'static str,
    pub plan: MountPlan,
}

impl Yard {
    pub fn new(base: &Path, elsewhere: &Path, (words, apart): Variant) -> Yard {
        let below = if apart { elsewhere } else { base };
        let lowers = vec![below.join("l1"), below.join("l2")];
        build(&lowers[0], MarkFormat::Overlay, TOP);
        build(&lowers[1], MarkFormat::Overlay, BOTTOM);
        let (upper, work, point) = (base.join("u"), base.join("w"), base.join("m"));
        for dir in [&upper, &work, &point] {
            std::fs::create_dir(dir).expect("a directory can be made");
        }
        let known = words.trim_start_matches(NO_RENAME_WHITEOUT);
        let plan = plan(lowers.clone(), (&upper, &work), &point, known);
        Yard {
            lowers,
            upper,
            work,
            words,
            plan: plan.unwrap_or_else(|e| panic!("{e}")),
        }
    }

    pub fn open(&self) -> Inside {
        // Nothing else is renamed while a union is opened.
        // The first rename of a mount tries RENAME_EXCHANGE out.
        let refused = || arm(Fault::Nth("renameat2", 1, Errno::EINVAL));
        let _refused = self.words.starts_with(NO_RENAME_WHITEOUT).then(refused);
        Inside::open(&self.plan).unwrap_or_else(|e| panic!("{e}"))
    }

    /// An upper in which `before` was done.
    pub fn reset(&self, before: &[&str]) -> Inside {
        self.try_reset(before).expect("it was done once already")
    }

    /// The same; `None` where this filesystem or variant has no such operation.
    pub fn try_reset(&self, before: &[&str]) -> Option<Inside> {
        for dir in [&self.upper, &self.work] {
            if dir.exists() {
                std::fs::remove_dir_all(dir).expect("the last upper can be removed");
            }
            std::fs::create_dir(dir).expect("an upper can be made");
            // The thread's umask is what the last caller's was.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir, mode).expect("an upper's mode can be set");
        }
        if !before.is_empty() {
            let union = self.open();
            for line in before {
                match union.perform(line) {
                    Err(Errno::EOPNOTSUPP | Errno::EXDEV) => return None,
                    done => assert_eq!(done, Ok(()), "{line}"),
                }
            }
        }
        Some(self.open())
    }

    pub fn lower_trees(&self) -> Vec<Tree> {
        self.lowers.iter().map(|l| tree::read(l)).collect()
    }

    /// What lies in the upper and in work, as type and path: every mark is one of these.
    pub fn entries(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for dir in [&self.upper, &self.work] {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            for (path, node) in tree::read(dir) {
                // That there may be partly copied files does no harm where there are none.
                if path.starts_with(b"work/incompat") {
                    continue;
                }
                let kind = node.stat.mode & libc::S_IFMT;
                all.insert(format!("{name}/{} {kind:o}", escape(&path)));
            }
        }
        all
    }

    /// What a killed daemon may have left in work.
    pub fn litter(&self) {
        let dir = self.work.join("work/#9/deep");
        std::fs::create_dir_all(&dir).expect("a directory in work can be made");
        for file in [dir.join("file"), self.work.join("work/#a")] {
            std::fs::write(file, "x").expect("a file in work can be made");
        }
    }
}
