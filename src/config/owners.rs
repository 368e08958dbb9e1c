//! The words that say how owners are shown and where they are kept.

use super::options::Word;
use super::plan::{IdView, OwnerView, Ownership};
use super::request::{choice, number, refuse};
use crate::config::idmap::IdMap;
use crate::error::MountError;

/// One of these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerWord {
    /// `uidmapping`
    Uids,
    /// `gidmapping`
    Gids,
    /// `squash_to_root`
    SquashRoot,
    /// `squash_to_uid`
    SquashUid,
    /// `squash_to_gid`
    SquashGid,
    /// `xattr_permissions`
    Kept,
}

/// What they said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerRequest {
    uids: Option<IdMap>,
    gids: Option<IdMap>,
    squash_root: bool,
    squash_uid: Option<u32>,
    squash_gid: Option<u32>,
    /// Where owners are kept.
    pub ownership: Ownership,
}

fn map(word: &Word, text: &str) -> Result<Option<IdMap>, MountError> {
    let Some(map) = IdMap::parse(text) else {
        let remedy = format!("write triples, as in {}=0:100000:65536", word.name);
        return Err(refuse(word, "not a list of inside:outside:length", remedy));
    };
    Ok(Some(map))
}

/// Whether a word that is a switch is on: by itself it is.
pub(super) fn switch(word: &Word, text: &str) -> Result<bool, MountError> {
    match &word.value {
        None => Ok(true),
        Some(_) => choice(word, text, &[("1", true), ("0", false)]),
    }
}

impl OwnerRequest {
    /// Heeds `word`, whose value is `text`.
    ///
    /// # Errors
    /// Where the value makes no sense.
    pub fn take(&mut self, which: OwnerWord, word: &Word, text: &str) -> Result<(), MountError> {
        let id = || number(word, text, 0, u32::MAX - 1).map(Some);
        match which {
            OwnerWord::Uids => self.uids = map(word, text)?,
            OwnerWord::Gids => self.gids = map(word, text)?,
            OwnerWord::SquashRoot => self.squash_root = switch(word, text)?,
            OwnerWord::SquashUid => self.squash_uid = id()?,
            OwnerWord::SquashGid => self.squash_gid = id()?,
            OwnerWord::Kept => {
                let all = [
                    ("0", Ownership::Inode),
                    ("1", Ownership::Privileged),
                    ("2", Ownership::Containers),
                ];
                self.ownership = choice(word, text, &all)?;
            }
        }
        Ok(())
    }

    /// How owners are shown then.
    pub fn view(&self) -> OwnerView {
        let root = self.squash_root.then_some(0);
        let view = |squash: Option<u32>, map: &Option<IdMap>| match (squash.or(root), map) {
            (Some(id), _) => IdView::Squashed(id),
            (None, Some(map)) => IdView::Mapped(map.clone()),
            (None, None) => IdView::AsStored,
        };
        OwnerView {
            uids: view(self.squash_uid, &self.uids),
            gids: view(self.squash_gid, &self.gids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::split_words;
    use super::super::request::Request;
    use super::*;
    use std::ffi::OsStr;

    fn ask(list: &str) -> Result<OwnerRequest, String> {
        let mut request = Request::default();
        for word in split_words(OsStr::new(list)) {
            request.apply_strictly(&word).map_err(|e| e.to_string())?;
        }
        Ok(request.owners)
    }

    #[test]
    fn the_maps_of_podman_are_understood() {
        let list = "uidmapping=:0:1:5000,gidmapping=:0:1:1001:1001:0:1:1002:1002:64535";
        let view = ask(list).expect("understood").view();
        assert!(matches!(&view.uids, IdView::Mapped(m) if m.to_outside(0) == Some(1)));
        assert!(matches!(&view.gids, IdView::Mapped(m) if m.to_outside(1001) == Some(0)));
        assert!(view.is_mapped());
    }

    #[test]
    fn one_id_for_all_counts_more_than_a_map() {
        let list = "squash_to_uid=7,uidmapping=0:1:5,gidmapping=0:1:5,squash_to_root=0";
        let view = ask(list).expect("understood").view();
        assert_eq!(view.uids, IdView::Squashed(7));
        assert!(matches!(view.gids, IdView::Mapped(_)));
        let root = ask("squash_to_root").expect("understood").view();
        assert_eq!(root, OwnerView::both(IdView::Squashed(0)));
        assert_eq!(ask("").expect("nothing").view(), OwnerView::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (list, message) in [
            (
                "uidmapping=0:1",
                "option uidmapping=0:1: not a list of inside:outside:length; write triples, as in \
                 uidmapping=0:100000:65536",
            ),
            (
                "squash_to_uid=root",
                "option squash_to_uid=root: not a whole number between 0 and 4294967294; write \
                 for instance squash_to_uid=0",
            ),
            (
                "squash_to_root=yes",
                "option squash_to_root=yes: no such value; use one of: 1, 0",
            ),
            (
                "xattr_permissions=3",
                "option xattr_permissions=3: no such value; use one of: 0, 1, 2",
            ),
        ] {
            assert_eq!(ask(list), Err(message.to_owned()), "{list}");
        }
    }
}
