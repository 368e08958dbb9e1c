//! A union being served: mounted, shaken hands, threads, signals, unmounted.

use super::adapter::Adapter;
use super::filling::Filling;
use super::mounting::{Mounted, Unmounted, mount_union};
use crate::config::plan::MountPlan;
use crate::control::Control;
use crate::error::plain;
use crate::error::{MountError, SysError, best_effort};
use crate::observe::{Clock, Observer};
use crate::sys::memory::keep_little;
use crate::sys::process::exit_now;
use crate::sys::signal::{self, Blocked, TERMINATION};
use crate::union::Union;
use fuser::{Config, SessionACL};
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, panicking};
use std::time::Duration;

/// How many threads serve where the plan does not say: one waits for the kernel while
/// the other works. More of them only pass requests between cores.
const THREADS: usize = 2;

/// The name of the thread that awaits signals, followed by the connection's number, while that
/// is served: `plyfs umount` finds the daemon of a mount by it.
pub const WATCHER: &str = "plyfs:";
/// Its name afterwards, when the number may be another mount's.
const WATCHER_AFTER: &str = "plyfs-after";

/// A mounted union that answers.
pub struct Session {
    /// Answers who asks what the mount does; ends before the union does.
    _control: Control,
    /// Gives partly copied files their data; ends before the union does, too.
    filling: Filling,
    union: Arc<Union>,
    mounted: Arc<Mounted>,
    /// Says how serving ended.
    ended: Receiver<io::Result<()>>,
    /// Ends it where no unmounting can.
    end: Ending,
    /// The thread that awaits signals, below /proc.
    watcher: Option<PathBuf>,
}

/// Who can say that serving has ended; one that panics says so too.
#[derive(Clone)]
struct Ending(Sender<io::Result<()>>);

impl Ending {
    fn tell(&self, how: io::Result<()>) {
        best_effort("tell how serving ended", self.0.send(how));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if panicking() {
            self.tell(Err(io::Error::other("the server panicked")));
        }
    }
}

impl Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("mounted", &self.mounted)
            .finish_non_exhaustive()
    }
}

fn broken(plan: &MountPlan, cause: impl std::fmt::Display) -> MountError {
    MountError::new(
        format_args!("mount point {}", plan.mount_point.display()),
        cause,
        "run again with --foreground -o debug to see why",
    )
}

fn observer() -> Arc<Observer> {
    let fast = crate::sys::clock::fast().map(|(now, scale)| Clock { now, scale });
    let observer = Observer::new(fast.unwrap_or_default());
    Arc::new(observer.fetching_by(crate::sys::cache::fetch))
}

impl Session {
    /// Opens the layers of `plan`, mounts the union and starts to serve it.
    ///
    /// # Errors
    /// Whatever stands against it; nothing is left mounted then.
    pub fn start(plan: &MountPlan) -> Result<Session, MountError> {
        let union = Arc::new(Union::open(plan)?);
        let (device, mounted) = mount_union(plan)?;
        let mut config = Config::default();
        let readers = plan.threads.unwrap_or(THREADS);
        config.n_threads = Some(readers);
        let acl = if plan.flags.allow_root && !plan.flags.allow_other {
            SessionACL::RootAndOwner
        } else {
            SessionACL::All
        };
        config.acl = acl;
        let observer = plan.observe.on.then(observer);
        let adapter = Adapter::new(Arc::clone(&union), plan, readers, observer.clone());
        let invalidator = adapter.invalidator();
        let readers = adapter.readers().clone();
        let inner = fuser::Session::from_fd(adapter, device, acl, config).map_err(|e| {
            broken(
                plan,
                format_args!("the kernel shook no hands: {}", plain(&e)),
            )
        })?;
        invalidator.notify_by(inner.notifier());
        let (tell, ended) = channel();
        let end = Ending(tell);
        let server = end.clone();
        // It ends when the kernel says that nobody uses the mount any more.
        Builder::new()
            .name("plyfs-serve".into())
            .spawn(move || server.tell(inner.run()))
            .map_err(|e| broken(plan, format_args!("no thread to serve it: {}", plain(&e))))?;
        let device = mounted.device();
        let filling = Filling::start(plan, &union, &readers);
        let session = Session {
            _control: Control::start(plan, &union, observer.as_ref(), device),
            filling,
            union,
            mounted: Arc::new(mounted),
            ended,
            end,
            watcher: None,
        };
        // It answers: the kernel has shaken hands, and who serves is there. Looking at the mount
        // from here would be a request to ourselves: killed in that moment, this process
        // could not end before it is answered, and nobody would be left to answer it.
        log::info!(
            "{}: mounted, connection {}",
            session.mounted.point().display(),
            session.mounted.connection().unwrap_or_default()
        );
        Ok(session)
    }

