//! The daemon is killed at every one of its system calls that change something: the next mount shows each name in
//! its old or its new state, every completed operation, and a work directory without remains.
//!
//! `PLYFS_CRASH_STRIDE` tries every n-th k only (1), `PLYFS_CRASH_FS` is the filesystem of the
//! layers (ext4).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::backing::Kind;
use crate::support::bytes;
use crate::support::lab::{Lab, at, shell};
use crate::support::layers::MarkFormat;
use crate::support::mount::{Stack, copies_parts, release_below, umount_when_free};
use crate::support::skip;
use crate::support::sys;
use crate::support::tree::{self, Tree};

/// The calls that change a layer, or answer a request.
const CALLS: &str = "mkdirat,mknodat,symlinkat,linkat,unlinkat,renameat,renameat2,openat,openat2,pwrite64,pwritev,\
                     copy_file_range,ftruncate,fallocate,fchown,fchownat,fchmod,fchmodat,utimensat,setxattr,\
                     fsetxattr,lsetxattr,removexattr,fremovexattr,lremovexattr,ioctl,writev,fsync,fdatasync,\
                     sync_file_range,syncfs,close";

const LOWER: &[&str] = &[
    "dir d 750",
    "file d/f 640 1000:1000 1.5 20000 0+20000+3",
    "xattr d/f user.note 1",
    "file d/g",
    "link d/h d/g",
    "dir e",
    "dir e/in",
    "file e/in/x",
    "file e/y",
    "file top",
    "symlink s top",
    "dir gone",
    "file gone/z",
    "file big 644 0:0 1.5 2300000 0+900000+4,1300000+1000000+5",
    "file priv 755 0:0 1.5 300000 0+300000+6",
];

/// A `security.capability` of version 2.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// strace is of this age, and can neither name nor count the calls of a later kernel.
const KERNEL: &str = "linux-6.1";

/// One thread only: strace counts the calls of each thread on its own.
const WORDS: &str = "allow_other,suid,dev,threads=1";

/// Every file is copied up in parts.
const PARTS: &str = "partial=0,complete=off";
/// The same, and the daemon completes them after unmounting.
const COMPLETING: &str = "partial=0,complete=unmount";

