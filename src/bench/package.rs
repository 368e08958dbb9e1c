//! A Debian package without any use, made from nothing: an `ar` archive of two `tar`s.

use super::data::{Random, complete};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

const CONTROL: &str = "Package: plyfs-bench\nVersion: 1\nArchitecture: all\n\
    Maintainer: plyfs bench <bench@localhost>\nDescription: files to install\n";

/// Where its files go.
const FILES: &str = "usr/share/plyfs-bench";

/// How many files lie in one directory.
const PER_DIR: usize = 100;

/// Makes the package `path` with `files` files; `scratch` is a directory to make it in.
///
/// # Errors
/// Where it cannot be written, or tar is missing.
pub fn make(path: &Path, scratch: &Path, files: usize) -> io::Result<()> {
    let tree = scratch.join("package");
    let mut random = Random::new(5);
    for i in 0..files {
        let dir = tree
            .join("data")
            .join(FILES)
            .join(format!("d{:03}", i / PER_DIR));
        fs::create_dir_all(&dir)?;
        let size = 512 + (random.next() % 12_000) as usize;
        let mut content = vec![0; size];
        random.fill(&mut content);
        fs::write(dir.join(format!("file-{i:05}")), content)?;
    }
    fs::create_dir_all(tree.join("control"))?;
    fs::write(tree.join("control/control"), CONTROL)?;
    for part in ["control", "data"] {
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]);
        tar.arg(tree.join(part).with_extension("tar"));
        tar.arg("-C").arg(tree.join(part)).arg(".");
        complete(&mut tar)?;
    }
    let mut package = File::create(path)?;
    package.write_all(b"!<arch>\n")?;
    member(&mut package, "debian-binary", b"2.0\n")?;
    for part in ["control.tar", "data.tar"] {
        member(&mut package, part, &fs::read(tree.join(part))?)?;
    }
    fs::remove_dir_all(&tree)
}

/// One member: a header of 60 bytes, and the content padded to an even length.
fn member(out: &mut impl Write, name: &str, content: &[u8]) -> io::Result<()> {
    let size = content.len();
    writeln!(
        out,
        "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`",
        0, 0, 0, "100644"
    )?;
    out.write_all(content)?;
    if size % 2 == 1 {
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_a_header_of_60_bytes_and_an_even_length() {
        let mut out = Vec::new();
        member(&mut out, "debian-binary", b"odd").expect("written to memory");
        assert_eq!(out.len(), 64);
        assert_eq!(out.get(58..60), Some(b"`\n".as_slice()));
        assert_eq!(out.get(48..58), Some(b"3         ".as_slice()));
    }
}
