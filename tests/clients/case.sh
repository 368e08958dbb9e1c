#!/bin/bash
# Runs one case of one engine, in the environment that column.sh makes:
#   case.sh ENGINE CASE
# The exit status is 0, or 77 if it cannot be run here; the last line says why it failed.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd)
engine=$1 case=$2
work=$(mktemp -d "$TMPDIR/$case.XXXXXX")
cd "$work"

fail() {
    echo "$*"
    exit 1
}

skip() {
    echo "skipped: $*"
    exit 77
}

# same WHAT EXPECTED SEEN
same() {
    [ "$2" = "$3" ] || fail "$1: expected '${2//$'\n'/|}', saw '${3//$'\n'/|}'"
}

# Whether the path, in this mount namespace, is of the filesystem that is to be tested.
union_magic() {
    if [ -n "$MOUNT_PROGRAM" ]; then echo 65735546; else echo 794c7630; fi
}

# Fails if the command succeeds.
refuse() {
    if "$@"; then fail "succeeded: $*"; fi
}

trap 'echo "line $LINENO: $BASH_COMMAND: exit $?"' ERR
. "$here/$engine.sh"
if [ "$case" = prepare ]; then prepare; elif [ "$case" = finish ]; then finish; else "case_$case"; fi
