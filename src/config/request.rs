//! A request for a mount: what the words, the flags and the file said, unchecked.

use super::options::{Effect, Flag, Takes, WORDS, Word, known, nearest, split_layers, unescape};
use super::owners::{OwnerRequest, switch};
use super::plan::{
    CacheTimeout, Complete, CopyUpAt, Durability, Io, Marks, MountFlags, Observe, PARTIAL_FROM,
    Redirects, Uuid, XattrSpace,
};
use crate::error::MountError;
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

/// What was asked for so far. Later words replace earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Where the union shall appear.
    pub mount_point: Option<PathBuf>,
    /// Lower layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Layers below those that only give their data.
    pub data_only: Vec<PathBuf>,
    /// The upper layer.
    pub upper: Option<PathBuf>,
    /// Its scratch directory.
    pub work: Option<PathBuf>,
    /// Mark formats.
    pub marks: Marks,
    /// Namespace of the marks' xattrs.
    pub xattrs: XattrSpace,
    /// Kernel caching.
    pub timeout: CacheTimeout,
    /// When files are copied up.
    pub copyup: CopyUpAt,
    /// What is on the disk when.
    pub durability: Durability,
    /// How data is read and written.
    pub io: Io,
    /// Whose UUIDs count.
    pub uuid: Uuid,
    /// Hard links kept whole.
    pub index: bool,
    /// Renames of merged directories.
    pub redirects: Redirects,
    /// Changes of metadata copy no data; `None` where nobody said so or otherwise.
    pub metacopy: Option<bool>,
    /// From which size on files are copied up in parts.
    pub partial: Option<Option<u64>>,
    /// When such files get the rest of their data.
    pub complete: Complete,
    /// Largest write request.
    pub max_write: Option<u32>,
    /// Serving threads.
    pub threads: Option<usize>,
    /// What is counted and told.
    pub observe: Observe,
    /// How owners are shown and kept.
    pub owners: OwnerRequest,
    /// What there is none of for programs.
    pub without: Without,
    /// Flags of the mount; `allow_other` is settled when the request is checked.
    pub flags: MountFlags,
    /// Everything is to be logged.
    pub debug: bool,
    /// Lower layers are a must: an upper alone is no union.
    pub lowers_required: bool,
    /// What the log should say about words without effect.
    pub notes: Vec<String>,
}

impl Default for Request {
    fn default() -> Request {
        Request {
            mount_point: None,
            lowers: Vec::new(),
            data_only: Vec::new(),
            upper: None,
            work: None,
            marks: Marks::default(),
            xattrs: XattrSpace::default(),
            timeout: CacheTimeout::default(),
            copyup: CopyUpAt::default(),
            durability: Durability::default(),
            uuid: Uuid::default(),
            io: Io::default(),
            index: true,
            redirects: Redirects::default(),
            metacopy: None,
            partial: None,
            complete: Complete::default(),
            max_write: None,
            threads: None,
            observe: Observe::default(),
            owners: OwnerRequest::default(),
            without: Without::default(),
            flags: MountFlags::default(),
            debug: false,
            lowers_required: false,
            notes: Vec::new(),
        }
    }
}

/// The values of `durability`; overlayfs has the same for `fsync`.
const DURABILITIES: [(&str, Durability); 3] = [
    ("auto", Durability::Auto),
    ("strict", Durability::Strict),
    ("volatile", Durability::Volatile),
];

/// What programs are not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// Xattrs.
    pub xattrs: bool,
    /// ACLs.
    pub acls: bool,
    /// Link counts of directories.
    pub directory_links: bool,
    /// fsync.
    pub fsync: bool,
    /// More than one thread.
    pub threads: bool,
}

/// Whether a word meant something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It did, and was heeded.
    Known,
    /// No such word.
    Unknown,
}

/// A refusal of `word`.
pub(super) fn refuse(word: &Word, cause: impl Display, remedy: impl Display) -> MountError {
    MountError::new(format_args!("option {}", word.as_written()), cause, remedy)
}

/// A whole number between `least` and `most`.
pub(super) fn number<T>(word: &Word, text: &str, least: T, most: T) -> Result<T, MountError>
where
    T: FromStr + PartialOrd + Display + Copy,
{
    text.parse::<T>()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| {
            refuse(
                word,
                format_args!("not a whole number between {least} and {most}"),
                format_args!("write for instance {}={least}", word.name),
            )
        })
}

/// A number of bytes.
fn size(word: &Word, text: &str) -> Result<u64, MountError> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (text.get(..at), 1 << 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 1 << 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 1 << 30),
        _ => (Some(text), 1),
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    number.and_then(|n| n.checked_mul(unit)).ok_or_else(|| {
        refuse(
            word,
            "neither a size nor a word that is known here",
            format_args!("write for instance {}=64M", word.name),
        )
    })
}

