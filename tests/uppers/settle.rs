//! `plyfs settle`: the kernel, with none of overlayfs's options, shows what plyfs showed.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::support::backing::Kind;
use crate::support::lab::{Lab, build, shell};
use crate::support::layers::MarkFormat;
use crate::support::mount::{Stack, Subject, plyfs_binary, run};
use crate::support::tree;
use crate::support::{skip, sys};
use crate::{LIMIT, PLAINEST, assert_same, assert_sound, changed, settle, stderr, verb, view};

/// Mounts the settled upper with the kernel and compares.
fn kernel_shows(lab: &Lab, name: &str, stack: &Stack, wanted: &tree::Tree) {
    let stack = stack.clone().words(PLAINEST);
    let mounted = lab.mount_kernel(&format!("k-{name}"), &stack);
    let got = view(mounted.path());
    assert_same(name, ("plyfs", wanted), ("kernel", &got));
    mounted.unmount().expect("it unmounts");
}

fn settled_uppers_are_the_kernels(kind: Kind) {
    let Some(lab) = Lab::on(kind) else { return };
    if !skip::has_filesystem("overlay") {
        return;
    }
    let (stack, wanted) = changed(&lab, "a");
    let said = settle(&stack, &[]);
    assert!(said.contains("/u-a: settled: "), "{said}");
    kernel_shows(&lab, "a", &stack, &wanted);
    assert_sound(&stack);
    let again = lab.mount_stack("a", &stack);
    assert_same(
        "plyfs again",
        ("before", &wanted),
        ("after", &view(again.path())),
    );
    shell(
        again.path(),
        "echo y >> d/b; cmp d/b fresh/link; mv e e2; test -e e2/sub2/deep/new",
    );
}

#[test]
fn a_settled_upper_is_the_kernels_on_ext4() {
    settled_uppers_are_the_kernels(Kind::Ext4);
}

#[test]
fn a_settled_upper_is_the_kernels_on_xfs() {
    settled_uppers_are_the_kernels(Kind::Xfs);
}

#[test]
fn a_settled_upper_is_the_kernels_on_btrfs() {
    settled_uppers_are_the_kernels(Kind::Btrfs);
}

#[test]
fn a_settled_upper_is_the_kernels_on_tmpfs() {
    settled_uppers_are_the_kernels(Kind::Tmpfs);
}

/// Everything in the upper and its work directory.
fn on_disk(lab: &Lab, name: &str) -> tree::Tree {
    let mut all = tree::read(&lab.upper(name));
    all.extend(
        tree::read(&lab.path(&format!("w-{name}")))
            .into_iter()
            .map(|(path, mut node)| {
                // The probe of a mount goes through these.
                if path.is_empty() || path == b"work" {
                    node.stat.mtime = (0, 0);
                }
                ([b"work: ", &*path].concat(), node)
            }),
    );
    all
}

#[test]
fn settling_twice_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let (stack, _) = changed(&lab, "a");
    settle(&stack, &[]);
    let before = on_disk(&lab, "a");
    let said = settle(&stack, &[]);
    assert!(said.ends_with("was settled already\n"), "{said}");
    let lines = tree::differences(("first", &before), ("second", &on_disk(&lab, "a")));
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert_eq!(settle(&stack, &["--quiet"]), "");
}

