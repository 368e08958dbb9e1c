//! Owners inside and outside of a container: which id of the layers is shown as which.
//!
//! ```text
//! map    = [ ":" ] triple *( ":" triple )
//! triple = inside ":" outside ":" length
//! ```
//! *Inside* is the id that the layers have on disk, which is that of an image; *outside* is
//! the one that the mount shows, and that whoever uses it has.

/// One run of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    inside: u32,
    outside: u32,
    length: u32,
}

impl Run {
    fn new(inside: u32, outside: u32, length: u32) -> Option<Run> {
        // The last id names nobody: (uid_t) -1.
        let ends_in_time = |first: u32| first.checked_add(length).is_some();
        (length > 0 && ends_in_time(inside) && ends_in_time(outside)).then_some(Run {
            inside,
            outside,
            length,
        })
    }
}

/// Runs of ids, the first that fits counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<Run>);

/// The id in the run of `length` from `to` that is where `id` is in the one from `from`.
fn translate(id: u32, from: u32, to: u32, length: u32) -> Option<u32> {
    let offset = id.checked_sub(from)?;
    (offset < length).then_some(to.checked_add(offset)?)
}

impl IdMap {
    /// A map as it is written; `None` where it is none.
    pub fn parse(text: &str) -> Option<IdMap> {
        let text = text.strip_prefix(':').unwrap_or(text);
        let numbers = text
            .split(':')
            .map(|word| word.parse().ok())
            .collect::<Option<Vec<u32>>>()?;
        if numbers.is_empty() || numbers.len() % 3 != 0 {
            return None;
        }
        let runs = numbers.chunks_exact(3).map(|run| match run {
            [inside, outside, length] => Run::new(*inside, *outside, *length),
            _ => None,
        });
        runs.collect::<Option<Vec<Run>>>().map(IdMap)
    }

    /// What the id `inside` is shown as.
    pub fn to_outside(&self, inside: u32) -> Option<u32> {
        self.0
            .iter()
            .find_map(|run| translate(inside, run.inside, run.outside, run.length))
    }

    /// What the id `outside` is kept as.
    pub fn to_inside(&self, outside: u32) -> Option<u32> {
        self.0
            .iter()
            .find_map(|run| translate(outside, run.outside, run.inside, run.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_colon_and_several_triples_are_understood() {
        let map = IdMap::parse(":0:1:5000").unwrap();
        assert_eq!(map, IdMap::parse("0:1:5000").unwrap());
        assert_eq!((map.to_outside(0), map.to_inside(1)), (Some(1), Some(0)));
        assert_eq!(map.to_outside(4999), Some(5000));
        assert_eq!((map.to_outside(5000), map.to_inside(0)), (None, None));
        assert_eq!(map.to_inside(5001), None);
        let keep = IdMap::parse(":0:1:1001:1001:0:1:1002:1002:64535").unwrap();
        assert_eq!(keep.to_outside(1000), Some(1001));
        assert_eq!(keep.to_outside(1001), Some(0));
        assert_eq!(keep.to_inside(0), Some(1001));
        assert_eq!(keep.to_inside(65536), Some(65536));
        assert_eq!(keep.to_inside(65537), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for bad in [
            "",
            ":",
            "::0:1:1",
            "0:1",
            "0:1:0",
            "0:1:5000:",
            "a:b:c",
            "0:1:-5",
            "0:1:5000:2",
            "1:0:4294967295",
            "0:4294967295:1",
        ] {
            assert_eq!(IdMap::parse(bad), None, "{bad}");
        }
        assert!(IdMap::parse("0:0:4294967295").is_some());
    }

    #[test]
    fn there_and_back_is_the_same() {
        let map = IdMap::parse("0:100000:1000:1000:1:5:70000:200000:65536").unwrap();
        for id in (0..70_000).chain(70_000..140_000) {
            if let Some(shown) = map.to_outside(id) {
                assert_eq!(map.to_inside(shown), Some(id));
            }
        }
    }
}
