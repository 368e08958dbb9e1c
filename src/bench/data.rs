//! What the layers hold: sets of files, made once and spread over the lower layers.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The size of a small file.
pub const SMALL: usize = 4096;

/// How many of everything there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    scale: f64,
}

impl Sizes {
    /// `scale` times the usual sizes.
    pub fn new(scale: f64) -> Sizes {
        Sizes { scale }
    }

    /// `full` scaled, and at least `least`.
    pub fn count(&self, full: usize, least: usize) -> usize {
        // The counts are far below what a double holds exactly.
        ((full as f64 * self.scale).round() as usize).max(least)
    }

    /// Directories of a hundred small files each.
    pub fn small_dirs(&self) -> usize {
        self.count(300, 4)
    }

    /// Of the small files, how many are opened or changed.
    pub fn some_files(&self) -> usize {
        self.count(10_000, 100)
    }

    /// Entries of the one big directory.
    pub fn big_entries(&self) -> usize {
        self.count(60_000, 200)
    }

    /// Bytes of the one large file.
    pub fn large_bytes(&self) -> usize {
        self.count(1 << 30, 1 << 24)
    }

    /// Bytes of the file that is copied up for long.
    pub fn huge_bytes(&self) -> usize {
        self.count(2 << 30, 1 << 24)
    }

    /// Directories of the tree that is moved, a hundred files each.
    pub fn moved_dirs(&self) -> usize {
        self.count(100, 2)
    }

    /// Files in the git repository.
    pub fn git_files(&self) -> usize {
        self.count(12_000, 120)
    }

    /// Files in the package that is installed.
    pub fn package_files(&self) -> usize {
        self.count(3000, 30)
    }

    /// Files in the archive that is unpacked.
    pub fn header_files(&self) -> usize {
        self.count(20_000, 200)
    }
}

/// Files per directory of the sets that are trees.
pub const PER_DIR: usize = 100;

/// The sizes of which copying up is timed: name, bytes, and how many files of each.
pub const COPY_SIZES: [(&str, usize, usize); 5] = [
    ("4k", 4 << 10, 400),
    ("64k", 64 << 10, 200),
    ("1m", 1 << 20, 50),
    ("16m", 16 << 20, 8),
    ("256m", 256 << 20, 1),
];

/// A lower file of which the first change is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Changed {
    /// Its size, as names have it.
    pub size: &'static str,
    /// The same in bytes.
    pub bytes: usize,
    /// Whether nearly all of it is a hole.
    pub sparse: bool,
    dir: &'static str,
}

const fn changed(dir: &'static str, size: &'static str, bytes: usize, sparse: bool) -> Changed {
    Changed {
        size,
        bytes,
        sparse,
        dir,
    }
}

/// All of them.
pub const CHANGED: [Changed; 14] = [
    changed("changed-4k", "4k", 4 << 10, false),
    changed("changed-16k", "16k", 16 << 10, false),
    changed("changed-64k", "64k", 64 << 10, false),
    changed("changed-128k", "128k", 128 << 10, false),
    changed("changed-256k", "256k", 256 << 10, false),
    changed("changed-1m", "1m", 1 << 20, false),
    changed("changed-4m", "4m", 4 << 20, false),
    changed("changed-16m", "16m", 16 << 20, false),
    changed("changed-64m", "64m", 64 << 20, false),
    changed("changed-1g", "1g", 1 << 30, false),
    changed("changed-10g", "10g", 10 << 30, false),
    changed("changed-64m-sparse", "64m-sparse", 64 << 20, true),
    changed("changed-1g-sparse", "1g-sparse", 1 << 30, true),
    changed("changed-10g-sparse", "10g-sparse", 10 << 30, true),
];

impl Changed {
    /// Makes it in `dir`, and beside it one that is changed first.
    fn make(self, dir: &Path) -> io::Result<()> {
        let path = dir.join("file");
        if self.sparse {
            noise(&path, 1 << 20)?;
            File::options()
                .write(true)
                .open(&path)?
                .set_len(self.bytes as u64)?;
        } else {
            noise(&path, self.bytes)?;
        }
        noise(&dir.join("first"), 1 << 20)
    }
}

