//! Mounting the unions under test, and getting rid of them whatever happened.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{filter, skip, sys};

/// Long enough for any honest mount on a busy machine.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// What the two sides of a comparison are by default.
pub const KERNEL_WORDS: &str = "index=on,redirect_dir=on,metacopy=on,xino=off,volatile";

/// What a mount of plyfs gets unless a test says otherwise.
pub const PLYFS_WORDS: &str = "allow_other,suid,dev";

/// What every mount of plyfs gets before its own words, which count more: the mode in which
/// the tests are run (`tests/modes.rs` has the list of them).
pub fn test_options() -> String {
    std::env::var("PLYFS_TEST_OPTIONS").unwrap_or_default()
}

/// Whether `word` is among those of [`test_options`].
pub fn tests_with(word: &str) -> bool {
    test_options().split(',').any(|option| option == word)
}

/// Whether the tests are run in a mode in which opening a file for writing copies it up.
pub fn copies_at_open() -> bool {
    tests_with("copyup=open") || tests_with("io=passthrough")
}

/// Whether the tests are run in a mode in which files are copied up in parts.
pub fn copies_parts() -> bool {
    let options = test_options();
    let mut words = options.split(',');
    words.any(|word| word.starts_with("partial=") && word != "partial=off")
}

/// A program that shows a stack of layers as one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Kernel,
    Plyfs,
    FuseOverlayfs,
}

impl Subject {
    pub fn named(name: &str) -> Option<Subject> {
        match name {
            "kernel" => Some(Subject::Kernel),
            "plyfs" => Some(Subject::Plyfs),
            "fuse-overlayfs" => Some(Subject::FuseOverlayfs),
            _ => None,
        }
    }
}

/// The layers of a union, topmost lower first.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    pub lowers: Vec<PathBuf>,
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Comma-separated words for `-o`.
    pub words: String,
    /// Variables of plyfs's environment.
    pub variables: Vec<(&'static str, &'static str)>,
    /// What the kernel refuses to plyfs.
    pub refusals: Vec<filter::Refusal>,
    /// Which fuse-overlayfs; the one in PATH where it is empty.
    pub program: PathBuf,
}

impl Stack {
    pub fn new(lowers: &[PathBuf]) -> Stack {
        Stack {
            lowers: lowers.to_vec(),
            ..Stack::default()
        }
    }

    /// With an upper and a work directory, which are made if missing.
    pub fn upper(mut self, upper: &Path, work: &Path) -> Stack {
        for dir in [upper, work] {
            std::fs::create_dir_all(dir).expect("upper and work can be made");
        }
        self.upper = Some((upper.to_owned(), work.to_owned()));
        self
    }

    pub fn words(mut self, words: &str) -> Stack {
        self.words = words.to_owned();
        self
    }

    /// As if the kernel or the filesystem had not what the filter of this name refuses.
    pub fn without(mut self, filter: &str) -> Stack {
        self.refusals = filter::named(filter).expect("a filter of this name");
        self
    }

    /// Mounts it with `subject` at `at`, which is made if missing.
    pub fn mount(&self, subject: Subject, at: &Path) -> Result<Mounted, String> {
        std::fs::create_dir_all(at).map_err(|e| format!("{}: {e}", at.display()))?;
        match subject {
            Subject::Kernel => self.mount_kernel(at)?,
            Subject::Plyfs => self.mount_plyfs(at)?,
            Subject::FuseOverlayfs => self.mount_fuse_overlayfs(at)?,
        }
        let mut connection = connection_of(at);
        // Version 2.0.0 ends well before it has mounted.
        let end = Instant::now() + Duration::from_secs(5);
        while subject == Subject::FuseOverlayfs && connection.is_none() && Instant::now() < end {
            std::thread::yield_now();
            connection = connection_of(at);
        }
        if connection.is_none() && subject != Subject::Kernel {
            return Err(format!(
                "{}: the program ended well, and nothing is mounted",
                at.display()
            ));
        }
        Ok(Mounted {
            at: at.to_owned(),
            connection,
            upper: self.upper.as_ref().map(|(upper, _)| upper.clone()),
            live: true,
        })
    }

