//! The control socket: made, answered, taken away.

use super::gather::Gatherer;
use super::place::{Directory, socket_name};
use crate::error::best_effort;
use crate::observe::event::lost_json;
use crate::observe::prometheus;
use crate::observe::ring::Cursor;
use crate::sys::creds::effective_ids;
use crate::sys::socket::{connect_within, peer, shut_down};
use parking_lot::{Condvar, Mutex};
use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// More clients than this at once are turned away.
const CLIENTS: usize = 16;
/// How long a client may take to ask, and to read its answer.
const ASKING: Duration = Duration::from_secs(2);
/// How long one that follows the events may read nothing while there is something.
const FOLLOWING: Duration = Duration::from_secs(30);
/// How often it is looked whether there are new events.
const PULSE: Duration = Duration::from_millis(50);
/// How long the end of the mount waits for clients to get the last events.
const FAREWELL: Duration = Duration::from_millis(500);
/// Events that are told at once.
const BATCH: usize = 256;
/// How long a daemon is waited for that may be dead, or only stuck.
const MOMENT: Duration = Duration::from_millis(1);
/// Sockets that are looked at for dead ones, each time one is made: no more die than are made.
const SWEPT: usize = 2;
const LINE_MAX: usize = 4096;
const STACK: usize = 256 << 10;

/// What the threads share.
#[derive(Debug)]
struct Shared {
    gatherer: Arc<Gatherer>,
    stopping: AtomicBool,
    clients: Mutex<usize>,
    fewer: Condvar,
}

/// A socket that answers, until it is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listener: Arc<UnixListener>,
    acceptor: Option<JoinHandle<()>>,
    directory: Directory,
    name: String,
    /// The socket's own inode: another mount may have the name by the time ours goes.
    ino: u64,
}

/// Removes sockets that nobody listens on any more. A socket has its name only once it
/// listens, so one that refuses belongs to a daemon that was killed.
fn sweep(dir: &Directory) -> io::Result<()> {
    let mut names = dir.names()?;
    let start = std::process::id() as usize % names.len().max(1);
    names.rotate_left(start);
    for name in names
        .iter()
        .take(SWEPT)
        .filter(|name| name.ends_with(".sock"))
    {
        let path = dir.reach(name);
        let dead =
            connect_within(&path, MOMENT).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        if dead {
            best_effort("remove a dead socket", std::fs::remove_file(&path));
        }
    }
    Ok(())
}

/// A listening socket with the name of `minor`, and its inode number.
fn listen(dir: &Directory, name: &str) -> io::Result<(UnixListener, u64)> {
    let temporary: PathBuf = dir.reach(format!(".{name}.{}", std::process::id()));
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    let named = (|| {
        std::fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        std::fs::rename(&temporary, dir.reach(name))?;
        std::fs::symlink_metadata(dir.reach(name))
    })();
    match named {
        Ok(found) => Ok((listener, found.ino())),
        Err(e) => {
            best_effort("take a socket back", std::fs::remove_file(&temporary));
            Err(e)
        }
    }
}

impl Server {
    /// Answers for the mount whose device has the number `minor`.
    ///
    /// # Errors
    /// Where there is no place for a socket, or no thread.
    pub fn start(gatherer: &Arc<Gatherer>, minor: u32) -> io::Result<Server> {
        let directory = Directory::own()?;
        best_effort("look for dead sockets", sweep(&directory));
        let name = socket_name(minor);
        let (listener, ino) = listen(&directory, &name)?;
        let mut server = Server {
            shared: Arc::new(Shared {
                gatherer: gatherer.clone(),
                stopping: AtomicBool::new(false),
                clients: Mutex::new(0),
                fewer: Condvar::new(),
            }),
            listener: Arc::new(listener),
            acceptor: None,
            directory,
            name,
            ino,
        };
        let (shared, listener) = (server.shared.clone(), server.listener.clone());
        let thread = Builder::new()
            .name("plyfs-control".into())
            .stack_size(STACK);
        server.acceptor = Some(thread.spawn(move || accept(&shared, &listener))?);
        log::info!(
            "control socket {}/{}",
            server.directory.path.display(),
            server.name
        );
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        let path = self.directory.reach(&self.name);
        let ours = std::fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == self.ino);
        if ours {
            best_effort("remove the control socket", std::fs::remove_file(&path));
        }
        best_effort("end the control socket", shut_down(&*self.listener));
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            log::error!("the control socket ended with a bug in plyfs");
        }
        let mut clients = self.shared.clients.lock();
        let left = |clients: &mut usize| *clients > 0;
        self.shared
            .fewer
            .wait_while_for(&mut clients, left, FAREWELL);
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    while !shared.stopping.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, _)) => {
                best_effort("answer on the control socket", admit(shared, stream));
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => {
                if !shared.stopping.load(Ordering::Acquire) {
                    log::warn!("the control socket takes nobody any more: {e}");
                    // Out of descriptors, as a rule: that may pass.
                    std::thread::sleep(ASKING);
                }
            }
        }
    }
}

/// One place among the clients, given back when it is dropped.
struct Admitted(Arc<Shared>);

