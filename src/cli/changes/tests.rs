//! Uppers and lowers made by hand, and what is listed of them.

use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Builds `upper`, `low` (topmost) and `base` with `make`, and lists the changes.
fn changes(make: impl FnOnce(&Path, &Path, &Path)) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [upper, low, base] = ["upper", "low", "base"].map(|name| {
        let path = dir.path().join(name);
        fs::create_dir(&path).expect("mkdir");
        path
    });
    make(&upper, &low, &base);
    let tree = Tree {
        inside: Path::new("/"),
        upper: &upper,
        lowers: &[low, base],
        before: None,
        index: None,
        redirects: Redirects::On,
    };
    let mut found = Vec::new();
    tree.changes(&mut found).expect("readable");
    found.sort();
    let mut text = Vec::new();
    found.iter().for_each(|change| change.write_line(&mut text));
    let text = String::from_utf8(text).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

fn put(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
    fs::write(path, text).expect("write");
}

fn mkdir(path: PathBuf) {
    fs::create_dir_all(path).expect("mkdir");
}

#[test]
fn new_things_are_listed_with_what_is_in_them() {
    let found = changes(|upper, _, _| {
        put(upper.join("d/e/f"), "x");
        symlink("f", upper.join("d/e/l")).expect("symlink");
    });
    assert_eq!(found, ["A /d", "A /d/e", "A /d/e/f", "A /d/e/l"]);
}

#[test]
fn a_directory_that_only_leads_to_a_change_is_not_listed() {
    let found = changes(|upper, _, base| {
        put(base.join("d/e/f"), "x");
        put(upper.join("d/e/f"), "xyz");
    });
    assert_eq!(found, ["M /d/e/f"]);
}

#[test]
fn a_directory_with_a_new_mode_is_listed() {
    let found = changes(|upper, low, _| {
        mkdir(low.join("d"));
        mkdir(upper.join("d"));
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(upper.join("d"), mode).expect("chmod");
    });
    assert_eq!(found, ["M /d"]);
}

