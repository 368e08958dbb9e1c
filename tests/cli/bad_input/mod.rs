//! Every refusal: one line that names the path, the cause and the remedy; exit status 1;
//! nothing mounted. `$D` stands for the directory of the test.

mod table;

use crate::support::mount::run;
use crate::support::skip;
use crate::tools::{LIMIT, Stage, can_be_user, can_run_as_user, told};
use std::process::Output;
use table::{CREATE, Case, FILES, NEED, OTHER_VERBS, OVERLAPS, PATHS, WORDS};

fn expected(stage: &Stage, text: &str) -> String {
    let dir = stage.scratch.path().display().to_string();
    let text = text.replace("$D", &dir).replace("$CREATE", CREATE);
    format!("plyfs: {}\n", text.replace("$NEED", NEED))
}

fn judge(stage: &Stage, call: &str, out: &Output, says: &str) {
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        expected(stage, says),
        "{call}"
    );
    assert_eq!(out.status.code(), Some(1), "{call}: {}", told(out));
    assert!(out.stdout.is_empty(), "{call}: {}", told(out));
    assert_eq!(stage.mounted("mnt"), None, "{call}");
}

fn all_are_refused(cases: &[Case]) {
    let stage = Stage::new();
    std::os::unix::fs::symlink("low", stage.path("link")).expect("symlink");
    std::os::unix::fs::symlink("loop", stage.path("loop")).expect("symlink");
    stage.write("broken.toml", "lower = 'low'\nupper = up\n");
    stage.write("key.toml", "lower = 'low'\nupper = 'up'\nwrok = 'work'\n");
    stage.write("word.toml", "lower = 'low'\noptions = ['voaltile']\n");
    stage.write("number.toml", "lower = 'low'\n[options]\nthreads = 99\n");
    stage.write("type.toml", "upper = 3\n");
    for (call, says) in cases {
        let args: Vec<_> = call.split(' ').collect();
        judge(&stage, call, &stage.call(&args), says);
    }
}

#[test]
fn paths_that_cannot_be_used_are_refused() {
    all_are_refused(PATHS);
}

#[test]
fn directories_that_overlap_are_refused() {
    all_are_refused(OVERLAPS);
}

#[test]
fn words_that_make_no_sense_are_refused() {
    all_are_refused(WORDS);
}

#[test]
fn files_that_make_no_sense_are_refused_with_their_line() {
    all_are_refused(FILES);
}

#[test]
fn the_other_verbs_refuse_likewise() {
    all_are_refused(OTHER_VERBS);
}

#[test]
fn the_501st_layer_is_refused() {
    let stage = Stage::new();
    let layers: Vec<_> = (0..501)
        .map(|i| {
            let dir = stage.scratch.dir(&format!("many/{i}"));
            dir.display().to_string()
        })
        .collect();
    let words = format!("lowerdir={}", layers.join(":"));
    let out = stage.call(&["-o", &words, "mnt"]);
    let says = "layers: 501 lower layers given; merge some: there may be 500 at most";
    judge(&stage, "501 layers", &out, says);
}

/// A call in a mount namespace of its own, where `setup` has been done before.
fn refused_where(setup: &str, call: &str, says: &str) {
    if !skip::can_mount() || !skip::has_tool("unshare") {
        return;
    }
    let stage = Stage::new();
    let script = format!("{setup}\n\"$P\" {call}");
    let out = run(&mut stage.in_own_mounts(&script), LIMIT).expect("it ends in time");
    judge(&stage, call, &out, says);
}

#[test]
fn a_work_directory_on_another_filesystem_is_refused() {
    refused_where(
        "mount -t tmpfs none work",
        "mount --lower low --upper up --work work mnt",
        "work directory $D/work: on another filesystem than the upper $D/up; put it beside the \
         upper",
    );
}

#[test]
fn a_work_directory_on_another_mount_is_refused() {
    refused_where(
        "mount --bind work work",
        "mount --lower low --upper up --work work mnt",
        "work directory $D/work: on another mount than the upper $D/up; put it beside the upper",
    );
}

#[test]
fn a_read_only_upper_is_refused() {
    refused_where(
        "mount -t tmpfs none low2; mkdir low2/u low2/w; mount -o remount,ro low2",
        "mount --lower low --upper low2/u --work low2/w mnt",
        "upper $D/low2/u: read-only file system; put it on a writable filesystem, or leave the \
         upper out",
    );
}

#[test]
fn a_lower_layer_bound_into_the_upper_is_refused() {
    refused_where(
        "mkdir other; mount --bind up other",
        "mount --lower other --upper up --work work mnt",
        "upper $D/up: it is the lower layer $D/other too; give it a directory of its own",
    );
}

