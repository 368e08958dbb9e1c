//! Partly copied files take every shape that a file can have: they grow from an odd size, are
//! shortened and punched, lie in a lower layer, have many names and none.

use super::partial::is_marked;
use super::support::backing::Kind;
use super::support::lab::{Lab, at, shell};
use super::support::patience::await_that;
use super::support::{bytes, sys};
use std::os::fd::OwnedFd;
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

/// A name, how a file grows, and its size then.
type Growth = (&'static str, fn(&OwnedFd) -> sys::Res<()>, usize);

/// Some filesystems write zeros into the block in which a file ended when it grows.
#[test]
fn what_grows_from_the_middle_of_a_block_keeps_that_block() {
    for kind in KINDS {
        let Some(lab) = Lab::on(kind) else { continue };
        let l = lab.dir("l");
        let steps: [Growth; 5] = [
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

/// A file of 3 MiB whose second one is a hole, at whose ends and in whose middle something is
/// written.
fn mixed(lab: &Lab) -> (std::path::PathBuf, Vec<u8>) {
    const MIB: usize = 1 << 20;
    let l = lab.dir("l");
    let mut want = odd(11, 3 * MIB + 77);
    want[MIB..2 * MIB].fill(0);
    std::fs::write(l.join("f"), &want[..MIB]).expect("a lower file");
    let f = sys::open(at(&l, "f"), libc::O_RDWR, 0).expect("open");
    sys::pwrite(&f, &want[2 * MIB..], 2 * MIB as u64).expect("after a hole");
    (l, want)
}

fn write_here_and_there(m: &Path, want: &mut [u8]) {
    let f = sys::open(at(m, "f"), libc::O_RDWR, 0).expect("open");
    for (i, from) in [5, 300_000, 1_500_000, 2_900_000].into_iter().enumerate() {
        let data = odd(i as u64, 5000);
        sys::pwrite(&f, &data, from as u64).expect("write");
        want[from..from + 5000].copy_from_slice(&data);
    }
}

#[test]
fn programs_that_copy_see_one_plain_file() {
    let Some(lab) = Lab::new() else { return };
    let (l, mut want) = mixed(&lab);
    let stack = lab.stack("copies", &[l]).words(WORDS);
    let mounted = lab.mount_stack("copies", &stack);
    let m = mounted.path();
    write_here_and_there(m, &mut want);
    let out = lab.dir("out");
    let ways = [
        "cp --sparse=always f OUT/always",
        "cp --sparse=auto --reflink=auto f OUT/auto",
        "cp --sparse=never --reflink=never f OUT/never",
        "tar -Scf OUT/sparse.tar f; tar -C OUT -xf OUT/sparse.tar; mv OUT/f OUT/tarred",
        "tar -cf - f | tar -C OUT -xf -; mv OUT/f OUT/piped",
        "dd if=f of=OUT/direct iflag=direct bs=64K 2>/dev/null",
        "cat f > OUT/cat",
        "cp --sparse=always f inside; cmp f inside; mv inside OUT/inside",
        "install -m 600 f OUT/installed",
    ];
    for way in ways {
        shell(m, &way.replace("OUT", &out.display().to_string()));
    }
    let mut copies = 0;
    for entry in std::fs::read_dir(&out).expect("a directory").flatten() {
        if !entry.path().ends_with("sparse.tar") {
            same(&entry.path(), &want);
            copies += 1;
        }
    }
    assert_eq!(copies, ways.len());
    let room = |name: &str| {
        let stat = std::fs::metadata(out.join(name)).expect("it is there");
        std::os::unix::fs::MetadataExt::blocks(&stat) * 512
    };
    for sparse in ["auto", "tarred"] {
        let room = room(sparse);
        assert!(
            room < 2_300_000,
            "{sparse}: the lower file's hole is one: {room}"
        );
    }
    assert!(
        is_marked(&lab.upper("copies").join("f")),
        "reading copies nothing"
    );
    mounted.unmount().expect("unmount");
}

#[test]
fn direct_mapped_and_copied_ranges_meet_in_one_file() {
    let Some(lab) = Lab::new() else { return };
    let (l, mut want) = mixed(&lab);
    let stack = lab.stack("ways", &[l]).words(WORDS);
    let mounted = lab.mount_stack("ways", &stack);
    let m = mounted.path();
    write_here_and_there(m, &mut want);
    // By way of a pipe and of the page cache of another file.
    shell(
        m,
        "dd if=f of=g bs=4096 iflag=direct 2>/dev/null; \
         dd if=g of=f bs=4096 skip=200 seek=10 count=30 oflag=direct conv=notrunc 2>/dev/null",
    );
    want.copy_within(200 * 4096..230 * 4096, 10 * 4096);
    same(&m.join("f"), &want);
    let f = sys::open(at(m, "f"), libc::O_RDWR, 0).expect("open");
    sys::mmap_store(&f, 2_500_001, b"mapped").expect("a store");
    want[2_500_001..2_500_007].copy_from_slice(b"mapped");
    let n = sys::copy_file_range(&f, 2_400_000, &f, 700_000, 200_000).expect("copy");
    want.copy_within(2_400_000..2_400_000 + n, 700_000);
    sys::fallocate(&f, 3, 600_000, 50_000).expect("a hole");
    want[600_000..650_000].fill(0);
    sys::fsync(&f).expect("fsync");
    // A shared lock of what is unlinked, and read by its descriptor.
    shell(m, "rm f");
    let got = sys::pread(&f, want.len() + 1, 0).expect("read");
    assert!(got == want, "an unlinked file is what it was");
    sys::pwrite(&f, b"late", 900_000).expect("write");
    want[900_000..900_004].copy_from_slice(b"late");
    let got = sys::pread(&f, want.len() + 1, 0).expect("read");
    assert!(got == want, "and what is written to it since");
    drop(f);
    shell(m, "test ! -e f; rm g");
    mounted.unmount().expect("unmount");
}

#[test]
fn hard_links_that_only_the_index_has_are_completed() {
    let Some(lab) = Lab::new() else { return };
    for (name, complete) in [("end", "unmount"), ("idle", "idle"), ("now", "now")] {
        let l = lab.dir(&format!("l-{name}"));
        std::fs::create_dir(l.join("d")).expect("mkdir");
        std::fs::write(l.join("a"), odd(5, 900_000)).expect("a lower file");
        shell(&l, "ln a d/b");
        let stack = lab.stack(name, &[l]);
        let mounted = lab.mount_stack(name, &stack.clone().words(WORDS));
        let m = mounted.path();
        shell(
            m,
            "printf x | dd of=a bs=1 seek=70000 conv=notrunc 2>/dev/null; rm a",
        );
        mounted.unmount().expect("unmount");
        let index = lab.path(&format!("w-{name}")).join("index");
        let entries = || std::fs::read_dir(&index).expect("an index").flatten();
        let entry = entries().next().expect("an entry").path();
        assert!(is_marked(&entry), "{name}");
        let words = WORDS.replace("complete=off", &format!("complete={complete}"));
        let mounted = lab.mount_stack(name, &stack.clone().words(&words));
        if complete != "unmount" {
            await_that(name, || !is_marked(&entry));
        }
        mounted.unmount().expect("unmount");
        assert!(!is_marked(&entry), "{name}");
        let noted = lab.path(&format!("w-{name}")).join("work/incompat");
        assert!(!noted.exists(), "{name}");
        let mut want = odd(5, 900_000);
        want[70_000] = b'x';
        same(&entry, &want);
        let mounted = lab.mount_stack(name, &stack.words(&words));
        same(&mounted.path().join("d/b"), &want);
        mounted.unmount().expect("unmount");
    }
}

/// What engines do: other programs read the upper as soon as there is nobody at work.
#[test]
fn in_the_form_of_mount_helpers_files_are_soon_whole() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.dir("l");
    std::fs::write(l.join("f"), odd(5, 3_000_000)).expect("a lower file");
    let stack = lab.stack("helper", std::slice::from_ref(&l));
    let (upper, work) = stack.upper.clone().expect("an upper");
    let at = lab.dir("mnt-helper");
    let words = format!(
        "lowerdir={},upperdir={},workdir={}",
        l.display(),
        upper.display(),
        work.display()
    );
    let mut helper = std::process::Command::new(super::support::mount::plyfs_binary());
    let out = helper.arg("-o").arg(&words).arg(&at).output();
    assert!(
        out.is_ok_and(|out| out.status.success()),
        "plyfs -o {words}"
    );
    let mounted = lab.watch(super::support::mount::Mounted::found(&at));
    let write = "chmod 600 f; printf x | dd of=f bs=1 seek=70000 conv=notrunc 2>/dev/null";
    shell(&at, write);
    let mut want = odd(5, 3_000_000);
    want[70_000] = b'x';
    // Also while somebody keeps the union busy.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while is_marked(&upper.join("f")) {
        assert!(std::time::Instant::now() < end, "it is partly copied still");
        shell(&at, "stat f no > /dev/null 2>&1 || true");
    }
    same(&upper.join("f"), &want);
    shell(&at, "mv f g; test $(stat -c %a g) = 600");
    mounted.unmount().expect("unmount");
    shell(&upper, "flock . true");
    same(&upper.join("g"), &want);
    assert!(!work.join("work/incompat").exists());
}
