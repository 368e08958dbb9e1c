//! Where a thread sits: the observer it counts for, its shard, and the request it serves.

use super::event::{Event, What};
use super::shard::Shard;
use super::words::{Cause, Kind, Part};
use super::{Clock, Observer, SystemTime, cut, type_name};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// The request that a thread serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    kind: Kind,
    pub(super) cause: Cause,
    pid: u32,
    /// When it came, in ticks of the observer's clock.
    since: u64,
    pub(super) failed: bool,
    /// Of the copy-up under way.
    pub(super) bytes: u64,
    pub(super) reflink: bool,
}

/// Threads stay with one mount, so that a shard is taken once and not for every request.
#[derive(Default)]
pub(super) struct Place {
    observer: Option<Arc<Observer>>,
    shard: Option<Arc<Shard>>,
    clock: Option<Clock>,
    command: Option<Box<Command>>,
}

/// The command of the last process that was asked for.
struct Command {
    pid: u32,
    /// `/proc/PID/comm`, open: so it costs one call to read it again.
    file: File,
    name: Arc<[u8]>,
    /// When it was read, in ticks.
    at: u64,
}

/// A process does not become another program, and that one does not get to its first change
/// of a file, in less time.
const SAME_COMMAND: Duration = Duration::from_micros(200);

/// What every request touches, close together.
#[repr(align(64))]
pub(super) struct Seat {
    place: RefCell<Place>,
    doing: Cell<Option<Doing>>,
}

thread_local! {
    pub(super) static SEAT: Seat = const {
        Seat {
            place: RefCell::new(Place { observer: None, shard: None, clock: None, command: None }),
            doing: Cell::new(None),
        }
    };
}