/// A set of files below one directory of the union.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Set {
    /// Many directories of small files.
    Small,
    /// One directory of many empty files.
    Big,
    /// One large file.
    Large,
    /// One file that takes long to copy.
    Huge,
    /// A tree that is moved as a whole.
    Moved,
    /// A few files of each size.
    Sizes,
    /// One file of a certain size.
    Changed(Changed),
    /// A git repository with two branches.
    Git,
}

impl Set {
    /// Its directory in the union.
    pub fn dir(self) -> &'static str {
        match self {
            Set::Small => "small",
            Set::Big => "big",
            Set::Large => "large",
            Set::Huge => "huge",
            Set::Moved => "moved",
            Set::Sizes => "sizes",
            Set::Changed(changed) => changed.dir,
            Set::Git => "git",
        }
    }

    /// Makes the set, spread over `layers`.
    ///
    /// # Errors
    /// Where a file cannot be made, or git is missing.
    pub fn make(self, sizes: &Sizes, layers: &[PathBuf]) -> io::Result<()> {
        match self {
            Set::Small => tree(layers, self.dir(), sizes.small_dirs()),
            Set::Moved => tree(layers, self.dir(), sizes.moved_dirs()),
            Set::Big => {
                for layer in layers {
                    fs::create_dir_all(layer.join(self.dir()))?;
                }
                for (i, layer) in (0..sizes.big_entries()).zip(layers.iter().cycle()) {
                    File::create(layer.join(self.dir()).join(big_name(i)))?;
                }
                Ok(())
            }
            Set::Large | Set::Huge => {
                let dir = lowest(layers)?.join(self.dir());
                fs::create_dir_all(&dir)?;
                let bytes = match self {
                    Set::Huge => sizes.huge_bytes(),
                    _ => sizes.large_bytes(),
                };
                noise(&dir.join("file"), bytes)
            }
            Set::Sizes => {
                let dir = lowest(layers)?.join(self.dir());
                for (name, bytes, count) in COPY_SIZES {
                    fs::create_dir_all(dir.join(name))?;
                    for i in 0..sizes.count(count, 1) {
                        noise(&dir.join(name).join(format!("f{i}")), bytes)?;
                    }
                }
                Ok(())
            }
            Set::Changed(changed) => {
                let dir = lowest(layers)?.join(self.dir());
                fs::create_dir_all(&dir)?;
                changed.make(&dir)
            }
            Set::Git => repository(&lowest(layers)?.join(self.dir()), sizes.git_files()),
        }
    }
}

fn lowest(layers: &[PathBuf]) -> io::Result<&PathBuf> {
    layers
        .last()
        .ok_or_else(|| io::Error::other("there is no layer"))
}

/// The names of a tree's files below its directory, in order.
pub fn tree_files(dir: &str, dirs: usize) -> impl Iterator<Item = String> {
    (0..dirs).flat_map(move |d| {
        (0..PER_DIR).map(move |f| format!("{dir}/a{}/d{d:04}/file-{f:03}", d % 10))
    })
}

/// The directories of a tree, in order.
pub fn tree_dirs(dir: &str, dirs: usize) -> impl Iterator<Item = String> {
    (0..dirs).map(move |d| format!("{dir}/a{}/d{d:04}", d % 10))
}

/// The name of entry `i` of the big directory.
pub fn big_name(i: usize) -> String {
    format!("entry-{i:06}")
}

/// Every directory in all layers, the files dealt out to them one by one.
fn tree(layers: &[PathBuf], dir: &str, dirs: usize) -> io::Result<()> {
    for layer in layers {
        for path in tree_dirs(dir, dirs) {
            fs::create_dir_all(layer.join(path))?;
        }
    }
    let mut random = Random::new(7);
    let mut content = vec![0; SMALL];
    for (path, layer) in tree_files(dir, dirs).zip(layers.iter().cycle()) {
        random.fill(&mut content);
        fs::write(layer.join(path), &content)?;
    }
    Ok(())
}

