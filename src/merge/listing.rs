//! The listings of a directory's layers become one, each name once, with cookies
//! that outlive every change.
//!
//! There is no open-directory state (see `fuse/adapter.rs`), so the place where a
//! reader stopped has to be found again in whatever the directory has become. A
//! cookie is therefore a keyed hash of the name: an entry that stays keeps its
//! place, whatever comes and goes around it, and one that is added while somebody
//! reads falls before or after the reader by chance, never always after (which
//! would let `for f in *; mv $f $f.bak` run for ever).
//!
//! ```text
//!  63                                                    0
//! | 0 |          62 bits of hash, at least FIRST          |
//! ```

use super::name::Name;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// The cookie of `.`; a directory stream starts at 0.
pub const COOKIE_DOT: u64 = 1;
/// The cookie of `..`.
pub const COOKIE_DOTDOT: u64 = 2;
const FIRST: u64 = 16;
const MASK: u64 = (1 << 62) - 1;
/// `DT_DIR` of readdir(3).
const DIRECTORY: u8 = 4;

/// One name of a merged directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// The union's inode number; 0 where a lookup has to tell.
    pub ino: u64,
    /// `DT_*` of the file.
    pub kind: u8,
    /// Which of the lower directories that are merged has it first, topmost 0; `None` for
    /// what is in the upper, or where nobody took note.
    pub lower: Option<u16>,
}

/// Which of the lower directories that are merged have something at a name that counts,
/// by their numbers, topmost 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lowers {
    /// Nobody took note.
    Unknown,
    /// Of a directory this one alone; of anything else this one first.
    One(u16),
    /// Of a directory these, topmost first.
    Several(Arc<[u16]>),
}

/// A merged directory: every visible name by its cookie.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    entries: BTreeMap<u64, Entry>,
    /// Of directories that lie over something: the lower ones which have the name.
    merged: HashMap<Name, Arc<[u16]>>,
}

/// The key of the name hash: one for a mount.
#[derive(Clone, Debug, Default)]
pub struct CookieKey(RandomState);

impl CookieKey {
    fn cookie(&self, name: &[u8]) -> u64 {
        (self.0.hash_one(name) & MASK).max(FIRST)
    }
}

impl Listing {
    /// The cookie under which `name` is or would be: two names of one hash follow
    /// each other.
    fn slot(&self, key: &CookieKey, name: &[u8]) -> u64 {
        let mut cookie = key.cookie(name);
        while let Some(there) = self.entries.get(&cookie) {
            if &*there.name == name {
                break;
            }
            cookie += 1;
        }
        cookie
    }

    /// The entry of `name`.
    pub fn get(&self, key: &CookieKey, name: &[u8]) -> Option<&Entry> {
        self.entries.get(&self.slot(key, name))
    }

    /// Which lower directories have what `entry` is of.
    pub fn lowers(&self, entry: &Entry) -> Lowers {
        let merged = match entry.kind {
            DIRECTORY => self.merged.get(&entry.name),
            _ => None,
        };
        match (merged, entry.lower) {
            (Some(several), _) => Lowers::Several(several.clone()),
            (None, Some(one)) => Lowers::One(one),
            (None, None) => Lowers::Unknown,
        }
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: &CookieKey, entry: Entry) {
        self.merged.remove(&entry.name);
        self.put(key, entry);
    }

    fn put(&mut self, key: &CookieKey, entry: Entry) {
        let slot = self.slot(key, &entry.name);
        self.entries.insert(slot, entry);
    }

    /// Takes `name` away.
    pub fn remove(&mut self, key: &CookieKey, name: &[u8]) -> Option<Entry> {
        let slot = self.slot(key, name);
        let gone = self.entries.remove(&slot)?;
        self.merged.remove(name);
        // Names of one hash follow each other: those behind the gap move up to it.
        let mut next = slot + 1;
        while let Some(entry) = self.entries.remove(&next) {
            self.put(key, entry);
            next += 1;
        }
        Some(gone)
    }

    /// The entries after `cookie`, with their own cookies.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries
            .range(cookie.saturating_add(1)..)
            .map(|(c, e)| (*c, e))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Merges layers, given topmost first.
#[derive(Debug)]
pub struct Merger<'k> {
    key: &'k CookieKey,
    /// What is visible, by cookies; of one name that of the topmost layer is the first.
    shown: Vec<(u64, Entry)>,
    /// See [`Listing::merged`].
    merged: HashMap<Name, Vec<u16>>,
    hidden: HashSet<Name>,
    /// With so many in `shown` those that have another above them are taken out.
    crowded: usize,
}

