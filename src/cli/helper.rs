//! The form of mount(8) helpers and container engines:
//! `plyfs [SOURCE] MNT -o WORDS [-f] [-d]`, in any order.
//!
//! It is forgiving where the verbs are strict: engines pass words of other programs on,
//! and rely on one line of warning and a mount.

use super::{logging, mount, say};
use crate::config::options::split_words;
use crate::config::plan::{Complete, MountFlags, Redirects};
use crate::config::request::{Applied, Request};
use crate::error::{MountError, best_effort};
use crate::sys::creds::effective_ids;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// What the arguments said.
#[derive(Debug, Default)]
struct Parsed {
    lists: Vec<OsString>,
    places: Vec<OsString>,
    foreground: bool,
    debug: bool,
    version: bool,
    help: bool,
    log_file: Option<PathBuf>,
    unknown: Vec<String>,
}

const HELP: &str = "\
Usage: plyfs [SOURCE] MNT -o lowerdir=DIR[:DIR...][,upperdir=DIR,workdir=DIR][,WORD...]

  -o WORDS         options, separated by commas; may be repeated
  -f               stay in the foreground
  -d               stay in the foreground and log everything
  --log-file FILE  write the log to this file
  -V, --version    print the version

plyfs --help shows the verbs: mount, umount, run, stat, events, check, settle.
";

fn needs_value(name: &str, example: &str) -> MountError {
    MountError::new(
        format_args!("option {name}"),
        "needs a value",
        format_args!("write {name} {example}"),
    )
}

fn parse(args: &[OsString]) -> Result<Parsed, MountError> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    let mut only_places = false;
    while let Some(arg) = rest.next() {
        let bytes = arg.as_bytes();
        if only_places || !bytes.starts_with(b"-") || bytes == b"-" {
            parsed.places.push(arg.clone());
            continue;
        }
        match bytes {
            b"--" => only_places = true,
            b"-o" => {
                let list = rest.next().ok_or_else(|| needs_value("-o", "WORDS"))?;
                parsed.lists.push(list.clone());
            }
            b"--log-file" => {
                let file = rest
                    .next()
                    .ok_or_else(|| needs_value("--log-file", "FILE"))?;
                parsed.log_file = Some(file.into());
            }
            b"-f" | b"--foreground" => parsed.foreground = true,
            b"-d" | b"--debug" => (parsed.debug, parsed.foreground) = (true, true),
            b"-V" | b"--version" => parsed.version = true,
            b"-h" | b"--help" => parsed.help = true,
            b"-r" => parsed.lists.push("ro".into()),
            b"-w" => parsed.lists.push("rw".into()),
            // What mount(8) passes to helpers: no mtab, sloppy, verbose.
            b"-n" | b"-s" | b"-v" => {}
            _ => match (
                bytes.strip_prefix(b"-o"),
                bytes.strip_prefix(b"--log-file="),
            ) {
                (Some(list), _) => parsed.lists.push(OsStr::from_bytes(list).to_owned()),
                (_, Some(file)) => parsed.log_file = Some(OsStr::from_bytes(file).into()),
                _ => parsed.unknown.push(arg.to_string_lossy().into_owned()),
            },
        }
    }
    Ok(parsed)
}

/// The request that the arguments make; what is not understood is told and passed over.
fn request(parsed: &mut Parsed) -> Result<Request, MountError> {
    let mut request = Request {
        lowers_required: true,
        // The uppers of engines are read by others as they are: podman mounts its store with
        // the kernel's overlayfs or with fuse-overlayfs as soon as it is told to.
        redirects: Redirects::Off,
        // So that there is seldom anything left when the union is unmounted.
        complete: Complete::Now,
        debug: parsed.debug,
        flags: MountFlags {
            // Root, also of a user namespace, runs what is setuid in an image, as on overlayfs.
            suid: effective_ids().0 == 0,
            ..MountFlags::default()
        },
        ..Request::default()
    };
    let mut says_redirects = false;
    for list in &parsed.lists {
        for word in split_words(list) {
            says_redirects |= word.name == "redirect_dir";
            if request.apply(&word)? == Applied::Unknown {
                parsed.unknown.push(word.as_written());
            }
        }
    }
    // metacopy=on, which distributions have in containers-storage.conf, brings redirects with
    // it as overlayfs has it.
    if request.metacopy == Some(true) && !says_redirects {
        request.redirects = Redirects::On;
    }
    // The last is the mount point; the one before it, the source, says nothing here.
    match parsed.places.as_slice() {
        [] => {}
        [point] | [_, point] => request.mount_point = Some(point.into()),
        [_, _, extra, ..] => {
            return Err(MountError::new(
                format_args!("argument {}", extra.to_string_lossy()),
                "one too many",
                "give a mount point, or a source and a mount point; quote spaces",
            ));
        }
    }
    Ok(request)
}

