#!/bin/bash
# One column of the table: cases of one engine on one storage program as one user.
#   column.sh IMAGES PROGRAM WHO ENGINE [CASE…]
# to be run inside site.sh. PROGRAM is the path of what mounts, or `overlay` for the
# kernel's own; WHO is `root` or `user`; ENGINE names the file beside this one
# with the cases, of which those named (else all) are run. Prints for each
#   CASE <tab> pass|skip|FAIL <tab> SECONDS <tab> WHY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=/run/site images=$1 program=$2 who=$3 engine=$4
shift 4
user=plyclient limit=${PLYFS_CLIENTS_LIMIT:-240}

mkdir -p "$dir/home" "$dir/runtime" "$dir/data" "$dir/run" "$dir/tmp" "$dir/bin" "$dir/logs"
chmod 755 "$dir"
options='' mount_program=$program
if [ "$program" = overlay ]; then
    mount_program=''
else
    options="mount_program = \"$program\""
    # docker knows the program by this name alone.
    ln -sf "$program" "$dir/bin/fuse-overlayfs"
    # mount.fuse3 looks in PATH.
    ln -sf "$program" "$dir/bin/$(basename "$program")"
fi
cat > "$dir/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$dir/data/store"
runroot = "$dir/run"
rootless_storage_path = "$dir/data/store"
[storage.options.overlay]
$options
CONF
# Neither systemd nor cgroups nor a network of its own: what a bare machine has.
cat > "$dir/containers.conf" <<CONF
[containers]
cgroups = "disabled"
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF

environment=(
    "PATH=$dir/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    "HOME=$dir/home" "XDG_RUNTIME_DIR=$dir/runtime" "TMPDIR=$dir/tmp"
    "CONTAINERS_CONF=$dir/containers.conf" "CONTAINERS_STORAGE_CONF=$dir/storage.conf"
    "BUILDAH_ISOLATION=chroot" "LANG=C.UTF-8"
    "SITE=$dir" "IMAGES=$images" "MOUNT_PROGRAM=$mount_program" "WHO=$who"
    "PLYFS_CLIENTS_OTHER=${PLYFS_CLIENTS_OTHER-}"
)
become=(env -i "${environment[@]}")
if [ "$who" = user ]; then
    chown -R "$user:$user" "$dir/home" "$dir/runtime" "$dir/data" "$dir/run" "$dir/tmp"
    become=(setpriv --reuid "$user" --regid "$user" --init-groups "${become[@]}")
fi
chmod 700 "$dir/runtime"

# All cases of the engine, in the order of its file.
cases=("$@")
if [ ${#cases[@]} = 0 ]; then
    mapfile -t cases < <(sed -n 's/^case_\([a-z0-9_]*\)().*/\1/p' "$here/$engine.sh")
fi

run() { # CASE
    local log=$dir/logs/$engine.$1 began ended status=0
    began=$EPOCHREALTIME
    timeout -k 5 "$limit" "${become[@]}" bash "$here/case.sh" "$engine" "$1" \
        < /dev/null > "$log" 2>&1 || status=$?
    ended=$EPOCHREALTIME
    local seconds word why=''
    seconds=$(awk -v a="$began" -v b="$ended" 'BEGIN { printf "%.1f", b - a }')
    case $status in
        0) word=pass ;;
        77) word=skip why=$(sed -n 's/^skipped: //p' "$log" | tail -n 1) ;;
        124 | 137) word=FAIL why="took more than $limit s" ;;
        *) word=FAIL why=$(grep -vE "^(Run|See) 'docker|^$" "$log" | tail -n 1 | tr '\t' ' ') ;;
    esac
    printf '%s\t%s\t%s\t%s\n' "$1" "$word" "$seconds" "$why"
    [ "$word" = pass ]
}

run prepare || exit 0
for case in "${cases[@]}"; do
    run "$case" || true
done
run finish || true
