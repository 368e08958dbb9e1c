//! The raw words of `-o`: how they are split, and which there are.
//!
//! ```text
//! list  = word *( "," word )      empty words are passed over
//! word  = name [ "=" value ]      a value in double quotes may hold commas
//! paths = path *( ":" path )      empty paths at either end are passed over
//!         *( "::" path )          data-only layers
//! ```
//! `\,` `\:` and `\\` stand for the character itself; any other backslash is one.

use super::owners::OwnerWord;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// One word of a list, its value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What stands before the first `=`.
    pub name: String,
    /// What stands after it, escapes and all.
    pub value: Option<OsString>,
}

impl Word {
    /// The word as the user wrote it.
    pub fn as_written(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={}", self.name, value.to_string_lossy()),
            None => self.name.clone(),
        }
    }
}

/// Splits `bytes` where `separator` stands bare; escapes are left in.
fn split_bare(bytes: &[u8], separator: u8, quotes: bool) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut quoted) = (0, 0, false);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'\\' && bytes.get(at + 1).is_some_and(|&b| is_escapable(b)) {
            at += 1;
        } else if quotes && byte == b'"' {
            let opens = at > 0 && bytes.get(at - 1) == Some(&b'=');
            let rest = bytes.get(at + 1..).unwrap_or_default();
            // A quote that nothing closes, or that stands inside a value, is a character.
            quoted = !quoted && opens && rest.contains(&b'"');
        } else if byte == separator && !quoted {
            parts.push(bytes.get(start..at).unwrap_or_default());
            start = at + 1;
        }
        at += 1;
    }
    parts.push(bytes.get(start..).unwrap_or_default());
    parts
}

fn is_escapable(byte: u8) -> bool {
    matches!(byte, b',' | b':' | b'\\')
}

/// Splits an `-o` list into its words; empty ones are passed over.
pub fn split_words(list: &OsStr) -> Vec<Word> {
    split_bare(list.as_bytes(), b',', true)
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| {
            let mut halves = part.splitn(2, |&b| b == b'=');
            let name = halves.next().unwrap_or_default();
            Word {
                name: String::from_utf8_lossy(name).into_owned(),
                value: halves.next().map(|v| OsString::from_vec(v.to_vec())),
            }
        })
        .collect()
}

/// The layers that a `lowerdir` value names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Those that are merged, topmost first.
    pub merged: Vec<PathBuf>,
    /// Those that only give their data, after `::`.
    pub data_only: Vec<PathBuf>,
}

/// Splits a `lowerdir` value into its layers, unescaped; `None` where a path after a
/// data-only one is to be merged.
pub fn split_layers(value: &OsStr) -> Option<Layers> {
    let mut layers = Layers::default();
    let mut doubled = false;
    for part in split_bare(value.as_bytes(), b':', false) {
        if part.is_empty() {
            doubled = !layers.merged.is_empty();
            continue;
        }
        let path = unescape(OsStr::from_bytes(part)).into();
        match (doubled, layers.data_only.is_empty()) {
            (true, _) => layers.data_only.push(path),
            (false, true) => layers.merged.push(path),
            (false, false) => return None,
        }
        doubled = false;
    }
    Some(layers)
}

/// Undoes the escapes of one value, and takes off the quotes around it.
pub fn unescape(value: &OsStr) -> OsString {
    let bytes = value.as_bytes();
    let bytes = bytes
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(bytes);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match rest.peek() {
            Some(&next) if byte == b'\\' && is_escapable(next) => {
                out.push(next);
                rest.next();
            }
            _ => out.push(byte),
        }
    }
    OsString::from_vec(out)
}

