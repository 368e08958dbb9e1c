# shellcheck shell=bash
# What a person does with containerd and ctr, and without root in the namespaces of rootlesskit.
# Sourced by case.sh. containerd makes the snapshots; what mounts them is mount.fuse3 with the
# program, as its snapshotter for FUSE calls it: `mount.fuse3 overlay TARGET -o … -t PROGRAM`.

export CONTAINERD_ADDRESS=$SITE/run/containerd.sock
export CONTAINERD_NAMESPACE=plyfs-clients

# In which namespaces the daemon is, where that is not root's.
rootless=$SITE/run/rootlesskit
if [ "$WHO" = user ] && [ "$(id -u)" != 0 ] && [ "$case" != prepare ]; then
    exec nsenter --preserve-credentials --user --mount --target "$(cat "$rootless/child_pid")" \
        bash "$0" "$engine" "$case"
fi

# How containers are run there: root of a user namespace has no say over cgroups.
run=(ctr run --rm)
[ "$WHO" = root ] || run+=(--cgroup '' --cpu-shares 0)

prepare() {
    local start=(setsid)
    if [ "$WHO" = user ]; then
        command -v rootlesskit > /dev/null || skip "the program rootlesskit is not installed"
        start+=(rootlesskit --net host --copy-up /etc --state-dir "$rootless")
    fi
    cat > "$SITE/tmp/containerd.toml" <<END
version = 2
root = "$SITE/data/containerd"
state = "$SITE/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$CONTAINERD_ADDRESS"
END
    "${start[@]}" containerd --config "$SITE/tmp/containerd.toml" > "$SITE/tmp/containerd-daemon" 2>&1 &
    echo $! > "$SITE/run/containerd.pid"
    until ctr version > /dev/null 2>&1; do
        kill -0 $! 2> /dev/null || fail "containerd: $(tail -n 1 "$SITE/tmp/containerd-daemon")"
        sleep 0.1
    done
    # An image in the form that ctr takes, of two layers, the upper of which has whiteouts.
    podman import -q "$IMAGES/busybox.tar" busybox > /dev/null
    podman run --name two busybox rm -r /many/deep /many/1
    podman commit -q two two-image > /dev/null
    podman save -q -o "$SITE/tmp/two.tar" two-image
    podman rm -f two > /dev/null
    ctr images import "$SITE/tmp/two.tar" > /dev/null
}

finish() {
    local daemon
    daemon=$(cat "$SITE/run/containerd.pid")
    ctr images ls -q | xargs -r ctr images rm --sync > /dev/null
    kill "$daemon"
    while kill -0 "$daemon" 2> /dev/null; do sleep 0.1; done
    find /sys/fs/cgroup -depth -type d -path "*/$CONTAINERD_NAMESPACE/*" -exec rmdir {} +
    find /sys/fs/cgroup -depth -type d -name "$CONTAINERD_NAMESPACE" -exec rmdir {} +
}

# The topmost snapshot of the image.
topmost() {
    ctr snapshots ls | awk '$NF == "Committed" { key[$1] = 1; if (NF == 3) parent[$2] = 1 }
        END { for (k in key) if (!(k in parent)) print k }'
}

# mount_snapshot KEY TARGET: as containerd would with a mount of type `fuse3.PROGRAM`.
mount_snapshot() {
    mount_as_told "$2" "$(ctr snapshots mounts "$2" "$1")"
}

# mount_as_told TARGET COMMAND: COMMAND is what ctr prints, mount -t overlay overlay TARGET -o OPTIONS.
mount_as_told() {
    mkdir -p "$1"
    local options=${2##* -o } target=$1
    if [ -n "$MOUNT_PROGRAM" ]; then
        mount.fuse3 overlay "$target" -o "$options,dev,suid" -t "$(basename "$MOUNT_PROGRAM")"
    else
        mount -t overlay overlay "$target" -o "$options"
    fi
    same "the filesystem of a snapshot" "$(union_magic)" "$(stat -f -c %t "$target")"
}

case_import_and_run() {
    same "a container of ctr" "hello 39" "$("${run[@]}" --snapshotter overlayfs \
        "$(ctr images ls -q | head -n 1)" plain sh -c 'echo hello $(ls /many | wc -l)')"
}

case_snapshot_through_mount_fuse3() {
    ctr snapshots prepare active "$(topmost)" > /dev/null
    mount_snapshot active target
    ls target/many > seen
    same "files in the snapshot" 39 "$(wc -l < seen)"
    # `dev` and `suid` must give a mount without nodev and nosuid.
    same "nodev or nosuid" "" "$(findmnt -n -o OPTIONS target | tr ',' '\n' | grep -E '^no(dev|suid)$' || true)"
    rm -rf target/many && mkdir target/many && echo new > target/many/file
    umount target
    mount_snapshot active target
    same "the snapshot mounted again" "file" "$(ls target/many)"
    umount target
    ctr snapshots commit done active
    ctr snapshots prepare next done > /dev/null
    mount_snapshot next target
    same "a snapshot of the snapshot" "new" "$(cat target/many/file)"
    umount target
    ctr snapshots rm next
    ctr snapshots rm done
}

case_run_on_a_snapshot() {
    ctr snapshots prepare rootfs "$(topmost)" > /dev/null
    mount_snapshot rootfs target
    same "a container on the mount" "$(union_magic) 39 gone kept" "$("${run[@]}" --rootfs "$work/target" on-snapshot /bin/sh -c '
        echo $(stat -f -c %t /) $(ls /many | wc -l) $(rm -r /many; [ -e /many ] || echo gone) $(echo kept > /kept; cat /kept)')"
    umount target
    mount_snapshot rootfs target
    [ ! -e target/many ] && [ -e target/kept ] || fail "the changes are not in the snapshot"
    umount target
    ctr snapshots rm rootfs
}

case_view() {
    mount_as_told target "$(ctr snapshots view --target target look "$(topmost)")"
    refuse touch target/file 2> /dev/null
    same "files in the view" 39 "$(find target/many -mindepth 1 | wc -l)"
    umount target
    # containerd collects what has no owner, which a view of ctr has not.
    ctr snapshots rm look 2> /dev/null || true
}