#[test]
fn marks_of_every_format_become_overlayfss_own() {
    let Some(lab) = Lab::new() else { return };
    let lower = [
        "dir d", "file d/a", "file d/b", "dir o", "file o/x", "file e", "dir f", "file f/x",
    ];
    lab.layer("l", MarkFormat::Overlay, &lower);
    for format in MarkFormat::ALL {
        let name = format.name();
        // In a trusted upper those in user.overlay are nobody's marks.
        if format == MarkFormat::UserXattr || format == MarkFormat::Mixed {
            continue;
        }
        let stack = lab.stack(name, &[lab.path("l")]);
        let upper = lab.upper(name);
        let lines = [
            "dir .",
            "dir d 711",
            "whiteout d/a",
            "whiteout d/none",
            "whiteout e",
            "dir o",
            "opaque o",
            "file o/y",
            "dir own",
            "whiteout own/w",
            "file new",
        ];
        build(&upper, format, &lines);
        // What is deleted and there again, by a file beside it; and leftovers of AUFS.
        shell(
            &upper,
            "mkdir f; touch f/new .wh.f; mkdir .wh..wh.plnk; touch .wh..wh.plnk/1",
        );
        let mounted = lab.mount_stack(name, &stack);
        let wanted = view(mounted.path());
        mounted.unmount().expect("it unmounts");
        settle(&stack, &[]);
        kernel_shows(&lab, name, &stack, &wanted);
        let left: Vec<_> = tree::read(&upper)
            .into_iter()
            .filter(|(path, node)| {
                let file = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
                let xattr = |k: &Vec<u8>| k.starts_with(b"user.") || k.ends_with(b".whiteout");
                file.starts_with(b".wh.") || node.xattrs.keys().any(xattr)
            })
            .map(|(path, _)| String::from_utf8_lossy(&path).into_owned())
            .collect();
        assert!(left.is_empty(), "{name}: {left:?}");
        assert_sound(&stack);
    }
}

#[test]
fn lower_layers_that_overlayfs_reads_otherwise_are_covered() {
    let Some(lab) = Lab::new() else { return };
    lab.layer(
        "l2",
        MarkFormat::Overlay,
        &[
            "dir d",
            "file d/hidden",
            "file d/seen",
            "dir m",
            "file m/x",
            "dir s",
            "file s/y",
        ],
    );
    lab.layer(
        "l1",
        MarkFormat::Files,
        &["dir d", "whiteout d/hidden", "file d/own", "dir s"],
    );
    // A layer that was an upper once, with a renamed directory in it.
    let stack = lab.stack("lower", &[lab.path("l2")]);
    let mounted = lab.mount_stack("lower", &stack);
    shell(mounted.path(), "mv m m2");
    mounted.unmount().expect("it unmounts");
    let lowers = [lab.upper("lower"), lab.path("l1"), lab.path("l2")];
    let stack = lab.stack("a", &lowers);
    let mounted = lab.mount_stack("a", &stack);
    let wanted = view(mounted.path());
    mounted.unmount().expect("it unmounts");
    settle(&stack, &[]);
    kernel_shows(&lab, "a", &stack, &wanted);
    // What both read alike is not copied.
    assert!(!lab.upper("a").join("s").exists());
    assert!(lab.upper("a").join("m2/x").exists() && lab.upper("a").join("d/own").exists());
}

#[test]
fn a_lower_layer_with_foreign_marks_at_its_top_is_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("l2", MarkFormat::Overlay, &["file a", "file b"]);
    lab.layer("l1", MarkFormat::Files, &["whiteout a", "dir d"]);
    let stack = lab.stack("a", &[lab.path("l1"), lab.path("l2")]);
    let out = verb(&stack, "settle", &[]);
    assert_eq!(out.status.code(), Some(1));
    let said = stderr(&out);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("l1 has the mark .wh.a at its top"), "{said}");
    // Its remedy helps.
    let first = Stack::new(&[lab.path("l2")]).upper(&lab.path("l1"), &lab.dir("w-l1"));
    settle(&first, &[]);
    settle(&stack, &[]);
}