/// A file of bytes that nothing can compress.
fn noise(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut random = Random::new(bytes as u64);
    let mut block = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        random.fill(&mut block);
        let some = block.get(..left.min(block.len())).unwrap_or_default();
        file.write_all(some)?;
        left -= some.len();
    }
    Ok(())
}

/// git, deaf to the user's settings.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    for (key, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_COUNT", "3"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
        ("GIT_CONFIG_KEY_1", "gc.auto"),
        ("GIT_CONFIG_VALUE_1", "0"),
        ("GIT_CONFIG_KEY_2", "maintenance.auto"),
        ("GIT_CONFIG_VALUE_2", "false"),
        ("GIT_AUTHOR_NAME", "bench"),
        ("GIT_AUTHOR_EMAIL", "bench@localhost"),
        ("GIT_COMMITTER_NAME", "bench"),
        ("GIT_COMMITTER_EMAIL", "bench@localhost"),
    ] {
        command.env(key, value);
    }
    command
}

/// Runs a program to its end; what it complained about is the error.
///
/// # Errors
/// Where it cannot be started or does not succeed.
pub fn complete(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let line = said.lines().last().unwrap_or_default();
    Err(io::Error::other(format!(
        "{program}: {}: {line}",
        out.status
    )))
}

/// A repository whose branch `other` differs from `main` in a third of the files.
fn repository(dir: &Path, files: usize) -> io::Result<()> {
    let path = |i: usize| dir.join(format!("src/m{:03}/file-{i:05}.txt", i / 50));
    let write = |i: usize, version: &str| -> io::Result<()> {
        let mut random = Random::new(i as u64);
        let mut text = format!("{version} {i}\n");
        while text.len() < 512 + i % 8 * 1024 {
            text.push_str(&format!("{:016x} {:016x}\n", random.next(), random.next()));
        }
        fs::write(path(i), text)
    };
    for i in (0..files).step_by(50) {
        if let Some(parent) = path(i).parent() {
            fs::create_dir_all(parent)?;
        }
    }
    for i in 0..files {
        write(i, "main")?;
    }
    complete(git(dir).args(["init", "--quiet", "--initial-branch=main"]))?;
    complete(git(dir).args(["add", "--all"]))?;
    complete(git(dir).args(["commit", "--quiet", "--message=main"]))?;
    complete(git(dir).args(["checkout", "--quiet", "-b", "other"]))?;
    for i in (0..files).step_by(3) {
        write(i, "other")?;
    }
    complete(git(dir).args(["commit", "--quiet", "--all", "--message=other"]))?;
    complete(git(dir).args(["checkout", "--quiet", "main"]))?;
    complete(git(dir).args(["repack", "--quiet", "-a", "-d"]))
}

/// An archive like that of a kernel's headers: many small files in deep directories.
///
/// # Errors
/// Where it cannot be written, or tar is missing.
pub fn headers(archive: &Path, scratch: &Path, files: usize) -> io::Result<()> {
    let mut random = Random::new(11);
    for i in 0..files {
        let dir = scratch.join(format!("include/sub{:02}/part{:02}", i % 23, i / 23 % 37));
        if i < 23 * 37 {
            fs::create_dir_all(&dir)?;
        }
        // Mostly a few KiB, now and then a large one, 6 KiB on average.
        let size = match random.next() % 100 {
            0 => 96 << 10,
            1..10 => 16 << 10,
            n => 400 + n as usize * 75,
        };
        let mut text = String::with_capacity(size + 40);
        while text.len() < size {
            text.push_str(&format!(
                "#define NAME_{:x} {}\n",
                random.next(),
                text.len()
            ));
        }
        fs::write(dir.join(format!("header-{i:05}.h")), text)?;
    }
    let mut tar = Command::new("tar");
    tar.arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(scratch)
        .arg("include");
    complete(&mut tar)?;
    fs::remove_dir_all(scratch.join("include"))
}

/// Numbers without meaning, the same ones each time.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Those of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one (xorshift64*).
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            for (byte, value) in chunk.iter_mut().zip(number) {
                *byte = value;
            }
        }
    }
}
