//! `xattr_permissions`: owners, modes and types in xattrs of files that are the daemon's own.

use std::path::{Path, PathBuf};

use crate::support::lab::{Lab, at, shell};
use crate::support::layers::MarkFormat;
use crate::support::sys;
use crate::{USER, fails, has_tools, owners, shell_as, user_can_mount};

const KEPT: &str = "allow_other,suid,dev,xattr_permissions=2";
const KEY: &str = "user.containers.override_stat";

fn lab() -> Option<Lab> {
    Lab::new().filter(|_| has_tools())
}

fn note(at: &Path, name: &str, value: &str) {
    sys::lsetxattr(
        at.join(name).as_os_str().as_encoded_bytes(),
        KEY,
        value.as_bytes(),
        0,
    )
    .unwrap_or_else(|e| panic!("{name}: {}", sys::errno_name(e)));
}

fn noted(at: &Path, name: &str) -> String {
    let path = at.join(name);
    let value = sys::lgetxattr(path.as_os_str().as_encoded_bytes(), KEY);
    String::from_utf8(value.unwrap_or_default()).expect("text")
}

/// Type, mode, owner and device numbers of the files named.
fn shown(at: &Path, names: &str) -> Vec<String> {
    shell(at, &format!("stat -c '%F %a %u:%g %t,%T' {names}"))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A lower layer as an engine unpacks it for an owner who may not give files away.
fn unpacked(lab: &Lab, name: &str) -> PathBuf {
    let lines = [
        "dir d 755",
        "file f",
        "file tool",
        "file null",
        "file disk",
        "file pipe",
        "file sock",
        "file link",
        "file d/old",
        "file plain",
    ];
    let l = lab.layer(name, MarkFormat::Overlay, &lines);
    shell(
        &l,
        "chmod 700 . d; chmod 600 f tool; for i in null disk pipe sock; do : > $i; done",
    );
    shell(&l, "printf f > link; ln -s f symlink");
    for (name, value) in [
        (".", "0:0:0555"),
        ("d", "3:4:01777:dir"),
        ("f", "5:6:0640"),
        ("tool", "0:0:04755:file"),
        ("null", "0:0:0666:char-1-3"),
        ("disk", "0:6:0660:block-259-70000"),
        ("pipe", "7:7:0620:pipe"),
        ("sock", "7:7:0755:socket"),
        ("link", "8:9:0777:symlink"),
    ] {
        note(&l, name, value);
    }
    let old = l.join("d/old");
    sys::lsetxattr(
        old.as_os_str().as_encoded_bytes(),
        "user.fuseoverlayfs.override_stat",
        b"9:9:100751",
        0,
    )
    .expect("an xattr");
    l
}

/// A directory of an ordinary user with the program, an upper and a mount point; the layer
/// becomes his too.
fn users_place(lab: &Lab, layer: &Path) -> PathBuf {
    let top = lab.dir("user");
    let program = crate::support::mount::plyfs_binary();
    let (program, layer) = (program.display(), layer.display());
    shell(
        &top,
        &format!(
            "cp {program} plyfs; mkdir u w m; chown -R {USER}:{USER} . {layer}; chmod 755 . .."
        ),
    );
    top
}

/// What the user's script says in his own mount.
fn seen_by_user(top: &Path, words: &str, script: &str) -> String {
    let mount = format!("./plyfs -o {words} m; P=$PWD; trap '$P/plyfs umount $P/m' EXIT; cd m; ");
    shell_as(USER, top, &format!("{mount}{script}; cd .."))
}

const ALL: &str = ". d f tool null disk pipe sock link d/old plain";

fn expected() -> Vec<&'static str> {
    vec![
        "directory 555 0:0 0,0",
        "directory 1777 3:4 0,0",
        "regular file 640 5:6 0,0",
        "regular file 4755 0:0 0,0",
        "character special file 666 0:0 1,3",
        "block special file 660 0:6 103,11170",
        "fifo 620 7:7 0,0",
        "socket 755 7:7 0,0",
        "symbolic link 777 8:9 0,0",
        "regular file 751 9:9 0,0",
        "regular file 644 0:0 0,0",
    ]
}

