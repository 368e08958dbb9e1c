//! What a thread needs to tell events: the way to a file, who asked, and what time it is.

use super::event::{Event, What};
use super::seat::Doing;
use super::way::Way;
use super::{Clock, Observer, cut};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A process does not become another program, and that one does not get to its first change
/// of a file, in less time: who was seen so lately is the same.
const SAME_COMMAND: Duration = Duration::from_micros(200);
/// Who keeps its program may give itself another name, which is told at least so soon.
const SAME_NAME: Duration = Duration::from_millis(10);
/// So long the processor's counter is right to some microseconds, and the system's clock may be
/// set by somebody.
const SAME_TIME: Duration = Duration::from_millis(5);

/// What one thread keeps from event to event, so that the next costs little.
#[derive(Default)]
pub(super) struct Teller {
    command: Option<Command>,
    way: Way,
    /// The ticks and the time at one moment.
    moment: Option<(u64, Duration)>,
}

/// The command of the last process that was asked for.
struct Command {
    pid: u32,
    /// `/proc/PID/comm`, open: so it costs one call to read it again.
    file: File,
    /// The line that was read.
    line: [u8; 64],
    len: usize,
    /// When it was read, in ticks.
    read: u64,
    /// When the process was last seen waiting for an answer, in ticks.
    seen: u64,
}

impl Teller {
    pub(super) const fn new() -> Teller {
        Teller {
            command: None,
            way: Way::new(),
            moment: None,
        }
    }

    /// Tells `observer` what the request `doing` has done by `now`, in ticks.
    pub(super) fn tell(
        &mut self,
        observer: &Observer,
        (doing, now): (&Doing, u64),
        what: What<&[u8]>,
        path: impl FnOnce(&mut Way) -> bool,
    ) {
        self.way.clear();
        let has_name = path(&mut self.way);
        let time = self.time(observer.clock, now);
        observer.events.push(&Event {
            number: 0,
            time,
            what,
            path: has_name.then(|| cut(self.way.bytes())),
            cause: doing.cause,
            pid: doing.pid,
            command: Command::of(&mut self.command, observer.clock, doing.pid, now),
        });
    }

    /// The time at `now`, since 1970.
    fn time(&mut self, clock: Clock, now: u64) -> Duration {
        if let Some((then, time)) = self.moment {
            let since = clock.between(then, now);
            if since < SAME_TIME {
                return time.saturating_add(since);
            }
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.unwrap_or_default();
        self.moment = Some((now, time));
        time
    }
}

impl Command {
    /// The command of `pid` at this moment; empty where nobody can tell. A process that
    /// waits for its answer is there.
    fn of(known: &mut Option<Command>, clock: Clock, pid: u32, now: u64) -> &[u8] {
        if pid == 0 {
            return &[];
        }
        let same = known.as_mut().filter(|known| known.pid == pid);
        let still = same.is_some_and(|known| known.is_still(clock, now));
        if !still {
            *known = Command::ask(pid, now);
        }
        known.as_ref().map_or(&[], Command::name)
    }

    fn ask(pid: u32, now: u64) -> Option<Command> {
        let mut new = Command {
            pid,
            file: File::open(format!("/proc/{pid}/comm")).ok()?,
            line: [0; 64],
            len: 0,
            read: now,
            seen: now,
        };
        new.read(now).then_some(new)
    }

    /// Whether the process of that number is there, and its name known.
    fn is_still(&mut self, clock: Clock, now: u64) -> bool {
        let same = clock.between(self.seen, now) < SAME_COMMAND
            && clock.between(self.read, now) < SAME_NAME;
        self.seen = now;
        same || self.read(now)
    }

    /// Reads it again; false where the process is gone.
    fn read(&mut self, now: u64) -> bool {
        let Ok(len) = self.file.read_at(&mut self.line, 0) else {
            return false;
        };
        (self.len, self.read) = (len, now);
        true
    }

    fn name(&self) -> &[u8] {
        let line = self.line.get(..self.len).unwrap_or_default();
        line.strip_suffix(b"\n").unwrap_or(line)
    }
}
