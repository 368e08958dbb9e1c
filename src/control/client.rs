//! Asking a mount's daemon.

use super::place;
use crate::observe::figures::Figures;
use crate::sys::socket::peer;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longer than a daemon takes to answer, if it is alive.
const PATIENCE: Duration = Duration::from_secs(10);
/// No honest answer is longer.
const ANSWER_MAX: u64 = 16 << 20;

/// The daemon of one mount.
#[derive(Clone, Copy, Debug)]
pub struct Daemon {
    minor: u32,
}

impl Daemon {
    /// The daemon of the mount whose device has this minor number; `None` where none tells
    /// anything to this user.
    ///
    /// # Errors
    /// Where there is a socket that cannot be connected to.
    pub fn find(minor: u32) -> io::Result<Option<Daemon>> {
        Ok(place::connect(minor)?.map(|_| Daemon { minor }))
    }

    /// The daemon of the mount whose device had this minor number, be it gone by now.
    pub fn of(minor: u32) -> Daemon {
        Daemon { minor }
    }

    fn ask(&self, request: &str) -> io::Result<UnixStream> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let mut stream = place::connect(self.minor)?.ok_or_else(gone)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        Ok(stream)
    }

    fn ask_for_text(&self, request: &str) -> io::Result<String> {
        let mut text = String::new();
        self.ask(request)?
            .take(ANSWER_MAX)
            .read_to_string(&mut text)?;
        if text.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match text.strip_prefix("refused: ") {
            Some(why) => Err(io::Error::other(why.trim().to_owned())),
            None => Ok(text),
        }
    }

    /// The figures.
    ///
    /// # Errors
    /// Where the daemon is gone, or says something else.
    pub fn figures(&self) -> io::Result<Figures> {
        serde_json::from_str(&self.ask_for_text("stat")?).map_err(io::Error::other)
    }

    /// The figures as Prometheus reads them.
    ///
    /// # Errors
    /// Where the daemon is gone.
    pub fn prometheus(&self) -> io::Result<String> {
        self.ask_for_text("prometheus")
    }

    /// Begins to ask how much partly copied files lack.
    ///
    /// # Errors
    /// As [`Left::ask`].
    pub fn left(&self) -> io::Result<Left> {
        let mut left = Left {
            answers: BufReader::new(self.ask("left")?),
        };
        left.answer()?;
        Ok(left)
    }

    /// Calls `each` with the line of every event after the one that `from` says, those to
    /// come too if `follow`; until there are no more, or `each` says that it is enough.
    ///
    /// # Errors
    /// Where the daemon turns us away; its end is none.
    pub fn events(
        &self,
        from: &str,
        follow: bool,
        mut each: impl FnMut(&str) -> bool,
    ) -> io::Result<()> {
        let verb = if follow { "follow" } else { "events" };
        let stream = self.ask(&format!("{verb} {from}"))?;
        if follow {
            stream.set_read_timeout(None)?;
        }
        for line in BufReader::new(stream).lines() {
            let line = match line {
                Ok(line) => line,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
                Err(e) => return Err(e),
            };
            if let Some(why) = line.strip_prefix("refused: ") {
                return Err(io::Error::other(why.to_owned()));
            }
            if !each(&line) {
                break;
            }
        }
        Ok(())
    }
}

/// A daemon that tells how much partly copied files lack, also after unmounting, when the name
/// of its socket may be another mount's.
#[derive(Debug)]
pub struct Left {
    answers: BufReader<UnixStream>,
}

impl Left {
    /// The daemon's process, if that can be told.
    pub fn pid(&self) -> Option<i32> {
        peer(self.answers.get_ref()).ok()?.pid
    }

    /// How many files are partly copied, and how many bytes they lack.
    ///
    /// # Errors
    /// Where the daemon is gone, or says something else.
    pub fn ask(&mut self) -> io::Result<(u64, u64)> {
        self.answers.get_mut().write_all(b"left\n")?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<(u64, u64)> {
        let mut text = String::new();
        self.answers.read_line(&mut text)?;
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(files)), Some(Ok(bytes))) => Ok((files, bytes)),
            _ => Err(io::Error::other(text)),
        }
    }
}
