#!/usr/bin/env bash
# deploy/compose.yaml as shipped: what passes, what does not, what others can reach and read, and what bad input leads to.
# Runs in a network namespace of its own (tests/deploy/run).
set -euo pipefail
source "$(dirname "$0")/checks.sh"
begin_test

PROJECT="$DEPLOY_WORK/compose"
LOG="$DEPLOY_WORK/compose.log"
AGENTS="$DEPLOY_WORK/agents"
SEEN="$DEPLOY_WORK/upstream.jsonl"
GATEWAY=http://127.0.0.1:38000
UPSTREAM_PORT=18080
PROVIDER_KEY="canary-provider-$(openssl rand -hex 12)"
rm -rf "$PROJECT" "$AGENTS" "$SEEN" "$LOG"

# ---------------------------------------------------------------- a network with somebody outside
unshare --net sleep 3600 &
OUTSIDE=$!
STARTED+=("$OUTSIDE")
until [ "$(readlink "/proc/$OUTSIDE/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add outside0 type veth peer name outside1 netns "$OUTSIDE"
ip address add 10.99.0.1/24 dev outside0
ip link set outside0 up
from_outside() { nsenter --target "$OUTSIDE" --net "$@"; }
from_outside ip address add 10.99.0.2/24 dev outside1
from_outside ip link set outside1 up
start_upstream_here "$UPSTREAM_PORT" "$SEEN"

# ---------------------------------------------------------------- the project, as a user would lay it out
# As root here: the folder of secrets belongs to whoever runs the containers.
mkdir -p "$PROJECT"
cp -r "$DEPLOY_ROOT"/deploy/{compose.yaml,compose.tls.yaml,config} "$PROJECT/"
cmp --silent "$DEPLOY_ROOT/deploy/compose.yaml" "$PROJECT/compose.yaml" || fail "compose.yaml was changed"
mkdir -m 0711 "$PROJECT/secrets"
for name in gateway-master-key api-jwt-secret; do
    (umask 077; openssl rand -hex 32 > "$PROJECT/secrets/$name")
    is "a secret is nobody else's from the first moment on" 600 "$(stat --format %a "$PROJECT/secrets/$name")"
    chown 65532 "$PROJECT/secrets/$name"
    chmod 0400 "$PROJECT/secrets/$name"
done
MASTER_KEY="$(cat "$PROJECT/secrets/gateway-master-key")"
JWT_SECRET="$(cat "$PROJECT/secrets/api-jwt-secret")"

SIGILUM="$DEPLOY_WORK/sigilum"
program_of_image "$SIGILUM"
agent() {
    local home="$AGENTS/$1" namespace="$2"
    shift 2
    env -u SIGILUM_NAMESPACE HOME="$home" "$SIGILUM" --home "$home" --namespace "$namespace" "$@" 2>/dev/null
}
for who in "approved demo" "unapproved demo" "stranger stranger"; do
    # shellcheck disable=SC2086  # name and namespace
    agent $who identity init >/dev/null
done
APPROVED_KEY="$(agent approved demo identity show | sed -n 's/^publicKey: //p')"
cat > "$PROJECT/config/gateway.yaml" <<YAML
approvals:
  - { namespace: demo, public_key: "$APPROVED_KEY", service: provider }
YAML

echo SIGILUM_NAMESPACE=demo > "$PROJECT/.env"   # read beside the file, by podman-compose as by Docker
# Where the root file system is read-only podman would give /tmp and /run of its own, and Docker does not.
FILES=(--file compose.yaml)
compose() {
    (cd "$PROJECT" && podman-compose --project-name sigilum --podman-run-args=--read-only-tmpfs=false "${FILES[@]}" "$@") \
        >> "$LOG" 2>&1
}
up() { compose up --detach "$@" || fail "podman-compose up, see $LOG"; }
# What containers said in a life that ends.
SAID="$DEPLOY_WORK/said"
: > "$SAID"
down() {
    # shellcheck disable=SC2046  # one name each
    containers_said $(names) >> "$SAID"
    compose down || fail "podman-compose down, see $LOG"
}
ROLES=(api admin authz)
SERVICES=(envoy "${ROLES[@]}")
name_of() { printf 'sigilum_%s_1\n' "$1"; }
names() { for service in "${SERVICES[@]}"; do name_of "$service"; done; }
# What Docker does by itself every few seconds; podman leaves that to systemd.
is_healthy() { podman healthcheck run "$(name_of "$1")"; }
answers() { curl --silent --fail --max-time 2 "$@"; }
all_healthy() {
    local role
    for role in "${ROLES[@]}"; do is_healthy "$role" || return 1; done
    answers "$GATEWAY/health"
}
unsigned() { curl --silent --include --max-time 5 "$GATEWAY/proxy/provider/v1/models" | refusal; }
signed_by() { { agent "$1" "$2" request --include GET "$GATEWAY/proxy/provider/v1/models" || true; } | refusal; }
approved_passes() {
    agent approved demo request POST "$GATEWAY/proxy/provider/v1/models?q=1" --data "$1" | grep --quiet '"method": "POST"'
}

# ---------------------------------------------------------------- up
before="$(date +%s%N)"
up
until_true 60 "a healthy stack" all_healthy
say "from up to healthy: $((($(date +%s%N) - before) / 1000000)) ms (podman-compose starts one container after the other)"
passed "the stack gets healthy"
printf %s "$PROVIDER_KEY" | podman exec --interactive "$(name_of admin)" sigilum connection add provider \
    --base-url "http://10.99.0.1:$UPSTREAM_PORT" --allow-private --secret-stdin api_key >> "$LOG" 2>&1 ||
    fail "connection add, see $LOG"

# As the README has it, in its engine's words.
ENVOY_IMAGE="$(envoy_images | head -n 1)"
podman run --detach --name sigilum-face --network host --user 65532:65532 --read-only --read-only-tmpfs=false --cap-drop all \
    --workdir /run/sigilum/envoy --volume sigilum_envoy:/run/sigilum/envoy:ro --volume "$PROJECT/config:/etc/sigilum:ro" \
    --entrypoint /usr/local/bin/envoy "$ENVOY_IMAGE" \
    --config-path /etc/sigilum/face.yaml --disable-hot-restart --concurrency 1 >/dev/null
until_true 10 "the read-only face" answers http://127.0.0.1:38200/ready
passed "Envoy's read-only face answers on the machine's loopback"
is "and changes nothing" 404 "$(curl --silent --output /dev/null --write-out '%{http_code}' --request POST http://127.0.0.1:38200/quitquitquit)"

# ---------------------------------------------------------------- what passes and what does not
until_true 10 "an approved request" approved_passes ping
seen="$(tail -n 1 "$SEEN")"
passed "a signed request of an approved agent passes"
holds "the provider gets its key" "Bearer $PROVIDER_KEY" "$seen"
holds "and the body" '"body": "ping"' "$seen"
if grep --quiet --ignore-case signature <<< "$seen"; then fail "the agent's proof reached the provider: $seen"; fi
passed "and not the agent's proof"
count="$(wc -l < "$SEEN")"
is "an unsigned request is refused" "403 AUTH_SIGNATURE_INVALID" "$(unsigned)"
is "one of an agent whose approval cannot be looked up is refused" "403 AUTH_CLAIMS_LOOKUP_FAILED" "$(signed_by unapproved demo)"
is "nothing of that reached the provider" "$count" "$(wc -l < "$SEEN")"

# ---------------------------------------------------------------- approvals of the API
token="$(podman exec "$(name_of api)" sigilum login --namespace demo --token-only 2>> "$LOG")" || fail "login, see $LOG"
# In the container of admin, which keeps the key of a service.
as_owner() { podman exec --interactive "$(name_of admin)" sigilum "$@" --owner-token-stdin <<< "$token" >> "$LOG" 2>&1 || fail "$*, see $LOG"; }
as_owner service add --service-slug provider
until_true 15 "a refusal that asks the owner" eval '[ "$(signed_by unapproved demo)" = "403 AUTH_CLAIM_REQUIRED" ]'
passed "a service that is registered asks its owner about agents nobody approved"
is "also about those of other namespaces" "403 AUTH_CLAIM_REQUIRED" "$(signed_by stranger stranger)"
as_owner claim approve --service provider
until_true 10 "a request the owner approved" eval '[[ "$(signed_by unapproved demo)" == 200* ]]'
passed "what the owner approves passes"
as_owner claim revoke --service provider
until_true 10 "a refusal of what the owner revoked" eval '[ "$(signed_by unapproved demo)" = "403 AUTH_CLAIM_REQUIRED" ]'
passed "what the owner revokes is refused"

# ---------------------------------------------------------------- who reaches what
for port in 38000 38100 38200 8787; do
    answers "http://127.0.0.1:$port/$([ "$port" = 38200 ] && echo ready || echo health)" >/dev/null || fail "loopback does not reach :$port"
    if from_outside curl --silent --max-time 2 --output /dev/null "http://10.99.0.1:$port/"; then fail "others reach :$port"; fi
    passed ":$port answers on loopback and nowhere else"
done
published="$(for service in "${SERVICES[@]}"; do podman port "$(name_of "$service")"; done | sed 's/^.* -> //' | sort | paste --serial --delimiters=' ')"
is "nothing else is published" "127.0.0.1:38000 127.0.0.1:38100 127.0.0.1:8787" "$published"

for service in "${SERVICES[@]}"; do
    container="$(name_of "$service")"
    pid="$(podman inspect --format '{{.State.Pid}}' "$container")"
    # All four user ids, effective rights, rights that could be regained, and whether a new program could have more.
    is "$service runs as 65532 without rights" \
        "Uid: 65532 65532 65532 65532 CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1" \
        "$(awk '/^(Uid|CapEff|CapBnd|NoNewPrivs):/ { $1 = $1; printf "%s%s", space, $0; space = " " }' "/proc/$pid/status")"
    [ "$(podman inspect --format '{{.HostConfig.Memory}}' "$container")" -gt 0 ] || fail "the memory of $service has no bound"
    holds "memory and logs of $service are bounded" 10MB "$(podman inspect --format '{{.HostConfig.LogConfig.Size}}' "$container")"
    is "the root file system of $service is read-only" true "$(podman inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$container")"
    is "the kernel says so too" ro "$(awk '$5 == "/" { print $6 }' "/proc/$pid/mountinfo" | cut -d , -f 1)"
