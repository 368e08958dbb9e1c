//! The last events: writing never waits, whoever reads and however slowly.
//!
//! Each event has a number and the slot of that number; each slot a lock that is held for
//! the time of copying a pointer. A writer who finds it held goes without: its event counts
//! as dropped.

use super::event::Event;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a writer looks whether a slot is free.
const TRIES: usize = 100;
/// How often a reader finds an event missing before it counts it as dropped: a writer may
/// be between taking the number and filling the slot.
const PATIENCE: u32 = 3;

/// The last events.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[Mutex<Option<Arc<Event>>>]>,
    /// The number of the last event.
    last: AtomicU64,
    dropped: AtomicU64,
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
        Ring {
            slots: (0..size.max(1)).map(|_| Mutex::new(None)).collect(),
            last: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn slot(&self, number: u64) -> Option<&Mutex<Option<Arc<Event>>>> {
        self.slots.get((number % self.slots.len() as u64) as usize)
    }

    /// Writes an event in the place of the oldest.
    pub fn push(&self, mut event: Event) {
        let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        event.number = number;
        let event = Arc::new(event);
        let Some(slot) = self.slot(number) else {
            return;
        };
        for _ in 0..TRIES {
            if let Some(mut there) = slot.try_lock() {
                // One who was overtaken by a whole round has nothing new to say.
                let old = there.as_ref().is_none_or(|old| old.number < number);
                let _freed_after_the_lock = old.then(|| there.replace(event));
                drop(there);
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
        self.slots.len() as u64
    }

    /// At most `max` events after `cursor`, which moves on. Fewer than there are may come
    /// while they are being written: whoever asks again gets them.
    pub fn read(&self, cursor: &mut Cursor, max: usize) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        let last = self.last();
        let oldest = last.saturating_sub(self.size());
        if cursor.number < oldest {
            cursor.lose(oldest);
        }
        while cursor.number < last && events.len() < max {
            let wanted = cursor.number + 1;
            let there = self.slot(wanted).and_then(|slot| slot.lock().clone());
            match there {
                Some(event) if event.number == wanted => {
                    events.push(event);
                    (cursor.number, cursor.missed) = (wanted, 0);
                }
                Some(event) if event.number > wanted => cursor.lose(wanted),
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
    use super::super::event::What;
    use super::super::words::{Cause, Mark};
    use super::*;
    use std::time::UNIX_EPOCH;

    fn event(pid: u32) -> Event {
        Event {
            number: 0,
            time: UNIX_EPOCH,
            what: What::Mark {
                mark: Mark::Whiteout,
                target: None,
            },
            path: None,
            cause: Cause::Unlink,
            pid,
            command: Box::default(),
        }
    }

    fn pids(events: &[Arc<Event>]) -> Vec<u32> {
        events.iter().map(|event| event.pid).collect()
    }

    #[test]
    fn what_is_written_is_read_once_in_its_order() {
        let ring = Ring::new(8);
        let mut cursor = Cursor::default();
        assert!(ring.read(&mut cursor, 9).is_empty());
        (1..=5).for_each(|i| ring.push(event(i)));
        assert_eq!(pids(&ring.read(&mut cursor, 2)), [1, 2]);
        assert_eq!(pids(&ring.read(&mut cursor, 9)), [3, 4, 5]);
        assert!(ring.read(&mut cursor, 9).is_empty());
        ring.push(event(6));
        assert_eq!(pids(&ring.read(&mut cursor, 9)), [6]);
        assert_eq!((cursor.lost, ring.dropped(), ring.last()), (0, 0, 6));
        assert_eq!(pids(&ring.read(&mut Cursor::after(4), 9)), [5, 6]);
    }

    #[test]
    fn the_oldest_make_room_and_a_slow_reader_is_told_how_many_it_lost() {
        let ring = Ring::new(4);
        let mut cursor = Cursor::default();
        (1..=10).for_each(|i| ring.push(event(i)));
        assert_eq!(pids(&ring.read(&mut cursor, 99)), [7, 8, 9, 10]);
        assert_eq!(cursor.lost, 6);
    }

    #[test]
    fn a_writer_does_not_wait_for_whoever_holds_its_slot() {
        let ring = Ring::new(2);
        (1..=2).for_each(|i| ring.push(event(i)));
        let held = ring.slots[1].lock();
        ring.push(event(3));
        drop(held);
        assert_eq!(ring.dropped(), 1);
        ring.push(event(4));
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
                .map(|_| scope.spawn(|| (0..EACH).for_each(|i| ring.push(event(i)))))
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