#[test]
fn an_upper_of_the_other_kind_of_mount_is_not_stripped_of_its_marks() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("l", MarkFormat::Overlay, &["dir d", "file d/x"]);
    let stack = lab.stack("a", &[lab.path("l")]);
    build(
        &lab.upper("a"),
        MarkFormat::UserXattr,
        &["dir d", "opaque d", "file d/y"],
    );
    let before = tree::read(&lab.upper("a"));
    let out = verb(&stack, "settle", &[]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        stderr(&out).contains("add -o userxattr"),
        "{}",
        stderr(&out)
    );
    let lines = tree::differences(("before", &before), ("after", &tree::read(&lab.upper("a"))));
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    let out = verb(&stack, "check", &[]);
    assert_eq!(out.status.code(), Some(1));
    let said = crate::stdout(&out);
    assert!(
        said.contains("u-a: its only mark is in user.overlay: "),
        "{said}"
    );
    settle(&stack.clone().words("userxattr"), &[]);
    let opaque = sys::lgetxattr(
        lab.upper("a").join("d").as_os_str().as_bytes(),
        "user.overlay.opaque",
    );
    assert_eq!(opaque.as_deref(), Ok(&b"y"[..]));
    // And it can be moved.
    settle(&stack, &["--trusted"]);
    let path = lab.upper("a").join("d");
    let keys = sys::llistxattr(path.as_os_str().as_bytes()).expect("it has xattrs");
    assert_eq!(keys, [b"trusted.overlay.opaque"]);
    let said = settle(&stack, &["--trusted"]);
    assert!(said.ends_with("was settled already\n"), "{said}");
}

#[test]
fn with_userxattr_the_marks_change_their_namespace_and_all_of_them_do() {
    let Some(lab) = Lab::new() else { return };
    let (stack, wanted) = changed(&lab, "a");
    settle(&stack, &["--userxattr"]);
    let marks = |upper: &tree::Tree, prefix: &[u8]| {
        let all = upper.values().flat_map(|node| node.xattrs.keys());
        all.filter(|key| key.starts_with(prefix)).count()
    };
    let before = tree::read(&lab.upper("a"));
    assert_eq!(marks(&before, b"trusted.overlay."), 0);
    assert!(marks(&before, b"user.overlay.") > 5);
    let user = stack.clone().words(&format!(
        "userxattr,{}",
        PLAINEST.replace("metacopy=off,", "")
    ));
    let mounted = lab.mount_kernel("k", &user);
    let got = view(mounted.path());
    assert_same("userxattr", ("plyfs", &wanted), ("kernel", &got));
    mounted.unmount().expect("it unmounts");
    // Once more: nothing is left to do, and nothing is undone.
    let said = settle(&stack, &["--userxattr"]);
    assert!(said.ends_with("was settled already\n"), "{said}");
    let lines = tree::differences(("first", &before), ("second", &tree::read(&lab.upper("a"))));
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn an_ordinary_users_settled_upper_is_the_kernels_in_a_user_namespace() {
    if !skip::can_mount() || !skip::has_tool("setpriv") || !skip::has_tool("setfattr") {
        return;
    }
    // Under a mode that lets another user in.
    let Some(lab) = Lab::new() else { return };
    let stage = lab.dir("stage");
    for dir in std::iter::successors(Some(stage.as_path()), |dir| dir.parent()).take(2) {
        sys::chmod(dir.as_os_str().as_bytes(), 0o755).expect("chmod");
    }
    std::fs::copy(plyfs_binary(), stage.join("plyfs")).expect("the program can be copied");
    sys::lchown(stage.as_os_str().as_bytes(), 1, 1).expect("chown");
    std::fs::write(stage.join("changes"), crate::CHANGES).expect("a script");
    let script = r#"
        mkdir -p low/d/sub/deep low/e low/moved/in low/gone up work mnt k
        echo z > low/d/sub/deep/z; echo a > low/d/a; echo b > low/d/b; ln low/d/b low/d/h; ln low/d/b low/other
        echo f > low/e/f; mkfifo low/e/fifo; echo m > low/moved/m; echo n > low/moved/in/n
        echo g > low/gone/g; echo t > low/top; setfattr -n user.note -v 1 low/e/f
        show() {
            (cd $1; find . -type d -printf '%p %M %U:%G %T@\n' -o -printf '%p %M %U:%G %n %s %T@ %l\n'
             find . -type f -exec md5sum {} + ; getfattr -dR -m ^user.note .) | sort
        }
        ./plyfs mount --lower low --upper up --work work mnt
        (cd mnt; sh -e ../changes)
        show mnt > before
        ./plyfs umount mnt
        # Some origins are elsewhere by now, which only root can follow.
        ./plyfs check --lower low --upper up --work work | grep -q 'up: sound (.*; of 2 origins only root'
        ./plyfs settle --lower low --upper up --work work
        mount -t overlay overlay -o userxattr,lowerdir=low,upperdir=up,workdir=work k
        show k > after
        umount k
        diff before after >&2
    "#;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1", "--regid", "1", "--clear-groups"]);
    command.args(["unshare", "-Urm", "sh", "-ec", script]);
    command.current_dir(&stage).env("HOME", &stage);
    let out = run(&mut command, LIMIT).expect("it ends in time");
    if stderr(&out).contains("unshare") {
        skip::skipped("user namespaces are not for everyone here");
        return;
    }
    assert!(out.status.success(), "{}: {}", out.status, stderr(&out));
}