done

# An application: its own user is the gateway's, which is the worst case; the network is what it shares.
application() {
    podman run --rm --network sigilum_agents --user 65532:65532 --read-only --cap-drop all \
        "localhost/deploy-$DEBIAN_NAME:$DEBIAN_SUITE" /bin/bash -c "$1" 2>/dev/null
}
answer="$(application 'exec 3<>/dev/tcp/envoy/38000; printf "GET /health HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n" >&3; cat <&3' || true)"
holds "an application reaches the gateway by its name" '200 OK' "$answer"
agent_beside() {
    podman run --rm --network sigilum_agents --user 0:0 --read-only --volume "$AGENTS/$1:/agent" "$(image_name)" --home /agent \
        --namespace demo request --include GET http://envoy:38000/proxy/provider/v1/models 2>/dev/null | refusal
}
is "an approved agent in a container beside it passes under that name" 200 "$(agent_beside approved)"
is "and another is refused" "403 AUTH_CLAIM_REQUIRED" "$(agent_beside unapproved)"
is "an application sees no socket of the gateway" "" "$(application 'ls -A /run/sigilum; find / -xdev -type s' || true)"
holds "names are resolved there" envoy "$(application 'getent hosts envoy')"
# By name and by each address the stack has, with any Host.
answers_application() {
    application "exec 3<>/dev/tcp/$1/$2 && printf 'GET /$3 HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n' >&3 && timeout 3 cat <&3"
}
addresses_of() { podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$(name_of "$1")"; }
gateway_of() { podman inspect --format '{{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}' "$(name_of "$1")"; }
for address in envoy $(addresses_of envoy) $(gateway_of envoy) 10.99.0.1; do
    if answers_application "$address" 38200 ready | grep --quiet .; then fail "an application is answered at $address:38200"; fi
    passed "an application gets no answer at $address:38200"
done
holds "and where it may ask it is answered in that way" 'HTTP/1.1' "$(answers_application envoy 38000 health || true)"
for service in admin api authz; do
    if application "getent hosts $service" | grep --quiet .; then fail "an application finds $service"; fi
    passed "an application does not find $service"
done

# ---------------------------------------------------------------- data survives; twice is once
up
until_true 60 "a healthy stack" all_healthy
until_true 10 "an approved request after the second up" approved_passes again
passed "up a second time changes nothing"
down
echo GATEWAY_PUBLISH=0.0.0.0 >> "$PROJECT/.env"
up
until_true 60 "a healthy stack" all_healthy
from_outside curl --silent --fail --max-time 3 http://10.99.0.1:38000/health >/dev/null || fail "agents do not reach :38000"
passed "agents of other machines reach :38000 where .env says so"
until_true 15 "an approved request after down and up" approved_passes survived
holds "the connection and its key survive down and up" "Bearer $PROVIDER_KEY" "$(tail -n 1 "$SEEN")"

# ---------------------------------------------------------------- agents over TLS
down
FILES+=(--file compose.tls.yaml)
mkdir "$PROJECT/tls"
# pair FOLDER: a certificate of its own for the names agents call the gateway by
pair() {
    mkdir -p "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=envoy \
        -addext subjectAltName=DNS:envoy,DNS:localhost -keyout "$1/tls.key" -out "$1/tls.crt" 2>> "$LOG"
    chown 65532 "$1"/* && chmod 0400 "$1"/*
}
pair "$PROJECT/tls"
cp "$PROJECT/tls/tls.crt" "$PROJECT/trusted.pem"
up
over_tls() { sent "$1" https://localhost:38000 --cacert "$PROJECT/trusted.pem"; }
signed_for() { agent approved demo request --dry-run GET "$1://localhost:38000/proxy/provider/v1/models" > "$PROJECT/signed"; }
until_true 60 "an answer over TLS" answers --cacert "$PROJECT/trusted.pem" https://localhost:38000/health
until_true 15 "an approved request over TLS" eval 'signed_for https; [ "$(over_tls "$PROJECT/signed")" = 200 ]'
passed "with compose.tls.yaml an approved request passes over TLS"
is "in clear there is no answer" "" "$(unsigned || true)"
signed_for http
is "and what was signed for http is refused over TLS" "403 AUTH_SIGNATURE_INVALID" "$(over_tls "$PROJECT/signed")"
envoy_process="$(process_of "$(name_of envoy)")"
pair "$PROJECT/next"
mv "$PROJECT/next/tls.crt" "$PROJECT/tls/tls.crt" && mv "$PROJECT/next/tls.key" "$PROJECT/tls/tls.key"
cp "$PROJECT/tls/tls.crt" "$PROJECT/trusted.pem"
until_true 10 "the renewed certificate" answers --cacert "$PROJECT/trusted.pem" https://localhost:38000/health
is "a renewed pair is shown by the same Envoy" "$envoy_process" "$(process_of "$(name_of envoy)")"
down
FILES=(--file compose.yaml)
up
until_true 60 "a healthy stack" all_healthy
until_true 15 "an approved request in clear" approved_passes clear
passed "without that file port 38000 speaks in clear again"

# ---------------------------------------------------------------- what the container of admin says of itself
in_admin() { podman exec "$(name_of admin)" sigilum "$@" 2>&1; }
told="$(in_admin status || true)"
holds "status in the container of admin says that admin answers" "Connectivity probe:  ok (http://127.0.0.1:38100" "$told"
holds "and where the logs are" "docker compose logs" "$told"
holds "logs names that place" "docker compose logs" "$(in_admin logs || true)"

# ---------------------------------------------------------------- a backup, and the way back
podman exec "$(name_of admin)" sigilum gateway backup --output /var/lib/sigilum/before.db >> "$LOG" 2>&1 || fail "backup, see $LOG"
podman cp "$(name_of admin):/var/lib/sigilum/before.db" "$PROJECT/before.db" && [ -s "$PROJECT/before.db" ] || fail "no copy of the backup"
podman exec "$(name_of admin)" sigilum connection rm provider --yes >> "$LOG" 2>&1 || fail "connection rm, see $LOG"
until_true 10 "a refusal without the connection" eval '! approved_passes gone'
compose stop admin || fail "podman-compose stop, see $LOG"
compose run --rm --no-deps -T admin gateway restore /var/lib/sigilum/before.db || fail "restore, see $LOG"
up
until_true 60 "a healthy stack" all_healthy
until_true 15 "an approved request after the restore" approved_passes restored
holds "what a backup held is there again after a restore" "Bearer $PROVIDER_KEY" "$(tail -n 1 "$SEEN")"

# ---------------------------------------------------------------- secrets
artefacts="$DEPLOY_WORK/artefacts"
{
    # shellcheck disable=SC2046  # one name each
    podman inspect $(names) && containers_said $(names)
    podman image inspect "$(image_name)"
    podman save --format docker-archive "$(image_name)" 2>/dev/null
    cat "$LOG" "$SAID"
    find "$(podman volume inspect --format '{{.Mountpoint}}' sigilum_envoy)" -type f -exec cat {} +
    curl --silent http://127.0.0.1:38200/config_dump
    curl --silent http://127.0.0.1:38200/stats
    for service in "${SERVICES[@]}"; do
        pid="$(podman inspect --format '{{.State.Pid}}' "$(name_of "$service")")"
        cat "/proc/$pid/environ" "/proc/$pid/cmdline"
    done
} > "$artefacts"
for word in AUTH_SIGNATURE_INVALID '"the admin token was minted"' '"an authz has connected"' dynamic_forward_proxy GATEWAY_MASTER_KEY_FILE; do
    grep --quiet --binary-files=text --fixed-strings -e "$word" "$artefacts" || fail "what is searched is not whole: no $word"
done
admin_token="$(cat "$(podman volume inspect --format '{{.Mountpoint}}' sigilum_store)/data/admin-token")"
lacks "no image, environment, log or file of Envoy holds the provider's key" "$PROVIDER_KEY" "$artefacts"
lacks "nor the master key" "$MASTER_KEY" "$artefacts"
lacks "nor the secret of owner tokens" "$JWT_SECRET" "$artefacts"
lacks "nor the admin token" "$admin_token" "$artefacts"
rm -f "$artefacts"

# ---------------------------------------------------------------- bad input
# error_of SERVICE: what its last life said on standard error that is no line of the log.
error_of() { podman logs "$(name_of "$1")" 2>&1 | grep --invert-match '^{' | grep '^error: ' | tail -n 1; }
exit_code() { podman inspect --format '{{.State.ExitCode}}' "$(name_of "$1")"; }
# alone_with ARGUMENTS OF podman run…: exit code, then what it said
alone() {
    local code=0 said
    said="$(podman run --rm --network none --read-only --cap-drop all --user 65532:65532 "$@" 2>&1 >/dev/null)" || code=$?
    printf '%s %s\n' "$code" "$(grep --invert-match '^{' <<< "$said" | grep --invert-match '^hint: ')"
}

is "a secret that is not there: one line, 78" \
    "78 error: /run/secrets/gateway-master-key: No such file or directory (os error 2) (GATEWAY_MASTER_KEY_FILE names it)" \
    "$(alone --env GATEWAY_MASTER_KEY_FILE=/run/secrets/gateway-master-key "$(image_name)" gateway admin)"


# As openssl leaves it in root's hands.
(umask 077; openssl rand -hex 32 > "$PROJECT/of-root")
is "a secret that is root's alone: one line with whose it is and what to do, 78" \
    "78 error: /run/secrets/gateway-master-key: permission denied: it belongs to user 0 and group 0 with mode 0600, and this process is user 65532; let that user read it, for example: chown 65532 /run/secrets/gateway-master-key (GATEWAY_MASTER_KEY_FILE names it)" \
    "$(alone --env GATEWAY_MASTER_KEY_FILE=/run/secrets/gateway-master-key --volume "$PROJECT/of-root:/run/secrets/gateway-master-key:ro" "$(image_name)" gateway admin)"

decisions="$(podman volume inspect --format '{{.Mountpoint}}' sigilum_decisions)"
podman stop --time 5 "$(name_of authz)" >/dev/null 2>&1
until_true 10 "a refusal without authz" eval '[ "$(unsigned)" = "503 AUTHZ_UNAVAILABLE" ]'
passed "without authz everything is refused with 503"
chmod 0777 "$decisions"
found="$(alone --volume sigilum_decisions:/run/sigilum/authz --volume sigilum_state:/run/sigilum/state "$(image_name)" \
    gateway authz --listen unix:/run/sigilum/authz/authz.sock --state unix:/run/sigilum/state/state.sock --run-dir /run/sigilum/journal)"
holds "a socket volume that everybody may write to: 78" "78 error: /run/sigilum/authz: every user of this machine may write to it" "$found"
is "in one line" 1 "$(wc -l <<< "$found")"
is "and nothing is let through" "503 AUTHZ_UNAVAILABLE" "$(signed_by approved demo)"
chmod 0700 "$decisions"
podman start "$(name_of authz)" >/dev/null 2>&1
until_true 20 "an authz that is back" approved_passes back
passed "with authz back requests pass"

podman exec "$(name_of admin)" sigilum gateway drain --wait 5s --lease 1m >> "$LOG" 2>&1 || fail "drain, see $LOG"
is "a drain refuses what is new" "503 GATEWAY_DRAINING" "$(signed_by approved demo)"
podman exec "$(name_of admin)" sigilum gateway undrain --all >> "$LOG" 2>&1 || fail "undrain, see $LOG"
until_true 10 "an approved request after the drain" approved_passes undrained
passed "the gateway is drained from the container of admin"

podman stop --time 5 "$(name_of admin)" >/dev/null 2>&1
until_true 10 "an approved request without admin" approved_passes "without admin"
passed "without admin what is declared goes on"
down

# Another key, as after a mix-up of two gateways.
openssl rand -hex 32 > "$PROJECT/secrets/gateway-master-key"
count="$(wc -l < "$SEEN")"
up
until_true 30 "an admin that says why" eval 'error_of admin | grep --quiet .'
holds "the master key of another store: it says so" "master key mismatch" "$(error_of admin)"
# The engine starts it again and again; the next one to hold the lock of the store is to be ours.
podman stop --time 5 "$(name_of admin)" >/dev/null 2>&1
is "with exit code 78" "78 error: $(error_of admin | cut -d ' ' -f 2-)" \
    "$(alone --env GATEWAY_MASTER_KEY_FILE=/run/secrets/gateway-master-key --volume sigilum_store:/var/lib/sigilum \
        --volume "$PROJECT/secrets/gateway-master-key:/run/secrets/gateway-master-key:ro" "$(image_name)" gateway admin)"
until_true 20 "an Envoy that answers" eval '[ -n "$(unsigned)" ]'
if is_healthy authz >/dev/null 2>&1; then fail "an authz without a state says it is healthy"; fi
passed "an authz that has never reached its admin is not healthy"
until_true 10 "a refusal of what is not decided" eval '[[ "$(signed_by approved demo)" =~ ^503\ (NOT_READY|AUTHZ_UNAVAILABLE)$ ]]'
is "and nothing is let through" "$count" "$(wc -l < "$SEEN")"
down

printf '%s\n' "$MASTER_KEY" > "$PROJECT/secrets/gateway-master-key"
up
until_true 60 "a healthy stack" all_healthy
until_true 15 "an approved request with the right key" approved_passes right
passed "with the right key everything is there again"

mv "$PROJECT/secrets/gateway-master-key" "$PROJECT/secrets/elsewhere"
down
compose up --detach || true
if is_healthy admin >/dev/null 2>&1; then fail "admin runs without its secret"; fi
passed "without the file of the secret admin does not start"
down
say "compose: $CHECKS checks passed"
