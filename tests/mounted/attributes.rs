//! Modes, owners and times, as on a local filesystem.

use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::patience::await_that;
use super::support::sys::{self, Stat};

fn stat(base: &std::path::Path, path: &str) -> Stat {
    sys::lstat(at(base, path)).unwrap_or_else(|e| panic!("{path}: {}", sys::errno_name(e)))
}

fn bits(base: &std::path::Path, path: &str) -> u32 {
    stat(base, path).mode & 0o7777
}

/// Runs `work` on a thread of its own with another user's ids and umask.
fn as_user<T: Send>(uid: u32, gid: u32, umask: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare_fs().expect("root may unshare");
            sys::umask(umask);
            sys::become_user(uid, gid, &[]).expect("root may become anyone");
            let result = work();
            sys::become_root().expect("back again");
            result
        });
        thread.join().expect("the work does not panic")
    })
}

#[test]
fn umask_is_honoured_for_every_kind_of_new_file() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["dir d 1777"]);
    let mounted = lab.mount("umask", &[l]);
    let m = mounted.path();
    as_user(1000, 1000, 0o027, || {
        sys::open(at(m, "d/file"), libc::O_CREAT | libc::O_WRONLY, 0o666).expect("create");
        sys::mkdir(at(m, "d/dir"), 0o777).expect("mkdir");
        sys::mknod(at(m, "d/fifo"), libc::S_IFIFO | 0o666, 0).expect("mkfifo");
        sys::mknod(at(m, "d/sock"), libc::S_IFSOCK | 0o666, 0).expect("a socket");
    });
    assert_eq!(bits(m, "d/file"), 0o640);
    assert_eq!(bits(m, "d/dir"), 0o750);
    assert_eq!(bits(m, "d/fifo"), 0o640);
    assert_eq!(bits(m, "d/sock"), 0o640);
    for name in ["file", "dir", "fifo", "sock"] {
        let s = stat(m, &format!("d/{name}"));
        assert_eq!((s.uid, s.gid), (1000, 1000), "{name}");
    }
}

#[test]
fn a_setgid_directory_hands_down_its_group() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d 2777 0:1001 1000000000.5"],
    );
    let mounted = lab.mount("sgid", &[l]);
    let m = mounted.path();
    as_user(1000, 1000, 0o022, || {
        sys::mkdir(at(m, "d/dir"), 0o755).expect("mkdir");
        sys::open(at(m, "d/file"), libc::O_CREAT | libc::O_WRONLY, 0o2755).expect("create");
        sys::symlink("x", at(m, "d/link")).expect("symlink");
    });
    assert_eq!((stat(m, "d/dir").gid, bits(m, "d/dir")), (1001, 0o2755));
    assert_eq!(stat(m, "d/link").gid, 1001);
    assert_eq!(stat(m, "d/file").gid, 1001);
    assert_eq!(
        bits(m, "d/file"),
        0o755,
        "not a member of the group: no setgid bit"
    );
}

#[test]
fn a_default_acl_takes_the_place_of_the_umask() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["dir d 777"]);
    let mounted = lab.mount("acl", &[l]);
    let m = mounted.path();
    shell(m, "setfacl -d -m u::rwx,u:1001:rw,g::rx,o::r,m::rwx d");
    as_user(1000, 1000, 0o077, || {
        sys::open(at(m, "d/file"), libc::O_CREAT | libc::O_WRONLY, 0o666).expect("create");
        sys::mkdir(at(m, "d/dir"), 0o777).expect("mkdir");
    });
    assert_eq!(bits(m, "d/file"), 0o664);
    assert_eq!(bits(m, "d/dir"), 0o774);
    let acl = shell(m, "getfacl -cn d/file d/dir");
    assert_eq!(acl.matches("user:1001:rw-").count(), 3, "{acl}");
    assert_eq!(
        as_user(1001, 1001, 0, || sys::open(
            at(m, "d/file"),
            libc::O_RDWR,
            0
        )
        .map(drop)),
        Ok(())
    );
    assert_eq!(
        as_user(1002, 1002, 0, || sys::open(
            at(m, "d/file"),
            libc::O_RDWR,
            0
        )
        .map(drop)),
        Err(libc::EACCES)
    );
}

