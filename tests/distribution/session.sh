#!/bin/bash
# What is done to the distribution, once for each kind of union.
#   session.sh HOME PLYFS KIND
# leaves HOME/KIND/{live,remounted}.tsv, and for plyfs also foreign.tsv: the
# same upper, settled, seen by the kernel's overlayfs.
set -euo pipefail
home=$1 plyfs=$2 kind=$3
here=$(dirname "$0")
. "$here/union.sh"

at=$home/$kind
rm -rf "$at"
mkdir -p "$at/upper" "$at/work" "$at/mnt"
lowers=("$home/layers/programs" "$home/layers/lists" "$home/layers/base")
mount_union "$kind" "$plyfs" "$at/mnt" "$at/upper" "$at/work" "${lowers[@]}"
in_chroot "$at/mnt" < "$here/scenario.sh"
manifest "$at/mnt" > "$at/live.tsv"
umount "$at/mnt"

mount_union "$kind" "$plyfs" "$at/mnt" "$at/upper" "$at/work" "${lowers[@]}"
manifest "$at/mnt" > "$at/remounted.tsv"
if [ "$kind" = plyfs ]; then
    # It waits until the daemon has let go of the upper.
    "$plyfs" umount "$at/mnt"
else
    umount "$at/mnt"
fi

if [ "$kind" = plyfs ] && [ "$(cat "$home/reference")" = overlay ]; then
    settle "$plyfs" "$at/upper" "$at/work" "${lowers[@]}"
    mkdir "$at/work2"
    mount_union overlay - "$at/mnt" "$at/upper" "$at/work2" "${lowers[@]}"
    manifest "$at/mnt" > "$at/foreign.tsv"
    umount "$at/mnt"
fi
