# shellcheck shell=bash
# What a person does with podman. Sourced by case.sh.

prepare() {
    podman info > info.txt
    grep -q 'graphDriverName: overlay' info.txt || fail "podman does not use overlay: $(grep graphDriverName info.txt)"
    podman import -q "$IMAGES/busybox.tar" busybox
    [ ! -e "$IMAGES/debian.tar" ] || podman import -q "$IMAGES/debian.tar" debian
}

finish() {
    podman system reset --force > /dev/null
    same "containers in the store" "" "$(podman ps -aq)"
    same "images in the store" "" "$(podman images -q)"
}

need_debian() {
    podman image exists debian || skip "there is no image of Debian (mmdebstrap and a network)"
}

# run NAME-OR-OPTIONS… -- SHELL-COMMANDS: in a new container of busybox.
in_busybox() { # OPTIONS… SHELL
    local shell=${*: -1}
    podman run "${@:1:$#-1}" busybox /bin/sh -ec "$shell"
}

# The changes of a container, sorted, without the directories that podman makes itself.
changes() {
    podman diff "$1" | grep -vE '^[AC] /(etc|dev|proc|sys|run)(/|$)' | sort
}

case_run() {
    same "what it wrote" "hello" "$(in_busybox --rm 'echo hello')"
    local status=0
    in_busybox --rm 'exit 42' || status=$?
    same "exit status" 42 "$status"
    same "the filesystem of /" "$(union_magic)" "$(in_busybox --rm 'stat -f -c %t /')"
    same "ls" "$(printf '%s\n' $(seq 40) deep | sort)" "$(in_busybox --rm 'ls /many' | sort)"
}

# podman waits for the end of the program's stderr before it starts the container, and for
# nothing afterwards.
case_returns_at_once() {
    local began=$EPOCHREALTIME
    in_busybox --rm 'exit 0' 2>&1 | cat
    awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a < 3) }' ||
        fail "an empty run took $(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }') s"
}

