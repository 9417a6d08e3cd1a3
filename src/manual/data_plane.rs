//! What was tried on Envoy 1.40.0, and what `envoy/envoy.yaml` does because of it.
//!
//! # Changes while it runs
//!
//! `envoy/envoy.yaml` is one static file, readable and valid on its own. For an Envoy of ours [`crate::envoy::split`] divides the
//! parsed document: `run/envoy.json` is what it starts with, `run/xds/listeners.json` are its listeners, which it watches. A file there
//! is replaced by renaming, the only thing Envoy notices. [`crate::envoy::live`] writes a new one, waits until Envoy's admin
//! interface shows its version, and puts the old one back where Envoy refuses it or says nothing for 5 s.
//!
//! What was tried:
//!
//! | change | Envoy 1.40 |
//! | --- | --- |
//! | filters of a listener (trusted hops, body limit, TLS) | in place: the socket stays, new connections get the new filters, old ones finish with theirs |
//! | another address under the same name | the new socket is opened first; refused where it cannot be bound. But an address *added* to those a listener has is refused as a duplicate |
//! | another name, address not free | **the old listener is gone and the new one refused**: an update is not atomic |
//! | a listener refused among others | the others are taken all the same |
//! | a file that is no JSON | nothing changes; counted as a failure, not as a rejection |
//!
//! So each address is a listener of its own, named by it, and a move is two files: first the new listener beside the old, then
//! without the old. Only where the new address lies within the old one (`0.0.0.0:1` after `127.0.0.1:1`) the old is closed first,
//! for some tens of milliseconds. Four listeners for two dual-stack ones cost 0.3 MB more than two.
//!
//! Connections of changed listeners may go on for an hour (`--drain-time-s 3600`, as long as a stream may last) and are told
//! with their next answer to come again (`--drain-strategy immediate`). Envoy wants a node id and a cluster name for any source
//! but the static file, so `/health` carries `x-envoy-upstream-healthchecked-cluster: sigilum`.
//!
//! # TLS for agents
//!
//! The printed file names certificate and key; for an Envoy of ours they become secrets it asks for by name (SDS). What it is
//! told of are links in `run/xds/tls`, one pair of names per version, that lead to the files of whoever runs the gateway: no key is
//! copied, and none is in `/config_dump`, where Envoy shows the chain and `[redacted]`.
//!
//! Envoy notices a file that is renamed into its folder, not one that is written in place, nor a link that is removed and made
//! anew (as certbot does). So admin looks at the files every half second ([`crate::envoy::live::Live::watch`]); what is the same at two looks
//! is read as a server would read it, and only a certificate with its own key becomes a new version. Envoy reads a file again
//! only where the name in the resource is another: hence the names. A refused pair leaves the old one served, whether we or
//! Envoy refuse it. Connections stay; new handshakes get the new certificate. Envoy takes no Ed25519 certificates.
//!
//! An Envoy that is started again while its files are broken has nothing to serve, and opens no port until they are whole:
//! the price of keeping no copy of the key.
//!
//! # Addresses of providers
//!
//! A dynamic forward proxy with one DNS cache for all origins costs a few kilobytes per origin, and
//! an RBAC filter can judge the address it resolved. But a name may have several addresses, the filter sees
//! only the first, and where the first does not answer Envoy dials the next (Happy Eyeballs, RFC 8305).
//! A name that answers with a closed port and then with loopback reached loopback. So the judgement
//! sits in the router's *upstream* filters, once per try, and the decision chooses among three clusters:
//!
//! | cluster | for | why that is enough |
//! | --- | --- | --- |
//! | `upstream_http` | `http://` and an address literal | a literal has one address, and it is the one judged |
//! | `upstream_https` | `https://` | the first address is judged; any other gets no request unless it proves the name by certificate |
//! | `upstream_names` | `http://` and a name | a cluster per origin, made on first use: each address is a host of its own and is judged before it is dialled |
//!
//! A cluster per origin for everything was measured at about 340 kB and 5 ms of CPU per TLS origin, with
//! a bound of 1,024: it would have made memory grow with the number of connections. Names over plain HTTP
//! are what is left of that bound, and a provider of a production key speaks TLS.
//!
//! The cache's own `resolved_address_filter` cannot be used for this: it drops addresses for all
//! connections alike, and whether a private address is allowed is a property of one.
//!
//! # Bodies
//!
//! `per_connection_buffer_limit_bytes` is 32 KiB and not twice the body limit. 400 uploads of 2 MB at once cost
//! Envoy 311 MB at 4 MiB and 21 MB at 64 KiB where they were unsigned, but up to 76 MB at 64 KiB where strangers
//! had signed them, because a verification takes longer than a glance; at 32 KiB both cost 10 to 32 MB. The second
//! check raises the limit for its own stream once the first has verified the signature. Its own limit stands 64 KiB above
//! the body limit: at exactly the limit it stopped reading and waited for ever. GET and HEAD, which have
//! only the second check, may carry 16 KiB.
//!
//! # Upgrades
//!
//! The body limit skips upgrades, because their bytes are no body and a websocket was cut at 2 MiB; an
//! upgrade forces HTTP/1.1 towards a TLS provider, because over HTTP/2 it answered 502.
//!
//! # The route
//!
//! The route by `x-sigilum-cluster` accepts the three names above and nothing else: before that, a
//! decision that named `envoy_admin` would have reached Envoy's own admin interface. Early header
//! mutation removes the header from what clients send.
//!
//! # Its own answers
//!
//! All of them carry `Cache-Control: no-store` and, where they are refusals, the envelope. Health is answered to GET and HEAD, to
//! OPTIONS with 204, to other methods with 405 and `Allow`: these two are what the mapper makes of the refusal by the
//! filter `front`, so a page of elsewhere is told of no origin. An upgrade nobody offers never reaches a filter; its
//! answer is told apart by its details (`upgrade_failed`) and wears `METHOD_OR_PATH_FORBIDDEN` without a request id.
//!
//! # The client's address
//!
//! `x-envoy-external-address` as set by our Envoy: `source.address` of a check is the socket's peer
//! whatever the number of trusted hops.
