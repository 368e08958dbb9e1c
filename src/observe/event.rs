//! One event: something was copied to the upper, or a mark was written there.

use super::words::{Cause, Mark, Part};
use serde::Serialize;
use std::time::Duration;

/// What happened; `B` are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<B = Vec<u8>> {
    /// A file of a lower layer came to the upper.
    CopyUp {
        /// How much of it.
        part: Part,
        /// Its type, as users read it.
        kind: &'static str,
        /// Bytes of data that were copied; holes are none.
        bytes: u64,
        /// Whether they are shared with the lower file rather than written anew.
        reflink: bool,
        /// How long it took.
        took: Duration,
    },
    /// A mark was written, or went.
    Mark {
        /// Which.
        mark: Mark,
        /// Where a redirect leads.
        target: Option<B>,
    },
}

/// An event; `B` are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<B = Vec<u8>> {
    /// Its number, from 1.
    pub number: u64,
    /// When it was over, since 1970.
    pub time: Duration,
    /// What happened.
    pub what: What<B>,
    /// What it happened to, from the root of the union; `None` where it had no name any more.
    pub path: Option<B>,
    /// What somebody did.
    pub cause: Cause,
    /// Who: the thread that the kernel names, 0 where it names none.
    pub pid: u32,
    /// Its command; empty where nobody can tell.
    pub command: B,
}

/// A name for JSON: bytes that are not UTF-8 are replaced, and given in hexadecimal too.
pub(super) fn text_and_hex(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (String::from_utf8_lossy(bytes).into_owned(), Some(hex))
        }
    }
}

/// The line of an event; the fields that its kind does not have are left out.
#[derive(Serialize)]
struct Line {
    number: u64,
    time: f64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'static str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    cause: &'static str,
    pid: Option<u32>,
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reflink: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    microseconds: Option<u64>,
}

/// Seconds since 1970, to the microsecond.
fn seconds(since: Duration) -> f64 {
    since.as_micros() as f64 / 1e6
}

fn split(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    bytes
        .map(text_and_hex)
        .map_or((None, None), |(text, hex)| (Some(text), hex))
}

impl<B> Event<B> {
    /// The same with other bytes, which `make` gets of these, always in the same order.
    #[inline]
    pub(super) fn map<'a, C>(&'a self, mut make: impl FnMut(&'a B) -> C) -> Event<C> {
        Event {
            number: self.number,
            time: self.time,
            path: self.path.as_ref().map(&mut make),
            cause: self.cause,
            pid: self.pid,
            command: make(&self.command),
            what: match &self.what {
                &What::CopyUp {
                    part,
                    kind,
                    bytes,
                    reflink,
                    took,
                } => What::CopyUp {
                    part,
                    kind,
                    bytes,
                    reflink,
                    took,
                },
                What::Mark { mark, target } => What::Mark {
                    mark: *mark,
                    target: target.as_ref().map(make),
                },
            },
        }
    }

    /// All its bytes, in that order.
    #[inline]
    pub(super) fn texts(&self) -> impl Iterator<Item = &B> {
        let target = match &self.what {
            What::CopyUp { .. } => None,
            What::Mark { target, .. } => target.as_ref(),
        };
        self.path.iter().chain(Some(&self.command)).chain(target)
    }
}

impl Event {
    /// The event as one line of JSON, without the line's end.
    pub fn json(&self) -> String {
        let (path, path_hex) = split(self.path.as_deref());
        let known = Some(&*self.command).filter(|command| !command.is_empty());
        let (command, command_hex) = split(known);
        let mut line = Line {
            number: self.number,
            time: seconds(self.time),
            event: "copyup",
            part: None,
            kind: None,
            path,
            path_hex,
            target: None,
            target_hex: None,
            cause: self.cause.name(),
            pid: Some(self.pid).filter(|pid| *pid != 0),
            command,
            command_hex,
            bytes: None,
            reflink: None,
            microseconds: None,
        };
        match &self.what {
            What::CopyUp {
                part,
                kind,
                bytes,
                reflink,
                took,
            } => {
                line.part = Some(part.name());
                line.kind = Some(kind);
                line.bytes = Some(*bytes);
                line.reflink = Some(*reflink);
                line.microseconds = u64::try_from(took.as_micros()).ok();
            }
            What::Mark { mark, target } => {
                line.event = mark.name();
                (line.target, line.target_hex) = split(target.as_deref());
            }
        }
        // Numbers and strings alone: there is nothing that could fail.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// The line that says that `count` events were lost.
pub fn lost_json(count: u64) -> String {
    format!("{{\"event\":\"lost\",\"count\":{count}}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn event(path: &[u8], what: What) -> Value {
        let event = Event {
            number: 7,
            time: Duration::from_micros(1_700_000_000_123_456),
            what,
            path: Some(path.into()),
            cause: Cause::Write,
            pid: 12,
            command: b"sh"[..].into(),
        };
        serde_json::from_str(&event.json()).expect("valid JSON")
    }

    fn copyup() -> What {
        What::CopyUp {
            part: Part::Whole,
            kind: "file",
            bytes: 10,
            reflink: false,
            took: Duration::from_nanos(88_900),
        }
    }

    #[test]
    fn a_copy_up_is_told_whole() {
        let want = serde_json::json!({
            "number": 7, "time": 1_700_000_000.123_456, "event": "copyup", "part": "whole",
            "type": "file", "path": "d/f", "cause": "write", "pid": 12, "command": "sh",
            "bytes": 10, "reflink": false, "microseconds": 88
        });
        assert_eq!(event(b"d/f", copyup()), want);
    }

    #[test]
    fn bytes_that_are_no_text_are_told_in_hexadecimal_too() {
        let got = event(b"a\xff\n\"", copyup());
        assert_eq!(got["path"], "a\u{fffd}\n\"");
        assert_eq!(got["path_hex"], "61ff0a22");
        let redirect = What::Mark {
            mark: Mark::Redirect,
            target: Some(b"/\xfe".to_vec()),
        };
        let got = event("ä".as_bytes(), redirect);
        assert_eq!(
            (&got["event"], &got["path"]),
            (&"redirect".into(), &"ä".into())
        );
        assert_eq!(
            (&got["target"], &got["target_hex"]),
            (&"/\u{fffd}".into(), &"2ffe".into())
        );
        assert!(got.get("path_hex").is_none() && got.get("bytes").is_none());
    }
}
