//! Copy-up that does not copy: a change of a large file brings the blocks that it changes to
//! the upper, and the file is the same to everybody.

use super::support::backing::Kind;
use super::support::bytes;
use super::support::lab::{Lab, at, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{Mounted, Subject};
use super::support::patience::await_that;
use super::support::rng::Rng;
use super::support::{skip, sys};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const SIZE: u64 = 8 << 20;
const WORDS: &str = "io=cached,copyup=write,partial=64K,complete=off";

fn room(path: &Path) -> u64 {
    let stat = path.symlink_metadata().expect("it is in the upper");
    stat.blocks() * 512
}

/// Whether the upper file at `path` says that it has a part of its data: more than the kernel's
/// mark of one that has none.
pub fn is_marked(path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    ["trusted.overlay.metacopy", "user.overlay.metacopy"]
        .iter()
        .any(|key| sys::lgetxattr(path, key).is_ok_and(|value| value.len() > 4))
}

#[test]
fn a_write_copies_one_block_and_the_rest_follows_when_it_shall() {
    let Some(lab) = Lab::new() else { return };
    for (name, words) in [("plain", ""), ("user", ",userxattr")] {
        let l = lab.layer(
            &format!("l-{name}"),
            MarkFormat::Overlay,
            &[&format!("file f {SIZE}"), "file small 60000"],
        );
        let stack = lab.stack(name, std::slice::from_ref(&l));
        let partly = stack.clone().words(&format!("{WORDS}{words}"));
        let upper = lab.upper(name);
        let mounted = lab.mount_stack(name, &partly);
        let m = mounted.path();
        let put = "printf x | dd of=f bs=1 seek=5000000 conv=notrunc 2>/dev/null";
        shell(
            m,
            &format!("chmod 4711 f; {put}; chmod 4711 f; touch -d @7.5 f"),
        );
        assert!(room(&upper.join("f")) <= 16384);
        shell(m, "printf x | dd of=small bs=1 conv=notrunc 2>/dev/null");
        assert!(room(&upper.join("small")) >= 60000, "it is small");
        let same = format!(
            "cmp -n 5000000 f {0}/f; cmp -i 5000001 f {0}/f",
            l.display()
        );
        shell(m, &same);
        assert_eq!(
            shell(m, "dd if=f bs=1 skip=5000000 count=1 2>/dev/null"),
            "x"
        );
        let blocks = sys::lstat(at(m, "f")).expect("stat").blocks;
        assert!(blocks * 512 >= SIZE, "{blocks} blocks shown");
        mounted.unmount().expect("unmount");
        assert!(is_marked(&upper.join("f")));
        // Still so after a remount, which then gives it the rest.
        let all = format!("io=cached,copyup=write,complete=unmount{words}");
        let mounted = lab.mount_stack(name, &stack.clone().words(&format!("partial=64K,{all}")));
        shell(mounted.path(), &same);
        assert!(room(&upper.join("f")) <= 16384);
        mounted.unmount().expect("unmount");
        assert!(!is_marked(&upper.join("f")));
        assert!(room(&upper.join("f")) >= SIZE);
        shell(&upper, &same);
        assert_eq!(shell(&upper, "stat -c '%a %.Y' f"), "4711 7.500000000\n");
        assert!(
            !lab.path(&format!("w-{name}"))
                .join("work/incompat")
                .exists()
        );
    }
}

#[test]
fn a_partly_copied_file_keeps_its_number_and_is_sound() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &[&format!("file f {SIZE}")]);
    let stack = lab.stack("n", &[l]);
    let upper = lab.upper("n").join("f");
    let has_origin = || {
        let path = upper.as_os_str().as_encoded_bytes();
        sys::lgetxattr(path, "trusted.overlay.origin").is_ok()
    };
    let number = |m: &Path| {
        // By stat and by readdir.
        let listed = shell(m, "ls -i | tr -dc 0-9");
        assert_eq!(shell(m, "stat -c %i f").trim(), listed);
        listed
    };
    let mut numbers = Vec::new();
    for (complete, is_left) in [("off", true), ("unmount", false), ("off", false)] {
        let words = format!("io=cached,copyup=write,partial=64K,complete={complete}");
        let mounted = lab.mount_stack("n", &stack.clone().words(&words));
        numbers.push(number(mounted.path()));
        if numbers.len() == 1 {
            shell(mounted.path(), "printf x >> f");
            numbers.push(number(mounted.path()));
        }
        mounted.unmount().expect("unmount");
        assert_eq!(is_marked(&upper), is_left, "{complete}");
        // It is in the mark, and goes to where overlayfs has it.
        assert_eq!(has_origin(), !is_left, "{complete}");
        let out = stack.plyfs_verb("check").output().expect("plyfs runs");
        assert!(out.status.success(), "{out:?}");
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "{numbers:?}");
}

