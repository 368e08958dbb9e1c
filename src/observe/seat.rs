//! Where a thread sits: the observer it counts for, its shard, and the request it serves.

use super::event::What;
use super::shard::Shard;
use super::teller::Teller;
use super::way::Way;
use super::words::{Cause, Kind, Part};
use super::{Clock, Observer, type_name};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

/// The request that a thread serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    kind: Kind,
    pub(super) cause: Cause,
    pub(super) pid: u32,
    /// When it came, in ticks of the observer's clock.
    since: u64,
    pub(super) failed: bool,
    /// Its first copy-up is the first thing that is done for it, and was not done yet.
    fresh: bool,
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
}

/// What every request touches, close together.
#[repr(align(64))]
pub(super) struct Seat {
    place: RefCell<Place>,
    doing: Cell<Option<Doing>>,
    /// Only events need it.
    teller: RefCell<Teller>,
}

thread_local! {
    pub(super) static SEAT: Seat = const {
        Seat {
            place: RefCell::new(Place { observer: None, shard: None, clock: None, }),
            doing: Cell::new(None),
            teller: RefCell::new(Teller::new()),
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
            fresh: kind == Kind::Setattr,
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
                let took = clock.between(doing.since, (clock.now)());
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
    let doing = doing().map(|doing| Doing {
        fresh: false,
        ..doing
    });
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
pub(super) fn tell<'a>(
    what: impl FnOnce(&Doing) -> What<&'a [u8]>,
    path: impl FnOnce(&mut Way) -> bool,
) {
    tell_of(None, |doing, _| what(doing), path);
}

/// Writes an event for what is over since `at`, in ticks: since now, if that is not known.
fn tell_of<'a>(
    at: Option<u64>,
    what: impl FnOnce(&Doing, &Shard) -> What<&'a [u8]>,
    path: impl FnOnce(&mut Way) -> bool,
) {
    let told = SEAT.try_with(|seat| {
        let (Some(doing), Ok(place), Ok(mut teller)) = (
            seat.doing.get(),
            seat.place.try_borrow(),
            seat.teller.try_borrow_mut(),
        ) else {
            return;
        };
        if let (Some(observer), Some(shard)) = (&place.observer, &place.shard) {
            let now = at.unwrap_or_else(observer.clock.now);
            let what = what(&doing, shard);
            teller.tell(observer, (&doing, now), what, path);
        }
    });
    told.unwrap_or_default();
}

/// A copy-up under way.
#[derive(Debug)]
pub struct Copying {
    /// In ticks, and the clock that they are of.
    since: Option<(u64, Clock)>,
}

pub(super) fn copying(up: bool) -> Copying {
    let since = SEAT.try_with(|seat| {
        let mut doing = seat.doing.get()?;
        let began = (up && doing.fresh).then_some(doing.since);
        (doing.bytes, doing.reflink, doing.fresh) = (0, false, false);
        seat.doing.set(Some(doing));
        let place = seat.place.try_borrow().ok()?;
        let observer = place.observer.as_ref()?;
        observer.events.prepare();
        let clock = place.clock?;
        Some((began.unwrap_or_else(clock.now), clock))
    });
    Copying {
        since: since.ok().flatten(),
    }
}

impl Copying {
    /// It is published: `part` of a file of `mode`; its path is only asked for if somebody
    /// wants to know, and false where there is none.
    pub fn done(mut self, part: Part, mode: u32, path: impl FnOnce(&mut Way) -> bool) {
        let Some((since, clock)) = self.since.take() else {
            return;
        };
        let now = (clock.now)();
        let (took, kind) = (clock.between(since, now), type_name(mode));
        let part = if kind == "directory" {
            Part::Meta
        } else {
            part
        };
        let what = |doing: &Doing, shard: &Shard| {
            shard.copyup(doing.cause, Some(part), doing.bytes, took);
            What::CopyUp {
                part,
                kind,
                bytes: doing.bytes,
                reflink: doing.reflink,
                took,
            }
        };
        tell_of(Some(now), what, path);
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let (Some((since, clock)), Some(doing)) = (self.since, doing()) {
            let took = clock.between(since, (clock.now)());
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

    fn named(way: &mut Way, path: &[u8]) -> bool {
        way.prepend(path);
        true
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
                copying.done(Part::Whole, 0o100_644, |way| named(way, b"d/f"));
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
        marked(Mark::Opaque, |_| panic!("nobody asked"), None);
        copying().done(Part::Data, 0, |_| panic!("nobody asked"));
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
            marked(Mark::Redirect, |way| named(way, b"a"), Some(b"/b"));
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
