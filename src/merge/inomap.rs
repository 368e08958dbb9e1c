//! Real inode numbers of several filesystems become the union's, one to one.
//!
//! ```text
//!  63      56 55                                         0
//! |  device  |          inode number on that device       |   device 0 to 253
//! |   254    |  numbers 0 and 1, and those over 56 bits,  |
//! |          |  in the order in which they were met       |
//! |   255    |  a hash of directory and name, where one   |
//! |          |  real file is shown as several             |
//! ```
//!
//! Device 0 is the upper's filesystem (the top lower's in a read-only union), so
//! that a union within one filesystem shows that filesystem's own numbers, as
//! overlayfs does. Number 1 is kept for the root of the FUSE mount.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A file as the kernel identifies it: device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// An inode number of the union; never 0.
pub type Ino = u64;

/// The number of the union's root, for the kernel's FUSE.
pub const ROOT: Ino = 1;

const DEVICE_SHIFT: u32 = 56;
const LOW_MASK: u64 = (1 << DEVICE_SHIFT) - 1;
const IRREGULAR: u64 = 254;
const APART: u64 = 255;

/// How a table of inode numbers, or of other numbers that nobody outside chooses, hashes them.
pub type ByNumber = BuildHasherDefault<NumberHasher>;

/// Spreads numbers over a table: Fibonacci hashing (Knuth, The Art of Computer Programming,
/// vol. 3, 6.4), with the high bits, which are the good ones, in the low places too.
#[derive(Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (self.0.rotate_left(5) ^ number).wrapping_mul(GOLDEN);
        self.0 = mixed ^ mixed >> 32;
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

/// The one-to-one map.
#[derive(Debug, Default)]
pub struct InoMap {
    devices: HashMap<u64, u64, ByNumber>,
    irregular: HashMap<RealId, Ino>,
    apart: HashMap<Ino, (Ino, Box<[u8]>)>,
}

impl InoMap {
    /// The number of `id` if it can be told without remembering anything new.
    pub fn get(&self, id: RealId) -> Option<Ino> {
        match self.devices.get(&id.dev) {
            Some(&device) if Self::is_regular(device, id.ino) => {
                Some(device << DEVICE_SHIFT | id.ino)
            }
            Some(_) => self.irregular.get(&id).copied(),
            None => None,
        }
    }

    /// The number of `id`, the same at every call.
    pub fn assign(&mut self, id: RealId) -> Ino {
        let next = self.devices.len() as u64;
        let device = *self.devices.entry(id.dev).or_insert(next);
        if Self::is_regular(device, id.ino) {
            return device << DEVICE_SHIFT | id.ino;
        }
        let next = IRREGULAR << DEVICE_SHIFT | self.irregular.len() as u64;
        *self.irregular.entry(id).or_insert(next)
    }

    /// The number of what `name` in directory `dir` shows, where it may not share the one
    /// of its real file: other names of that file are other files in the union. The same
    /// at every mount, but for collisions.
    pub fn assign_apart(&mut self, dir: Ino, name: &[u8]) -> Ino {
        let mut hasher = DefaultHasher::new();
        (dir, name).hash(&mut hasher);
        let mut low = hasher.finish() & LOW_MASK;
        loop {
            let ino = APART << DEVICE_SHIFT | low;
            match self.apart.entry(ino) {
                Entry::Occupied(known) if *known.get().1 == *name && known.get().0 == dir => {
                    return ino;
                }
                Entry::Occupied(_) => low = (low + 1) & LOW_MASK,
                Entry::Vacant(free) => {
                    free.insert((dir, name.into()));
                    return ino;
                }
            }
        }
    }

    fn is_regular(device: u64, ino: u64) -> bool {
        device < IRREGULAR && ino & !LOW_MASK == 0 && (device > 0 || ino > ROOT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn two_files_never_share_a_number_and_a_file_keeps_its_own() {
        let mut map = InoMap::default();
        let mut seen = HashSet::new();
        let inos = [0, 1, 2, 3, 1 << 55, 1 << 56, 1 << 63, u64::MAX];
        let mut all = Vec::new();
        for dev in 0..300u64 {
            for ino in inos {
                let id = RealId { dev, ino };
                let given = map.assign(id);
                assert!(given > ROOT, "{id:?}");
                assert!(seen.insert(given), "{id:?} shares {given:#x}");
                all.push((id, given));
            }
        }
        for (id, given) in all {
            assert_eq!(map.get(id), Some(given));
            assert_eq!(map.assign(id), given);
        }
    }

    #[test]
    fn names_that_are_kept_apart_have_numbers_of_their_own() {
        let (mut map, mut again) = (InoMap::default(), InoMap::default());
        let mut seen = HashSet::new();
        for dir in 1..100 {
            for name in [&b"a"[..], b"b", b"ab", b""] {
                let ino = map.assign_apart(dir, name);
                assert!(seen.insert(ino));
                assert_eq!(ino >> DEVICE_SHIFT, APART);
                assert_eq!(map.assign_apart(dir, name), ino);
                assert_eq!(again.assign_apart(dir, name), ino);
            }
        }
    }

    #[test]
    fn the_first_device_shows_its_own_numbers() {
        let mut map = InoMap::default();
        assert_eq!(map.assign(RealId { dev: 7, ino: 4711 }), 4711);
        assert_eq!(
            map.assign(RealId { dev: 8, ino: 4711 }),
            1 << DEVICE_SHIFT | 4711
        );
    }
}
