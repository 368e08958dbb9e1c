//! How long others wait: percentiles of single operations, in peace and in company.

use super::read::some_files;
use super::{Ground, Group, Work, Workload, bytes, grouped};
use crate::bench::data::{SMALL, Set, Sizes};
use crate::bench::stats::percentile;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How many clients are company.
const CLIENTS: usize = 8;

/// What else goes on.
#[derive(Clone, Copy, Debug)]
enum Company {
    None,
    CopyUp,
    Clients,
}

/// How many files each client looks at, none of them twice.
fn looks(sizes: &Sizes) -> usize {
    sizes.count(2000, 50).min(sizes.some_files() / CLIENTS)
}

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let each = grouped(looks(sizes));
    let huge = bytes(sizes.huge_bytes());
    let mut all = Vec::new();
    for (part, percent) in [("p50", 50.0), ("p99", 99.0)] {
        for (name, title, company) in [
            ("idle", "alone".to_owned(), Company::None),
            (
                "copyup",
                format!("during a copy-up of {huge}"),
                Company::CopyUp,
            ),
            (
                "clients",
                format!("by {CLIENTS} clients at once"),
                Company::Clients,
            ),
        ] {
            let workload = Workload::new(
                Group::Waiting,
                format!("wait-{name}-{part}"),
                format!("stat+open+read of {each} files, {part}, {title}"),
                move |ground| {
                    let mut waits = beside(company, ground)?;
                    let elapsed = percentile(&mut waits, percent).unwrap_or_default();
                    Ok(Work {
                        elapsed,
                        ops: 1,
                        bytes: 0,
                    })
                },
            );
            let workload = workload.on(Set::Small);
            all.push(match company {
                Company::CopyUp => workload.changing(Set::Huge),
                _ => workload,
            });
        }
    }
    all
}

/// How long each look took.
fn beside(company: Company, ground: &Ground) -> io::Result<Vec<Duration>> {
    let names = some_files(&ground.sizes);
    let each = looks(&ground.sizes);
    let mut shares = names.chunks(each.max(1));
    let own = shares.next().unwrap_or_default();
    match company {
        Company::None => look_at(own),
        Company::CopyUp => std::thread::scope(|scope| {
            let copier = scope.spawn(change_huge);
            let waits = look_at(own);
            copier.join().unwrap_or_else(|_| Err(panicked()))?;
            waits
        }),
        Company::Clients => std::thread::scope(|scope| {
            let others: Vec<_> = shares
                .take(CLIENTS - 1)
                .map(|share| scope.spawn(|| look_at(share)))
                .collect();
            let mut waits = look_at(own)?;
            for other in others {
                waits.extend(other.join().unwrap_or_else(|_| Err(panicked()))?);
            }
            Ok(waits)
        }),
    }
}

fn panicked() -> io::Error {
    io::Error::other("a client panicked")
}

fn change_huge() -> io::Result<()> {
    let path = format!("{}/file", Set::Huge.dir());
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(b"x", 0)
}

fn look_at(names: &[String]) -> io::Result<Vec<Duration>> {
    let mut buffer = [0; SMALL];
    let look = |name: &String| {
        let start = Instant::now();
        fs::symlink_metadata(name)?;
        File::open(name)?.read_exact(&mut buffer)?;
        Ok(start.elapsed())
    };
    names.iter().map(look).collect()
}