#[test]
fn users_own_xattrs_that_look_like_marks_stay_and_are_told_of() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("l", MarkFormat::Overlay, &["dir d"]);
    let stack = lab.stack("a", &[lab.path("l")]);
    let set = "user.overlay.opaque";
    let mounted = lab.mount_stack("a", &stack);
    sys::lsetxattr(
        mounted.path().join("d").as_os_str().as_bytes(),
        set,
        b"mine",
        0,
    )
    .expect("the union takes it");
    mounted.unmount().expect("it unmounts");
    let said = settle(&stack, &[]);
    assert!(
        said.contains("overlayfs shows 1 of users' xattrs"),
        "{said}"
    );
    let mounted = lab.mount_stack("a", &stack);
    let value = sys::lgetxattr(mounted.path().join("d").as_os_str().as_bytes(), set);
    assert_eq!(value.as_deref(), Ok(&b"mine"[..]));
}

/// Has each file as many links as names. With `nfs_export` the kernel counts the index entry of
/// a file that it has looked up anew, which is whenever memory was short meanwhile.
fn count_names(tree: &mut tree::Tree) {
    let mut names: BTreeMap<u64, u64> = BTreeMap::new();
    for node in tree.values() {
        *names.entry(node.stat.ino).or_default() += 1;
    }
    for node in tree.values_mut().filter(|node| !node.stat.is_dir()) {
        node.stat.nlink = names.get(&node.stat.ino).copied().unwrap_or_default();
    }
}

#[test]
fn the_kernels_own_uppers_are_settled() {
    let Some(lab) = Lab::new() else { return };
    if !skip::has_filesystem("overlay") {
        return;
    }
    lab.layer("l", MarkFormat::Overlay, crate::LOWER);
    for (name, words) in [
        ("all", "redirect_dir=on,metacopy=on,index=on,xino=off"),
        (
            "nfs",
            "redirect_dir=nofollow,metacopy=off,nfs_export=on,index=on",
        ),
    ] {
        let stack = lab.stack(name, &[lab.path("l")]);
        let mounted = lab.mount_kernel(name, &stack.clone().words(words));
        shell(mounted.path(), crate::CHANGES);
        let mut wanted = view(mounted.path());
        count_names(&mut wanted);
        mounted.unmount().expect("it unmounts");
        settle(&stack, &[]);
        kernel_shows(&lab, name, &stack, &wanted);
        assert!(!lab.path(&format!("w-{name}/index")).exists());
    }
}

#[test]
fn a_file_whose_data_are_missing_is_named() {
    let Some(lab) = Lab::new() else { return };
    let (stack, _) = changed(&lab, "a");
    let file = lab.upper("a").join("e/f");
    let path = file.as_os_str().as_bytes();
    let metacopy = sys::lgetxattr(path, "trusted.overlay.metacopy");
    assert!(metacopy.is_ok(), "chmod copied no data: {metacopy:?}");
    sys::lsetxattr(path, "trusted.overlay.redirect", b"/nowhere", 0).expect("an xattr");
    let out = verb(&stack, "settle", &[]);
    assert_eq!(out.status.code(), Some(1));
    let said = stderr(&out);
    assert!(
        said.contains("u-a/e/f: no layer below has the file that its data are in; "),
        "{said}"
    );
    sys::lremovexattr(path, "trusted.overlay.redirect").expect("an xattr");
    settle(&stack, &[]);
    assert!(sys::lgetxattr(path, "trusted.overlay.metacopy").is_err());
}

