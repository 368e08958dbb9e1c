//! The thread that gives partly copied files the rest of their data, and what is done about
//! them at the end.

use super::readers::Readers;
use crate::config::plan::{Complete, MountPlan};
use crate::error::best_effort;
use crate::union::{Cursor, Union};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long nothing may be asked for until filling begins.
const QUIET: Duration = Duration::from_millis(500);
/// How often it is looked whether there is something to do.
const LOOK: Duration = Duration::from_millis(500);
/// After a failure, a full disk for instance, it is tried again after so long.
const REST: Duration = Duration::from_secs(30);
/// Bytes that are filled at a time, at most.
const PIECE: u64 = 1 << 20;

/// What the thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    ends: Mutex<bool>,
    changed: Condvar,
}

impl Shared {
    /// Waits for so long; whether the thread goes on.
    fn pause(&self, time: Duration) -> bool {
        let mut ends = self.ends.lock();
        if !*ends {
            self.changed.wait_for(&mut ends, time);
        }
        !*ends
    }

    fn goes_on(&self) -> bool {
        !*self.ends.lock()
    }
}

/// The filling of one mount.
#[derive(Debug)]
pub struct Filling {
    union: Arc<Union>,
    /// `None` where nothing may be written.
    policy: Option<Complete>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Filling {
    /// Begins where `plan` wants it, beside the `readers` that serve `union`.
    pub fn start(plan: &MountPlan, union: &Arc<Union>, readers: &Arc<Readers>) -> Filling {
        let shared = Arc::new(Shared::default());
        let policy = (!plan.flags.read_only).then_some(plan.complete);
        let works = matches!(policy, Some(Complete::Idle | Complete::Rate(_)));
        let work = Work {
            union: union.clone(),
            readers: readers.clone(),
            shared: shared.clone(),
            policy: plan.complete,
        };
        let thread = (works && union.may_be_partial())
            .then(|| {
                let thread = Builder::new().name("plyfs-fill".into());
                best_effort("begin to fill", thread.spawn(move || work.run()))
            })
            .flatten();
        Filling {
            union: union.clone(),
            policy,
            shared,
            thread,
        }
    }

    /// Ends it: nothing is served any more. What is left is filled, unless nothing shall be.
    pub fn end(mut self) {
        self.stop();
        let union = &self.union;
        if let Some(policy) = self.policy {
            let all = policy != Complete::Off;
            union.complete_at_end(all, || !union.is_awaited());
        }
    }

    fn stop(&mut self) {
        *self.shared.ends.lock() = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("filling partly copied files: a bug in plyfs");
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread has.
struct Work {
    union: Arc<Union>,
    readers: Arc<Readers>,
    shared: Arc<Shared>,
    policy: Complete,
}

impl Work {
    fn run(&self) {
        let mut cursor = Cursor::default();
        loop {
            let pause = match self.fill(&mut cursor) {
                Ok(()) => LOOK,
                Err(e) => {
                    log::warn!("a partly copied file cannot get the rest of its data: {e}");
                    REST
                }
            };
            if !self.shared.pause(pause) {
                return;
            }
        }
    }

    /// Fills until there is nothing to fill, or something else to do.
    fn fill(&self, cursor: &mut Cursor) -> crate::error::Result<()> {
        while self.has_work() && self.shared.goes_on() {
            if !self.is_due() {
                return Ok(());
            }
            if !self.union.has_backlog() {
                self.union.find_left()?;
                continue;
            }
            let begun = Instant::now();
            self.union.fill_piece(cursor)?;
            if let Complete::Rate(rate) = self.policy {
                let due = Duration::from_secs_f64(PIECE as f64 / rate as f64);
                if !self.shared.pause(due.saturating_sub(begun.elapsed())) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        self.union.has_backlog() || self.union.may_have_left()
    }

    /// Whether nobody else wants anything.
    fn is_due(&self) -> bool {
        self.policy != Complete::Idle || self.readers.are_quiet_since(QUIET)
    }
}
