//! Open files: before and after copy-up, unlinked, mapped, sparse, executed.

use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::sys;
use super::support::tree;

const RW: i32 = libc::O_RDWR;

#[test]
fn a_file_opened_before_its_copy_up_sees_what_is_written_after() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["file f 10000", "file h1", "link h2 h1"],
    );
    let mounted = lab.mount("open", &[l]);
    let m = mounted.path();
    let early = sys::open(at(m, "f"), libc::O_RDONLY, 0).expect("open");
    let map = std::fs::File::open(m.join("f")).expect("open");
    assert_eq!(sys::pread(&early, 4, 0).map(|b| b.len()), Ok(4));
    let late = sys::open(at(m, "f"), RW, 0).expect("open");
    sys::pwrite(&late, b"after", 20).expect("write");
    assert_eq!(sys::pread(&early, 5, 20).as_deref(), Ok(&b"after"[..]));
    assert_eq!(sys::fstat(&early), sys::fstat(&late));
    drop(map);
    let first = sys::open(at(m, "h1"), libc::O_RDONLY, 0).expect("open");
    shell(m, "echo changed > h2");
    assert_eq!(
        sys::read_all(&first).as_deref(),
        Ok(&b"changed\n"[..]),
        "through the other name"
    );
}

#[test]
fn o_trunc_of_an_empty_file_sets_its_times_and_takes_its_room() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file lower 0"]);
    for words in ["io=cached", "io=passthrough"] {
        let stack = lab.stack(words, std::slice::from_ref(&l)).words(words);
        let mounted = lab.mount_stack(words, &stack);
        let m = mounted.path();
        shell(
            m,
            "touch -d @1 lower new; touch reserved; fallocate -n -l 64K reserved",
        );
        for name in ["lower", "new", "reserved"] {
            let path = at(m, name);
            drop(sys::open(&path, libc::O_WRONLY | libc::O_TRUNC, 0).expect("open"));
            let stat = sys::lstat(&path).expect("it is there");
            assert!(stat.mtime.0 > 1, "{words}: {name}: {:?}", stat.mtime);
            assert_eq!((stat.size, stat.blocks), (0, 0), "{words}: {name}");
        }
        mounted.unmount().expect("it unmounts");
    }
}

#[test]
fn reading_and_opening_for_writing_copy_nothing() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "dir d",
            "file d/f",
            "symlink s d/f",
            "file d/g 644 1000:1000 1.5 10 0+10+1",
        ],
    );
    let mounted = lab.mount("lazy", &[l]);
    shell(
        mounted.path(),
        "cat d/f s; ls -lR; test -r d/g; getfattr -d d/f; find . -type f -exec stat {} +",
    );
    let upper = lab.upper("lazy");
    assert_eq!(tree::read(&upper).len(), 1, "reading copied something up");
}

#[test]
fn an_unlinked_file_lives_as_long_as_it_is_open() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file lower 5000"]);
    let mounted = lab.mount("unlinked", &[l]);
    let m = mounted.path();
    shell(m, "head -c 5000 /dev/zero > upper");
    for name in ["lower", "upper"] {
        let fd = sys::open(at(m, name), RW, 0).expect("open");
        sys::unlink(at(m, name)).expect("unlink");
        assert_eq!(sys::pwrite(&fd, b"still here", 4995), Ok(10), "{name}");
        assert_eq!(
            sys::pread(&fd, 10, 4995).as_deref(),
            Ok(&b"still here"[..]),
            "{name}"
        );
        assert_eq!(sys::ftruncate(&fd, 100), Ok(()), "{name}");
        assert_eq!(sys::fchmod(&fd, 0o640), Ok(()), "{name}");
        assert_eq!(sys::fchown(&fd, 7, 8), Ok(()), "{name}");
        assert_eq!(sys::fsetxattr(&fd, "user.x", b"1", 0), Ok(()), "{name}");
        assert_eq!(
            sys::fgetxattr(&fd, "user.x").as_deref(),
            Ok(&b"1"[..]),
            "{name}"
        );
        assert_eq!(sys::futimens(&fd, [(5, 5), (6, 6)]), Ok(()), "{name}");
        assert_eq!(sys::fallocate(&fd, 0, 0, 8192), Ok(()), "{name}");
        let stat = sys::fstat(&fd).expect("fstat");
        assert_eq!(
            (
                stat.nlink,
                stat.mode & 0o7777,
                stat.uid,
                stat.gid,
                stat.size
            ),
            (0, 0o640, 7, 8, 8192),
            "{name}"
        );
        // A new file of the same name is another file.
        shell(m, &format!("echo new > {name}"));
        assert_eq!(sys::lstat(at(m, name)).map(|s| s.size), Ok(4));
        assert_ne!(
            sys::lstat(at(m, name)).map(|s| s.ino),
            Ok(stat.ino),
            "{name}"
        );
        assert_eq!(sys::fstat(&fd).map(|s| s.size), Ok(8192), "{name}");
    }
    let upper = lab.upper("unlinked");
    let names: Vec<_> = sys::list(at(&upper, ""))
        .expect("list")
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(
        names.len(),
        2,
        "what is unlinked leaves nothing behind: {names:?}"
    );
}

