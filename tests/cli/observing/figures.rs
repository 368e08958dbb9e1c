//! The figures: they add up for operations that are known.

use super::Observed;
use crate::support::{skip, sys};
use crate::tools::{await_that, stdout, told};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn requests_and_copy_ups_add_up_for_known_operations() {
    let Some(observed) = Observed::new() else {
        return;
    };
    for i in 0..6 {
        observed
            .0
            .write(&format!("low/in/f{i}"), &"x".repeat(100 + i));
    }
    observed.mount(&[]);
    let at = |name: &str| observed.path(&format!("mnt/{name}"));
    for i in 0..5 {
        fs::create_dir(at(&format!("d{i}"))).expect("mkdir");
        symlink("x", at(&format!("l{i}"))).expect("symlink");
    }
    for i in 0..4 {
        fs::remove_file(at(&format!("l{i}"))).expect("unlink");
    }
    fs::remove_dir(at("d0")).expect("rmdir");
    for i in 1..4 {
        fs::rename(at(&format!("d{i}")), at(&format!("e{i}"))).expect("rename");
    }
    for i in 0..6 {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(at(&format!("in/f{i}")), mode).expect("chmod");
    }
    for i in 0..3 {
        let file = at(&format!("in/f{i}"));
        let open = sys::open(file.as_os_str().as_encoded_bytes(), libc::O_WRONLY, 0).expect("open");
        sys::pwrite(&open, b"y", 0).expect("write");
    }
    // A request is counted when its answer is out, which its caller may be quicker to read.
    await_that("the last write is counted", || {
        observed.stat()["requests"]["write"]["count"] == 3
    });
    let stat = observed.stat();
    let count = |kind: &str| stat["requests"][kind]["count"].as_u64().unwrap_or(0);
    let counts = [
        "mkdir", "symlink", "unlink", "rmdir", "rename", "setattr", "write",
    ]
    .map(count);
    assert_eq!(counts, [5, 5, 4, 1, 3, 6, 3], "{stat:#}");
    for (kind, requests) in stat["requests"].as_object().expect("an object") {
        let buckets = requests["histogram"].as_array().expect("a list");
        let sum: u64 = buckets.iter().filter_map(|b| b["count"].as_u64()).sum();
        if kind != "forget" {
            assert_eq!(Some(sum), requests["count"].as_u64(), "{kind}");
            assert!(
                requests["p50_us"].as_f64() <= requests["p99_us"].as_f64(),
                "{kind}"
            );
            assert!(
                requests["p99_us"].as_f64() <= requests["max_us"].as_f64(),
                "{kind}"
            );
        }
    }
    let copyups = &stat["copyups"];
    // The directory that they are in comes first, with the first of them.
    assert_eq!(copyups["chmod"]["meta"], 6, "{stat:#}");
    assert_eq!(copyups["write"]["data"], 3, "{stat:#}");
    assert_eq!(copyups["write"]["bytes"], 100 + 101 + 102, "{stat:#}");
    assert!(
        copyups["write"]["total_us"].as_f64() > Some(0.0),
        "{stat:#}"
    );
    assert_eq!(stat["events"]["written"], 9, "{stat:#}");
    assert!(
        stat["memory"]["resident_bytes"].as_u64() > Some(1 << 20),
        "{stat:#}"
    );
    assert!(stat["descriptors"]["files"].as_u64() >= Some(3), "{stat:#}");
    assert!(stat["nodes"].as_u64() >= Some(6), "{stat:#}");
    observed.unmount();
}