/// One of the given choices.
pub(super) fn choice<T: Copy>(
    word: &Word,
    text: &str,
    choices: &[(&str, T)],
) -> Result<T, MountError> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        refuse(
            word,
            "no such value",
            format_args!("use one of: {}", names.join(", ")),
        )
    })
}

impl Request {
    /// Heeds `word`; an unknown one is left to the caller.
    ///
    /// # Errors
    /// Where a known word has a value that makes no sense.
    pub fn apply(&mut self, word: &Word) -> Result<Applied, MountError> {
        let Some((name, takes, effect)) = known(&word.name) else {
            return Ok(Applied::Unknown);
        };
        match (takes, &word.value) {
            (Takes::Nothing, Some(_)) => {
                return Err(refuse(word, "takes no value", format_args!("write {name}")));
            }
            (Takes::Value(example), None) => {
                return Err(refuse(
                    word,
                    "needs a value",
                    format_args!("write {name}={example}"),
                ));
            }
            _ => {}
        }
        self.take(word, effect)?;
        Ok(Applied::Known)
    }

    /// Whether changes of metadata copy no data: a file without data has to say where that
    /// is before it is renamed, and so needs redirects (overlayfs.rst has the same rule).
    pub fn spares_data(&self) -> bool {
        self.metacopy.unwrap_or(true) && self.redirects.writes()
    }

    /// From which size on files are copied up in parts. Whoever wants no file without all of
    /// its data, wants none with a part of it, unless that was asked for.
    pub fn partial_from(&self) -> Option<u64> {
        let usual = (self.metacopy != Some(false)).then_some(PARTIAL_FROM);
        self.partial.unwrap_or(usual)
    }

    /// As [`Request::apply`], but an unknown word is refused.
    ///
    /// # Errors
    /// Also where there is no such word, with the one that was probably meant.
    pub fn apply_strictly(&mut self, word: &Word) -> Result<(), MountError> {
        match self.apply(word)? {
            Applied::Known => Ok(()),
            Applied::Unknown => Err(refuse(
                word,
                "no such option",
                match nearest(&word.name, WORDS.iter().map(|(name, ..)| *name)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "see plyfs-mount(1) for those there are".into(),
                },
            )),
        }
    }

    fn take(&mut self, word: &Word, effect: Effect) -> Result<(), MountError> {
        let raw = word.value.as_deref().unwrap_or_default();
        let value = unescape(raw);
        let text = value.to_string_lossy();
        match effect {
            Effect::Lower => {
                let layers = split_layers(unquoted(raw)).ok_or_else(|| {
                    refuse(
                        word,
                        "a layer to be merged stands after a data-only one",
                        "write lowerdir=A:B::DATA::DATA, with two colons before each of the last",
                    )
                })?;
                (self.lowers, self.data_only) = (layers.merged, layers.data_only);
            }
            Effect::DataMore => self.data_only.push(value.into()),
            Effect::LowerMore => self.lowers.push(value.into()),
            Effect::Upper => self.upper = not_empty(word, value.into())?,
            Effect::Work => self.work = not_empty(word, value.into())?,
            Effect::Timeout => self.timeout = timeout(word, &text)?,
            Effect::Marks => {
                let all = [
                    ("auto", Marks::Auto),
                    ("overlay", Marks::Overlay),
                    ("files", Marks::Files),
                ];
                self.marks = choice(word, &text, &all)?;
            }
            Effect::UserXattr => self.xattrs = XattrSpace::User,
            Effect::Index => {
                self.index = choice(word, &text, &[("on", true), ("off", false)])?;
            }
            Effect::Uuid => {
                let all = [
                    ("off", Uuid::Off),
                    ("null", Uuid::Null),
                    ("auto", Uuid::Auto),
                    ("on", Uuid::On),
                ];
                self.uuid = choice(word, &text, &all)?;
            }
            Effect::Redirect => {
                let all = [
                    ("on", Redirects::On),
                    ("follow", Redirects::Follow),
                    ("nofollow", Redirects::NoFollow),
                    ("off", Redirects::Off),
                ];
                self.redirects = choice(word, &text, &all)?;
            }
            Effect::Metacopy => {
                self.metacopy = Some(choice(word, &text, &[("on", true), ("off", false)])?);
            }
            Effect::Partial => {
                self.partial = Some(match &*text {
                    "off" => None,
                    text => Some(size(word, text)?),
                });
            }
            Effect::Complete => {
                self.complete = match &*text {
                    "idle" => Complete::Idle,
                    "now" => Complete::Now,
                    "unmount" => Complete::Unmount,
                    "off" => Complete::Off,
                    text => Complete::Rate(size(word, text)?.max(1)),
                };
            }
            Effect::CopyUp => {
                let all = [("write", CopyUpAt::Write), ("open", CopyUpAt::Open)];
                self.copyup = choice(word, &text, &all)?;
            }
            Effect::Durability => self.durability = choice(word, &text, &DURABILITIES)?,
            Effect::Volatile => self.durability = Durability::Volatile,
            // fuse-overlayfs's word is a switch, for what programs ask for.
            Effect::Fsync if matches!(&*text, "" | "0" | "1") => {
                self.without.fsync = !switch(word, &text)?;
            }
            Effect::Fsync => self.durability = choice(word, &text, &DURABILITIES)?,
            Effect::Io => {
                let all = [
                    ("auto", Io::Auto),
                    ("cached", Io::Cached),
                    ("passthrough", Io::Passthrough),
                ];
                self.io = choice(word, &text, &all)?;
            }
            Effect::MaxWrite => {
                self.max_write = Some(number(word, &text, 4096, 16 * 1024 * 1024)?);
            }
            Effect::Threads => self.threads = Some(number(word, &text, 1, 64)?),
            Effect::Observe => {
                self.observe.on = choice(word, &text, &[("on", true), ("off", false)])?;
            }
            Effect::Metrics => self.observe.metrics = a_file(word, value.into())?,
            Effect::MetricsInterval => {
                self.observe.interval = number(word, &text, 1, 86_400)?;
            }
            Effect::Owners(which) => self.owners.take(which, word, &text)?,
            Effect::Threaded => self.without.threads = !switch(word, &text)?,
            Effect::Sync => self.synchronous(switch(word, &text)?),
            Effect::Async => self.synchronous(false),
            Effect::NoXattrs => self.without.xattrs = switch(word, &text)?,
            Effect::NoAcl => self.without.acls = true,
            Effect::StaticNlink => self.without.directory_links = switch(word, &text)?,
            Effect::Context => self.flags.context = Some(label(word, &text)?),
            Effect::Flag(flag) => self.set_flag(flag),
            Effect::FsName => self.flags.fsname = plain_name(word, &text)?,
            Effect::Subtype => self.flags.subtype = plain_name(word, &text)?,
            Effect::Debug => self.debug = true,
            Effect::NoEffect => self.note_no_effect(word),
            Effect::Fstab => {}
        }
        Ok(())
    }