/// Fewer entries are put in order at the end only.
const CROWD: usize = 4096;

impl<'k> Merger<'k> {
    /// Nothing merged yet.
    pub fn new(key: &'k CookieKey) -> Merger<'k> {
        Merger {
            key,
            shown: Vec::new(),
            merged: HashMap::new(),
            hidden: HashSet::new(),
            crowded: CROWD,
        }
    }

    /// Adds the next lower layer, whole: the names that it `hides` are hidden only below it,
    /// and may be among its own `entries`.
    pub fn layer(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        hides: impl IntoIterator<Item = Name>,
    ) {
        for entry in entries {
            if !self.hidden.contains(&entry.name) {
                let cookie = self.key.cookie(&entry.name);
                self.shown.push((cookie, entry));
            }
        }
        self.hidden.extend(hides);
        if self.shown.len() > self.crowded {
            self.order();
            self.crowded = CROWD.max(2 * self.shown.len());
        }
    }

    /// Sorts what is shown. Sorting keeps the order of the layers within a name.
    fn order(&mut self) {
        self.shown.sort_by_key(|(cookie, _)| *cookie);
        let merged = &mut self.merged;
        self.shown.dedup_by(|below, above| {
            let is_same = below.0 == above.0 && below.1.name == above.1.name;
            if is_same {
                note_below(merged, &above.1, &below.1);
            }
            is_same
        });
    }

    /// The merged directory.
    pub fn finish(mut self) -> Listing {
        self.order();
        let mut listing = Listing::default();
        let cookies = self.shown.iter().map(|(cookie, _)| cookie);
        if cookies.is_sorted_by(|a, b| a < b) {
            listing.entries = self.shown.into_iter().collect();
        } else {
            for (_, entry) in self.shown {
                match listing.get(self.key, &entry.name) {
                    Some(above) => note_below(&mut self.merged, above, &entry),
                    None => listing.put(self.key, entry),
                }
            }
        }
        let merged = self.merged.into_iter();
        listing.merged = merged.map(|(name, all)| (name, all.into())).collect();
        listing
    }
}

/// Notes in `merged` that `above`, of the same name, lies over `below`.
fn note_below(merged: &mut HashMap<Name, Vec<u16>>, above: &Entry, below: &Entry) {
    if above.kind != DIRECTORY {
        return;
    }
    let all = merged.entry(above.name.clone()).or_default();
    for number in [above.lower, below.lower].into_iter().flatten() {
        if let Err(place) = all.binary_search(&number) {
            all.insert(place, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(s: &str) -> Name {
        Name::new(s.as_bytes()).unwrap()
    }
    fn entry(s: &str, ino: u64) -> Entry {
        Entry {
            name: name(s),
            ino,
            kind: 8,
            lower: None,
        }
    }
    fn names(listing: &Listing) -> Vec<String> {
        let mut out: Vec<_> = listing
            .after(0)
            .map(|(_, e)| format!("{}={}", e.name, e.ino))
            .collect();
        out.sort();
        out
    }

    #[test]
    fn a_name_is_listed_once_and_marks_hide_only_what_is_below() {
        let key = CookieKey::default();
        let mut m = Merger::new(&key);
        m.layer(
            [entry("top", 1), entry("both", 2)],
            [name("gone"), name("both")],
        );
        m.layer(
            [
                entry("gone", 3),
                entry("top", 4),
                entry("both", 5),
                entry("low", 6),
            ],
            [name("lowest")],
        );
        m.layer([entry("lowest", 7), entry("low", 8)], []);
        assert_eq!(names(&m.finish()), ["both=2", "low=6", "top=1"]);
    }

    #[test]
    fn names_of_one_hash_are_all_listed_and_each_once() {
        let key = CookieKey::default();
        let mut m = Merger::new(&key);
        m.shown = ["top", "other", "top", "last", "other"]
            .into_iter()
            .zip(1..)
            .map(|(name, ino)| (FIRST, entry(name, ino)))
            .collect();
        assert_eq!(names(&m.finish()), ["last=4", "other=2", "top=1"]);
    }

    fn in_layer(name: &str, kind: u8, lower: Option<u16>) -> Entry {
        Entry {
            kind,
            lower,
            ..entry(name, 1)
        }
    }

    #[test]
    fn of_a_directory_all_lower_ones_are_known_that_count() {
        let (key, file) = (CookieKey::default(), 8);
        let dir = |name, lower| in_layer(name, DIRECTORY, lower);
        let mut m = Merger::new(&key);
        m.layer([dir("upper", None), dir("alone", None)], []);
        let names = ["upper", "some", "hidden", "over"];
        m.layer(names.map(|name| dir(name, Some(0))), [name("hidden")]);
        m.layer([dir("low", Some(1)), in_layer("file", file, Some(1))], []);
        let all = names.map(|name| dir(name, Some(2)));
        m.layer(all.into_iter().chain([dir("file", Some(2))]), []);
        m.layer([in_layer("over", file, Some(3)), dir("some", Some(3))], []);
        let mut listing = m.finish();
        let of = |listing: &Listing, name: &str| {
            listing.lowers(listing.get(&key, name.as_bytes()).unwrap())
        };
        let several = |numbers: &[u16]| Lowers::Several(numbers.into());
        assert_eq!(of(&listing, "upper"), several(&[0, 2]));
        assert_eq!(of(&listing, "alone"), Lowers::Unknown);
        assert_eq!(of(&listing, "some"), several(&[0, 2, 3]));
        assert_eq!(of(&listing, "hidden"), Lowers::One(0));
        assert_eq!(of(&listing, "over"), several(&[0, 2, 3]));
        assert_eq!(of(&listing, "low"), Lowers::One(1));
        assert_eq!(of(&listing, "file"), Lowers::One(1));

        listing.insert(&key, dir("some", None));
        assert_eq!(of(&listing, "some"), Lowers::Unknown);
        listing.remove(&key, b"upper");
        listing.insert(&key, dir("upper", None));
        assert_eq!(of(&listing, "upper"), Lowers::Unknown);
    }

    #[test]
    fn of_directories_of_one_hash_all_lower_ones_are_known() {
        let key = CookieKey::default();
        let mut m = Merger::new(&key);
        m.shown = ["top", "other", "top", "top", "other"]
            .into_iter()
            .zip(0..)
            .map(|(name, lower)| (FIRST, in_layer(name, DIRECTORY, Some(lower))))
            .collect();
        let mut listing = m.finish();
        let of = |listing: &Listing, name: &str| {
            listing.lowers(listing.get(&key, name.as_bytes()).unwrap())
        };
        assert_eq!(of(&listing, "top"), Lowers::Several([0, 2, 3].into()));
        listing.remove(&key, b"top");
        assert_eq!(of(&listing, "other"), Lowers::Several([1, 4].into()));
    }

    #[test]
    fn many_layers_with_the_same_directories_are_all_known() {
        let key = CookieKey::default();
        let mut m = Merger::new(&key);
        for layer in 0..100 {
            let dirs = (0..1000).map(|i| in_layer(&format!("{i}"), DIRECTORY, Some(layer)));
            m.layer(dirs, []);
        }
        let listing = m.finish();
        let all = Lowers::Several((0..100).collect());
        assert!(listing.after(0).all(|(_, e)| listing.lowers(e) == all));
    }

    #[test]
    fn many_layers_with_the_same_names_need_no_more_room_than_few() {
        let key = CookieKey::default();
        let mut m = Merger::new(&key);
        for layer in 0..100 {
            m.layer((0..1000).map(|i| entry(&format!("{i}"), layer)), []);
            assert!(m.shown.len() <= CROWD + 1000, "{}", m.shown.len());
        }
        let listing = m.finish();
        assert_eq!(listing.len(), 1000);
        assert!(listing.after(0).all(|(_, e)| e.ino == 0));
    }

    #[test]
    fn an_entry_that_is_not_touched_is_returned_exactly_once() {
        let key = CookieKey::default();
        let mut listing = Listing::default();
        for i in 0..1000 {
            listing.insert(&key, entry(&format!("keep{i}"), i));
            listing.insert(&key, entry(&format!("drop{i}"), i));
        }
        let (mut at, mut seen) = (0, Vec::new());
        for round in 0..1000 {
            let Some((cookie, e)) = listing.after(at).next() else {
                break;
            };
            at = cookie;
            if e.name.starts_with(b"keep") {
                seen.push(e.name.to_string());
            }
            listing.remove(&key, format!("drop{round}").as_bytes());
            listing.insert(&key, entry(&format!("new{round}"), 1));
        }
        seen.extend(
            listing
                .after(at)
                .filter(|(_, e)| e.name.starts_with(b"keep"))
                .map(|(_, e)| e.name.to_string()),
        );
        seen.sort();
        let before = seen.len();
        seen.dedup();
        assert_eq!((before, seen.len()), (1000, 1000));
    }
}
