//! The file for Prometheus: whole at every instant, new every few seconds and at the end.

use super::gather::Gatherer;
use crate::error::{best_effort, plain};
use crate::observe::prometheus;
use parking_lot::{Condvar, Mutex};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

#[derive(Debug)]
struct Shared {
    gatherer: Arc<Gatherer>,
    file: PathBuf,
    stopping: Mutex<bool>,
    stop: Condvar,
}

/// Writes until it is dropped, and then once more.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    fn write(&self) {
        let text = prometheus::text(&self.gatherer.figures());
        if let Err(e) = replace(&self.file, text.as_bytes()) {
            log::warn!("metrics file {}: {}", self.file.display(), plain(&e));
        }
    }
}

/// Lets `content` take the place of what is in `file`, if there is anything.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    // Left behind by a namesake that was killed.
    best_effort("remove a temporary", fs::remove_file(&beside));
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = (|| {
        new.write_all(content)?;
        // Whoever collects the figures is another user as a rule.
        new.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&beside, file)
    })();
    written.inspect_err(|_| {
        best_effort("remove a temporary", fs::remove_file(&beside));
    })
}

impl Writer {
    /// Writes what `gatherer` knows to `file`, now and every `interval` seconds.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub fn start(gatherer: &Arc<Gatherer>, file: &Path, interval: u32) -> io::Result<Writer> {
        let shared = Arc::new(Shared {
            gatherer: gatherer.clone(),
            file: file.to_owned(),
            stopping: Mutex::new(false),
            stop: Condvar::new(),
        });
        let pause = Duration::from_secs(u64::from(interval));
        let of_thread = shared.clone();
        let write = move || {
            let mut stopping = of_thread.stopping.lock();
            while !*stopping {
                of_thread.write();
                let pending = |stopping: &mut bool| !*stopping;
                of_thread.stop.wait_while_for(&mut stopping, pending, pause);
            }
        };
        let thread = Builder::new().name("plyfs-metrics".into()).spawn(write)?;
        Ok(Writer {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *self.shared.stopping.lock() = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the metrics ended with a bug in plyfs");
        }
        self.shared.write();
    }
}
