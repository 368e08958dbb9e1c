//! What container engines rely on when they call the program that mounts for them.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::support::mount::{run, umount_when_free};
use crate::support::skip;
use crate::tools::{
    LIMIT, Stage, USER, await_that, can_run_as_user, has_ended, said_by, send, stderr, stdout, told,
};

fn can_mount() -> Option<Stage> {
    skip::can_mount().then(Stage::new)
}

/// The line of mountinfo of what is mounted at `name`.
fn line(stage: &Stage, name: &str) -> String {
    let all = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is mounted");
    let at = format!(" {} ", stage.path(name).display());
    let found = all.lines().rev().find(|line| line.contains(&at));
    found.expect("it is mounted").to_owned()
}

/// The program under the name of the one whose place it takes.
fn by_others_name(stage: &Stage, args: &[&str]) -> std::process::Output {
    let mut command = Command::new(stage.path("fuse-overlayfs"));
    command.args(args);
    stage.tidy(&mut command);
    run(&mut command, LIMIT).expect("it ends in time")
}

#[test]
fn under_the_name_fuse_overlayfs_there_are_no_verbs() {
    let Some(stage) = can_mount() else { return };
    symlink("plyfs", stage.path("fuse-overlayfs")).expect("symlink");
    std::fs::create_dir(stage.path("run")).expect("a mount point called as a verb");
    let out = by_others_name(&stage, &["-o", "lowerdir=low:low2", "run"]);
    assert!(
        out.status.success() && stderr(&out).is_empty(),
        "{}",
        told(&out)
    );
    assert_eq!(stage.read("run/two"), "2");
    stage.quietly(&["umount", "run"]);
    let out = by_others_name(&stage, &["run", "-o", "lowerdir=low"]);
    assert!(out.status.success(), "{}", told(&out));
    stage.quietly(&["umount", "run"]);
    let out = by_others_name(&stage, &[]);
    assert_eq!(
        (out.status.code(), stderr(&out).lines().count()),
        (Some(1), 1)
    );
}

#[test]
fn the_version_is_the_first_line() {
    let stage = Stage::new();
    symlink("plyfs", stage.path("fuse-overlayfs")).expect("symlink");
    let expected = format!("plyfs {}\n", env!("CARGO_PKG_VERSION"));
    for out in [
        stage.call(&["--version"]),
        stage.call(&["-V"]),
        by_others_name(&stage, &["--version"]),
    ] {
        assert!(out.status.success(), "{}", told(&out));
        assert_eq!(
            (stdout(&out), stderr(&out)),
            (expected.clone(), String::new())
        );
    }
}

