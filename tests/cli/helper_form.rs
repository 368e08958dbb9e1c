//! The form of mount(8) and of container engines.

use std::process::Command;

use crate::support::mount::run;
use crate::support::skip;
use crate::tools::{LIMIT, Stage, stderr, told};

fn can_mount() -> Option<Stage> {
    skip::can_mount().then(Stage::new)
}

fn flags(stage: &Stage) -> String {
    let all = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is mounted");
    let at = format!(" {} ", stage.path("mnt").display());
    let line = all
        .lines()
        .rev()
        .find(|line| line.contains(&at))
        .expect("it is mounted");
    line.split(' ').nth(5).expect("flags").to_owned()
}

#[test]
fn it_mounts_as_podman_calls_it() {
    let Some(stage) = can_mount() else { return };
    let words = "lowerdir=low:low2,upperdir=up,workdir=work,,volatile";
    stage.quietly(&["-o", words, "mnt"]);
    assert_eq!(stage.read("mnt/one") + &stage.read("mnt/two"), "12");
    assert_eq!(flags(&stage), "rw,nodev,noatime");
    stage.quietly(&["umount", "mnt"]);
    stage.quietly(&["-o", "lowerdir=low:low2,ro,nosuid", "mnt"]);
    assert_eq!(flags(&stage), "ro,nosuid,nodev,noatime");
    assert!(std::fs::write(stage.path("mnt/new"), "x").is_err());
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn it_mounts_as_containerd_calls_it() {
    let Some(stage) = can_mount() else { return };
    stage.quietly(&["overlay", "mnt", "-o", "lowerdir=low:low2,dev,suid"]);
    assert_eq!(flags(&stage), "ro,noatime");
    assert_eq!(stage.read("mnt/two"), "2");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn unknown_words_are_told_and_passed_over() {
    let Some(stage) = can_mount() else { return };
    let out = stage.call(&["-o", "lowerdir=low,private,lazytime", "mnt"]);
    assert!(out.status.success(), "{}", told(&out));
    assert_eq!(
        stderr(&out),
        "plyfs: unknown argument ignored: private\nplyfs: unknown argument ignored: lazytime\n"
    );
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn colons_and_commas_in_paths_are_escaped() {
    let Some(stage) = can_mount() else { return };
    std::fs::rename(stage.path("low"), stage.path("a:b,c")).expect("rename");
    stage.quietly(&["mnt", "-olowerdir=a\\:b\\,c:low2"]);
    assert_eq!(stage.read("mnt/one") + &stage.read("mnt/two"), "12");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn lowers_may_be_symlinks() {
    let Some(stage) = can_mount() else { return };
    std::os::unix::fs::symlink("low", stage.path("link")).expect("symlink");
    stage.quietly(&["-o", "lowerdir=link", "mnt"]);
    assert_eq!(stage.read("mnt/one"), "1");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn names_in_proc_mounts_can_be_chosen() {
    let Some(stage) = can_mount() else { return };
    stage.quietly(&["-o", "lowerdir=low,fsname=my disk,subtype=union", "mnt"]);
    assert_eq!(stage.mounted("mnt").expect("mounted").1, "fuse.union");
    let all = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is mounted");
    assert!(all.contains("fuse.union my\\040disk "));
    let mut umount = Command::new("umount");
    let out = run(umount.arg(stage.path("mnt")), LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", told(&out));
}

/// mount.fuse3 looks for the program in the system's directories alone.
fn is_installed() -> bool {
    let found = ["/usr/local/bin/plyfs", "/usr/bin/plyfs"]
        .iter()
        .any(|path| std::path::Path::new(path).exists());
    if !found {
        println!("skipped: plyfs is not in /usr/local/bin, where mount.fuse3 finds it");
    }
    found
}

/// mount(8) with the program on PATH.
fn mount(stage: &Stage, args: &[&str]) {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("mount");
    command
        .args(args)
        .current_dir(stage.scratch.path())
        .env("PATH", format!("{}:{path}", stage.scratch.path().display()));
    let out = run(&mut command, LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{args:?}: {}", told(&out));
    assert_eq!(stderr(&out), "", "{args:?}");
}

#[test]
fn mount_finds_it_by_its_type() {
    let Some(stage) = can_mount() else { return };
    if !skip::has_tool("mount.fuse3") || !is_installed() {
        return;
    }
    let dir = stage.scratch.path().display();
    let words = format!("lowerdir={dir}/low:{dir}/low2,upperdir={dir}/up,workdir={dir}/work");
    let mnt = stage.path("mnt").display().to_string();
    mount(&stage, &["-t", "fuse.plyfs", "overlay", &mnt, "-o", &words]);
    assert_eq!(stage.mounted("mnt").expect("mounted").1, "fuse.plyfs");
    assert_eq!(stage.read("mnt/two"), "2");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn it_mounts_from_fstab() {
    let Some(stage) = can_mount() else { return };
    if !skip::has_tool("mount.fuse3") || !is_installed() {
        return;
    }
    let dir = stage.scratch.path().display();
    let line = format!(
        "plyfs {dir}/mnt fuse.plyfs lowerdir={dir}/low,upperdir={dir}/up,workdir={dir}/work,\
         noauto,nofail,x-systemd.automount 0 0\n"
    );
    stage.write("fstab", &line);
    let (fstab, mnt) = (format!("{dir}/fstab"), format!("{dir}/mnt"));
    mount(&stage, &["-T", &fstab, &mnt]);
    assert_eq!(stage.read("mnt/one"), "1");
    stage.write("mnt/new", "n");
    stage.quietly(&["umount", "mnt"]);
    assert_eq!(stage.read("up/new"), "n");
}

#[test]
fn a_file_says_the_same_as_flags() {
    let Some(stage) = can_mount() else { return };
    let text = "layers = ['low', 'low2']\nupper = 'up'\nwork = 'work'\n[options]\nsuid = true\n";
    stage.write("union.toml", text);
    stage.quietly(&["mount", "--config", "union.toml", "mnt"]);
    assert_eq!(stage.read("mnt/two"), "2");
    assert_eq!(flags(&stage), "rw,nodev,noatime");
    stage.quietly(&["umount", "mnt"]);
    stage.quietly(&[
        "mount",
        "--config",
        "union.toml",
        "--lower",
        "low",
        "-o",
        "nosuid",
        "mnt",
    ]);
    assert!(!stage.path("mnt/two").exists());
    assert_eq!(flags(&stage), "rw,nosuid,nodev,noatime");
    stage.quietly(&["umount", "mnt"]);
}

#[test]
fn a_device_that_is_mounted_already_is_served() {
    let Some(stage) = can_mount() else { return };
    if !skip::has_tool("mount.fuse3") || !is_installed() {
        return;
    }
    // With drop_privileges mount.fuse3 mounts, and hands over a descriptor of the device.
    let dir = stage.scratch.path().display();
    let mnt = stage.path("mnt").display().to_string();
    let words = format!("lowerdir={dir}/low,drop_privileges");
    mount(&stage, &["-t", "fuse.plyfs", "overlay", &mnt, "-o", &words]);
    assert_eq!(stage.read("mnt/one"), "1");
    let mut umount = Command::new("umount");
    let out = run(umount.arg(stage.path("mnt")), LIMIT).expect("it ends in time");
    assert!(out.status.success(), "{}", told(&out));
}
