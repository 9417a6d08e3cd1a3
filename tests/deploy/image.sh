#!/usr/bin/env bash
# The image by itself: small, nobody's root, nothing in it but the program and what it is linked to.
set -euo pipefail
source "$(dirname "$0")/checks.sh"
begin_test

IMAGE="$(image_name)"
MOST_BYTES=$((40 * 1000 * 1000))

label() { podman image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$IMAGE"; }
# In a container with nothing but the image, as the most careful of its users would run it.
alone() { podman run --rm --network none --read-only --cap-drop all --security-opt no-new-privileges "$@"; }

is "the image runs as 65532" 65532:65532 "$(podman image inspect --format '{{.Config.User}}' "$IMAGE")"
is "its version is that of the tree" "$(image_version)" "$(label version)"
is "it names its licence" Apache-2.0 "$(label licenses)"
is "it runs on a read-only file system without any right" "sigilum $(image_version)" "$(alone "$IMAGE" --version)"
holds "its health check is the program's own" "/usr/bin/sigilum health --container" \
    "$(podman image inspect --format '{{.HealthCheck}}' "$IMAGE")"

archive="$DEPLOY_WORK/tmp/image-files.tar"
container="$(podman create "$IMAGE")"
podman export "$container" > "$archive"
podman rm "$container" >/dev/null
programs="$(tar --list --verbose -f "$archive" | awk '$1 ~ /^-..x/ { print $6 }' | grep --invert-match '^lib' || true)"
is "there is one program in it, and no shell" usr/bin/sigilum "$programs"
if tar --list --verbose -f "$archive" | awk '$1 ~ /^-..[sS]|^-.....[sS]/' | grep --quiet .; then fail "a file is setuid"; fi
passed "no file is setuid"
rm -f "$archive"

case "${SIGILUM_DEPLOY_BINARY:-release}" in
*debug*) say "its size is not judged: the program is a debug build" ;;
*)
    bytes="$(compressed_bytes "$IMAGE")"
    say "image: $bytes bytes compressed"
    [ "$bytes" -le "$MOST_BYTES" ] || fail "the image has $bytes bytes compressed, more than $MOST_BYTES"
    passed "at most $MOST_BYTES bytes compressed"
    ;;
esac
say "image: $CHECKS checks passed"