impl Place {
    fn leave(&mut self) {
        if let (Some(observer), Some(shard)) = (self.observer.take(), self.shard.take()) {
            observer.shards.give_back(shard);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Place {
    /// Has this thread count for `observer`.
    fn sit(&mut self, observer: &Arc<Observer>) {
        let sits = self.observer.as_ref();
        if !sits.is_some_and(|own| Arc::ptr_eq(own, observer)) {
            self.leave();
            self.shard = Some(observer.shards.take());
            self.clock = Some(observer.clock);
            self.observer = Some(observer.clone());
        }
    }

    /// The command of `pid` at this moment; empty where nobody can tell. A process that
    /// waits for its answer is there.
    fn command(&mut self, pid: u32) -> Arc<[u8]> {
        let Some(clock) = self.clock.filter(|_| pid != 0) else {
            return Arc::default();
        };
        let known = self.command.as_mut().filter(|known| known.pid == pid);
        if let Some(known) = known
            && (clock.elapsed(known.at) < SAME_COMMAND || known.read(clock))
        {
            return known.name.clone();
        }
        let file = File::open(format!("/proc/{pid}/comm"));
        self.command = file.ok().map(|file| {
            Box::new(Command {
                pid,
                file,
                name: Arc::default(),
                at: 0,
            })
        });
        if let Some(new) = &mut self.command
            && new.read(clock)
        {
            return new.name.clone();
        }
        Arc::default()
    }
}

impl Command {
    /// Reads it again; false where the process is gone.
    fn read(&mut self, clock: Clock) -> bool {
        let mut room = [0; 64];
        let Ok(len) = self.file.read_at(&mut room, 0) else {
            return false;
        };
        let name = room.get(..len).unwrap_or_default();
        let name = name.strip_suffix(b"\n").unwrap_or(name);
        if *self.name != *name {
            self.name = name.into();
        }
        self.at = (clock.now)();
        true
    }
}

/// As [`Place::sit`].
pub(super) fn sit(observer: &Arc<Observer>) {
    on_place(|place| place.sit(observer));
}

/// A thread that is ending has no seat any more, and nothing to count.
fn on_place(act: impl FnOnce(&mut Place)) {
    let done = SEAT.try_with(|seat| {
        if let Ok(mut place) = seat.place.try_borrow_mut() {
            act(&mut place);
        }
    });
    done.unwrap_or_default();
}

/// Runs `act` on the shard of this thread, if it counts for anybody.
pub(super) fn with_shard(act: impl FnOnce(&Shard)) {
    on_place(|place| {
        if let Some(shard) = &place.shard {
            act(shard);
        }
    });
}

fn doing() -> Option<Doing> {
    SEAT.try_with(|seat| seat.doing.get()).ok().flatten()
}

fn set_doing(doing: Option<Doing>) {
    SEAT.try_with(|seat| seat.doing.set(doing))
        .unwrap_or_default();
}

/// Changes what is known of the request that this thread serves, if it serves one.
pub(super) fn update(change: impl FnOnce(&mut Doing)) {
    if let Some(mut doing) = doing() {
        change(&mut doing);
        set_doing(Some(doing));
    }
}

pub(super) fn begin(observer: &Arc<Observer>, kind: Kind, pid: u32) -> Span {
    let sat = SEAT.try_with(|seat| {
        let Ok(mut place) = seat.place.try_borrow_mut() else {
            return;
        };
        place.sit(observer);
        seat.doing.set(place.clock.map(|clock| Doing {
            kind,
            cause: kind.cause(),
            pid,
            since: (clock.now)(),
            failed: false,
            bytes: 0,
            reflink: false,
        }));
    });
    Span::new(sat.is_ok())
}

/// As long as this lives, its thread serves a request.
#[derive(Debug, Default)]
pub struct Span {
    on: bool,
    /// It belongs to its thread.
    _here: PhantomData<*const ()>,
}

impl Span {
    fn new(on: bool) -> Span {
        Span {
            on,
            _here: PhantomData,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.on {
            return;
        }
        let ended = SEAT.try_with(|seat| {
            // Where it was handed over, it ends elsewhere.
            let Some(doing) = seat.doing.take() else {
                return;
            };
            if let Ok(place) = seat.place.try_borrow()
                && let (Some(shard), Some(clock)) = (&place.shard, &place.clock)
            {
                let took = clock.elapsed(doing.since);
                shard.request(doing.kind, Some(took), doing.failed);
            }
        });
        ended.unwrap_or_default();
    }
}

/// A request between two threads.
#[derive(Debug)]
pub struct Handed(Option<(Arc<Observer>, Doing)>);

pub(super) fn hand_over() -> Handed {
    let doing = doing();
    set_doing(None);
    let mut observer = None;
    on_place(|place| observer = place.observer.clone());
    Handed(observer.zip(doing))
}

impl Handed {
    /// This thread goes on with it.
    pub fn resume(self) -> Span {
        let Some((observer, doing)) = self.0 else {
            return Span::default();
        };
        sit(&observer);
        set_doing(Some(doing));
        Span::new(true)
    }
}

/// Writes an event for the request that this thread serves, if it is observed.
pub(super) fn tell(what: impl FnOnce(&Doing) -> (What, Option<Vec<u8>>)) {
    let Some(doing) = doing() else { return };
    let (what, path) = what(&doing);
    on_place(|place| {
        let command = place.command(doing.pid);
        let Some(observer) = &place.observer else {
            return;
        };
        observer.events.push(Event {
            number: 0,
            time: SystemTime::now(),
            what,
            path: path.map(cut),
            cause: doing.cause,
            pid: doing.pid,
            command,
        });
    });
}

/// A copy-up under way.
#[derive(Debug)]
pub struct Copying {
    /// In ticks, and the clock that they are of.
    since: Option<(u64, Clock)>,
}

pub(super) fn copying() -> Copying {
    update(|doing| (doing.bytes, doing.reflink) = (0, false));
    let mut since = None;
    if doing().is_some() {
        on_place(|place| since = place.clock.map(|clock| ((clock.now)(), clock)));
    }
    Copying { since }
}

impl Copying {
    /// It is published: `part` of a file of `mode`; its path is only asked for if somebody
    /// wants to know.
    pub fn done(mut self, part: Part, mode: u32, path: impl FnOnce() -> Option<Vec<u8>>) {
        let Some((since, clock)) = self.since.take() else {
            return;
        };
        let (took, kind) = (clock.elapsed(since), type_name(mode));
        let part = if kind == "directory" {
            Part::Meta
        } else {
            part
        };
        tell(|doing| {
            let (cause, bytes, reflink) = (doing.cause, doing.bytes, doing.reflink);
            with_shard(|shard| shard.copyup(cause, Some(part), bytes, took));
            let what = What::CopyUp {
                part,
                kind,
                bytes,
                reflink,
                took,
            };
            (what, path())
        });
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let (Some((since, clock)), Some(doing)) = (self.since, doing()) {
            let took = clock.elapsed(since);
            with_shard(|shard| shard.copyup(doing.cause, None, 0, took));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::Cursor;
    use super::super::words::Mark;
    use super::super::*;

    fn counted(observer: &Observer, kind: Kind) -> (u64, u64) {
        let sums = observer.sums();
        let sum = &sums.requests[kind as usize];
        (sum.count, sum.errors)
    }

    #[test]
    fn requests_are_counted_with_what_they_did() {
        let observer = Arc::new(Observer::default());
        for i in 0..10 {
            let span = begin(Some(&observer), Kind::Write, std::process::id());
            cache(Cache::DirFds, i % 2 == 0);
            if i == 3 {
                failed();
            }
            let copying = copying();
            if i < 4 {
                moved(100);
                copying.done(Part::Whole, 0o100_644, || Some(b"d/f".to_vec()));
            } else {
                drop(copying);
            }
            drop(span);
        }
        assert_eq!(counted(&observer, Kind::Write), (10, 1));
        let sums = observer.sums();
        assert_eq!(sums.caches[Cache::DirFds as usize], [5, 5]);
        let copyups = &sums.copyups[Cause::Write as usize];
        assert_eq!((copyups.parts, copyups.failed), ([0, 0, 4, 0], 6));
        assert_eq!(copyups.bytes, 400);
        let events = observer.events.read(&mut Cursor::default(), 99);
        assert_eq!(events.len(), 4);
        let own = std::fs::read("/proc/self/comm").expect("/proc is mounted");
        assert_eq!(
            &events[0].command[..],
            own.strip_suffix(b"\n").expect("a line")
        );
    }

    #[test]
    fn nothing_is_counted_for_nobody() {
        let span = begin(None, Kind::Read, 1);
        cache(Cache::FileFds, true);
        marked(Mark::Opaque, || panic!("nobody asked"), None);
        copying().done(Part::Data, 0, || panic!("nobody asked"));
        drop(span);
    }

    #[test]
    fn a_request_that_goes_to_another_thread_is_counted_once_and_there() {
        let observer = Arc::new(Observer::default());
        let span = begin(Some(&observer), Kind::Setattr, 0);
        cause(Cause::Chmod);
        let handed = hand_over();
        drop(span);
        assert_eq!(counted(&observer, Kind::Setattr), (0, 0));
        let thread = std::thread::spawn(move || {
            let _span = handed.resume();
            marked(Mark::Redirect, || Some(b"a".to_vec()), Some(b"/b"));
        });
        thread.join().expect("it ends");
        assert_eq!(counted(&observer, Kind::Setattr), (1, 0));
        let events = observer.events.read(&mut Cursor::default(), 99);
        assert_eq!((events.len(), events[0].cause), (1, Cause::Chmod));
        // The thread is gone; its shard serves the next one.
        let shard = observer.shards.take();
        observer.shards.give_back(shard);
        assert_eq!(counted(&observer, Kind::Setattr), (1, 0));
    }

    #[test]
    fn a_thread_may_serve_two_mounts_in_turn() {
        let (one, two) = (Arc::new(Observer::default()), Arc::new(Observer::default()));
        for observer in [&one, &two, &one] {
            drop(begin(Some(observer), Kind::Lookup, 0));
            observer.count(Kind::Forget);
        }
        assert_eq!(counted(&one, Kind::Lookup), (2, 0));
        assert_eq!(counted(&two, Kind::Lookup), (1, 0));
        assert_eq!(counted(&one, Kind::Forget), (2, 0));
    }
}
