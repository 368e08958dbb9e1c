//! One day in the life of a union, and what it must look like at its end.

use std::path::{Path, PathBuf};

use super::support::lab::{Lab, shell};
use super::support::layers::MarkFormat;
use super::support::mount::{Stack, Subject};
use super::support::tree::{self, Tree};

const UPPER_LAYER: &[&str] = &[
    "dir .",
    "dir d",
    "file d/append 5000",
    "file d/big 300000",
    "file d/cut 9000",
    "file d/emptied 100",
    "file d/mode",
    "file d/times",
    "file d/open 3000",
    "file d/gone",
    "file again",
    "file becomes-dir",
    "dir hollow",
    "dir cycle",
    "dir cycle/b",
    "file cycle/b/1",
    "file cycle/b/2",
    "dir over",
    "file over/a",
    "file over/b",
    "dir merged",
    "file merged/top",
    "file moved 70000",
    "whiteout merged/hidden",
    "dir merged/covered",
    "opaque merged/covered",
    "file merged/covered/own",
];

const LOWER_LAYER: &[&str] = &[
    "dir .",
    "dir tree",
    "dir tree/sub",
    "file tree/sub/old",
    "file tree/kept",
    "dir whole",
    "dir whole/sub",
    "file whole/sub/deep",
    "dir becomes-file",
    "file becomes-file/x",
    "dir full",
    "dir full/inner",
    "file full/inner/f 4000",
    "dir gone-dir",
    "file gone-dir/x",
    "dir empty",
    "dir clear",
    "file clear/1",
    "file clear/2",
    "dir merged",
    "file merged/bottom",
    "file merged/hidden",
    "dir merged/covered",
    "file merged/covered/below",
    "dir d",
    "file d/sparse 1048576",
    "dir swap",
    "file swap/x",
    "file swap/y",
];

/// What every filesystem can do. `mv` copies where rename says EXDEV.
const SCRIPT: &str = "
    printf more >> d/append
    printf X | dd of=d/big bs=1 seek=70000 conv=notrunc status=none
    truncate -s 5 d/cut
    : > d/emptied
    touch -d @1100000000 d/times
    truncate -s 2M d/sparse
    printf end >> d/sparse
    exec 3<>d/open; rm d/open; printf tail >&3; exec 3>&-

    rm d/gone
    rm again; printf again > again
    rmdir hollow
    rm -r tree/sub; mkdir tree/sub; printf new > tree/sub/new
    rm -r whole; mkdir -p whole/sub
    rm becomes-dir; mkdir becomes-dir; printf x > becomes-dir/x
    rm -r becomes-file; printf f > becomes-file
    rm merged/top merged/bottom
    mkdir -p new/dir; printf a > new/dir/a; rm new/dir/a; rmdir new/dir

    mv moved renamed
    mv over/a over/b
    mv full elsewhere
    mv cycle other; rm other/b/1; mv other cycle
    rm -r gone-dir; mkdir fresh; printf a > fresh/a; mv fresh gone-dir
    mkdir made; printf 1 > made/1; mv -T made empty
    rm clear/1 clear/2; mkdir bare; mv -T bare clear
    mv swap/x swap/z; mv swap/y swap/x; mv swap/z swap/y
    rm swap/x; printf back > swap/x
";

/// What not every filesystem can.
const MODES: &str = "
    chmod 600 d/mode; chmod 4750 d/big
";

const LINKS: &str = "
    ln d/append linked; ln -s nowhere symlink
    printf yet >> linked
    rm d/append
";

const NODES: &str = "
    mkfifo fifo; rm again; mkfifo again
";

/// A union to which the day happens.
pub struct Day<'l> {
    lab: &'l Lab,
    pub stack: Stack,
    /// What it is.
    script: String,
    /// In what a view may differ from the plain directory.
    forgiven: &'static [&'static str],
}

