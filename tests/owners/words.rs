//! Words of other programs that mean something here too.

use std::path::PathBuf;

use crate::support::lab::{Lab, shell};
use crate::support::layers::MarkFormat;
use crate::support::mount::Mounted;
use crate::{fails, has_tools};

fn mounted(words: &str) -> Option<(Lab, Mounted, PathBuf)> {
    let lab = Lab::new().filter(|_| has_tools())?;
    let lines = [
        "dir d",
        "dir d/e",
        "dir d/f",
        "file f",
        "xattr f user.note 1",
    ];
    let l = lab.layer("l", MarkFormat::Overlay, &lines);
    shell(&l, "setfacl -m u:3:r f");
    let stack = lab
        .stack("m", &[l])
        .words(&format!("allow_other,suid,dev,{words}"));
    let mounted = lab.mount_stack("m", &stack);
    let upper = lab.upper("m");
    Some((lab, mounted, upper))
}

#[test]
fn without_acls_there_are_none_and_a_copy_keeps_them() {
    let Some((_lab, mounted, upper)) = mounted("noacl") else {
        return;
    };
    let m = mounted.path();
    let listed = shell(m, "getfattr -m - f");
    assert!(
        listed.contains("user.note") && !listed.contains("posix_acl"),
        "{listed}"
    );
    let said = fails(m, "setfacl -m u:4:r f");
    assert!(said.contains("not supported"), "{said}");
    shell(m, "echo x >> f");
    assert!(shell(&upper, "getfacl -pnc f").contains("user:3:r--"));
}

#[test]
fn without_xattrs_there_are_none_and_a_copy_keeps_them() {
    let Some((_lab, mounted, upper)) = mounted("noxattrs=1") else {
        return;
    };
    let m = mounted.path();
    assert!(fails(m, "getfattr -m - f").contains("not supported"));
    let said = fails(m, "setfattr -n user.x -v 1 f");
    assert!(said.contains("not supported"), "{said}");
    shell(m, "echo x >> f; rm -r d; mkdir d");
    assert!(shell(&upper, "getfattr -d f").contains("user.note=\"1\""));
    assert_eq!(shell(m, "ls d"), "");
}

#[test]
fn static_link_counts_are_one() {
    let Some((lab, mounted, _)) = mounted("static_nlink") else {
        return;
    };
    let m = mounted.path();
    shell(m, "mkdir -p new/a new/b; ln f g");
    assert_eq!(shell(m, "stat -c %h . d new f"), "1\n1\n1\n2\n");
    drop(lab);
}

#[test]
fn a_sync_that_is_not_wanted_is_not_done() {
    for (words, expected) in [("fsync=0", 0), ("fsync=1", 1)] {
        let Some((lab, mounted, _)) = mounted(words) else {
            return;
        };
        let m = mounted.path();
        let before = sync_requests(&lab, m);
        shell(m, "echo x > new; sync new; sync new");
        let asked = sync_requests(&lab, m) - before;
        assert!(
            asked >= expected && (asked > 0) == (expected > 0),
            "{words}: {asked}"
        );
    }
}

/// How many fsync requests were served, as `plyfs stat` counts them.
fn sync_requests(lab: &Lab, m: &std::path::Path) -> u64 {
    let program = crate::support::mount::plyfs_binary();
    let said = shell(
        &lab.path("."),
        &format!("{} stat --json {}", program.display(), m.display()),
    );
    let after = said.split("\"fsync\"").nth(1).unwrap_or_default();
    let digits: String = after
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or(0)
}

#[test]
fn sync_is_a_flag_of_the_mount() {
    let Some((_lab, mounted, _)) = mounted("sync") else {
        return;
    };
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is mounted");
    let at = format!(" {} ", mounted.path().display());
    let line = table
        .lines()
        .find(|line| line.contains(&at))
        .expect("it is mounted");
    // The flag is the filesystem's, not the mount's: it stands in the last field.
    let options = line.rsplit(' ').next().expect("a field");
    assert!(options.split(',').any(|word| word == "sync"), "{line}");
    shell(mounted.path(), "echo x > new; cat new");
}

const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

#[test]
fn a_label_is_for_selinux_and_nothing_without_it() {
    let Some((_lab, mounted, _)) = mounted(&format!("context=\"{LABEL}\"")) else {
        return;
    };
    let m = mounted.path();
    assert_eq!(shell(m, "ls -d d/e f; echo x >> f").lines().count(), 2);
    let seen = fails(m, "getfattr -h --only-values -n security.selinux f");
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        assert!(seen.contains(LABEL), "{seen}");
    } else {
        assert!(!seen.contains("WELL"), "{seen}");
        let options = shell(m, "findmnt -n -o OPTIONS -T .");
        assert!(!options.contains("context"), "{options}");
    }
}

#[test]
fn what_is_no_label_is_refused_in_one_line() {
    let Some((lab, _mounted, _)) = mounted("noacl") else {
        return;
    };
    let layers = lab.stack("c", &[lab.path("l")]);
    for words in ["context=", "context=\"\"", "context=a\"b", "context"] {
        let stack = layers.clone().words(words);
        let refused = lab.try_mount("c", &stack, crate::support::mount::Subject::Plyfs);
        let Err(said) = refused else {
            panic!("{words}: it is mounted");
        };
        assert!(said.contains("option context"), "{words}: {said}");
    }
}
