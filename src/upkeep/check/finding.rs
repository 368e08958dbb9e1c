//! What can be wrong with an upper, and how it is said: one line for each.

use crate::upkeep::Shown;
use std::fmt;

/// A kind of thing that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A temporary in the work directory.
    Temporary,
    /// The last mount was volatile.
    Volatile,
    /// A `settle` was interrupted where the marks change their namespace.
    HalfSettled,
    /// A whiteout that hides nothing.
    Whiteout,
    /// A directory that announces whiteouts by xattr and has none.
    StaleX,
    /// A whiteout xattr where none counts.
    StrayWhiteout,
    /// A redirect that makes no sense.
    BadRedirect,
    /// A redirect to nowhere.
    DanglingRedirect,
    /// An origin that makes no sense.
    BadOrigin,
    /// An origin whose file is gone.
    DanglingOrigin,
    /// Origins on another filesystem than the lower layers'.
    FarOrigins,
    /// No mark that an entry has an origin.
    Impure,
    /// A file whose data are missing.
    Metacopy,
    /// An index entry that nobody can find.
    IndexName,
    /// An index entry that is found by the wrong files.
    IndexOrigin,
    /// An index entry of a file without a name.
    IndexUnused,
    /// A link count that a kill left relative to the lower file.
    IndexUnsettled,
    /// A link count that cannot be.
    IndexCount,
    /// A link count of a file that is not in the index.
    StrayCount,
    /// All marks are in the namespace that is not believed.
    OtherMount,
    /// A mark in a namespace that is not believed.
    Unbelieved,
    /// A mark of fuse-overlayfs's own.
    FuseOverlayfs,
    /// A name that is a mark to others.
    MarkName,
}

/// What is said of a kind.
struct Text {
    /// One word, for programs.
    word: &'static str,
    /// What it means.
    meaning: &'static str,
    /// What to do about it.
    remedy: &'static str,
}

impl Kind {
    fn text(self) -> Text {
        let (word, meaning, remedy) = match self {
            Kind::Temporary => (
                "temporary",
                "a mount that was killed left it",
                "--repair removes it, and so does the next mount",
            ),
            Kind::Volatile => (
                "volatile",
                "it was last mounted volatile, without syncing: after a crash files may be torn",
                "throw the upper away; if the machine has not crashed since, remove this directory",
            ),
            Kind::HalfSettled => (
                "half-settled",
                "plyfs settle was interrupted while it moved the marks to the other namespace",
                "run it again before anything mounts the upper",
            ),
            Kind::Whiteout => (
                "whiteout",
                "nothing below has that name, so it hides nothing",
                "--repair removes it",
            ),
            Kind::StaleX => (
                "stale-x",
                "it announces whiteouts in the form of xattrs, and there is none",
                "--repair removes it",
            ),
            Kind::StrayWhiteout => (
                "stray-whiteout",
                "its directory does not announce whiteouts in the form of xattrs, so it is none",
                "--repair removes the xattr and keeps the file",
            ),
            Kind::BadRedirect => (
                "bad-redirect",
                "neither a name nor an absolute path of names, so it is not followed",
                "remove the xattr with setfattr -x, or put the right path into it",
            ),
            Kind::DanglingRedirect => (
                "dangling-redirect",
                "no layer below has a directory there, so what came from below is missing",
                "name the lower layers that the upper was made with",
            ),
            Kind::BadOrigin => (
                "bad-origin",
                "not in overlayfs's format, so it tells nothing",
                "--repair removes it",
            ),
            Kind::DanglingOrigin => (
                "dangling-origin",
                "the lower file that it came from is gone, so its inode number is not kept",
                "name the lower layers that the upper was made with; it does no other harm",
            ),
            Kind::FarOrigins => (
                "far-origins",
                "no lower layer is on the filesystem that they name, so inode numbers are not kept",
                "name the lower layers that the upper was made with; if those were copied to \
                 another filesystem, it does no other harm",
            ),
            Kind::Impure => (
                "impure",
                "an entry in it has an origin, so that overlayfs lists it with another inode number than \
                 stat tells",
                "--repair sets it",
            ),
            Kind::Metacopy => (
                "metacopy",
                "no layer below has the file that its data are in, so it cannot be read",
                "name the lower layers that the upper was made with",
            ),
            Kind::IndexName => (
                "index-name",
                "its name is no origin, so no file is found through it",
                "look at what it holds, and remove it",
            ),
            Kind::IndexOrigin => (
                "index-origin",
                "the origin of the file is not the one that it is filed under, so hard links may \
                 show the wrong file",
                "look at what it holds, and remove it",
            ),
            Kind::IndexUnused => (
                "index-unused",
                "its file has no name any more and only takes room",
                "--repair removes it",
            ),
            Kind::IndexUnsettled => (
                "index-unsettled",
                "a mount was killed while it gave the file a name",
                "--repair mends it where the lower file is at hand, and so does the first look at \
                 it in a mount",
            ),
            Kind::IndexCount => (
                "index-count",
                "so st_nlink of the file is wrong",
                "set the xattr overlay.nlink to U-1 if all its names are in the upper",
            ),
            Kind::StrayCount => (
                "stray-count",
                "the file is not in the index, so st_nlink is wrong",
                "--repair removes it",
            ),
            Kind::OtherMount => (
                "other-mount",
                "this kind of mount does not believe marks in that namespace, so nothing else was \
                 looked at",
                "give the options that the upper is mounted with: -o userxattr if plyfs run or a \
                 mount without root made it",
            ),
            Kind::Unbelieved => (
                "unbelieved",
                "this kind of mount does not believe marks in that namespace",
                "plyfs settle drops it",
            ),
            Kind::FuseOverlayfs => (
                "fuse-overlayfs",
                "a mark of fuse-overlayfs, which overlayfs does not read",
                "plyfs settle turns it into overlayfs's own",
            ),
            Kind::MarkName => (
                "mark-name",
                "an ordinary name with marks=overlay, a mark to other programs",
                "rename it, or leave marks=overlay out",
            ),
        };
        Text {
            word,
            meaning,
            remedy,
        }
    }

    /// One word, for programs.
    pub fn word(self) -> &'static str {
        self.text().word
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: Shown,
    /// What kind of thing.
    pub kind: Kind,
    /// What it is in this case.
    pub what: String,
    /// What was done about it; nothing if it is still there.
    pub mended: Option<&'static str>,
}

impl Finding {
    /// What it means.
    pub fn meaning(&self) -> &'static str {
        self.kind.text().meaning
    }

    /// What to do, or what was done.
    pub fn remedy(&self) -> &'static str {
        self.mended.unwrap_or(self.kind.text().remedy)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (meaning, remedy) = (self.meaning(), self.remedy());
        write!(f, "{}: {}: {meaning}; {remedy}", self.path, self.what)
    }
}