#[test]
fn writing_and_chown_clear_setuid_and_capabilities() {
    let Some(lab) = Lab::new() else { return };
    let cap = "%01%00%00%02%00%20%00%00%00%00%00%00%00%00%00%00%00%00%00%00";
    let mut lines: Vec<String> = Vec::new();
    for name in [
        "write",
        "append",
        "truncate",
        "chown",
        "open-trunc",
        "fallocate",
        "mmap",
    ] {
        lines.push(format!(
            "file {name} 6777 1000:1000 1000000000.5 5000 0+5000+1"
        ));
        lines.push(format!("xattr {name} security.capability {cap}"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let l = lab.layer("l", MarkFormat::Overlay, &lines);
    let mounted = lab.mount("suid", &[l]);
    let m = mounted.path();
    let open = |name: &str, flags: i32| sys::open(at(m, name), flags, 0).expect("open");
    as_user(1001, 1001, 0o022, || {
        sys::pwrite(&open("write", libc::O_WRONLY), b"x", 0).expect("write");
        sys::pwrite(&open("append", libc::O_WRONLY | libc::O_APPEND), b"x", 0).expect("append");
        sys::truncate(at(m, "truncate"), 10).expect("truncate");
        open("open-trunc", libc::O_WRONLY | libc::O_TRUNC);
        sys::fallocate(&open("fallocate", libc::O_WRONLY), 0, 0, 9000).expect("fallocate");
        sys::mmap_store(&open("mmap", libc::O_RDWR), 10, b"x").expect("mmap");
    });
    sys::lchown(at(m, "chown"), 1001, 1001).expect("chown");
    for name in [
        "write",
        "append",
        "truncate",
        "chown",
        "open-trunc",
        "fallocate",
    ] {
        assert_eq!(bits(m, name), 0o777, "{name}");
        let cap = sys::lgetxattr(at(m, name), "security.capability");
        assert_eq!(cap, Err(libc::ENODATA), "{name}");
    }
}

#[test]
fn copy_up_never_widens_a_mode() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "dir d 700",
            "dir d/e 1751",
            "file d/e/f 0 1000:1001 -5.25 10 0+10+1",
            "file d/e/g 6711 0:0 1.5 10 0+10+1",
        ],
    );
    let mounted = lab.mount("mode", &[l]);
    let m = mounted.path();
    sys::utimens(at(m, "d/e/f"), [sys::OMIT, (7, 7)]).expect("utimens");
    sys::lsetxattr(at(m, "d/e/g"), "user.x", b"1", 0).expect("setxattr");
    for (path, mode) in [
        ("d", 0o700),
        ("d/e", 0o1751),
        ("d/e/f", 0),
        ("d/e/g", 0o6711),
    ] {
        assert_eq!(bits(m, path), mode, "{path}");
        let upper = lab.upper("mode");
        assert_eq!(bits(&upper, path), mode, "{path} in the upper");
    }
    let f = stat(m, "d/e/f");
    assert_eq!((f.uid, f.gid, f.mtime, f.size), (1000, 1001, (7, 7), 10));
}

#[test]
fn times_before_1970_are_kept_and_set() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["file f 644 0:0 -1234567.987654321 10 0+10+1", "file g"],
    );
    let stack = lab.stack("old", &[l]);
    let mounted = lab.mount_stack("old", &stack);
    let m = mounted.path();
    assert_eq!(stat(m, "f").mtime, (-1_234_567, 987_654_321));
    sys::chmod(at(m, "f"), 0o600).expect("chmod");
    sys::utimens(at(m, "g"), [(-1, 999_999_999), (-2_000_000_000, 1)]).expect("utimens");
    let check = |m: &std::path::Path| {
        assert_eq!(stat(m, "f").mtime, (-1_234_567, 987_654_321));
        assert_eq!(stat(m, "g").atime, (-1, 999_999_999));
        assert_eq!(stat(m, "g").mtime, (-2_000_000_000, 1));
    };
    check(m);
    mounted.unmount().expect("it unmounts");
    check(lab.mount_stack("old", &stack).path());
}

#[test]
fn only_the_owner_may_open_with_noatime_and_a_lowers_atime_stays() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "file f 666 1000:1000 1000000000.5 10 0+10+1",
            "dir d",
            "file d/x",
        ],
    );
    let before = stat(&l, "f").atime;
    let mounted = lab.mount("atime", std::slice::from_ref(&l));
    let m = mounted.path();
    let open = |uid| {
        as_user(uid, uid, 0, || {
            sys::open(at(m, "f"), libc::O_RDONLY | libc::O_NOATIME, 0).map(drop)
        })
    };
    assert_eq!(open(1000), Ok(()));
    assert_eq!(open(1001), Err(libc::EPERM));
    shell(m, "cat f d/x >/dev/null; ls -lR >/dev/null");
    assert_eq!(stat(&l, "f").atime, before);
    assert_eq!(stat(&l, "d").atime, (1_000_005_000, 5));
}

#[test]
fn statfs_gives_the_uppers_figures() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file f"]);
    let mounted = lab.mount("statfs", &[l]);
    let seen = sys::statfs(at(mounted.path(), "f")).expect("statfs");
    let upper = sys::statfs(at(&lab.upper("statfs"), "")).expect("statfs");
    assert_eq!(
        seen.f_type, 0x6573_5546,
        "clients know a FUSE mount by this"
    );
    assert_eq!(seen.f_blocks, upper.f_blocks);
    assert_eq!(seen.f_files, upper.f_files);
    assert_eq!(seen.f_namelen, upper.f_namelen);
    assert_eq!(seen.f_bsize, upper.f_bsize);
}

#[test]
fn a_sticky_directory_guards_its_names() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d 1777", "file d/f 666 1000:1000 1.5 10 0+10+1"],
    );
    let mounted = lab.mount("sticky", &[l]);
    let m = mounted.path();
    let f = at(m, "d/f");
    assert_eq!(as_user(1001, 1001, 0, || sys::unlink(&f)), Err(libc::EPERM));
    assert_eq!(
        as_user(1001, 1001, 0, || sys::rename(&f, at(m, "d/g"), 0)),
        Err(libc::EPERM)
    );
    assert_eq!(as_user(1000, 1000, 0, || sys::unlink(&f)), Ok(()));
}

#[test]
fn setting_inode_flags_changes_the_time_that_stat_gives() {
    const NODUMP: i32 = 0x40;
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["dir d", "file f"]);
    let mounted = lab.mount("flags", &[l]);
    let m = mounted.path();
    shell(m, "echo new > n");
    for path in ["n", "f", "d"] {
        let before = stat(m, path).ctime;
        let file = sys::open(at(m, path), libc::O_RDONLY, 0).expect(path);
        // The clock of a filesystem goes in steps of some milliseconds.
        await_that(path, || {
            sys::set_flags(&file, NODUMP).expect("nodump");
            sys::set_flags(&file, 0).expect("dump again");
            stat(m, path).ctime > before
        });
    }
}
