#!/bin/bash
# How long podman takes on each storage program, side by side:
#   timings.sh [-n ROUNDS] [-d DIR] [-w root|user] [-t TASK,…] NAME=PROGRAM…
# PROGRAM is the path of what mounts, or `overlay` for the kernel's own overlayfs. Each
# round does every task on every program, in turn; then a table of the medians in seconds
# is printed, with their ratios to the first program. Run as root; DIR
# (else /var/tmp) is where the stores are while it runs, and images.sh's images.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# Not by apt-get, which fails on fuse-overlayfs 2.0.0; --force-depends, as one run of dpkg cannot
# order what is to be configured before another package is unpacked.
install='export DEBIAN_FRONTEND=noninteractive; dpkg -i --force-depends /debs/*.deb; dpkg --configure -a'

# The tasks, each with what has to be done before and after it, which is not timed.

before_build() { podman rmi -f built > /dev/null 2>&1 || true; }
task_build() { podman build -q --layers --no-cache -t built -f "$SITE/Containerfile" "$SITE/tmp" > /dev/null; }

before_dpkg() { podman rm -f dp > /dev/null 2>&1 || true; podman rmi -f dp-image > /dev/null 2>&1 || true; }
task_dpkg() {
    podman run --name dp debian sh -ec \
        "$install; dpkg -P less" > /dev/null 2>&1
    podman diff dp > "$SITE/tmp/diff"
    podman commit -q dp dp-image > /dev/null
}

before_diff() { podman rm -f un > /dev/null 2>&1 || true; podman create --name un debian true > /dev/null; }
task_diff() { podman diff un > /dev/null; }

before_commit() { podman rmi -f un-image > /dev/null 2>&1 || true; before_diff; }
task_commit() { podman commit -q un un-image > /dev/null; }

before_run() { :; }
task_run() { podman run --rm debian true; }

tasks=(build dpkg diff commit run)
declare -A titles=(
    [build]='build of 9 steps on Debian' [dpkg]='dpkg run, diff and commit'
    [diff]='`podman diff` without changes' [commit]='commit without changes'
    [run]='`podman run --rm debian true`'
)

measure() { # TASK: prints the seconds that it takes
    "before_$1"
    sync -f "$SITE"
    local began=$EPOCHREALTIME
    "task_$1"
    awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }'
}

containerfile() {
    cat << END
FROM debian
RUN $install > /dev/null 2>&1
RUN rm -rf /usr/share/doc /usr/share/man && mkdir /usr/share/doc
RUN find /usr/lib/python3.11 -name '*.py' | head -n 400 | xargs touch
RUN mv /usr/share/zoneinfo /usr/share/zones && ln -s zones /usr/share/zoneinfo
RUN git init -q /src && cp -a /usr/lib/python3.11 /src/python
RUN cd /src && git add . && git -c user.name=a -c user.email=b commit -q -m all
RUN rm -rf /src/python && git -C /src checkout -q .
RUN dpkg -P git git-man less > /dev/null
RUN chown -R games:games /src && rm -rf /debs
END
}

# Inside site.sh, in one environment: a task. Or all of it.
if [ "${1-}" = --task ]; then
    measure "$2"
    exit
elif [ "${1-}" != --inside ]; then
    rounds=5 dir=/var/tmp who=root tasks=$(IFS=,; echo "${tasks[*]}")
    while getopts n:d:w:t: option; do
        case $option in
            n) rounds=$OPTARG ;;
            d) dir=$OPTARG ;;
            w) who=$OPTARG ;;
            t) tasks=$OPTARG ;;
            *) exit 1 ;;
        esac
    done
    shift $((OPTIND - 1))
    [ $# -gt 0 ] || { echo "usage: timings.sh [-n ROUNDS] [-d DIR] [-w root|user] [-t TASK,…] NAME=PROGRAM…" >&2; exit 1; }
    subjects=()
    for subject in "$@"; do
        program=${subject#*=}
        # It is run from another directory.
        [ "$program" = overlay ] || program=$(realpath -s "$program")
        subjects+=("${subject%%=*}=$program")
    done
    site=$(mktemp -d "$dir/plyfs-timings.XXXXXX")
    trap 'rm -rf "$site"' EXIT
    chmod 755 "$site"
    bash "$here/images.sh" "${PLYFS_CLIENTS_IMAGES:-/var/tmp/plyfs-clients}"
    cp -r "$here" "$site/scripts"
    chmod -R a+rX "$site/scripts"
    bash "$here/site.sh" "$site" bash "$site/scripts/timings.sh" --inside "$rounds" "$who" "$tasks" "${subjects[@]}"
    exit
fi

rounds=$2 who=$3
IFS=, read -ra tasks <<< "$4"
shift 4
site=/run/site
images=${PLYFS_CLIENTS_IMAGES:-/var/tmp/plyfs-clients}
. "$here/environment.sh"

names=()
for subject in "$@"; do
    name=${subject%%=*} program=${subject#*=}
    names+=("$name")
    mkdir -p "$site/$name"
    if [ "$program" != overlay ]; then
        # A copy that everybody can reach.
        mkdir -p "$site/programs/$name"
        install -m 755 "$program" "$site/programs/$name/$(basename "$program")"
        program=$site/programs/$name/$(basename "$program")
    fi
    environment "$site/$name" "$program" "$who"
    containerfile > "$site/$name/Containerfile"
    printf '%q ' "${become[@]}" > "$site/$name/become"
    "${become[@]}" podman import -q "$images/debian.tar" debian > /dev/null
done

for round in $(seq "$rounds"); do
    for task in "${tasks[@]}"; do
        for name in "${names[@]}"; do
            eval "become=($(cat "$site/$name/become"))"
            seconds=$(timeout -k 5 300 "${become[@]}" bash "$here/timings.sh" --task "$task" < /dev/null) ||
                seconds=nan
            echo "$task $name $seconds" >> "$site/results"
            echo "round $round: $task on $name: $seconds s" >&2
        done
    done
done

median() { # TASK NAME
    awk -v t="$1" -v n="$2" '$1 == t && $2 == n { print $3 }' "$site/results" | sort -n |
        awk '{ v[NR] = $1 } END { printf "%.2f", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

echo "| median of $rounds rounds, s (ratio to ${names[0]}) |$(printf ' %s |' "${names[@]}")"
echo "|---|$(printf -- '---|%.0s' "${names[@]}")"
for task in "${tasks[@]}"; do
    own=$(median "$task" "${names[0]}")
    printf '| %s |' "${titles[$task]}"
    for name in "${names[@]}"; do
        its=$(median "$task" "$name")
        printf ' %s (%s) |' "$its" "$(awk -v a="$its" -v b="$own" 'BEGIN { printf "%.2f", a / b }')"
    done
    echo
done
