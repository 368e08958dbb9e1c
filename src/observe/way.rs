//! A path that is written from its end, for that is where the way up to the root begins.

/// Room for most paths.
const USUAL: usize = 256;

/// A path; its room is kept for the next one.
#[derive(Debug, Default)]
pub struct Way {
    room: Vec<u8>,
    /// Where in `room` it begins.
    start: usize,
}

impl Way {
    /// An empty one.
    pub const fn new() -> Way {
        Way {
            room: Vec::new(),
            start: 0,
        }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.start = self.room.len();
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        self.room.get(self.start..).unwrap_or_default()
    }

    /// Writes `bytes` before the rest.
    pub fn prepend(&mut self, bytes: &[u8]) {
        if bytes.len() > self.start {
            self.grow(bytes.len());
        }
        let from = self.start.saturating_sub(bytes.len());
        if let Some(to) = self.room.get_mut(from..self.start) {
            to.copy_from_slice(bytes);
        }
        self.start = from;
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let used = self.bytes().len();
        let size = (used + more).next_power_of_two().max(USUAL);
        let mut room = vec![0; size - used];
        room.extend_from_slice(self.bytes());
        (self.room, self.start) = (room, size - used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_of_any_length_reads_forwards() {
        let mut way = Way::new();
        assert_eq!(way.bytes(), b"");
        for len in [0, 1, 30, 255, 256, 300, 5000, 7] {
            way.clear();
            let mut want = Vec::new();
            for i in 0..len {
                let name = format!("n{i}/");
                way.prepend(name.as_bytes());
                want.splice(0..0, name.bytes());
            }
            assert_eq!(way.bytes(), want, "{len}");
        }
        let long = [7; 1000];
        way.clear();
        way.prepend(&long);
        way.prepend(b"");
        assert_eq!(way.bytes(), long);
    }
}
