//! Several clients at once, each in a directory of its own.

use super::{Group, Work, Workload, create, grouped};
use crate::bench::data::Sizes;
use std::fs::{self, File};
use std::io;
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::Instant;

/// How many at once.
const CLIENTS: [usize; 4] = [1, 2, 4, 8];

fn rounds(sizes: &Sizes) -> usize {
    sizes.count(4000, 100)
}

/// The workloads of this file.
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let each = grouped(rounds(sizes));
    CLIENTS
        .into_iter()
        .map(|clients| {
            let many = if clients == 1 { "client" } else { "clients" };
            Workload::new(
                Group::Clients,
                format!("clients-{clients}"),
                format!("{clients} {many}, {each} times create+stat+unlink each"),
                move |ground| all_at_once(clients, rounds(&ground.sizes)),
            )
            .after(create::make_room)
        })
        .collect()
}

fn all_at_once(clients: usize, rounds: usize) -> io::Result<Work> {
    let names: Vec<Vec<String>> = (0..clients)
        .map(|client| {
            (0..rounds)
                .map(|i| format!("{}/client-{client}/f{i}", create::NEW))
                .collect()
        })
        .collect();
    for client in 0..clients {
        fs::create_dir(format!("{}/client-{client}", create::NEW))?;
    }
    let start_line = Barrier::new(clients);
    // Each looks at the clock itself: this thread may get a processor only after they have
    // all done.
    let client = |names: &[String]| -> io::Result<(Instant, Instant)> {
        start_line.wait();
        let start = Instant::now();
        names.iter().try_for_each(|name| one_file(name))?;
        Ok((start, Instant::now()))
    };
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|names| scope.spawn(|| client(names)))
            .collect();
        let join = |thread: ScopedJoinHandle<'_, io::Result<_>>| {
            let done = thread.join();
            done.unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        };
        threads
            .into_iter()
            .map(join)
            .collect::<io::Result<Vec<_>>>()
    })?;
    let first = times.iter().map(|(start, _)| start).min();
    let last = times.iter().map(|(_, end)| end).max();
    let elapsed = first.zip(last).map(|(first, last)| *last - *first);
    Ok(Work {
        elapsed: elapsed.unwrap_or_default(),
        ops: clients * rounds,
        bytes: 0,
    })
}

fn one_file(name: &str) -> io::Result<()> {
    drop(File::create_new(name)?);
    fs::symlink_metadata(name)?;
    fs::remove_file(name)
}
