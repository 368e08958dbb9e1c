# shellcheck shell=bash
# What a person does with docker, and without root with its rootless daemon. Sourced by case.sh; column.sh starts each
# case in a process of its own, so that the daemon of `prepare` stays for the others.

export DOCKER_HOST=unix://$SITE/run/docker.sock
# The kernel's overlayfs is what the daemon calls overlay2.
driver=fuse-overlayfs
[ -n "$MOUNT_PROGRAM" ] || driver=overlay2

# The cgroups are the host's: these are named after the PID namespace, to be found and removed.
cgroup=plyfs-$(readlink /proc/self/ns/pid | tr -dc 0-9)

start_daemon() {
    local words=(
        --host "$DOCKER_HOST" --data-root "$SITE/data/docker" --exec-root "$SITE/run/docker"
        --pidfile "$SITE/run/docker.pid" --storage-driver "$driver" --bridge none --iptables=false
        --ip6tables=false --ip-forward=false
    )
    if [ "$WHO" = root ]; then
        setsid dockerd "${words[@]}" --cgroup-parent "/$cgroup" > "$SITE/logs/dockerd" 2>&1 &
    else
        command -v rootlesskit > /dev/null || skip "the program rootlesskit is not installed"
        # A network of its own, which a container may then share as the host's.
        setsid rootlesskit --net host --copy-up /etc --state-dir "$SITE/run/rootlesskit" \
            unshare --net dockerd --rootless "${words[@]}" > "$SITE/tmp/dockerd" 2>&1 &
    fi
}

prepare() {
    start_daemon
    local tries
    for tries in $(seq 300); do
        ! docker version > /dev/null 2>&1 || break
        kill -0 $! 2> /dev/null || { cat "$SITE"/*/dockerd; fail "dockerd ended: $(grep -hE "failed|fatal" "$SITE"/*/dockerd | tail -n 1)"; }
        sleep 0.1
    done
    same "docker's storage driver after $tries looks" "$driver" "$(docker info -f '{{.Driver}}')"
    docker import "$IMAGES/busybox.tar" busybox > /dev/null
    [ ! -e "$IMAGES/debian.tar" ] || docker import "$IMAGES/debian.tar" debian > /dev/null
}

finish() {
    local daemon
    docker ps -aq | xargs -r docker rm -f > /dev/null
    docker images -q | xargs -r docker rmi -f > /dev/null
    daemon=$(cat "$SITE/run/docker.pid")
    kill "$daemon"
    while kill -0 "$daemon" 2> /dev/null; do sleep 0.1; done
    find /sys/fs/cgroup -depth -type d -name "$cgroup" -exec rmdir {} +
    same "mounts of docker" "" "$(grep "$SITE/data/docker" /proc/self/mountinfo || true)"
}

in_busybox() { # OPTIONS… SHELL
    docker run --network host "${@:1:$#-1}" busybox /bin/sh -ec "${*: -1}"
}

case_run() {
    same "what it wrote" "hello 65735546" "$(in_busybox --rm 'echo hello $(stat -f -c %t /)' | sed s/794c7630/65735546/)"
    local status=0
    in_busybox --rm 'exit 42' || status=$?
    same "exit status" 42 "$status"
    same "ls" 41 "$(in_busybox --rm 'ls /many | wc -l')"
}

case_diff_and_commit() {
    in_busybox --name dc 'echo new > /many/1; rm /many/2; rm -rf /many/deep; mkdir /many/deep; mv /root/private /root/moved'
    same "docker diff" "A /root/moved
C /many
C /many/1
C /root
D /many/2
D /root/private" "$(docker diff dc | grep -vE '/(dev|etc|proc|sys|many/deep)(/|$)' | sort)"
    docker commit dc dc-image > /dev/null
    same "the committed image" "new 39 0 moved" \
        "$(docker run --rm --network host dc-image sh -c 'echo $(cat /many/1) $(ls /many | grep -vc deep) $(ls /many/deep | wc -l) $(ls /root)')"
    docker rm dc > /dev/null
    docker rmi dc-image > /dev/null
}

