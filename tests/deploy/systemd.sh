#!/usr/bin/env bash
# `gateway install` under a real systemd: Debian's, as the first process of namespaces of its own over a Debian of its own. The
# units of a user and of the machine are installed, replaced, killed, stopped and looked at as an ordinary user and as root.
#
#   SIGILUM_DEPLOY_BINARY=FILE bash tests/deploy/systemd.sh
#
# Needs root, debootstrap, and a kernel that lets us mount systemd's hierarchy of control groups; says so where it does not.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/deploy/checks.sh
DEBIAN_PACKAGES=ca-certificates,systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps,curl
DEBIAN_NAME=debian-systemd
ROOT="$DEPLOY_WORK/systemd"
OP=1000

mkdir -p "$DEPLOY_WORK"
if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && ! unshare --mount bash -ec '
        mount -t tmpfs tmpfs "$1" && mkdir "$1/groups" && mount -t cgroup -o none,name=systemd cgroup "$1/groups"' \
    groups "$DEPLOY_WORK" 2>/dev/null; then
    say "tests/deploy/systemd is left out: control groups cannot be mounted here"
    exit 0
fi
debian_base
rm -rf "$ROOT"
mkdir -p "$ROOT"
tar -C "$ROOT" -xf "$DEPLOY_WORK/$DEBIAN_NAME.tar"
version="$(envoy_images | sed -n '1s/.*v//p')"
cp "$(envoy_program "$version")" "$ROOT/usr/local/bin/envoy"
cp "${SIGILUM_DEPLOY_BINARY:-target/release/sigilum}" "$ROOT/usr/local/bin/sigilum"
chmod 0755 "$ROOT/usr/local/bin/"*

# shellcheck disable=SC2016  # expanded by the inner shells
unshare --mount --uts --ipc --net --pid --fork --kill-child bash -euc '
    root="$1"
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    for folder in run tmp dev; do mount -t tmpfs -o mode=0755 tmpfs "$root/$folder"; done
    chmod 1777 "$root/tmp"
    mount -t sysfs -o ro sysfs "$root/sys"
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    else
        mount -t tmpfs -o mode=0755 tmpfs "$root/sys/fs/cgroup"
        mkdir "$root/sys/fs/cgroup/systemd"
        mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    fi
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ip link set lo up
    mkdir -p "$root/oldroot"
    cd "$root"
    pivot_root . oldroot
    exec env -i container=sigilum-test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /bin/sh -c "umount -l /oldroot; exec /lib/systemd/systemd --log-target=console --show-status=0"
' systemd "$ROOT" > "$DEPLOY_WORK/systemd.log" 2>&1 &
outer=$!
trap 'kill -9 "$outer" 2>/dev/null || true' EXIT

# The process of systemd, seen from here: the one child of unshare.
first() { pgrep --parent "$outer" | head -n 1; }
# in COMMAND…: beside systemd, as root
in_there() {
    timeout 90 nsenter --target "$(first)" --mount --uts --ipc --net --pid --root --wd=/ \
        env -i HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
# op COMMAND…: as an ordinary user with a systemd of its own
op() {
    in_there runuser -u op -- env -C /home/op HOME=/home/op XDG_RUNTIME_DIR=/run/user/$OP \
        DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$OP/bus "$@"
}
is_up() { [ -n "$(first)" ] && [[ "$(in_there systemctl is-system-running)" =~ running|degraded ]]; }
until_true 60 "systemd, see $DEPLOY_WORK/systemd.log," is_up
in_there useradd --create-home --uid "$OP" op
in_there loginctl enable-linger op
until_true 30 "the systemd of a user" op systemctl --user is-system-running

say "the unit of a user"
op sigilum --namespace demo gateway install --envoy-bin /usr/local/bin/envoy >/dev/null
is "it runs" active "$(op systemctl --user is-active sigilum-gateway)"
# Nothing of ours leaves a core dump, so an ordinary user may not look into it.
holds "doctor takes our own listeners for ours" "ports 38000, 38100, 38200 are ours alone" "$(op sigilum doctor --only gateway/port-collision)"
holds "status names the manager" systemd-user "$(op sigilum gateway status)"
holds "a hand-off" healthy "$(op sigilum gateway restart --handoff 2>&1)"
holds "a restart" healthy "$(op sigilum gateway restart 2>&1)"
main() { op systemctl --user show --property MainPID --value sigilum-gateway; }
ready() { op sigilum health; }
is_another() { [ "$(main)" != 0 ] && [ "$(main)" != "$1" ] && ready; }
before="$(main)"
in_there kill -9 "$before"
until_true 60 "the gateway after kill -9 of its supervisor" is_another "$before"
is "one Envoy is left after that" 1 "$(in_there pgrep --count --uid "$OP" envoy)"
before="$(main)"
# The watchdog has 30 s, the restart 5.
in_there kill -STOP "$before"
until_true 90 "the gateway after its supervisor stood still" is_another "$before"
is "one Envoy is left after that" 1 "$(in_there pgrep --count --uid "$OP" envoy)"
op sh -c 'umask 077; echo "version: [" > .sigilum-workspace/gateway.yaml'
op systemctl --user restart sigilum-gateway 2>/dev/null && fail "it starts with a broken file"
is "with a broken file it stays down" "78 failed" "$(op systemctl --user show --property ActiveState --property ExecMainStatus --value sigilum-gateway | xargs)"
op rm .sigilum-workspace/gateway.yaml
op systemctl --user start sigilum-gateway
op sigilum gateway stop --yes --disable >/dev/null 2>&1
is "stopped by its command" inactive "$(op systemctl --user is-active sigilum-gateway || true)"
op sigilum gateway uninstall >/dev/null 2>&1

say "the unit of the machine"
in_there sigilum --namespace demo gateway install --system --envoy-bin /usr/local/bin/envoy >/dev/null
is "it runs" active "$(in_there systemctl is-active sigilum-gateway)"
holds "root's status means it" /var/lib/sigilum-gateway/home/gateway.yaml "$(in_there sigilum gateway status)"
is "an unsigned request is refused" 403 "$(in_there curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:38000/proxy/x/)"
holds "a hand-off" healthy "$(in_there sigilum gateway restart --handoff 2>&1)"
holds "a restart" healthy "$(in_there sigilum gateway restart 2>&1)"
in_there sigilum gateway auth-token --rotate >/dev/null
in_there systemctl restart sigilum-gateway
is "it starts with the token root has minted" active "$(in_there systemctl is-active sigilum-gateway)"
holds "doctor has no failure" "0 failures" "$(in_there sigilum doctor || true)"
is "nothing in its folders belongs to root" "" "$(in_there find /var/lib/private/sigilum-gateway -user root)"
exposure="$(in_there systemd-analyze security sigilum-gateway --no-pager | tail -n 1)"
say "$exposure"
in_there sigilum gateway uninstall --system >/dev/null 2>&1
is "uninstalled" inactive "$(in_there systemctl is-active sigilum-gateway || true)"
say "tests/deploy/systemd: $CHECKS checks passed"
