//! The thread that gives partly copied files the rest of their data, and what is done about
//! them at the end.

use super::readers::Readers;
use crate::config::plan::{Complete, MountPlan};
use crate::error::best_effort;
use crate::sys::process::give_way;
use crate::union::{Cursor, Union};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long nothing may be asked for until filling begins.
const QUIET: Duration = Duration::from_millis(500);
/// How often it is looked whether there is something to do.
const LOOK: Duration = Duration::from_millis(500);
/// Files that lack nothing but being on the disk are brought there so often, however much else
/// there is to do. (By itself the kernel does it after 30 seconds.)
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure, a full disk for instance, it is tried again after so long.
const REST: Duration = Duration::from_secs(30);
/// Bytes that are filled at a time, at most.
const PIECE: u64 = 1 << 20;

/// The filling of one mount.
#[derive(Debug)]
pub struct Filling {
    union: Arc<Union>,
    /// `None` where nothing may be written.
    policy: Option<Complete>,
    /// Whether the thread is to end.
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Filling {
    /// Begins where `plan` wants it, beside the `readers` that serve `union`.
    pub fn start(plan: &MountPlan, union: &Arc<Union>, readers: &Arc<Readers>) -> Filling {
        let over = Arc::new(AtomicBool::new(false));
        let policy = (!plan.flags.read_only).then_some(plan.complete);
        let works = matches!(
            policy,
            Some(Complete::Idle | Complete::Now | Complete::Rate(_))
        );
        let work = Work {
            union: union.clone(),
            readers: readers.clone(),
            over: over.clone(),
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
            over,
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
        self.union.end_filling(&self.over);
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
    /// Whether the thread is to end.
    over: Arc<AtomicBool>,
    policy: Complete,
}

impl Work {
    fn run(&self) {
        best_effort("give way to others", give_way());
        let mut cursor = Cursor::default();
        let mut cleared = Instant::now();
        while self.goes_on() {
            let mut filled = self.fill(&mut cursor);
            if filled.is_ok() && self.has_work() && cleared.elapsed() >= PATIENCE {
                filled = self.union.finish_whole(|| self.goes_on());
                cleared = Instant::now();
            }
            let pause = match filled {
                Ok(()) => self.has_work().then_some(LOOK),
                Err(e) => {
                    log::warn!("a partly copied file cannot get the rest of its data: {e}");
                    Some(REST)
                }
            };
            self.union.wait_to_fill(pause, &self.over);
            if pause.is_none() {
                cleared = Instant::now();
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Fills until there is nothing to fill, or something else to do.
    fn fill(&self, cursor: &mut Cursor) -> crate::error::Result<()> {
        while self.has_work() && self.goes_on() {
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
                let rest = due.saturating_sub(begun.elapsed());
                self.union.wait_to_fill(Some(rest), &self.over);
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
