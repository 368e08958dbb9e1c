//! Man pages and shell completions, made from the grammar of the command line.

use super::args::{Cli, CompletionsArgs, ManArgs};
use crate::bench::data::Sizes;
use crate::bench::workloads;
use crate::config::options::{Effect, Takes, WORDS};
use crate::config::owners::OwnerWord;
use crate::error::MountError;
use crate::error::plain;
use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io::{self, Write};
use std::path::Path;

fn not_written(what: &Path, e: &io::Error) -> MountError {
    MountError::new(
        what.display(),
        plain(e),
        "choose a place that can be written",
    )
}

/// Writes the man pages: all of them into a directory, or the main one to stdout.
///
/// # Errors
/// Where they cannot be written.
pub fn man(args: &ManArgs) -> Result<(), MountError> {
    let Some(out) = &args.out else {
        let page = main_page().map_err(|e| not_written(Path::new("stdout"), &e))?;
        return to_stdout(&page);
    };
    std::fs::create_dir_all(out).map_err(|e| not_written(out, &e))?;
    for (name, page) in pages().map_err(|e| not_written(out, &e))? {
        let path = out.join(name);
        std::fs::write(&path, page).map_err(|e| not_written(&path, &e))?;
    }
    Ok(())
}

/// Writes the completions of one shell to stdout.
///
/// # Errors
/// Where they cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<(), MountError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "plyfs", &mut script);
    to_stdout(&script)
}

fn to_stdout(bytes: &[u8]) -> Result<(), MountError> {
    let mut out = io::stdout();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|e| not_written(Path::new("stdout"), &e))
}

fn main_page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(page)
}

/// Every page with its file name: plyfs.1 and one for each verb that is not hidden.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = vec![("plyfs.1".to_owned(), main_page()?)];
    let mut command = Cli::command();
    command.build();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        if verb.get_name() == "help" {
            continue;
        }
        let name = format!("plyfs-{}", verb.get_name());
        let title: &'static str = Box::leak(name.clone().into_boxed_str());
        let mut page = Vec::new();
        Man::new(verb.clone().name(title)).render(&mut page)?;
        if verb.get_name() == "mount" {
            options_section().to_writer(&mut page)?;
            file_section().to_writer(&mut page)?;
        }
        if verb.get_name() == "stat" {
            table_section("FIGURES", &FIGURES).to_writer(&mut page)?;
        }
        if verb.get_name() == "events" {
            table_section("FIELDS", &FIELDS).to_writer(&mut page)?;
            table_section("EVENTS", &EVENTS).to_writer(&mut page)?;
        }
        if verb.get_name() == "bench" {
            workloads_section().to_writer(&mut page)?;
        }
        pages.push((format!("{name}.1"), page));
    }
    Ok(pages)
}

/// What `plyfs stat` tells.
const FIGURES: [(&str, &str); 8] = [
    (
        "requests",
        "By kind: how many were answered, how many of those with an error, and the time from \
         their arrival to the answer (mean, quantiles, longest). What the kernel answers from its \
         caches is no request.",
    ),
    (
        "caches",
        "How often each was asked, and had what was wanted: absent names that a known listing \
         tells, listings, descriptors of directories and of files.",
    ),
    (
        "copyups",
        "By cause: of metadata alone (and of directories), of the data that follows later, of \
         whole files; those that failed; bytes and time.",
    ),
    (
        "marks",
        "Whiteouts, opaque marks and redirects that were written; whiteouts that went; lower \
         files that were covered by a rename.",
    ),
    ("events", "How many were written, dropped, and are kept."),
    ("nodes", "The files that the kernel knows."),
    (
        "descriptors",
        "Open ones of the daemon, and how many there may be.",
    ),
    (
        "memory",
        "Resident now and at most; for each node, what the daemon has grown by.",
    ),
];

