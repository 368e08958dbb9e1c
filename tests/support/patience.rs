//! Waiting for what comes about by itself.

use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; fails with `what`, where it does not in time.
pub fn await_that(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(LIMIT, condition),
        "not within {LIMIT:?}: {what}"
    );
}

/// Waits until `condition` holds, for so long; whether it does.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    true
}
