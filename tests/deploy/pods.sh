#!/usr/bin/env bash
# The Kubernetes manifests as shipped: every overlay is built by kustomize, and the sidecar runs as a pod of podman's, with its
# own probe and preStop commands. Runs in a network namespace of its own (tests/deploy/run).
set -euo pipefail
source "$(dirname "$0")/checks.sh"
begin_test

WORK="$DEPLOY_WORK/pods"
LOG="$DEPLOY_WORK/pods.log"
POD=application
UPSTREAM_PORT=18080
PROVIDER_KEY="canary-provider-$(openssl rand -hex 12)"
rm -rf --one-file-system "$WORK"
mkdir -p "$WORK"
: > "$LOG"

# ---------------------------------------------------------------- what kustomize makes of them
kustomize_is_here
for overlay in sidecar shared shared-tls guest monitoring; do
    "$KUSTOMIZE" build "$DEPLOY_ROOT/deploy/k8s/$overlay" > "$WORK/$overlay.yaml" 2>> "$LOG" || fail "kustomize build $overlay, see $LOG"
    passed "kustomize builds $overlay: $(grep --count '^kind:' "$WORK/$overlay.yaml") objects"
done


# Every image by its digest, without a change of what is shipped: as the README has it.
mkdir "$WORK/pinned"
digest="sha256:$(printf '%064d' 0)"
for overlay in sidecar shared-tls guest; do
    cat > "$WORK/pinned/kustomization.yaml" <<YAML
resources: [$(realpath --relative-to="$WORK/pinned" "$DEPLOY_ROOT/deploy/k8s/$overlay")]
images:
- { name: sigilum, newName: registry.example.com/sigilum, digest: "$digest" }
- { name: docker.io/envoyproxy/envoy, digest: "$digest" }
- { name: docker.io/valkey/valkey, digest: "$digest" }
YAML
    "$KUSTOMIZE" build "$WORK/pinned" > "$WORK/pinned.yaml" 2>> "$LOG" || fail "kustomize build of images by digest, see $LOG"
    is "in $overlay every image of the gateway can be named by its digest" "" \
        "$(sed -n 's/^ *\(- \)\{0,1\}image: //p' "$WORK/pinned.yaml" | grep --invert-match -e "@$digest$" -e ^registry.k8s.io/pause: || true)"
    holds "from the registry of one's own" "registry.example.com/sigilum@$digest" "$(cat "$WORK/pinned.yaml")"
done

# ---------------------------------------------------------------- what a user brings: Secrets, and settings of their own
SIGILUM="$WORK/sigilum"
program_of_image "$SIGILUM"
agent() {
    local home="$WORK/agents/$1"
    shift
    HOME="$home" "$SIGILUM" --home "$home" --namespace demo "$@" 2>/dev/null
}
agent approved identity init >/dev/null
agent unapproved identity init >/dev/null
APPROVED_KEY="$(agent approved identity show | sed -n 's/^publicKey: //p')"
mkdir -p "$WORK/secrets/sigilum-master-key" "$WORK/secrets/sigilum-providers"
openssl rand -hex 32 > "$WORK/secrets/sigilum-master-key/gateway-master-key"
printf %s "$PROVIDER_KEY" > "$WORK/secrets/sigilum-providers/example"
cp -r "$DEPLOY_ROOT/deploy/k8s" "$WORK/k8s"
python3 - "$WORK/k8s/sidecar/gateway.yaml" "$UPSTREAM_PORT" "$APPROVED_KEY" <<'PY'
import sys
file, port, key = sys.argv[1:]
text = open(file).read()
for old, new in [
    ("base_url: https://api.example.com\n", f"base_url: http://127.0.0.1:{port}\n"),
    ("approvals: []\n", f'approvals:\n- {{ namespace: demo, public_key: "{key}", service: example }}\n'),
]:
    assert text.count(old) == 1, old
    text = text.replace(old, new)
open(file, "w").write(text)
PY
changed="$(diff --recursive --brief "$DEPLOY_ROOT/deploy/k8s" "$WORK/k8s" | grep --count . || true)"
is "nothing but gateway.yaml is another than the shipped one" 1 "$changed"
"$KUSTOMIZE" build "$WORK/k8s/sidecar" > "$WORK/manifest.yaml"

stand_in_pause

