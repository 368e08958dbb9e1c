//! Faults for the tests: a system call of this thread fails, or is the last one.
//!
//! Every call of this module's siblings that touches a layer asks `before` first.
//! Without the feature `fault-injection`, which is never on by default, that is an empty
//! function and no build for users holds anything of this.

use crate::error::SysError;

/// Asked before system call `call`: the error that it is to fail with.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub(super) fn before(_call: &'static str) -> Result<(), SysError> {
    Ok(())
}

/// Which of the features of FUSE that the kernel offers, as bits, are to be seen.
#[cfg(not(feature = "fault-injection"))]
pub fn offered(bits: u64) -> u64 {
    bits
}

/// Which of the features of FUSE that the kernel offers, as bits, are to be seen: those that
/// `PLYFS_FAULT_OFFERS` has in hexadecimal, else all.
#[cfg(feature = "fault-injection")]
pub fn offered(bits: u64) -> u64 {
    let seen = std::env::var("PLYFS_FAULT_OFFERS").ok();
    let seen = seen.and_then(|seen| u64::from_str_radix(&seen, 16).ok());
    bits & seen.unwrap_or(u64::MAX)
}

/// Whether a call `waited` for a disk.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub(super) fn waited(waited: bool) -> bool {
    waited
}

/// Whether a call `waited` for a disk; all do with `PLYFS_FAULT_WAITS`, and for
/// [`Fault::Slow`].
#[cfg(feature = "fault-injection")]
pub(super) fn waited(waited: bool) -> bool {
    static ALL: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("PLYFS_FAULT_WAITS").is_some());
    waited || *ALL || is_slow()
}

#[cfg(feature = "fault-injection")]
pub use armed::*;

#[cfg(feature = "fault-injection")]
mod armed {
    use super::SysError;
    use crate::error::Errno;
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What happens to the calls of one thread; they are numbered from 0.
    #[derive(Clone, Copy, Debug)]
    pub enum Fault {
        /// Nothing: they are only noted.
        None,
        /// Each counts as one that waited for a disk.
        Slow,
        /// This one fails.
        Once(usize, Errno),
        /// Of those with this name, which are numbered from 0 too, this one fails.
        Nth(&'static str, usize, Errno),
        /// This one fails and all after it, if the predicate says so of their names.
        From(usize, fn(&str) -> bool, Errno),
    }

    struct State {
        fault: Fault,
        calls: Vec<&'static str>,
    }

    thread_local! {
        static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
    }

    /// How many threads have a fault; the others are not even to look.
    static ARMED: AtomicUsize = AtomicUsize::new(0);

    /// As long as this lives, the thread that made it has its fault.
    #[derive(Debug)]
    pub struct Armed(());

    /// Gives this thread `fault`, in the place of any other.
    pub fn arm(fault: Fault) -> Armed {
        let calls = Vec::new();
        let old = STATE.with(|state| state.replace(Some(State { fault, calls })));
        if old.is_none() {
            ARMED.fetch_add(1, Ordering::Relaxed);
        }
        Armed(())
    }

    impl Armed {
        /// The calls that were made since, whether they failed or not.
        pub fn calls(&self) -> Vec<&'static str> {
            STATE.with_borrow(|state| state.as_ref().map(|s| s.calls.clone()).unwrap_or_default())
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            if STATE.with(RefCell::take).is_some() {
                ARMED.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    #[inline]
    pub(in crate::sys) fn before(call: &'static str) -> Result<(), SysError> {
        if ARMED.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        STATE.with_borrow_mut(|state| match state {
            Some(state) => state.meet(call),
            None => Ok(()),
        })
    }

    pub(super) fn is_slow() -> bool {
        let fault = STATE.with_borrow(|state| state.as_ref().map(|state| state.fault));
        matches!(fault, Some(Fault::Slow))
    }

    impl State {
        fn meet(&mut self, call: &'static str) -> Result<(), SysError> {
            let number = self.calls.len();
            let of_its_name = self.calls.iter().filter(|made| **made == call).count();
            self.calls.push(call);
            match self.fault {
                Fault::Once(at, errno) if number == at => Err(SysError { call, errno }),
                Fault::Nth(name, nth, errno) if name == call && of_its_name == nth => {
                    Err(SysError { call, errno })
                }
                Fault::From(at, hits, errno) if number >= at && hits(call) => {
                    Err(SysError { call, errno })
                }
                _ => Ok(()),
            }
        }
    }
}