    fn overlay_words(&self) -> Vec<u8> {
        let mut data = b"lowerdir=".to_vec();
        for (i, lower) in self.lowers.iter().enumerate() {
            if i > 0 {
                data.push(b':');
            }
            data.extend_from_slice(lower.as_os_str().as_bytes());
        }
        if let Some((upper, work)) = &self.upper {
            data.extend_from_slice(b",upperdir=");
            data.extend_from_slice(upper.as_os_str().as_bytes());
            data.extend_from_slice(b",workdir=");
            data.extend_from_slice(work.as_os_str().as_bytes());
        }
        data
    }

    fn mount_kernel(&self, at: &Path) -> Result<(), String> {
        let mut data = self.overlay_words();
        let words = if self.words.is_empty() {
            KERNEL_WORDS
        } else {
            &self.words
        };
        let words = match &self.upper {
            Some((_, work)) => {
                forgive_volatile(work);
                words.to_owned()
            }
            None => words
                .replace(",volatile", "")
                .replace("index=on", "index=off"),
        };
        data.push(b',');
        data.extend_from_slice(words.as_bytes());
        // An earlier mount of this upper ends with its last holder: see `unmount`.
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let done = sys::mount(
                "overlay",
                at.as_os_str().as_bytes(),
                "overlay",
                libc::MS_NOATIME,
                &data,
            );
            if done != Err(libc::EBUSY) || Instant::now() > end {
                break done;
            }
            std::thread::yield_now();
        }
        .map_err(|e| format!("overlay on {}: {}", at.display(), sys::errno_name(e)))
    }

    fn mount_plyfs(&self, at: &Path) -> Result<(), String> {
        if let Some((_, work)) = &self.upper {
            forgive_volatile(work);
        }
        let out = run(&mut self.plyfs_command(at), MOUNT_LIMIT)?;
        judge("plyfs", &out)
    }

    /// The command line of `mount_plyfs`.
    pub fn plyfs_command(&self, at: &Path) -> Command {
        let mut command = self.plyfs_verb("mount");
        command.arg(at);
        command
    }

    /// The command line of a verb over these layers.
    pub fn plyfs_verb(&self, verb: &str) -> Command {
        let mut command = Command::new(plyfs_binary());
        let refusals = [&*filter::of_the_suite(), &self.refusals].concat();
        filter::refuse(&mut command, &refusals);
        command.envs(self.variables.iter().copied());
        command.arg(verb);
        for lower in &self.lowers {
            command.arg("--lower").arg(lower);
        }
        if let Some((upper, work)) = &self.upper {
            command.arg("--upper").arg(upper).arg("--work").arg(work);
        }
        let words = if self.words.is_empty() {
            PLYFS_WORDS
        } else {
            &self.words
        };
        if verb == "mount" {
            command.args(["-o", &test_options()]);
        }
        command.args(["-o", words]);
        command
    }

    fn mount_fuse_overlayfs(&self, at: &Path) -> Result<(), String> {
        let mut words = self.overlay_words();
        words.extend_from_slice(b",allow_other,suid,dev,noatime");
        if !self.words.is_empty() {
            words.push(b',');
            words.extend_from_slice(self.words.as_bytes());
        }
        let mut command = Command::new(if self.program.as_os_str().is_empty() {
            Path::new("fuse-overlayfs")
        } else {
            &self.program
        });
        command
            .arg("-o")
            .arg(std::ffi::OsStr::from_bytes(&words))
            .arg(at);
        judge("fuse-overlayfs", &run(&mut command, MOUNT_LIMIT)?)
    }
}

/// A kernel mount with `volatile` leaves a mark that forbids the next mount: the right thing
/// after a crash, of no use to a test that only saves itself the syncing.
pub fn forgive_volatile(work: &Path) {
    let mark = work.join("work/incompat/volatile");
    if mark.exists() {
        std::fs::remove_dir_all(&mark).expect("the volatile mark can be removed");
    }
}

/// The binary under test.
pub fn plyfs_binary() -> PathBuf {
    std::env::var_os("PLYFS_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_plyfs")), PathBuf::from)
}

/// Runs a command with a limit on its time; what it wrote is collected until it closes its streams.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output, String> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
    let pid = child.id();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(limit) {
        Ok(out) => out.map_err(|e| e.to_string()),
        Err(_) => {
            let ended = sys::kill(pid, libc::SIGKILL);
            Err(format!(
                "{command:?}: no end after {limit:?}; killed: {ended:?}"
            ))
        }
    }
}

fn judge(program: &str, out: &Output) -> Result<(), String> {
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    Err(format!("{program}: {}: {}", out.status, said.trim()))
}

