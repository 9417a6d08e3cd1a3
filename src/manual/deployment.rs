//! The container image and the compose stack: what they are made of, and why so.
//!
//! # The image
//!
//! `deploy/Dockerfile` compiles in the official Rust image and puts the result into an empty one. What is in it is the program,
//! the four libraries it is linked to, the authorities providers are verified against, two lines of `passwd` and `group`, and
//! empty folders for volumes: about 16 MB compressed, 14 of which are the program.
//!
//! - **Why an empty base.** A ready-made base without a shell has the same C library and a few files more, and no version
//!   in its name that could be pinned. Here the C library is that of the builder, whose name has one: a security update is a
//!   newer tag of one image and a build. Debian's slim image alone is larger than the whole of ours and brings a shell.
//! - **Why not static.** With musl its allocator would be the one of our hot path; glibc linked statically still looks for
//!   its own shared files when it resolves names. Four files next to the program cost 1.5 MB.
//! - **Both bases are arguments** (`BUILD_IMAGE`, `RUNTIME_IMAGE`), for those who must build on their own. A runtime base
//!   needs nothing; where it has a `/lib` that is a link (Debian, Fedora), the libraries cannot be copied over it.
//! - **Its health check is the program.** `sigilum health --container` reads the arguments of process 1 and asks that role as
//!   its peers would: `admin` for its liveness, the API for `/health`, `authz` by gRPC on its socket, as Envoy asks. So one
//!   image has the right check whatever it runs as. Liveness and not readiness for `admin`: it is not ready before an authz
//!   has connected, and that one waits for it.
//!
//! # The processes
//!
//! Each role is a container, and the supervisor is the container engine: `gateway start` is for machines without one. What the
//! roles share is in volumes, and who mounts which is the permission:
//!
//! | volume | who | holds |
//! | --- | --- | --- |
//! | `decisions` | Envoy, authz | the socket on which Envoy asks; its answers hold credentials |
//! | `state` | authz, admin | the socket of the state stream, which holds all credentials |
//! | `envoy` | Envoy, its face (to read), admin | Envoy's file, access log and admin socket; no secret |
//! | `journal` | authz | nonces that were used, as keyed hashes |
//! | `store` | admin | the sealed store, the admin token, the gateway's identity, logs |
//! | `api` | the API | its database |
//!
//! On one machine under `gateway start` one run folder has all the sockets; that is why `gateway admin --state-listen` and
//! `gateway envoy-config --authz-socket` exist. A socket is not put into a folder that everybody may write to: whoever can,
//! could put their own in its place.
//!
//! - **One uid, 65532,** Envoy included: both ends of a socket compare user ids (`SO_PEERCRED`), and 0600 then means what it
//!   says. It is the number that images without a user of their own have come to use.
//! - **A volume takes over owner and mode of the folder in the image** on which it is mounted first. That is why the empty
//!   folders are there, 0700 and 65532; Envoy starts after the containers that mount them.
//! - **Secrets are files** that `GATEWAY_MASTER_KEY_FILE` and `JWT_SECRET_FILE` name. A file that is named and missing ends
//!   the start with 78: to make another key in its place would lock the store. Compose mounts them with the owner and mode
//!   they have on the machine, so they belong to 65532.
//! - **Envoy's file is written by a container that ends** (`envoy-file`). Envoy's image has no shell, the file has settings of
//!   `gateway.yaml` in it, and a second copy in the tree would go its own way. A change of those settings takes
//!   `docker compose up --detach --force-recreate envoy-file envoy`; approvals, connections and everything that is hot do not.
//! - **Networks.** Applications share `agents` with Envoy alone. `admin` and the API are on `control`, authz is on one that leads
//!   nowhere. Envoy's own read-only face stays on loopback in its container, which a published port does not reach: on
//!   `agents` anybody could read the configuration and whom the gateway speaks to. Whoever wants to
//!   read it starts a second Envoy with nothing but that face (`deploy/config/face.yaml`) in front of the first one's admin socket,
//!   on the loopback of the machine (`--network host`), where no container has a way. Another network of the stack would not do:
//!   podman's lead into each other, and podman-compose before 1.1 knows no option against it, nor `network_mode`.
//! - **The port of agents is on loopback** like the others, because it speaks in clear and answers whoever reaches it: whoever
//!   opens it to other machines (`GATEWAY_PUBLISH`) says so, and says who sees the network between.
//! - **TLS for agents is a second file** (`compose.tls.yaml`), because it takes a certificate that nobody can ship. `envoy-config --sds-file` has
//!   Envoy read certificate and key by way of a resource (SDS) whose folder it watches, so that a renewed pair counts without a
//!   restart; what stands in Envoy's file itself would be read once. Under `gateway start` the supervisor sees to that.
//! - **Images are variables** whose defaults are exact versions: whoever pins by digest, or has a registry of their own, says so in `.env`. A
//!   digest in the file would be one of a platform, and the next edit of a version would forget it.
//! - **A container that ends with 78 is started again all the same.** `on-failure` with a maximum would stop at a mistake in the settings, but the
//!   engine then starts nothing after the machine itself was started anew. The pause between starts grows to a minute, and logs are
//!   bounded (three files of 10 MB; podman keeps one).
//! - **Memory is bounded** for each container: a leak ends one process, which is started again, and not the machine. Envoy turns
//!   requests away before (1 GiB, in its file).
//! - **Start order** is that of who waits for whom; podman-compose before 1.1 knows only the order, and it is enough: authz
//!   asks until admin answers, and an Envoy without its file ends and is started again.
//!
//! # Measured
//!
//! On two busy cores, release build: the image has 16.3 MB compressed; all four containers started at once answer
//! `GET :38000/health` with 200 after 1.1 to 2.0 s, most of which is the engine's (admin serves 0.1 s after its start, authz
//! decides 0.3 s after its own). Resident idle: admin 27 MB, API 22 MB, authz 19 MB, Envoy 72 MB.
//!
//! # What was left out
//!
//! - A health check for Envoy's container: its image has nothing to ask with. `GET :38000/health` asks Envoy whether
//!   its authz is healthy, and is what a load balancer should ask.
//! - TLS between admin and API on `control`: that network holds those two alone. Where they are on two machines, give the API
//!   an address with `https`.
//! - A stop that waits for open streams: `docker compose stop` ends Envoy at once. Drain first
//!   (`… exec admin sigilum gateway drain --wait 30s`), then stop.
//! - Log files: each process writes to its container's log, and `logs` in a container says so. `status` in the container of admin asks
//!   admin; the port of agents is another container's, which it cannot see.
//! - `gateway restart --handoff` and reloads of what Envoy listens on: both are the supervisor's.
//!
//! # How it is tested
//!
//! `tests/deploy/run` needs no registry and no Docker: debootstrap, the program and the pinned Envoy make stand-ins
//! under the real names, so the files are used as they are. It runs in a network namespace of its own with a second one as
//! the machine outside. The real builder stage, which compiles, is the same command with `SIGILUM_DEPLOY_COMPILE=1`.