    /// `sync`: also what plyfs does by itself.
    fn synchronous(&mut self, on: bool) {
        self.flags.synchronous = on;
        self.durability = match (on, self.durability) {
            (true, Durability::Auto) => Durability::Strict,
            (false, Durability::Strict) => Durability::Auto,
            (_, other) => other,
        };
    }

    fn note_no_effect(&mut self, word: &Word) {
        self.notes.push(format!(
            "option {}: accepted, without effect",
            word.as_written()
        ));
    }

    fn set_flag(&mut self, flag: Flag) {
        let flags = &mut self.flags;
        match flag {
            Flag::ReadOnly(on) => flags.read_only = on,
            Flag::Suid(on) => flags.suid = on,
            Flag::Dev(on) => flags.dev = on,
            Flag::Exec(on) => flags.exec = on,
            Flag::Atime(on) => flags.atime = on,
            Flag::AllowOther => flags.allow_other = true,
            Flag::AllowRoot => flags.allow_root = true,
            Flag::DefaultPermissions(on) => flags.default_permissions = on,
        }
    }
}

/// Takes off the quotes around a whole value.
fn unquoted(value: &OsStr) -> &OsStr {
    use std::os::unix::ffi::OsStrExt;
    value
        .as_bytes()
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .map_or(value, OsStr::from_bytes)
}

fn not_empty(word: &Word, path: PathBuf) -> Result<Option<PathBuf>, MountError> {
    if path.as_os_str().is_empty() {
        return Err(refuse(
            word,
            "names no directory",
            format_args!("write {}=DIR", word.name),
        ));
    }
    Ok(Some(path))
}

fn a_file(word: &Word, path: PathBuf) -> Result<Option<PathBuf>, MountError> {
    if path.file_name().is_none() {
        let remedy = format_args!("write {}=FILE", word.name).to_string();
        return Err(refuse(word, "names no file", remedy));
    }
    Ok(Some(path))
}

fn timeout(word: &Word, text: &str) -> Result<CacheTimeout, MountError> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .filter(|s| s.is_finite() && *s >= 0.0)
        .map(CacheTimeout::Seconds)
        .ok_or_else(|| {
            refuse(
                word,
                "not a number of seconds",
                "write for instance timeout=1.5, or leave it out where no layer changes",
            )
        })
}

/// An SELinux label.
fn label(word: &Word, text: &str) -> Result<String, MountError> {
    if text.is_empty() || text.contains(|c: char| c.is_control() || c == '"') {
        let remedy = "write for instance context=\"system_u:object_r:container_file_t:s0\"";
        return Err(refuse(word, "not a label", remedy));
    }
    Ok(text.to_owned())
}

/// A name for /proc/mounts: what would break its line is refused.
fn plain_name(word: &Word, text: &str) -> Result<String, MountError> {
    let bad = |c: char| c.is_control() || c == ',' || c == '\\';
    if text.is_empty() || text.contains(bad) {
        return Err(refuse(word, "not a name", "use letters, digits and dashes"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
