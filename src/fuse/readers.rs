//! The threads that read requests, and those that go on with one.
//!
//! Few threads read: more of them only pass requests between processors. So that somebody is
//! always there to read the next request, the last that is free does nothing that waits for a
//! disk: what does is gone on with in a thread of its own.

use crate::observe;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Who of them serves a request.
#[derive(Debug)]
pub struct Readers {
    all: usize,
    busy: AtomicUsize,
    /// Whether one was busy since somebody who waits for quiet has asked.
    stirred: AtomicBool,
    quiet_since: Mutex<Instant>,
}

/// One that does, until this is dropped.
#[derive(Debug)]
pub struct Serving<'a>(&'a Readers);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    /// So many threads read.
    pub fn new(all: usize) -> Readers {
        Readers {
            all,
            busy: AtomicUsize::new(0),
            stirred: AtomicBool::new(false),
            quiet_since: Mutex::new(Instant::now()),
        }
    }

    /// This one has a request.
    pub fn serve(&self) -> Serving<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        // Read first: what everybody writes travels between processors.
        if !self.stirred.load(Ordering::Relaxed) {
            self.stirred.store(true, Ordering::Relaxed);
        }
        Serving(self)
    }

    /// Whether all have one: whoever asks is the last that could read the next.
    pub fn are_all_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) >= self.all
    }

    /// Whether they have had no request for so long, as far as this was asked in between.
    pub fn are_quiet_since(&self, time: Duration) -> bool {
        let mut since = self.quiet_since.lock();
        if self.stirred.swap(false, Ordering::Relaxed) || self.busy.load(Ordering::Relaxed) > 0 {
            *since = Instant::now();
        }
        since.elapsed() >= time
    }

    /// Does `act`, which waits for a disk: here, if another can read the next request.
    pub fn wait_for_disk(&self, operation: &'static str, act: impl FnOnce() + Send + 'static) {
        if self.are_all_busy() {
            elsewhere(operation, act);
        } else {
            act();
        }
    }
}

/// A bug in one request is EIO for that request: the answer that `act` owns says so
/// when it is dropped by the panic.
pub fn caught(operation: &'static str, act: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        log::error!("{operation}: a bug in plyfs; the request was answered with EIO");
    }
}

/// Does `act`, which answers nobody: a bug in it is told, and has no other consequence.
pub fn unanswered(what: &str, act: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        log::error!("{what}: a bug in plyfs");
    }
}

/// Goes on with the request of this thread in one of its own.
pub fn elsewhere(operation: &'static str, act: impl FnOnce() + Send + 'static) {
    let request = observe::hand_over();
    let work = move || {
        let _observed = request.resume();
        caught(operation, act);
    };
    let thread = std::thread::Builder::new().name(operation.into());
    if let Err(e) = thread.spawn(work) {
        log::error!("{operation}: no thread for it: {e}; the request was answered with EIO");
    }
}

/// Does `act`, which answers nobody, in a thread of its own; where there is none for it, nobody
/// does.
pub fn beside(what: &'static str, act: impl FnOnce() + Send + 'static) {
    let work = move || unanswered(what, act);
    if let Err(e) = std::thread::Builder::new().name(what.into()).spawn(work) {
        log::debug!("{what}: no thread for it: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn only_the_last_free_reader_leaves_the_waiting_to_another() {
        let readers = Readers::new(2);
        let waits_here = || {
            let (tell, told) = channel();
            readers.wait_for_disk("fsync", move || {
                let told = tell.send(thread::current().id());
                assert!(told.is_ok());
            });
            told.recv() == Ok(thread::current().id())
        };
        let first = readers.serve();
        assert!(waits_here());
        let second = readers.serve();
        assert!(!waits_here());
        drop((first, second));
        assert!(!readers.are_all_busy());
    }

    #[test]
    fn a_bug_ends_one_request() {
        caught("read", || panic!("a bug"));
    }
}
