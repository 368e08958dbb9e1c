#!/bin/bash
# Runs a command where container engines can do nothing to the host:
#   site.sh DIR COMMAND…
# in mount, PID and IPC namespaces of its own, with its own /run, /dev/shm,
# /etc/passwd, /etc/subuid and /etc/containers. What was started there ends with COMMAND, and
# what was mounted there goes with it. Run as root. DIR, which is not removed, is
# /run/site inside: where paths are long, conmon's socket is not found, and podman
# waits 20 s for the end of each container.
set -euo pipefail

if [ "${1-}" != --inside ]; then
    exec unshare --mount --pid --ipc --fork --kill-child --mount-proc -- bash "$0" --inside "$@"
fi
dir=$2
shift 2

# The user of the columns without root: ids that nobody on the host has.
user=plyclient uid=47110 subids=7000000

mount --make-rprivate /
# Engines want a root that is a shared mount; this one is shared with nobody outside.
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
# podman keeps its locks there.
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/lock /run/site
# For plugins and shims of docker, the rootless one's too.
install -m 1777 -d /run/docker /run/containerd /run/runc
mount --bind "$dir" /run/site
dir=/run/site
mkdir -p "$dir/etc"
for file in passwd group subuid subgid; do
    cp "/etc/$file" "$dir/etc/$file"
done
echo "$user:x:$uid:$uid::$dir/home:/bin/bash" >> "$dir/etc/passwd"
echo "$user:x:$uid:" >> "$dir/etc/group"
# podman takes the ids for userns=auto as root from those of `containers`.
for file in subuid subgid; do
    printf '%s:%s:65536\ncontainers:%s:655360\n' "$user" "$subids" $((subids + 100000)) >> "$dir/etc/$file"
done
for file in passwd group subuid subgid; do
    mount --bind "$dir/etc/$file" "/etc/$file"
done

mkdir -p "$dir/etc/containers" "$dir/empty" /etc/containers
cat > "$dir/etc/containers/policy.json" <<'JSON'
{"default": [{"type": "insecureAcceptAnything"}]}
JSON
echo 'unqualified-search-registries = []' > "$dir/etc/containers/registries.conf"
mount --bind "$dir/etc/containers" /etc/containers

# crun takes a hybrid hierarchy for cgroup v2, and then misses the controllers there.
if mountpoint -q /sys/fs/cgroup/unified; then
    umount /sys/fs/cgroup/unified
fi
cd "$dir"
# Not exec: the first process of a PID namespace must also bury the daemons.
"$@"
