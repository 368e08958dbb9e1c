//! Waiting for what comes about by itself.

use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; fails with `what`, where it does not in time.
pub fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