# ---------------------------------------------------------------- a kubelet, as far as it is needed
of_manifest() { python3 "$DEPLOY_ROOT/tests/deploy/pods.py" --command "$WORK/manifest.yaml" "$POD" "$@"; }
# exec_of CONTAINER PATH…: runs the command of a probe or hook in its container.
exec_of() {
    local container="$1" words
    mapfile -t words < <(of_manifest "$@")
    podman exec "$POD-$container" "${words[@]}"
}
# get_of CONTAINER PROBE: asks as its httpGet says, at the address of the pod.
get_of() {
    local request
    request="$(of_manifest "$@")"
    curl --silent --output /dev/null --write-out '%{http_code}' --max-time 2 \
        "http://$POD_ADDRESS:$(python3 -c 'import json,sys; print(json.loads(sys.argv[1])["port"])' "$request")$(python3 -c 'import json,sys; print(json.loads(sys.argv[1])["path"])' "$request")" || true
}
answers_200() { [ "$(get_of "$@")" = 200 ]; }
in_pod() { nsenter --target "$INFRA" --net "$@"; }

# make_pod NAME-OF-THE-TRY SECRETS: creates it, starts nothing.
make_pod() {
    podman pod rm --force --time 1 "$POD" >> "$LOG" 2>&1 || true
    python3 "$DEPLOY_ROOT/tests/deploy/pods.py" "$WORK/manifest.yaml" "$POD" "$2" "$WORK/volumes-$1" > "$WORK/$1.yaml" || return 1
    podman play kube --start=false "$WORK/$1.yaml" >> "$LOG" 2>&1 || fail "podman play kube, see $LOG"
}
start_upstream() {
    podman start "$(podman pod inspect "$POD" --format '{{.InfraContainerID}}')" >> "$LOG" 2>&1
    INFRA="$(podman inspect "$(podman pod inspect "$POD" --format '{{.InfraContainerID}}')" --format '{{.State.Pid}}')"
    POD_ADDRESS="$(podman inspect "$(podman pod inspect "$POD" --format '{{.InfraContainerID}}')" --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')"
    in_pod ip link set lo up
    nsenter --target "$INFRA" --net python3 "$DEPLOY_ROOT/tests/deploy/stream.py" "$UPSTREAM_PORT" "$WORK/release" &
    STARTED+=($!)
}
start() { podman start "$POD-$1" >> "$LOG" 2>&1; }

# ---------------------------------------------------------------- up, in the order of the manifest
make_pod first "$WORK/secrets"
start_upstream
before="$(date +%s%N)"
start sigilum-admin
until_true 60 "the startup probe of admin" exec_of sigilum-admin startupProbe
passed "admin starts, and its startup probe holds before there is an authz"
start sigilum-envoy
until_true 60 "the startup probe of Envoy" answers_200 sigilum-envoy startupProbe
passed "Envoy starts, and its startup probe holds before there is an authz"
is "and its readiness probe does not" 503 "$(get_of sigilum-envoy readinessProbe)"
start sigilum-authz
until_true 60 "the startup probe of authz" exec_of sigilum-authz startupProbe
passed "authz starts, and its startup probe holds"
until_true 30 "the readiness probe" answers_200 sigilum-envoy readinessProbe
passed "the pod is ready"
say "from the start of the pod to ready: $((($(date +%s%N) - before) / 1000000)) ms"
start application
for container in sigilum-admin sigilum-authz; do
    exec_of "$container" livenessProbe >/dev/null || fail "the liveness probe of $container"
done
is "liveness of Envoy" 200 "$(get_of sigilum-envoy livenessProbe)"
passed "every liveness probe holds"

# ---------------------------------------------------------------- who they are and what they see
for container in sigilum-admin sigilum-envoy sigilum-authz; do
    is "$container runs as" 65532:65532 "$(podman inspect "$POD-$container" --format '{{.Config.User}}')"
    is "$container has a read-only file system" true "$(podman inspect "$POD-$container" --format '{{.HostConfig.ReadonlyRootfs}}')"
    podman inspect "$POD-$container" > "$WORK/inspected"
    lacks "no master key in what is seen of $container" "$(cat "$WORK/secrets/sigilum-master-key/gateway-master-key")" "$WORK/inspected"
    lacks "no provider's key either" "$PROVIDER_KEY" "$WORK/inspected"
done
is "the application mounts nothing of the gateway" "" "$(podman inspect "$POD-application" --format '{{range .Mounts}}{{.Destination}} {{end}}')"
is "Envoy does not see what admin tells authz" "" \
    "$(podman inspect "$POD-sigilum-envoy" --format '{{range .Mounts}}{{.Destination}}{{"\n"}}{{end}}' | grep state || true)"
