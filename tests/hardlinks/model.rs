//! What a tree of hard links must look like, and random changes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::support::bytes::fill;
use super::support::lab::at;
use super::support::rng::Rng;
use super::support::sys::{self, errno_name};

#[derive(Clone, Copy)]
pub struct Size {
    pub groups: usize,
    pub ops: usize,
}

/// One file.
struct File {
    names: BTreeSet<String>,
    data: Vec<u8>,
    mode: u32,
    /// The number that it was first seen with.
    ino: Option<u64>,
}

pub struct Model {
    files: BTreeMap<usize, File>,
    by_name: BTreeMap<String, usize>,
    next: usize,
}

const DIRS: usize = 24;
const TIME: &str = "0:0 1000000000.5";

/// Directory `n`; every other one lies in the one before.
fn dir(n: usize) -> String {
    match n % 2 {
        0 => format!("d{n}"),
        _ => format!("d{}/d{n}", n - 1),
    }
}

fn fresh(rng: &mut Rng, tag: &str, n: usize) -> String {
    format!("{}/{tag}{n}", dir(rng.below(DIRS as u64) as usize))
}

impl Model {
    /// The model, and the lower in the lines of `layers.rs`.
    pub fn new(rng: &mut Rng, size: Size) -> (Model, Vec<String>) {
        let mut model = Model {
            files: BTreeMap::new(),
            by_name: BTreeMap::new(),
            next: 0,
        };
        let mut lines: Vec<String> = (0..DIRS)
            .map(|n| format!("dir {} 755 {TIME}", dir(n)))
            .collect();
        for group in 0..size.groups {
            let len = *rng.pick(&[0, 1, 100, 4096, 9000]);
            let names: Vec<String> = (0..2 + rng.below(4) as usize)
                .map(|n| fresh(rng, &format!("n{n}-"), group))
                .collect();
            let seed = group as u64 % 250;
            let content = if len == 0 {
                "0 -".to_string()
            } else {
                format!("{len} 0+{len}+{seed}")
            };
            lines.push(format!("file {} 644 {TIME} {content}", names[0]));
            for name in &names[1..] {
                lines.push(format!("link {name} {}", names[0]));
            }
            model.add(names, fill(seed, 0, len));
        }
        (model, lines)
    }

    fn add(&mut self, names: Vec<String>, data: Vec<u8>) {
        for name in &names {
            self.by_name.insert(name.clone(), self.next);
        }
        let file = File {
            names: names.into_iter().collect(),
            data,
            mode: 0o644,
            ino: None,
        };
        self.files.insert(self.next, file);
        self.next += 1;
    }

    /// How many names there are.
    pub fn names(&self) -> usize {
        self.by_name.len()
    }

    fn any_name(&self, rng: &mut Rng) -> Option<String> {
        let at = rng.below(self.by_name.len().max(1) as u64) as usize;
        self.by_name.keys().nth(at).cloned()
    }

    fn file(&mut self, name: &str) -> &mut File {
        let id = self.by_name[name];
        self.files.get_mut(&id).expect("a name has a file")
    }

    fn unlink(&mut self, name: &str) -> usize {
        let id = self.by_name.remove(name).expect("the name is known");
        let file = self.files.get_mut(&id).expect("a name has a file");
        file.names.remove(name);
        if file.names.is_empty() {
            self.files.remove(&id);
        }
        id
    }

    /// Changes something through a random name, and looks at the file by all of its names.
    pub fn step(&mut self, rng: &mut Rng, root: &Path) -> Result<(), String> {
        let verbs = [
            (20, "write"),
            (5, "append"),
            (5, "truncate"),
            (15, "chmod"),
            (12, "unlink"),
            (14, "link"),
            (12, "rename"),
            (6, "replace"),
            (2, "create"),
            (9, "read"),
        ];
        let verb = rng.weighted(&verbs);
        let Some(name) = self.any_name(rng) else {
            return Ok(());
        };
        let other = match verb {
            "replace" => self.any_name(rng).unwrap_or_default(),
            _ => fresh(rng, "new", self.next),
        };
        let said = |e| format!("{verb} {name} {other}: {}", errno_name(e));
        let seen = match self.change(rng, root, (verb, &name, &other)) {
            Ok(seen) => seen,
            Err(e) => return Err(said(e)),
        };
        for id in seen {
            self.judge(root, id)
                .map_err(|e| format!("after {verb} {name} {other}: {e}"))?;
        }
        Ok(())
    }