impl<'l> Day<'l> {
    /// The layers of the day in `lab`, with an upper in `room`.
    pub fn new(lab: &'l Lab, room: &Path) -> Day<'l> {
        let lowers: Vec<PathBuf> = vec![
            lab.layer("top", MarkFormat::Overlay, UPPER_LAYER),
            lab.layer("bottom", MarkFormat::Overlay, LOWER_LAYER),
        ];
        Day {
            lab,
            stack: Stack::new(&lowers).upper(&room.join("u"), &room.join("w")),
            script: [SCRIPT, MODES, LINKS, NODES].concat(),
            forgiven: &[],
        }
    }

    pub fn without(mut self, filter: &str) -> Self {
        self.stack = self.stack.without(filter);
        self
    }

    /// For an upper that takes neither hard links nor symlinks.
    pub fn without_links(mut self) -> Self {
        self.script = self.script.replace(LINKS, "");
        self
    }

    /// For an upper whose files all have one mode.
    pub fn without_modes(mut self) -> Self {
        self.script = self.script.replace(MODES, "");
        self
    }

    /// For an upper that takes no fifos.
    pub fn without_nodes(mut self) -> Self {
        self.script = self.script.replace(NODES, "");
        self
    }

    /// For an upper that cannot keep these attributes (as `tree::differences` calls them).
    pub fn forgiving(mut self, attributes: &'static [&'static str]) -> Self {
        self.forgiven = attributes;
        self
    }

    fn mounted<T>(&self, act: impl FnOnce(&Path) -> T) -> T {
        let mounted = self
            .lab
            .try_mount("day", &self.stack, Subject::Plyfs)
            .unwrap_or_else(|e| panic!("{e}"));
        let done = act(mounted.path());
        mounted.unmount().unwrap_or_else(|e| panic!("{e}"));
        done
    }

    fn assert_same(&self, when: &str, plain: &Path, union: &Tree) {
        let mut differing = tree::differences(("plain", &view(plain)), ("union", union));
        differing.retain(|line| {
            let about = |what: &&str| line.contains(&format!(": {what}: "));
            !self.forgiven.iter().any(about)
        });
        differing.truncate(12);
        assert!(differing.is_empty(), "{when}:\n{}", differing.join("\n"));
    }

    /// The day: the script on both, a look, a remount, another look.
    pub fn passes(&self) {
        let plain = self.lab.path("plain");
        let lowers: Vec<Tree> = self.stack.lowers.iter().map(|l| tree::read(l)).collect();
        let script = &self.script;
        self.mounted(|union| {
            let copy = format!("cp -a '{}' '{}'", union.display(), plain.display());
            shell(Path::new("/"), &copy);
            self.assert_same("before anything was done", &plain, &view(union));
            shell(&plain, script);
            shell(union, script);
            self.assert_same("at the end of the script", &plain, &view(union));
        });
        self.mounted(|union| {
            self.assert_same("after a remount", &plain, &view(union));
            // What the first mount wrote is changed by the second.
            let more = "rm -r tree becomes-dir; mkdir tree; mv gone-dir hollow; rm -r whole";
            shell(&plain, more);
            shell(union, more);
        });
        self.mounted(|union| self.assert_same("after another", &plain, &view(union)));
        if let Some((_, work)) = &self.stack.upper {
            let left = tree::read(&work.join("work"));
            assert_eq!(left.keys().collect::<Vec<_>>(), [b""], "left in work");
        }
        for (lower, before) in self.stack.lowers.iter().zip(&lowers) {
            let now = tree::read(lower);
            let harm = tree::differences(("before", before), ("after", &now));
            assert!(harm.is_empty(), "{}:\n{}", lower.display(), harm.join("\n"));
        }
    }

    /// All that lies in the upper.
    pub fn upper(&self) -> Tree {
        self.stack
            .upper
            .as_ref()
            .map_or_else(Tree::new, |(upper, _)| tree::read(upper))
    }
}

/// A tree without access times and without what a filesystem without xattrs says of itself.
fn view(at: &Path) -> Tree {
    let mut tree = tree::read(at);
    for node in tree.values_mut() {
        node.stat.atime = (0, 0);
        node.trouble.retain(|t| t != "llistxattr: EOPNOTSUPP");
    }
    tree
}