/// Runs the helper form.
///
/// # Errors
/// Whatever stands against the mount.
pub fn run(args: &[OsString]) -> Result<ExitCode, MountError> {
    let mut parsed = parse(args)?;
    if parsed.version || parsed.help {
        let text = if parsed.version {
            format!("plyfs {}\n", env!("CARGO_PKG_VERSION"))
        } else {
            HELP.to_owned()
        };
        best_effort(
            "write to stdout",
            std::io::stdout().write_all(text.as_bytes()),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let request = request(&mut parsed)?;
    logging::start(parsed.log_file.as_deref(), request.debug)?;
    for unknown in &parsed.unknown {
        say(&format!("unknown argument ignored: {unknown}"));
    }
    mount::mount(request, parsed.foreground)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Durability;
    use std::path::Path;

    fn ask(args: &[&str]) -> Result<(Request, Parsed), MountError> {
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let mut parsed = parse(&args)?;
        let request = request(&mut parsed)?;
        Ok((request, parsed))
    }

    #[test]
    fn podman_is_understood() {
        let list = "lowerdir=/o/l/A:/o/l/B,upperdir=/o/ID/diff,workdir=/o/ID/work,,volatile";
        let (request, parsed) = ask(&["-o", list, "/o/ID/merged"]).expect("understood");
        assert_eq!(request.lowers.len(), 2);
        assert!(request.durability == Durability::Volatile && parsed.unknown.is_empty());
        assert_eq!(
            request.mount_point.as_deref(),
            Some(Path::new("/o/ID/merged"))
        );
    }

    #[test]
    fn an_upper_can_be_read_by_others_unless_told_otherwise() {
        let (request, _) = ask(&["-o", "lowerdir=/a", "/m"]).expect("understood");
        assert!(request.redirects == Redirects::Off);
        let list = "redirect_dir=on,lowerdir=/a";
        let (request, _) = ask(&["-o", list, "/m"]).expect("understood");
        assert!(request.redirects == Redirects::On);
    }

    #[test]
    fn what_other_programs_cannot_read_is_written_on_request_alone() {
        for (words, redirects, metacopy) in [
            ("lowerdir=/a", Redirects::Off, false),
            (
                "lowerdir=/a,redirect_dir=on,metacopy=off",
                Redirects::On,
                false,
            ),
            ("lowerdir=/a,nodev,metacopy=on", Redirects::On, true),
            (
                "metacopy=on,redirect_dir=on,lowerdir=/a",
                Redirects::On,
                true,
            ),
            ("lowerdir=/a,metacopy=off", Redirects::Off, false),
        ] {
            let (request, _) = ask(&["-o", words, "/m"]).expect("understood");
            let got = (request.redirects, request.spares_data());
            assert_eq!(got, (redirects, metacopy), "{words}");
        }
    }

    #[test]
    fn a_source_is_ignored_and_the_last_place_is_the_mount_point() {
        let (request, _) =
            ask(&["overlay", "/m", "-o", "lowerdir=/a,dev,suid"]).expect("understood");
        assert_eq!(request.mount_point.as_deref(), Some(Path::new("/m")));
        assert!(request.flags.dev && request.flags.suid);
    }

    #[test]
    fn the_mount_point_may_stand_first_and_words_may_be_glued() {
        let (request, parsed) =
            ask(&["/m", "-f", "-olowerdir=/a", "-o", "ro", "-d"]).expect("understood");
        assert_eq!(request.lowers, [Path::new("/a")]);
        assert!(request.flags.read_only && request.debug && parsed.foreground);
    }

    #[test]
    fn unknown_words_are_collected_and_the_rest_is_heeded() {
        let (request, parsed) =
            ask(&["-o", "private,lowerdir=/a,lazytime,k=v", "-x", "/m"]).expect("understood");
        assert_eq!(parsed.unknown, ["-x", "private", "lazytime", "k=v"]);
        assert_eq!(request.lowers, [Path::new("/a")]);
    }

    #[test]
    fn fstab_words_say_nothing() {
        let words = "rw,user,noauto,_netdev,nofail,x-systemd.automount,lowerdir=/a";
        let (_, parsed) = ask(&["-o", words, "/m"]).expect("understood");
        assert!(parsed.unknown.is_empty());
    }

    #[test]
    fn a_list_that_is_missing_and_a_third_place_are_refused() {
        let missing = ask(&["/m", "-o"]).expect_err("no list");
        assert_eq!(
            missing.to_string(),
            "option -o: needs a value; write -o WORDS"
        );
        let extra = ask(&["a", "b", "c"]).expect_err("three places");
        assert!(extra.to_string().starts_with("argument c: one too many"));
    }

    #[test]
    fn what_follows_two_dashes_is_a_place() {
        let (request, _) = ask(&["-olowerdir=/a", "--", "-m"]).expect("understood");
        assert_eq!(request.mount_point.as_deref(), Some(Path::new("-m")));
    }
}