    /// Does it on disk and in the model; the files to look at then.
    fn change(
        &mut self,
        rng: &mut Rng,
        root: &Path,
        (verb, name, other): (&str, &str, &str),
    ) -> sys::Res<Vec<usize>> {
        let (here, there) = (at(root, name), at(root, other));
        let id = self.by_name[name];
        match verb {
            "write" | "append" => {
                let len = self.file(name).data.len();
                let from = match verb {
                    "append" => len,
                    _ => rng.below(len as u64 + 1) as usize,
                };
                let bytes = fill(rng.below(250), from as u64, 1 + rng.below(300) as usize);
                let flags = if verb == "append" { libc::O_APPEND } else { 0 };
                let fd = sys::open(&here, libc::O_WRONLY | flags, 0)?;
                sys::pwrite(&fd, &bytes, from as u64)?;
                sys::close(fd)?;
                let data = &mut self.file(name).data;
                data.resize(len.max(from + bytes.len()), 0);
                data[from..from + bytes.len()].copy_from_slice(&bytes);
            }
            "truncate" => {
                let len = rng.below(self.file(name).data.len() as u64 + 50);
                sys::truncate(&here, len)?;
                self.file(name).data.resize(len as usize, 0);
            }
            "chmod" => {
                let mode = *rng.pick(&[0o644, 0o600, 0o755, 0o4755, 0o440]);
                sys::chmod(&here, mode)?;
                self.file(name).mode = mode;
            }
            "unlink" => {
                sys::unlink(&here)?;
                self.unlink(name);
            }
            "link" => {
                sys::link(&here, &there)?;
                self.by_name.insert(other.into(), id);
                self.file(name).names.insert(other.into());
                self.next += 1;
            }
            "rename" => {
                sys::rename(&here, &there, 0)?;
                self.file(name).names.insert(other.into());
                self.unlink(name);
                self.by_name.insert(other.into(), id);
                self.next += 1;
            }
            "replace" => {
                sys::rename(&here, &there, 0)?;
                let target = self.by_name[other];
                // Two names of one file: rename(2) does nothing.
                if target != id {
                    self.unlink(other);
                    self.file(name).names.insert(other.into());
                    self.unlink(name);
                    self.by_name.insert(other.into(), id);
                }
                return Ok(vec![id, target]);
            }
            "create" => {
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
                sys::close(sys::open(&there, flags, 0o644)?)?;
                self.add(vec![other.into()], Vec::new());
                return Ok(vec![self.next - 1]);
            }
            _ => {}
        }
        Ok(vec![id])
    }

    /// Looks at the file `id` by all of its names, if it has any.
    fn judge(&mut self, root: &Path, id: usize) -> Result<(), String> {
        let Some(file) = self.files.get_mut(&id) else {
            return Ok(());
        };
        for name in &file.names {
            let path = at(root, name);
            let stat = sys::lstat(&path).map_err(|e| format!("{name}: {}", errno_name(e)))?;
            if stat.nlink != file.names.len() as u64 {
                let want = file.names.len();
                return Err(format!("{name}: nlink {} for {want}", stat.nlink));
            }
            if stat.mode & 0o7777 != file.mode {
                let mode = stat.mode & 0o7777;
                return Err(format!("{name}: mode {mode:o} for {:o}", file.mode));
            }
            let ino = *file.ino.get_or_insert(stat.ino);
            if stat.ino != ino {
                return Err(format!("{name}: st_ino {} for {ino}", stat.ino));
            }
            let read = sys::open(&path, libc::O_RDONLY, 0).and_then(|fd| sys::read_all(&fd));
            let data = read.map_err(|e| format!("{name}: reading: {}", errno_name(e)))?;
            if data != file.data {
                let (has, want) = (data.len(), file.data.len());
                return Err(format!("{name}: wrong data, {has} bytes for {want}"));
            }
        }
        Ok(())
    }

    /// Looks at everything: each name that there is, and that there are no others.
    pub fn judge_all(&mut self, root: &Path) -> Result<(), String> {
        let ids: Vec<usize> = self.files.keys().copied().collect();
        for id in ids {
            self.judge(root, id)?;
        }
        let mut listed = BTreeSet::new();
        for n in 0..DIRS {
            let entries = sys::list(at(root, &dir(n))).map_err(errno_name)?;
            let files = entries.iter().filter(|e| e.kind != libc::DT_DIR);
            for entry in files {
                let name = format!("{}/{}", dir(n), String::from_utf8_lossy(&entry.name));
                let ino = self.by_name.get(&name).and_then(|id| self.files[id].ino);
                if ino != Some(entry.ino) {
                    return Err(format!("{name}: listed with {} for {ino:?}", entry.ino));
                }
                listed.insert(name);
            }
        }
        if listed.len() != self.by_name.len() {
            let (has, want) = (listed.len(), self.by_name.len());
            return Err(format!("{has} names are listed, {want} expected"));
        }
        Ok(())
    }
}
