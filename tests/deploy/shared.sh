#!/usr/bin/env bash
# The shared gateway of deploy/k8s as pods of podman's: one admin, two data planes, the store of their replay window and a
# Sigilum API, with certificates made as cert-manager would make them. Runs in a network namespace of its own (tests/deploy/run).
set -euo pipefail
source "$(dirname "$0")/checks.sh"
begin_test

WORK="$DEPLOY_WORK/shared"
LOG="$DEPLOY_WORK/shared.log"
UPSTREAM_PORT=18080
CLAIMS_TTL=6
CLAIMS_GRACE=4
PROVIDER_KEY="canary-provider-$(openssl rand -hex 12)"
ADDED_KEY="canary-added-$(openssl rand -hex 12)"
BILLING_KEY="canary-billing-$(openssl rand -hex 12)"
rm -rf --one-file-system "$WORK"
mkdir -p "$WORK/ca" "$WORK/requests" "$WORK/api"
: > "$LOG"
before_the_end() {
    for container in $(podman ps --all --format '{{.Names}}'); do
        { echo "== $container" && containers_said "$container"; } >> "$LOG"
    done
}

# ---------------------------------------------------------------- certificates
cat > "$WORK/ca/ca.conf" <<CONF
[ca]
default_ca = own
[own]
database = $WORK/ca/issued
new_certs_dir = $WORK/ca
serial = $WORK/ca/serial
certificate = $WORK/ca/ca.crt
private_key = $WORK/ca/ca.key
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = supplied
CONF
: > "$WORK/ca/issued"
echo 1000 > "$WORK/ca/serial"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=sigilum \
    -keyout "$WORK/ca/ca.key" -out "$WORK/ca/ca.crt" 2>> "$LOG"
