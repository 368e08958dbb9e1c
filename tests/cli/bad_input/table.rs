//! Calls that are refused on every machine, and what they are told.

/// What is asked, and the whole answer.
pub type Case = (&'static str, &'static str);

pub const CREATE: &str = "no such directory; create it with mkdir, or correct the path";

pub const PATHS: &[Case] = &[
    (
        "mount --lower low missing",
        "mount point $D/missing: $CREATE",
    ),
    (
        "mount --lower low file",
        "mount point $D/file: not a directory; give a directory",
    ),
    (
        "mount --lower low --upper up --work work up/in",
        "mount point $D/up/in: it lies inside the upper $D/up; choose a directory outside of it",
    ),
    (
        "mount --lower low --upper up --work work up",
        "mount point $D/up: it is the upper $D/up; choose a directory outside of it",
    ),
    (
        "mount --lower low --upper up --work work work",
        "mount point $D/work: it is the work directory $D/work; choose a directory outside of it",
    ),
    (
        "mount --lower missing mnt",
        "lower layer $D/missing: $CREATE",
    ),
    (
        "mount --lower file mnt",
        "lower layer $D/file: not a directory; give a directory",
    ),
    (
        "mount --lower file/x mnt",
        "lower layer $D/file/x: not a directory; give a directory",
    ),
    (
        "mount --lower loop mnt",
        "lower layer $D/loop: too many levels of symbolic links; correct the path",
    ),
    (
        "mount --lower low --upper missing --work work mnt",
        "upper $D/missing: $CREATE",
    ),
    (
        "mount --lower low --upper file --work work mnt",
        "upper $D/file: not a directory; give a directory",
    ),
    (
        "mount --lower low --upper up --work missing mnt",
        "work directory $D/missing: $CREATE",
    ),
    (
        "mount --lower low --upper up --work file mnt",
        "work directory $D/file: not a directory; give a directory",
    ),
];

pub const OVERLAPS: &[Case] = &[
    (
        "mount --lower low --upper up --work up/in mnt",
        "work directory $D/up/in: it lies inside the upper $D/up; put it beside the upper",
    ),
    (
        "mount --lower low --upper work/in --work work mnt",
        "upper $D/work/in: it lies inside the work directory $D/work; put the work directory \
         beside it",
    ),
    (
        "mount --lower low --upper up --work up mnt",
        "work directory $D/up: it is the upper itself; put it beside the upper",
    ),
    (
        "mount --lower low --upper low/in --work work mnt",
        "upper $D/low/in: it lies inside the lower layer $D/low; put it outside of every layer",
    ),
    (
        "mount --lower low --upper up --work low/in mnt",
        "work directory $D/low/in: it lies inside the lower layer $D/low; put it outside of \
         every layer",
    ),
    (
        "mount --lower up/in --upper up --work work mnt",
        "lower layer $D/up/in: it lies inside the upper $D/up; put it outside of upper and work",
    ),
    (
        "mount --lower low --upper low --work work mnt",
        "upper $D/low: it is the lower layer $D/low too; give it a directory of its own",
    ),
    (
        "mount --lower low --lower low2 --lower low mnt",
        "lower layer $D/low: given twice; name each layer once",
    ),
    (
        "mount --lower low --lower link mnt",
        "lower layer $D/link: the same directory as $D/low; name each layer once",
    ),
];

pub const NEED: &str = "name at least one: --lower DIR, or -o lowerdir=DIR";