reachable="$(for port in 38000 38100 38200; do curl --silent --output /dev/null --max-time 2 "http://$POD_ADDRESS:$port/" && printf '%s ' "$port"; done || true)"
is "from outside the pod none of its ports but the probes answers" "" "$reachable"

# ---------------------------------------------------------------- what passes and what does not
GATEWAY=http://127.0.0.1:38000/proxy/example
agent_in_pod() {
    local home="$WORK/agents/$1"
    shift
    in_pod env HOME="$home" "$SIGILUM" --home "$home" --namespace demo request "$@" 2>/dev/null
}
unsigned() { in_pod curl --silent --include --max-time 5 "$GATEWAY/v1/models" | refusal; }
signed() { { agent_in_pod approved --include GET "$GATEWAY/v1/models" || true; } | refusal; }
signed_passes() { agent_in_pod approved GET "$GATEWAY/v1/models" | grep --quiet "Bearer $PROVIDER_KEY"; }
# A fresh journal refuses for some seconds what may have been signed before it.
until_true 30 "an approved request" signed_passes
passed "a signed request of an approved agent passes, with the provider's key"
is "an unsigned one is refused" "403 AUTH_SIGNATURE_INVALID" "$(unsigned)"
is "one of an agent nobody approved is refused" "403 AUTH_CLAIM_REQUIRED" \
    "$({ agent_in_pod unapproved --include GET "$GATEWAY/v1/models" || true; } | refusal)"

# ---------------------------------------------------------------- what it takes
pair() { printf 'Envoy %s, authz %s' "$(resident "$(process_of "$POD-sigilum-envoy")")" "$(resident "$(process_of "$POD-sigilum-authz")")"; }
say "memory of the pair, idle: $(pair); of admin: $(resident "$(process_of "$POD-sigilum-admin")")"
mkdir "$WORK/signed"
export SIGILUM WORK GATEWAY
# shellcheck disable=SC2016  # expanded by the inner shells
seq 400 | xargs --max-procs=4 --replace=N bash -c 'HOME="$WORK/agents/approved" "$SIGILUM" --home "$WORK/agents/approved" --namespace demo \
    request --dry-run GET "$GATEWAY/v1/models" > "$WORK/signed/N" 2>> "$WORK/signing"'
rate="$(in_pod python3 "$DEPLOY_ROOT/tests/deploy/load.py" 127.0.0.1 38000 "$WORK/signed" 16)" || fail "the load: $(cat "$WORK/signing")"
passed "under load every signed request is accepted: $rate"
say "memory of the pair under that load: $(pair)"

# ---------------------------------------------------------------- authz dies and comes back
podman kill "$POD-sigilum-authz" >> "$LOG" 2>&1
is "without authz an approved request is refused" 503 "$(signed | cut --delimiter=' ' --fields=1)"
until_true 10 "a pod that is not ready" eval '[ "$(get_of sigilum-envoy readinessProbe)" = 503 ]'
is "by the code that says so" "503 AUTHZ_UNAVAILABLE" "$(signed)"
is "Envoy is not to be restarted for it" 200 "$(get_of sigilum-envoy livenessProbe)"
start sigilum-authz
until_true 30 "a ready pod" answers_200 sigilum-envoy readinessProbe
until_true 10 "an approved request" signed_passes
passed "with authz back it passes again"

# ---------------------------------------------------------------- admin is away: declared approvals go on
podman stop --time 10 "$POD-sigilum-admin" >> "$LOG" 2>&1
signed_passes || fail "without admin declared approvals should go on"
passed "without admin declared approvals go on"
is "and the pod stays ready" 200 "$(get_of sigilum-envoy readinessProbe)"
start sigilum-admin
until_true 30 "the startup probe of admin" exec_of sigilum-admin startupProbe
passed "admin starts again on the store it left"

