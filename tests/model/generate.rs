//! Random layers: few names, so that every layer has something to say about the same paths.

use super::case::Case;
use super::support::bytes::escape;
use super::support::layers::MarkFormat;
use super::support::rng::Rng;

/// The names of a depth; fewer further down, so that paths collide.
const NAMES: [&[&[u8]]; 4] = [
    &[b"a", b"b", b"c", b"d", b"e\xff", b"f g"],
    &[b"a", b"b", b"c", b"x"],
    &[b"a", b"b", b"c"],
    &[b"a", b"b"],
];

const MODES: &[u32] = &[
    0o755, 0o755, 0o644, 0o644, 0o777, 0o700, 0o600, 0o000, 0o4755, 0o2755, 0o6711, 0o1777, 0o444,
    0o2775, 0o4711,
];
const IDS: &[u32] = &[0, 0, 0, 1000, 1000, 1001];
const SECONDS: &[i64] = &[
    0,
    1,
    -1,
    -86_400,
    -1_000_000_000,
    1_000_000_000,
    1_500_000_000,
    2_100_000_000,
];

pub fn name(rng: &mut Rng, depth: usize) -> String {
    let names = NAMES[depth.min(NAMES.len() - 1)];
    escape(names[rng.below(names.len() as u64) as usize])
}

pub fn time(rng: &mut Rng) -> String {
    let nanoseconds = if rng.chance(20) {
        0
    } else {
        rng.below(1_000_000_000)
    };
    format!("{}.{nanoseconds}", rng.pick(SECONDS))
}

pub fn mode(rng: &mut Rng) -> u32 {
    if rng.chance(15) {
        rng.below(0o10000) as u32
    } else {
        *rng.pick(MODES)
    }
}

pub fn owner(rng: &mut Rng) -> String {
    format!("{}:{}", rng.pick(IDS), rng.pick(IDS))
}

/// Characters of a file: its size and its extents.
fn content(rng: &mut Rng) -> String {
    let seed = rng.below(250);
    match rng.below(10) {
        0 | 1 => "0 -".into(),
        2..=5 => {
            let len = rng.below(200) + 1;
            format!("{len} 0+{len}+{seed}")
        }
        6 | 7 => {
            let len = rng.below(20_000) + 1;
            format!("{len} 0+{len}+{seed}")
        }
        8 => {
            // Sparse: a hole, data, a hole at the end.
            let at = rng.below(30) * 4096;
            format!("{} {at}+{}+{seed}", at + 50_000, rng.below(9000) + 1)
        }
        _ => format!(
            "{} 0+5000+{seed},131072+{}+{seed}",
            200_000,
            rng.below(3000) + 1
        ),
    }
}

