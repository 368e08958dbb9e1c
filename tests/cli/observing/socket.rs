//! The control socket: where it is, whom it answers, when it goes.

use super::{Observed, lines};
use crate::support::mount::run;
use crate::support::{skip, sys};
use crate::tools::LIMIT;
use crate::tools::{Stage, USER, await_that, can_play_user, has_ended, send, stderr, stdout, told};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::Command;

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_daemon() {
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    let (minor, _) = observed.0.mounted("mnt").expect("mounted");
    let name = format!("{minor}.sock");
    assert_eq!(observed.sockets(), std::slice::from_ref(&name));
    assert_eq!(observed.mode("run/plyfs"), 0o700);
    assert_eq!(observed.mode(&format!("run/plyfs/{name}")), 0o600);
    observed.unmount();
    assert!(observed.sockets().is_empty());
    observed.mount(&[]);
    send(observed.0.daemon("mnt"), libc::SIGTERM);
    await_that("the socket is gone", || observed.sockets().is_empty());
    await_that("the mount is gone", || observed.0.mounted("mnt").is_none());
}

#[test]
fn the_socket_of_a_daemon_that_was_killed_is_swept_by_the_next() {
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    let pid = observed.0.daemon("mnt");
    send(pid, libc::SIGKILL);
    await_that("the daemon ends", || has_ended(pid));
    let out = observed.call(&["stat", "mnt"]);
    assert_eq!(
        stderr(&out),
        "plyfs: mount point mnt: it has lost its daemon; unmount it: fusermount3 -u, or umount\n"
    );
    assert_eq!((out.status.code(), observed.sockets().len()), (Some(1), 1));
    // Another one that nobody listens on, and which no new mount will take the place of.
    let dead = observed.path("run/plyfs/4000000000.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    observed.unmount();
    observed.mount(&[]);
    assert_eq!(observed.sockets().len(), 1);
    assert!(!dead.exists());
    observed.unmount();
}

/// Connects as an ordinary user, and gives back what was answered.
fn ask_as_user(path: &std::path::Path, request: &str) -> String {
    let (path, request) = (path.to_owned(), request.to_owned());
    let asking = std::thread::spawn(move || {
        sys::become_user(USER, USER, &[]).expect("root may");
        let mut stream = UnixStream::connect(path).expect("a connection");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    });
    asking.join().expect("the thread ends well")
}

#[test]
fn nobody_but_the_owner_and_root_is_answered() {
    if !can_play_user() || !skip::has_tool("fusermount3") {
        return;
    }
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    let mut stat = observed.0.plyfs_as_user(&["stat", "mnt"]);
    let out = run(&mut stat, LIMIT).expect("it ends in time");
    assert_eq!(
        (stderr(&out), out.status.code()),
        (
            "plyfs: mount point mnt: uid 0 mounted it, and nobody else is answered; ask as that \
             user, or as root\n"
                .to_owned(),
            Some(1)
        )
    );
    // Not even where somebody has opened the doors.
    let socket = observed.path("run/plyfs").join(&observed.sockets()[0]);
    for (path, mode) in [("run", 0o755), ("run/plyfs", 0o755)] {
        observed.0.chmod(path, mode);
    }
    observed
        .0
        .chmod(&format!("run/plyfs/{}", observed.sockets()[0]), 0o777);
    for request in ["stat\n", "prometheus\n", "follow 0\n"] {
        let answer = ask_as_user(&socket, request);
        assert_eq!(answer, "refused: this mount belongs to another user\n");
    }
    observed.unmount();
}

#[test]
fn root_is_answered_for_the_mount_of_an_ordinary_user() {
    if !can_play_user() || !skip::has_tool("fusermount3") || !sys::is_root() {
        return;
    }
    let stage = Stage::new();
    for dir in ["up", "work", "mnt", "low/one"] {
        stage.give(dir);
    }
    let mount = [
        "mount", "--lower", "low", "--upper", "up", "--work", "work", "mnt",
    ];
    let out = run(&mut stage.plyfs_as_user(&mount), LIMIT).expect("it ends in time");
    assert!(
        out.status.success() && out.stderr.is_empty(),
        "{}",
        told(&out)
    );
    let own = run(&mut stage.plyfs_as_user(&["stat", "--json", "mnt"]), LIMIT).expect("in time");
    assert!(own.status.success(), "{}", told(&own));
    let roots = stage.call(&["stat", "--json", "mnt"]);
    assert!(roots.status.success(), "{}", told(&roots));
    let mut umount = stage.plyfs_as_user(&["umount", "mnt"]);
    let out = run(&mut umount, LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", told(&out));
}

#[test]
fn what_does_not_read_or_does_not_ask_holds_up_nobody() {
    let Some(observed) = Observed::new() else {
        return;
    };
    for i in 0..3000 {
        observed
            .0
            .write(&format!("low/in/{}{i}", "n".repeat(200)), "x");
    }
    observed.mount(&["-o", "volatile"]);
    let socket = observed.path("run/plyfs").join(&observed.sockets()[0]);
    let memory = || {
        observed.stat()["memory"]["resident_bytes"]
            .as_u64()
            .expect("a number")
    };
    let before = memory();
    let connect = || UnixStream::connect(&socket).expect("a connection");
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut stream = connect();
        stream.write_all(b"follow 0\n").expect("a request");
        silent.push(stream);
        silent.push(connect());
    }
    observed.shell("cd mnt/in; ls | xargs rm");
    let grown = memory().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    assert_eq!(observed.events().len(), 3000);
    for junk in [
        "\n",
        "nonsense\n",
        "events x\n",
        "follow\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = connect();
        stream.write_all(junk.as_bytes()).expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let good = match junk {
            "\n" => text.is_empty(),
            "GET / HTTP/1.1\r\n\r\n" => text.starts_with("HTTP/1.0 200 OK\r\n"),
            _ => text.starts_with("refused: no such "),
        };
        assert!(good, "{junk:?}: {text:?}");
    }
    // The mount ends though some still have not read.
    observed.unmount();
    assert!(observed.sockets().is_empty());
}

#[test]
fn nothing_is_told_where_nothing_is_counted() {
    let Some(observed) = Observed::mounted(&["-o", "observe=off"]) else {
        return;
    };
    assert!(observed.sockets().is_empty());
    for verb in ["stat", "events"] {
        let out = observed.call(&[verb, "mnt"]);
        assert_eq!(
            stderr(&out),
            "plyfs: mount point mnt: its daemon has no control socket; mount it without \
             observe=off; its log (--log-file) says more\n"
        );
        assert_eq!(out.status.code(), Some(1), "{verb}");
    }
    observed.unmount();
}

#[test]
fn a_runtime_directory_that_is_not_private_is_passed_over() {
    let Some(observed) = Observed::new() else {
        return;
    };
    observed.0.scratch.dir("elsewhere");
    symlink("../elsewhere", observed.path("run/plyfs")).expect("symlink");
    observed.mount(&[]);
    let elsewhere = || {
        fs::read_dir(observed.path("elsewhere"))
            .expect("a directory")
            .count()
    };
    assert_eq!(elsewhere(), 0, "a symlink was followed");
    // It is found in the place that comes next.
    assert!(observed.stat()["pid"].is_u64());
    observed.unmount();
    fs::remove_file(observed.path("run/plyfs")).expect("unlink");
    observed.0.chmod("run", 0o755);
    observed.mount(&[]);
    assert!(!observed.path("run/plyfs").exists(), "it is open to others");
    assert!(observed.stat()["pid"].is_u64());
    observed.unmount();
}

#[test]
fn a_mount_without_a_place_for_its_socket_is_a_mount() {
    let Some(observed) = Observed::new() else {
        return;
    };
    if !skip::has_tool("unshare") {
        return;
    }
    let dir = observed.0.scratch.path().display().to_string();
    // Where the test itself lies in /tmp, that stays; then /tmp has a file in the way.
    let script = format!(
        "mount -t tmpfs -o ro none /run
         mkdir empty; mount --bind empty empty; mount -o remount,bind,ro empty
         case {dir} in /tmp/*) ;; *) mount --bind empty /tmp ;; esac
         $P -o lowerdir=low,upperdir=up,workdir=work mnt --log-file log
         cat mnt/one; $P umount mnt; umount empty; rmdir empty"
    );
    let mut command = observed.0.in_own_mounts(&script);
    command.env_remove("XDG_RUNTIME_DIR");
    let out = run(&mut command, LIMIT).expect("it ends in time");
    assert_eq!(
        (stdout(&out), stderr(&out)),
        ("1".to_owned(), String::new()),
        "{}",
        told(&out)
    );
    let log = observed.0.read("log");
    assert!(
        dir.starts_with("/tmp/") || log.contains("no control socket"),
        "{log}"
    );
}

#[test]
fn the_helper_form_says_nothing_of_it() {
    let Some(observed) = Observed::new() else {
        return;
    };
    let words = "lowerdir=low:low2,upperdir=up,workdir=work";
    let out = observed.call(&["-o", words, "mnt"]);
    assert!(out.status.success(), "{}", told(&out));
    assert_eq!(out.stdout.len() + out.stderr.len(), 0, "{}", told(&out));
    assert_eq!(observed.sockets().len(), 1);
    observed.unmount();
}

/// A process whose command line has `word` as its last argument.
fn process_with(word: &str) -> Option<u32> {
    let wanted = format!("{word}\0");
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = numbers.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with("sleep\0") && line.ends_with(&wanted))
    });
    found.next()
}

#[test]
fn a_union_of_plyfs_run_is_found_by_a_process_inside() {
    let Some(observed) = Observed::new() else {
        return;
    };
    let word = format!("{}.5", 100_000 + std::process::id());
    let script = format!("echo x >> /etc/hostname; exec sleep {word}");
    let args = [
        "run",
        "--lower",
        "/",
        "--discard",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let mut running = observed.plyfs(&args).spawn().expect("plyfs starts");
    let mut inside = None;
    await_that("the command runs", || {
        inside = process_with(&word);
        inside.is_some()
    });
    let pid = inside.expect("found");
    let root = format!("/proc/{pid}/root");
    let out = observed.call(&["stat", "--json", &root]);
    let events = observed.call(&["events", "--no-follow", &root]);
    send(pid, libc::SIGKILL);
    running.wait().expect("it ends");
    assert!(out.status.success(), "{}", told(&out));
    assert!(events.status.success(), "{}", told(&events));
    let paths: Vec<_> = lines(&stdout(&events))
        .iter()
        .map(|e| e["path"].to_string())
        .collect();
    assert!(paths.contains(&"\"etc/hostname\"".to_owned()), "{paths:?}");
}

#[test]
fn umount_waits_till_partly_copied_files_are_whole_and_says_so_on_a_terminal() {
    if !skip::has_tool("script") {
        return;
    }
    let Some(observed) = Observed::new() else {
        return;
    };
    let size = 400 << 20;
    let big = fs::File::create(observed.path("low/big")).expect("a lower file");
    let data = vec![7; 1 << 20];
    for at in (0..size).step_by(data.len()) {
        big.write_all_at(&data, at as u64).expect("write");
    }
    observed.mount(&["-o", "complete=unmount"]);
    observed.shell("printf x | dd of=mnt/big bs=1 seek=5 conv=notrunc status=none");
    let partly = observed.stat()["partly_copied"].clone();
    assert_eq!(partly["files"], 1, "{partly}");
    assert_eq!(partly["missing_bytes"], size - 4096, "{partly}");
    let line = observed.plyfs(&["umount", "mnt"]);
    let words: Vec<_> = std::iter::once(line.get_program())
        .chain(line.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]);
    observed.0.tidy(&mut script);
    script.env("XDG_RUNTIME_DIR", observed.path("run"));
    let out = run(&mut script, LIMIT).expect("script ends");
    assert!(out.status.success(), "{}", told(&out));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("1 files lack"), "{said:?}");
    assert!(
        said.contains("unmounted, and all files are whole"),
        "{said:?}"
    );
    let real = fs::metadata(observed.path("up/big")).expect("it is there");
    assert!(
        real.blocks() * 512 >= size as u64,
        "{} blocks {said:?}",
        real.blocks()
    );
}

#[test]
fn who_asks_what_files_lack_goes_on_when_the_name_is_another_mounts() {
    let Some(observed) = Observed::new() else {
        return;
    };
    observed.0.write("low/big", &"7".repeat(1 << 20));
    observed.mount(&["-o", "complete=off"]);
    observed.shell("printf x | dd of=mnt/big bs=1 seek=5 conv=notrunc status=none");
    let socket = observed.path("run/plyfs").join(&observed.sockets()[0]);
    let mut stream = UnixStream::connect(&socket).expect("a connection");
    let mut ask = || {
        stream.write_all(b"left\n").expect("a request");
        let mut room = [0; 64];
        let n = stream.read(&mut room).expect("an answer");
        String::from_utf8_lossy(&room[..n]).into_owned()
    };
    let lack = (1 << 20) - 4096;
    assert_eq!(ask(), format!("1 {lack}\n"));
    fs::remove_file(socket).expect("it is there");
    assert_eq!(ask(), format!("1 {lack}\n"));
    observed.shell("rm mnt/big");
    assert_eq!(ask(), "0 0\n");
    // It holds up nobody.
    observed.unmount();
}