pub const WORDS: &[Case] = &[
    (
        "mount -o lowerdir=low::low2:low mnt",
        "option lowerdir=low::low2:low: a layer to be merged stands after a data-only one; write \
         lowerdir=A:B::DATA::DATA, with two colons before each of the last",
    ),
    ("mount -o datadir+=low mnt", "layers: none given; $NEED"),
    (
        "mount --lower low -o datadir+=none mnt",
        "lower layer $D/none: no such directory; create it with mkdir, or correct the path",
    ),
    (
        "mount --lower low -o metacopy=on,redirect_dir=off mnt",
        "option metacopy=on: it needs redirects, which redirect_dir switches off; leave out one \
         of the two",
    ),
    (
        "mount --lower low --metrics missing/file mnt",
        "directory of the metrics file $D/missing: $CREATE",
    ),
    (
        "mount --lower low -o metrics=mnt/file mnt",
        "directory of the metrics file $D/mnt: it lies in the union that is about to be mounted; \
         choose a directory outside of it",
    ),
    (
        "-o lowerdir=low,metrics=low2 mnt",
        "metrics file $D/low2: it is a directory; name a file",
    ),
    (
        "run --lower low -o metrics=missing/file -- true",
        "directory of the metrics file $D/missing: $CREATE",
    ),
    (
        "mount --lower low -o observe=off,metrics=file mnt",
        "option metrics: there are no figures with observe=off; leave out one of the two",
    ),
    (
        "mount --lower low -o observe=never mnt",
        "option observe=never: no such value; use one of: on, off",
    ),
    (
        "mount --lower low -o metrics_interval=0 mnt",
        "option metrics_interval=0: not a whole number between 1 and 86400; write for instance \
         metrics_interval=1",
    ),
    ("mount mnt", "layers: none given; $NEED"),
    ("mnt", "layers: none given; $NEED"),
    (
        "-o upperdir=up,workdir=work mnt",
        "layers: none given; $NEED",
    ),
    (
        "-o lowerdir=low",
        "mount point: none given; name the directory where the union shall appear, last",
    ),
    (
        "mount --lower low --upper up mnt",
        "upper $D/up: it has no work directory; name an empty directory beside it: --work DIR, \
         or -o workdir=DIR",
    ),
    (
        "-o lowerdir=low,upperdir=up mnt",
        "upper $D/up: it has no work directory; name an empty directory beside it: --work DIR, \
         or -o workdir=DIR",
    ),
    (
        "mount --lower low --work work mnt",
        "work directory $D/work: there is no upper that needs it; name the upper too: --upper \
         DIR; or leave the work directory out",
    ),
    (
        "mount --lower low -o lowerdr=x mnt",
        "option lowerdr=x: no such option; did you mean lowerdir?",
    ),
    (
        "mount --lower low -o private mnt",
        "option private: no such option; see plyfs-mount(1) for those there are",
    ),
    (
        "mount --lower low -o threads=many mnt",
        "option threads=many: not a whole number between 1 and 64; write for instance threads=1",
    ),
    (
        "-o lowerdir=low,max_write=1 mnt",
        "option max_write=1: not a whole number between 4096 and 16777216; write for instance \
         max_write=4096",
    ),
    (
        "-o lowerdir=low,timeout=soon mnt",
        "option timeout=soon: not a number of seconds; write for instance timeout=1.5, or leave \
         it out where no layer changes",
    ),
    (
        "-o lowerdir=low,marks=aufs mnt",
        "option marks=aufs: no such value; use one of: auto, overlay, files",
    ),
    (
        "mount --lower low -o ro=1 mnt",
        "option ro=1: takes no value; write ro",
    ),
    (
        "mount --lower low -o upperdir mnt",
        "option upperdir: needs a value; write upperdir=DIR",
    ),
    (
        "mount --lower low -o lowerdir=low2 mnt",
        "layers: given both by --lower and by -o lowerdir; keep one of them",
    ),
    (
        "mount --lowr low mnt",
        "unexpected argument '--lowr' found; did you mean --lower?",
    ),
    (
        "mount --lower low",
        "the following required arguments were not provided: <MNT>; see plyfs --help",
    ),
    (
        "monut --lower low",
        "verb monut: no such verb; did you mean mount?",
    ),
    ("mnt -o", "option -o: needs a value; write -o WORDS"),
    (
        "a b c -o lowerdir=low",
        "argument c: one too many; give a mount point, or a source and a mount point; quote \
         spaces",
    ),
    (
        "mount --log-file missing/log --lower low mnt",
        "log file missing/log: no such file or directory; name a file that can be written",
    ),
];

