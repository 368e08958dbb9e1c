#!/bin/bash
# Makes the lower layers of the test: run as root of a user namespace.
#   layers.sh HOME PLYFS
# HOME/base.tar is a Debian root filesystem; HOME/layers/{base,lists,programs}
# are the layers that come out of it, and HOME/reference says whether the
# kernel's overlayfs can be the reference here.
set -euo pipefail
home=$1 plyfs=$2
here=$(dirname "$0")
. "$here/union.sh"

rm -rf "$home/layers" "$home/build"
mkdir -p "$home/layers/base" "$home/build"
tar -C "$home/layers/base" --numeric-owner -xpf "$home/base.tar"

if overlay_works "$home/build"; then maker=overlay; else maker=plyfs; fi
echo "$maker" > "$home/reference"

# One layer more on top of the ones there are: whatever the script on stdin
# does in a chroot becomes the layer.
make_layer() { # NAME LOWER…
    local name=$1
    shift
    local at=$home/build/$name
    mkdir -p "$at/work" "$at/mnt" "$home/layers/$name"
    mount_union "$maker" "$plyfs" "$at/mnt" "$home/layers/$name" "$at/work" "$@"
    in_chroot "$at/mnt"
    umount "$at/mnt"
}

# The lists and packages that the session installs from, so that both sessions
# see the same ones and need no network.
make_layer lists "$home/layers/base" <<'EOF'
set -e
echo 'deb http://deb.debian.org/debian-security bookworm-security main' \
    > /etc/apt/sources.list.d/security.list
apt-get update -qq
apt-get install -qq -y --no-install-recommends --download-only git less python3 sqlite3
apt-get upgrade -qq -y --download-only
EOF

# Packages in a layer of their own, with whiteouts and an opaque directory.
make_layer programs "$home/layers/lists" "$home/layers/base" <<'EOF'
set -e
apt-get install -qq -y --no-install-recommends less sqlite3
rm -rf /usr/share/doc
mkdir /usr/share/doc
echo 'documentation is elsewhere' > /usr/share/doc/README
rm -r /usr/share/zoneinfo/A* /etc/skel/.profile
ln -s usr/share /share
EOF
rm -rf "$home/build"
manifest "$home/layers" > "$home/layers.tsv"
