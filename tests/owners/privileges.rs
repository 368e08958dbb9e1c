//! What root of a user namespace keeps of setuid and setgid, beside the kernel's overlayfs.

use std::path::Path;

use crate::idmapped::namespace;
use crate::support::lab::{Lab, shell};
use crate::support::layers::MarkFormat;
use crate::support::mount::{Subject, plyfs_binary};
use crate::support::skip;
use crate::{USER, has_tools};

/// The first id that the namespace has a name for.
const FIRST: u32 = 100_000;

/// One act on each file, and the modes that are left.
const ACTS: &str = "for f in own plain alien; do \
     truncate -s 5 truncate-$f; fallocate -l 9000 allocate-$f; \
     printf x | dd of=write-$f conv=notrunc status=none; : > cut-$f; done; \
     for f in own plain; do chown 0:6 chown-$f; chown 0 uid-$f; chmod 2640 mode-$f; \
     setfacl -m u:9:r acl-$f; done; chmod 2640 mode-group; setfacl -m u:9:r acl-group; \
     for f in *; do stat -c '%n %a' $f; done";

/// Files with setuid and setgid of the namespace's root and its group 5 (`own`), with the setgid
/// bit alone (`plain`), of ids that are unknown there (`alien`), and of a group unknown there.
fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for act in [
        "truncate", "allocate", "write", "cut", "chown", "uid", "mode", "acl",
    ] {
        for (who, mode, uid, gid) in [
            ("own", 6755, FIRST, FIRST + 5),
            ("plain", 2644, FIRST, FIRST + 5),
            ("alien", 6777, 7, 7),
            ("group", 2644, FIRST, 7),
        ] {
            let name = format!("{act}-{who}");
            lines.push(format!(
                "file {name} {mode} {uid}:{gid} 1000000000.5 10 0+10+7"
            ));
        }
    }
    lines
}

#[test]
fn root_of_a_user_namespace_loses_by_writing_what_he_loses_on_overlayfs() {
    let Some(lab) = Lab::new().filter(|_| has_tools()) else {
        return;
    };
    if !skip::has_tool("nsenter") || skip::in_user_namespace() {
        return;
    }
    let lines = lines();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let layer = lab.layer("l", MarkFormat::Overlay, &lines);
    let (mut child, _ns) = namespace(&format!("0 {FIRST} 1000\n"));
    let enter = format!("nsenter -U -S 0 -G 0 -t {} sh -ec \"$ACTS\"", child.id());
    let enter = format!("ACTS='{}'; {enter}", ACTS.replace('\'', "'\\''"));
    let mut seen = Vec::new();
    for (name, subject) in [("p", Subject::Plyfs), ("k", Subject::Kernel)] {
        let stack = lab.stack(name, std::slice::from_ref(&layer));
        let stack = match subject {
            Subject::Plyfs => stack.words("allow_other,suid"),
            _ => stack,
        };
        match lab.try_mount(name, &stack, subject) {
            Ok(mounted) => seen.push(shell(mounted.path(), &enter)),
            Err(e) if subject == Subject::Kernel => skip::skipped(&e),
            Err(e) => panic!("{e}"),
        }
    }
    child.kill().expect("it ends");
    child.wait().expect("it ends");
    let plyfs = &seen[0];
    for line in [
        "truncate-own 755",
        "truncate-plain 2644",
        "truncate-alien 777",
        "allocate-own 755",
        "write-own 755",
        "cut-own 755",
        "chown-own 755",
        "chown-plain 2644",
        "mode-plain 2640",
        "mode-group 640",
    ] {
        assert!(plyfs.lines().any(|found| found == line), "{line}:\n{plyfs}");
    }
    if let Some(kernel) = seen.get(1) {
        assert_eq!(plyfs, kernel);
    }
}

/// Mounts in a user namespace that a user has made, where nobody has privilege outside.
#[test]
fn a_daemon_in_a_user_namespace_clears_what_overlayfs_clears_there() {
    let Some(lab) = Lab::new().filter(|_| has_tools()) else {
        return;
    };
    if skip::in_user_namespace() || !skip::has_tool("unshare") || !crate::user_can_mount() {
        return;
    }
    let at = lab.path(".");
    shell(
        &at,
        &format!("mkdir l u w p-u p-w m; chown {USER}:{USER} l u w p-u p-w m; chmod 755 ."),
    );
    let seen = |mount: &str| in_namespace(&at, mount);
    let Some(plyfs) = seen(&format!(
        "{} -o lowerdir=l,upperdir=p-u,workdir=p-w m",
        plyfs_binary().display()
    )) else {
        return skip::skipped("no user namespaces for users here");
    };
    assert_eq!(plyfs, "755\n755\n755\n755\n2644\n2644\n");
    match seen("mount -t overlay overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w m") {
        Some(kernel) => assert_eq!(plyfs, kernel),
        None => skip::skipped("no overlayfs in user namespaces here"),
    }
}

/// What is left of the modes after root of a user's namespace has written through `mount`; `None`
/// where that can not be mounted.
fn in_namespace(at: &Path, mount: &str) -> Option<String> {
    let script = format!(
        "cd l; for f in a b c d; do echo long > $f; chmod 6755 $f; done; \
         for f in e f; do echo long > $f; chmod 2644 $f; done; cd ..; \
         {mount} || exit 0; cd m; \
         truncate -s 1 a; fallocate -l 9000 b; echo x >> c; : > d; truncate -s 1 e; chown 0 f; \
         stat -c %a a b c d e f; cd ..; umount m"
    );
    let quoted = script.replace('\'', "'\\''");
    let user = format!("setpriv --reuid {USER} --regid {USER} --clear-groups");
    let said = shell(
        at,
        &format!("{user} unshare -Urm sh -ec '{quoted}' 2>&1 || true"),
    );
    said.contains("755").then_some(said)
}

#[test]
fn a_store_through_a_mapping_keeps_setuid_where_the_daemon_is_a_users() {
    let Some(lab) = Lab::new().filter(|_| has_tools()) else {
        return;
    };
    if !crate::user_can_mount() || !skip::has_tool("python3") {
        return;
    }
    let at = lab.path(".");
    shell(
        &at,
        &format!("chmod 755 .; mkdir l u w m; chown {USER}:{USER} l u w m"),
    );
    let script = "for f in store write; do echo long > l/$f; chmod 6755 l/$f; done; \
         $P -o lowerdir=l,upperdir=u,workdir=w m; \
         python3 -c 'import mmap; f = open(\"m/store\", \"r+b\"); m = mmap.mmap(f.fileno(), 4); \
             m[0:4] = b\"LONG\"; m.flush()'; \
         echo more >> m/write; stat -c %a m/store m/write; $P umount m; \
         stat -c %a u/store u/write; cat u/store";
    let script = script.replace("$P", &plyfs_binary().display().to_string());
    let said = crate::shell_as(USER, &at, &script);
    assert_eq!(said, "6755\n755\n6755\n755\nLONG\n");
}
