//! Requests made of words.

use super::*;
use crate::config::options::split_words;
use std::path::Path;

fn request(list: &str) -> Result<Request, MountError> {
    let mut request = Request::default();
    for word in split_words(OsStr::new(list)) {
        request.apply_strictly(&word)?;
    }
    Ok(request)
}

fn refusal(list: &str) -> String {
    request(list).expect_err("a bad word").to_string()
}

#[test]
fn the_words_of_container_engines_are_known() {
    let list = r#"lowerdir=/a:/b,upperdir=/u,workdir=/w,,volatile,ro,suid,dev,noexec,atime,
allow_other,allow_root,default_permissions,fsname=x,subtype=y,max_write=131072,uidmapping=:0:1:5000,
gidmapping=0:1:1001:1001:0:1,timeout=1.5,threaded=0,fsync=0,sync=1,fast_ino=1,writeback=1,
noxattrs=1,plugins=a:b,xattr_permissions=2,squash_to_root,squash_to_uid=1,squash_to_gid=2,
static_nlink,noacl,context="a:c1,c2",redirect_dir=on,index=off,metacopy=off,xino=auto,userxattr,
debug,diratime"#
        .replace('\n', "");
    let request = request(&list).expect("all known");
    assert_eq!(request.lowers, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(request.upper.as_deref(), Some(Path::new("/u")));
    assert_eq!(request.work.as_deref(), Some(Path::new("/w")));
    assert_eq!(request.durability, Durability::Volatile);
    assert!(request.debug && !request.index);
    assert_eq!(request.timeout, CacheTimeout::Seconds(1.5));
    assert_eq!(request.xattrs, XattrSpace::User);
    assert_eq!(request.max_write, Some(131072));
    let flags = &request.flags;
    assert!(flags.read_only && flags.suid && flags.dev && !flags.exec && flags.atime);
    assert!(flags.allow_other && flags.allow_root && flags.default_permissions);
    assert_eq!((flags.fsname.as_str(), flags.subtype.as_str()), ("x", "y"));
}

#[test]
fn later_words_win() {
    let request = request("ro,lowerdir=/a,rw,lowerdir=/b,lowerdir+=/c").expect("all known");
    assert!(!request.flags.read_only);
    assert_eq!(request.lowers, [Path::new("/b"), Path::new("/c")]);
}

#[test]
fn durability_is_read_as_overlayfs_and_fuse_overlayfs_users_write_it() {
    for (list, durability) in [
        ("", Durability::Auto),
        ("durability=strict", Durability::Strict),
        ("fsync=strict", Durability::Strict),
        ("fsync=strict,fsync=0", Durability::Strict),
        ("fsync=volatile", Durability::Volatile),
        ("volatile,durability=auto", Durability::Auto),
    ] {
        let request = request(list).expect("all known");
        assert_eq!(request.durability, durability, "{list}");
    }
}

#[test]
fn an_unknown_word_is_left_to_the_caller_or_refused_with_a_suggestion() {
    let word = split_words(OsStr::new("private")).remove(0);
    let mut request = Request::default();
    assert_eq!(request.apply(&word), Ok(Applied::Unknown));
    assert_eq!(
        refusal("lowredir=/a"),
        "option lowredir=/a: no such option; did you mean lowerdir?"
    );
}

#[test]
fn bad_values_are_refused() {
    for (list, message) in [
        (
            "timeout=soon",
            "option timeout=soon: not a number of seconds; write for instance timeout=1.5, \
                 or leave it out where no layer changes",
        ),
        (
            "timeout=-1",
            "option timeout=-1: not a number of seconds; write for instance timeout=1.5, \
                 or leave it out where no layer changes",
        ),
        (
            "threads=0",
            "option threads=0: not a whole number between 1 and 64; write for instance \
                 threads=1",
        ),
        (
            "max_write=lots",
            "option max_write=lots: not a whole number between 4096 and 16777216; write \
                 for instance max_write=4096",
        ),
        (
            "marks=x",
            "option marks=x: no such value; use one of: auto, overlay, files",
        ),
        (
            "observe=yes",
            "option observe=yes: no such value; use one of: on, off",
        ),
        (
            "metrics=/",
            "option metrics=/: names no file; write metrics=FILE",
        ),
        (
            "durability=strct",
            "option durability=strct: no such value; use one of: auto, strict, volatile",
        ),
        (
            "fsync=2",
            "option fsync=2: no such value; use one of: auto, strict, volatile",
        ),
        ("ro=1", "option ro=1: takes no value; write ro"),
        (
            "upperdir",
            "option upperdir: needs a value; write upperdir=DIR",
        ),
        (
            "workdir=",
            "option workdir=: names no directory; write workdir=DIR",
        ),
    ] {
        assert_eq!(refusal(list), message, "{list}");
    }
}
