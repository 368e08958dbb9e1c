//! Subjects as the command line names them.

use super::kinds::{Bare, Overlay, Program};
use super::{Setting, Subject};
use crate::error::MountError;
use std::path::{Path, PathBuf};

/// What kinds of subject there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// plyfs.
    Plyfs,
    /// The kernel's overlayfs.
    Overlay,
    /// fuse-overlayfs, any version.
    FuseOverlayfs,
    /// The merged tree as a directory.
    Bare,
}

const KINDS: [(&str, Kind); 4] = [
    ("plyfs", Kind::Plyfs),
    ("overlay", Kind::Overlay),
    ("fuse-overlayfs", Kind::FuseOverlayfs),
    ("bare", Kind::Bare),
];

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// A subject as the command line names it: `[LABEL=]KIND[@PROGRAM][:WORDS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What the report calls it.
    pub label: Option<String>,
    /// Its kind.
    pub kind: Kind,
    /// Which program, where it is one.
    pub program: Option<PathBuf>,
    /// Further option words.
    pub words: String,
}

impl Spec {
    /// The subject of this kind, as it is without being told anything.
    pub fn plain(kind: Kind) -> Spec {
        Spec {
            label: None,
            kind,
            program: None,
            words: String::new(),
        }
    }

    /// Reads `text`.
    ///
    /// # Errors
    /// Where it names no kind that there is.
    pub fn parse(text: &str) -> Result<Spec, MountError> {
        let (head, words) = text.split_once(':').unwrap_or((text, ""));
        let (label, rest) = match head.split_once('=') {
            Some((label, rest)) => (Some(label.to_owned()), rest),
            None => (None, head),
        };
        let (kind, program) = match rest.split_once('@') {
            Some((kind, program)) => (kind, Some(PathBuf::from(program))),
            None => (rest, None),
        };
        let kind = KINDS
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                MountError::new(
                    format_args!("--subject {text}"),
                    format_args!("no subject is called {kind:?}"),
                    "write [LABEL=]KIND[@PROGRAM][:WORDS], KIND being plyfs, overlay, \
                     fuse-overlayfs or bare",
                )
            })?;
        if program.is_some() && !matches!(kind, Kind::Plyfs | Kind::FuseOverlayfs) {
            return Err(MountError::new(
                format_args!("--subject {text}"),
                format_args!("{} is no program", kind.name()),
                "leave out what stands after @",
            ));
        }
        Ok(Spec {
            label: label.filter(|label| !label.is_empty()),
            kind,
            program,
            words: words.to_owned(),
        })
    }

    /// The subject itself. `own` is the plyfs to take where no other is named.
    pub fn subject(&self, setting: Setting, own: &Path) -> Box<dyn Subject> {
        match self.kind {
            Kind::Plyfs => {
                let program = self.program.clone().unwrap_or_else(|| own.to_owned());
                Box::new(Program::plyfs(self, program))
            }
            Kind::FuseOverlayfs => {
                let program = self.program.clone();
                let program = program.unwrap_or_else(|| "fuse-overlayfs".into());
                Box::new(Program::fuse_overlayfs(self, program))
            }
            Kind::Overlay => Box::new(Overlay::new(self, setting)),
            Kind::Bare => Box::new(Bare(self.named("bare"))),
        }
    }

    /// Its label: the one that was given, else `name` and the option words.
    pub(super) fn named(&self, name: &str) -> String {
        match (&self.label, self.words.as_str()) {
            (Some(label), _) => label.clone(),
            (None, "") => name.to_owned(),
            (None, words) => format!("{name} {words}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_with_all_its_parts() {
        let spec = Spec::parse("new=plyfs@/opt/plyfs:io=cached,threads=1").expect("a subject");
        assert_eq!(spec.label.as_deref(), Some("new"));
        assert_eq!(spec.kind, Kind::Plyfs);
        assert_eq!(spec.program.as_deref(), Some(Path::new("/opt/plyfs")));
        assert_eq!(spec.words, "io=cached,threads=1");
        let spec = Spec::parse("plyfs:metacopy=off").expect("a subject");
        assert_eq!(spec.named("plyfs"), "plyfs metacopy=off");
        assert_eq!(Spec::parse("bare"), Ok(Spec::plain(Kind::Bare)));
    }

    #[test]
    fn what_is_no_subject_is_refused_in_one_line() {
        for text in ["", "zfs", "x=", "overlay@/bin/true"] {
            let refusal = Spec::parse(text).expect_err(text).to_string();
            assert!(refusal.starts_with("--subject"), "{refusal}");
            assert_eq!(refusal.lines().count(), 1, "{refusal}");
        }
    }
}
