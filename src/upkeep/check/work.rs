//! What is in the work directory beside the index.

use super::{Checker, Kind, Work, in_work};
use crate::error::{Errno, MountError};
use crate::layer::scratch::{SETTLING, remove_tree};
use crate::sys::fs;
use crate::sys::path::At;
use crate::upkeep::{trouble, walk};

const TEMPORARIES: &[u8] = b"work";
/// Where overlayfs notes what other mounts must know of.
const INCOMPAT: &[u8] = b"incompat";

impl Checker {
    /// Looks for what a killed mount left, and for the notes that forbid a mount.
    pub(super) fn work(&mut self, work: &Work) -> Result<(), MountError> {
        if fs::stat(At::new(&work.root, SETTLING)).is_ok() {
            let path = in_work(&work.path, &[SETTLING]);
            self.find(path, Kind::HalfSettled, "interrupted settle");
        }
        let Some(dir) = work.open(TEMPORARIES)? else {
            return Ok(());
        };
        let shown = |names: &[&[u8]]| in_work(&work.path, names);
        let names = walk::names(&dir).map_err(|e| trouble(shown(&[TEMPORARIES]), e))?;
        for name in names {
            if &*name == INCOMPAT {
                let inner = crate::layer::dirfds::open_dir(At::new(&dir, INCOMPAT));
                let volatile = inner.and_then(|inner| fs::stat(At::new(&inner, b"volatile")));
                match volatile {
                    Ok(_) => self.find(
                        shown(&[TEMPORARIES, INCOMPAT, b"volatile"]),
                        Kind::Volatile,
                        "volatile upper",
                    ),
                    Err(e) if e.errno == Errno::ENOENT => {}
                    Err(e) => return Err(trouble(shown(&[TEMPORARIES, INCOMPAT]), e)),
                }
                continue;
            }
            // The kernel leaves one that it links its whiteouts to.
            if fs::stat(At::new(&dir, &name)).is_ok_and(|stat| stat.is_whiteout_device()) {
                continue;
            }
            let remove = ("removed", || remove_tree(&dir, &name));
            let path = shown(&[TEMPORARIES, &name]);
            self.find_and(path, Kind::Temporary, "orphaned temporary", remove)?;
        }
        Ok(())
    }
}
