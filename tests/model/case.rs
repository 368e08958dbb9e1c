//! One test case as text: mark format, layers and script, one line for each thing.

use std::collections::BTreeSet;
use std::fmt;

use super::support::layers::{MarkFormat, octal};

/// Layers (topmost first) and what to do with their union. Every line is words with spaces
/// between; `layers.rs` and `execute.rs` say what they mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// How plyfs's layers say "deleted" and "opaque"; the kernel's copy uses its own way.
    pub format: MarkFormat,
    /// What the upper holds at the start.
    pub upper: Vec<String>,
    pub lowers: Vec<Vec<String>>,
    pub script: Vec<String>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "format {}", self.format.name())?;
        let sections = std::iter::once(("upper", &self.upper))
            .chain(self.lowers.iter().map(|lower| ("lower", lower)))
            .chain(std::iter::once(("script", &self.script)));
        for (title, lines) in sections {
            writeln!(f, "{title}")?;
            for line in lines {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

impl Case {
    /// Without an index, a file of a lower that is changed through one name is another file then; and
    /// the `user.` xattrs that an index needs can be on files only.
    pub fn without_links(&self, all: bool) -> Case {
        let mut case = self.clone();
        for layer in case.lowers.iter_mut().chain([&mut case.upper]) {
            let files: BTreeSet<String> = layer
                .iter()
                .filter_map(|line| line.strip_prefix("file ")?.split(' ').next())
                .map(String::from)
                .collect();
            layer.retain(|line| {
                let mut words = line.split(' ');
                words.next() != Some("link")
                    || !all && words.nth(1).is_some_and(|to| files.contains(to))
            });
        }
        case
    }

    /// Without what root of a user namespace may not make.
    pub fn unprivileged(&self) -> Case {
        let mut case = self.clone();
        for layer in case.lowers.iter_mut().chain([&mut case.upper]) {
            layer.retain(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let device =
                    |mode: u32| matches!(mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
                match words[0] {
                    "node" => !device(octal(words[2])),
                    "xattr" => !words[2].starts_with("trusted."),
                    _ => true,
                }
            });
        }
        case
    }

    /// Reads what `Display` wrote; blank lines and `#` comments are left out.
    pub fn parse(text: &str) -> Case {
        let mut case = Case::default();
        let mut section = "";
        for line in text.lines() {
            let words = line.trim();
            if words.is_empty() || words.starts_with('#') {
                continue;
            }
            if !line.starts_with(' ') {
                match words.split_once(' ') {
                    Some(("format", name)) => {
                        case.format = MarkFormat::named(name).expect("a known mark format");
                    }
                    _ => {
                        section = words;
                        if section == "lower" {
                            case.lowers.push(Vec::new());
                        }
                    }
                }
                continue;
            }
            match section {
                "upper" => case.upper.push(words.into()),
                "lower" => case
                    .lowers
                    .last_mut()
                    .expect("a lower was begun")
                    .push(words.into()),
                "script" => case.script.push(words.into()),
                other => panic!("{other:?} is no section of a case: {line:?}"),
            }
        }
        case
    }
}

#[test]
fn a_case_reads_back_as_it_was_written() {
    let case = super::generate::layers(&mut super::support::rng::Rng::new(7), 5);
    assert!(!case.lowers.is_empty());
    assert_eq!(Case::parse(&case.to_string()), case);
}