    /// The union that is served.
    pub fn union(&self) -> &Arc<Union> {
        &self.union
    }

    /// Takes the mount down: at once if nobody uses it, else lazily, which the log says.
    pub fn unmount(&self) {
        take_down(&self.mounted);
    }

    /// Waits until nobody uses the union any more, and lets go of its layers.
    ///
    /// # Errors
    /// Where serving ended for another reason.
    pub fn wait(self) -> io::Result<()> {
        let served = self.ended.recv();
        let served = served.unwrap_or_else(|_| Err(io::Error::other("the server panicked")));
        self.clean_up(&served);
        self.filling.end();
        served
    }

    /// As [`Session::wait`], but for so long at most; whether serving has ended.
    pub fn wait_at_most(self, limit: Duration) -> bool {
        let served = match self.ended.recv_timeout(limit) {
            Ok(served) => served,
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the server panicked")),
        };
        self.clean_up(&served);
        self.filling.end();
        true
    }

    /// Takes down what is left: the mount outlives its server only where serving failed,
    /// and a dead mount helps nobody. Where it ended well there is nothing left, and the
    /// mount point may be another's by now.
    fn clean_up(&self, served: &io::Result<()>) {
        if let Some(watcher) = &self.watcher {
            let comm = Path::new("/proc").join(watcher).join("comm");
            let named = std::fs::write(comm, WATCHER_AFTER);
            best_effort("rename the thread for signals", named);
        }
        let point = self.mounted.point().display();
        let Err(e) = served else {
            self.mounted.note_gone();
            return;
        };
        log::error!("{point}: {e}");
        if let Unmounted::No(reason) = self.mounted.unmount(true) {
            log::error!("{point}: not unmounted: {reason}");
        }
    }
}

/// Unmounts; what is still in use is detached, and served until its last user is gone.
fn take_down(mounted: &Mounted) {
    let point = mounted.point().display();
    if !mounted.is_connected() {
        log::info!("{point}: unmounted already");
        return;
    }
    match mounted.unmount(false) {
        Unmounted::Yes => log::info!("{point}: unmounted"),
        Unmounted::Busy => {
            log::warn!("{point}: still in use: detached, and served until its last user is gone");
            if let Unmounted::No(reason) = mounted.unmount(true) {
                log::error!("{point}: not detached: {reason}");
            }
        }
        Unmounted::No(reason) => log::error!("{point}: not unmounted: {reason}"),
    }
}

/// Unmounts at the first of `signals`, and gives up on the users at the second. What somebody
/// else has mounted is his to unmount: serving that ends at once.
fn watch(signals: Blocked, mounted: &Mounted, end: &Ending) {
    let mut asked = false;
    loop {
        match signals.wait() {
            Ok(signal) if asked => {
                log::error!("{}: not waiting for its users", signal::name(signal));
                exit_now(1);
            }
            Ok(signal) if mounted.is_anothers() => {
                log::info!("{}: serving no longer", signal::name(signal));
                return end.tell(Ok(()));
            }
            Ok(signal) => {
                log::info!("{}: unmounting", signal::name(signal));
                asked = true;
                take_down(mounted);
            }
            Err(e) => {
                log::error!("signals can not be awaited: {e}");
                return;
            }
        }
    }
}

/// Mounts and serves the union of `plan` until it is unmounted or a signal ends it.
/// `ready` is called as soon as the mount answers; if it fails, the mount is taken down.
///
/// # Errors
/// Whatever stands against the mount; nothing is left mounted then.
pub fn serve(plan: &MountPlan, ready: impl FnOnce() -> io::Result<()>) -> Result<(), MountError> {
    keep_little();
    let no_signals = |e: SysError| broken(plan, format_args!("signals: {}", plain(&e.into())));
    let signals = signal::block(&TERMINATION).map_err(no_signals)?;
    let mut session = Session::start(plan)?;
    let (mounted, end) = (Arc::clone(&session.mounted), session.end.clone());
    let number = mounted.connection().unwrap_or_default();
    let (tell, named) = channel();
    // Ends with the process: it sleeps in sigwait.
    let watcher = Builder::new()
        .name(format!("{WATCHER}{number}"))
        .spawn(move || {
            let own = std::fs::read_link("/proc/thread-self");
            best_effort("tell that signals are awaited", tell.send(own.ok()));
            watch(signals, &mounted, &end);
        });
    watcher.map_err(|e| broken(plan, format_args!("no thread for signals: {}", plain(&e))))?;
    // A thread has its name only once it runs, and `plyfs umount` looks for the name.
    session.watcher = best_effort("wait for the thread for signals", named.recv()).flatten();
    if best_effort("tell that the mount is ready", ready()).is_none() {
        session.unmount();
    }
    session
        .wait()
        .map_err(|e| broken(plan, format_args!("serving ended: {}", plain(&e))))
}
