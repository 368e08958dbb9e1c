# shellcheck shell=bash
# The store of one program under another: podman is switched to the kernel's overlayfs and
# back, or between plyfs and fuse-overlayfs. Sourced by case.sh; PLYFS_CLIENTS_OTHER names
# the other programs (paths with colons between), and there is always the kernel's.

prepare() {
    [ -n "$MOUNT_PROGRAM" ] || skip "it is the other program of the other columns"
    podman import -q "$IMAGES/busybox.tar" busybox > /dev/null
}

finish() {
    podman system reset --force > /dev/null
}

# on PROGRAM COMMAND…: with a configuration that names another program, or `overlay`.
on() {
    local conf=$work/storage.conf
    sed '/^mount_program/d' "$CONTAINERS_STORAGE_CONF" > "$conf"
    if [ "$1" = overlay ]; then
        # podman's own note that the store needs a program, which it obeys without root.
        rm -f "$SITE/data/store/overlay/.has-mount-program"
    else
        echo "mount_program = \"$1\"" >> "$conf"
    fi
    CONTAINERS_STORAGE_CONF=$conf "${@:2}"
}

# What the changed container shows: every name with type, mode, owner, links, size and content.
cat > "$work/look.sh" <<'END'
set -e
at=$(podman mount "$1")
stat -f -c %t "$at"
cd "$at"
find many much etc var root new moved -printf '%p %y %m %U:%G %s %l\n' 2>&1 | sort
find many much etc var root new moved -type f -exec md5sum {} + 2>&1 | sort
cd /
podman umount "$1" > /dev/null
END

look() { # CONTAINER
    if [ "$WHO" = root ]; then bash "$work/look.sh" "$1"; else podman unshare bash "$work/look.sh" "$1"; fi
}

# Everything that leaves a note in the upper, but for two things: hard links stay whole only
# where there is an index, and fuse-overlayfs 2.0.0 does not hide what was in a directory
# below one that was deleted and made again.
changes='
    echo new > /many/1; rm /many/2; mv /many/3 /many/three; chmod 700 /many/4; chown 1000:1000 /many/5
    touch -d 2001-01-01 /many/6; echo more >> /many/7; truncate -s 3 /many/8
    rm -rf /many/deep; mkdir /many/deep; echo fresh > /many/deep/new
    mv /root/private /root/moved; mv /var /new; mkdir /var
    cp -a /many /much; rm -rf /much/deep; mkdir /much/deep; chown -R 1000 /new'

# read_by OTHER: what this program wrote is read by the other.
read_by() {
    podman rm -f sw > /dev/null 2>&1 || true
    podman run --name sw busybox sh -ec "$changes"
    local own other
    own=$(look sw | tail -n +2)
    other=$(on "$1" look sw)
    [ "$(head -n 1 <<< "$other")" != "$(stat -f -c %t "$work")" ] || fail "nothing was mounted"
    diff <(echo "$own") <(tail -n +2 <<< "$other") > differences || {
        cat differences
        fail "$(grep -c '^[<>]' differences) lines differ, as: $(grep '^[<>]' differences | head -n 2 | tr '\n' ' ')"
    }
    podman rm -f sw > /dev/null
}

# written_by OTHER: what the other wrote is read by this one.
written_by() {
    podman rm -f sw > /dev/null 2>&1 || true
    on "$1" podman run --name sw busybox sh -ec "$changes"
    local own other
    other=$(on "$1" look sw | tail -n +2)
    own=$(look sw | tail -n +2)
    diff <(echo "$other") <(echo "$own") > differences || {
        cat differences
        fail "$(grep -c '^[<>]' differences) lines differ, as: $(grep '^[<>]' differences | head -n 2 | tr '\n' ' ')"
    }
    podman start -a sw > /dev/null 2>&1 || true
    podman rm -f sw > /dev/null
}

case_read_by_overlayfs() { read_by overlay; }

case_written_by_overlayfs() { written_by overlay; }

others() { # read_by|written_by
    local other seen=no
    local IFS=:
    for other in ${PLYFS_CLIENTS_OTHER-}; do
        [ "$other" = "$MOUNT_PROGRAM" ] || { seen=yes; "$1" "$other"; }
    done
    [ "$seen" = yes ] || skip "PLYFS_FUSE_OVERLAYFS names no other program"
}

case_read_by_others() { others read_by; }

case_written_by_others() { others written_by; }
