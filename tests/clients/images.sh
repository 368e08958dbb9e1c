#!/bin/bash
# Makes the images that the cases start from, without a registry:
#   images.sh DIR
# leaves DIR/busybox.tar and DIR/debian.tar, root filesystems as `podman import`
# takes them, and keeps those that are there. Debian holds some packages to
# install in /debs.
set -euo pipefail
dir=$1
mkdir -p "$dir"

if [ ! -e "$dir/busybox.tar" ]; then
    root=$(mktemp -d "$dir/root.XXXXXX")
    trap 'rm -rf "$root"' EXIT
    chmod 755 "$root"
    mkdir -p "$root"/{bin,dev,etc,proc,sys,root,usr/bin,var/empty} "$root/many/deep/er"
    install -m 1777 -d "$root/tmp"
    busybox=$(command -v busybox)
    cp "$busybox" "$root/bin/busybox"
    "$busybox" --list | while read -r name; do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' > "$root/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' > "$root/etc/group"
    # What the cases delete, rename and make again.
    for n in $(seq 40); do echo "file $n" > "$root/many/$n"; done
    echo below > "$root/many/deep/er/file"
    echo one > "$root/etc/linked"
    ln "$root/etc/linked" "$root/etc/linked-too"
    echo secret > "$root/etc/secret"
    chmod 600 "$root/etc/secret"
    install -m 700 -d "$root/root/private"
    install -o 1000 -g 1000 -m 750 -d "$root/var/mine"
    mkfifo "$root/var/fifo"
    tar -C "$root" --numeric-owner -cf "$dir/busybox.tar.new" .
    mv "$dir/busybox.tar.new" "$dir/busybox.tar"
fi

if [ ! -e "$dir/debian.tar" ] && command -v mmdebstrap > /dev/null; then
    # With all that they need; not installed, for the cases do that.
    debs='git less python3'
    mmdebstrap --quiet --variant=minbase --skip=output/dev \
        --customize-hook="chroot \"\$1\" sh -c 'mkdir /debs && apt-get install -qq -y --download-only \
            --no-install-recommends -o Dir::Cache::archives=/debs $debs && rm -rf /debs/lock /debs/partial'" \
        bookworm "$dir/debian.new.tar" 'deb http://deb.debian.org/debian bookworm main' >&2
    mv "$dir/debian.new.tar" "$dir/debian.tar"
fi
