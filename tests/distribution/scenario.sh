# Read by the shell of the chroot: what people do to a distribution.
set -eu
export SOURCE_DATE_EPOCH=1700000000
say() { echo "-- $*"; }

say "apt installs, upgrades and removes"
apt-get install -qq -y --no-install-recommends git python3
apt-get upgrade -qq -y
apt-get purge -qq -y less
apt-get install -qq -y --reinstall sqlite3
dpkg --verify sqlite3 git | grep -v /usr/share/doc | grep . && exit 1
dpkg --audit | grep . && exit 1

say "dpkg installs, upgrades and purges packages of our own"
mkdir /tmp/build
cd /tmp/build
package() { # VERSION; the tree is in ./tree
    mkdir -p tree/DEBIAN
    printf 'Package: toy\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: toy\n' "$1" \
        > tree/DEBIAN/control
    echo /etc/toy.conf > tree/DEBIAN/conffiles
    dpkg-deb --root-owner-group --build tree "toy_$1.deb" > /dev/null
}
mkdir -p tree/etc tree/usr/share/toy/many tree/usr/share/toy/becomes-link tree/usr/lib/toy
echo one > tree/etc/toy.conf
for i in $(seq 300); do echo "file $i" > "tree/usr/share/toy/many/$i"; done
echo data > tree/usr/share/toy/becomes-link/file
echo hard > tree/usr/lib/toy/a
ln tree/usr/lib/toy/a tree/usr/lib/toy/b
install -m 4755 /bin/true tree/usr/lib/toy/setuid
package 1
rm -r tree/usr/share/toy/becomes-link
ln -s many tree/usr/share/toy/link
echo two > tree/etc/toy.conf
for i in $(seq 2 2 300); do rm "tree/usr/share/toy/many/$i"; done
for i in $(seq 301 400); do echo "file $i" > "tree/usr/share/toy/many/$i"; done
package 2
dpkg -i toy_1.deb
dpkg -i toy_2.deb
test "$(ls /usr/share/toy/many | wc -l)" = 250
test "$(stat -c %h /usr/lib/toy/a)" = 2
test "$(stat -c %a /usr/lib/toy/setuid)" = 4755
test "$(cat /etc/toy.conf)" = two
dpkg -r toy
test ! -e /usr/share/toy
test "$(cat /etc/toy.conf)" = two
dpkg -i toy_1.deb
dpkg -P toy
test ! -e /etc/toy.conf
dpkg -i --force-confnew toy_2.deb
cd /
rm -r /tmp/build

say "git clones and commits"
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
git config --system user.name Nobody
git config --system user.email nobody@example.org
git config --system init.defaultBranch main
git config --system gc.auto 0
# With more threads, the packs differ from run to run.
git config --system pack.threads 1
mkdir -p /srv
cd /srv
git init -q origin
cd origin
cp -r /usr/share/perl5 /usr/share/zoneinfo .
git add .
git commit -q -m first
git clone -q /srv/origin /srv/clone
cd /srv/clone
git rm -q -r zoneinfo/Europe
git mv perl5 perl
echo more >> perl/Debconf/Config.pm
git commit -q -a -m second
git checkout -q HEAD~1
git checkout -q main
git repack -q -a -d
git gc -q
git fsck --no-progress
test -z "$(git status --porcelain)"
cd /srv/origin
git fetch -q /srv/clone main
git merge -q FETCH_HEAD
git status --porcelain | grep . && exit 1

say "sqlite runs transactions"
cd /srv
for journal in delete wal truncate persist; do
    sqlite3 $journal.db "pragma journal_mode=$journal; create table t(a integer primary key, b text);" > /dev/null
    for round in 1 2 3; do
        sqlite3 $journal.db "begin; with recursive n(x) as (select 1 union all select x+1 from n where x<2000)
            insert into t(b) select 'row ' || x from n; update t set b = b || '!' where a % 7 = 0; commit;
            begin; delete from t where a % 3 = 0; rollback; begin; delete from t where a % 5 = 0; commit;"
    done
    test "$(sqlite3 $journal.db 'pragma integrity_check')" = ok
    test "$(sqlite3 $journal.db 'select count(*) from t')" -gt 4000
    sqlite3 $journal.db .dump > $journal.sql
done

say "python and tar work"
python3 - <<'EOF'
import mmap, os, shutil
with open("/usr/share/perl5/Debconf/Config.pm", "r+b") as file:
    with mmap.mmap(file.fileno(), 0) as view:
        view[0:4] = b"#ply"
os.replace("/etc/debian_version", "/etc/debian_version.old")
shutil.copy2("/etc/debian_version.old", "/etc/debian_version")
EOF
head -c 4 /usr/share/perl5/Debconf/Config.pm | grep -q '#ply'
tar -C /usr/share -cf - zoneinfo | tar -C /srv -xpf -
diff -r --no-dereference /usr/share/zoneinfo /srv/zoneinfo

say "directories are deleted and made again"
rm -rf /usr/share/zoneinfo
mkdir -p /usr/share/zoneinfo/Europe
test -z "$(ls -A /usr/share/zoneinfo/Europe)"
rm -rf /opt /mnt /home
mkdir /mnt /home
useradd -m person
su person -c 'cd && mkdir d && echo hello > d/file && chmod 600 d/file'
deluser --quiet person 2> /dev/null || userdel person
rm -rf /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /tmp/*
