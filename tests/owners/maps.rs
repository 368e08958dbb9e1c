//! `uidmapping`, `gidmapping` and `squash_to_*`: what stat shows, and what the layers have.

use std::path::PathBuf;

use crate::support::lab::{Lab, shell};
use crate::support::layers::MarkFormat;
use crate::{USER, fails, has_tools, owners, shell_as, user_can_mount};

const MAP: &str = "uidmapping=:0:1:5000,gidmapping=:0:1:5000";

const LOWER: [&str; 8] = [
    "dir open 1777 0:0 1000000000.5",
    "dir team 2777 0:20 1000000000.5",
    "file open/seven 666 7:8 1000000000.5 10 0+10+7",
    "file open/stranger 644 9999:9998 1000000000.5 10 0+10+7",
    "symlink open/link seven 7:8 1000000000.5",
    "file open/gone 644 7:8 1000000000.5 10 0+10+7",
    "dir open/tree 755 7:8 1000000000.5",
    "file open/tree/f 644 7:8 1000000000.5 10 0+10+7",
];

fn lab() -> Option<(Lab, PathBuf)> {
    let lab = Lab::new().filter(|_| has_tools())?;
    let lower = lab.layer("l", MarkFormat::Overlay, &LOWER);
    Some((lab, lower))
}

fn with(words: &str) -> String {
    format!("allow_other,suid,dev,{words}")
}

#[test]
fn owners_are_shown_as_outside_and_kept_as_inside() {
    let Some((lab, l)) = lab() else { return };
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(&with(MAP)));
    let m = mounted.path();
    assert_eq!(
        owners(m, ". open open/seven open/stranger open/link"),
        "1:1 1:1 8:9 65534:65534 8:9"
    );
    shell_as(
        1,
        m,
        "cd open; echo n > new; mkdir dir; mkfifo pipe; ln -s x sym; rm -f gone || true",
    );
    shell_as(30, m, "mkdir team/sub; echo n > team/new; ln -s x team/sym");
    shell(
        m,
        "chown 5:6 open/new; chown -h 9:10 open/link; chown 11 open/seven",
    );
    assert_eq!(
        owners(
            m,
            "open/new open/dir open/pipe open/sym open/link open/seven"
        ),
        "5:6 1:1 1:1 1:1 9:10 11:9"
    );
    assert_eq!(owners(m, "team/sub team/new team/sym"), "30:21 30:21 30:21");
    let u = lab.upper("m");
    assert_eq!(
        owners(
            &u,
            "open/new open/dir open/pipe open/sym open/link open/seven"
        ),
        "4:5 0:0 0:0 0:0 8:9 10:8"
    );
    assert_eq!(
        owners(&u, "team/sub team/new team/sym"),
        "29:20 29:20 29:20"
    );
}

#[test]
fn an_id_that_cannot_be_kept_is_refused_and_a_file_of_its_owner_is_nobodys() {
    let Some((lab, l)) = lab() else { return };
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(&with(MAP)));
    let m = mounted.path();
    for command in [
        "chown 0",
        "chown 5001",
        "chgrp 0",
        "chown 1:6000",
        "chown 70000:1",
    ] {
        let said = fails(m, &format!("{command} open/seven"));
        assert!(said.contains("Invalid argument"), "{command}: {said}");
    }
    assert_eq!(owners(m, "open/seven"), "8:9");
    shell(m, "touch open/roots");
    assert_eq!(owners(m, "open/roots"), "65534:65534");
    assert_eq!(owners(&lab.upper("m"), "open/roots"), "65534:65534");
    shell(m, "chown 1:1 open/roots");
    assert_eq!(owners(&lab.upper("m"), "open/roots"), "0:0");
}

#[test]
fn a_copy_keeps_its_owner_also_where_that_is_not_shown() {
    let Some((lab, l)) = lab() else { return };
    let stack = lab.stack("m", &[l]).words(&with(MAP));
    let mounted = lab.mount_stack("m", &stack);
    let m = mounted.path();
    shell(
        m,
        "chmod 640 open/stranger; echo x >> open/seven; mv open/tree open/moved; \
         mv open/seven team/; ln open/stranger open/again; rm open/gone",
    );
    shell_as(1, m, "echo new > open/gone; echo x > open/moved2");
    let shown = "open/stranger open/again team/seven open/moved open/moved/f open/gone";
    let expected = "65534:65534 65534:65534 8:9 8:9 8:9 1:1";
    assert_eq!(owners(m, shown), expected);
    let u = lab.upper("m");
    assert_eq!(
        owners(&u, "open/stranger team/seven open/moved open/gone"),
        "9999:9998 7:8 7:8 0:0"
    );
    mounted.unmount().expect("it unmounts");
    let again = lab.mount_stack("m", &stack);
    assert_eq!(owners(again.path(), shown), expected);
}