#[test]
fn every_type_and_both_widths_are_read_in_a_lower() {
    let Some(lab) = lab() else { return };
    let l = unpacked(&lab, "l");
    let stack = crate::support::mount::Stack::new(&[l]).words(KEPT);
    let mounted = lab.mount_stack("m", &stack);
    let m = mounted.path();
    assert_eq!(shown(m, ALL), expected());
    assert_eq!(shell(m, "readlink link; cat link | wc -c"), "f\n10\n");
    assert_eq!(shell(m, "head -c 3 null | wc -c"), "0\n");
    let kinds: Vec<(Vec<u8>, u8)> = sys::list(at(m, "."))
        .expect("it can be listed")
        .into_iter()
        .map(|entry| (entry.name, entry.kind))
        .collect();
    for (name, kind) in [
        ("d", libc::DT_DIR),
        ("f", libc::DT_REG),
        ("null", libc::DT_CHR),
        ("disk", libc::DT_BLK),
        ("pipe", libc::DT_FIFO),
        ("sock", libc::DT_SOCK),
        ("link", libc::DT_LNK),
        ("symlink", libc::DT_LNK),
    ] {
        let wanted = (name.as_bytes().to_vec(), kind);
        assert!(kinds.contains(&wanted), "{name}: {kinds:?}");
    }
    assert_eq!(shell(m, "getfattr -dm - f tool null"), "");
}

#[test]
fn copies_are_what_the_originals_were_and_so_they_are_after_a_remount() {
    let Some(lab) = lab() else { return };
    let l = unpacked(&lab, "l");
    let before = shell(&l, "stat -c '%n %a %u:%g %Y' *; getfattr -hdm - *");
    let stack = lab.stack("m", std::slice::from_ref(&l)).words(KEPT);
    let mounted = lab.mount_stack("m", &stack);
    let m = mounted.path();
    shell(
        m,
        "touch -d @5 null disk pipe sock d/old tool f plain d; touch -hd @5 link symlink",
    );
    // The root too: the upper was made with another mode, and says nothing of it itself.
    assert_eq!(shown(m, ALL), expected());
    assert_eq!(noted(&lab.upper("m"), "disk"), "0:6:0660:block-259-70000");
    assert_eq!(noted(&lab.upper("m"), "d/old"), "9:9:0751:file");
    mounted.unmount().expect("it unmounts");
    let again = lab.mount_stack("m", &stack);
    let m = again.path();
    assert_eq!(shown(m, ALL), expected());
    assert_eq!(shell(m, "wc -c < f; readlink link"), "10\nf\n");
    assert_eq!(
        shell(&l, "stat -c '%n %a %u:%g %Y' *; getfattr -hdm - *"),
        before
    );
}

#[test]
fn new_files_of_every_type_belong_to_whom_they_should_and_on_disk_to_the_daemon() {
    let Some(lab) = lab() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d", "file gone", "dir d/gone"],
    );
    let stack = lab.stack("m", &[l]).words(KEPT);
    let mounted = lab.mount_stack("m", &stack);
    let (m, u) = (mounted.path(), lab.upper("m"));
    shell(
        m,
        "chmod 1777 . d; rm gone; rmdir d/gone; chgrp 20 d; chmod g+s d",
    );
    let script = "umask 027; echo n > file; mkdir dir d/gone; mkfifo pipe; ln -s x sym; \
                  echo back > gone; echo n > d/file; ln file second; ln -s x d/sym";
    shell_as(1000, m, script);
    shell(
        m,
        "umask 0; mknod null c 1 3; mknod disk b 8 70000; chown 7:8 disk",
    );
    assert_eq!(
        shown(m, "file dir pipe gone d/gone d/file second null disk"),
        [
            "regular file 640 1000:1000 0,0",
            "directory 750 1000:1000 0,0",
            "fifo 640 1000:1000 0,0",
            "regular file 640 1000:1000 0,0",
            "directory 2750 1000:20 0,0",
            "regular file 640 1000:20 0,0",
            "regular file 640 1000:1000 0,0",
            "character special file 666 0:0 1,3",
            "block special file 666 7:8 8,11170",
        ]
    );
    assert_eq!(owners(m, "sym d/sym"), "1000:1000 1000:20");
    assert_eq!(
        shown(&u, "file dir pipe null d/gone d/file"),
        [
            "regular file 600 0:0 0,0",
            "directory 700 0:0 0,0",
            "regular empty file 600 0:0 0,0",
            "regular empty file 644 0:0 0,0",
            "directory 700 0:0 0,0",
            "regular file 600 0:0 0,0",
        ]
    );
    assert_eq!(noted(&u, "pipe"), "1000:1000:0640:pipe");
    assert_eq!(noted(&u, "dir"), "1000:1000:0750:dir");
    assert_eq!(
        shell(m, "head -c 1 null | wc -c; cat gone; ls d"),
        "0\nback\nfile\ngone\nsym\n"
    );
    let opaque = |name: &str| sys::lgetxattr(at(&u, name), "trusted.overlay.opaque").is_ok();
    assert!(opaque("d/gone") && !opaque("dir"));
}