#[test]
fn the_rest_follows_while_nothing_else_is_asked_for() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.layer("l", MarkFormat::Overlay, &[&format!("file f {SIZE}")]);
    let words = "io=cached,copyup=write,partial=0,complete=idle";
    let mounted = lab.mount_stack("idle", &lab.stack("idle", &[l]).words(words));
    shell(mounted.path(), "printf x >> f; touch -d @9 f");
    let upper = lab.upper("idle").join("f");
    await_that("it gets the rest", || !is_marked(&upper));
    assert!(room(&upper) >= SIZE);
    assert_eq!(shell(mounted.path(), "stat -c %Y f"), "9\n");
}

#[test]
fn a_small_copy_is_marked_until_its_data_is_on_the_disk() {
    // Its image has a journal, on whatever disk it lies.
    let Some(lab) = Lab::on(Kind::Xfs) else {
        return;
    };
    let lines = ["file f 70000", "file g 70000", "file h 70000"];
    let l = lab.layer("l", MarkFormat::Overlay, &lines);
    let stack = lab.stack("small", std::slice::from_ref(&l));
    let mode = "io=cached,copyup=write,partial=256K";
    let mounted = lab.mount_stack(
        "small",
        &stack.clone().words(&format!("{mode},complete=unmount")),
    );
    let m = mounted.path();
    let upper = lab.upper("small");
    shell(
        m,
        "printf x >> f; chmod 600 g; printf x >> g; touch -d @9 g; printf x >> h",
    );
    for name in ["f", "g", "h"] {
        assert!(is_marked(&upper.join(name)), "{name}");
        assert!(room(&upper.join(name)) >= 70000, "{name} is whole");
        let same = format!(
            "cmp -n 70000 {name} {0}/{name}; test $(tail -c 1 {name}) = x",
            l.display()
        );
        shell(m, &same);
        shell(&upper, &same);
    }
    // What only a file without marks can have.
    let before = room(&upper.join("h"));
    shell(m, "fallocate --punch-hole --offset 0 --length 65536 h");
    assert!(!is_marked(&upper.join("h")));
    assert!(room(&upper.join("h")) <= before - 65536);
    mounted.unmount().expect("unmount");
    for name in ["f", "g"] {
        assert!(!is_marked(&upper.join(name)), "{name}");
    }
    assert_eq!(shell(&upper, "stat -c '%a %Y' g"), "600 9\n");
    assert!(!lab.path("w-small").join("work/incompat").exists());
    // By itself, while nothing else is asked for; and not at all where files are copied whole.
    let upper = lab.upper("idle");
    let stack = lab.stack("idle", std::slice::from_ref(&l));
    let mounted = lab.mount_stack("idle", &stack.words(&format!("{mode},complete=idle")));
    shell(mounted.path(), "printf x >> f");
    await_that("it is on the disk", || !is_marked(&upper.join("f")));
    // However much else is asked for.
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(!mounted.path().join(format!("none-{asked}")).exists());
                asked += 1;
            }
            asked
        });
        shell(mounted.path(), "printf x >> g");
        await_that("it is on the disk", || !is_marked(&upper.join("g")));
        over.store(true, Ordering::Relaxed);
        asking.join().expect("all is answered")
    });
    assert!(asked > 100, "{asked}");
    let upper = lab.upper("whole");
    let stack = lab.stack("whole", &[l]);
    let words = format!("{mode},partial=off,complete=unmount");
    let mounted = lab.mount_stack("whole", &stack.words(&words));
    shell(mounted.path(), "printf x >> f");
    assert!(!is_marked(&upper.join("f")));
}

