//! What may be seen after a power cut, given what was to be seen at each moment before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::inside::{File, Files};

/// What may be seen at a path.
pub struct May {
    pub be_absent: bool,
    pub inos: BTreeSet<u64>,
}

pub fn may_be_at(states: &[Files], path: &str) -> May {
    May {
        be_absent: states.iter().any(|state| !state.contains_key(path)),
        inos: states
            .iter()
            .filter_map(|s| Some(s.get(path)?.ino))
            .collect(),
    }
}

/// What is wrong with the file at `path`. `histories` has, of each file that may be there, what it
/// was in each of the states, under any name: a file is written without regard to its names.
pub fn judge_file(
    path: &str,
    seen: Option<&File>,
    may_be_absent: bool,
    histories: &[Vec<&File>],
    durable: &BTreeSet<Vec<u8>>,
) -> Option<String> {
    let Some(seen) = seen else {
        return (!may_be_absent).then(|| format!("{path} is gone"));
    };
    if histories.is_empty() {
        return Some(format!("{path} must not be there: {}", seen.what));
    }
    let mut wrong = None;
    for history in histories {
        let what_is = judge_history(seen, history, durable)?;
        wrong = Some(format!("{path} {what_is}"));
    }
    wrong
}

/// Why `seen` is no moment of this history.
fn judge_history(seen: &File, history: &[&File], durable: &BTreeSet<Vec<u8>>) -> Option<String> {
    if !history.iter().any(|v| v.what == seen.what) {
        let was = &history.first()?.what;
        return Some(format!("is {}, and was {was}", seen.what));
    }
    if !history.iter().any(|v| v.mtime == seen.mtime) {
        let was = &history.first()?.mtime;
        return Some(format!("is of {}, and was of {was}", seen.mtime));
    }
    let data = seen.data.as_ref()?;
    let contents: Vec<&Vec<u8>> = history.iter().filter_map(|v| v.data.as_ref()).collect();
    let lengths = || contents.iter().map(|v| v.len());
    // Where nothing was ever synced, the size may be there before the data.
    let is_durable = contents.iter().any(|v| durable.contains(*v));
    let kept = if is_durable {
        lengths().min().unwrap_or(0)
    } else {
        0
    };
    // A write that makes a file longer may have come half.
    let fits = lengths().any(|len| len <= data.len()) && lengths().any(|len| len >= data.len());
    if !fits && (is_durable || Some(data.len()) > lengths().max()) {
        return Some(format!("has {} bytes", data.len()));
    }
    let wrong = data.iter().enumerate().position(|(i, byte)| {
        let of_a_version = contents.iter().any(|v| v.get(i) == Some(byte));
        !(of_a_version || *byte == 0 && i >= kept)
    });
    wrong.map(|i| format!("has byte {} at {i} of {}", data[i], data.len()))
}

/// What is wrong with all names together. Where changes become durable `in_order`, they are those of
/// one moment. btrfs makes a synced file durable without what was done to others before it; there, no
/// file that has a name throughout may have none.
pub fn judge_names(in_order: bool, states: &[Files], seen: &Files) -> Vec<String> {
    let only = |a: &Files, b: &Files| -> Vec<String> {
        a.keys()
            .filter(|path| !b.contains_key(*path))
            .cloned()
            .collect()
    };
    if !in_order {
        let mut places: BTreeMap<u64, (usize, BTreeSet<&String>)> = BTreeMap::new();
        for state in states {
            let inos: BTreeSet<u64> = state.values().map(|file| file.ino).collect();
            for ino in inos {
                places.entry(ino).or_default().0 += 1;
            }
            for (path, file) in state {
                places.entry(file.ino).or_default().1.insert(path);
            }
        }
        return places
            .values()
            .filter(|(times, _)| *times == states.len())
            .filter(|(_, paths)| !paths.iter().any(|path| seen.contains_key(*path)))
            .map(|(_, paths)| format!("lost: {paths:?}"))
            .collect();
    }
    let nearest = states
        .iter()
        .map(|state| (only(seen, state), only(state, seen)))
        .min_by_key(|(more, fewer)| more.len() + fewer.len());
    match nearest {
        Some((more, fewer)) if !more.is_empty() || !fewer.is_empty() => {
            vec![format!(
                "names of no moment: there are also {more:?}, there are not {fewer:?}"
            )]
        }
        _ => Vec::new(),
    }
}