#[test]
fn a_file_that_was_copied_up_and_is_as_it_was_is_not_listed() {
    let found = changes(|upper, low, _| {
        put(low.join("f"), "x");
        put(upper.join("f"), "x");
        let time = fs::metadata(low.join("f")).and_then(|m| m.modified());
        let file = fs::File::options().write(true).open(upper.join("f"));
        file.and_then(|file| file.set_modified(time?))
            .expect("utimens");
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_file_with_a_newer_time_is_listed() {
    let found = changes(|upper, low, _| {
        put(low.join("f"), "x");
        put(upper.join("f"), "y");
        let file = fs::File::options().write(true).open(upper.join("f"));
        file.and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
            .expect("utimens");
    });
    assert_eq!(found, ["M /f"]);
}

#[test]
fn a_whiteout_file_deletes_only_what_is_there() {
    let found = changes(|upper, low, base| {
        put(base.join("gone/x"), "x");
        put(low.join("f"), "x");
        put(upper.join(".wh.gone"), "");
        put(upper.join(".wh.f"), "");
        put(upper.join(".wh.never"), "");
    });
    assert_eq!(found, ["D /f", "D /gone"]);
}

#[test]
fn what_a_lower_layer_hides_is_not_there() {
    let found = changes(|upper, low, base| {
        put(base.join("f"), "x");
        put(low.join(".wh.f"), "");
        put(upper.join("f"), "y");
        put(base.join("d/f"), "x");
        put(low.join("d/.wh..wh..opq"), "");
        put(upper.join("d/.wh.f"), "");
    });
    assert_eq!(found, ["A /f"]);
}

#[test]
fn a_replaced_directory_lists_what_it_hid() {
    let found = changes(|upper, low, base| {
        put(base.join("d/a"), "x");
        put(low.join("d/b"), "x");
        put(low.join("d/c/deep"), "x");
        put(upper.join("d/.wh..wh..opq"), "");
        put(upper.join("d/b"), "x");
        put(upper.join("d/new"), "x");
    });
    assert_eq!(found, ["M /d", "D /d/a", "M /d/b", "D /d/c", "A /d/new"]);
}

/// Makes `dir` say that it is the lower directory at `to`.
fn redirect(dir: PathBuf, to: &str) {
    mkdir(dir.clone());
    let dir = open_path(&dir, O_RDONLY | O_DIRECTORY).expect("a directory");
    xattr::set(At::fd(&dir), c"user.overlay.redirect", to.as_bytes(), 0).expect("an xattr");
}

#[test]
fn a_renamed_directory_is_deleted_and_added_with_all_that_is_in_it() {
    let found = changes(|upper, low, base| {
        put(base.join("d/a"), "x");
        put(base.join("d/sub/b"), "x");
        put(low.join("d/sub/c"), "x");
        put(base.join("d/gone"), "x");
        put(upper.join(".wh.d"), "");
        redirect(upper.join("e"), "d");
        put(upper.join("e/.wh.gone"), "");
        put(upper.join("e/a"), "xyz");
        put(upper.join("e/new"), "x");
    });
    let want = "D /d,A /e,A /e/a,A /e/new,A /e/sub,A /e/sub/b,A /e/sub/c";
    assert_eq!(found.join(","), want);
}

#[test]
fn a_directory_that_was_renamed_away_and_back_is_not_listed() {
    let found = changes(|upper, _, base| {
        put(base.join("p/d/a"), "x");
        put(base.join("p/d/b"), "x");
        redirect(upper.join("p/d"), "/p/d");
        put(upper.join("p/d/b"), "xyz");
    });
    assert_eq!(found, ["M /p/d/b"]);
}

#[test]
fn a_directory_renamed_over_another_replaces_what_was_there() {
    let found = changes(|upper, _, base| {
        put(base.join("d/both/x"), "x");
        put(base.join("d/new"), "x");
        put(base.join("e/both/y"), "x");
        put(base.join("e/old"), "x");
        put(upper.join(".wh.d"), "");
        redirect(upper.join("e"), "/d");
    });
    let want = "D /d,M /e,M /e/both,A /e/both/x,D /e/both/y,A /e/new,D /e/old";
    assert_eq!(found.join(","), want);
}

#[test]
fn a_renamed_directory_in_a_new_one_has_all_that_is_in_it() {
    let found = changes(|upper, low, base| {
        put(base.join("from/a"), "x");
        redirect(low.join("d"), "/from");
        put(low.join(".wh.from"), "");
        put(upper.join(".wh.d"), "");
        redirect(upper.join("n/d"), "/d");
    });
    assert_eq!(found, ["D /d", "A /n", "A /n/d", "A /n/d/a"]);
}

#[test]
fn a_redirect_to_nowhere_shows_nothing() {
    let found = changes(|upper, _, base| {
        put(base.join("d/a"), "x");
        redirect(upper.join("d"), "/no/such");
        redirect(upper.join("e"), "../d");
    });
    assert_eq!(found, ["M /d", "D /d/a", "A /e"]);
}

#[test]
fn a_thing_of_another_kind_is_a_replacement() {
    let found = changes(|upper, low, _| {
        put(low.join("file"), "x");
        put(upper.join("file/x"), "x");
        put(low.join("dir/x"), "x");
        put(upper.join("dir"), "x");
    });
    assert_eq!(found, ["M /dir", "M /file", "A /file/x"]);
}

#[test]
fn an_access_list_for_someone_without_a_name_is_known() {
    let own = [1u8, 0, 7, 0, 0xff, 0xff, 0xff, 0xff];
    let nobody = [2u8, 0, 7, 0, 0xff, 0xff, 0xff, 0xff];
    let somebody = [2u8, 0, 7, 0, 5, 0, 0, 0];
    let version = [2u8, 0, 0, 0];
    assert!(!names_nobody(&[&version[..], &own, &somebody].concat()));
    assert!(names_nobody(&[&version[..], &own, &nobody].concat()));
}

#[test]
fn a_name_with_a_line_feed_is_one_line() {
    let found = changes(|upper, _, _| put(upper.join("a\nb\\c"), "x"));
    assert_eq!(found, ["A /a\\012b\\134c"]);
}
