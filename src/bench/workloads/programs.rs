//! What real programs do.

use super::{Ground, Group, Input, Work, Workload, create, grouped};
use crate::bench::data::{Set, Sizes, complete, git};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

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
        .reading(Input::Headers)
        .after(create::make_room),
        new(
            "package",
            format!(
                "dpkg --install of {} files in a chroot",
                grouped(sizes.package_files())
            ),
            install,
        )
        .with("chroot")
        .reading(Input::Package)
        .in_rootfs()
        .after(bring_package),
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
    let archive = ground.inputs.join(Input::Headers.name());
    let size = fs::metadata(&archive)?.len();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).args(["-C", create::NEW]);
    let work = Work::timed(1, || complete(&mut tar))?;
    Ok(work.of_bytes(usize::try_from(size).unwrap_or_default()))
}

fn bring_package(ground: &Ground) -> io::Result<()> {
    if !Path::new("usr/bin/dpkg").exists() {
        return Err(io::Error::other("the root filesystem has no dpkg"));
    }
    let name = Input::Package.name();
    fs::copy(ground.inputs.join(name), name).map(drop)
}

fn install(_: &Ground) -> io::Result<Work> {
    let mut dpkg = Command::new("chroot");
    dpkg.args([".", "dpkg", "--install"]);
    dpkg.arg(Path::new("/").join(Input::Package.name()));
    dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    dpkg.env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    dpkg.stdin(Stdio::null()).stdout(Stdio::null());
    Work::timed(1, || complete(&mut dpkg))
}
