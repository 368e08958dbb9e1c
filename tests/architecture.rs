//! The arrows of the house: who may use whom, read from the sources themselves.

use std::path::{Path, PathBuf};

/// From the top of the house to its ground: a module may name those after it.
const FLOORS: &[&str] = &[
    "cli", "bench", "fuse", "control", "upkeep", "union", "copyup", "node", "layer",
];

/// The ground, named by all floors; neither names the other, nor anything above.
const GROUND: &[&str] = &["merge", "sys"];

/// Named by anybody: errors are everyone's, counters call nobody, and the plan of a mount is read
/// by whoever carries it out.
const FREE: &[&str] = &["error", "observe", "config"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("src can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// A line of code and its number.
type Line = (usize, String);

/// Every source file: its module (`main` and `lib` for those two), its path, its code lines.
fn files() -> Vec<(String, String, Vec<Line>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 5, "src has files");
    found
        .iter()
        .map(|path| {
            let below = path.strip_prefix(&root).expect("found below src");
            let first = below.iter().next().expect("a name").to_string_lossy();
            let module = first.trim_end_matches(".rs").to_string();
            let text = std::fs::read_to_string(path).expect("a source file can be read");
            (module, below.display().to_string(), code_lines(&text))
        })
        .collect()
}

/// The lines without their comments.
fn code_lines(text: &str) -> Vec<Line> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or("").to_string()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect()
}

/// The modules of this package that a line names, by `crate::x` or `crate::{x, y}`.
fn named_modules(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line
        .match_indices("crate::")
        .chain(line.match_indices("plyfs::"))
    {
        let rest = &line[at + 7..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut item)),
                    c if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            names.push(item);
        } else {
            names.push(rest.into());
        }
    }
    names
        .into_iter()
        .map(|n| {
            n.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

/// Statements that begin with `use crate::{` may run over several lines: they are joined.
fn joined(lines: &[Line]) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::new();
    let mut open = false;
    for (number, line) in lines {
        if open {
            let last = out.last_mut().expect("a statement was begun");
            last.1.push_str(line.trim());
        } else {
            out.push((*number, line.clone()));
        }
        let text = &out.last().expect("just pushed").1;
        open = text.contains("crate::{") && !text.contains(';');
    }
    out
}

fn allowed(from: &str, to: &str) -> bool {
    let floor = |module: &str| FLOORS.iter().position(|m| *m == module);
    // A name that is no module is an item of the crate's root.
    let known = floor(to).is_some() || GROUND.contains(&to);
    if !known || from == to || FREE.contains(&to) || from == "main" || from == "lib" {
        return true;
    }
    match (floor(from), floor(to)) {
        (Some(from), Some(to)) => from < to,
        (Some(_), None) => true,
        // The errors' numbers are the system's, and a plan is checked against the system.
        (None, _) => matches!(from, "error" | "config") && to == "sys",
    }
}

#[test]
fn no_arrow_points_back_up() {
    let mut wrong = Vec::new();
    for (module, path, lines) in files() {
        for (number, line) in joined(&lines) {
            for name in named_modules(&line) {
                if !allowed(&module, &name) {
                    wrong.push(format!(
                        "src/{path}:{number}: {module} must not name {name}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_benchmarks_harness_knows_nothing_of_what_it_measures() {
    let mut wrong = Vec::new();
    for (module, path, lines) in files() {
        for (number, line) in joined(&lines) {
            let names = named_modules(&line);
            let floors = names.iter().filter(|name| FLOORS.contains(&name.as_str()));
            for name in floors.filter(|name| module == "bench" && *name != "bench") {
                wrong.push(format!("src/{path}:{number}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reports each code line outside `home` that contains one of `words`.
fn only_in(home: &[&str], words: &[&str]) {
    let mut wrong = Vec::new();
    for (module, path, lines) in files() {
        if home.contains(&module.as_str()) {
            continue;
        }
        for (number, line) in lines {
            // The lint's own name is no use of unsafe.
            let line = line
                .replace("unsafe_code", "")
                .replace("unsafe_op_in_unsafe_fn", "");
            if let Some(word) = words.iter().find(|w| has_word(&line, w)) {
                wrong.push(format!(
                    "src/{path}:{number}: {word} belongs in {home:?} alone"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let quoted = line[..at].matches('"').count() % 2 == 1;
        !quoted
            && !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

#[test]
fn fuser_is_named_in_fuse_alone() {
    only_in(&["fuse"], &["fuser"]);
}

#[test]
fn libc_and_unsafe_are_in_sys_alone() {
    only_in(&["sys"], &["libc", "unsafe"]);
}

#[test]
fn merge_uses_std_and_error_alone() {
    let mut wrong = Vec::new();
    for (module, path, lines) in files() {
        if module != "merge" {
            continue;
        }
        let mut in_tests = false;
        for (number, line) in joined(&lines) {
            in_tests |= line.contains("cfg(test)");
            let Some(rest) = line.trim().strip_prefix("use ") else {
                continue;
            };
            let first = rest.split("::").next().unwrap_or("");
            if !in_tests && !["std", "crate", "super", "self"].contains(&first) {
                wrong.push(format!("src/{path}:{number}: {rest}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_use_lines_sees_what_is_there() {
    assert_eq!(named_modules("use crate::sys::open;"), ["sys"]);
    assert_eq!(
        named_modules("use crate::{sys::{a, b}, node};"),
        ["sys", "node"]
    );
    assert!(!allowed("merge", "sys"));
    assert!(!allowed("layer", "node"));
    assert!(!allowed("sys", "union"));
    assert!(!allowed("observe", "sys") && !allowed("observe", "node"));
    assert!(allowed("layer", "observe") && allowed("fuse", "control"));
    assert!(allowed("union", "copyup"));
    assert!(has_word("let x = libc::open;", "libc"));
    assert!(!has_word("let mylibc = 1;", "libc"));
}
