//! A real distribution in a union that was mounted without root: a Debian root
//! filesystem over three lower layers, in a user namespace, in which apt and
//! dpkg install, upgrade and remove packages, git clones and commits, sqlite
//! runs its transactions. The same done on the kernel's overlayfs gives the
//! same tree, and the upper that plyfs wrote shows that tree there too.
//!
//! The scripts beside this file do the work; see `scenario.sh` for what is done.
//! `PLYFS_DISTRIBUTION_DIR` names a directory to work in (a few GB, reachable
//! by any user); the downloaded root filesystem stays there for the next run.

mod manifest;
mod namespace;

use manifest::Manifest;
use namespace::Namespace;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const BASE: &str = "base.tar";

/// Where the whole test lives: the scripts, a copy of the program, the layers.
struct Home {
    dir: PathBuf,
    namespace: Namespace,
}

impl Home {
    /// Everything that the sessions need, or why it cannot be had here.
    fn prepare() -> Result<Home, String> {
        if std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .is_err()
        {
            return Err("/dev/fuse cannot be opened".into());
        }
        for tool in ["mmdebstrap", "unshare", "newuidmap", "setpriv"] {
            if !has(tool) {
                return Err(format!("the program {tool} is not installed"));
            }
        }
        let dir = match std::env::var_os("PLYFS_DISTRIBUTION_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from("/var/tmp").join(format!("plyfs-distribution-{}", user_id())),
        };
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let namespace = Namespace::prepare(&dir)?;
        let home = Home { dir, namespace };
        home.install();
        home.fetch_base()?;
        Ok(home)
    }

    /// The root of the namespace must be able to read scripts and program.
    fn install(&self) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/distribution");
        for script in [
            "union.sh",
            "layers.sh",
            "lowers.sh",
            "session.sh",
            "scenario.sh",
        ] {
            copy(&scripts.join(script), &self.dir.join(script));
        }
        copy(
            Path::new(env!("CARGO_BIN_EXE_plyfs")),
            &self.dir.join("program"),
        );
    }

    fn fetch_base(&self) -> Result<(), String> {
        let base = self.dir.join(BASE);
        if base.exists() {
            return Ok(());
        }
        let partial = self.dir.join("base.partial.tar");
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "--skip=output/dev"])
            .arg("bookworm")
            .arg(&partial)
            .arg("deb http://deb.debian.org/debian bookworm main")
            .output()
            .map_err(|e| format!("mmdebstrap: {e}"))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            let last = said.lines().last().unwrap_or("no message");
            return Err(format!(
                "mmdebstrap made no root filesystem (no network?): {last}"
            ));
        }
        std::fs::rename(&partial, &base).map_err(|e| format!("{}: {e}", base.display()))
    }

    fn run(&self, script: &str, words: &[&str]) {
        let script = self.dir.join(script);
        let plyfs = self.dir.join("program");
        let mut command = vec![OsStr::new("bash"), script.as_os_str(), self.dir.as_os_str()];
        command.push(plyfs.as_os_str());
        command.extend(words.iter().map(OsStr::new));
        self.namespace.run(&command);
    }

    fn manifest(&self, kind: &str, name: &str) -> Manifest {
        Manifest::read(&self.dir.join(kind).join(name))
    }

    /// Only the namespace's root may delete what it made.
    fn clean(&self) {
        let rm = "rm -rf \"$1\"/layers \"$1\"/build \"$1\"/plyfs \"$1\"/overlay";
        let words = ["sh", "-c", rm, "sh"].map(OsStr::new);
        let mut command = words.to_vec();
        command.push(self.dir.as_os_str());
        self.namespace.run(&command);
    }
}

fn has(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).exists()))
}

fn user_id() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |me| me.uid())
}

fn copy(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}

#[test]
fn a_debian_root_filesystem_lives_in_a_union_mounted_without_root() {
    let home = match Home::prepare() {
        Ok(home) => home,
        Err(why) => {
            println!("skipped: {why}");
            let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!(in_ci && why.contains("/dev/fuse")), "CI=true, but {why}");
            return;
        }
    };
    home.clean();
    home.run("layers.sh", &[]);
    let lowers_before = home.manifest(".", "layers.tsv");

    home.run("session.sh", &["plyfs"]);
    let live = home.manifest("plyfs", "live.tsv");
    assert!(live.len() > 5000, "only {} objects were seen", live.len());
    let remounted = home.manifest("plyfs", "remounted.tsv");
    live.assert_same(&remounted, "live", "after a remount", &[]);

    let reference = std::fs::read_to_string(home.dir.join("reference")).unwrap_or_default();
    if reference.trim() == "overlay" {
        home.run("session.sh", &["overlay"]);
        let overlay = home.manifest("overlay", "live.tsv");
        live.assert_same(&overlay, "plyfs", "overlayfs", manifest::DATED);
        let foreign = home.manifest("plyfs", "foreign.tsv");
        live.assert_same(&foreign, "plyfs", "its upper on overlayfs", &[]);
    } else {
        println!("skipped: the comparison with overlayfs, which takes no upper here");
    }

    home.run("lowers.sh", &["layers.tsv"]);
    let lowers_after = home.manifest(".", "layers.tsv");
    lowers_before.assert_same(&lowers_after, "lowers before", "lowers after", &[]);
    home.clean();
}