/// The fields of a line of `plyfs events`.
const FIELDS: [(&str, &str); 8] = [
    ("number, time", "From 1; seconds since 1970."),
    ("event", "See below."),
    (
        "part, type",
        "Of a copy-up: meta, data or whole; the type of the file.",
    ),
    (
        "path, target",
        "From the root of the union; where a redirect leads. Bytes that are not UTF-8 are \
         replaced, and path_hex or target_hex has them all in hexadecimal.",
    ),
    (
        "cause",
        "What was done: write, mmap, truncate, chmod, chown, utimens, setxattr, link, rename, \
         unlink, create and so on.",
    ),
    (
        "pid, command",
        "The thread that did it, and its name; null where nobody knows.",
    ),
    (
        "bytes, reflink",
        "Data that was copied, or is shared with the lower file.",
    ),
    ("microseconds", "How long the copy-up took."),
];

/// The events.
const EVENTS: [(&str, &str); 7] = [
    ("copyup", "Something of a lower layer came to the upper."),
    ("whiteout", "A name is hidden."),
    (
        "whiteout_gone",
        "Something new took the place of a whiteout.",
    ),
    (
        "covered",
        "What was moved there hides a lower file, of which nothing was copied.",
    ),
    ("opaque", "A directory hides what is below it."),
    (
        "redirect",
        "A directory or file notes where its lower content lies.",
    ),
    (
        "lost",
        "So many events (count) came and went before they were asked for.",
    ),
];

/// A section of words and what they mean.
fn table_section(title: &str, rows: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (word, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(*word)]);
        roff.text([roman(*meaning)]);
    }
    roff
}

/// What a word does, in a few words.
fn meaning(effect: Effect) -> &'static str {
    match effect {
        Effect::Lower => {
            "The lower layers, topmost first, separated by colons; after two colons, layers \
             that only give their data to files which redirect to it."
        }
        Effect::DataMore => "One more such data-only layer.",
        Effect::LowerMore => "One more lower layer, below the others.",
        Effect::Upper => "The upper layer.",
        Effect::Work => "The upper's scratch directory.",
        Effect::Timeout => "How long the kernel may cache; for ever if it is not given.",
        Effect::Marks => "The formats of whiteouts and opaque marks.",
        Effect::UserXattr => "Write marks in user.overlay xattrs.",
        Effect::Uuid => {
            "off lets the UUID of the layers' filesystem change between mounts; null, auto and \
             on are the same here, for FUSE shows no identity of a filesystem; auto."
        }
        Effect::Index => "Whether hard links stay whole across copy-up; on.",
        Effect::Redirect => {
            "Whether directories with lower content are renamed by a redirect, and whether \
             redirects in layers are followed; on."
        }
        Effect::Metacopy => {
            "Whether a change of owner, mode, times or xattrs leaves the data in the lower \
             layer; on where redirects are."
        }
        Effect::Partial => {
            "From which size on (64M, 1G, …) a change of a lower file copies only the blocks \
             that it changes; 256K, and off with metacopy=off."
        }
        Effect::Complete => {
            "When such files get the rest of their data: while nothing else is asked for, now, so \
             many bytes a second, at the end, or not by themselves; idle, and now in the form \
             of a mount helper."
        }
        Effect::CopyUp => {
            "What copies a file to the upper: its first change, or, as with overlayfs, opening \
             it for writing; write."
        }
        Effect::Durability => {
            "What is on the disk when: auto, copied-up files are never empty or torn after a \
             power cut; strict, every change of names or attributes when it is answered; \
             volatile, nothing; auto."
        }
        Effect::Volatile => "As durability=volatile: after a crash the upper is thrown away.",
        Effect::Fsync => {
            "As durability, the way overlayfs calls it; with 0, what programs ask fsync for is \
             not done."
        }
        Effect::Owners(OwnerWord::Uids | OwnerWord::Gids) => {
            "Which ids of the layers (inside) are shown as which (outside); others are shown as \
             nobody, and cannot be set. Layers on an idmapped mount are not mapped again."
        }
        Effect::Owners(OwnerWord::SquashRoot) => "All owners are shown as root.",
        Effect::Owners(OwnerWord::SquashUid) => "All files are shown as this user's.",
        Effect::Owners(OwnerWord::SquashGid) => "All files are shown as this group's.",
        Effect::Owners(OwnerWord::Kept) => {
            "Where owners, modes and types of files are kept: 0, in the inodes; 1, in the xattr \
             security.fuseoverlayfs.override_stat; 2, in user.containers.override_stat. With 1 \
             and 2 files belong to the daemon on disk, and there are no ACLs."
        }
        Effect::NoXattrs => "Programs see and set no xattrs.",
        Effect::NoAcl => "Programs see and set no ACLs.",
        Effect::StaticNlink => "Every directory has one link.",
        Effect::Context => "The SELinux label of all files, where there is SELinux.",
        Effect::Threaded => "With 0, one thread serves requests.",
        Effect::Sync => "As durability=strict, and every write is on the disk when it returns.",
        Effect::Async => "The opposite of sync.",
        Effect::Io => {
            "Whether data goes through the kernel's page cache by requests, or, with \
             CAP_SYS_ADMIN, straight between the kernel and the files of the upper; cached."
        }
        Effect::MaxWrite => "The largest write request, bytes.",
        Effect::Threads => "How many threads serve requests; 2.",
        Effect::Observe => "Whether the mount counts what it does, for plyfs stat and events; on.",
        Effect::Metrics => "A file that the figures are written to, as Prometheus reads them.",
        Effect::MetricsInterval => "How often that is written, seconds; 15, and at the end.",
        Effect::Flag(_) => "As for mount(8) and fuse(4).",
        Effect::FsName => "The source's name in /proc/mounts.",
        Effect::Subtype => "What follows \"fuse.\" in /proc/mounts.",
        Effect::Debug => "Log everything.",
        Effect::NoEffect => {
            "Of other programs: accepted, and there is nothing here that it could change."
        }
        Effect::Fstab => "For mount(8); ignored.",
    }
}