#[test]
fn no_fuse_device_is_refused() {
    refused_where(
        "mkdir d; touch d/null; mount --bind /dev/null d/null; mount --rbind d /dev",
        "mount --lower low mnt",
        "/dev/fuse: no such file or directory; load the module with modprobe fuse, or pass it \
         into the container with --device",
    );
}

#[test]
fn no_null_device_is_refused() {
    refused_where(
        "mount -t tmpfs none /dev",
        "mount --lower low mnt",
        "daemon: open of /dev/null: No such file or directory (os error 2); it needs /dev/null, \
         or use --foreground",
    );
}

#[test]
fn a_full_disk_is_refused() {
    if !skip::can_mount() || !skip::has_tool("unshare") {
        return;
    }
    let stage = Stage::new();
    let script = "mount -t tmpfs -o size=64k,nr_inodes=16 none low2; mkdir low2/u low2/w
        i=0; while touch low2/f$i; do i=$((i + 1)); done 2> touch.log
        \"$P\" mount --lower low --upper low2/u --work low2/w mnt";
    let out = run(&mut stage.in_own_mounts(script), LIMIT).expect("it ends in time");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!("{}/low2", stage.scratch.path().display())),
        "{said}"
    );
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn an_upper_in_use_is_refused() {
    if !skip::can_mount() {
        return;
    }
    let stage = Stage::new();
    let args = [
        "mount", "--lower", "low", "--upper", "up", "--work", "work", "mnt",
    ];
    stage.quietly(&args);
    stage.scratch.dir("mnt2");
    let out = stage.call(&[&args[..7], &["mnt2"]].concat());
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains(&format!("{}/up", stage.scratch.path().display())),
        "{said}"
    );
    assert!(said.contains("in use"), "{said}");
    assert_eq!(stage.mounted("mnt2"), None);
    stage.quietly(&["umount", "mnt"]);
}

/// What an ordinary user may not do.
fn refused_to_a_user(stage: &Stage, call: &str, says: &str) {
    let args: Vec<_> = call.split(' ').collect();
    let out = run(&mut stage.plyfs_as_user(&args), LIMIT).expect("it ends in time");
    judge(stage, call, &out, says);
}

#[test]
fn what_a_user_may_not_read_or_write_is_refused() {
    if !can_be_user() {
        return;
    }
    let stage = Stage::new();
    stage.chmod("low2", 0o700);
    stage.scratch.dir("hidden/in");
    stage.chmod("hidden", 0o700);
    let read = "permission denied; it must be readable; ask for access to it, or run as its owner";
    refused_to_a_user(
        &stage,
        "mount --lower low2 mnt",
        &format!("lower layer $D/low2: {read}"),
    );
    refused_to_a_user(
        &stage,
        "mount --lower hidden/in mnt",
        "lower layer $D/hidden/in: permission denied; ask for access to it, or run as its owner",
    );
    refused_to_a_user(
        &stage,
        "mount --lower low --upper up --work work mnt",
        "upper $D/up: permission denied; it must be writable; ask for access to it, or choose a \
         directory of your own",
    );
    refused_to_a_user(
        &stage,
        "run --upper up -- true",
        "upper up: permission denied; it must be writable; ask for access to it, or choose a \
         directory of your own",
    );
}

#[test]
fn what_fusermount_refuses_is_told_in_one_line() {
    if !can_be_user() || !skip::has_tool("fusermount3") {
        return;
    }
    let stage = Stage::new();
    refused_to_a_user(
        &stage,
        "mount --lower low mnt",
        "mount point $D/mnt: fusermount3: user has no write access to mountpoint $D/mnt; choose \
         a mount point of your own",
    );
    let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        return;
    }
    stage.chown("mnt", crate::tools::USER);
    refused_to_a_user(
        &stage,
        "mount --lower low -o allow_other mnt",
        "mount point $D/mnt: fusermount3: option allow_other only allowed if 'user_allow_other' \
         is set in /etc/fuse.conf; leave allow_other out, or add user_allow_other to \
         /etc/fuse.conf",
    );
}

#[test]
fn a_fuse_device_that_is_not_for_everyone_is_refused() {
    if !can_run_as_user() || !skip::has_tool("unshare") {
        return;
    }
    let stage = Stage::new();
    stage.chown("mnt", crate::tools::USER);
    let script = "mkdir dev; mount -t tmpfs none dev; mknod -m 600 dev/fuse c 10 229
        mount --bind dev/fuse /dev/fuse
        setpriv --reuid 1 --regid 1 --clear-groups \"$P\" mount --lower low mnt";
    let out = run(&mut stage.in_own_mounts(script), LIMIT).expect("it ends in time");
    let says = "/dev/fuse: permission denied; let this user read and write it, or pass it into \
                the container with --device";
    judge(&stage, "mount as a user", &out, says);
}
