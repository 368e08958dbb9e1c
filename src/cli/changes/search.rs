//! The search for all names of some files of a layer: near what was changed first, for there
//! most of them are, and no further once all are found.

use super::below::{Below, each_entry, entries, open_dir};
use crate::sys::dir::{DT_DIR, DT_UNKNOWN};
use crate::sys::fs::stat;
use crate::sys::path::At;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

/// A path as its names.
pub(super) type Steps = Vec<Vec<u8>>;

/// What is looked for in one layer, and what was found.
pub(super) struct Search<'a> {
    layer: &'a Below,
    /// How many names of each file are still to be found; nothing before the first of them.
    missing: BTreeMap<u64, Option<u32>>,
    /// Of how many files names are still to be found.
    unfinished: usize,
    /// Directories that were looked through with all below them.
    done: BTreeSet<Steps>,
    found: Vec<(Steps, u64)>,
}

impl<'a> Search<'a> {
    /// For the files of `layer` with the inode numbers `wanted`.
    pub fn new(layer: &'a Below, wanted: impl IntoIterator<Item = u64>) -> Search<'a> {
        let missing: BTreeMap<_, _> = wanted.into_iter().map(|ino| (ino, None)).collect();
        Search {
            layer,
            unfinished: missing.len(),
            missing,
            done: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    /// The names there are, and which file each is of; `upper` is what lies above the layer.
    pub fn names(mut self, upper: &OwnedFd) -> Vec<(Steps, u64)> {
        self.go(upper);
        self.found.sort();
        self.found
    }

    fn go(&mut self, upper: &OwnedFd) {
        for mut path in deepest_first(upper) {
            if self.unfinished == 0 {
                return;
            }
            if let Some(dir) = self.reach(&path) {
                self.look_through(&dir, &mut path);
            }
            self.done.insert(path);
        }
    }

    fn reach(&self, path: &Steps) -> Option<OwnedFd> {
        let root = self.layer.fd.try_clone().ok()?;
        path.iter()
            .try_fold(root, |dir, name| self.enter(&dir, name))
    }

    /// The directory `name` in `dir`, if it belongs to the layer.
    fn enter(&self, dir: &OwnedFd, name: &[u8]) -> Option<OwnedFd> {
        let inner = open_dir(At::new(dir, name)).ok()?;
        self.layer.holds(&inner).then_some(inner)
    }

    /// Looks through `dir`, which is at `path`, and all below it.
    fn look_through(&mut self, dir: &OwnedFd, path: &mut Steps) {
        if self.unfinished == 0 || self.done.contains(path) {
            return;
        }
        for name in self.list(dir, path) {
            if let Some(inner) = self.enter(dir, &name) {
                path.push(name);
                self.look_through(&inner, path);
                path.pop();
            }
        }
    }

    /// Notes what `dir` has; the names of the directories in it.
    fn list(&mut self, dir: &OwnedFd, path: &Steps) -> Vec<Vec<u8>> {
        let (mut dirs, mut names) = (Vec::new(), Vec::new());
        // What cannot be read was not changed by a name in it either.
        let listed = each_entry(dir, |entry| {
            if entry.kind == DT_DIR || entry.kind == DT_UNKNOWN {
                dirs.push(entry.name.to_vec());
            }
            if entry.kind != DT_DIR && self.missing.contains_key(&entry.ino) {
                names.push((entry.name.to_vec(), entry.ino));
            }
        });
        if let Err(e) = listed {
            log::debug!("hard links in a lower directory are unknown: {e}");
        }
        for (name, ino) in names {
            let links = stat(At::new(dir, &name)).map(|stat| stat.nlink);
            if let Some(left) = self.missing.get_mut(&ino) {
                let before = left.or(links.ok());
                *left = before.map(|left| left.saturating_sub(1));
                // One more name than links is of another file with that number.
                self.unfinished -= usize::from(before == Some(1));
            }
            let mut path = path.clone();
            path.push(name);
            self.found.push((path, ino));
        }
        dirs
    }
}

/// All directories of the upper, the root last.
fn deepest_first(upper: &OwnedFd) -> Vec<Steps> {
    fn add(dir: &OwnedFd, path: &mut Steps, all: &mut Vec<Steps>) {
        // One that cannot be read is looked through with those above it.
        for name in entries(dir).unwrap_or_default() {
            let at = At::new(dir, &name);
            let is_dir = stat(at).is_ok_and(|stat| stat.is_dir());
            if let Some(inner) = is_dir.then(|| open_dir(at).ok()).flatten() {
                path.push(name);
                add(&inner, path, all);
                path.pop();
            }
        }
        all.push(path.clone());
    }
    let mut all = Vec::new();
    add(upper, &mut Steps::new(), &mut all);
    all.sort_by_key(|path| std::cmp::Reverse(path.len()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::{O_DIRECTORY, O_RDONLY, open_path};
    use std::fs::{create_dir_all, hard_link, write};

    #[test]
    fn all_names_are_found_and_no_more_is_looked_through_than_that_takes() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |path: &str| place.path().join(path);
        for dir in ["low/far/off", "low/a/near/in", "up/a/near", "up/b"] {
            create_dir_all(at(dir)).expect("a directory");
        }
        write(at("low/a/near/one"), "x").expect("a file");
        hard_link(at("low/a/near/one"), at("low/a/near/in/two")).expect("a link");
        let root = |dir: &str| open_path(&at(dir), O_RDONLY | O_DIRECTORY).expect("open");
        let (layer, upper) = (Below::new(root("low"), 0), root("up"));
        let ino = stat(At::new(&root("low/a/near"), b"one"))
            .expect("stat")
            .ino;
        let names = |found: Vec<(Steps, u64)>| -> Vec<String> {
            let path = |(path, _): (Steps, u64)| String::from_utf8_lossy(&path.join(&b'/')).into();
            found.into_iter().map(path).collect()
        };

        let mut search = Search::new(&layer, [ino]);
        search.go(&upper);
        assert_eq!(names(search.found), ["a/near/one", "a/near/in/two"]);
        let done: Vec<_> = search
            .done
            .into_iter()
            .map(|path| path.join(&b'/'))
            .collect();
        assert_eq!(done, [b"a/near"]);

        hard_link(at("low/a/near/one"), at("low/far/off/three")).expect("a link");
        let found = names(Search::new(&layer, [ino]).names(&upper));
        assert_eq!(found, ["a/near/in/two", "a/near/one", "far/off/three"]);
    }
}
