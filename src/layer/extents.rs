//! `Extents`: which bytes of a partly copied file are its own.

use crate::error::{Errno, SysError};
use crate::sys::io::{self, SEEK_DATA, SEEK_HOLE};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Ranges of bytes, which neither overlap nor touch: ends by their starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    ends: BTreeMap<u64, u64>,
}

impl Extents {
    /// What is no hole in the first `limit` bytes of `file`.
    ///
    /// # Errors
    /// lseek's.
    pub fn load(file: &OwnedFd, limit: u64) -> Result<Extents, SysError> {
        let mut found = Extents::default();
        let mut at = 0;
        while at < limit {
            let start = match io::seek(file, at as i64, SEEK_DATA) {
                Ok(start) => start,
                Err(e) if e.errno == Errno::ENXIO => break,
                Err(e) => return Err(e),
            };
            let end = io::seek(file, start as i64, SEEK_HOLE)?;
            found.insert(start, end.min(limit));
            at = end;
        }
        Ok(found)
    }

    /// Adds the bytes from `start` to before `end`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut first, mut last) = (start, end);
        while let Some((&at, &to)) = self.ends.range(..=last).next_back() {
            if to < first {
                break;
            }
            self.ends.remove(&at);
            first = first.min(at);
            last = last.max(to);
        }
        self.ends.insert(first, last);
    }

    /// Takes away the bytes from `start` on.
    pub fn cut(&mut self, start: u64) {
        drop(self.ends.split_off(&start));
        if let Some(mut last) = self.ends.last_entry()
            && *last.get() > start
        {
            last.insert(start);
        }
    }

    /// Whether the byte at `at` is in one of them, and where that changes: never, it may be.
    pub fn run(&self, at: u64) -> (bool, u64) {
        if let Some((_, &end)) = self.ends.range(..=at).next_back()
            && end > at
        {
            return (true, end);
        }
        let next = self.ends.range(at..).next();
        (false, next.map_or(u64::MAX, |(&start, _)| start))
    }

    /// How many bytes are in them.
    pub fn len(&self) -> u64 {
        self.ends.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether all bytes from `start` to before `end` are in them.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || matches!(self.run(start), (true, to) if to >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_say_of_every_byte_what_a_map_of_bytes_says() {
        let mut seed = 7u64;
        let mut below = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 33) % n
        };
        let mut extents = Extents::default();
        let mut bytes = [false; 100];
        for _ in 0..2000 {
            let (a, b) = (below(100), below(100));
            if below(8) == 0 {
                extents.cut(a);
                bytes[a as usize..].fill(false);
            } else {
                extents.insert(a, b);
                if a < b {
                    bytes[a as usize..b as usize].fill(true);
                }
            }
            for (at, &own) in bytes.iter().enumerate() {
                let rest = &bytes[at..];
                let end = rest.iter().position(|&b| b != own);
                let want = match (end, own) {
                    (Some(n), _) => (at + n) as u64,
                    (None, true) => 100,
                    (None, false) => u64::MAX,
                };
                assert_eq!(
                    extents.run(at as u64),
                    (own, want),
                    "at {at} of {extents:?}"
                );
            }
        }
    }
}