#[test]
fn fuse_overlayfss_upper_is_settled() {
    if !skip::has_tool("fuse-overlayfs") {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    lab.layer("l", MarkFormat::Overlay, crate::LOWER);
    let stack = lab.stack("a", &[lab.path("l")]);
    let mounted = lab
        .try_mount("a", &stack, Subject::FuseOverlayfs)
        .unwrap_or_else(|e| panic!("{e}"));
    shell(
        mounted.path(),
        "rm d/a; rm -r gone; mkdir gone; echo x > gone/y; mv top top2; rm -r moved",
    );
    mounted.unmount().expect("it unmounts");
    let mounted = lab.mount_stack("b", &stack);
    let wanted = view(mounted.path());
    mounted.unmount().expect("it unmounts");
    settle(&stack, &[]);
    kernel_shows(&lab, "a", &stack, &wanted);
}

/// The data of data-only layers comes into the upper, for files of a lower layer as well as for
/// those that were copied up without, and the layers can go.
#[test]
fn a_settled_upper_needs_no_data_only_layer() {
    let Some(lab) = Lab::new() else { return };
    if !skip::has_filesystem("overlay") {
        return;
    }
    let data = ["dir o", "file o/1 5000", "file o/2 7000"];
    lab.layer("data", MarkFormat::Overlay, &data);
    let refers = |name: &str, to: &str| {
        vec![
            format!("xattr {name} trusted.overlay.metacopy %"),
            format!("xattr {name} trusted.overlay.redirect {to}"),
        ]
    };
    let mut lines: Vec<String> = [
        "dir d",
        "file d/a 644 3:4 1.5 5000 -",
        "file d/b 600 0:0 2.5 7000 -",
        "file c 644 0:0 3.5 7000 -",
        "file plain",
    ]
    .map(String::from)
    .to_vec();
    for (name, to) in [("d/a", "/o/1"), ("d/b", "/o/2"), ("c", "/o/2")] {
        lines.extend(refers(name, to));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let lower = lab.layer("l", MarkFormat::Overlay, &lines);
    let words = format!("datadir+={}", lab.path("data").display());
    let stack = lab.stack("a", &[lower]).words(&words);
    let mounted = lab.mount_stack("a", &stack);
    shell(
        mounted.path(),
        "cmp c d/b; chmod 640 d/a; mv d/a moved; setfattr -n user.x -v y plain",
    );
    let wanted = view(mounted.path());
    mounted.unmount().expect("it unmounts");
    let said = settle(&stack, &[]);
    assert!(said.contains("/u-a: settled: "), "{said}");
    // The kernel gets no data-only layer.
    kernel_shows(&lab, "a", &stack, &wanted);
    assert_sound(&stack);
    let said = settle(&stack, &[]);
    assert!(said.ends_with("was settled already\n"), "{said}");
}

/// A settle without the layer that has the data says so, and changes nothing.
#[test]
fn settling_without_the_data_only_layer_is_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.layer("data", MarkFormat::Overlay, &["file one 5000"]);
    let lines = [
        "file a 644 3:4 1.5 5000 -",
        "xattr a trusted.overlay.metacopy %",
        "xattr a trusted.overlay.redirect /one",
    ];
    let lower = lab.layer("l", MarkFormat::Overlay, &lines);
    let words = format!("datadir+={}", lab.path("data").display());
    let stack = lab.stack("a", &[lower]).words(&words);
    let mounted = lab.mount_stack("a", &stack);
    shell(mounted.path(), "chmod 640 a");
    mounted.unmount().expect("it unmounts");
    let before = on_disk(&lab, "a");
    let out = verb(&stack.clone().words(""), "settle", &[]);
    assert_eq!(out.status.code(), Some(1));
    let said = stderr(&out);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("no layer below has the file"), "{said}");
    let lines = tree::differences(("before", &before), ("after", &on_disk(&lab, "a")));
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    settle(&stack, &[]);
}