impl Drop for Admitted {
    fn drop(&mut self) {
        *self.0.clients.lock() -= 1;
        self.0.fewer.notify_all();
    }
}

/// Lets a client in, if it is the owner or root, and if there is room.
fn admit(shared: &Arc<Shared>, stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(ASKING))?;
    stream.set_write_timeout(Some(ASKING))?;
    let who = peer(&stream)?.uid;
    if who != 0 && who != effective_ids().0 {
        return turn_away(stream, "this mount belongs to another user");
    }
    let admitted = {
        let mut clients = shared.clients.lock();
        if *clients >= CLIENTS {
            return turn_away(stream, "too many ask at once");
        }
        *clients += 1;
        Admitted(shared.clone())
    };
    let thread = Builder::new().name("plyfs-client".into()).stack_size(STACK);
    thread.spawn(move || {
        let answered = answer(&admitted.0, stream);
        best_effort("answer on the control socket", answered);
    })?;
    Ok(())
}

/// Answers with a refusal. The request is taken first: what is left unread would take the
/// answer back.
fn turn_away(mut stream: UnixStream, why: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PULSE))?;
    best_effort("take a request", stream.read(&mut [0; LINE_MAX]));
    stream.write_all(format!("refused: {why}\n").as_bytes())
}

/// The first line that comes.
fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut said = Vec::new();
    let mut room = [0; LINE_MAX];
    while !said.contains(&b'\n') && said.len() < LINE_MAX {
        match stream.read(&mut room)? {
            0 => break,
            n => said.extend_from_slice(room.get(..n).unwrap_or_default()),
        }
    }
    let line = said.split(|b| *b == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim().to_owned())
}

fn answer(shared: &Shared, mut stream: UnixStream) -> io::Result<()> {
    let line = read_line(&mut stream)?;
    let mut words = line.split(' ');
    let figures = || shared.gatherer.figures();
    match words.next().unwrap_or_default() {
        // Somebody only wanted to know whether anybody listens.
        "" => Ok(()),
        "stat" => {
            let text = serde_json::to_string(&figures()).map_err(io::Error::other)?;
            stream.write_all(text.as_bytes())?;
            stream.write_all(b"\n")
        }
        "prometheus" => stream.write_all(prometheus::text(&figures()).as_bytes()),
        "left" => tell_left(shared, stream),
        "GET" => {
            let text = prometheus::text(&figures());
            let head = format!(
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                 Content-Length: {}\r\n\r\n",
                text.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(text.as_bytes())
        }
        verb @ ("events" | "follow") => {
            let from = match words.next().unwrap_or_default() {
                "new" => Some(shared.gatherer.observer.events.last()),
                number => number.parse().ok(),
            };
            match from {
                Some(from) => tell_events(shared, stream, from, verb == "follow"),
                None => stream.write_all(b"refused: no such event\n"),
            }
        }
        _ => stream.write_all(b"refused: no such request\n"),
    }
}

/// Tells how much partly copied files lack, and again whenever more is said: who waits for the
/// rest of it keeps the connection, for after unmounting the socket's name may be another
/// mount's.
fn tell_left(shared: &Shared, mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PULSE))?;
    let mut asked = true;
    loop {
        if asked {
            let left = shared.gatherer.left();
            let line = format!("{} {}\n", left.files, left.missing_bytes);
            stream.write_all(line.as_bytes())?;
        }
        if shared.stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        asked = match heard(&mut stream)? {
            Some(0) => return Ok(()),
            more => more.is_some(),
        };
    }
}

/// Tells the events after number `from`, and goes on as long as the mount is there if the
/// client wants to `follow`.
fn tell_events(shared: &Shared, mut stream: UnixStream, from: u64, follow: bool) -> io::Result<()> {
    let ring = &shared.gatherer.observer.events;
    let end = ring.last();
    let mut cursor = Cursor::after(from);
    let mut told_lost = 0;
    stream.set_read_timeout(Some(PULSE))?;
    stream.set_write_timeout(Some(FOLLOWING))?;
    loop {
        let last_round = shared.stopping.load(Ordering::Acquire);
        let events = ring.read(&mut cursor, BATCH);
        let mut text = String::new();
        if cursor.lost > told_lost {
            text.push_str(&lost_json(cursor.lost - told_lost));
            text.push('\n');
            told_lost = cursor.lost;
        }
        for event in &events {
            text.push_str(&event.json());
            text.push('\n');
        }
        stream.write_all(text.as_bytes())?;
        let all_told = events.is_empty() && cursor.number >= ring.last();
        if !follow && cursor.number >= end || last_round && all_told {
            return Ok(());
        }
        if events.is_empty() && heard(&mut stream)? == Some(0) {
            return Ok(());
        }
    }
}

/// Waits one pulse; how much the client said meanwhile: `Some(0)` where it is gone.
fn heard(stream: &mut UnixStream) -> io::Result<Option<usize>> {
    match stream.read(&mut [0; 64]) {
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(e) if e.kind() == ErrorKind::Interrupted => Ok(None),
        Err(e) => Err(e),
    }
}
