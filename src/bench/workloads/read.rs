//! Looking at many files, and reading small ones.

use super::{Ground, Group, Work, Workload, grouped};
use crate::bench::data::{PER_DIR, SMALL, Set, Sizes, tree_dirs, tree_files};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// How often the names that are known are asked for.
const PASSES: usize = 5;

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let small = grouped(sizes.small_dirs() * PER_DIR);
    let some = grouped(sizes.some_files());
    let big = grouped(sizes.big_entries());
    let new = |name: &str, title: String, measure: fn(&Ground) -> io::Result<Work>| {
        Workload::new(Group::Looking, name, title, measure)
    };
    vec![
        new(
            "walk-warm",
            format!("walk with stat, {small} files, warm"),
            walk,
        )
        .on(Set::Small)
        .after(|ground| walk(ground).map(drop)),
        new(
            "walk-cold",
            format!("walk with stat, {small} files, cold"),
            walk,
        )
        .on(Set::Small)
        .cold(),
        new(
            "read-warm",
            format!("read {small} files of 4 KiB, warm"),
            read_all,
        )
        .on(Set::Small)
        .after(|ground| read_all(ground).map(drop)),
        new(
            "read-cold",
            format!("read {small} files of 4 KiB, cold"),
            read_all,
        )
        .on(Set::Small)
        .cold(),
        new("list-warm", format!("ls -l of {big} entries, warm"), list)
            .on(Set::Big)
            .after(|ground| list(ground).map(drop)),
        new("list-cold", format!("ls -l of {big} entries, cold"), list)
            .on(Set::Big)
            .cold(),
        new(
            "stat-known",
            format!("stat of {some} known names, warm"),
            stat_known,
        )
        .on(Set::Small)
        .after(|ground| stat_known(ground).map(drop)),
        new(
            "stat-missing",
            format!("stat of {some} new missing names"),
            stat_missing,
        )
        .on(Set::Small)
        .after(stat_dirs),
        new(
            "stat-missing-first",
            format!("stat of {some} missing names in unseen directories"),
            stat_missing,
        )
        .on(Set::Small),
        new(
            "stat-missing-listed",
            format!("stat of {some} missing names where all was listed"),
            stat_missing,
        )
        .on(Set::Small)
        .after(|ground| walk(ground).map(drop)),
        new(
            "open-warm",
            format!("open+read+close of {some} files of 4 KiB, warm"),
            open_warm,
        )
        .on(Set::Small)
        .after(|ground| open_first(ground).map(drop)),
        new(
            "open-first",
            format!("open+read+close of {some} files of 4 KiB, first"),
            open_first,
        )
        .on(Set::Small),
        new(
            "open-cold",
            format!("open+read+close of {some} files of 4 KiB, cold"),
            open_first,
        )
        .on(Set::Small)
        .cold(),
    ]
}

/// Visits all below `dir`; how many files there are.
fn visit(dir: &Path, file: &mut impl FnMut(&fs::DirEntry) -> io::Result<()>) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            count += visit(&entry.path(), file)?;
        } else {
            file(&entry)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Fails where not as many files were found as were made.
fn expect(found: usize, made: usize) -> io::Result<()> {
    if found == made {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{found} files seen instead of {made}"
    )))
}

fn walk(ground: &Ground) -> io::Result<Work> {
    let files = ground.sizes.small_dirs() * PER_DIR;
    Work::timed(files, || {
        let found = visit(Path::new(Set::Small.dir()), &mut |entry| {
            entry.metadata().map(drop)
        })?;
        expect(found, files)
    })
}

fn read_all(ground: &Ground) -> io::Result<Work> {
    let files = ground.sizes.small_dirs() * PER_DIR;
    let mut buffer = [0; SMALL];
    let work = Work::timed(files, || {
        let found = visit(Path::new(Set::Small.dir()), &mut |entry| {
            File::open(entry.path())?.read_exact(&mut buffer)
        })?;
        expect(found, files)
    })?;
    Ok(work.of_bytes(files * SMALL))
}

fn list(ground: &Ground) -> io::Result<Work> {
    let entries = ground.sizes.big_entries();
    Work::timed(entries, || {
        let found = visit(Path::new(Set::Big.dir()), &mut |entry| {
            entry.metadata().map(drop)
        })?;
        expect(found, entries)
    })
}

/// So many names, taken evenly from all directories.
pub(super) fn some_files(sizes: &Sizes) -> Vec<String> {
    let dirs = sizes.small_dirs();
    let every = (dirs * PER_DIR / sizes.some_files()).max(1);
    tree_files(Set::Small.dir(), dirs)
        .step_by(every)
        .take(sizes.some_files())
        .collect()
}

fn stat_known(ground: &Ground) -> io::Result<Work> {
    let names = some_files(&ground.sizes);
    Work::timed(names.len() * PASSES, || {
        for _ in 0..PASSES {
            for name in &names {
                fs::symlink_metadata(name)?;
            }
        }
        Ok(())
    })
}

fn stat_dirs(ground: &Ground) -> io::Result<()> {
    for dir in tree_dirs(Set::Small.dir(), ground.sizes.small_dirs()) {
        fs::symlink_metadata(dir)?;
    }
    Ok(())
}

fn stat_missing(ground: &Ground) -> io::Result<Work> {
    let dirs: Vec<_> = tree_dirs(Set::Small.dir(), ground.sizes.small_dirs()).collect();
    let names: Vec<_> = (0..ground.sizes.some_files())
        .zip(dirs.iter().cycle())
        .map(|(i, dir)| format!("{dir}/missing-{i}"))
        .collect();
    Work::timed(names.len(), || {
        for name in &names {
            match fs::symlink_metadata(name) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
                Ok(_) => return Err(io::Error::other(format!("{name} is there"))),
            }
        }
        Ok(())
    })
}

fn open_and_read(names: &[String]) -> io::Result<()> {
    let mut buffer = [0; SMALL];
    for name in names {
        File::open(name)?.read_exact(&mut buffer)?;
    }
    Ok(())
}

fn open_first(ground: &Ground) -> io::Result<Work> {
    let names = some_files(&ground.sizes);
    Work::timed(names.len(), || open_and_read(&names))
}

fn open_warm(ground: &Ground) -> io::Result<Work> {
    let names = some_files(&ground.sizes);
    Work::timed(names.len() * PASSES, || {
        (0..PASSES).try_for_each(|_| open_and_read(&names))
    })
}