#[test]
fn no_mode_on_disk_is_wider_than_the_one_that_is_kept() {
    let Some(lab) = lab() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["file low 600", "dir lowdir 777"],
    );
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(KEPT));
    let (m, u) = (mounted.path(), lab.upper("m"));
    shell(m, "touch new; mkdir dir");
    for mode in [
        "0", "600", "640", "660", "666", "644", "755", "4755", "2711", "7777", "111",
    ] {
        for name in ["new", "low", "dir", "lowdir"] {
            // chmod(1) would keep setgid of a directory.
            let wanted = u32::from_str_radix(mode, 8).expect("a mode");
            sys::chmod(at(m, name), wanted).expect("chmod");
            let shown = shell(m, &format!("stat -c %a {name}"));
            let bits = u32::from_str_radix(shown.trim(), 8).expect("a mode");
            assert_eq!(shown.trim(), mode, "{name}");
            let disk = sys::lstat(at(&u, name)).expect("it is in the upper").mode & 0o7777;
            assert_eq!(disk & 0o7022, 0, "{name} {mode} {disk:o}");
            assert_eq!(disk & 0o005 & !bits, 0, "{name} {mode} {disk:o}");
            assert_eq!(disk & 0o050 & !(bits << 3), 0, "{name} {mode} {disk:o}");
        }
    }
    shell(m, "echo still > new; cat new; ls dir");
}

#[test]
fn the_kept_mode_decides_and_is_cleared_as_any_other() {
    let Some(lab) = lab() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file f", "dir d 777"]);
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(KEPT));
    let m = mounted.path();
    shell(
        m,
        "echo secret > s; chmod 600 s; chown 1000:1000 s; echo x > w; chmod 6777 w",
    );
    let said = fails(m, "setpriv --reuid 1001 --regid 1001 --clear-groups cat s");
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(shell_as(1000, m, "cat s"), "secret\n");
    shell_as(1000, m, "echo more >> w");
    assert_eq!(shell(m, "stat -c %a w"), "777\n");
    shell(m, "chmod 6755 w; chown 5 w");
    assert_eq!(shell(m, "stat -c '%a %u' w"), "755 5\n");
    shell(m, "mv w d/w2; mv s w; mv d e");
    assert_eq!(
        shown(m, "e/w2 w e"),
        [
            "regular file 755 5:0 0,0",
            "regular file 600 1000:1000 0,0",
            "directory 777 0:0 0,0",
        ]
    );
}

#[test]
fn security_xattrs_are_kept_beside_and_what_keeps_the_owner_does_not_show() {
    let Some(lab) = lab() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file f", "file g"]);
    shell(
        &l,
        "setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 g",
    );
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(KEPT));
    let (m, u) = (mounted.path(), lab.upper("m"));
    shell(
        m,
        "setfattr -n security.note -v 1 f; setfattr -n user.mine -v 2 f; touch g",
    );
    assert_eq!(
        shell(m, "getfattr -dm - f"),
        "# file: f\nsecurity.note=\"1\"\nuser.mine=\"2\"\n\n"
    );
    assert!(shell(m, "getfattr -dm - g").contains("security.capability="));
    let raw = shell(&u, "getfattr -dm - f g");
    assert!(
        raw.contains("user.containers.override_security.note=\"1\""),
        "{raw}"
    );
    assert!(
        raw.contains("user.containers.override_security.capability="),
        "{raw}"
    );
    assert!(!raw.contains("\nsecurity."), "{raw}");
    shell(m, "echo x >> g");
    shell_as(0, m, "setfattr -x security.note f");
    assert_eq!(shell(m, "getfattr -dm security f"), "");
    // A symlink has no user xattrs: its own stay where they are.
    shell(
        m,
        "ln -s f s; setfattr -hn security.note -v 3 s; chown -h 5 s",
    );
    assert_eq!(
        shell(m, "getfattr -h --only-values -n security.note s"),
        "3"
    );
    shell(m, "setfattr -hx security.note s");
    assert_eq!(shell(m, "getfattr -hdm - s"), "");
    // A user's of the same name is another one.
    shell(m, &format!("setfattr -n {KEY} -v 1:1:0777 f"));
    assert_eq!(
        shell(m, &format!("getfattr --only-values -n {KEY} f")),
        "1:1:0777"
    );
    assert_eq!(owners(m, "f"), "0:0");
    let said = fails(m, "setfacl -m u:3:r f");
    assert!(said.contains("not supported"), "{said}");
}

