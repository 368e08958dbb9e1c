# shellcheck shell=bash
# The engines' configuration, sourced by column.sh and timings.sh inside site.sh.

# environment DIR PROGRAM WHO: makes DIR a place for the engines to store and run in, on
# PROGRAM (a path, or `overlay` for the kernel's own) and as WHO (`root` or `user`). Leaves
# the words that run a command so in the array `become`.
environment() {
    local dir=$1 program=$2 who=$3 options='' mount_program='' user=plyclient
    mkdir -p "$dir/home" "$dir/runtime" "$dir/data" "$dir/run" "$dir/tmp" "$dir/bin" "$dir/logs"
    chmod 755 "$dir"
    if [ "$program" != overlay ]; then
        mount_program=$program options="mount_program = \"$program\""
        # docker knows the program by this name alone, and mount.fuse3 looks in PATH.
        ln -sf "$program" "$dir/bin/fuse-overlayfs"
        ln -sf "$program" "$dir/bin/$(basename "$program")"
    fi
    cat > "$dir/storage.conf" << CONF
[storage]
driver = "overlay"
graphroot = "$dir/data/store"
runroot = "$dir/run"
rootless_storage_path = "$dir/data/store"
[storage.options.overlay]
$options
CONF
    # Neither systemd nor cgroups nor a network of its own: what a bare machine has.
    cat > "$dir/containers.conf" << CONF
[containers]
cgroups = "disabled"
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
    become=(
        env -i
        "PATH=$dir/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        "HOME=$dir/home" "XDG_RUNTIME_DIR=$dir/runtime" "TMPDIR=$dir/tmp"
        "CONTAINERS_CONF=$dir/containers.conf" "CONTAINERS_STORAGE_CONF=$dir/storage.conf"
        "BUILDAH_ISOLATION=chroot" "LANG=C.UTF-8"
        "SITE=$dir" "IMAGES=$images" "MOUNT_PROGRAM=$mount_program" "WHO=$who"
        "PLYFS_CLIENTS_OTHER=${PLYFS_CLIENTS_OTHER-}"
    )
    if [ "$who" = user ]; then
        chown -R "$user:$user" "$dir/home" "$dir/runtime" "$dir/data" "$dir/run" "$dir/tmp"
        become=(setpriv --reuid "$user" --regid "$user" --init-groups "${become[@]}")
    fi
    chmod 700 "$dir/runtime"
}
