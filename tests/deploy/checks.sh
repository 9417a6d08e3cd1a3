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
