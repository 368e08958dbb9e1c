//! The last events: writing never waits, whoever reads and however slowly.
//!
//! Each event has a number and the slot of that number; each slot a lock that is held for
//! the time of copying an event. A writer who finds it held goes without: its event counts
//! as dropped. Events lie in their slots: nothing is allocated and freed for those whose
//! bytes are few, and memory is taken as it is first needed.

use super::event::{Event, What};
use super::words::{Cause, Mark};
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many slots are made at once.
const CHUNK: usize = 1024;
/// How many bytes of text an event has room for in its slot: path and command of most.
const ROOM: usize = 80;

/// How often a writer looks whether a slot is free.
const TRIES: usize = 100;
/// How often a reader finds an event missing before it counts it as dropped: a writer may
/// be between taking the number and filling the slot.
const PATIENCE: u32 = 3;

/// Has the processor fetch memory of this address and length.
pub type Fetch = fn(*const u8, usize);

/// The last events.
#[derive(Debug)]
pub struct Ring {
    /// How many slots there are.
    size: usize,
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    /// The number of the last event.
    last: AtomicU64,
    dropped: AtomicU64,
    pub(super) fetch: Fetch,
}

/// In whole cache lines.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(Mutex<Kept>);

/// An event with its bytes: path, command and target, one after the other.
#[derive(Clone, Debug)]
struct Kept {
    /// It has their lengths; its number is 0 where there is none yet.
    event: Event<u16>,
    few: [u8; ROOM],
    /// All of them, where they are too many for `few`.
    many: Option<Box<[u8]>>,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            event: Event {
                number: 0,
                time: Duration::ZERO,
                what: What::Mark {
                    mark: Mark::Whiteout,
                    target: None,
                },
                path: None,
                cause: Cause::Unlink,
                pid: 0,
                command: 0,
            },
            few: [0; ROOM],
            many: None,
        }
    }
}

impl Kept {
    /// Takes the place of what was kept.
    fn keep(&mut self, event: &Event<&[u8]>) {
        let len = event.texts().map(|text| text.len()).sum();
        self.many = (len > ROOM).then(|| vec![0; len].into());
        let mut rest = match &mut self.many {
            Some(many) => &mut **many,
            None => &mut self.few,
        };
        self.event = event.map(|text| {
            let (to, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(text.len())
                .unwrap_or_default();
            to.copy_from_slice(text);
            rest = after;
            u16::try_from(text.len()).unwrap_or_default()
        });
    }

    fn told(&self) -> Event {
        let mut rest = self.many.as_deref().unwrap_or(&self.few);
        self.event.map(|len| {
            let (text, after) = rest.split_at_checked(usize::from(*len)).unwrap_or_default();
            rest = after;
            text.to_vec()
        })
    }
}

/// How far a reader has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// The number of the last event that it has read, or knows to be lost.
    pub number: u64,
    /// Events that were gone, or never written, when it came to them.
    pub lost: u64,
    missed: u32,
}

impl Cursor {
    /// Behind event `number`.
    pub fn after(number: u64) -> Cursor {
        Cursor {
            number,
            ..Cursor::default()
        }
    }

    fn lose(&mut self, up_to: u64) {
        self.lost += up_to.saturating_sub(self.number);
        self.number = up_to;
        self.missed = 0;
    }
}

