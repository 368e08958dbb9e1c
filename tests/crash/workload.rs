//! What is done to a union while the power may go out.

use crate::inside::{Files, Inside};
use crate::support::rng::Rng;

/// The file that a line makes durable.
pub fn synced(line: &str) -> Option<&str> {
    let path = line.strip_prefix("fsync ");
    path.or_else(|| line.strip_prefix("fdatasync "))
}

/// The workload: `sync` makes everything durable, `fsync PATH` one file, and so does the first
/// `fdatasync PATH` after a copy-up.
pub const WORK: &[&str] = &[
    "write d/f 5000",
    "fdatasync d/f",
    "chmod d/g",
    "link big empty/l",
    "create d/new",
    "write d/new 0",
    "fsync d/new",
    "write d/h 5",
    "rename top d/top",
    "unlink e/y",
    "create e/y",
    "write e/y 0",
    "rename m m2",
    "write m2/a 3",
    "fsync m2/a",
    "rename m2/sub d/sub",
    "setxattr d/sub/q",
    "truncate big 1000",
    "write big 500",
    "fdatasync big",
    "chown e",
    "setxattr d/low",
    "write d/low 0",
    "fdatasync d/low",
    "unlink d/g",
    "sync",
    "unlink gone/z",
    "rmdir gone",
    "mkdir gone",
    "create gone/n",
    "write gone/n 0",
    "exchange d/f below",
    "link below l2",
    "write l2 9000",
    "fsync below",
    "rename m2 e/m2",
    "symlink sl",
    "rename d/new e/new",
    "rename e/new d/top",
    "write suid 3",
    "mkdir dd",
    "rename e/in dd/in",
    "write dd/in/x 1",
    "fsync dd/in/x",
    "unlink top2",
    "chmod e/m2",
    "write e/m2/b 100",
    "fdatasync e/m2/b",
    "rename e/m2/b e/m2/a",
    "write d/low 7",
    "sync",
    "rename s s2",
    "rename e ee",
    "utimens ee/low",
];

/// Anything that shows a union: the subject of the experiment.
pub trait Union {
    fn perform(&self, line: &str) -> Result<(), String>;
    fn files(&self) -> Result<Files, String>;

    /// Does something of what goes on in the background.
    fn fill(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Union for Inside {
    fn perform(&self, line: &str) -> Result<(), String> {
        Inside::perform(self, line).map_err(|e| format!("{line}: {e:?}"))
    }

    fn files(&self) -> Result<Files, String> {
        Inside::files(self).map_err(|e| format!("reading: {e:?}"))
    }

    fn fill(&self) -> Result<(), String> {
        Inside::fill(self).map_err(|e| format!("filling: {e:?}"))
    }
}

/// Something to do with what there is now; `None` for what the kernel refuses without asking.
pub fn make_up(now: &Files, rng: &mut Rng) -> Option<String> {
    let paths: Vec<&str> = now.keys().map(|p| p.trim_start_matches('/')).collect();
    let here = *rng.pick(&paths[1..]);
    let dirs: Vec<&str> = now
        .iter()
        .filter(|(_, file)| file.data.is_none() && file.mtime.is_empty())
        .map(|(path, _)| path.trim_start_matches('/'))
        .collect();
    let dir = *rng.pick(&dirs);
    let name = *rng.pick(&["n1", "n2", "n3", "f", "a", "top", "sub", "in"]);
    let new = if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    };
    let there = *rng.pick(&paths[1..]);
    // Nobody can sync or write anything else.
    let what = &now[&format!("/{here}")].what;
    let is_other = !what.starts_with("100") && !what.starts_with('4');
    let inside = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
    let nested = |a: &str, b: &str| inside(a, b) || inside(b, a);
    if is_other || nested(here, there) || nested(here, &new) {
        return None;
    }
    Some(match rng.below(24) {
        0..5 => format!("write {here} {}", rng.below(6) * 1000),
        5..7 => format!("create {new}"),
        7 => format!("mkdir {new}"),
        8 => format!("link {here} {new}"),
        9 => format!("unlink {here}"),
        10 => format!("rmdir {dir}"),
        11..14 => format!("rename {here} {new}"),
        14 => format!("rename {here} {there}"),
        15 => format!("exchange {here} {there}"),
        16 => format!("truncate {here} {}", rng.below(3000)),
        17 => format!("chmod {here}"),
        18 => format!("setxattr {here}"),
        19 => format!("utimens {here}"),
        20..23 => format!("fsync {here}"),
        _ => "sync".to_owned(),
    })
}