#[test]
fn a_store_through_a_mapping_changes_mtime() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file f 10000"]);
    let stack = lab.stack("mmap", &[l]);
    let mounted = lab.mount_stack("mmap", &stack);
    let f = at(mounted.path(), "f");
    let fd = sys::open(&f, RW, 0).expect("open");
    sys::mmap_store(&fd, 5000, b"mapped").expect("a shared mapping");
    drop(fd);
    assert!(sys::lstat(&f).expect("lstat").mtime.0 > 1_500_000_000);
    mounted.unmount().expect("it unmounts");
    let again = lab.mount_stack("mmap", &stack);
    let fd = sys::open(at(again.path(), "f"), libc::O_RDONLY, 0).expect("open");
    assert_eq!(sys::pread(&fd, 6, 5000).as_deref(), Ok(&b"mapped"[..]));
    assert!(sys::fstat(&fd).expect("fstat").mtime.0 > 1_500_000_000);
}

#[test]
fn holes_survive_copy_up() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "file f 644 0:0 1.5 50000000 8192+5000+1,20971520+10000+2",
            "file empty 644 0:0 1.5 30000000 -",
        ],
    );
    let mounted = lab.mount("holes", std::slice::from_ref(&l));
    for name in ["f", "empty"] {
        let lower = sys::lstat(at(&l, name)).expect("lstat").blocks;
        sys::chmod(at(mounted.path(), name), 0o600).expect("chmod");
        let fd = sys::open(at(mounted.path(), name), libc::O_RDONLY, 0).expect("open");
        let original = sys::open(at(&l, name), libc::O_RDONLY, 0).expect("open");
        assert_eq!(tree::segments(&fd), tree::segments(&original), "{name}");
        let upper = sys::lstat(at(&lab.upper("holes"), name))
            .expect("copied up")
            .blocks;
        assert!(upper <= lower + 16, "{name}: {upper} blocks of {lower}");
    }
}

#[test]
fn hard_links_of_a_lower_stay_one_file() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "dir d",
            "file d/a 5000",
            "link d/b d/a",
            "dir e",
            "link e/c d/a",
        ],
    );
    let stack = lab.stack("hard", &[l]);
    let mounted = lab.mount_stack("hard", &stack);
    let m = mounted.path();
    shell(m, "echo new > e/c; ln d/b d/e; rm d/a");
    let check = |m: &std::path::Path| {
        let stats: Vec<_> = ["d/b", "e/c", "d/e"]
            .iter()
            .map(|p| sys::lstat(at(m, p)).expect("lstat"))
            .collect();
        assert!(
            stats
                .iter()
                .all(|s| s.ino == stats[0].ino && s.nlink == 3 && s.size == 4),
            "{stats:#?}"
        );
    };
    check(m);
    mounted.unmount().expect("it unmounts");
    let again = lab.mount_stack("hard", &stack);
    check(again.path());
    shell(
        again.path(),
        "echo x >> d/e; grep -q x d/b; grep -q x e/c; rm d/b e/c; stat -c %h d/e | grep -qx 1",
    );
}

#[test]
fn a_running_program_cannot_be_written() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.dir("l");
    std::fs::copy("/bin/sleep", l.join("sleep")).expect("a program");
    let mounted = lab.mount("busy", &[l]);
    let mut child = std::process::Command::new(mounted.path().join("sleep"))
        .arg("100")
        .spawn()
        .expect("a program on the mount runs");
    let written = sys::open(at(mounted.path(), "sleep"), libc::O_WRONLY, 0).map(drop);
    child.kill().expect("it can be ended");
    child.wait().expect("it ends");
    assert_eq!(written, Err(libc::ETXTBSY));
}

#[test]
fn appending_from_two_descriptors_loses_nothing() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &["file f"]);
    let mounted = lab.mount("append", &[l]);
    let open =
        || sys::open(at(mounted.path(), "f"), libc::O_WRONLY | libc::O_APPEND, 0).expect("open");
    let fds = [open(), open()];
    for i in 0..100 {
        assert_eq!(sys::pwrite(&fds[i % 2], b"line\n", 0), Ok(5));
    }
    assert_eq!(sys::lstat(at(mounted.path(), "f")).map(|s| s.size), Ok(510));
}

#[test]
fn opening_for_writing_copies_up_where_that_is_asked_for() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d", "file d/r", "file d/w", "file d/no"],
    );
    let stack = lab.stack("open", &[l]).words("copyup=open");
    let mounted = lab.mount_stack("open", &stack);
    let m = mounted.path();
    let upper = lab.upper("open");
    sys::open(at(m, "d/r"), libc::O_RDONLY, 0).expect("open");
    assert!(!upper.join("d").exists());
    let fd = sys::open(at(m, "d/w"), libc::O_WRONLY | libc::O_APPEND, 0).expect("open");
    let copied = std::fs::read(upper.join("d/w")).expect("it is in the upper");
    assert_eq!(copied.len(), 10);
    drop(fd);
    let refused = sys::open(
        at(m, "d/no"),
        libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        0o600,
    );
    assert_eq!(refused.err(), Some(libc::EEXIST));
    assert!(!upper.join("d/no").exists());
    shell(
        m,
        "echo more >> d/w; : > d/no; test ! -s d/no; tail -n1 d/w | grep -q more",
    );
}