#[test]
fn others_are_let_in_and_the_kernel_checks_permissions_unless_told_otherwise() {
    let Some(stage) = can_mount() else { return };
    stage.quietly(&["-o", "lowerdir=low", "mnt"]);
    let told = line(&stage, "mnt");
    let options: Vec<&str> = told
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .split(',')
        .collect();
    assert!(options.contains(&"allow_other"), "{told}");
    assert!(options.contains(&"default_permissions"), "{told}");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn words_may_come_in_any_order_and_in_several_lists() {
    let Some(stage) = can_mount() else { return };
    for call in [
        &[
            "mnt",
            "-o",
            "lowerdir=low2",
            "-oupperdir=up",
            "-o",
            "workdir=work,,",
            "-o",
            ",",
        ][..],
        &[
            "-o",
            "lowerdir=low,",
            "-o",
            ",lowerdir=low2,ro,rw,upperdir=up,workdir=work",
            "mnt",
        ],
        &[
            "-olowerdir=low2",
            "-o",
            "upperdir=./up,workdir=low/../work",
            "--",
            "./mnt",
        ],
        &[
            "none",
            "mnt",
            "-s",
            "-n",
            "-o",
            "rw,lowerdir=:low2:,upperdir=up,workdir=work",
        ],
    ] {
        stage.quietly(call);
        assert_eq!(stage.read("mnt/two"), "2", "{call:?}");
        assert!(!stage.path("mnt/one").exists(), "{call:?}");
        stage.write("mnt/new", "n");
        stage.quietly(&["umount", "mnt"]);
        assert_eq!(stage.read("up/new"), "n");
        std::fs::remove_file(stage.path("up/new")).expect("it was made");
    }
}

#[test]
fn every_path_may_have_colons_commas_quotes_and_backslashes() {
    let Some(stage) = can_mount() else { return };
    let odd = r#"a:b,c\d"e"#;
    std::fs::create_dir(stage.path(odd)).expect("a directory");
    for dir in ["up", "work", "low"] {
        let to = stage.path(odd).join(dir);
        std::fs::rename(stage.path(dir), to).expect("rename");
    }
    let escaped = r#"a\:b\,c\\d"e"#;
    let words = format!("lowerdir={escaped}/low,upperdir={escaped}/up,workdir={escaped}/work");
    stage.quietly(&["-o", &words, "mnt"]);
    assert_eq!(stage.read("mnt/one"), "1");
    stage.write("mnt/new", "n");
    stage.quietly(&["umount", "mnt"]);
    assert_eq!(stage.read(&format!("{odd}/up/new")), "n");
}

#[test]
fn five_hundred_lowers_by_symlinks_are_mounted() {
    let Some(stage) = can_mount() else { return };
    let deep = "long/".repeat(12) + "overlay/l";
    std::fs::create_dir_all(stage.path(&deep)).expect("a directory");
    let top = stage.scratch.path().display().to_string();
    let mut lowers = Vec::new();
    for i in 0..500 {
        let layer = stage.scratch.dir(&format!("layers/{i}"));
        std::fs::write(layer.join(format!("file{i}")), i.to_string()).expect("a file");
        std::fs::write(layer.join("top"), i.to_string()).expect("a file");
        let link = format!("{deep}/ABCDEFGHIJKLMNOPQRSTUVWX{i:02}");
        symlink(&layer, stage.path(&link)).expect("symlink");
        lowers.push(format!("{top}/{link}"));
    }
    let words = format!("lowerdir={},upperdir=up,workdir=work", lowers.join(":"));
    assert!(words.len() > 40_000, "{} bytes", words.len());
    stage.quietly(&["-o", &words, "mnt"]);
    assert_eq!(stage.read("mnt/file0") + &stage.read("mnt/file499"), "0499");
    assert_eq!(stage.read("mnt/top"), "0");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn what_stands_against_it_is_one_line_and_a_status_of_one() {
    let Some(stage) = can_mount() else { return };
    for (call, says) in [
        (&["-o", "lowerdir=none", "mnt"][..], "lower layer"),
        (&["-o", "lowerdir=low", "none"], "mount point"),
        (&["-o", "lowerdir=low"], "mount point: none given"),
        (&["-o", "ro", "mnt"], "layers: none given"),
        (
            &["-o", "upperdir=up,workdir=work", "mnt"],
            "layers: none given",
        ),
        (
            &["-o", "lowerdir=low,upperdir=up", "mnt"],
            "it has no work directory",
        ),
        (
            &["-o", "lowerdir=low,uidmapping=0:1", "mnt"],
            "inside:outside:length",
        ),
        (
            &["a", "b", "mnt", "-o", "lowerdir=low"],
            "argument mnt: one too many",
        ),
    ] {
        let out = stage.call(call);
        assert_eq!(out.status.code(), Some(1), "{call:?}: {}", told(&out));
        let said = stderr(&out);
        assert!(
            said.contains(says) && said.lines().count() == 1,
            "{call:?}: {said}"
        );
        assert!(stage.mounted("mnt").is_none(), "{call:?}");
    }
}

/// A mount in the foreground as apptainer makes it.
fn in_foreground(stage: &Stage) -> std::process::Child {
    let words = "allow_other,ro,lowerdir=low:low2,noacl";
    let mut command = stage.plyfs(&["-f", "-o", words, "mnt"]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    await_that("it is mounted", || stage.mounted("mnt").is_some());
    child
}

#[test]
fn in_the_foreground_it_is_silent_and_ends_well_when_it_is_unmounted_or_told_to_end() {
    let Some(stage) = can_mount() else { return };
    for by_signal in [false, true] {
        let child = in_foreground(&stage);
        assert_eq!(stage.read("mnt/two"), "2");
        if by_signal {
            send(child.id(), libc::SIGTERM);
        } else {
            umount_when_free(&stage.path("mnt")).expect("umount");
        }
        let out = child.wait_with_output().expect("it ends");
        assert!(out.status.success(), "{by_signal}: {}", told(&out));
        assert_eq!(stdout(&out) + &stderr(&out), "");
        assert!(stage.mounted("mnt").is_none());
    }
}

#[test]
fn layers_may_be_detached_and_the_mount_point_removed_at_once() {
    let Some(stage) = can_mount() else { return };
    let script = "mkdir bound to; mount --bind low bound; \
        $P -o lowerdir=bound:low2,upperdir=up,workdir=work to; umount -l bound; rmdir bound; \
        cat to/one; echo n > to/new; umount -l to; mv to moved; rmdir moved; \
        mkdir to; $P -o lowerdir=low:low2,upperdir=up,workdir=work to; cat to/new; umount to; \
        rmdir to";
    assert_eq!(said_by(&mut stage.in_own_mounts(script)), "1n\n");
}

#[test]
fn root_of_a_user_namespace_needs_no_fusermount3() {
    if !can_run_as_user() {
        return;
    }
    let stage = Stage::new();
    for dir in ["up", "work", "mnt"] {
        stage.give(dir);
    }
    let program = stage.path("plyfs").display().to_string();
    let script = "PATH=/nowhere $P -o lowerdir=low:low2,upperdir=up,workdir=work,,volatile mnt; \
        cat mnt/one; echo n > mnt/new; umount mnt; cat up/new";
    let mut command = crate::tools::as_user("unshare");
    command.args(["-Urm", "sh", "-ec", &script.replace("$P", &program)]);
    stage.tidy(&mut command);
    assert_eq!(said_by(&mut command), "1n\n");
}

#[test]
fn the_starter_does_not_wait_for_the_daemon_to_let_go_of_its_streams() {
    let Some(stage) = can_mount() else { return };
    // As Go does: all of stderr is read before the program's end is looked at.
    let mut child = stage
        .plyfs(&["-o", "lowerdir=low", "mnt"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = String::new();
    let pipe = child.stderr.as_mut().expect("piped");
    std::io::Read::read_to_string(pipe, &mut said).expect("it can be read to its end");
    assert_eq!(said, "");
    assert!(child.wait().expect("it ends").success());
    let daemon = stage.daemon("mnt");
    assert!(!has_ended(daemon));
    assert_eq!(stage.read("mnt/one"), "1");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn what_it_leaves_is_read_by_overlayfs_and_fuse_overlayfs_as_engines_mount_them() {
    let Some(stage) = can_mount() else { return };
    let words = "lowerdir=low,upperdir=up,workdir=work";
    std::fs::create_dir_all(stage.path("low/d/e")).expect("directories");
    stage.write("low/d/e/f", "deep");
    stage.write("low/old", "o");
    stage.quietly(&["-o", words, "mnt"]);
    let script =
        "chmod 600 one; chown 5 d/e/f; mv d moved; mv old new; rm -r in; mkdir in; touch in/x";
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(stage.path("mnt"));
    let out = run(&mut shell, LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", told(&out));
    stage.quietly(&["umount", "mnt"]);
    let look = "cat one moved/e/f new; stat -c %a%u one moved/e/f; ls . in";
    let expected = "1deepo6000\n6445\n.:\nin\nmoved\nnew\none\n\nin:\nx\n";
    let programs = std::env::var_os("PLYFS_FUSE_OVERLAYFS");
    let rival = programs
        .as_ref()
        .and_then(|list| std::env::split_paths(list).next())
        .or_else(|| skip::find_tool("fuse-overlayfs"));
    let rival = rival.map_or("true".to_owned(), |path| path.display().to_string());
    for program in [
        "mount -t overlay overlay -o WORDS mnt",
        "RIVAL -o WORDS mnt 2> said",
    ] {
        let call = program.replace("RIVAL", &rival).replace("WORDS", words);
        if call.starts_with("true") {
            skip::skipped("needs fuse-overlayfs");
            continue;
        }
        let script = format!("{call}; cd mnt; {look}; cd ..; umount mnt");
        let out = run(&mut stage.in_own_mounts(&script), LIMIT).expect("it ends in time");
        assert_eq!(stdout(&out), expected, "{program}: {}", told(&out));
    }
}

#[test]
fn a_device_that_whoever_calls_has_mounted_is_served() {
    let Some(stage) = can_mount() else { return };
    let script = "exec 7<>/dev/fuse; \
        mount -i -t fuse -o fd=7,rootmode=40000,user_id=0,group_id=0,allow_other plyfs mnt; \
        $P -o lowerdir=low:low2,noacl /dev/fd/7; exec 7>&-; \
        cat mnt/one mnt/two; umount mnt";
    let mut command = stage.in_own_mounts(script);
    assert_eq!(said_by(&mut command), "12");
}

/// The life of the program under apptainer where that is setuid: its starter mounts a device,
/// hands that over to a user's process in a group of its own, waits for an answer, and
/// unmounts at the end, or sends SIGTERM where that does not do.
#[test]
fn a_users_daemon_serves_the_device_of_a_setuid_starter_to_its_end() {
    let Some(stage) = can_mount() else { return };
    if !can_run_as_user() || !skip::has_tool("setpriv") {
        return;
    }
    for dir in ["up", "work"] {
        stage.give(dir);
    }
    for (end, left) in [
        ("umount -l mnt; wait $daemon", "0\n"),
        (
            "kill $daemon; wait $daemon; echo $?; umount mnt; true",
            "0\n0\n",
        ),
    ] {
        let script = format!(
            "rm -f up/new; exec 7<>/dev/fuse; user='setpriv --reuid {USER} --regid {USER} --clear-groups'; \
             mount -i -t fuse -o fd=7,rootmode=40000,user_id={USER},group_id={USER},allow_other \
                 -o default_permissions plyfs mnt; \
             setsid $user $P -f -o allow_other,lowerdir=low:low2,upperdir=up,workdir=work,noacl \
                 /dev/fd/7 & daemon=$!; exec 7>&-; \
             cat mnt/one mnt/two; $user sh -c 'echo new > mnt/new'; stat -c %u up/new; {end}; echo $?"
        );
        assert_eq!(
            said_by(&mut stage.in_own_mounts(&script)),
            format!("12{USER}\n{left}"),
            "{end}"
        );
    }
}

#[test]
fn root_may_run_what_is_setuid_in_an_image() {
    let Some(stage) = can_mount() else { return };
    let script = "cp $(command -v id) low/sid; chmod 4755 low/sid; chmod 755 low; \
        $P -o lowerdir=low:low2 mnt; setpriv --reuid 1 --regid 1 --clear-groups mnt/sid -u; \
        umount mnt; $P -o lowerdir=low,nosuid mnt; \
        setpriv --reuid 1 --regid 1 --clear-groups mnt/sid -u; umount mnt";
    if !skip::has_tool("setpriv") {
        return;
    }
    assert_eq!(said_by(&mut stage.in_own_mounts(script)), "0\n1\n");
}
