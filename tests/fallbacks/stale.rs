//! A server in the network that has forgotten what is open (ESTALE), as NFS's does.

use std::path::Path;

use plyfs::error::Errno;
use plyfs::sys::fault::{Fault, arm};
use plyfs::union::Union;

use super::inside::plan;
use super::support::lab::build;
use super::support::layers::MarkFormat;
use super::support::temp::Scratch;

const ROOT: u64 = 1;

fn open(base: &Path) -> Union {
    let lower = base.join("l");
    build(
        &lower,
        MarkFormat::Overlay,
        &["dir d", "dir d/e", "file d/e/f"],
    );
    for name in ["u", "w", "m"] {
        std::fs::create_dir(base.join(name)).expect("a directory can be made");
    }
    let upper = (&*base.join("u"), &*base.join("w"));
    let plan = plan(vec![lower], upper, &base.join("m"), "").expect("the plan is sound");
    Union::open(&plan).expect("the union opens")
}

/// The number of what is at `path`; a lookup that was answered ESTALE is made again, once, as
/// the kernel does it.
fn find(union: &Union, path: &str) -> Result<u64, Errno> {
    path.split('/').try_fold(ROOT, |dir, name| {
        let look = || union.lookup(dir, name.as_bytes());
        let found = match look() {
            Err(Errno::ESTALE) => look(),
            other => other,
        }?;
        let entry = found.ok_or(Errno::ENOENT)?;
        let ino = entry.attr.ino;
        entry.node.told();
        Ok(ino)
    })
}

#[test]
fn what_the_server_has_forgotten_is_opened_anew() {
    let scratch = Scratch::new();
    let union = open(scratch.path());
    let ino = find(&union, "d/e/f").expect("it is there");
    for k in 0..4 {
        let armed = arm(Fault::Once(k, Errno::ESTALE));
        let found = find(&union, "d/e/f");
        assert_eq!(found, Ok(ino), "lookup, call {k} of {:?}", armed.calls());
        drop(armed);
        let armed = arm(Fault::Once(k, Errno::ESTALE));
        let attr = union.getattr(ino).map(|attr| attr.stat.size);
        assert_eq!(attr, Ok(10), "getattr, call {k} of {:?}", armed.calls());
    }
    let mut room = [0; 16];
    let armed = arm(Fault::Once(0, Errno::ESTALE));
    let read = union.read(ino, 0, &mut room, 0);
    assert_eq!(read, Ok(10), "{:?}", armed.calls());
}
