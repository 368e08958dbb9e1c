//! The trees that the scripts wrote down, and their comparison.

use std::collections::BTreeMap;
use std::path::Path;

/// What may differ between two runs of the same work, with the field that does.
/// Nothing else may.
pub const DATED: &[Exception] = &[
    // Times of day are written into these.
    Exception::content("./var/log/"),
    // Inode numbers and times of the libraries.
    Exception::content("./var/cache/ldconfig/aux-cache"),
    // Inode numbers and times of the files of the work tree.
    Exception::content("./srv/origin/.git/index"),
    Exception::content("./srv/clone/.git/index"),
    // The day of the last change of the password.
    Exception::content("./etc/shadow"),
];

/// Paths that begin with `prefix` may differ in size and digest.
pub struct Exception {
    prefix: &'static str,
}

impl Exception {
    const fn content(prefix: &'static str) -> Exception {
        Exception { prefix }
    }

    fn covers(&self, path: &str) -> bool {
        path.starts_with(self.prefix)
    }
}

/// One tree: each path with what `manifest` in `union.sh` wrote of it.
pub struct Manifest {
    entries: BTreeMap<String, Vec<String>>,
}

/// Type, mode, owner, links and target; without size (3) and digest (6).
const CONTENT_FIELDS: [usize; 2] = [4, 6];

impl Manifest {
    pub fn read(path: &Path) -> Manifest {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let entries = String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(|line| {
                let mut fields = line.split('\t').map(str::to_owned);
                Some((fields.next()?, fields.collect()))
            })
            .collect();
        Manifest { entries }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Fails with the first differences between two trees.
    pub fn assert_same(&self, other: &Manifest, a: &str, b: &str, exceptions: &[Exception]) {
        let mut differences = Vec::new();
        for (path, mine) in &self.entries {
            match other.entries.get(path) {
                None => differences.push(format!("{path}: only {a}")),
                Some(theirs) => {
                    let excepted = exceptions.iter().any(|e| e.covers(path));
                    if !same(mine, theirs, excepted) {
                        differences.push(format!("{path}: {a} {mine:?}, {b} {theirs:?}"));
                    }
                }
            }
        }
        for path in other.entries.keys() {
            if !self.entries.contains_key(path) {
                differences.push(format!("{path}: only {b}"));
            }
        }
        assert!(
            differences.is_empty(),
            "{} differences between {a} and {b}, the first of them:\n{}",
            differences.len(),
            differences
                .iter()
                .take(20)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
}

fn same(mine: &[String], theirs: &[String], content_excepted: bool) -> bool {
    mine.len() == theirs.len()
        && mine
            .iter()
            .zip(theirs)
            .enumerate()
            .all(|(field, (m, t))| m == t || (content_excepted && CONTENT_FIELDS.contains(&field)))
}