# certificate FOLDER SUBJECT-ALTERNATIVE-NAMES SECONDS: one that has so long to live (below zero: it is over)
certificate() {
    local folder="$1"
    mkdir -p "$folder"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=any -keyout "$folder/tls.key" -out "$WORK/ca/request" 2>> "$LOG"
    openssl ca -batch -notext -config "$WORK/ca/ca.conf" -in "$WORK/ca/request" -out "$folder/tls.crt" \
        -startdate "$(date --utc --date=-1hour +%Y%m%d%H%M%SZ)" -enddate "$(date --utc --date="$3 seconds" +%Y%m%d%H%M%SZ)" \
        -extfile <(printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\n' "$2") >> "$LOG" 2>&1 || fail "openssl ca, see $LOG"
    cp "$WORK/ca/ca.crt" "$folder/ca.crt"
}
# With the usages of cert-manager/certificates.yaml.
DATA_PLANE=$'URI:spiffe://cluster.local/ns/sigilum/sa/sigilum-data-plane\nextendedKeyUsage=clientAuth'
ADMIN_NAMES=$'DNS:sigilum-admin,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth'
SECRETS="$WORK/secrets"
certificate "$SECRETS/sigilum-admin-tls" "$ADMIN_NAMES" 7200
certificate "$SECRETS/sigilum-data-plane-tls" "$DATA_PLANE" 7200
certificate "$SECRETS/sigilum-replay-tls" $'DNS:sigilum-replay\nextendedKeyUsage=serverAuth' 7200

# ---------------------------------------------------------------- the other Secrets, and settings of the user's own
SIGILUM="$WORK/sigilum"
program_of_image "$SIGILUM"
# agent NAME NAMESPACE ARGUMENTS…
agent() {
    local home="$WORK/agents/$1" namespace="$2"
    shift 2
    HOME="$home" "$SIGILUM" --home "$home" --namespace "$namespace" "$@" 2>> "$LOG"
}
agent declared demo identity init >/dev/null
agent claiming acme identity init >/dev/null
agent owner acme identity init >/dev/null
DECLARED="$(agent declared demo identity show | sed -n 's/^publicKey: //p')"
mkdir -p "$SECRETS"/sigilum-{admin,identity,master-key,metrics,providers,replay,service-keys}
printf %s "$(openssl rand -hex 32)" > "$SECRETS/sigilum-admin/password"
printf %s "$(openssl rand -hex 32)" > "$SECRETS/sigilum-metrics/token"
openssl rand -hex 32 > "$SECRETS/sigilum-master-key/gateway-master-key"
openssl rand -hex 32 > "$SECRETS/sigilum-replay/password"
printf %s "$PROVIDER_KEY" > "$SECRETS/sigilum-providers/example"
printf %s "$BILLING_KEY" > "$SECRETS/sigilum-providers/billing"
cp "$WORK/agents/owner/identities/acme/identity.json" "$SECRETS/sigilum-identity/"

cp -r "$DEPLOY_ROOT/deploy/k8s" "$WORK/k8s"
python3 - "$WORK/k8s/shared/gateway.yaml" "$UPSTREAM_PORT" "$DECLARED" "$CLAIMS_TTL" "$CLAIMS_GRACE" <<'PY'
import sys
file, port, key, ttl, grace = sys.argv[1:]
text = open(file).read()
approval = '- {{ namespace: demo, public_key: "{}", service: {} }}\n'
for old, new in [
    ("  # namespace: acme\n  # api_url: https://api.sigilum.id\n", f"  namespace: acme\n  api_url: http://api:8787\n  claims_grace: {grace}\n"),
    ("claims: { source: off }\n", f"claims: {{ ttl_seconds: {ttl}, refresh_seconds: 1 }}\n"),
    ('sigilum-data-plane"], connections: ["*"] }\n',
     'sigilum-data-plane"], connections: [example, added] }\n- { name: billing, sans: ["spiffe://cluster.local/ns/billing/sa/billing"], connections: [billing] }\n'),
    ("  base_url: https://api.example.com\n", f"  base_url: http://10.88.0.1:{port}\n  allow_private: true\n"),
    ("sigilum-providers/example }\n", "sigilum-providers/example }\n"
     f"- id: billing\n  base_url: http://10.88.0.1:{port}\n  allow_private: true\n  secrets:\n    api_key: {{ file: /run/secrets/sigilum-providers/billing }}\n"),
    ("approvals: []\n", "approvals:\n" + "".join(approval.format(key, service) for service in ["example", "added", "billing"])),
]:
    assert text.count(old) == 1, old
    text = text.replace(old, new)
open(file, "w").write(text)
PY
changed="$(diff --recursive --brief "$DEPLOY_ROOT/deploy/k8s" "$WORK/k8s" | grep --count . || true)"
is "nothing but gateway.yaml is another than the shipped one" 1 "$changed"
kustomize_is_here
for overlay in shared shared-tls; do "$KUSTOMIZE" build "$WORK/k8s/$overlay" > "$WORK/$overlay.yaml"; done
MANIFEST="$WORK/shared.yaml"
"$KUSTOMIZE" build "$DEPLOY_ROOT/deploy/k8s/monitoring" > "$WORK/monitoring.yaml"

# ---------------------------------------------------------------- a kubelet, as far as it is needed
PODS="$DEPLOY_ROOT/tests/deploy/pods.py"
of_manifest() { python3 "$PODS" --command "$MANIFEST" "$@"; }
# make_pod POD DEPLOYMENT [ADDRESS=NAME…]: creates it and starts its network. FIXED: its address, which a Service would keep.
make_pod() {
    local pod="$1" deployment="$2"
    shift 2
    python3 "$PODS" "$MANIFEST" "$deployment" "$SECRETS" "$WORK/volumes-$pod" "$pod" "$@" > "$WORK/$pod.yaml"
    podman play kube --start=false --network podman ${FIXED:+"--ip=$FIXED"} "$WORK/$pod.yaml" >> "$LOG" 2>&1 || fail "podman play kube, see $LOG"
    podman start "$(podman pod inspect "$pod" --format '{{.InfraContainerID}}')" >> "$LOG" 2>&1
    if podman container exists "$pod-pause"; then start "$pod-pause"; fi
}
address_of() {
    podman inspect "$(podman pod inspect "$1" --format '{{.InfraContainerID}}')" --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
}
# replace POD VOLUME FOLDER: the files of a Secret that has changed
replace() { python3 "$PODS" --replace "$WORK/volumes-$1/$2" "$3"; }
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
ready() { is_status 200 "${ADDRESSES[$1]}" sigilum-data-plane envoy readinessProbe; }
decides() { exec_of "$1" sigilum-data-plane authz readinessProbe; }
# said CONTAINER TEXT: lines of its log that hold it
said() { podman logs "$1" 2>&1 | grep --count --fixed-strings -e "$2" || true; }
milliseconds() { echo $((($(date +%s%N) - $1) / 1000000)); }

# ---------------------------------------------------------------- what is asked
declare -A ADDRESSES
AGENTS_AT=http://sigilum-gateway:38000
sign() { agent "$1" "$2" request --dry-run GET "$AGENTS_AT/proxy/$3/v1/models"; }
# send FILE POD
send() { sent "$1" "$AGENTS_AT" --connect-to "::${ADDRESSES[$2]}:" --cacert "$WORK/ca/ca.crt"; }
# answer WHO NAMESPACE SERVICE POD
answer() {
    local file
    file="$(mktemp --tmpdir="$WORK/requests")"
    sign "$1" "$2" "$3" > "$file"
    send "$file" "$4"
}
declared() { [ "$(answer declared demo "$1" "$2")" = 200 ]; }
claimed() { [ "$(answer claiming acme example "$1")" = 200 ]; }

stand_in_pause

# ---------------------------------------------------------------- a provider, the store of the window, the API
start_upstream_here "$UPSTREAM_PORT" "$WORK/seen"
REPLAY=10.88.0.251
FIXED="$REPLAY" make_pod replay sigilum-replay
start replay-valkey
# shellcheck disable=SC2016  # expanded in the container
valkey() { podman exec replay-valkey /bin/sh -c 'exec valkey-cli --tls --cacert /run/secrets/sigilum-tls/ca.crt --no-auth-warning --user sigilum -a "$(cat /run/secrets/sigilum-replay/password)" "$@"' sh "$@"; }
until_true 20 "Valkey" eval 'valkey info server | grep --quiet run_id'
passed "Valkey answers over TLS to who has its password"
is "and to nobody else" "NOAUTH Authentication required." "$(podman exec replay-valkey valkey-cli --tls --cacert /run/secrets/sigilum-tls/ca.crt ping 2>/dev/null)"
is "it forgets nothing when it is full" noeviction "$(valkey info memory | tr -d '\r' | sed -n 's/^maxmemory_policy://p')"
for command in "keys *" "del sigilum1:x" "flushall" "config get maxmemory" "set other 1"; do
    read -ra words <<< "$command"
    holds "its user may not: $command" NOPERM "$(valkey "${words[@]}" 2>&1)"
done

chown 65532:65532 "$WORK/api"
openssl rand -hex 32 > "$WORK/jwt-secret" && chown 65532:65532 "$WORK/jwt-secret" && chmod 0400 "$WORK/jwt-secret"
API=10.88.0.250
podman run --detach --name api --ip "$API" --read-only --volume "$WORK/api:/var/lib/sigilum-api" --volume "$WORK/jwt-secret:/run/jwt-secret:ro" \
    --env API_ALLOW_REMOTE=true --env "API_PUBLIC_URL=http://api:8787,http://$API:8787" --env JWT_SECRET_FILE=/run/jwt-secret \
    --env HOME=/var/lib/sigilum-api "$(image_name)" api --host 0.0.0.0 >> "$LOG" 2>&1 || fail "the API, see $LOG"
until_true 20 "the API" curl --silent --fail --max-time 2 "http://$API:8787/health"
token="$(podman exec api sigilum login --namespace acme --token-only 2>> "$LOG")" || fail "login, see $LOG"
as_owner() { SIGILUM_API_URL="http://$API:8787" agent owner acme "$@" --owner-token-stdin <<< "$token" >> "$LOG" || fail "$*, see $LOG"; }
as_owner service add --service-slug example
cp "$WORK/agents/owner/service-api-key-example" "$SECRETS/sigilum-service-keys/"

# ---------------------------------------------------------------- admin
ADMIN=10.88.0.252
FIXED="$ADMIN" make_pod admin sigilum-admin "$API=api"
start admin-admin
until_true 60 "the startup probe of admin" is_status 200 "$ADMIN" sigilum-admin admin startupProbe
passed "admin starts, and is asked over TLS at the address of its pod"
is "it lives" 200 "$(status_of "$ADMIN" sigilum-admin admin livenessProbe)"
is "and is not ready without an authz" 503 "$(status_of "$ADMIN" sigilum-admin admin readinessProbe)"

# ---------------------------------------------------------------- two data planes, fed by one admin
for pod in one two; do
    before="$(date +%s%N)"
    make_pod "$pod" sigilum-data-plane "$ADMIN=sigilum-admin" "$REPLAY=sigilum-replay"
    ADDRESSES[$pod]="$(address_of "$pod")"
    made="$(milliseconds "$before")"
    before="$(date +%s%N)"
    start "$pod-envoy"
    until_true 60 "the startup probe of Envoy" is_status 200 "${ADDRESSES[$pod]}" sigilum-data-plane envoy startupProbe
    is "Envoy of pod $pod starts before there is an authz, and is not ready" 503 \
        "$(status_of "${ADDRESSES[$pod]}" sigilum-data-plane envoy readinessProbe)"
    start "$pod-authz"
    until_true 60 "an authz with a state" exec_of "$pod" sigilum-data-plane authz startupProbe
    until_true 30 "a ready pod" ready "$pod"
    passed "pod $pod is ready"
    say "pod $pod: from its start to ready $(milliseconds "$before") ms (podman made it in $made ms)"
    exec_of "$pod" sigilum-data-plane authz livenessProbe > /dev/null || fail "the liveness probe of authz"
done
until_true 10 "a ready admin" is_status 200 "$ADMIN" sigilum-admin admin readinessProbe
passed "with authz processes that have the state admin is ready"
# What was signed before the store's memory began is refused.
for pod in one two; do
    until_true 20 "a declared agent at pod $pod" declared example "$pod"
    passed "a declared agent passes at pod $pod"
done

in_admin() { podman exec --interactive admin-admin sigilum "$@" 2>> "$LOG"; }
before="$(date +%s%N)"
printf %s "$ADDED_KEY" | in_admin connection add added --base-url "http://10.88.0.1:$UPSTREAM_PORT" --allow-private --secret-stdin api_key >> "$LOG" ||
    fail "connection add, see $LOG"
for pod in one two; do
    until_true 10 "the new connection at pod $pod" declared added "$pod"
    passed "a connection that was added once is there at pod $pod"
done
say "from \`connection add\` to a request through each pod: $(milliseconds "$before") ms"

# ---------------------------------------------------------------- one request, two replicas
accepted=0
for turn in 1 2 3 4 5 6 7 8; do
    sign declared demo example > "$WORK/requests/once"
    send "$WORK/requests/once" one > "$WORK/answer-one" &
    other=$!
    send "$WORK/requests/once" two > "$WORK/answer-two"
    wait "$other"
    both="$(sort "$WORK/answer-one" "$WORK/answer-two" | paste --serial --delimiters='|')"
    [ "$both" = "200|403 AUTH_REPLAY_DETECTED" ] || fail "one request at both pods, try $turn: $both"
    accepted=$((accepted + 1))
done
passed "one request sent to both pods at once is accepted by one of them ($accepted times)"

# ---------------------------------------------------------------- claims
is "an agent nobody approved is refused" "403 AUTH_CLAIM_REQUIRED" "$(answer claiming acme example one)"
until_true 10 "an approval" as_owner claim approve --service example
for pod in one two; do
    until_true 10 "a claim at pod $pod" claimed "$pod"
    passed "what the owner approves at the API passes at pod $pod"
done

# ---------------------------------------------------------------- who is told what
is "a connection of another workload is refused here: not even its approvals are known" "403 AUTH_CLAIM_REQUIRED" "$(answer declared demo billing one)"
authz="$(process_of one-authz)"
in_memory() { printf %s "$2" | python3 "$DEPLOY_ROOT/tests/deploy/memory.py" "$1"; }
is "the memory of authz holds the secret of its own workload" yes "$(in_memory "$authz" "$PROVIDER_KEY")"
is "and not that of another" no "$(in_memory "$authz" "$BILLING_KEY")"
is "which admin's does" yes "$(in_memory "$(process_of admin-admin)" "$BILLING_KEY")"

# Bytes of admin's first frames, or why there were none.
told() {
    python3 - "$ADMIN" "$SECRETS" "$@" <<'PY'
import socket, ssl, sys
address, secrets, *certificate = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{secrets}/sigilum-admin-tls/ca.crt")
context.set_alpn_protocols(["h2"])
for folder in certificate:
    context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
try:
    with socket.create_connection((address, 38101), timeout=5) as plain, context.wrap_socket(plain, server_hostname="sigilum-admin") as tls:
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        print("frames" if tls.recv(9) else "end")
except ssl.SSLError as error:
    print(error.reason)
except OSError as error:
    print(error)
PY
}
is "who has a certificate is answered on the state's port" frames "$(told "$SECRETS/sigilum-data-plane-tls")"
is "who has none is not" TLSV13_ALERT_CERTIFICATE_REQUIRED "$(told)"

cp -r "$SECRETS" "$WORK/secrets-stranger"
certificate "$WORK/secrets-stranger/sigilum-data-plane-tls" URI:spiffe://cluster.local/ns/elsewhere/sa/stranger 7200
cp -r "$SECRETS" "$WORK/secrets-expired"
certificate "$WORK/secrets-expired/sigilum-data-plane-tls" "$DATA_PLANE" -60
for pod in stranger expired; do
    SECRETS="$WORK/secrets-$pod" make_pod "$pod" sigilum-data-plane "$ADMIN=sigilum-admin" "$REPLAY=sigilum-replay"
    ADDRESSES[$pod]="$(address_of "$pod")"
    start "$pod-envoy"
    until_true 20 "Envoy" is_status 200 "${ADDRESSES[$pod]}" sigilum-data-plane envoy startupProbe
    start "$pod-authz"
done
podman wait expired-authz >> "$LOG" 2>&1
is "an expired certificate: exit code" 78 "$(podman inspect expired-authz --format '{{.State.ExitCode}}')"
is "and one line, which names the file" 1 "$(podman logs expired-authz 2>&1 | grep expired | grep --count --fixed-strings /run/secrets/sigilum-tls/tls.crt || true)"
is "its pod is not ready" 503 "$(status_of "${ADDRESSES[expired]}" sigilum-data-plane envoy readinessProbe)"
is "and lets nothing through" 503 "$(answer declared demo example expired | cut --delimiter=' ' --fields=1)"
until_true 10 "a refusal by admin" eval '[ "$(said stranger-authz "no workload has a name of this certificate")" -ge 1 ]'
is "a certificate no workload names: admin says that it refused it" 1 "$(said admin-admin "no workload has a name of its certificate")"
is "that pod is not ready" 503 "$(status_of "${ADDRESSES[stranger]}" sigilum-data-plane envoy readinessProbe)"
is "and lets nothing through" 503 "$(answer declared demo example stranger | cut --delimiter=' ' --fields=1)"
is "the memory of its authz holds no secret" no "$(in_memory "$(process_of stranger-authz)" "$PROVIDER_KEY")"
for pod in stranger expired; do podman pod rm --force --time 1 "$pod" >> "$LOG" 2>&1; done

# ---------------------------------------------------------------- certificates change, nobody restarts
streams() { said admin-admin "an authz has connected"; }
processes() { for name in admin-admin one-authz two-authz replay-valkey; do printf '%s ' "$(process_of "$name")"; done; }
before_rotation="$(processes)"
count="$(streams)"
certificate "$WORK/renewed" "$DATA_PLANE" 14
EXPIRES=$((SECONDS + 14))
replace two tls "$WORK/renewed"
until_true 10 "a stream with the new certificate" eval '[ "$(streams)" -gt "$count" ]'
until_true 10 "a declared agent" declared example two
passed "a renewed certificate of authz is taken without a restart"
certificate "$WORK/renewed-admin" "$ADMIN_NAMES" 7200
replace admin tls "$WORK/renewed-admin"
until_true 10 "the new certificate of admin" eval '[ "$(serial_of "$ADMIN:38101")" = "$(serial_in "$WORK/renewed-admin/tls.crt")" ]'
passed "and one of admin"
until_true $((EXPIRES - SECONDS + 30)) "a word about the expired certificate" eval '[ "$(said two-authz "the certificate has expired")" -ge 1 ]'
until_true 40 "a stream that was ended" eval 'decides two | grep --quiet --ignore-case admin'
is "one that expires while authz runs is one line" 1 "$(said two-authz "the certificate has expired")"
is "with the state it has, declared agents go on there" 200 "$(answer declared demo example two)"
count="$(streams)"
certificate "$WORK/renewed" "$DATA_PLANE" 7200
replace two tls "$WORK/renewed"
until_true 20 "a stream with another certificate" eval '[ "$(streams)" -gt "$count" ]'
passed "the next certificate mends it"
REPLAY_NAMES=$'DNS:sigilum-replay\nextendedKeyUsage=serverAuth'
probe_replay() { exec_of replay sigilum-replay valkey livenessProbe || fail "the liveness probe of Valkey"; }
for life in -60 7200; do
    certificate "$WORK/renewed-replay" "$REPLAY_NAMES" "$life"
    replace replay tls "$WORK/renewed-replay"
    probe_replay
    is "Valkey takes a certificate of $life s with its liveness probe" "$(serial_in "$WORK/renewed-replay/tls.crt")" "$(serial_of "$REPLAY:6379")"
done
holds "and who connects to it anew is content" run_id "$(valkey info server)"
is "nobody was started again" "$before_rotation" "$(processes)"

# ---------------------------------------------------------------- the overlay in which agents come over TLS
MANIFEST="$WORK/shared-tls.yaml" AGENTS_AT=https://sigilum-gateway:38000
AGENTS_NAMES=$'DNS:sigilum-gateway,DNS:sigilum-gateway.sigilum.svc.cluster.local\nextendedKeyUsage=serverAuth'
certificate "$SECRETS/sigilum-agents-tls" "$AGENTS_NAMES" 7200
make_pod secure sigilum-data-plane "$ADMIN=sigilum-admin" "$REPLAY=sigilum-replay"
ADDRESSES[secure]="$(address_of secure)"
start secure-envoy
until_true 60 "the startup probe of Envoy" is_status 200 "${ADDRESSES[secure]}" sigilum-data-plane envoy startupProbe
start secure-authz
until_true 60 "a ready pod" ready secure
passed "the pod of shared-tls is ready: its probes are no business of that certificate"
until_true 20 "a declared agent over TLS" declared example secure
passed "a declared agent passes over TLS, with the certificate's authority"
is "an unsigned request is refused there" "403 AUTH_SIGNATURE_INVALID" \
    "$(curl --silent --include --max-time 5 --cacert "$WORK/ca/ca.crt" --connect-to "::${ADDRESSES[secure]}:" "$AGENTS_AT/proxy/example/v1/models" | refusal)"
is "one in clear gets no answer" "" "$(curl --silent --include --max-time 5 "http://${ADDRESSES[secure]}:38000/health" | refusal || true)"
AGENTS_AT=http://sigilum-gateway:38000 sign declared demo example > "$WORK/requests/in-clear"
is "and one that was signed for http does not count over TLS" "403 AUTH_SIGNATURE_INVALID" "$(send "$WORK/requests/in-clear" secure)"
if curl --silent --max-time 5 --connect-to "::${ADDRESSES[secure]}:" "$AGENTS_AT/health"; then fail "a stranger's authority was believed"; fi
passed "who does not know the authority is not talked into it"
before_renewal="$(process_of secure-envoy) $(process_of secure-authz)"
certificate "$WORK/renewed-agents" "$AGENTS_NAMES" 7200
replace secure agents-tls "$WORK/renewed-agents"
until_true 10 "the renewed certificate" eval '[ "$(serial_of "${ADDRESSES[secure]}:38000")" = "$(serial_in "$WORK/renewed-agents/tls.crt")" ]'
passed "a renewed certificate is shown to agents"
is "a declared agent passes with it" 200 "$(answer declared demo example secure)"
cp -r "$WORK/renewed-agents" "$WORK/broken-agents"
certificate "$WORK/broken-agents-other" "$AGENTS_NAMES" 7200
cp "$WORK/broken-agents-other/tls.crt" "$WORK/broken-agents/tls.crt"
replace secure agents-tls "$WORK/broken-agents"
until_true 10 "a word about the broken pair" eval '[ "$(said secure-envoy "Failed to reload certificates")" -ge 1 ]'
is "a pair that does not fit is not shown, and Envoy says so" "$(serial_in "$WORK/renewed-agents/tls.crt")" "$(serial_of "${ADDRESSES[secure]}:38000")"
is "nobody was started again for it" "$before_renewal" "$(process_of secure-envoy) $(process_of secure-authz)"
if podman inspect secure-authz --format '{{range .Mounts}}{{.Destination}} {{end}}' | grep --quiet agents-tls; then fail "authz has the certificate of agents"; fi
passed "the key of that certificate is Envoy's alone"
podman pod rm --force --time 1 secure >> "$LOG" 2>&1
MANIFEST="$WORK/shared.yaml" AGENTS_AT=http://sigilum-gateway:38000

# ---------------------------------------------------------------- metrics, as Prometheus is told to read them
# scrape AUTHORIZED [PATH]: the status
scrape() {
    python3 - "$WORK/monitoring.yaml" "$SECRETS" "$1" "${2:-}" <<'PY' | curl --silent --max-time 5 --config - --output "$WORK/metrics" --write-out '%{http_code}' --resolve "sigilum-admin:38100:$ADMIN"
import sys, yaml
manifest, secrets, authorized, path = sys.argv[1:]
monitor = next(one for one in yaml.safe_load_all(open(manifest)) if one["kind"] == "ServiceMonitor")
endpoint = monitor["spec"]["endpoints"][0]
tls, credentials = endpoint["tlsConfig"], endpoint["authorization"]["credentials"]
ca = tls["ca"]["secret"]
print(f'url = "{endpoint["scheme"]}://{tls["serverName"]}:38100{path or endpoint["path"]}"')
print(f'cacert = "{secrets}/{ca["name"]}/{ca["key"]}"')
if authorized == "yes":
    word = open(f"{secrets}/{credentials['name']}/{credentials['key']}").read()
    print(f'header = "Authorization: {endpoint["authorization"]["type"]} {word}"')
PY
}
is "Prometheus reads the metrics with the Secrets the ServiceMonitor names" 200 "$(scrape yes)"
holds "which say something" sigilum_ "$(head -c 20000 "$WORK/metrics")"
lags() { grep --count --extended-regexp 'sigilum_gateway_authz_lag_versions\{node="[^"]*\((one|two)\)"\}' "$WORK/metrics" || true; }
is "each data plane under the name of its pod" 2 "$(lags)"
is "and nothing of an Envoy, which is elsewhere" 0 "$(grep --count sigilum_gateway_envoy_up "$WORK/metrics" || true)"
is "and without them it does not" 403 "$(scrape no)"
is "nor anything else with them" 403 "$(scrape yes /api/admin/connections)"

# stats PATH: the status
stats() { curl --silent --max-time 5 --output "$WORK/stats" --write-out '%{http_code}' "http://${ADDRESSES[one]}:38301$1"; }
path="$(python3 -c 'import sys, yaml
print(next(one for one in yaml.safe_load_all(open(sys.argv[1])) if one["kind"] == "PodMonitor")["spec"]["podMetricsEndpoints"][0]["path"])' "$WORK/monitoring.yaml")"
is "Prometheus reads Envoy's statistics where the PodMonitor says" 200 "$(stats "$path")"
holds "which say something" envoy_http_downstream_rq_total "$(cat "$WORK/stats")"
is "and nothing else of its admin interface" 404 "$(stats /config_dump)"

# ---------------------------------------------------------------- the store of the window is away
podman stop --time 10 replay-valkey >> "$LOG" 2>&1
is "Valkey ends by itself when told to" 0 "$(podman inspect replay-valkey --format '{{.State.ExitCode}}')"
is "without it nothing passes" "503 AUTHZ_UNAVAILABLE" "$(answer declared demo example one)"
start replay-valkey
for pod in one two; do until_true 30 "a declared agent at pod $pod" declared example "$pod"; done
passed "with it back requests pass again"

# ---------------------------------------------------------------- admin is away
until_true 10 "a claim" claimed one
podman stop --time 20 admin-admin >> "$LOG" 2>&1
gone="$(date +%s%N)"
claimed one || fail "without admin claims should go on at first"
passed "without admin claims go on"
until_true $((CLAIMS_TTL + CLAIMS_GRACE + 10)) "a claim that has aged" eval '[ "$(answer claiming acme example one)" != 200 ]'
held="$(milliseconds "$gone")"
say "a claim held $held ms without admin (TTL $CLAIMS_TTL s, grace $CLAIMS_GRACE s)"
[ "$held" -ge $(((CLAIMS_TTL + CLAIMS_GRACE - 3) * 1000)) ] || fail "it ended too early"
passed "for their TTL and grace"
is "then they are refused, because nobody can confirm them" "403 AUTH_CLAIMS_LOOKUP_FAILED" "$(answer claiming acme example one)"
for pod in one two; do
    is "declared agents go on at pod $pod" 200 "$(answer declared demo example "$pod")"
    is "pod $pod stays ready" 200 "$(status_of "${ADDRESSES[$pod]}" sigilum-data-plane envoy readinessProbe)"
done
start admin-admin
until_true 60 "admin" is_status 200 "$ADMIN" sigilum-admin admin startupProbe
until_true 20 "a claim" claimed one
passed "with admin back claims pass again"

# ---------------------------------------------------------------- what was said
until_true 5 "a line of the access log" eval '[ "$(said one-envoy "\"connection\":\"example\"")" -ge 1 ]'
passed "Envoy says its access log, for the platform to keep in bounds"
is "and puts no file into memory" "" "$(find "$WORK"/volumes-{one,two}/run -type f -name 'access.log*')"
containers_said admin-admin one-envoy one-authz two-envoy two-authz replay-valkey > "$WORK/said"
for key in "$PROVIDER_KEY" "$ADDED_KEY" "$BILLING_KEY" "$(cat "$SECRETS/sigilum-admin/password")" "$(cat "$SECRETS/sigilum-metrics/token")" "$(cat "$SECRETS/sigilum-replay/password")"; do
    lacks "no secret in what the containers say" "$key" "$WORK/said"
done
is "and no advice to change a file of a volume, which nobody can" 0 "$(grep --count chmod "$WORK/said" || true)"
say "tests/deploy/shared: $CHECKS checks passed"