/// Each: name, and operations that a shell would do one after the other.
type Script = (&'static str, &'static [&'static str]);

const SCRIPTS: &[Script] = &[
    ("write", &["write d/f", "write top"]),
    (
        "attributes",
        &["chmod d/f", "chown d/g", "setxattr d/h", "chmod e"],
    ),
    ("delete", &["unlink top", "unlink d/g", "rmtree e"]),
    ("recreate", &["rmtree e", "mkdir e", "create e/new"]),
    (
        "rename",
        &["rename d/f d/moved", "rename d/moved e/y", "rename top s"],
    ),
    ("exchange", &["exchange d/f top", "exchange top d/g"]),
    ("link", &["link d/f d/l", "link d/l e/l", "unlink d/f"]),
    (
        "create",
        &[
            "mkdir d/new",
            "create d/new/f",
            "symlink d/new/s",
            "rename d/new d/newer",
        ],
    ),
    (
        "file and directory",
        &["unlink top", "mkdir top", "rmtree gone", "create gone"],
    ),
    ("hard links", &["write d/g", "unlink d/h", "link d/g e/g"]),
    (
        "parts",
        &[
            "write big",
            "truncate big 1500000",
            "punch big",
            "rename big e/big",
            "write e/big",
            "truncate e/big 2500000",
        ],
    ),
    (
        "completing",
        &[
            "write big",
            "truncate big 1500000",
            "write d/f",
            "write d/g",
            "chmod big",
        ],
    ),
    (
        "privileges",
        &["write priv", "setcap priv", "setuid priv", "touch priv"],
    ),
    (
        "privileges of a copy without data",
        &["setuid priv", "setcap priv", "open priv"],
    ),
];

fn perform(m: &Path, line: &str) -> sys::Res<()> {
    let words: Vec<&str> = line.split(' ').collect();
    let p = at(m, words[1]);
    let q = at(m, words.get(2).unwrap_or(&"."));
    match words[0] {
        "write" => {
            let fd = sys::open(&p, libc::O_WRONLY, 0)?;
            sys::pwrite(&fd, b"written", 5000)?;
            sys::close(fd)
        }
        "open" => sys::open(&p, libc::O_WRONLY, 0).map(drop),
        "create" => sys::open(&p, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o600).map(drop),
        "mkdir" => sys::mkdir(&p, 0o700),
        "symlink" => sys::symlink("target", &p),
        "unlink" => sys::unlink(&p),
        "rmtree" => remove_tree(&p),
        "rename" => sys::rename(&p, &q, 0),
        "exchange" => sys::rename(&p, &q, libc::RENAME_EXCHANGE),
        "link" => sys::link(&p, &q),
        "truncate" => sys::truncate(&p, words[2].parse().expect("a size")),
        "punch" => {
            let fd = sys::open(&p, libc::O_WRONLY, 0)?;
            sys::fallocate(&fd, 3, 10_000, 300_000)
        }
        "chmod" => sys::chmod(&p, 0o711),
        "chown" => sys::lchown(&p, 7, 8),
        "setxattr" => sys::lsetxattr(&p, "user.new", b"2", 0),
        "setcap" => sys::lsetxattr(&p, "security.capability", CAPABILITY, 0),
        "setuid" => sys::chmod(&p, 0o4755),
        "touch" => sys::utimens(&p, [(7, 8); 2]),
        other => panic!("{other:?} is no operation"),
    }
}

fn remove_tree(path: &[u8]) -> sys::Res<()> {
    for entry in sys::list(path)? {
        let below = [path, b"/", &entry.name].concat();
        if entry.kind == libc::DT_DIR {
            remove_tree(&below)?;
        } else {
            sys::unlink(&below)?;
        }
    }
    sys::rmdir(path)
}

/// The whole tree but for directories' times, which a half-done operation may have changed.
fn state(view: &Tree) -> Vec<String> {
    view.iter()
        .map(|(path, node)| {
            let mut words = vec![bytes::escape(path)];
            for (what, value) in tree::describe(&node.stat) {
                if !(node.stat.is_dir() && (what == "mtime" || what == "atime")) {
                    words.push(format!("{what}={value}"));
                }
            }
            let data = node.data.as_ref().map_or(0, |d| d.digest);
            words.push(format!(
                "{data:x} {:?} {:?} {:?}",
                node.target, node.xattrs, node.trouble
            ));
            words.join(" ")
        })
        .collect()
}

/// A daemon in the foreground, ours to kill.
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(stack: &Stack, at: &Path) -> Daemon {
        std::fs::create_dir_all(at).expect("a mount point");
        let before = sys::lstat(at.as_os_str().as_encoded_bytes())
            .expect("lstat")
            .dev;
        let child = stack
            .plyfs_command(at)
            .arg("--foreground")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let end = Instant::now() + Duration::from_secs(20);
        while sys::lstat(at.as_os_str().as_encoded_bytes()).is_ok_and(|s| s.dev == before) {
            assert!(Instant::now() < end, "the mount answers within 20 s");
            std::thread::yield_now();
        }
        Daemon { child }
    }
}

impl Daemon {
    /// Unmounts `at`, and waits for the end of the daemon, which completes its files; whether
    /// that was a good one.
    fn complete(&mut self, at: &Path) -> bool {
        // It may be dead.
        let _ = umount_when_free(at);
        let status = self.child.wait().expect("the daemon ends");
        status.success()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }
}

/// strace on a daemon, with `more` arguments; returns once it is attached.
fn trace(daemon: &Daemon, more: &[&str]) -> Child {
    let mut strace = Command::new("strace")
        .args(["-f", "-e", &format!("trace={CALLS}")])
        .args(more)
        .args(["-p", &daemon.child.id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts");
    let mut lines = BufReader::new(strace.stderr.take().expect("its stderr"));
    let mut line = String::new();
    while !line.contains("attached") {
        line.clear();
        let n = lines
            .read_line(&mut line)
            .expect("strace says that it is attached");
        assert!(n > 0, "strace ended before it was attached");
    }
    // What else it says must be read, or it stops.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    strace
}

/// Performs the script till something fails, under strace with `more` arguments; how many
/// operations went well, and whether the daemon completed its files. One that does that is traced
/// from the end of the script on: another of its threads is at work then, of which strace would
/// count the calls anew.
fn play(
    (daemon, at): (&mut Daemon, &Path),
    (script, words): (&[&str], &str),
    more: &[&str],
) -> ((usize, bool), Child) {
    let perform_all = || {
        let well = script.iter().take_while(|line| perform(at, line).is_ok());
        well.count()
    };
    if words.contains(COMPLETING) {
        let done = perform_all();
        assert_eq!(done, script.len(), "nothing is killed yet");
        let strace = trace(daemon, more);
        return ((done, daemon.complete(at)), strace);
    }
    let strace = trace(daemon, more);
    ((perform_all(), false), strace)
}

/// How often the daemon makes each call during the whole script: strace counts each on its own.
fn count_calls(lab: &Lab, script: &[&str], words: &str) -> BTreeMap<String, u32> {
    let stack = lab.stack("count", &[lab.path("l")]).words(words);
    let stack = stack.without(KERNEL);
    let m = lab.path("mnt/count");
    let log = lab.path("calls");
    let mut daemon = Daemon::start(&stack, &m);
    let (done, mut strace) = play(
        (&mut daemon, &m),
        (script, words),
        &["-o", log.to_str().expect("a plain path")],
    );
    assert_eq!(done, (script.len(), words.contains(COMPLETING)));
    drop(daemon);
    strace.wait().expect("strace ends with its daemon");
    release_below(&m);
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(log).expect("strace's log").lines() {
        let name = line
            .split_once(' ')
            .and_then(|(_, rest)| rest.trim().split_once('('));
        if let Some((name, _)) = name
            && CALLS.split(',').any(|c| c == name)
        {
            *counts.entry(name.to_string()).or_default() += 1;
        }
    }
    assert!(
        counts.values().sum::<u32>() >= script.len() as u32,
        "calls were seen: {counts:?}"
    );
    counts
}

/// The states before and after each operation, from a run in which nothing is killed.
fn reference(lab: &Lab, name: &str, (script, words): (&[&str], &str)) -> Vec<Vec<String>> {
    let stack = lab.stack(name, &[lab.path("l")]).words(words);
    let mounted = lab.mount_stack(name, &stack);
    let mut states = vec![state(&tree::read(mounted.path()))];
    for line in script {
        perform(mounted.path(), line).unwrap_or_else(|e| panic!("{line}: {}", sys::errno_name(e)));
        states.push(state(&tree::read(mounted.path())));
    }
    states
}

/// Whether the seen state is one of those that `line` may leave behind.
fn acceptable(seen: &[String], old: &[String], new: &[String], line: &str) -> bool {
    if seen == old || seen == new {
        return true;
    }
    // A tree is removed one name at a time: any part of it may be left.
    line.starts_with("rmtree")
        && seen.iter().all(|l| old.contains(l))
        && new.iter().all(|l| seen.contains(l))
}

fn run_script(number: usize, more: &str) {
    if !skip::can_mount() || !skip::has_tool("strace") {
        return;
    }
    let kind = std::env::var("PLYFS_CRASH_FS").map_or(Kind::Ext4, |name| {
        Kind::named(&name).expect("ext4, xfs, btrfs or tmpfs")
    });
    let Some(lab) = Lab::on(kind) else { return };
    let (name, script) = SCRIPTS[number];
    let words = format!("{WORDS},{more}");
    lab.layer("l", MarkFormat::Overlay, LOWER);
    let states = reference(&lab, "reference", (script, &words));
    let stride: usize =
        std::env::var("PLYFS_CRASH_STRIDE").map_or(1, |v| v.parse().expect("a number"));
    let mut kills = 0;
    for (call, count) in count_calls(&lab, script, &words) {
        for k in (1..=count).step_by(stride) {
            let target = (number, &*words);
            kills += u32::from(kill_once(&lab, target, &states, (&call, k)));
        }
    }
    println!("kill, {}, {name} [{more}]: {kills} kills", kind.name());
    assert!(kills > 5, "the daemon was killed {kills} times");
}

/// Runs the script on a daemon that dies at its `k`-th `call`, and judges what is left; whether
/// it died before its end.
fn kill_once(
    lab: &Lab,
    (number, words): (usize, &str),
    states: &[Vec<String>],
    (call, k): (&str, u32),
) -> bool {
    let (name, script) = SCRIPTS[number];
    let id = format!("{call}{k}");
    let stack = lab.stack(&id, &[lab.path("l")]).words(words);
    let stack = stack.without(KERNEL);
    let m = lab.path(&format!("mnt/{id}"));
    let mut daemon = Daemon::start(&stack, &m);
    let ((done, completed), mut strace) = play(
        (&mut daemon, &m),
        (script, words),
        &["-e", &format!("inject={call}:signal=KILL:when={k}")],
    );
    drop(daemon);
    strace.wait().expect("strace ends with its daemon");
    release_below(&m);
    let again = lab.mount_stack(&id, &stack);
    let seen = state(&tree::read(again.path()));
    let (old, new) = (&states[done], states.get(done + 1).unwrap_or(&states[done]));
    let line = script.get(done).unwrap_or(&"the end");
    if !acceptable(&seen, old, new, line) {
        let lost: Vec<_> = old.iter().filter(|l| !seen.contains(l)).collect();
        let wrong: Vec<_> = seen
            .iter()
            .filter(|l| !old.contains(l) && !new.contains(l))
            .collect();
        panic!(
            "{name}, killed at {call} {k} in `{line}`: neither before nor after.\nnot as before: {lost:#?}\n\
             nor as after: {wrong:#?}"
        );
    }
    shell(again.path(), "mkdir works; echo x > works/f; rm -r works");
    again.unmount().expect("it unmounts");
    let stays_partial = words.contains(PARTS) || copies_parts() && !words.contains(COMPLETING);
    let left: Vec<_> = tree::read(&lab.path(&format!("w-{id}")))
        .into_iter()
        .filter(|(path, node)| {
            let index = path.windows(5).any(|w| w == b"index");
            // That partly copied files are there.
            let noted = stays_partial && path.starts_with(b"work/incompat");
            path.contains(&b'/') && !index && !noted && node.stat.mode != 0
        })
        .map(|(path, _)| bytes::escape(&path))
        .collect();
    assert!(
        left.is_empty(),
        "{name}, killed at {call} {k}: left in work: {left:?}"
    );
    done < script.len() || words.contains(COMPLETING) && !completed
}

macro_rules! scripts {
    ($($test:ident: $number:expr, $words:expr;)*) => {
        $(
            #[test]
            fn $test() {
                run_script($number, $words);
            }
        )*
    };
}

scripts! {
    a_kill_while_writing_loses_nothing: 0, "";
    a_kill_while_changing_attributes_loses_nothing: 1, "";
    a_kill_while_deleting_loses_nothing: 2, "";
    a_kill_while_recreating_loses_nothing: 3, "";
    a_kill_while_renaming_loses_nothing: 4, "";
    a_kill_while_exchanging_loses_nothing: 5, "";
    a_kill_while_linking_loses_nothing: 6, "";
    a_kill_while_creating_loses_nothing: 7, "";
    a_kill_between_file_and_directory_loses_nothing: 8, "";
    a_kill_among_hard_links_loses_nothing: 9, "";
    a_kill_while_writing_parts_loses_nothing: 0, PARTS;
    a_kill_while_changing_attributes_of_parts_loses_nothing: 1, PARTS;
    a_kill_while_renaming_parts_loses_nothing: 4, PARTS;
    a_kill_while_linking_parts_loses_nothing: 6, PARTS;
    a_kill_among_partly_copied_hard_links_loses_nothing: 9, PARTS;
    a_kill_while_shaping_parts_loses_nothing: 10, PARTS;
    a_kill_while_completing_loses_nothing: 11, COMPLETING;
    a_kill_while_completing_loses_no_privileges: 12, COMPLETING;
    a_kill_while_copying_data_loses_no_privileges: 13, "copyup=open,partial=off";
}

/// Every completed operation is there after a kill under load.
#[test]
fn a_kill_under_load_loses_no_completed_operation() {
    let Some(lab) = Lab::new() else { return };
    let lower = lab.layer("l", MarkFormat::Overlay, LOWER);
    let stack = lab.stack("load", &[lower]);
    let m = lab.path("mnt/load");
    let daemon = Daemon::start(&stack, &m);
    let made: Vec<Vec<String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let m = &m;
                scope.spawn(move || {
                    let mut made = Vec::new();
                    for i in 0..100_000 {
                        let name = format!("d/w{worker}-{i}");
                        let ok = sys::open(at(m, &name), libc::O_CREAT | libc::O_WRONLY, 0o644)
                            .and_then(|fd| sys::pwrite(&fd, name.as_bytes(), 0).map(|_| fd))
                            .and_then(sys::close);
                        if ok.is_err() {
                            break;
                        }
                        made.push(name);
                    }
                    made
                })
            })
            .collect();
        while sys::list(at(&m, "d")).is_ok_and(|l| l.len() < 300) {
            std::thread::yield_now();
        }
        drop(daemon);
        workers
            .into_iter()
            .map(|w| w.join().expect("a worker does not panic"))
            .collect()
    });
    release_below(&m);
    let again = lab.mount_stack("load", &stack);
    let made: Vec<&String> = made.iter().flatten().collect();
    assert!(made.len() > 200, "there was load: {}", made.len());
    for name in made {
        let seen = std::fs::read_to_string(again.path().join(name));
        assert_eq!(seen.ok().as_ref(), Some(name), "{name} was completed");
    }
}