#[test]
fn an_unsettled_upper_is_refused_by_the_kernel_and_settle_completes_it() {
    let Some(lab) = Lab::new() else { return };
    if skip::in_user_namespace() {
        return skip::skipped("the kernel's overlayfs is mounted by root of the machine");
    }
    let l = lab.layer("l", MarkFormat::Overlay, &[&format!("file f {SIZE}")]);
    let stack = lab.stack("k", std::slice::from_ref(&l));
    let mounted = lab.mount_stack("k", &stack.clone().words(WORDS));
    shell(
        mounted.path(),
        "printf x | dd of=f bs=1 seek=9 conv=notrunc 2>/dev/null; mkdir d; mv f d/g",
    );
    mounted.unmount().expect("unmount");
    let there = lab.dir("kernel");
    let refused = stack.clone().mount(Subject::Kernel, &there);
    assert!(refused.is_err(), "the kernel does not know such files");
    let out = stack.plyfs_verb("check").output().expect("plyfs runs");
    assert!(out.status.success(), "{out:?}");
    let out = stack.plyfs_verb("settle").output().expect("plyfs runs");
    assert!(out.status.success(), "{out:?}");
    let mounted = stack.mount(Subject::Kernel, &there).expect("it is settled");
    shell(
        mounted.path(),
        &format!("cmp -i 10 d/g {}/f; test -e f && exit 1; true", l.display()),
    );
    mounted.unmount().expect("unmount");
}

#[test]
fn the_next_mount_takes_over_what_is_left() {
    let Some(lab) = Lab::new() else { return };
    let l = lab.dir("l");
    shell(&l, "yes plyfs | head -c 600M > f");
    let words = "io=cached,copyup=write,partial=0,complete=unmount";
    let stack = lab.stack("over", &[l]).words(words);
    let mounted = lab.mount_stack("over", &stack);
    shell(
        mounted.path(),
        "printf x | dd of=f bs=1 conv=notrunc 2>/dev/null",
    );
    mounted.unmount_only().expect("unmount");
    let mounted = lab.mount_stack("again", &stack);
    let same = "test $(head -c 2 f) = xl; tail -c 7 f";
    shell(mounted.path(), same);
    mounted.unmount().expect("unmount");
    let upper = lab.upper("over").join("f");
    assert!(!is_marked(&upper) && room(&upper) >= 600 << 20);
}

#[test]
fn partly_copied_files_are_linked_renamed_and_removed() {
    let Some(lab) = Lab::new() else { return };
    let big = format!("file d/f {SIZE}");
    let l = lab.layer(
        "l",
        MarkFormat::Overlay,
        &["dir d", &big, &big.replace("/f", "/g")],
    );
    shell(&l, "cp d/f d/h; cp d/f d/i; ln d/i d/j");
    let stack = lab.stack("links", std::slice::from_ref(&l)).words(WORDS);
    let put =
        |name: &str| format!("printf x | dd of={name} bs=1 seek=70000 conv=notrunc 2>/dev/null");
    let mounted = lab.mount_stack("links", &stack);
    let m = mounted.path();
    shell(
        m,
        &format!("cd d; {}; ln f f2; mv f f3; mkdir e; mv f2 e", put("f")),
    );
    shell(
        m,
        &format!(
            "cd d; {}; mv g e/g; {}; exec 3<h; rm h; cmp -n 70000 /dev/fd/3 i",
            put("g"),
            put("h")
        ),
    );
    shell(
        m,
        &format!("cd d; {}; cmp i j; mv j e/j; mv ../d ../dd", put("j")),
    );
    let check = format!(
        "cd dd; for n in f3 e/f2 e/g i e/j; do cmp -n 70000 $n {0}/d/f; cmp -i 70001 $n {0}/d/f; \
         test $(dd if=$n bs=1 skip=70000 count=1 2>/dev/null) = x; done; \
         test $(stat -c %h f3) = 2; test $(stat -c %h i) = 2; ! test -f h",
        l.display()
    );
    shell(m, &check);
    mounted.unmount().expect("unmount");
    let mounted = lab.mount_stack("links", &stack);
    shell(mounted.path(), &check);
    mounted.unmount().expect("unmount");
    let all = stack
        .clone()
        .words("io=cached,copyup=write,partial=0,complete=idle");
    let mounted = lab.mount_stack("links", &all);
    shell(mounted.path(), &check);
    mounted.unmount().expect("unmount");
    shell(
        &lab.upper("links"),
        &check.replace("test $(stat -c %h", "true $(stat -c %h"),
    );
}