#[test]
fn caches_say_how_often_they_were_asked() {
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    let asked = || observed.stat()["caches"]["absent_names"].clone();
    for name in ["a", "b"] {
        assert!(!observed.path(&format!("mnt/in/{name}")).exists());
    }
    assert_eq!(
        (&asked()["hits"], &asked()["misses"]),
        (&0.into(), &2.into())
    );
    let listed = fs::read_dir(observed.path("mnt/in"))
        .expect("a directory")
        .count();
    assert_eq!(listed, 0);
    for name in ["d", "e"] {
        assert!(!observed.path(&format!("mnt/in/{name}")).exists());
    }
    // A known listing answers without a look.
    assert_eq!(
        (&asked()["hits"], &asked()["misses"]),
        (&2.into(), &2.into())
    );
    assert_eq!(observed.stat()["caches"]["listings"]["misses"], 1);
    observed.unmount();
}

#[test]
fn the_tables_line_up_and_name_what_is_in_the_document() {
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    observed.shell("echo more >> mnt/one; rm mnt/two");
    await_that("all is counted", || {
        observed.stat()["requests"]["unlink"]["count"] == 1
    });
    let out = observed.call(&["stat", "mnt"]);
    let text = stdout(&out);
    let row = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .to_owned()
    };
    let head = row("REQUEST");
    let ends = |line: &str| line.find("COUNT").map(|at| at + "COUNT".len()).unwrap_or(0);
    let unlink = row("unlink");
    let cell = unlink[..ends(&head)].split_whitespace().last();
    assert_eq!(cell, Some("1"), "{text}");
    assert!(text.contains("1 B"), "{text}");
    for name in [
        "CACHE",
        "COPY-UP BY",
        "nodes",
        "partly copied",
        "fetched ahead",
        "descriptors",
        "memory",
        "events",
        "marks",
    ] {
        row(name);
    }
    assert!(text.lines().all(|line| line.len() <= 90), "{text}");
    let inside = observed.call(&["stat", "--json", "mnt/one"]);
    assert!(inside.status.success(), "{}", told(&inside));
    observed.unmount();
}

