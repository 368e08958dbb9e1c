//! A whole tree as a value: for comparing two views, and for showing that a layer is untouched.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::bytes::{digest, escape};
use super::sys::{self, Stat, errno_name};

/// One file, with everything that a program can ask about it.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub stat: Stat,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub data: Option<Data>,
    /// Calls that failed, with their errno; empty in a healthy tree.
    pub trouble: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub digest: u64,
    pub len: u64,
}

/// Path below the root (the root itself is `""`) to what is there.
pub type Tree = BTreeMap<Vec<u8>, NodeView>;

/// Reads the whole tree at `root`, without touching a time where that can be helped.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    visit(root.as_os_str().as_bytes(), b"", &mut tree);
    tree
}

fn join(root: &[u8], path: &[u8]) -> Vec<u8> {
    [root, b"/", path].concat()
}

fn visit(root: &[u8], path: &[u8], tree: &mut Tree) {
    let full = join(root, path);
    let stat = match sys::lstat(&full) {
        Ok(stat) => stat,
        Err(e) => {
            let trouble = format!("listed, but lstat says {}", errno_name(e));
            tree.insert(path.to_vec(), NodeView::broken(trouble));
            return;
        }
    };
    let mut node = NodeView {
        stat,
        ..NodeView::broken(String::new())
    };
    node.trouble.clear();
    if node.stat.is_symlink() {
        node.target = note(&mut node.trouble, "readlink", sys::readlink(&full));
    }
    for name in note(&mut node.trouble, "llistxattr", sys::llistxattr(&full)) {
        let what = format!("lgetxattr {}", escape(&name));
        let value = note(&mut node.trouble, &what, sys::lgetxattr(&full, &name));
        node.xattrs.insert(name, value);
    }
    if node.stat.is_file() {
        let data = read_data(&full);
        node.data = match data {
            Ok(data) => Some(data),
            Err(e) => {
                node.trouble.push(format!("reading: {}", errno_name(e)));
                None
            }
        };
    }
    if !node.stat.is_dir() {
        tree.insert(path.to_vec(), node);
        return;
    }
    let children = open_quietly(&full, libc::O_DIRECTORY).and_then(|dir| sys::read_rest(&dir));
    let mut children = note(&mut node.trouble, "reading the directory", children);
    children.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in children.windows(2) {
        if pair[0].name == pair[1].name {
            node.trouble
                .push(format!("{} is listed twice", escape(&pair[0].name)));
        }
    }
    tree.insert(path.to_vec(), node);
    for child in children {
        let below = if path.is_empty() {
            child.name.clone()
        } else {
            join(path, &child.name)
        };
        visit(root, &below, tree);
        let Some(seen) = tree.get_mut(&below) else {
            continue;
        };
        let kind = (seen.stat.mode & libc::S_IFMT) >> 12;
        if seen.trouble.is_empty() && child.ino != seen.stat.ino {
            seen.trouble.push(format!(
                "d_ino {} is not st_ino {}",
                child.ino, seen.stat.ino
            ));
        }
        if seen.stat.mode != 0 && u32::from(child.kind) != kind && child.kind != libc::DT_UNKNOWN {
            seen.trouble
                .push(format!("d_type {} is not {kind}", child.kind));
        }
    }
}

impl NodeView {
    fn broken(trouble: String) -> NodeView {
        let none = (0, 0);
        NodeView {
            stat: Stat {
                dev: 0,
                ino: 0,
                mode: 0,
                nlink: 0,
                uid: 0,
                gid: 0,
                rdev: 0,
                size: 0,
                blocks: 0,
                atime: none,
                mtime: none,
                ctime: none,
            },
            target: Vec::new(),
            xattrs: BTreeMap::new(),
            data: None,
            trouble: vec![trouble],
        }
    }
}

fn note<T: Default>(trouble: &mut Vec<String>, what: &str, got: sys::Res<T>) -> T {
    got.unwrap_or_else(|e| {
        trouble.push(format!("{what}: {}", errno_name(e)));
        T::default()
    })
}

/// For reading without a change of atime, where we may.
fn open_quietly(path: &[u8], flags: i32) -> sys::Res<std::os::fd::OwnedFd> {
    let flags = flags | libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    sys::open(path, flags | libc::O_NOATIME, 0).or_else(|_| sys::open(path, flags, 0))
}

fn read_data(path: &[u8]) -> sys::Res<Data> {
    let fd = open_quietly(path, 0)?;
    let bytes = sys::read_all(&fd)?;
    if !holes_are_empty(&bytes, &segments(&fd)?) {
        return Err(libc::ESPIPE);
    }
    Ok(Data {
        digest: digest(&bytes),
        len: bytes.len() as u64,
    })
}