/// A file of the union, and what it should have in it.
struct Game {
    want: Vec<u8>,
    rng: Rng,
    steps: u64,
}

impl Game {
    fn range(&mut self) -> (u64, u64) {
        let at = self.rng.below(self.want.len() as u64 + 9000);
        let most = *self.rng.pick(&[10, 5000, 70_000]);
        (at, self.rng.below(most) + 1)
    }

    fn set(&mut self, at: u64, data: &[u8]) {
        let end = at as usize + data.len();
        if self.want.len() < end {
            self.want.resize(end, 0);
        }
        self.want[at as usize..end].copy_from_slice(data);
    }

    fn zero(&mut self, at: u64, end: u64, grows: bool) {
        if grows && self.want.len() < end as usize {
            self.want.resize(end as usize, 0);
        }
        let end = (end as usize).min(self.want.len());
        if (at as usize) < end {
            self.want[at as usize..end].fill(0);
        }
    }

    fn step(&mut self, fd: &OwnedFd) {
        self.steps += 1;
        let (at, len) = self.range();
        match self.rng.below(20) {
            0 => {
                let size = self
                    .rng
                    .below(self.want.len() as u64 * 2 + 1)
                    .clamp(200_000, 900_000);
                sys::ftruncate(fd, size).expect("truncate");
                self.want.resize(size as usize, 0);
            }
            1 => {
                sys::fallocate(fd, 0, at, len).expect("fallocate");
                self.zero(at + len, at + len, true);
            }
            2 => {
                sys::fallocate(fd, 1, at, len).expect("fallocate, size kept");
            }
            3 => {
                sys::fallocate(fd, 3, at, len).expect("a hole");
                self.zero(at, at + len, false);
            }
            4 => {
                // tmpfs has no such mode.
                let zeroed = sys::fallocate(fd, 0x10, at, len);
                if zeroed != Err(libc::EOPNOTSUPP) {
                    zeroed.expect("zeros");
                    self.zero(at, at + len, true);
                }
            }
            5 if at + len < self.want.len() as u64 => {
                let data = bytes::fill(self.steps, at, len as usize);
                sys::mmap_store(fd, at, &data).expect("a store");
                self.set(at, &data);
            }
            6 => self.look_for_holes(fd, at),
            7 => {
                let from = self.rng.below(self.want.len() as u64);
                let moves = len.min(self.want.len() as u64 - from);
                let apart = from + moves <= at || at + moves <= from;
                if apart && moves > 0 {
                    let n = sys::copy_file_range(fd, from, fd, at, moves as usize).expect("copy");
                    let data = self.want[from as usize..from as usize + n].to_vec();
                    self.set(at, &data);
                }
            }
            8 => sys::fsync(fd).expect("fsync"),
            9..14 => {
                let got = sys::pread(fd, len as usize, at).expect("read");
                let end = self.want.len().min((at + len) as usize);
                let want = self.want.get(at as usize..end).unwrap_or_default();
                assert!(
                    got == want,
                    "step {}: {len} bytes at {at} differ",
                    self.steps
                );
            }
            _ => {
                let data = bytes::fill(self.steps, at, len as usize);
                let put = sys::pwrite(fd, &data, at).expect("write");
                assert_eq!(put as u64, len);
                self.set(at, &data);
            }
        }
        let size = sys::fstat(fd).expect("stat").size;
        assert_eq!(size, self.want.len() as u64, "step {}", self.steps);
    }