#[test]
fn a_mount_without_privilege_reads_marked_layers_by_itself_and_one_with_privilege_does_not() {
    let Some(lab) = lab() else { return };
    if !user_can_mount() {
        return;
    }
    let l = unpacked(&lab, "l");
    let top = users_place(&lab, &l);
    let words = format!("lowerdir={}", l.display());
    let seen = seen_by_user(&top, &words, "stat -c '%F %a %u:%g' f null");
    assert_eq!(
        seen,
        "regular file 640 5:6\ncharacter special file 666 0:0\n"
    );
    let stack = crate::support::mount::Stack::new(&[l]);
    let mounted = lab.mount_stack("m", &stack);
    let told = shown(mounted.path(), "f null");
    assert_eq!(
        told,
        ["regular file 600 1:1 0,0", "regular empty file 644 1:1 0,0"]
    );
    assert_eq!(
        shell(
            mounted.path(),
            &format!("getfattr --only-values -n {KEY} f")
        ),
        "5:6:0640"
    );
}

#[test]
fn an_ordinary_user_keeps_owners_that_he_could_not_give() {
    let Some(lab) = lab() else { return };
    if !user_can_mount() {
        return;
    }
    let l = unpacked(&lab, "l");
    let top = users_place(&lab, &l);
    let words = format!(
        "lowerdir={},upperdir=u,workdir=w,xattr_permissions=2",
        l.display()
    );
    let seen = seen_by_user(
        &top,
        &words,
        "echo x >> plain; stat -c '%F %a %u:%g' d/old null plain d; \
         touch d/new; stat -c '%F %a %u:%g' d/new",
    );
    assert_eq!(
        seen,
        "regular file 751 9:9\ncharacter special file 666 0:0\nregular file 644 1:1\n\
         directory 1777 3:4\nregular empty file 644 1:1\n"
    );
    assert_eq!(noted(&top, "u/d"), "3:4:01777:dir");
}

#[test]
fn maps_count_for_kept_owners_too() {
    let Some(lab) = lab() else { return };
    let l = unpacked(&lab, "l");
    let words = format!("{KEPT},uidmapping=:0:1:5000,gidmapping=:0:1:5000");
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(&words));
    let m = mounted.path();
    assert_eq!(owners(m, "f d null"), "6:7 4:5 1:1");
    shell(m, "chown 9:9 f");
    shell_as(1, m, "touch d/new");
    assert_eq!(owners(m, "f d/new"), "9:9 1:1");
    let u = lab.upper("m");
    assert_eq!(noted(&u, "f"), "8:8:0640:file");
    assert_eq!(noted(&u, "d/new"), "0:0:0644:file");
    let said = fails(m, "chown 0 f");
    assert!(said.contains("Invalid argument"), "{said}");
}

#[test]
fn privileged_xattrs_keep_owners_where_root_asks_for_them() {
    let Some(lab) = lab() else { return };
    let l = unpacked(&lab, "l");
    let words = "allow_other,suid,dev,xattr_permissions=1";
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(words));
    let (m, u) = (mounted.path(), lab.upper("m"));
    shell(m, "touch new; chown 5:6 new; chmod 4751 new; touch f");
    assert_eq!(
        shown(m, "new f"),
        [
            "regular empty file 4751 5:6 0,0",
            "regular file 600 0:0 0,0",
        ]
    );
    let raw = shell(
        &u,
        "getfattr --only-values -n security.fuseoverlayfs.override_stat new",
    );
    assert_eq!(raw, "5:6:04751:file");
    assert_eq!(owners(&u, "new"), "0:0");
    assert_eq!(shell(m, "getfattr -dm - new"), "");
}

#[test]
fn an_upper_that_cannot_keep_owners_is_refused_by_name() {
    let Some(lab) = lab() else { return };
    // A filesystem without user xattrs: proc's tables say so, ramfs has none.
    let l = lab.layer("l", MarkFormat::Overlay, &["file f"]);
    let at = lab.dir("ram");
    shell(&at, "mount -t ramfs ramfs .; cd .; true");
    let upper = at.join("u");
    let stack = crate::support::mount::Stack::new(&[l])
        .upper(&upper, &at.join("w"))
        .words("xattr_permissions=2");
    let refused = lab.try_mount("m", &stack, crate::support::mount::Subject::Plyfs);
    shell(&lab.path("."), "umount ram");
    let said = refused.err().unwrap_or_default();
    assert!(
        said.contains(&format!(
            "{}: xattr_permissions cannot be kept in the upper",
            upper.display()
        )) && said.contains("put the upper on a filesystem with user xattrs"),
        "{said}"
    );
}