fn options_section() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["OPTION WORDS"]);
    for (name, takes, effect) in WORDS {
        let word = match takes {
            Takes::Value(example) => format!("{name}={example}"),
            _ => (*name).to_owned(),
        };
        roff.control("TP", []);
        roff.text([bold(word)]);
        roff.text([roman(meaning(*effect))]);
    }
    roff
}

fn file_section() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["FILE"]);
    roff.text([roman(
        "Paths are relative to the file's directory; flags on the command line win.",
    )]);
    roff.control("nf", []);
    for line in [
        "layers = [\"/srv/app\", \"/srv/base\"]",
        "upper = \"changes\"",
        "work = \"changes.work\"",
        "options = [\"noexec\", \"timeout=1.5\"]",
    ] {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff
}

fn workloads_section() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["WORKLOADS"]);
    for workload in workloads::all(&Sizes::new(1.0)) {
        roff.control("TP", []);
        roff.text([bold(workload.name)]);
        roff.text([roman(workload.title)]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_and_every_word_stands_in_it() {
        let pages = pages().expect("pages");
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "plyfs.1",
                "plyfs-mount.1",
                "plyfs-umount.1",
                "plyfs-run.1",
                "plyfs-stat.1",
                "plyfs-events.1",
                "plyfs-check.1",
                "plyfs-settle.1",
                "plyfs-bench.1"
            ]
        );
        let page = |name: &str| {
            let found = pages.iter().find(|(page, _)| page == name);
            let (_, text) = found.expect("there is such a page");
            String::from_utf8_lossy(text).replace("\\-", "-")
        };
        let mount = page("plyfs-mount.1");
        let events = page("plyfs-events.1");
        for mark in crate::observe::Mark::ALL {
            assert!(events.contains(mark.name()), "{}", mark.name());
        }
        for (name, ..) in WORDS {
            assert!(mount.contains(name), "{name}");
        }
        let bench = page("plyfs-bench.1");
        for workload in workloads::all(&Sizes::new(1.0)) {
            assert!(bench.contains(&workload.name), "{}", workload.name);
        }
    }
}
