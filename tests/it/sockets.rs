//! Check answers and the state stream carry credentials: they answer to Envoy and to authz, nobody else.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use sigilum::wire::state::proto;
use tonic::Code;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::support::gateway::shared;
use crate::support::parts;
use crate::support::upstream::runtime;

/// Long enough for any honest answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks the authz behind `socket` about an empty request.
async fn check(socket: &Path) -> Result<u32, Status> {
    let channel = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().timeout(ANSWER).connect_lazy();
    let response = AuthorizationClient::new(channel).check(CheckRequest::default()).await?.into_inner();
    // google.rpc.Code: 0 would be an approval.
    Ok(u32::try_from(response.status.map_or(99, |status| status.code)).unwrap())
}

/// Subscribes to the state behind `socket` and waits for the first message.
async fn subscribe(socket: &Path) -> Result<proto::StateResponse, Status> {
    let channel = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().timeout(ANSWER).connect_lazy();
    let hello = proto::Hello { holds: None, node: "a stranger".into(), ..Default::default() };
    let hello = proto::StateRequest { message: Some(proto::state_request::Message::Hello(hello)) };
    let mut client = proto::state_service_client::StateServiceClient::new(channel);
    // The stream stays open on our side: only a message counts as an answer.
    let outgoing = futures_util::StreamExt::chain(
        futures_util::stream::once(std::future::ready(hello)),
        futures_util::stream::pending(),
    );
    let mut stream = client.stream(outgoing).await?.into_inner();
    let first = tokio::time::timeout(ANSWER, stream.message()).await;
    let first = first.map_err(|_| Status::new(Code::DeadlineExceeded, "no message"))??;
    first.ok_or_else(|| Status::new(Code::Unavailable, "closed"))
}

#[test]
fn a_process_that_is_not_envoy_gets_no_check_answer() {
    let gateway = shared();
    let refused = runtime().block_on(check(&gateway.setup.run_dir().join("authz.sock")));
    let status = refused.expect_err("authz answered a stranger");
    assert_ne!(status.code(), Code::DeadlineExceeded, "turned away, not left waiting: {status}");
    assert!(gateway.healthy(), "and Envoy is still served");
}

#[test]
fn a_process_that_is_not_authz_gets_no_state() {
    let gateway = shared();
    let refused = runtime().block_on(subscribe(&gateway.setup.run_dir().join("state.sock")));
    let status = refused.expect_err("admin gave its state to a stranger");
    assert_ne!(status.code(), Code::DeadlineExceeded, "turned away, not left waiting: {status}");
    assert!(gateway.admin_ready(), "and authz is still served");
}

#[test]
fn the_same_clients_are_answered_where_no_process_is_named() {
    // Each process on its own, as in containers: the rule is then the user. It shows that the two
    // tests above are refused for who they are and not for what they ask.
    let parts = parts::shared();
    let code = runtime().block_on(check(&parts.setup.run_dir().join("authz.sock"))).unwrap();
    assert_ne!(code, 0, "an empty request must not be approved");
    let first = runtime().block_on(subscribe(&parts.setup.run_dir().join("state.sock"))).unwrap();
    assert!(matches!(first.message, Some(proto::state_response::Message::Full(_))), "no full state came first");
}

#[test]
fn sockets_and_files_are_private() {
    let gateway = shared();
    let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    for socket in ["authz.sock", "state.sock", "envoy-admin.sock"] {
        assert_eq!(mode(&gateway.setup.run_dir().join(socket)), 0o600, "{socket}");
    }
    for file in ["admin-token", "gateway.db"] {
        assert_eq!(mode(&gateway.setup.data().join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&gateway.setup.home().join("gateway-master-key")), 0o600);
    assert_eq!(mode(&gateway.setup.data()), 0o700);
    assert_eq!(mode(&gateway.setup.run_dir()), 0o700);
}

#[test]
fn the_face_of_envoys_admin_only_reads() {
    use crate::support::client::Request;
    use crate::support::client::send;
    let gateway = shared();
    let face = gateway.setup.face;
    let ask = |method: &str, target: &str| send(face, &Request::new(method, &face.to_string(), target)).status;
    for target in ["/ready", "/stats", "/stats/prometheus", "/clusters", "/server_info", "/config_dump", "/certs"] {
        assert_eq!(ask("GET", target), 200, "{target}");
        assert_eq!(ask("POST", target), 404, "{target}");
    }
    for target in
        ["/", "/quitquitquit", "/logging?level=trace", "/drain_listeners", "/healthcheck/fail", "/reset_counters"]
    {
        assert_eq!(ask("GET", target), 404, "{target}");
        assert_eq!(ask("POST", target), 404, "{target}");
    }
    assert!(gateway.healthy());
}

#[test]
fn the_face_of_envoys_admin_answers_to_loopback_names_only() {
    use crate::support::client::Request;
    use crate::support::client::send;
    let face = shared().setup.face;
    let ask = |host: &str| send(face, &Request::new("GET", host, "/server_info")).status;
    for host in ["localhost".to_owned(), format!("localhost:{}", face.port()), face.to_string()] {
        assert_eq!(ask(&host), 200, "{host}");
    }
    // What a browser sends for a name that was rebound to 127.0.0.1.
    for host in ["rebound.example", "localhost.rebound.example", "127.0.0.1.rebound.example:38200"] {
        assert_eq!(ask(host), 404, "{host}");
    }
}