/// What a known word does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The lower layers, topmost first.
    Lower,
    /// One more lower layer, below the others.
    LowerMore,
    /// One more data-only layer, below all.
    DataMore,
    /// The upper layer.
    Upper,
    /// The scratch directory.
    Work,
    /// How long the kernel may cache.
    Timeout,
    /// Mark formats.
    Marks,
    /// Marks in `user.` xattrs.
    UserXattr,
    /// Whose UUIDs count.
    Uuid,
    /// Hard links kept whole.
    Index,
    /// Renames of merged directories.
    Redirect,
    /// Changes of metadata that copy no data.
    Metacopy,
    /// How large files are that are copied up in parts.
    Partial,
    /// When such files get the rest of their data.
    Complete,
    /// When files are copied up.
    CopyUp,
    /// What is on the disk when.
    Durability,
    /// How data is read and written.
    Io,
    /// No syncing.
    Volatile,
    /// overlayfs's word for durability, and fuse-overlayfs's for something else.
    Fsync,
    /// Largest write request.
    MaxWrite,
    /// Serving threads.
    Threads,
    /// Whether anything is counted.
    Observe,
    /// A file for the figures.
    Metrics,
    /// How often that is written.
    MetricsInterval,
    /// A flag of the mount.
    Flag(Flag),
    /// The source's name.
    FsName,
    /// The type's name.
    Subtype,
    /// Log everything.
    Debug,
    /// How owners are shown, and where they are kept.
    Owners(OwnerWord),
    /// One thread, or as many as are best.
    Threaded,
    /// Every write and change is on the disk when it is answered.
    Sync,
    /// The opposite.
    Async,
    /// Programs see and set no xattrs.
    NoXattrs,
    /// Programs see and set no ACLs.
    NoAcl,
    /// Every directory says that it has one link.
    StaticNlink,
    /// An SELinux label for all files.
    Context,
    /// Of other programs; there is nothing that it could change here, which the log says.
    NoEffect,
    /// For mount(8) and fstab alone.
    Fstab,
}

/// The flags of a mount that words set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Flag {
    ReadOnly(bool),
    Suid(bool),
    Dev(bool),
    Exec(bool),
    Atime(bool),
    AllowOther,
    AllowRoot,
    DefaultPermissions(bool),
}

/// Whether a word has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `word`
    Nothing,
    /// `word=value`; the example stands in error messages.
    Value(&'static str),
    /// Either.
    Maybe,
}