/// Whether all that SEEK_HOLE calls a hole reads as zeros. Which zeros are holes is nothing to
/// compare: it depends on what the page cache happens to hold.
pub fn holes_are_empty(bytes: &[u8], segments: &[(u64, u64)]) -> bool {
    let mut at = 0;
    let ends = segments.iter().copied().chain([(bytes.len() as u64, 0)]);
    for (from, to) in ends {
        let hole = bytes.get(at as usize..from as usize).unwrap_or_default();
        if hole.iter().any(|b| *b != 0) {
            return false;
        }
        at = to;
    }
    true
}

/// The data segments of an open file.
pub fn segments(fd: &std::os::fd::OwnedFd) -> sys::Res<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0i64;
    loop {
        let from = match sys::lseek(fd, at, libc::SEEK_DATA) {
            Ok(from) => from,
            Err(libc::ENXIO) => return Ok(found),
            Err(e) => return Err(e),
        };
        // Zeros that write-back has just found out to be zeros are data now and a hole then.
        let to = sys::lseek(fd, from as i64, libc::SEEK_HOLE)?.max(from + 1);
        found.push((from, to));
        at = to as i64;
    }
}

/// A time that cannot be foreseen is `recent`; a time that was set long ago is itself.
pub fn time(t: (i64, i64)) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64);
    if (t.0 - now).abs() < 86_400 {
        "recent".into()
    } else {
        format!("{}.{:09}", t.0, t.1)
    }
}

/// What two views of one file must agree on, one `name=value` each.
pub fn describe(stat: &Stat) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("mode", format!("{:06o}", stat.mode)),
        ("owner", format!("{}:{}", stat.uid, stat.gid)),
        ("mtime", time(stat.mtime)),
    ];
    // Whoever reads a symlink's target changes its atime; nothing can keep that from happening.
    if !stat.is_symlink() {
        all.push(("atime", time(stat.atime)));
    }
    if !stat.is_dir() {
        all.push(("nlink", stat.nlink.to_string()));
        all.push(("size", stat.size.to_string()));
        all.push(("rdev", format!("{:#x}", stat.rdev)));
    }
    all
}

fn describe_node(node: &NodeView) -> Vec<(&'static str, String)> {
    let mut all = describe(&node.stat);
    all.push(("target", escape(&node.target)));
    let xattrs: Vec<String> = node
        .xattrs
        .iter()
        .map(|(n, v)| format!("{}={}", escape(n), escape(v)))
        .collect();
    all.push(("xattrs", xattrs.join(" ")));
    if let Some(data) = &node.data {
        all.push((
            "data",
            format!("{:016x} of {} bytes", data.digest, data.len),
        ));
    }
    all.push(("trouble", node.trouble.join("; ")));
    all
}

/// The lines in which two trees differ; `left` and `right` name them in the lines.
pub fn differences(left: (&str, &Tree), right: (&str, &Tree)) -> Vec<String> {
    let mut lines = Vec::new();
    let mut paths: Vec<&Vec<u8>> = left.1.keys().chain(right.1.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let shown = if path.is_empty() {
            "/".into()
        } else {
            format!("/{}", escape(path))
        };
        match (left.1.get(path), right.1.get(path)) {
            (Some(a), Some(b)) => {
                let (a, b) = (describe_node(a), describe_node(b));
                if a.len() != b.len() {
                    lines.push(format!("{shown}: {}={a:?} {}={b:?}", left.0, right.0));
                    continue;
                }
                for ((what, x), (_, y)) in a.iter().zip(&b) {
                    if x != y {
                        lines.push(format!("{shown}: {what}: {}={x} {}={y}", left.0, right.0));
                    }
                }
            }
            (Some(a), None) => {
                lines.push(format!("{shown}: only in {} ({:06o})", left.0, a.stat.mode))
            }
            (None, Some(b)) => lines.push(format!(
                "{shown}: only in {} ({:06o})",
                right.0, b.stat.mode
            )),
            (None, None) => {}
        }
    }
    lines
}

/// Which names are one file: each group of more than one, and every st_ino that two files share.
pub fn identity(tree: &Tree) -> BTreeMap<u64, Vec<Vec<u8>>> {
    let mut groups = BTreeMap::<u64, Vec<Vec<u8>>>::new();
    for (path, node) in tree {
        if node.stat.mode != 0 {
            groups.entry(node.stat.ino).or_default().push(path.clone());
        }
    }
    groups.retain(|_, names| names.len() > 1);
    groups
}

/// The groups of `identity`, without the numbers.
pub fn groups(tree: &Tree) -> Vec<Vec<Vec<u8>>> {
    let mut all: Vec<_> = identity(tree).into_values().collect();
    all.sort();
    all
}