/// An ACL for the kernel's own binary form: version 2, then tag, permissions and id of each entry.
pub fn acl(rng: &mut Rng) -> Vec<u8> {
    let mut bits = || rng.below(8) as u16;
    let no_id = u32::MAX;
    let entries = [
        (0x01u16, bits(), no_id),
        (0x02, bits(), 1000),
        (0x04, bits(), no_id),
        (0x08, bits(), 1001),
        (0x10, bits(), no_id),
        (0x20, bits(), no_id),
    ];
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

/// A `security.capability` of version 2.
pub fn capability(rng: &mut Rng) -> Vec<u8> {
    let permitted = 1u32 << rng.below(30);
    let words = [0x0200_0001, permitted, 0, 0, 0];
    words.iter().flat_map(|w: &u32| w.to_le_bytes()).collect()
}

/// NAME and VALUE of an xattr that a file of this kind can have.
pub fn xattr(rng: &mut Rng, kind: &str) -> (String, String) {
    let value = |rng: &mut Rng| {
        let len = if rng.chance(10) {
            300
        } else {
            rng.below(12) as usize
        };
        super::support::bytes::fill(rng.below(250), 0, len)
    };
    let (name, value) = match (kind, rng.below(10)) {
        ("file", 0 | 1) => ("security.capability", capability(rng)),
        ("file" | "dir", 2 | 3) => ("system.posix_acl_access", acl(rng)),
        ("dir", 4 | 5) => ("system.posix_acl_default", acl(rng)),
        ("file" | "dir", 6..=8) => ("user.note", value(rng)),
        ("file" | "dir", _) => ("user.%ff odd", value(rng)),
        _ => ("trusted.note", value(rng)),
    };
    (escape(name.as_bytes()), escape(&value))
}

/// Layers, at most `most` lower ones, and mark format of a case, with an empty script.
pub fn layers(rng: &mut Rng, most: u64) -> Case {
    let mut case = Case {
        format: *rng.pick(&MarkFormat::ALL),
        ..Case::default()
    };
    let count = 1 + rng.below(most);
    for depth in 0..count {
        case.lowers.push(layer(rng, depth + 1 == count));
    }
    if rng.chance(30) {
        case.upper = layer(rng, false);
        let (upper, below) = (case.upper.clone(), &case.lowers[0]);
        case.upper.retain(|line| is_needed(line, &upper, below));
    }
    case
}

/// A whiteout in an upper directory with nothing below it makes the kernel's rmdir fail for good;
/// plyfs removes such a directory. Neither would make it.
fn is_needed(line: &str, upper: &[String], below: &[String]) -> bool {
    let Some(path) = line.strip_prefix("whiteout ") else {
        return true;
    };
    path.match_indices('/').all(|(end, _)| {
        let parent = &path[..end];
        let is_dir = |l: &String| l.starts_with(&format!("dir {parent} "));
        below.iter().any(is_dir) && !upper.contains(&format!("opaque {parent}"))
    })
}

fn layer(rng: &mut Rng, bottom: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mode = if rng.chance(80) {
        0o755
    } else {
        self::mode(rng)
    };
    lines.push(format!("dir . {mode:o} {} {}", owner(rng), time(rng)));
    let mut draft = Draft {
        lines,
        links: Vec::new(),
        bottom,
    };
    draft.directory(rng, "", 0);
    draft.lines
}

struct Draft {
    lines: Vec<String>,
    /// What a hard link can be made to.
    links: Vec<String>,
    bottom: bool,
}

impl Draft {
    fn directory(&mut self, rng: &mut Rng, path: &str, depth: usize) {
        for name in NAMES[depth.min(NAMES.len() - 1)] {
            if rng.chance(55) {
                continue;
            }
            let name = escape(name);
            let at = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            self.entry(rng, &at, depth);
        }
    }

    fn entry(&mut self, rng: &mut Rng, at: &str, depth: usize) {
        let dirs = if depth < 3 { 38 } else { 4 };
        let whiteouts = if self.bottom { 1 } else { 13 };
        let kinds = [
            (dirs, "dir"),
            (34, "file"),
            (whiteouts, "whiteout"),
            (7, "symlink"),
            (4, "node"),
            (10, "link"),
        ];
        let mut kind = rng.weighted(&kinds);
        if kind == "link" && self.links.is_empty() {
            kind = "file";
        }
        let (owner, time) = (owner(rng), time(rng));
        match kind {
            "dir" => self
                .lines
                .push(format!("dir {at} {:o} {owner} {time}", mode(rng))),
            "file" => {
                self.lines.push(format!(
                    "file {at} {:o} {owner} {time} {}",
                    mode(rng),
                    content(rng)
                ));
            }
            "symlink" => self
                .lines
                .push(format!("symlink {at} {} {owner} {time}", target(rng))),
            "node" => {
                let (kind, rdev) = *rng.pick(&[
                    (libc::S_IFIFO, 0),
                    (libc::S_IFSOCK, 0),
                    (libc::S_IFCHR, 0x103),
                    (libc::S_IFBLK, 0x1_0700),
                ]);
                let mode = kind | mode(rng) & 0o7777;
                self.lines
                    .push(format!("node {at} {mode:o} {owner} {time} {rdev}"));
            }
            "link" => {
                let to = rng.pick(&self.links).clone();
                self.lines.push(format!("link {at} {to}"));
            }
            _ => self.lines.push(format!("whiteout {at}")),
        }
        if matches!(kind, "file" | "symlink" | "node") {
            self.links.push(at.into());
        }
        if matches!(kind, "dir" | "file" | "symlink" | "node") {
            while rng.chance(22) {
                let (name, value) = xattr(rng, kind);
                self.lines.push(format!("xattr {at} {name} {value}"));
            }
        }
        if kind == "dir" {
            if rng.chance(12) {
                self.lines.push(format!("opaque {at}"));
            }
            self.directory(rng, at, depth + 1);
        }
    }
}

/// Where a symlink points: inside, outside and nowhere.
pub fn target(rng: &mut Rng) -> String {
    match rng.below(6) {
        0 => "../a".into(),
        1 => "/b".into(),
        2 => "nowhere".into(),
        3 => "../../../../c".into(),
        4 => format!("{}/{}", name(rng, 0), name(rng, 1)),
        _ => name(rng, 0),
    }
}
