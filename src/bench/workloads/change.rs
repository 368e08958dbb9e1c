//! Changing what lies in a lower layer.

use super::read::some_files;
use super::{Ground, Group, Work, Workload, grouped};
use crate::bench::data::{PER_DIR, Set, Sizes, big_name, tree_dirs};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let some = grouped(sizes.some_files());
    let small = grouped(sizes.small_dirs() * PER_DIR);
    let moved = grouped(sizes.moved_dirs() * PER_DIR);
    let new = |name: &str, title: String, measure: fn(&Ground) -> io::Result<Work>| {
        Workload::new(Group::Changing, name, title, measure).changing(Set::Small)
    };
    vec![
        new(
            "rename-lower",
            format!("rename of {some} lower files"),
            rename,
        ),
        Workload::new(
            Group::Changing,
            "rename-empty",
            format!("rename of {some} empty lower files in one directory"),
            rename_empty,
        )
        .changing(Set::Big),
        new(
            "mkdir-lower",
            format!("mkdir in lower directories, {some}"),
            make_dirs,
        ),
        new(
            "unlink-lower",
            format!("unlink of {some} lower files"),
            unlink,
        ),
        new("chmod-lower", format!("chmod of {some} lower files"), chmod),
        new(
            "append-lower",
            format!("append to {some} lower files of 4 KiB"),
            append,
        ),
        Workload::new(
            Group::Changing,
            "move-dir",
            format!("mv of a lower directory of {moved} files"),
            move_dir,
        )
        .changing(Set::Moved),
        new(
            "chown-tree",
            format!("chown -R of {small} lower files"),
            chown_tree,
        ),
        new(
            "remove-tree",
            format!("rm -rf of {small} lower files"),
            remove_tree,
        ),
    ]
}

fn rename(ground: &Ground) -> io::Result<Work> {
    let names = some_files(&ground.sizes);
    let pairs: Vec<_> = names.iter().map(|n| (n, format!("{n}.new"))).collect();
    Work::timed(pairs.len(), || {
        pairs.iter().try_for_each(|(from, to)| fs::rename(from, to))
    })
}

fn rename_empty(ground: &Ground) -> io::Result<Work> {
    let count = ground.sizes.some_files().min(ground.sizes.big_entries());
    let pairs: Vec<_> = (0..count)
        .map(|i| format!("{}/{}", Set::Big.dir(), big_name(i)))
        .map(|name| (name.clone(), name + ".new"))
        .collect();
    Work::timed(pairs.len(), || {
        pairs.iter().try_for_each(|(from, to)| fs::rename(from, to))
    })
}

fn make_dirs(ground: &Ground) -> io::Result<Work> {
    let names: Vec<_> = some_files(&ground.sizes)
        .into_iter()
        .map(|name| name + ".d")
        .collect();
    Work::timed(names.len(), || names.iter().try_for_each(fs::create_dir))
}

fn unlink(ground: &Ground) -> io::Result<Work> {
    let names = some_files(&ground.sizes);
    Work::timed(names.len(), || names.iter().try_for_each(fs::remove_file))
}

fn chmod(ground: &Ground) -> io::Result<Work> {
    let names = some_files(&ground.sizes);
    Work::timed(names.len(), || {
        names
            .iter()
            .try_for_each(|name| fs::set_permissions(name, PermissionsExt::from_mode(0o600)))
    })
}

fn append(ground: &Ground) -> io::Result<Work> {
    let names = some_files(&ground.sizes);
    Work::timed(names.len(), || {
        names.iter().try_for_each(|name| {
            OpenOptions::new()
                .append(true)
                .open(name)?
                .write_all(b"one more line\n")
        })
    })
}

fn move_dir(ground: &Ground) -> io::Result<Work> {
    let (from, to) = (Set::Moved.dir(), "elsewhere");
    Work::timed(1, || match fs::rename(from, to) {
        // What mv(1) does where a directory cannot be renamed.
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => move_whole(ground),
        done => done,
    })
}

fn move_whole(_: &Ground) -> io::Result<()> {
    let mut mv = std::process::Command::new("mv");
    mv.args([Set::Moved.dir(), "elsewhere"]);
    crate::bench::data::complete(&mut mv)
}

fn chown_tree(ground: &Ground) -> io::Result<Work> {
    let files = ground.sizes.small_dirs() * PER_DIR;
    Work::timed(files, || {
        chown_below(Path::new(Set::Small.dir()), ground.other_id)
    })
}

fn chown_below(dir: &Path, id: u32) -> io::Result<()> {
    lchown(dir, Some(id), Some(id))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            chown_below(&entry.path(), id)?;
        } else {
            lchown(entry.path(), Some(id), Some(id))?;
        }
    }
    Ok(())
}

fn remove_tree(ground: &Ground) -> io::Result<Work> {
    let dirs = tree_dirs(Set::Small.dir(), ground.sizes.small_dirs()).count();
    Work::timed(dirs * PER_DIR, || fs::remove_dir_all(Set::Small.dir()))
}