/// A known word: its name, whether it has a value, what it does.
pub type Known = (&'static str, Takes, Effect);

/// Every word with a meaning.
pub const WORDS: &[Known] = {
    use Effect::{
        Async, Complete, Context, CopyUp, DataMore, Debug, Durability, FsName, Fstab, Fsync, Index,
        Io, Lower, LowerMore, Marks, MaxWrite, Metacopy, Metrics, MetricsInterval, NoAcl, NoEffect,
        NoXattrs, Observe, Owners, Partial, Redirect, StaticNlink, Subtype, Sync, Threaded,
        Threads, Timeout, Upper, UserXattr, Uuid, Volatile, Work,
    };
    use Flag::{AllowOther, AllowRoot, Atime, DefaultPermissions, Dev, Exec, ReadOnly, Suid};
    use Takes::{Maybe, Nothing, Value};
    &[
        ("lowerdir", Value("DIR[:DIR…][::DIR…]"), Lower),
        ("lowerdir+", Value("DIR"), LowerMore),
        ("datadir+", Value("DIR"), DataMore),
        ("upperdir", Value("DIR"), Upper),
        ("workdir", Value("DIR"), Work),
        ("timeout", Value("SECONDS"), Timeout),
        ("marks", Value("auto|overlay|files"), Marks),
        ("userxattr", Nothing, UserXattr),
        ("index", Value("on|off"), Index),
        ("uuid", Value("off|null|auto|on"), Uuid),
        ("redirect_dir", Value("on|follow|nofollow|off"), Redirect),
        ("metacopy", Value("on|off"), Metacopy),
        ("partial", Value("SIZE|off"), Partial),
        ("complete", Value("idle|now|unmount|SIZE|off"), Complete),
        ("copyup", Value("write|open"), CopyUp),
        ("durability", Value("auto|strict|volatile"), Durability),
        ("io", Value("auto|cached|passthrough"), Io),
        ("volatile", Nothing, Volatile),
        ("max_write", Value("BYTES"), MaxWrite),
        ("threads", Value("NUMBER"), Threads),
        ("observe", Value("on|off"), Observe),
        ("metrics", Value("FILE"), Metrics),
        ("metrics_interval", Value("SECONDS"), MetricsInterval),
        ("ro", Nothing, Effect::Flag(ReadOnly(true))),
        ("rw", Nothing, Effect::Flag(ReadOnly(false))),
        ("suid", Nothing, Effect::Flag(Suid(true))),
        ("nosuid", Nothing, Effect::Flag(Suid(false))),
        ("dev", Nothing, Effect::Flag(Dev(true))),
        ("nodev", Nothing, Effect::Flag(Dev(false))),
        ("exec", Nothing, Effect::Flag(Exec(true))),
        ("noexec", Nothing, Effect::Flag(Exec(false))),
        ("atime", Nothing, Effect::Flag(Atime(true))),
        ("noatime", Nothing, Effect::Flag(Atime(false))),
        ("allow_other", Nothing, Effect::Flag(AllowOther)),
        ("allow_root", Nothing, Effect::Flag(AllowRoot)),
        (
            "default_permissions",
            Nothing,
            Effect::Flag(DefaultPermissions(true)),
        ),
        (
            "no_default_permissions",
            Nothing,
            Effect::Flag(DefaultPermissions(false)),
        ),
        ("fsname", Value("NAME"), FsName),
        ("subtype", Value("NAME"), Subtype),
        ("debug", Nothing, Debug),
        (
            "uidmapping",
            Value("INSIDE:OUTSIDE:LENGTH[:…]"),
            Owners(OwnerWord::Uids),
        ),
        (
            "gidmapping",
            Value("INSIDE:OUTSIDE:LENGTH[:…]"),
            Owners(OwnerWord::Gids),
        ),
        ("squash_to_root", Maybe, Owners(OwnerWord::SquashRoot)),
        ("squash_to_uid", Value("UID"), Owners(OwnerWord::SquashUid)),
        ("squash_to_gid", Value("GID"), Owners(OwnerWord::SquashGid)),
        ("xattr_permissions", Value("0|1|2"), Owners(OwnerWord::Kept)),
        ("noxattrs", Maybe, NoXattrs),
        ("noacl", Nothing, NoAcl),
        ("static_nlink", Maybe, StaticNlink),
        ("context", Value("LABEL"), Context),
        ("fsync", Maybe, Fsync),
        ("sync", Maybe, Sync),
        ("async", Nothing, Async),
        ("threaded", Maybe, Threaded),
        ("diratime", Nothing, NoEffect),
        ("nodiratime", Nothing, NoEffect),
        ("relatime", Nothing, NoEffect),
        ("strictatime", Nothing, NoEffect),
        ("fast_ino", Maybe, NoEffect),
        ("writeback", Maybe, NoEffect),
        ("plugins", Value("PATHS"), NoEffect),
        ("xino", Value("on|off|auto"), NoEffect),
        ("nfs_export", Value("on|off"), NoEffect),
        ("defaults", Nothing, Fstab),
        ("auto", Nothing, Fstab),
        ("noauto", Nothing, Fstab),
        ("user", Maybe, Fstab),
        ("users", Nothing, Fstab),
        ("nouser", Nothing, Fstab),
        ("owner", Nothing, Fstab),
        ("group", Nothing, Fstab),
        ("_netdev", Nothing, Fstab),
        ("nofail", Nothing, Fstab),
        ("comment", Maybe, Fstab),
    ]
};

/// The known word `name`, if there is one. Words in `x-` are for programs other than us.
pub fn known(name: &str) -> Option<Known> {
    if name.starts_with("x-") || name.starts_with("X-") {
        return Some(("x-", Takes::Maybe, Effect::Fstab));
    }
    WORDS.iter().find(|(word, ..)| *word == name).copied()
}

/// The one of `candidates` that `name` was most likely meant to be.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &str) -> Vec<String> {
        split_words(OsStr::new(list))
            .iter()
            .map(Word::as_written)
            .collect()
    }

    fn paths(value: &str) -> Vec<PathBuf> {
        split_layers(OsStr::new(value)).unwrap().merged
    }

    #[test]
    fn empty_words_and_trailing_commas_are_passed_over() {
        assert_eq!(words("a,,b=1,"), ["a", "b=1"]);
        assert_eq!(words(",,"), [""; 0]);
        assert_eq!(words(""), [""; 0]);
    }

    #[test]
    fn the_value_begins_at_the_first_equals_sign() {
        let word = split_words(OsStr::new("upperdir=/a=b")).remove(0);
        assert_eq!(word.name, "upperdir");
        assert_eq!(word.value.as_deref(), Some(OsStr::new("/a=b")));
        let empty = split_words(OsStr::new("lowerdir=")).remove(0);
        assert_eq!(empty.value.as_deref(), Some(OsStr::new("")));
    }

    #[test]
    fn an_escaped_comma_does_not_end_a_word() {
        assert_eq!(words(r"upperdir=/a\,b,ro"), [r"upperdir=/a\,b", "ro"]);
        assert_eq!(unescape(OsStr::new(r"/a\,b")), "/a,b");
    }

    #[test]
    fn commas_in_a_quoted_value_do_not_end_a_word() {
        assert_eq!(
            words(r#"context="system_u:object_r:c:s0:c1,c2",ro"#),
            [r#"context="system_u:object_r:c:s0:c1,c2""#, "ro"]
        );
        assert_eq!(unescape(OsStr::new(r#""a,b""#)), "a,b");
    }

    #[test]
    fn a_quote_inside_a_value_or_never_closed_is_a_character() {
        assert_eq!(words(r#"upperdir=/a"b,ro"#), [r#"upperdir=/a"b"#, "ro"]);
        assert_eq!(words(r#"upperdir="a,ro"#), [r#"upperdir="a"#, "ro"]);
    }

    #[test]
    fn empty_paths_at_the_ends_are_passed_over() {
        assert_eq!(paths(":/a:/b:"), [PathBuf::from("/a"), "/b".into()]);
        assert_eq!(paths("::/a::"), [PathBuf::from("/a")]);
        assert!(paths("").is_empty());
    }

    #[test]
    fn two_colons_begin_the_data_only_layers() {
        let split = |value| split_layers(OsStr::new(value));
        let layers = split("/a:/b::/c::/d").unwrap();
        assert_eq!(layers.merged, [PathBuf::from("/a"), "/b".into()]);
        assert_eq!(layers.data_only, [PathBuf::from("/c"), "/d".into()]);
        assert_eq!(split("/a::/b:/c"), None);
    }

    #[test]
    fn escapes_in_paths_stand_for_the_character() {
        assert_eq!(
            paths(r"/a\:b:/c\,d"),
            [PathBuf::from("/a:b"), "/c,d".into()]
        );
        assert_eq!(paths(r"/a\\:/b"), [PathBuf::from(r"/a\"), "/b".into()]);
        assert_eq!(paths(r"/dev\x2dsda"), [PathBuf::from(r"/dev\x2dsda")]);
        assert_eq!(paths(r"/a\"), [PathBuf::from(r"/a\")]);
    }

    #[test]
    fn paths_are_bytes() {
        let value = OsStr::from_bytes(b"/\xff:/\xfe");
        let expected = [b"/\xff", b"/\xfe"].map(|b| PathBuf::from(OsStr::from_bytes(b)));
        assert_eq!(split_layers(value).unwrap().merged, expected);
    }

    #[test]
    fn every_word_is_listed_once() {
        let mut names: Vec<_> = WORDS.iter().map(|(name, ..)| name).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_slip_finds_the_word_that_was_meant() {
        let names = || WORDS.iter().map(|(name, ..)| *name);
        assert_eq!(nearest("lowedir", names()), Some("lowerdir"));
        assert_eq!(nearest("time-out", names()), Some("timeout"));
        assert_eq!(nearest("zzz", names()), None);
    }

    proptest::proptest! {
        #[test]
        fn an_escaped_path_comes_back_whole(path in "/[a-z,:\\\\\" ]{0,20}") {
            let mut escaped = String::new();
            for c in path.chars() {
                if matches!(c, ',' | ':' | '\\') { escaped.push('\\'); }
                escaped.push(c);
            }
            let list = format!("ro,lowerdir={escaped}:/other,upperdir={escaped}");
            let words = split_words(OsStr::new(&list));
            proptest::prop_assert_eq!(words.len(), 3);
            let lower = words[1].value.clone().unwrap_or_default();
            proptest::prop_assert_eq!(
                split_layers(&lower).unwrap().merged,
                vec![PathBuf::from(&path), PathBuf::from("/other")]
            );
            let upper = words[2].value.clone().unwrap_or_default();
            proptest::prop_assert_eq!(unescape(&upper), OsString::from(&path));
        }
    }
}
