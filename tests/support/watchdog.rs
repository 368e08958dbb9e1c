//! Frees a FUSE mount that does not answer, so that a deadlock is a failed test and not a hang.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::mount;

/// While this lives, the connections it covers are aborted once `limit` has passed.
pub struct Watchdog {
    covered: Arc<Mutex<Vec<u64>>>,
    fired: Arc<AtomicBool>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    pub fn new(limit: Duration) -> Watchdog {
        let (stop, stopped) = mpsc::channel::<()>();
        let covered = Arc::new(Mutex::new(Vec::<u64>::new()));
        let fired = Arc::new(AtomicBool::new(false));
        let (list, flag) = (covered.clone(), fired.clone());
        let thread = std::thread::spawn(move || {
            let mut wait = limit;
            while stopped.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                for connection in list.lock().expect("no holder of this lock panics").iter() {
                    mount::abort(*connection);
                }
                wait = Duration::from_secs(5);
            }
        });
        Watchdog {
            covered,
            fired,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Puts one more mount under watch (nothing for a mount that is not FUSE).
    pub fn cover(&self, connection: Option<u64>) {
        if let Some(connection) = connection {
            self.covered
                .lock()
                .expect("no holder of this lock panics")
                .push(connection);
        }
    }

    pub fn fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watchdog thread ends");
        }
    }
}