case_write_delete_recreate() {
    in_busybox --name wdr '
        echo new > /many/1; rm /many/2; mv /many/3 /many/three
        rm -rf /many/deep; mkdir -p /many/deep/er; echo fresh > /many/deep/er/new
        mkdir /many/dir; ln -s ../1 /many/dir/link; chmod 700 /many/4; chown 1000:1000 /many/5
        mv /root/private /root/moved
        rm -rf /var/mine; mkdir /var/mine'
    podman commit -q wdr wdr-image > /dev/null
    same "after the commit" "new
2 gone
file 3
3 gone
er
new
fresh
../1
700
1000:1000
moved
empty" "$(podman run --rm wdr-image sh -ec '
        cat /many/1; [ -e /many/2 ] || echo 2 gone; cat /many/three; [ -e /many/3 ] || echo 3 gone
        ls /many/deep; ls /many/deep/er; cat /many/deep/er/new; readlink /many/dir/link
        stat -c %a /many/4; stat -c %u:%g /many/5; ls /root
        [ -n "$(ls /var/mine)" ] || echo empty')"
    podman rm -f wdr > /dev/null
    podman rmi -f wdr-image > /dev/null
}

# What the container sees, is seen again after it was stopped and mounted anew.
case_stop_start() {
    in_busybox -d --name ss '
        [ -e /marker ] && exec sleep 1000
        rm -rf /many/deep; mkdir /many/deep; rm /many/7; echo kept > /marker; exec sleep 1000' > /dev/null
    until podman exec ss test -e /marker; do :; done
    podman stop -t 0 ss > /dev/null
    podman start ss > /dev/null
    same "after stop and start" "kept 0 38" \
        "$(podman exec ss sh -c 'echo $(cat /marker) $(ls /many/deep | wc -l) $(ls /many | grep -vc deep)' | sed s/39/38/)"
    podman restart -t 0 ss > /dev/null
    podman exec ss test ! -e /many/7
    podman rm -f -t 0 ss > /dev/null
}

case_diff() {
    podman create --name di busybox sh -c 'echo x > /many/1; rm /many/2; mkdir /new; echo y > /new/file; rm -rf /many/deep' > /dev/null
    same "diff of an unused container" "" "$(changes di)"
    podman start -a di
    same "diff" "A /new
A /new/file
C /many
C /many/1
D /many/2
D /many/deep" "$(changes di)"
    podman rm -f di > /dev/null
}

case_commit_keeps_whiteouts() {
    in_busybox --name cw 'rm -rf /many'
    podman commit -q cw cw-image > /dev/null
    same "a deleted directory after the commit" "gone" \
        "$(podman run --rm cw-image sh -c '[ -e /many ] || echo gone')"
    podman save -q --format oci-dir -o saved cw-image
    local found=no layer
    for layer in saved/blobs/sha256/* saved/*; do
        if [ -f "$layer" ] && { tar -tzf "$layer" 2> /dev/null || tar -tf "$layer" 2> /dev/null || true; } | grep -qx '\(\./\)\?\.wh\.many'; then
            found=yes
        fi
    done
    same "a whiteout in the layer" yes "$found"
    podman rm -f cw > /dev/null
    podman rmi -f cw-image > /dev/null
}

case_commit_without_changes() {
    podman create --name cn busybox true > /dev/null
    podman commit -q cn cn-image > /dev/null
    same "a file of the image" "file 9" "$(podman run --rm cn-image cat /many/9)"
    podman rm -f cn > /dev/null
    podman rmi -f cn-image > /dev/null
}

# Each step deletes, renames and makes again what a lower layer has.
case_build() {
    cat > Containerfile <<'END'
FROM busybox
RUN rm -rf /many/deep && mkdir /many/deep && echo 1 > /many/deep/one
RUN mv /many /much && mkdir /many
RUN rm /much/1 && echo again > /much/1 && rm -rf /much/deep
RUN mkdir -p /much/deep/er/still && echo 2 > /much/deep/er/still/two
RUN mv /much/deep/er /er && rm -rf /much/deep && ln -s ../er /much/deep
RUN rm -rf /er && mkdir /er && chmod 751 /er && chown 1000:1000 /er
RUN rm /etc/linked && mv /etc/linked-too /etc/linked
RUN mv /root/private /root/p && mv /root/p /root/private
COPY Containerfile /copied
WORKDIR /not/there/yet
END
    local isolation
    for isolation in chroot oci; do
        podman build -q --isolation "$isolation" --layers=true --no-cache -t built . > /dev/null
        same "the image built with isolation $isolation" "0
39 40
again
link
751 1000:1000 0
one
1
700
FROM busybox" "$(podman run --rm built sh -c '
        ls -A /many | wc -l; echo $(ls /much | grep -vc deep) $(ls /much | wc -l); cat /much/1
        [ -L /much/deep ] && echo link; echo $(stat -c "%a %u:%g" /er) $(ls /er | wc -l)
        cat /etc/linked; ls /etc/linked* | wc -l; stat -c %a /root/private; head -n 1 /copied' | sed s/^40\ 41/39\ 40/)"
        podman rmi -f built > /dev/null
    done
}

case_thirty_layers() {
    {
        echo FROM busybox
        for n in $(seq 30); do echo "RUN rm /many/$n && echo layer $n > /layer-$n && echo $n >> /log"; done
    } > Containerfile
    podman build -q --layers -t thirty . > /dev/null
    same "what thirty layers left" "11 30 465 1" \
        "$(podman run --rm thirty sh -c 'echo $(ls /many | wc -l) $(ls / | grep -c layer-) $(awk "{ s += \$1 } END { print s }" /log) $(ls /log | wc -l)')"
    podman run --name thirty-run thirty sh -c 'rm -rf /many /layer-1; mkdir /many'
    same "diff over thirty layers" "D /layer-1" "$(changes thirty-run | grep -v many)"
    podman rm -f thirty-run > /dev/null
    podman rmi -f thirty > /dev/null
}

case_save_load() {
    in_busybox --name sl 'rm -rf /many/deep; echo saved > /saved; ln /saved /saved-too; setuid=1; chmod 4711 /many/6'
    podman commit -q sl sl-image > /dev/null
    podman save -q -o image.tar sl-image
    podman rm -f sl > /dev/null
    podman rmi -f sl-image > /dev/null
    podman load -q -i image.tar > /dev/null
    same "the loaded image" "saved 2 4711 40" \
        "$(podman run --rm sl-image sh -c 'echo $(cat /saved-too) $(stat -c %h /saved) $(stat -c %a /many/6) $(ls /many | wc -l)')"
    podman rmi -f sl-image > /dev/null
}

case_export_import() {
    in_busybox --name ei 'rm /many/1 /etc/linked; echo exported > /exported'
    podman export -o root.tar ei
    podman import -q root.tar ei-image > /dev/null
    same "the imported root" "exported one 39 600 prw-r--r-- 1000" \
        "$(podman run --rm ei-image sh -c 'echo $(cat /exported /etc/linked-too) $(ls /many | grep -vc deep) $(stat -c %a /etc/secret) $(ls -l /var/fifo | cut -c 1-10) $(stat -c %u /var/mine)')"
    podman rm -f ei > /dev/null
    podman rmi -f ei-image > /dev/null
}

case_cp() {
    podman create --name cp busybox sleep 1000 > /dev/null
    mkdir tree
    echo a > tree/a
    ln -s a tree/link
    podman cp tree cp:/many/tree
    podman cp cp:/many/1 out
    same "copied out" "file 1" "$(cat out)"
    podman start cp > /dev/null
    podman cp tree/a cp:/many/1
    same "copied in" "a a a" "$(podman exec cp sh -c 'echo $(cat /many/tree/a /many/tree/link /many/1)')"
    podman cp cp:/many - | tar -tf - > list
    same "files copied out of a running container" 1 "$(grep -cx 'many/tree/link' list)"
    podman rm -f -t 0 cp > /dev/null
}

case_volume_overlaid() {
    mkdir -p vol/sub
    echo mine > vol/sub/file
    same "a volume with :O" "changed
sub gone" "$(in_busybox --rm -v "$work/vol:/vol:O" 'echo changed > /vol/new; cat /vol/new; rm -r /vol/sub; [ -e /vol/sub ] || echo sub gone')"
    same "the volume afterwards" "mine sub" "$(echo "$(cat vol/sub/file)" "$(ls vol)")"
}

case_rootfs_overlaid() {
    mkdir root
    tar -C root -xf "$IMAGES/busybox.tar" --no-same-owner --exclude='./dev/*'
    same "a root filesystem with :O" "new 40" "$(podman run --rm --rootfs "$work/root:O" /bin/sh -ec '
        rm -rf /many/deep; echo new > /new; echo $(cat /new) $(ls /many | wc -l)')"
    [ ! -e root/new ] && [ -e root/many/deep/er/file ] || fail "the root filesystem was changed"
}

case_read_only() {
    in_busybox --rm --read-only '! touch /file; ! rm /many/1; ! mkdir /many/d; cat /many/1; touch /tmp/ok' > seen 2>&1 ||
        fail "in a read-only container: $(tail -n 1 seen)"
    grep -qx 'file 1' seen || fail "the file was not read: $(tail -n 1 seen)"
}

case_user() {
    same "as another user" "1000 denied denied mine" "$(in_busybox --rm --user 1000:1000 '
        echo $(id -u) $(cat /etc/secret 2> /dev/null || echo denied) \
            $(touch /many/x 2> /dev/null || echo denied) $(touch /var/mine/x && echo mine)')"
    same "owners" "0:0 0:0 1000:1000" "$(in_busybox --rm 'echo $(stat -c %u:%g / /etc/secret /var/mine)')"
}

case_setuid() {
    need_debian
    same "a setuid program for another user" "0" "$(podman run --rm debian sh -c '
        cp /usr/bin/id /usr/bin/sid; chmod 4755 /usr/bin/sid; setpriv --reuid 1000 --regid 1000 --clear-groups sid -u')"
}

case_keep_id() {
    [ "$WHO" = user ] || skip "for ordinary users"
    same "ids with keep-id" "$(id -u) 0:0 1000:1000 $(id -u) 600" "$(in_busybox --rm --userns keep-id '
        echo $(id -u) $(stat -c %u:%g / /var/mine) $(touch /tmp/f; stat -c %u /tmp/f) $(stat -c %a /etc/secret)')"
}

case_userns_auto() {
    local options=(--rm --userns auto:size=5000)
    same "ids with userns=auto" "0 0:0 0:0 1000:1000 1000 5000" "$(in_busybox "${options[@]}" '
        touch /var/mine/new; chown 1000 /var/mine/new
        echo $(id -u) $(stat -c %u:%g / /etc/secret /var/mine) $(stat -c %u /var/mine/new) $(awk "{ print \$3 }" /proc/self/uid_map)')"
}

case_uidmap() {
    [ "$WHO" = root ] || skip "for root"
    in_busybox --name um --uidmap 0:7200000:5000 --gidmap 0:7200000:5000 '
        echo $(stat -c %u:%g / /etc/secret /var/mine /many/1)
        echo x > /many/1; chown 1000:1000 /many/2; mkdir -p /made; echo $(stat -c %u:%g /many/1 /many/2 /made)' > seen
    same "owners with --uidmap" "0:0 0:0 1000:1000 0:0
0:0 1000:1000 0:0" "$(cat seen)"
    podman start -a um > seen
    same "owners after a start" "0:0 0:0 1000:1000 0:0" "$(head -n 1 seen)"
    podman rm -f um > /dev/null
}

case_six_at_once() {
    local n pids=()
    for n in $(seq 6); do
        podman run --name "six-$n" busybox sh -ec "
            rm -rf /many/deep; mkdir /many/deep; for i in \$(seq 200); do echo $n > /many/deep/\$i; done
            cat /many/deep/* | sort -u; ls /many/deep | wc -l" > "out-$n" &
        pids+=($!)
    done
    for n in $(seq 6); do wait "${pids[n - 1]}" || fail "container $n failed"; done
    for n in $(seq 6); do same "container $n" "$n|200" "$(tr '\n' '|' < "out-$n" | sed 's/|$//')"; done
    for n in $(seq 6); do podman rm -f "six-$n" > /dev/null; done
}

case_image_mount() {
    cat > mounted.sh <<'END'
set -e
at=$(podman image mount busybox)
cat "$at/many/8"
! touch "$at/x" 2> /dev/null
podman image umount busybox > /dev/null
podman create --name im busybox true > /dev/null
at=$(podman mount im)
echo written > "$at/many/8"; rm -r "$at/many/deep"
podman umount im > /dev/null
END
    local enter=(bash)
    [ "$WHO" = root ] || enter=(podman unshare bash)
    same "an image that is mounted" "file 8" "$("${enter[@]}" mounted.sh)"
    same "what was written into the mounted container" "C /many
C /many/8
D /many/deep" "$(changes im)"
    podman rm -f im > /dev/null
}

case_hard_links() {
    in_busybox --name hl 'echo two >> /etc/linked; ln /etc/linked /etc/third'
    podman commit -q hl hl-image > /dev/null
    same "hard links" "two two 3 yes" "$(podman run --rm hl-image sh -c '
        echo $(tail -n 1 /etc/linked-too) $(tail -n 1 /etc/third) $(stat -c %h /etc/linked) \
            $([ /etc/linked -ef /etc/linked-too ] && echo yes)')"
    podman rm -f hl > /dev/null
    podman rmi -f hl-image > /dev/null
}

case_chown_recursive() {
    in_busybox --name cr 'chown -R 1000:1000 /many; chmod -R go-rwx /many'
    same "after chown -R" "A 0" "A $(changes cr | grep -c '^[AD]' || true)"
    podman commit -q cr cr-image > /dev/null
    same "after the commit" "1000:1000 600 700 file 12" \
        "$(podman run --rm cr-image sh -c 'echo $(stat -c "%u:%g %a" /many/12) $(stat -c %a /many/deep/er) $(cat /many/12)')"
    podman rm -f cr > /dev/null
    podman rmi -f cr-image > /dev/null
}

case_dpkg() {
    need_debian
    podman run --name dp debian sh -ec '
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -qq -y /debs/*.deb > /dev/null 2>&1
        python3 -c "import json, sqlite3; print(json.dumps(sum(range(11))))"; git --version | cut -d " " -f 1
        dpkg -P less > /dev/null
        [ ! -e /usr/bin/less ] && echo purged; dpkg --verify | grep -v " c " | wc -l' > seen
    same "dpkg install and purge" "55
git
purged
0" "$(cat seen)"
    podman commit -q dp dp-image > /dev/null
    same "the committed image" "55
git
purged
0" "$(podman run --rm dp-image sh -ec '
        python3 -c "import json, sqlite3; print(json.dumps(sum(range(11))))"; git --version | cut -d " " -f 1
        [ ! -e /usr/bin/less ] && echo purged; dpkg --verify | grep -v " c " | wc -l')"
    same "everything purged" "0 0" "$(podman run --rm dp-image sh -ec '
        dpkg -P git git-man > /dev/null
        echo $(ls -d /usr/lib/git-core /usr/share/man/man1/git* 2> /dev/null | wc -l) $(dpkg --verify | grep -vc " c ")' || true)"
    podman rm -f dp > /dev/null
    podman rmi -f dp-image > /dev/null
}

# A store that others may read, whose owners and modes are in xattrs. podman 4.3 notes the mask as
# the mode of each image's root, so that `private` lets no other user of a container in, on
# whatever program; and it can note nothing on a fifo, where there are no such xattrs.
case_force_mask() {
    [ -n "$MOUNT_PROGRAM" ] || skip "the kernel has no such option"
    sed 's/^\[storage.options.overlay\]/&\nforce_mask = "shared"/; s#/data/store#/data/masked#; s#/run"#/run/masked"#' \
        "$SITE/storage.conf" > storage.conf
    export CONTAINERS_STORAGE_CONF=$work/storage.conf
    tar --delete ./var/fifo < "$IMAGES/busybox.tar" > busybox.tar
    podman import -q busybox.tar busybox > /dev/null
    in_busybox --name fm --user 1000:1000 '
        echo $(id -u) $(cat /etc/secret 2> /dev/null || echo denied) $(touch /var/mine/x && echo mine)' > seen
    in_busybox --rm 'chmod 4711 /many/1; chown 1000:1000 /many/2; ln -s x /many/link
        echo $(stat -c %a:%u /etc/secret /many/1 /many/2 /var/mine)' >> seen
    same "under a mask" "1000 denied mine
600:0 4711:0 644:1000 750:1000" "$(cat seen)"
    podman commit -q fm fm-image > /dev/null
    same "the committed image" "1000:1000 600" "$(podman run --rm fm-image stat -c '%u:%g' /var/mine/x) $(
        podman run --rm fm-image stat -c %a /etc/secret)"
    podman system reset --force > /dev/null
}

# SIGKILL of the daemon: errors, not a hang; and podman comes out of it.
case_killed_daemon() {
    [ -n "$MOUNT_PROGRAM" ] || skip "the kernel has no daemon"
    in_busybox -d --name kd 'exec sleep 1000' > /dev/null
    podman exec kd true
    local id daemon
    id=$(podman inspect -f '{{.GraphDriver.Data.MergedDir}}' kd)
    daemon=$(pgrep -f -- "$id\$") || fail "no process has $id as its last word"
    # shellcheck disable=SC2086
    kill -9 $daemon
    local status=0
    timeout 20 podman exec kd cat /many/1 > seen 2>&1 || status=$?
    [ "$status" != 0 ] || fail "a file was read without a daemon"
    [ "$status" != 124 ] || fail "the container hangs without a daemon"
    timeout 60 podman rm -f -t 0 kd > /dev/null || fail "podman rm -f does not work without a daemon"
    same "a new run" "file 1" "$(in_busybox --rm 'cat /many/1')"
}
