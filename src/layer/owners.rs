//! Owners as a layer has them, and as the union shows them.

use crate::config::plan::{IdView, OwnerView};
use crate::error::{Errno, SysError};
use crate::merge::acl;
use crate::sys::creds::{self, Caller};
use std::sync::Arc;

/// One kind of ids.
#[derive(Debug)]
struct Ids {
    view: IdView,
    /// What the kernel shows for those without a name.
    overflow: u32,
}

impl Ids {
    fn shown(&self, id: u32) -> u32 {
        match &self.view {
            IdView::AsStored => id,
            IdView::OverflowIsRoot if id == self.overflow => 0,
            IdView::OverflowIsRoot => id,
            IdView::Squashed(one) => *one,
            IdView::Mapped(map) => map.to_outside(id).unwrap_or(self.overflow),
        }
    }

    /// What is kept for the id `shown`; `None` where nothing can be.
    fn stored(&self, shown: u32) -> Option<u32> {
        match &self.view {
            IdView::Mapped(map) => map.to_inside(shown),
            _ => Some(shown),
        }
    }

    /// What a copy has for the id `id` of a file in a layer whose ids are `from`.
    fn kept(&self, from: Option<&Ids>, id: u32) -> u32 {
        let mapped = from.is_some_and(|from| matches!(from.view, IdView::Mapped(_)));
        match &self.view {
            IdView::OverflowIsRoot => self.shown(id),
            IdView::Mapped(map) if !mapped => map.to_inside(id).unwrap_or(id),
            _ => id,
        }
    }
}

/// How the owners of a layer are shown; nothing, where they are as they are.
#[derive(Clone, Debug, Default)]
pub struct Owners(Option<Arc<(Ids, Ids)>>);

impl Owners {
    /// Those of `view`.
    pub fn new(view: &OwnerView) -> Owners {
        if *view == OwnerView::default() {
            return Owners(None);
        }
        let (uid, gid) = creds::overflow_ids();
        let ids = |view: &IdView, overflow| Ids {
            view: view.clone(),
            overflow,
        };
        Owners(Some(Arc::new((ids(&view.uids, uid), ids(&view.gids, gid)))))
    }

    /// The same for a layer whose mount shows mapped ids by itself.
    pub fn of_idmapped(view: &OwnerView) -> Owners {
        let plain = |view: &IdView| match view {
            IdView::Mapped(_) => IdView::AsStored,
            other => other.clone(),
        };
        Owners::new(&OwnerView {
            uids: plain(&view.uids),
            gids: plain(&view.gids),
        })
    }

    /// Whether they are shown as they are.
    pub fn are_as_stored(&self) -> bool {
        self.0.is_none()
    }

    /// The uid and gid that are shown for those on disk.
    pub fn shown(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        match self.0.as_deref() {
            None => (uid, gid),
            Some((uids, gids)) => (uids.shown(uid), gids.shown(gid)),
        }
    }