# ---------------------------------------------------------------- the end of the pod
agent_in_pod approved GET "$GATEWAY/stream" > "$WORK/streamed" &
STREAM=$!
STARTED+=("$STREAM")
until_true 10 "the beginning of a stream" grep --quiet first "$WORK/streamed"
exec_of sigilum-authz lifecycle preStop > "$WORK/drained" 2>> "$LOG" &
DRAIN=$!
STARTED+=("$DRAIN")
until_true 10 "a pod that takes itself out" eval '[ "$(get_of sigilum-envoy readinessProbe)" = 503 ]'
passed "preStop takes the pod out of service"
signed_passes || fail "while it drains, who still comes is to be served"
passed "while it drains, who still comes is served"
kill -0 "$DRAIN" 2>/dev/null || fail "preStop did not wait for the stream"
passed "preStop waits for the running stream"
touch "$WORK/release"
wait "$STREAM" || fail "the stream broke"
is "the stream ends whole" "first last" "$(paste --serial --delimiters=' ' "$WORK/streamed")"
wait "$DRAIN" || fail "preStop: $(cat "$WORK/drained")"
is "then preStop ends" "in flight: 0" "$(cat "$WORK/drained")"
for container in sigilum-authz sigilum-envoy sigilum-admin; do
    podman stop --time 20 "$POD-$container" >> "$LOG" 2>&1
    is "$container ends by itself when told to" 0 "$(podman inspect "$POD-$container" --format '{{.State.ExitCode}}')"
done
containers_said "$POD"-sigilum-{admin,envoy,authz} > "$WORK/said"
lacks "no provider's key in what the containers say" "$PROVIDER_KEY" "$WORK/said"

# ---------------------------------------------------------------- bad input
# ended_with CONTAINER: exit code once it has ended
ended_with() {
    podman wait "$POD-$1" >> "$LOG" 2>&1
    podman inspect "$POD-$1" --format '{{.State.ExitCode}}'
}
last_words() { podman logs "$POD-$1" 2>&1 | tail -n 3; }

mkdir -p "$WORK/no-master-key" && cp -r "$WORK/secrets/sigilum-providers" "$WORK/no-master-key/"
is "a missing Secret keeps the pod from being made" "secret sigilum-master-key not found" \
    "$({ python3 "$DEPLOY_ROOT/tests/deploy/pods.py" "$WORK/manifest.yaml" "$POD" "$WORK/no-master-key" "$WORK/volumes-none" > /dev/null; } 2>&1)"

cp -r "$WORK/secrets" "$WORK/no-provider-key" && rm "$WORK/no-provider-key/sigilum-providers/example"
make_pod second "$WORK/no-provider-key"
start_upstream
start sigilum-admin
is "a provider's key that is not in its Secret: exit code" 78 "$(ended_with sigilum-admin)"
holds "and one line that says which" "secret reference unresolved" "$(last_words sigilum-admin)"
start sigilum-envoy
start sigilum-authz
until_true 20 "an authz that lives" exec_of sigilum-authz livenessProbe
if exec_of sigilum-authz startupProbe > /dev/null 2>&1; then fail "authz is ready without any state"; fi
passed "authz lives and is not ready without a state"
is "and nothing passes" 503 "$(signed | cut --delimiter=' ' --fields=1)"

# The store of another pod, whose master key was another.
cp -r "$WORK/secrets" "$WORK/other-key" && openssl rand -hex 32 > "$WORK/other-key/sigilum-master-key/gateway-master-key"
make_pod third "$WORK/other-key"
rm -rf --one-file-system "$WORK/volumes-third/sigilum-data"
cp -a "$WORK/volumes-first/sigilum-data" "$WORK/volumes-third/sigilum-data"
start sigilum-admin
is "the master key of another store: exit code" 78 "$(ended_with sigilum-admin)"
holds "and one line that says so" "master key mismatch" "$(last_words sigilum-admin)"

# A Secret as Kubernetes makes it without an fsGroup and with a mode for its owner alone, who is root.
make_pod unreadable "$WORK/secrets"
chown 0:0 "$WORK"/volumes-unreadable/sigilum-home/..version_0/gateway-master-key
chmod 0400 "$WORK"/volumes-unreadable/sigilum-home/..version_0/gateway-master-key
start sigilum-admin
is "a Secret that is root's alone: exit code" 78 "$(ended_with sigilum-admin)"
holds "and one line that names the file, whose it is" \
    "/etc/sigilum/gateway-master-key: permission denied: it belongs to user 0 and group 0 with mode 0400, and this process is user 65532" "$(last_words sigilum-admin)"
holds "and what to change" "set defaultMode: 0440 on the volume and fsGroup on the pod" "$(last_words sigilum-admin)"

# A volume of sockets that strangers could write to.
make_pod fourth "$WORK/secrets"
chmod 1777 "$WORK/volumes-fourth/sigilum-envoy-run" "$WORK/volumes-fourth/sigilum-state"
start sigilum-admin
is "a volume of sockets that strangers share: exit code" 78 "$(ended_with sigilum-admin)"
holds "and one line that says what is wrong" "every user of this machine may write to it" "$(last_words sigilum-admin)"
say "tests/deploy/pods: $CHECKS checks passed"
