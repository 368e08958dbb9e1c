//! Partly copied files take every shape that a file can have: they grow from an odd size, are
//! shortened and punched, lie in a lower layer, have many names and none.

use super::support::backing::Kind;
use super::support::lab::{Lab, at, shell};
use super::support::{bytes, sys};
use std::path::Path;

const WORDS: &str = "io=cached,copyup=write,partial=0,complete=off";
const WHOLE: &str = "io=cached,copyup=write,partial=0,complete=unmount";
const KINDS: [Kind; 4] = [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Tmpfs];

fn same(at: &Path, want: &[u8]) {
    let got = std::fs::read(at).expect("it can be read");
    let differs = got.iter().zip(want).position(|(a, b)| a != b);
    assert_eq!(got.len(), want.len(), "{}", at.display());
    assert!(differs.is_none(), "{}: byte {differs:?}", at.display());
}

fn odd(seed: u64, size: usize) -> Vec<u8> {
    bytes::fill(seed, 0, size)
}

/// Some filesystems write zeros into the block in which a file ended when it grows.
#[test]
fn what_grows_from_the_middle_of_a_block_keeps_that_block() {
    for kind in KINDS {
        let Some(lab) = Lab::on(kind) else { continue };
        let l = lab.dir("l");
        let steps: [(&str, fn(&std::os::fd::OwnedFd) -> sys::Res<()>, usize); 5] = [
            ("leap", |f| sys::pwrite(f, b"end", 50_000).map(drop), 50_003),
            ("near", |f| sys::pwrite(f, b"end", 12_290).map(drop), 12_293),
            ("cut", |f| sys::ftruncate(f, 30_000), 30_000),
            ("room", |f| sys::fallocate(f, 0, 20_000, 9_000), 29_000),
            (
                "keep",
                |f| {
                    sys::fallocate(f, 1, 20_000, 9_000)?;
                    sys::ftruncate(f, 40_000)
                },
                40_000,
            ),
        ];
        for (size, (name, _, _)) in [10, 9_000].iter().flat_map(|s| steps.map(|x| (*s, x))) {
            std::fs::write(l.join(format!("{name}{size}")), odd(size as u64, size)).expect("write");
        }
        let stack = lab.stack("odd", &[l]).words(WORDS);
        let mounted = lab.mount_stack("odd", &stack);
        let mut wants = Vec::new();
        for size in [10usize, 9_000] {
            for (name, step, end) in steps {
                let name = format!("{name}{size}");
                let f = sys::open(at(mounted.path(), &name), libc::O_RDWR, 0).expect("open");
                step(&f).unwrap_or_else(|e| panic!("{name}: {}", sys::errno_name(e)));
                let mut want = odd(size as u64, size);
                want.resize(end, 0);
                if name.starts_with("leap") || name.starts_with("near") {
                    want[end - 3..].copy_from_slice(b"end");
                }
                wants.push((name, want));
            }
        }
        let check = |m: &Path| {
            wants
                .iter()
                .for_each(|(name, want)| same(&m.join(name), want))
        };
        check(mounted.path());
        mounted.unmount().expect("unmount");
        let mounted = lab.mount_stack("odd", &stack);
        check(mounted.path());
        mounted.unmount().expect("unmount");
        let mounted = lab.mount_stack("odd", &stack.words(WHOLE));
        check(mounted.path());
        mounted.unmount().expect("unmount");
        check(&lab.upper("odd"));
    }
}

/// An upper with partly copied files becomes a lower layer, where only their attributes change,
/// then their data, in two more layers.
#[test]
fn partly_copied_files_of_lower_layers_are_read_from_all_of_them() {
    const SIZE: usize = 400_001;
    let Some(lab) = Lab::new() else { return };
    let l = lab.dir("l");
    let mut want = odd(3, SIZE);
    std::fs::write(l.join("f"), &want).expect("a lower file");
    let mut lowers = vec![l];
    for generation in 0..4u64 {
        let name = format!("g{generation}");
        let stack = lab.stack(&name, &lowers).words(WORDS);
        let mounted = lab.mount_stack(&name, &stack);
        let m = mounted.path();
        shell(m, "chmod 711 f; touch -d @7 f");
        same(&m.join("f"), &want);
        mounted.unmount().expect("unmount");
        let mounted = lab.mount_stack(&name, &stack);
        let m = mounted.path();
        same(&m.join("f"), &want);
        let f = sys::open(at(m, "f"), libc::O_RDWR, 0).expect("open");
        for from in (0..SIZE).step_by(4096 * 4) {
            let hole = sys::lseek(&f, from as i64, libc::SEEK_HOLE).expect("the end at last");
            assert_eq!(hole, SIZE as u64, "every byte is data");
        }
        let from = (generation * 100_000 + 5) as usize;
        sys::pwrite(&f, &[b'a' + generation as u8; 9000], from as u64).expect("write");
        want[from..from + 9000].fill(b'a' + generation as u8);
        same(&m.join("f"), &want);
        drop(f);
        mounted.unmount().expect("unmount");
        let room = std::fs::metadata(lab.upper(&name).join("f")).expect("it is there");
        let room = std::os::unix::fs::MetadataExt::blocks(&room) * 512;
        assert!(room < 40_000, "{room} bytes in generation {generation}");
        lowers.insert(0, lab.upper(&name));
    }
    let mounted = lab.mount_stack("end", &lab.stack("end", &lowers).words(WHOLE));
    same(&mounted.path().join("f"), &want);
    shell(
        mounted.path(),
        "printf z | dd of=f bs=1 conv=notrunc 2>/dev/null",
    );
    want[0] = b'z';
    mounted.unmount().expect("unmount");
    same(&lab.upper("end").join("f"), &want);
}
