//! What real programs do.

use super::{Ground, Group, Work, Workload, create, grouped};
use crate::bench::data::{Set, Sizes, complete, git};
use std::io;
use std::path::Path;
use std::process::Command;

/// The archive that is unpacked, among the inputs.
pub const ARCHIVE: &str = "headers.tar";

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let files = grouped(sizes.git_files());
    let new = |name: &str, title: String, measure: fn(&Ground) -> io::Result<Work>| {
        Workload::new(Group::Programs, name, title, measure)
    };
    vec![
        new("git-status", format!("git status, {files} files"), status)
            .changing(Set::Git)
            .with("git")
            .after(|ground| status(ground).map(drop)),
        new(
            "git-checkout",
            format!("git checkout that changes a third of {files}"),
            checkout,
        )
        .changing(Set::Git)
        .with("git")
        .after(|ground| status(ground).map(drop)),
        new(
            "untar",
            format!("untar of {} headers", grouped(sizes.header_files())),
            untar,
        )
        .with("tar")
        .after(create::make_room),
    ]
}

fn status(_: &Ground) -> io::Result<Work> {
    let mut git = git(Path::new(Set::Git.dir()));
    git.args(["status", "--porcelain"]);
    Work::timed(1, || complete(&mut git))
}

fn checkout(_: &Ground) -> io::Result<Work> {
    let mut git = git(Path::new(Set::Git.dir()));
    git.args(["checkout", "--quiet", "other"]);
    Work::timed(1, || complete(&mut git))
}

fn untar(ground: &Ground) -> io::Result<Work> {
    let archive = ground.inputs.join(ARCHIVE);
    let size = std::fs::metadata(&archive)?.len();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).args(["-C", create::NEW]);
    let work = Work::timed(1, || complete(&mut tar))?;
    Ok(work.of_bytes(usize::try_from(size).unwrap_or_default()))
}
