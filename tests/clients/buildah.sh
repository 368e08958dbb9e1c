# shellcheck shell=bash
# What a person does with buildah. Sourced by case.sh.

prepare() {
    buildah info > info.txt
    podman import -q "$IMAGES/busybox.tar" busybox
}

finish() {
    buildah rm --all > /dev/null
    buildah rmi --all --force > /dev/null
    same "images in the store" "" "$(buildah images -q)"
}

# Runs a script that mounts working containers: as an ordinary user only the namespace of
# `buildah unshare` sees such mounts.
inside() {
    if [ "$WHO" = root ]; then bash -euo pipefail "$@"; else buildah unshare bash -euo pipefail "$@"; fi
}

case_from_scratch() {
    cat > scratch.sh <<'END'
container=$(buildah from scratch)
at=$(buildah mount "$container")
tar -C "$at" -xf "$IMAGES/busybox.tar" --exclude='./dev/*'
rm "$at/many/1"
stat -f -c %t "$at"
buildah umount "$container" > /dev/null
buildah config --cmd 'cat /many/2' "$container"
buildah commit -q "$container" scratch-image > /dev/null
buildah rm "$container" > /dev/null
END
    same "the filesystem of a working container" "$(union_magic)" "$(inside scratch.sh)"
    local container
    container=$(buildah from scratch-image)
    same "an image from scratch" "39 600 1000:1000 file 2" "$(buildah run "$container" -- sh -c '
        echo $(ls /many | grep -vc deep) $(stat -c %a /etc/secret) $(stat -c %u:%g /var/mine) $(cat /many/2)')"
    buildah rm "$container" > /dev/null
    buildah rmi scratch-image > /dev/null
}

case_mount_and_change() {
    cat > change.sh <<'END'
container=$(buildah from busybox)
at=$(buildah mount "$container")
rm -rf "$at/many/deep" "$at/many/3"
mkdir "$at/many/deep"
mv "$at/root" "$at/home"
echo new >> "$at/many/4"
buildah umount "$container" > /dev/null
at=$(buildah mount "$container")
echo $(ls "$at/many/deep" | wc -l) $(ls "$at/many" | wc -l) $(ls "$at/home") $(tail -n 1 "$at/many/4")
buildah umount "$container" > /dev/null
buildah commit -q "$container" changed-image > /dev/null
buildah rm "$container" > /dev/null
container=$(buildah from changed-image)
at=$(buildah mount "$container")
echo $(ls "$at/many/deep" | wc -l) $(ls "$at/many" | wc -l) $(ls "$at/home") $(tail -n 1 "$at/many/4") $(ls -d "$at/root" 2> /dev/null)
buildah rm "$container" > /dev/null
buildah rmi changed-image > /dev/null
END
    same "mounted again, and in the image" "0 40 private new
0 40 private new" "$(inside change.sh)"
}

case_run_and_commit() {
    local container again
    container=$(buildah from busybox)
    buildah run "$container" -- sh -ec 'rm -r /many/deep; mv /many /much; mkdir /many; chown -R 1000 /much'
    buildah copy -q "$container" "$0" /copied > /dev/null
    buildah run --user 1000 "$container" -- sh -ec 'rm /much/1; echo mine > /much/2'
    buildah commit -q "$container" run-image > /dev/null
    again=$(buildah from run-image)
    same "the image" "0 39 mine 1000 copied" "$(buildah run "$again" -- sh -c '
        echo $(ls /many | wc -l) $(ls /much | wc -l) $(cat /much/2) $(stat -c %u /much/5) $(ls / | grep copied)')"
    buildah rm "$container" "$again" > /dev/null
    buildah rmi run-image > /dev/null
}

case_build() {
    cat > Containerfile <<'END'
FROM busybox
RUN rm -rf /many/deep && mkdir -p /many/deep/er && echo one > /many/deep/er/one
RUN mv /many /much && mkdir /many && echo two > /many/two
RUN rm -rf /much/deep /many/two && mv /much /many/much
FROM busybox
COPY --from=0 /many/much /got
RUN rm /got/1 && mv /got/10 /got/1
END
    buildah build -q --layers --no-cache -t multi . > /dev/null
    local container
    container=$(buildah from multi)
    same "a build in two stages" "39 file 10 40" \
        "$(buildah run "$container" -- sh -c 'echo $(ls /got | wc -l) $(cat /got/1) $(ls /many | grep -vc deep)')"
    buildah rm "$container" > /dev/null
    buildah rmi multi > /dev/null
}
