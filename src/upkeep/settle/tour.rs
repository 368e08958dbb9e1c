//! A tour of the whole union, directories before and after what is in them. The way down
//! is kept in a list, for a tree may be deeper than a stack.

use super::Job;
use crate::error::{Errno, MountError, Result};
use crate::merge::inomap::{Ino, ROOT};
use crate::sys::dir::DT_DIR;
use crate::union::{Entry, Union};
use crate::upkeep::walk::below;
use crate::upkeep::{Shown, trouble};
use std::path::PathBuf;

/// As many names are asked for at a time.
const BATCH: usize = 1024;

/// A directory of the union on the way down; `D` is the guide's own.
pub(super) struct Stop<'u, D> {
    pub(super) ino: Ino,
    /// Where it is in the union; empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) own: D,
    todo: Vec<(Vec<u8>, u8)>,
    /// Counted as looked up as long as the tour is in it.
    _entry: Option<Entry<'u>>,
}

/// Who is led through the union.
pub(super) trait Guide {
    /// What it knows of a directory.
    type Own;
    /// A directory is entered, from `above` by `name`.
    fn enter(
        &mut self,
        above: Option<(&Self::Own, Ino, &[u8])>,
        ino: Ino,
    ) -> std::result::Result<Self::Own, Trouble>;
    /// Whether a directory in that one may be passed over if it is not for us to read: in
    /// the union it is not, either.
    fn may_miss(&self, above: &Self::Own) -> bool;
    /// A name in the directory `ino` that is no directory.
    fn leaf(
        &mut self,
        own: &Self::Own,
        ino: Ino,
        name: &[u8],
        kind: u8,
    ) -> std::result::Result<(), Trouble>;
    /// All that is in the directory was visited.
    fn leave(&mut self, own: &Self::Own, ino: Ino) -> Result<()>;
}

/// Why a tour ends early.
pub(super) enum Trouble {
    /// A call failed.
    Failed(Errno),
    /// The cause, and what can be done about it.
    Said(String, &'static str),
}

impl From<Errno> for Trouble {
    fn from(e: Errno) -> Trouble {
        Trouble::Failed(e)
    }
}

/// Leads `guide` through the union.
pub(super) fn tour<G: Guide>(
    union: &Union,
    job: &mut Job<'_>,
    guide: &mut G,
    tally: impl Fn(&mut Job<'_>, &mut G),
) -> std::result::Result<(), MountError> {
    let root = match union.tree.upper_layer() {
        Ok(upper) => upper.path.clone(),
        Err(_) => PathBuf::new(),
    };
    let failed = |path: &[u8], why: Trouble| match why {
        Trouble::Failed(e) => trouble(Shown::new(&root, path), e),
        Trouble::Said(cause, remedy) => MountError::new(Shown::new(&root, path), cause, remedy),
    };
    let first = stop(union, guide, None, (ROOT, Vec::new(), None));
    let mut way = vec![first.map_err(|e| failed(b"", e))?];
    while let Some(here) = way.last_mut() {
        let Some((name, kind)) = here.todo.pop() else {
            let left = guide.leave(&here.own, here.ino);
            left.map_err(|e| failed(&here.path, e.into()))?;
            way.pop();
            continue;
        };
        job.step();
        let path = below(&here.path, &name);
        if kind != DT_DIR {
            let done = guide.leaf(&here.own, here.ino, &name, kind);
            tally(job, guide);
            done.map_err(|e| failed(&path, e))?;
            continue;
        }
        let entry = union.lookup(here.ino, &name);
        let Some(entry) = entry.map_err(|e| failed(&path, e.into()))? else {
            continue;
        };
        let place = (entry.attr.ino, path.clone(), Some(entry));
        let above = Some((&here.own, here.ino, &*name));
        let next = stop(union, guide, above, place);
        tally(job, guide);
        match next {
            Ok(next) => way.push(next),
            Err(Trouble::Failed(Errno::EACCES)) if guide.may_miss(&here.own) => {
                log::warn!("{}: may not be read: passed over", Shown::new(&root, &path));
            }
            Err(e) => return Err(failed(&path, e)),
        }
    }
    tally(job, guide);
    Ok(())
}

fn stop<'u, G: Guide>(
    union: &'u Union,
    guide: &mut G,
    above: Option<(&G::Own, Ino, &[u8])>,
    (ino, path, entry): (Ino, Vec<u8>, Option<Entry<'u>>),
) -> std::result::Result<Stop<'u, G::Own>, Trouble> {
    let own = guide.enter(above, ino)?;
    let mut todo = Vec::new();
    let mut cookie = 0;
    loop {
        let items = union.readdir(ino, cookie, BATCH)?;
        let Some(last) = items.last() else { break };
        cookie = last.cookie;
        let named = items
            .into_iter()
            .filter(|i| i.name != b"." && i.name != b"..");
        todo.extend(named.map(|item| (item.name, item.kind)));
    }
    todo.sort_by(|a, b| b.cmp(a));
    Ok(Stop {
        ino,
        path,
        own,
        todo,
        _entry: entry,
    })
}
