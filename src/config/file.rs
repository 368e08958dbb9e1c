//! The TOML file of `plyfs mount --config`.
//!
//! ```toml
//! layers = ["/srv/app", "/srv/base"]   # topmost first; `lower` is the same
//! upper = "changes"                    # relative to the file's directory
//! work = "changes.work"
//! options = ["ro", "timeout=1.5"]      # or "ro,timeout=1.5", or a table:
//!
//! [options]
//! ro = true
//! timeout = 1.5
//! ```

use super::options::{Word, nearest, split_words};
use super::request::Request;
use crate::error::MountError;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys that a file may have.
const KEYS: [&str; 5] = ["layers", "lower", "upper", "work", "options"];

/// A file being read: for paths beside it and for messages about it.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|&&b| b == b'\n').count() + 1
    }

    fn refuse(&self, span: &Range<usize>, cause: impl Display, remedy: impl Display) -> MountError {
        let line = self.line(span.start);
        MountError::new(
            format_args!("{}:{line}", self.path.display()),
            cause,
            remedy,
        )
    }

    /// A path of the file: relative to the file's directory.
    fn path(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<PathBuf, MountError> {
        let text = value.get_ref().as_str().filter(|text| !text.is_empty());
        let Some(text) = text else {
            return Err(self.refuse(
                &value.span(),
                format_args!("{key} is not the path of a directory"),
                format_args!("write {key} = \"/a/directory\""),
            ));
        };
        let beside = self.path.parent().unwrap_or(Path::new(""));
        Ok(beside.join(text))
    }

    fn paths(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<PathBuf>, MountError> {
        match value.get_ref() {
            DeValue::Array(all) => all.iter().map(|one| self.path(key, one)).collect(),
            _ => Ok(vec![self.path(key, value)?]),
        }
    }

    /// One entry of the table `[options]` as a word; `None` for `ro = false`.
    fn word(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Option<Word>, MountError> {
        let text = match value.get_ref() {
            DeValue::Boolean(on) => {
                let word = Word {
                    name: name.to_owned(),
                    value: None,
                };
                return Ok(on.then_some(word));
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            _ => {
                return Err(self.refuse(
                    &value.span(),
                    format_args!("option {name} is neither true, false, a number nor a string"),
                    "write it as it stands after -o",
                ));
            }
        };
        Ok(Some(Word {
            name: name.to_owned(),
            value: Some(OsString::from(text)),
        }))
    }

    /// The words of `options`, each with where it stands.
    fn words(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<(Word, Range<usize>)>, MountError> {
        let lists = match value.get_ref() {
            DeValue::String(_) => std::slice::from_ref(value),
            DeValue::Array(all) => all,
            DeValue::Table(table) => {
                let mut words = Vec::new();
                for (name, value) in table.iter() {
                    if let Some(word) = self.word(name.get_ref(), value)? {
                        words.push((word, name.span()));
                    }
                }
                return Ok(words);
            }
            _ => &[],
        };
        let mut words = Vec::new();
        for list in lists {
            let Some(text) = list.get_ref().as_str() else {
                return Err(self.refuse(&list.span(), "an option is not a string", REMEDY));
            };
            let split = split_words(OsStr::new(text));
            words.extend(split.into_iter().map(|word| (word, list.span())));
        }
        if words.is_empty() && lists.is_empty() && value.get_ref().as_array().is_none() {
            return Err(self.refuse(&value.span(), "options are not a list", REMEDY));
        }
        Ok(words)
    }
}

const REMEDY: &str = "write options = [\"ro\", \"timeout=1\"]";

/// Reads the file at `path` into `request`; words of the command line come later and win.
///
/// # Errors
/// Where the file cannot be read or says something unknown, with its line.
pub fn read_into(path: &Path, request: &mut Request) -> Result<(), MountError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        MountError::new(
            path.display(),
            crate::error::plain(&e),
            "give --config a readable TOML file",
        )
    })?;
    parse_into(path, &text, request)
}

fn parse_into(path: &Path, text: &str, request: &mut Request) -> Result<(), MountError> {
    let source = Source { path, text };
    let table = DeTable::parse(text).map_err(|e| {
        let message = e.message().lines().next().unwrap_or_default().to_owned();
        let span = e.span().unwrap_or(0..0);
        source.refuse(&span, message, "correct it; plyfs-mount(1) has an example")
    })?;
    for (key, value) in table.get_ref().iter() {
        match key.get_ref().as_ref() {
            name @ ("layers" | "lower") => {
                if !request.lowers.is_empty() {
                    return Err(source.refuse(
                        &key.span(),
                        "the layers are given twice",
                        "keep one of layers and lower",
                    ));
                }
                request.lowers = source.paths(name, value)?;
            }
            "upper" => request.upper = Some(source.path("upper", value)?),
            "work" => request.work = Some(source.path("work", value)?),
            "options" => {
                for (word, span) in source.words(value)? {
                    request.apply_strictly(&word).map_err(|e| {
                        let cause = format!("{}: {}", e.what, e.cause);
                        source.refuse(&span, cause, e.remedy)
                    })?;
                }
            }
            unknown => {
                return Err(source.refuse(
                    &key.span(),
                    format_args!("unknown key {unknown}"),
                    match nearest(unknown, KEYS) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("use one of: {}", KEYS.join(", ")),
                    },
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan::CacheTimeout;
    use super::*;

    fn parse(text: &str) -> Result<Request, String> {
        let mut request = Request::default();
        parse_into(Path::new("/etc/u.toml"), text, &mut request)
            .map(|()| request)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn layers_and_options_are_read() {
        let text = "layers = ['/a', 'b']\nupper = 'u'\nwork = '/w'\noptions = 'ro,timeout=2'\n";
        let request = parse(text).expect("valid");
        assert_eq!(request.lowers, [Path::new("/a"), Path::new("/etc/b")]);
        assert_eq!(request.upper.as_deref(), Some(Path::new("/etc/u")));
        assert_eq!(request.work.as_deref(), Some(Path::new("/w")));
        assert!(request.flags.read_only);
        assert_eq!(request.timeout, CacheTimeout::Seconds(2.0));
    }

    #[test]
    fn one_layer_and_a_table_of_options_are_read() {
        let text = "lower = '/a'\n[options]\nro = true\nsuid = false\ntimeout = 1.5\nthreads = 4\n";
        let request = parse(text).expect("valid");
        assert_eq!(request.lowers, [Path::new("/a")]);
        assert!(request.flags.read_only && !request.flags.suid);
        assert_eq!(request.timeout, CacheTimeout::Seconds(1.5));
        assert_eq!(request.threads, Some(4));
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, message) in [
            (
                "\nuper = '/u'",
                "/etc/u.toml:2: unknown key uper; did you mean upper?",
            ),
            (
                "zzz = 1",
                "/etc/u.toml:1: unknown key zzz; use one of: layers, lower, upper, work, options",
            ),
            (
                "layers = [\n'/a',\n3]",
                "/etc/u.toml:3: layers is not the path of a directory; write layers = \
                 \"/a/directory\"",
            ),
            (
                "layers = ['/a']\nlower = '/b'",
                "/etc/u.toml:2: the layers are given twice; keep one of layers and lower",
            ),
            (
                "options = ['ro',\n'thread=3']",
                "/etc/u.toml:2: option thread=3: no such option; did you mean threads?",
            ),
            (
                "[options]\n\nthreads = 'many'",
                "/etc/u.toml:3: option threads=many: not a whole number between 1 and 64; \
                 write for instance threads=1",
            ),
            (
                "options = 3",
                "/etc/u.toml:1: options are not a list; write options = [\"ro\", \"timeout=1\"]",
            ),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_syntax_error_is_one_line_with_its_place() {
        let message = parse("upper = '/u'\nwork = = 3\n").expect_err("broken");
        assert!(message.starts_with("/etc/u.toml:2: "), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}