impl Ring {
    /// Room for `size` events, at least one.
    pub fn new(size: usize) -> Ring {
        let size = size.max(1);
        Ring {
            size,
            chunks: (0..size.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            last: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            fetch: |_, _| (),
        }
    }

    /// The slot of event `number`; `None` where nobody needed it so far.
    fn slot(&self, number: u64) -> Option<&Mutex<Kept>> {
        let i = (number % self.size as u64) as usize;
        let chunk = self.chunks.get(i / CHUNK)?.get()?;
        chunk.get(i % CHUNK).map(|slot| &slot.0)
    }

    fn made_slot(&self, number: u64) -> Option<&Mutex<Kept>> {
        let i = (number % self.size as u64) as usize;
        let made = || (0..CHUNK).map(|_| Slot::default()).collect();
        let chunk = self.chunks.get(i / CHUNK)?.get_or_init(made);
        chunk.get(i % CHUNK).map(|slot| &slot.0)
    }

    /// An event will come soon: has the processor fetch its slot, which nobody touched for as
    /// many events as there are slots.
    pub fn prepare(&self) {
        if let Some(slot) = self.slot(self.last.load(Ordering::Relaxed) + 1) {
            (self.fetch)(std::ptr::from_ref(slot).cast(), size_of::<Slot>());
        }
    }

    /// Writes an event in the place of the oldest.
    pub fn push(&self, event: &Event<&[u8]>) {
        let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        let Some(slot) = self.made_slot(number) else {
            return;
        };
        for _ in 0..TRIES {
            if let Some(mut there) = slot.try_lock() {
                // One who was overtaken by a whole round has nothing new to say.
                if there.event.number < number {
                    there.keep(event);
                    there.event.number = number;
                }
                return;
            }
            std::hint::spin_loop();
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of the last event: so many there were.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Events that found no slot.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many are kept at most.
    pub fn size(&self) -> u64 {
        self.size as u64
    }

    /// At most `max` events after `cursor`, which moves on. Fewer than there are may come
    /// while they are being written: whoever asks again gets them.
    pub fn read(&self, cursor: &mut Cursor, max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        let last = self.last();
        let oldest = last.saturating_sub(self.size());
        if cursor.number < oldest {
            cursor.lose(oldest);
        }
        while cursor.number < last && events.len() < max {
            let wanted = cursor.number + 1;
            let there = self.slot(wanted).map(|slot| slot.lock().clone());
            match there {
                Some(kept) if kept.event.number == wanted => {
                    events.push(kept.told());
                    (cursor.number, cursor.missed) = (wanted, 0);
                }
                Some(kept) if kept.event.number > wanted => cursor.lose(wanted),
                _ => {
                    cursor.missed += 1;
                    if cursor.missed < PATIENCE {
                        break;
                    }
                    cursor.lose(wanted);
                }
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::Part;
    use super::*;

    fn event(pid: u32) -> Event<&'static [u8]> {
        Event {
            number: 0,
            time: Duration::ZERO,
            what: What::Mark {
                mark: Mark::Whiteout,
                target: None,
            },
            path: None,
            cause: Cause::Unlink,
            pid,
            command: b"",
        }
    }

    fn pids(events: &[Event]) -> Vec<u32> {
        events.iter().map(|event| event.pid).collect()
    }

    #[test]
    fn what_is_written_is_read_once_in_its_order() {
        let ring = Ring::new(8);
        let mut cursor = Cursor::default();
        assert!(ring.read(&mut cursor, 9).is_empty());
        (1..=5).for_each(|i| ring.push(&event(i)));
        assert_eq!(pids(&ring.read(&mut cursor, 2)), [1, 2]);
        assert_eq!(pids(&ring.read(&mut cursor, 9)), [3, 4, 5]);
        assert!(ring.read(&mut cursor, 9).is_empty());
        ring.push(&event(6));
        assert_eq!(pids(&ring.read(&mut cursor, 9)), [6]);
        assert_eq!((cursor.lost, ring.dropped(), ring.last()), (0, 0, 6));
        assert_eq!(pids(&ring.read(&mut Cursor::after(4), 9)), [5, 6]);
    }

    #[test]
    fn the_oldest_make_room_and_a_slow_reader_is_told_how_many_it_lost() {
        let ring = Ring::new(4);
        let mut cursor = Cursor::default();
        (1..=10).for_each(|i| ring.push(&event(i)));
        assert_eq!(pids(&ring.read(&mut cursor, 99)), [7, 8, 9, 10]);
        assert_eq!(cursor.lost, 6);
    }

    #[test]
    fn all_bytes_are_kept_be_they_many_or_few() {
        let ring = Ring::new(2);
        let mut cursor = Cursor::default();
        for (path, target) in [(5, 0), (ROOM - 10, 7), (ROOM - 10, 8), (4096, 4096), (0, 0)] {
            let (path, target) = (vec![b'p'; path], vec![b't'; target]);
            ring.push(&Event {
                path: Some(&path),
                command: b"cmd",
                what: What::Mark {
                    mark: Mark::Redirect,
                    target: Some(&target),
                },
                ..event(1)
            });
            let told = ring.read(&mut cursor, 9).pop().expect("there is one");
            assert_eq!((told.path, told.command), (Some(path), b"cmd".to_vec()));
            let mark = Mark::Redirect;
            let target = Some(target);
            assert_eq!(told.what, What::Mark { mark, target });
        }
        let what = What::CopyUp {
            part: Part::Data,
            kind: "file",
            bytes: 1 << 40,
            reflink: true,
            took: Duration::from_nanos(5),
        };
        ring.push(&Event { what, ..event(1) });
        let told = ring.read(&mut cursor, 9).pop().expect("there is one");
        assert_eq!(told.path, None);
        assert!(matches!(told.what, What::CopyUp { bytes, reflink: true, .. } if bytes == 1 << 40));
    }

    #[test]
    fn a_writer_does_not_wait_for_whoever_holds_its_slot() {
        let ring = Ring::new(2);
        (1..=2).for_each(|i| ring.push(&event(i)));
        let held = ring.slot(3).expect("it was made").lock();
        ring.push(&event(3));
        drop(held);
        assert_eq!(ring.dropped(), 1);
        ring.push(&event(4));
        let mut cursor = Cursor::after(2);
        let mut seen = Vec::new();
        for _ in 0..PATIENCE {
            seen.extend(pids(&ring.read(&mut cursor, 9)));
        }
        assert_eq!((seen, cursor.lost), (vec![4], 1));
    }

    #[test]
    fn many_writers_and_readers_lose_nothing_unseen() {
        const EACH: u32 = 20_000;
        let ring = Ring::new(512);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| (0..EACH).for_each(|i| ring.push(&event(i)))))
                .collect();
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut cursor, mut read) = (Cursor::default(), 0);
                        while cursor.number < u64::from(3 * EACH) {
                            let events = ring.read(&mut cursor, 64);
                            assert!(events.windows(2).all(|two| two[0].number < two[1].number));
                            read += events.len() as u64;
                        }
                        assert_eq!(read + cursor.lost, u64::from(3 * EACH));
                    })
                })
                .collect();
            for thread in writers.into_iter().chain(readers) {
                thread.join().expect("no thread fails");
            }
        });
        assert_eq!(ring.last(), u64::from(3 * EACH));
    }
}
