# Sourced by the scripts of this test; they run as root of a user namespace.

# mount_union KIND PLYFS MNT UPPER WORK LOWER…   (topmost lower first)
mount_union() {
    local kind=$1 plyfs=$2 mnt=$3 upper=$4 work=$5
    shift 5
    local lowers
    lowers=$(IFS=:; echo "$*")
    case $kind in
    overlay)
        mount -t overlay overlay "$mnt" \
            -o "userxattr,lowerdir=$lowers,upperdir=$upper,workdir=$work"
        ;;
    plyfs)
        "$plyfs" -o "lowerdir=$lowers,upperdir=$upper,workdir=$work,suid,dev" "$mnt"
        ;;
    esac
}

# settle PLYFS UPPER WORK LOWER…
settle() {
    local plyfs=$1 upper=$2 work=$3
    shift 3
    "$plyfs" settle --quiet -o "lowerdir=$(IFS=:; echo "$*"),upperdir=$upper,workdir=$work"
}

# overlay_works DIR: true where the kernel's overlayfs takes an upper in DIR.
overlay_works() {
    local at=$1/probe
    mkdir -p "$at/lower" "$at/upper" "$at/work" "$at/mnt"
    mount_union overlay - "$at/mnt" "$at/upper" "$at/work" "$at/lower" 2>/dev/null || return 1
    umount "$at/mnt"
}

# in_chroot ROOT: runs the script on standard input with /proc, /dev and the
# resolver's configuration in place, and takes them away afterwards.
in_chroot() {
    local root=$1 node script
    script=$(cat)
    mkdir -p "$root/proc" "$root/dev" "$root/tmp"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    for node in null zero full random urandom tty; do
        : > "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    ln -s /proc/self/fd "$root/dev/fd"
    mkdir "$root/dev/pts"
    if mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666 2>/dev/null; then
        ln -s pts/ptmx "$root/dev/ptmx"
    fi
    # A container's masked /proc forbids a new one; its own can be bound.
    mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
    rm -f "$root/etc/resolv.conf"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    local status=0
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive /bin/sh -c "$script" < /dev/null || status=$?
    umount -R -l "$root/dev"
    umount -R -l "$root/proc"
    return "$status"
}

# manifest DIR: one line for each object of the tree, sorted; the fields are
# separated by tabs: path, type, mode, owner, links, size, target, digest.
manifest() {
    (
        cd "$1"
        LC_ALL=C join -t "$(printf '\t')" -a 1 \
            <(LC_ALL=C find . -xdev \
                \( -type f -printf '%p\t%y\t%m\t%U:%G\t%n\t%s\t\n' \
                -o -type l -printf '%p\t%y\t%m\t%U:%G\t%n\t\t%l\n' \
                -o -printf '%p\t%y\t%m\t%U:%G\t\t\t\n' \) | LC_ALL=C sort -t "$(printf '\t')" -k 1,1) \
            <(find . -xdev -type f -print0 | xargs -0 -r sha256sum \
                | sed -E 's/^\\?([0-9a-f]{64})  (.*)$/\2\t\1/' | LC_ALL=C sort -t "$(printf '\t')" -k 1,1)
    )
}
