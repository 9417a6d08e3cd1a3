//! The other processes of the bench, which are this binary started again: a provider that does as
//! little as a provider can, and an authorization service that allows everything.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::OkHttpResponse;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::Value;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;

use crate::load::find;

/// What the provider always says.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

/// Answers every request with the same bytes, for ever.
pub async fn provider(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0_u8; 64 * 1024];
            let mut filled = 0;
            loop {
                while let Some(end) = whole_request(&buffer[..filled]) {
                    buffer.copy_within(end..filled, 0);
                    filled -= end;
                    if stream.write_all(ANSWER).await.is_err() {
                        return;
                    }
                }
                match stream.read(&mut buffer[filled..]).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => filled += read,
                }
            }
        });
    }
}

/// Where the first request in `bytes` ends, if it is all there.
pub fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let length = find(&bytes[..head], b"content-length: ").map_or(0, |at| {
        let digits = bytes[at + 16..head].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |total, digit| total * 10 + usize::from(digit - b'0'))
    });
    (bytes.len() >= head + length).then_some(head + length)
}

/// Allows everything, with an answer of the size and shape of the gateway's own.
struct Allow {
    answer: Arc<CheckResponse>,
}

#[tonic::async_trait]
impl Authorization for Allow {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let head = request.metadata().get("x-sigilum-stage").is_some_and(|stage| stage == "head");
        let answer = if head { plain() } else { CheckResponse::clone(&self.answer) };
        Ok(Response::new(answer))
    }
}

fn plain() -> CheckResponse {
    CheckResponse { status: Some(RpcStatus::default()), ..CheckResponse::default() }
}

/// Serves [`Allow`] on a Unix socket: every request goes to `authority` with `path`.
pub async fn allow(socket: &Path, authority: &str, path: &str) {
    let set = |key: &str, value: &str| HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let flag = |value: bool| Value { kind: Some(Kind::BoolValue(value)) };
    let metadata = [
        ("decision_id", text("00000000-0000-0000-0000-000000000000")),
        ("path", text("/proxy/conn-000/v1/ping")),
        ("connection", text("conn-000")),
        ("namespace", text("alice")),
        ("subject", text("alice")),
        ("agent_key", text("99fb00dc16ee555a")),
        ("public_key", text("ed25519:1HhV0nyHK4hO9DXgtuy3BxVHbQjIlwLcFu1KT5Q+cU8=")),
        ("allow_private", flag(false)),
        ("allow_loopback", flag(true)),
        ("allow_set_cookie", flag(false)),
        ("forward_trace", flag(false)),
    ];
    let remove = [
        "signature-input",
        "signature",
        "content-digest",
        "sigilum-namespace",
        "sigilum-subject",
        "sigilum-agent-id",
        "sigilum-agent-key",
        "sigilum-agent-cert",
        "cookie",
        "x-sigilum-admin-token",
        "proxy-authorization",
        "forwarded",
    ];
    let ok = OkHttpResponse {
        headers: vec![
            set(":path", path),
            set(":authority", authority),
            set("x-sigilum-cluster", "upstream_http"),
            set("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
            set("x-envoy-upstream-rq-per-try-timeout-ms", "120000"),
            set("x-envoy-upstream-stream-duration-ms", "3600000"),
        ],
        headers_to_remove: remove.map(str::to_owned).to_vec(),
        response_headers_to_add: vec![set("x-sigilum-decision-id", "00000000-0000-0000-0000-000000000000")],
        ..OkHttpResponse::default()
    };
    let answer = CheckResponse {
        status: Some(RpcStatus::default()),
        dynamic_metadata: Some(Struct {
            fields: metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }),
        http_response: Some(HttpResponse::OkResponse(ok)),
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AuthorizationServer<Allow>>().await;
    let listener = UnixListener::bind(socket).unwrap();
    tonic::transport::Server::builder()
        .add_service(health_service)
        .add_service(AuthorizationServer::new(Allow { answer: Arc::new(answer) }).max_decoding_message_size(16 << 20))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .unwrap();
}