/// A live mount; unmounted on drop.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    connection: Option<u64>,
    /// Its upper, where the daemon may work on it after unmounting.
    upper: Option<PathBuf>,
    live: bool,
}

impl Mounted {
    /// The mount that somebody else has made at `at`.
    pub fn found(at: &Path) -> Mounted {
        Mounted {
            at: at.to_owned(),
            connection: connection_of(at),
            upper: None,
            live: true,
        }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The number of its FUSE connection; `None` for a mount of the kernel's.
    pub fn connection(&self) -> Option<u64> {
        self.connection
    }

    /// Unmounts as umount(8) does.
    pub fn unmount(mut self) -> Result<(), String> {
        self.live = false;
        let gone = umount_when_free(&self.at);
        if gone.is_err() {
            release(&self.at, self.connection);
        } else if self.connection.is_some() {
            self.wait_for_the_daemon();
        }
        gone.map_err(|e| format!("umount {}: {}", self.at.display(), sys::errno_name(e)))
    }
}

/// Unmounts `at`, for which it waits a while: between the fork and the exec of another test's
/// program that program holds our files.
pub fn umount_when_free(at: &Path) -> sys::Res<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let gone = sys::umount(at.as_os_str().as_bytes(), 0);
        if gone != Err(libc::EBUSY) || Instant::now() > end {
            return gone;
        }
        std::thread::yield_now();
    }
}

impl Mounted {
    /// As `unmount`, without waiting for a daemon that works on.
    pub fn unmount_only(mut self) -> Result<(), String> {
        self.upper = None;
        self.unmount()
    }

    /// What was partly copied gets the rest of its data after unmounting.
    fn wait_for_the_daemon(&self) {
        if let Some(upper) = &self.upper {
            let dir = std::fs::File::open(upper).expect("the upper is there");
            // SAFETY: a live descriptor.
            let locked = unsafe { libc::flock(dir.as_raw_fd(), libc::LOCK_EX) };
            assert_eq!(locked, 0, "the daemon lets go of its upper");
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.live {
            release(&self.at, self.connection);
        }
    }
}

fn release(at: &Path, connection: Option<u64>) {
    if sys::umount(at.as_os_str().as_bytes(), 0).is_ok() {
        return;
    }
    if let Some(connection) = connection {
        abort(connection);
    }
    if let Err(e) = sys::umount(at.as_os_str().as_bytes(), libc::MNT_DETACH) {
        eprintln!("{}: still mounted: {}", at.display(), sys::errno_name(e));
    }
}

/// Takes down every mount below `dir`, the innermost first.
pub fn release_below(dir: &Path) {
    let mut mounts: Vec<PathBuf> = mountinfo().into_iter().map(|(_, at)| at).collect();
    mounts.reverse();
    for at in mounts {
        if at.starts_with(dir) {
            release(&at, connection_of(&at));
        }
    }
}

/// (device, mount point) of every mount that this process sees.
fn mountinfo() -> Vec<((u64, u64), PathBuf)> {
    let all = std::fs::read("/proc/self/mountinfo").expect("/proc is mounted");
    all.split(|&b| b == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&b| b == b' ');
            let device = std::str::from_utf8(fields.nth(2)?).ok()?;
            let (major, minor) = device.split_once(':')?;
            let at = fields.nth(1)?;
            Some((
                (major.parse().ok()?, minor.parse().ok()?),
                PathBuf::from(std::ffi::OsStr::from_bytes(at)),
            ))
        })
        .collect()
}

fn connection_of(at: &Path) -> Option<u64> {
    let (major, minor) = mountinfo().into_iter().rev().find(|(_, p)| p == at)?.0;
    (major == 0).then_some(minor)
}

/// Ends a FUSE connection: every waiting call gets ECONNABORTED.
pub fn abort(connection: u64) {
    const CONTROL: &str = "/sys/fs/fuse/connections";
    static MOUNT: std::sync::Once = std::sync::Once::new();
    MOUNT.call_once(|| {
        let empty = std::fs::read_dir(CONTROL).is_ok_and(|mut dir| dir.next().is_none());
        if empty && sys::mount("fusectl", CONTROL, "fusectl", 0, b"").is_err() {
            skip::skipped("the FUSE control filesystem cannot be mounted");
        }
    });
    let file = format!("{CONTROL}/{connection}/abort");
    if Path::new(&file).exists()
        && let Err(error) = std::fs::write(&file, "1")
    {
        eprintln!("{file}: {error}");
    }
}