#[test]
fn the_rights_of_an_owner_are_those_of_the_id_that_is_shown() {
    let Some((lab, l)) = lab() else { return };
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(&with(MAP)));
    let m = mounted.path();
    shell_as(8, m, "chmod 600 open/seven; echo x >> open/seven");
    let said = fails(
        m,
        "setpriv --reuid 7 --regid 7 --clear-groups cat open/seven",
    );
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(shell(m, "stat -c %a open/seven"), "600\n");
    // A stranger to the group loses setgid, a member does not.
    shell(m, "chmod 2755 open/tree/f");
    shell_as(8, m, "chmod 2755 open/seven");
    assert_eq!(shell(m, "stat -c %a open/seven open/tree/f"), "755\n2755\n");
}

#[test]
fn the_ids_in_acls_are_mapped_as_owners_are() {
    let Some((lab, l)) = lab() else { return };
    shell(
        &l,
        "setfacl -m u:3:rw,g:4:r open/tree/f; setfacl -d -m u:3:rwx open",
    );
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(&with(MAP)));
    let (m, u) = (mounted.path(), lab.upper("m"));
    let acl = |at: &std::path::Path, name: &str| shell(at, &format!("getfacl -pnc {name}"));
    assert!(acl(m, "open/tree/f").contains("user:4:rw-\n"));
    assert!(acl(m, "open/tree/f").contains("group:5:r--\n"));
    shell_as(4, m, "echo more >> open/tree/f");
    assert!(acl(&u, "open/tree/f").contains("user:3:rw-\ngroup::r--\ngroup:4:r--\n"));
    shell(m, "setfacl -m u:11:r open/seven");
    assert!(acl(m, "open/seven").contains("user:11:r--\n"));
    assert!(acl(&u, "open/seven").contains("user:10:r--\n"));
    let said = fails(m, "setfacl -m u:5001:r open/seven");
    assert!(said.contains("Invalid argument"), "{said}");
    shell_as(1, m, "touch open/heir; mkdir open/heirs");
    assert!(acl(m, "open/heir").contains("user:4:"));
    assert!(acl(&u, "open/heirs").contains("default:user:3:rwx\n"));
}

#[test]
fn several_triples_change_places() {
    let Some((lab, l)) = lab() else { return };
    let words = with(
        "uidmapping=:0:1:1001:1001:0:1:1002:1002:64535,gidmapping=0:1:1001:1001:0:1:1002:1002:64535",
    );
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(&words));
    let m = mounted.path();
    assert_eq!(
        owners(m, "open open/seven open/stranger"),
        "1:1 8:9 9999:9998"
    );
    shell(m, "touch open/mine; chown 1002:1002 open/seven");
    let u = lab.upper("m");
    assert_eq!(owners(&u, "open/mine open/seven"), "1001:1001 1002:1002");
    assert_eq!(owners(m, "open/mine open/seven"), "0:0 1002:1002");
}

#[test]
fn users_alone_may_be_mapped() {
    let Some((lab, l)) = lab() else { return };
    let words = with("uidmapping=0:100:65536");
    let mounted = lab.mount_stack("m", &lab.stack("m", &[l]).words(&words));
    assert_eq!(owners(mounted.path(), "open/seven"), "107:8");
    shell(mounted.path(), "chown 120:20 open/seven");
    assert_eq!(owners(&lab.upper("m"), "open/seven"), "20:20");
}

#[test]
fn all_owners_are_shown_as_one() {
    let Some((lab, l)) = lab() else { return };
    for (name, words, shown) in [
        ("root", "squash_to_root", "0:0"),
        ("ids", "squash_to_uid=55,squash_to_gid=66", "55:66"),
        ("uid", "squash_to_uid=55", "55:8"),
    ] {
        let stack = lab.stack(name, std::slice::from_ref(&l));
        let mounted = lab.mount_stack(name, &stack.words(&with(words)));
        let m = mounted.path();
        assert_eq!(owners(m, "open/seven"), shown, "{name}");
        shell(
            m,
            "chown 12 open/seven; echo x >> open/tree/f; echo n > open/new",
        );
        assert_eq!(
            owners(m, "open/seven open/tree/f"),
            format!("{shown} {shown}")
        );
        assert_eq!(
            owners(&lab.upper(name), "open/seven open/tree/f open/new"),
            "12:8 7:8 0:0"
        );
    }
}

#[test]
fn an_ordinary_user_who_shows_all_as_root_may_change_the_files_of_others() {
    let Some((lab, l)) = lab() else { return };
    if !user_can_mount() {
        return;
    }
    let top = lab.dir("user");
    let script = format!(
        "cp {} plyfs; mkdir u w m; chown 1:1 . u w m; chmod 755 . ..",
        crate::support::mount::plyfs_binary().display()
    );
    shell(&top, &script);
    let words = format!(
        "lowerdir={},upperdir=u,workdir=w,squash_to_root",
        l.display()
    );
    let seen = shell_as(
        USER,
        &top,
        &format!(
            "./plyfs -o {words} m; P=$PWD; trap '$P/plyfs umount $P/m' EXIT; cd m; \
             stat -c %u:%g open/seven; echo more >> open/seven; : > open/new; \
             stat -c %u:%g open/seven open/new; cd .."
        ),
    );
    assert_eq!(seen, "0:0\n0:0\n0:0\n");
    assert_eq!(owners(&top, "u/open/seven u/open/new"), "1:1 1:1");
}