pub const FILES: &[Case] = &[
    (
        "mount --config missing.toml mnt",
        "missing.toml: no such file or directory; give --config a readable TOML file",
    ),
    (
        "mount --config broken.toml mnt",
        "broken.toml:2: string values must be quoted, expected literal string; correct it; \
         plyfs-mount(1) has an example",
    ),
    (
        "mount --config key.toml mnt",
        "key.toml:3: unknown key wrok; did you mean work?",
    ),
    (
        "mount --config word.toml mnt",
        "word.toml:2: option voaltile: no such option; did you mean volatile?",
    ),
    (
        "mount --config number.toml mnt",
        "number.toml:3: option threads=99: not a whole number between 1 and 64; write for \
         instance threads=1",
    ),
    (
        "mount --config type.toml mnt",
        "type.toml:1: upper is not the path of a directory; write upper = \"/a/directory\"",
    ),
];

pub const OTHER_VERBS: &[Case] = &[
    (
        "umount mnt",
        "mount point mnt: nothing is mounted there; give a mount point: grep plyfs /proc/mounts \
         shows them",
    ),
    (
        "umount missing",
        "mount point missing: no such file or directory; correct the path",
    ),
    (
        "umount /proc",
        "mount point /proc: not a plyfs mount but proc; use umount for it",
    ),
    (
        "stat",
        "the following required arguments were not provided: <MNT>; see plyfs --help",
    ),
    (
        "stat missing",
        "mount point missing: no such file or directory; correct the path",
    ),
    (
        "events /proc",
        "mount point /proc: not a plyfs mount but proc; give the mount point of a union: grep \
         plyfs /proc/mounts shows them",
    ),
    (
        "stat --prometheus --json mnt",
        "the argument '--prometheus' cannot be used with '--json'; see plyfs --help",
    ),
    (
        "stat --watch 2",
        "mount point: none given; name it: plyfs stat --watch SECS MNT",
    ),
    (
        "stat --watch 0 mnt",
        "argument --watch 0: not a number of seconds between 0.1 and 86400; write for instance \
         --watch 5",
    ),
    (
        "events --new --since 3 mnt",
        "the argument '--new' cannot be used with '--since <NUMBER>'; see plyfs --help",
    ),
    (
        "run",
        "the following required arguments were not provided: <CMD>...; see plyfs --help",
    ),
    (
        "run --lower missing -- true",
        "lower layer missing: $CREATE",
    ),
    ("run --upper missing -- true", "upper missing: $CREATE"),
    (
        "run --keep work -- true",
        "directory work: it is not empty; name a new or empty directory, or one that an earlier \
         run kept",
    ),
    (
        "run --discard --keep new -- true",
        "the argument '--discard' cannot be used with '--keep <DIR>'; see plyfs --help",
    ),
    (
        "run -o upperdir=up -- true",
        "option lowerdir, upperdir or workdir: not for plyfs run; use --lower and --upper; the \
         work directory is made beside the upper",
    ),
    (
        "run --lower up/in --upper up -- true",
        "lower layer up/in: it lies inside the upper $D/up; put it outside of upper and work",
    ),
    (
        "bench missing",
        "directory missing: no such file or directory; name a directory that can be written, on \
         the filesystem to measure",
    ),
    (
        "bench --only wlak",
        "--only wlak: no workload is called so; see plyfs bench --list",
    ),
    (
        "bench --scale 0",
        "--scale 0: out of range; give 0.001 to 100",
    ),
    (
        "bench --rounds 0",
        "--rounds 0: out of range; give 1 to 1000",
    ),
    (
        "bench --subject zfs",
        "--subject zfs: no subject is called \"zfs\"; write [LABEL=]KIND[@PROGRAM][:WORDS], KIND \
         being plyfs, overlay, fuse-overlayfs or bare",
    ),
    (
        "bench --rootfs missing",
        "--rootfs missing: no such file or directory; name the directory of a root filesystem",
    ),
    (
        "bench --json missing/file",
        "--json missing/file: no such file or directory; name a file that can be written",
    ),
    (
        "bench --from file",
        "--from file: no report: EOF while parsing a value at line 1 column 0; name a file that \
         plyfs bench --json has written",
    ),
];