case_stop_start() {
    in_busybox -d --name ss '[ -e /marker ] && exec sleep 1000; rm -rf /many/deep; mkdir /many/deep; echo kept > /marker; exec sleep 1000' > /dev/null
    until docker exec ss test -e /marker; do :; done
    docker stop -t 0 ss > /dev/null
    docker start ss > /dev/null
    same "after stop and start" "kept 0" "$(docker exec ss sh -c 'echo $(cat /marker) $(ls /many/deep | wc -l)')"
    docker rm -f ss > /dev/null
}

case_build() {
    cat > Dockerfile <<'END'
FROM busybox
RUN rm -rf /many/deep && mkdir /many/deep && echo 1 > /many/deep/one
RUN mv /many /much && mkdir /many
RUN rm /much/1 && echo again > /much/1 && rm -rf /much/deep
RUN mkdir -p /much/deep/er/still && mv /much/deep/er /er && rm -rf /much/deep
RUN rm -rf /er && mkdir /er && chmod 751 /er && chown 1000:1000 /er
RUN mv /root/private /root/p && mv /root/p /root/private
COPY Dockerfile /copied
END
    DOCKER_BUILDKIT=0 docker build -q --network host -t built . > /dev/null
    same "the built image" "0 40 again 751 1000:1000 0 700 FROM busybox" "$(docker run --rm --network host built sh -c '
        echo $(ls /many | wc -l) $(ls /much | wc -l) $(cat /much/1) $(stat -c "%a %u:%g" /er) \
            $(ls /er | wc -l) $(stat -c %a /root/private) $(head -n 1 /copied)')"
    docker rmi built > /dev/null
}

case_save_load() {
    in_busybox --name sl 'rm -rf /many/deep; echo saved > /saved; ln /saved /saved-too; chmod 4711 /many/6'
    docker commit sl sl-image > /dev/null
    docker save -o image.tar sl-image
    docker rm sl > /dev/null
    docker rmi sl-image > /dev/null
    docker load -q -i image.tar > /dev/null
    same "the loaded image" "saved 2 4711 40" "$(docker run --rm --network host sl-image sh -c '
        echo $(cat /saved-too) $(stat -c %h /saved) $(stat -c %a /many/6) $(ls /many | wc -l)')"
    docker rmi sl-image > /dev/null
}

case_cp() {
    docker create --name cp busybox true > /dev/null
    echo a > in
    docker cp in cp:/many/in
    docker cp cp:/many/in out
    docker cp cp:/many/1 one
    same "copied in and out" "a file 1" "$(echo $(cat out one))"
    docker rm cp > /dev/null
}

case_dpkg() {
    docker image inspect debian > /dev/null 2>&1 || skip "there is no image of Debian (mmdebstrap and a network)"
    same "dpkg install and purge" "55 git purged 0" "$(docker run --rm --network host debian sh -ec '
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -qq -y /debs/*.deb > /dev/null 2>&1
        dpkg -P less > /dev/null
        echo $(python3 -c "print(sum(range(11)))") $(git --version | cut -d " " -f 1) \
            $([ -e /usr/bin/less ] || echo purged) $(dpkg --verify | grep -vc " c ")' || true)"
}

case_six_at_once() {
    local n pids=()
    for n in $(seq 6); do
        in_busybox --rm "rm -rf /many; mkdir /many; for i in \$(seq 200); do echo $n > /many/\$i; done
            echo \$(cat /many/* | sort -u) \$(ls /many | wc -l)" > "out-$n" &
        pids+=($!)
    done
    for n in $(seq 6); do wait "${pids[n - 1]}" || fail "container $n failed"; done
    for n in $(seq 6); do same "container $n" "$n 200" "$(cat "out-$n")"; done
}