#[test]
fn a_watch_shows_what_is_new_and_ends_with_the_mount() {
    let Some(observed) = Observed::mounted(&[]) else {
        return;
    };
    for (args, ended) in [
        (&["stat", "--watch", "0.1", "--json", "mnt"][..], false),
        (&["stat", "mnt", "--watch=0.1"], true),
    ] {
        let log = std::fs::File::create(observed.path("watched")).expect("a file");
        let mut child = observed
            .plyfs(args)
            .stdout(log)
            .spawn()
            .expect("plyfs starts");
        let shown = || observed.0.read("watched");
        await_that("two rounds", || match ended {
            true => shown().contains("in the last"),
            false => shown().lines().count() >= 3,
        });
        if ended {
            observed.unmount();
            assert!(child.wait().expect("it ends").success());
        } else {
            assert!(
                super::lines(&shown())
                    .iter()
                    .all(|line| line["requests"].is_object())
            );
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }
}

#[test]
fn prometheus_reads_the_file_and_the_socket() {
    let words = ["--metrics", "figures.prom", "-o", "metrics_interval=1"];
    let Some(observed) = Observed::mounted(&words) else {
        return;
    };
    await_that("the file is there", || {
        observed.path("figures.prom").exists()
    });
    observed.shell("chmod 600 mnt/one");
    let text = stdout(&observed.call(&["stat", "--prometheus", "mnt"]));
    let mount = observed.path("mnt").display().to_string();
    let sample = format!("plyfs_copyups_total{{mount=\"{mount}\",cause=\"chmod\",part=\"meta\"}} ");
    assert!(text.contains(&format!("{sample}1\n")), "{text}");
    // What comes after the last interval is in the file too, once the mount is gone.
    observed.shell("chmod 600 mnt/two");
    observed.unmount();
    let last = observed.0.read("figures.prom");
    assert!(last.contains(&format!("{sample}2\n")), "{last}");
    assert_eq!(observed.mode("figures.prom"), 0o644);
    let left: Vec<_> = fs::read_dir(observed.0.scratch.path())
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name.starts_with("figures.prom."))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_kernel_reads_files_that_stay_where_they_are_by_itself() {
    let Some(observed) = Observed::new() else {
        return;
    };
    if skip::in_user_namespace() || !sys::is_root() {
        return skip::skipped("only root of the machine may pass files through");
    }
    observed.0.write("low/file", "in the lower layer");
    let read = |name: &str| {
        let text = fs::read_to_string(observed.path(&format!("mnt/{name}"))).expect("read");
        (
            text,
            observed.stat()["requests"]["read"]["count"]
                .as_u64()
                .unwrap_or(0),
        )
    };
    observed.mount(&["-o", "io=passthrough"]);
    observed.0.write("mnt/own", "in the upper");
    let (text, requests) = read("own");
    assert_eq!(text, "in the upper");
    if requests > 0 {
        observed.unmount();
        return skip::skipped("this kernel passes no files through");
    }
    // It may be copied up while it is open.
    let (text, requests) = read("file");
    assert_eq!((text.as_str(), requests), ("in the lower layer", 1));
    observed.unmount();

    observed.shell("touch -a -d @1 low/file");
    let lowers = ["mount", "--lower", "low", "--lower", "low2"];
    let out = observed.call(&[&lowers[..], &["-o", "io=passthrough", "mnt"]].concat());
    assert!(out.status.success(), "{}", told(&out));
    let (text, requests) = read("file");
    assert_eq!((text.as_str(), requests), ("in the lower layer", 0));
    observed.unmount();
    assert_eq!(
        observed.shell("stat -c %X low/file"),
        "1\n",
        "its access time"
    );
}

#[test]
fn a_directory_that_is_asked_often_is_read_and_tells_the_rest() {
    let Some(observed) = Observed::new() else {
        return;
    };
    observed.0.write("low/in/first", "in the first layer");
    observed.0.scratch.dir("low2/in");
    observed.0.write("low2/in/second", "in the second layer");
    observed.mount(&[]);
    let at = |name: &str| observed.path(&format!("mnt/in/{name}"));
    for i in 0..100 {
        assert!(!at(&format!("none{i}")).exists());
    }
    let asked = observed.stat()["caches"]["absent_names"].clone();
    let (hits, misses) = (asked["hits"].as_u64(), asked["misses"].as_u64());
    assert_eq!(hits.zip(misses).map(|(h, m)| h + m), Some(100), "{asked}");
    assert!(hits >= Some(64), "{asked}");
    // What is there is found, and what is made and deleted from then on is known.
    assert_eq!(
        fs::read_to_string(at("second")).ok().as_deref(),
        Some("in the second layer")
    );
    fs::write(at("none5"), "made").expect("a new file");
    fs::remove_file(at("first")).expect("unlink");
    fs::rename(at("second"), at("third")).expect("rename");
    let mut names: Vec<_> = fs::read_dir(observed.path("mnt/in"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["none5", "third"]);
    assert!(!at("first").exists() && !at("second").exists());
    // It was not read again for that.
    assert_eq!(observed.stat()["caches"]["listings"]["misses"], 0);
    observed.unmount();
}

#[test]
fn what_changes_in_a_layer_is_seen_after_the_timeout() {
    let Some(observed) = Observed::new() else {
        return;
    };
    observed.0.write("low/in/file", "before");
    observed.mount(&["-o", "timeout=0.05"]);
    let at = |name: &str| observed.path(&format!("mnt/in/{name}"));
    let names = || {
        let listed = fs::read_dir(observed.path("mnt/in")).expect("a directory");
        listed.count()
    };
    assert_eq!(names(), 1);
    assert_eq!(
        fs::read_to_string(at("file")).ok().as_deref(),
        Some("before")
    );
    assert!(!at("more").exists());
    observed.0.write("low/in/more", "new in the layer");
    observed.0.write("low/in/file", "changed in the layer");
    await_that("a new name is found", || at("more").exists());
    await_that("a new name is listed", || names() == 2);
    await_that("new data is read", || {
        fs::read_to_string(at("file")).ok().as_deref() == Some("changed in the layer")
    });
    observed.unmount();
}