    /// What is kept where somebody sets these.
    ///
    /// # Errors
    /// EINVAL for an id that cannot be kept.
    pub fn stored(
        &self,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(Option<u32>, Option<u32>), SysError> {
        let Some((uids, gids)) = self.0.as_deref() else {
            return Ok((uid, gid));
        };
        let keep = |ids: &Ids, id: Option<u32>| match id {
            None => Ok(None),
            Some(id) => ids.stored(id).map(Some).ok_or(SysError {
                call: "fchownat",
                errno: Errno::EINVAL,
            }),
        };
        Ok((keep(uids, uid)?, keep(gids, gid)?))
    }

    /// `caller` with the ids that what it makes has on disk: the overflow ids, where its own
    /// cannot be kept.
    pub fn inside(&self, caller: &Caller) -> Caller {
        match self.0.as_deref() {
            None => *caller,
            Some((uids, gids)) => Caller {
                uid: uids.stored(caller.uid).unwrap_or(uids.overflow),
                gid: gids.stored(caller.gid).unwrap_or(gids.overflow),
                ..*caller
            },
        }
    }

    /// The owner of a copy of a file that has the owner `id` in a layer with owners `from`.
    pub fn kept(&self, from: &Owners, (uid, gid): (u32, u32)) -> (u32, u32) {
        let Some((uids, gids)) = self.0.as_deref() else {
            return (uid, gid);
        };
        let from = from.0.as_deref();
        (
            uids.kept(from.map(|(uids, _)| uids), uid),
            gids.kept(from.map(|(_, gids)| gids), gid),
        )
    }

    /// Whether an owner that cannot be kept makes no difference to anybody.
    pub fn are_squashed(&self) -> bool {
        let squashed = |ids: &Ids| matches!(ids.view, IdView::Squashed(_));
        self.0
            .as_deref()
            .is_some_and(|(uids, gids)| squashed(uids) || squashed(gids))
    }

    /// `acl`, an xattr of a file of this layer, as it is shown.
    pub fn acl_shown(&self, acl: Vec<u8>) -> Vec<u8> {
        let Some((uids, gids)) = self.0.as_deref() else {
            return acl;
        };
        // A squashed owner says nothing of who else may do what.
        let show = |ids: &Ids, id| match ids.view {
            IdView::Squashed(_) => id,
            _ => ids.shown(id),
        };
        let shown = acl::with_ids(&acl, |id| Some(show(uids, id)), |id| Some(show(gids, id)));
        shown.unwrap_or(acl)
    }

    /// The xattr that keeps `acl`; `None` where an id in it cannot be kept.
    pub fn acl_stored(&self, acl: &[u8]) -> Option<Vec<u8>> {
        match self.0.as_deref() {
            None => Some(acl.to_vec()),
            Some((uids, gids)) => acl::with_ids(acl, |id| uids.stored(id), |id| gids.stored(id)),
        }
    }

    /// The xattr that a copy has of `acl`, of a file in a layer with owners `from`.
    pub fn acl_kept(&self, from: &Owners, acl: Vec<u8>) -> Vec<u8> {
        if self.0.is_none() {
            return acl;
        }
        let uid = |id| Some(self.kept(from, (id, id)).0);
        let gid = |id| Some(self.kept(from, (id, id)).1);
        acl::with_ids(&acl, uid, gid).unwrap_or(acl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::idmap::IdMap;

    fn mapped() -> OwnerView {
        OwnerView::both(IdView::Mapped(IdMap::parse(":0:1:5000").expect("a map")))
    }

    #[test]
    fn what_has_no_id_outside_is_shown_as_the_overflow_id_and_not_kept() {
        let owners = Owners::new(&mapped());
        let (uid, gid) = creds::overflow_ids();
        assert_eq!(owners.shown((0, 4999)), (1, 5000));
        assert_eq!(owners.shown((5000, 9999)), (uid, gid));
        assert_eq!(owners.stored(Some(1), None), Ok((Some(0), None)));
        let refused = owners.stored(None, Some(0)).expect_err("no such id");
        assert_eq!(refused.errno, Errno::EINVAL);
        let stranger = Caller {
            uid: 0,
            gid: 7,
            umask: 0,
            pid: 1,
        };
        let inside = owners.inside(&stranger);
        assert_eq!((inside.uid, inside.gid), (uid, 6));
    }

    #[test]
    fn a_copy_keeps_its_owner_also_where_that_is_not_shown() {
        let (upper, lower) = (Owners::new(&mapped()), Owners::new(&mapped()));
        assert_eq!(upper.kept(&lower, (9999, 3)), (9999, 3));
        let idmapped = Owners::of_idmapped(&mapped());
        assert_eq!(idmapped.shown((1, 5000)), (1, 5000));
        assert_eq!(upper.kept(&idmapped, (1, 5000)), (0, 4999));
    }

    #[test]
    fn all_are_shown_as_one_and_kept_as_asked_for() {
        let owners = Owners::new(&OwnerView {
            uids: IdView::Squashed(55),
            gids: IdView::AsStored,
        });
        assert_eq!(owners.shown((7, 8)), (55, 8));
        assert_eq!(owners.stored(Some(9), Some(9)), Ok((Some(9), Some(9))));
        assert_eq!(owners.kept(&owners, (7, 8)), (7, 8));
        assert!(owners.are_squashed());
    }
}
