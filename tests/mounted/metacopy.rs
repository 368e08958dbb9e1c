//! Changes of owner, mode, times and xattrs copy no data; it follows with the first write.

use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::{skip, sys};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const SIZE: u64 = 1 << 20;

fn room(path: &Path) -> u64 {
    let stat = path.symlink_metadata().expect("it is in the upper");
    assert_eq!(stat.len(), SIZE, "{}", path.display());
    stat.blocks() * 512
}

#[test]
fn a_change_of_metadata_copies_no_data_and_a_write_does() {
    let Some(lab) = Lab::new() else { return };
    for (name, words) in [("plain", "partial=off"), ("user", "userxattr,partial=off")] {
        let l = lab.layer(
            &format!("l-{name}"),
            MarkFormat::Overlay,
            &["dir d", &format!("file d/f {SIZE}")],
        );
        let stack = lab.stack(name, std::slice::from_ref(&l)).words(words);
        let upper = lab.upper(name).join("d/f");
        let changes = [
            "chmod 600 d/f",
            "chown 5:6 d/f",
            // Without opening it.
            "touch -h -d @1 d/f",
            "setfattr -n user.x -v y d/f",
            "mv d/f d/g; mv d/g d/f",
        ];
        let mounted = lab.mount_stack(name, &stack);
        for change in changes {
            shell(mounted.path(), change);
            assert!(room(&upper) < SIZE / 4, "{change}");
            let differ = shell(mounted.path(), &format!("cmp d/f {}/d/f", l.display()));
            assert_eq!(differ, "", "{change}");
        }
        let blocks = sys::lstat(at(mounted.path(), "d/f")).expect("stat").blocks;
        assert!(blocks * 512 >= SIZE, "{blocks} blocks shown");
        mounted.unmount().expect("unmount");
        let mounted = lab.mount_stack(name, &stack);
        shell(mounted.path(), &format!("cmp d/f {}/d/f", l.display()));
        shell(
            mounted.path(),
            &format!(
                "printf x | dd of=d/f bs=1 seek=9 conv=notrunc 2>/dev/null; \
                 cmp -i 10 d/f {}/d/f; test $(stat -c %a:%u d/f) = 600:5",
                l.display()
            ),
        );
        assert!(room(&upper) >= SIZE);
    }
}

#[test]
fn regression_the_first_file_without_data_in_an_old_upper_directory_is_known_as_one() {
    let Some(lab) = Lab::new() else { return };
    if skip::in_user_namespace() {
        return skip::skipped("only root of the machine drops caches");
    }
    let l = lab.layer("l", MarkFormat::Overlay, &["dir d", "file d/small 11"]);
    let stack = lab.stack("old", std::slice::from_ref(&l));
    let old = lab.upper("old").join("d");
    std::fs::create_dir(&old).expect("a directory in the upper");
    std::fs::write(old.join("old"), "x").expect("a file in the upper");
    let mounted = lab.mount_stack("old", &stack);
    // It is seen that the directory holds nothing that was copied up, and then it does; the
    // file is forgotten and the directory is not.
    let script = "cd d; stat old; chmod 600 small; sync; echo 2 > /proc/sys/vm/drop_caches; stat .";
    shell(mounted.path(), script);
    shell(
        mounted.path(),
        &format!("{script}; cmp small {}/d/small", l.display()),
    );
}

#[test]
fn metacopy_off_copies_the_data_with_the_rest() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &[&format!("file f {SIZE}")]);
    for words in ["metacopy=off", "redirect_dir=off"] {
        let name = words.replace('=', "-");
        let whole = format!("{words},partial=off");
        let stack = lab.stack(&name, std::slice::from_ref(&l)).words(&whole);
        let mounted = lab.mount_stack(&name, &stack);
        shell(mounted.path(), "chmod 600 f");
        assert!(room(&lab.upper(&name).join("f")) >= SIZE, "{words}");
    }
}

#[test]
fn a_data_only_layer_gives_its_data_and_shows_nothing() {
    let Some(lab) = Lab::new() else { return };
    let data = lab.layer("data", MarkFormat::Overlay, &["dir o", "file o/1 5000"]);
    let more = lab.layer("more", MarkFormat::Overlay, &["file two 7000"]);
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &[
            "file a 0",
            "file b 0",
            "file lost 0",
            "xattr a trusted.overlay.metacopy ",
            "xattr a trusted.overlay.redirect /o/1",
            "xattr b trusted.overlay.metacopy ",
            "xattr b trusted.overlay.redirect /two",
            "xattr lost trusted.overlay.metacopy ",
            "xattr lost trusted.overlay.redirect /o/none",
        ],
    );
    shell(
        &l,
        "truncate -s 5000 a; truncate -s 7000 b; truncate -s 9 lost",
    );
    let words = format!("datadir+={},datadir+={}", data.display(), more.display());
    let stack = lab.stack("data", &[l]).words(&words);
    let mounted = lab.mount_stack("data", &stack);
    let m = mounted.path();
    assert_eq!(shell(m, "ls"), "a\nb\nlost\n");
    let same = format!("cmp a {}/o/1; cmp b {}/two", data.display(), more.display());
    shell(m, &same);
    let lost = sys::open(at(m, "lost"), libc::O_RDONLY, 0).expect("it can be opened");
    assert_eq!(sys::read_all(&lost), Err(libc::EIO));
    shell(m, "rm lost; chmod 600 a; mv a c; mv c a; echo x >> b");
    shell(m, &format!("cmp a {}/o/1", data.display()));
    assert_eq!(shell(m, "tail -c2 b; wc -c < b"), "x\n7002\n");
}