    /// Whatever is called a hole has nothing but zeros.
    fn look_for_holes(&self, fd: &OwnedFd, at: u64) {
        let size = self.want.len() as u64;
        let mut at = at;
        while let Ok(hole) = sys::lseek(fd, at as i64, libc::SEEK_HOLE) {
            let data = sys::lseek(fd, hole as i64, libc::SEEK_DATA).unwrap_or(size);
            let called = &self.want[hole.min(size) as usize..data.min(size) as usize];
            assert!(
                called.iter().all(|&b| b == 0),
                "step {}: no hole at {hole}",
                self.steps
            );
            if data >= size {
                break;
            }
            at = data;
        }
    }

    fn check(&self, at: &Path) {
        let got = std::fs::read(at).expect("it can be read");
        let same = got.iter().zip(&self.want).position(|(a, b)| a != b);
        assert!(
            got == self.want,
            "after {}: byte {same:?} of {} differs",
            self.steps,
            got.len()
        );
    }
}

fn open(mounted: &Mounted) -> OwnedFd {
    sys::open(at(mounted.path(), "f"), libc::O_RDWR, 0).expect("it can be opened")
}

/// Plays `steps` steps in each of many mounts, with uppers that become lowers in between.
fn play(lab: &Lab, seed: u64, steps: u64, policies: &[&str]) {
    let size = 300_000 + seed * 3333;
    let l = lab.layer(&format!("l{seed}"), MarkFormat::Overlay, &[]);
    let mut game = Game {
        want: bytes::fill(seed, 0, size as usize),
        rng: Rng::new(seed),
        steps: 0,
    };
    game.want[100_000..180_000].fill(0);
    std::fs::write(l.join("f"), &game.want[..100_000]).expect("a lower file");
    let f = sys::open(at(&l, "f"), libc::O_RDWR, 0).expect("open");
    sys::pwrite(&f, &game.want[180_000..], 180_000).expect("a lower file with a hole");
    let mut lowers: Vec<PathBuf> = vec![l];
    for round in 0..8u64 {
        let name = format!("s{seed}-{}", round / 4);
        let policy = policies[round as usize % policies.len()];
        let words = format!("io=cached,copyup=write,partial=0,complete={policy}");
        let stack = lab.stack(&name, &lowers).words(&words);
        let mounted = lab.mount_stack(&name, &stack);
        let fd = open(&mounted);
        for _ in 0..steps {
            game.step(&fd);
        }
        game.check(&mounted.path().join("f"));
        drop(fd);
        mounted.unmount().expect("unmount");
        if round % 4 == 3 {
            lowers.insert(0, lab.upper(&name));
        }
    }
    let words = "io=cached,copyup=write,partial=0,complete=unmount";
    let stack = lab.stack(&format!("end{seed}"), &lowers).words(words);
    let mounted = lab.mount_stack(&format!("end{seed}"), &stack);
    game.check(&mounted.path().join("f"));
    let fd = open(&mounted);
    sys::pwrite(&fd, b"last", 5).expect("write");
    game.set(5, b"last");
    drop(fd);
    mounted.unmount().expect("unmount");
    game.check(&lab.upper(&format!("end{seed}")).join("f"));
}

#[test]
fn random_changes_give_what_they_give_in_one_file() {
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Tmpfs] {
        if let Some(lab) = Lab::on(kind) {
            println!("on {}", kind.name());
            play_on(&lab);
        }
    }
}

fn play_on(lab: &Lab) {
    let many = std::env::var("PLYFS_PARTIAL_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok());
    for seed in 1..=many.unwrap_or(1) {
        play(lab, seed, 50, &["off"]);
        play(lab, seed + 10_000, 50, &["2G", "off", "30M"]);
    }
}
