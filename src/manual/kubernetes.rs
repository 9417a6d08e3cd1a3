//! On Kubernetes: what the manifests of `deploy/k8s` decide, and what an Envoy of somebody else's does differently.
//!
//! # Beside the application, or shared
//!
//! | | `sidecar` | `shared` |
//! | --- | --- | --- |
//! | admin | one per pod; its store is made anew from `gateway.yaml` | one, with a volume |
//! | secrets of providers | in the pod that uses them | in admin, and in every authz entitled to them |
//! | agents come | on `127.0.0.1:38000` of their pod | through a Service; they sign for its name, which `gateway.authorities` holds |
//! | replay window | the pod's own: nobody else answers for `127.0.0.1` there | one for all replicas; `gateway.loopback_names: false`, or a request used beside an application could be used here again |
//! | approvals | declared, or read by each pod | read once |
//! | when admin is away | one pod is concerned | claims go on for their TTL and grace, declared approvals for good |
//! | fits | few providers per workload, workloads that do not trust each other | many agents, one team that runs the gateway |
//!
//! # Native sidecars
//!
//! Admin, Envoy and authz are `initContainers` with `restartPolicy: Always` (Kubernetes 1.29). They start one after the other, each
//! when the startup probe of the one before holds, and the application after the last of them: its first request can be
//! decided. At the end it is the application that goes first. An ordinary container beside it would be told to end at the same
//! moment, and what the application still says on its way out would fail.
//!
//! The order is admin, Envoy, authz. Envoy can live without the other two, and says so on its probe listener; the startup
//! probe of authz holds only with a state, so it stands last. At the end authz goes before Envoy, which then has nothing left to ask
//! for: hooks run for all containers as soon as the pod is to end, signals come in order. That is why the drain is a `preStop`
//! of authz: Envoy's image has no shell and no client to speak to its own admin interface with, and whoever waits in that hook keeps both
//! alive. In the shared data plane Envoy is a native sidecar of authz for the same reason.
//!
//! `gateway drain --envoy` lets the health check of that one Envoy fail and leaves its ports open: a balancer needs some seconds to hear
//! of it, and whoever still comes is served and told to come elsewhere. An Envoy that balances hears of it with the
//! next answer already, while it finds a new replica at the pace of its checks: that is why `minReadySeconds` keeps the next
//! replica in place for ten seconds after one is ready. Without, both could be out at once for a moment (seen). `gateway drain` without `--envoy` is another thing: it
//! reaches every authz of an admin.
//!
//! # Probes
//!
//! | container | startup | liveness | readiness |
//! | --- | --- | --- | --- |
//! | Envoy | `/ready` on 38300: its main thread answers | the same | `/healthz` on 38300: authz decides |
//! | authz | `health --authz`: it would decide a request signed now | `health --live --authz`: it answers at all | that of Envoy; in the shared data plane its own |
//! | admin | `health --live`, or `/health/live` | the same | in a sidecar none: declared approvals go on without it |
//!
//! A kubelet asks at the pod's address, where a sidecar has nothing else: hence the probe listener, which answers two paths and is not
//! in the file of a laptop. Liveness never asks for more than the process itself: an authz without a state is not helped by a
//! restart, and a restart of Envoy because authz is away would cut streams. Requests are counted against no probe. One thing makes
//! a living Envoy fail it: `/ready` is 503 once its health check was failed. A pod that ends is probed no more, but an Envoy that
//! somebody drained by hand (`gateway drain --envoy`), in a pod that is to stay, is restarted after 30 s.
//!
//! An authz whose certificate no workload names is refused by admin, gets no state and is not ready; both say so in their logs. One whose
//! own certificate is past its time does not start.
//!
//! Admin's own readiness wants an authz that has its state, which reaches it through the Service of admin. That Service therefore leads
//! to admins that are not ready.
//!
//! # What of the pod is the gateway's
//!
//! Its containers and volumes, and `enableServiceLinks: false`: a Service of the namespace that is called `gateway` would set `GATEWAY_PORT`. The
//! account, its token, the user, the group of files and the time to end are the application's owner's. What can be said of a container
//! is said there: user, `runAsNonRoot`, seccomp, and an empty volume where Kubernetes would mount the token of the account, which
//! nothing of ours uses. What cannot is asked for in `application.yaml`: some `fsGroup`, as a Secret's files are otherwise readable
//! by root alone or by everybody, and 80 seconds to end.
//!
//! # Sockets and users
//!
//! Loopback is the application's too, so Envoy's read-only face is not in the sidecar's file (`envoy-config --no-admin-face`): its
//! statistics name the connections of all agents of the pod. The drain takes Envoy's own socket, and probes have their listener.
//!
//! All containers of the gateway run as 65532, because the sockets answer to their own user alone; the application must run as another.
//! Two volumes in memory hold them: one that Envoy and authz share (and admin, for the access log), one that admin and authz share,
//! so that Envoy does not see the state. The application mounts neither. Files of Secrets are root's with mode 0440 and the group of `fsGroup`,
//! which the gateway accepts as its own. In memory counts: in a sidecar `usage.max_backlog_bytes` bounds the access log there. In the
//! shared data plane there is no admin beside Envoy that would put the log aside, so Envoy says it on its standard output
//! (`envoy-config --access-log stdout`), which the platform keeps in bounds; its lines are as Envoy writes them. Admin therefore counts no
//! requests to providers there, knows of no refusal and of no last use, and reports no usage.
//!
//! `gateway rekey` writes the next key beside the old one, which a Secret does not allow. Where the key has to change: make a
//! backup, put a new Secret in place, and begin with a new volume; in a sidecar the next pod does.
//!
//! # One admin
//!
//! `strategy: Recreate` and a `ReadWriteOncePod` volume, because the store has one writer: a second admin would end with exit code 78
//! on the lock. The PodDisruptionBudget of one of one makes whoever empties a node ask first; Valkey has one for the same reason. A
//! pod that is deleted is not asked for: cordon the node, delete the pod, and it starts on another node.
//!
//! The password of the shared gateway is a Secret of its own (`admin.password_file`), because a minted token on the volume would
//! be known to nobody in the cluster; admin takes a changed one as it is. Prometheus does not hold it: `sigilum-metrics` has a token that
//! opens `/metrics` and nothing else (`admin.metrics_token_file`), and the ServiceMonitor names that Secret.
//!
//! # TLS for agents
//!
//! `shared` speaks in clear on 38000: a mesh, or whoever encrypts between nodes, may be there already. `shared-tls` is the same with a
//! certificate in front: it gives Envoy the Secret `sigilum-agents-tls`, and renames the Service's port. The names in the certificate are
//! those of `gateway.authorities`. Agents sign `https://` URLs; what was signed for `http://` does not count there. Envoy reads the pair
//! by way of a resource (`envoy-config --sds-file`) and watches the folder, in which a kubelet replaces all files of a Secret in one
//! step; a pair that does not fit together leaves it with the one it had, which its log says. authz and admin never see that key. It
//! is an overlay and not a setting, because Envoy's file is a ConfigMap there, which nobody renders in the cluster.
//!
//! # Envoy's statistics
//!
//! Envoy's admin interface is a socket of the pod's, and its read-only face on 38200 answers on loopback alone, because it tells the
//! whole configuration. Prometheus comes from another pod, so `envoy-config --stats-addr` adds a listener that answers `GET
//! /stats/prometheus` and nothing else; the PodMonitor `sigilum-envoy` names its port. There is no token on it: it tells how
//! much of what happened, and no host of a provider is in a name. Who may come is up to the network: the policy of the data
//! plane lets agents to 38000, that of `monitoring` lets Prometheus to 38301, and no Service has the port. In a sidecar the
//! application shares the pod's loopback, so the listener is not in that overlay: add it where the application may know, or read
//! admin's metrics, which count what Envoy did.
//!
//! # The store of the window
//!
//! One Valkey in memory, no volume and no replica. Where it is started anew its memory is another, which every authz notices, and what
//! was signed before is refused for some seconds ([`fleet`](crate::manual::fleet)): what a disk had kept would not be asked for. A
//! StatefulSet of one is never two at a time, as a Deployment may be for a moment; two would be two memories.
//!
//! Valkey reads its certificate at its start and when it is told to (`CONFIG SET tls-cert-file`, also with the name it has), so
//! its liveness probe tells it every 20 seconds. A broken file leaves it with the certificate it had, and says so in its log. The probe
//! does not verify what it speaks to, which is its own loopback: a certificate that has run out would otherwise keep the next
//! one away. It has a user of its own, who may do nothing but that; the password is made at each start, is known in this pod alone and
//! goes over standard input, so that no list of processes has it.
//!
//! # Who reaches whom
//!
//! A test evaluates the NetworkPolicies for all pods against each other and compares the open ways with the list of calls: agents to 38000,
//! an Envoy of yours to 38001, Prometheus to 38100 and 38301, every authz to 38101 and 6379. Port 38300 is in no policy: a
//! kubelet comes from the node, and policies are not about it. Only admin and Envoy leave the cluster, for port 443 of public addresses.
//!
//! Limits are of memory alone. A limit of the processor stops a process in the middle of a decision until the next period begins, at
//! the busiest moment; requests share it out as well.
//!
//! # Kustomize and no Helm chart
//!
//! What differs between installations is the settings file, the image's place, the number of replicas and names of Secrets. All of it
//! is either `gateway.yaml` itself or a patch of a few lines, and kustomize is part of `kubectl`. A chart would repeat each setting as a
//! value, with a second place where it is documented and a template language between the reader and the manifest. What kustomize
//! cannot do: make a `PrometheusRule` of the rules file, and read a file outside of its folder. Both copies are in the tree and
//! held equal by a test.
//!
//! # An Envoy of somebody else's
//!
//! `deploy/envoy`, `deploy/envoy-gateway` and `deploy/istio` each have a page on what differs. In short: the route says which connection it
//! is (`context_extensions`), the path and the host are the route's, the body is buffered before anything is verified, addresses of
//! providers are not judged by us, and what comes back is not cleaned. Neither Envoy Gateway nor Istio can be told in its own
//! words to keep repeated headers apart, which authz insists upon, so both examples patch the filter.
//!
//! **Whoever writes routes there decides where credentials go.** A route that names no connection would be read like one of our own Envoy,
//! whose path chooses, and then lead where the route leads: the examples give the virtual host a connection that does not
//! exist, and each route its own.
//!
//! # How it was tried
//!
//! Manifests are validated against the schemas of Kubernetes and of the operators in `cargo test`. `tests/deploy/run` builds each
//! overlay and runs the sidecar as a pod of podman's, with the probes and the hook of the manifest; then the shared gateway: admin, two
//! data planes, one of `shared-tls` and Valkey (Debian's Redis under its name) as pods, a Sigilum API beside them. It has not been run on a cluster:
//! what a kubelet does with the order of sidecars and hooks is taken from its documentation.
