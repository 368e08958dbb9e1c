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
limit=${PLYFS_CLIENTS_LIMIT:-240}

. "$here/environment.sh"
environment "$dir" "$program" "$who"

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
