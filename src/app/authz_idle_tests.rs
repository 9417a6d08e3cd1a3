//! Connections with a good certificate on which nobody asks for anything: they keep nobody else out, and they end.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_rustls::client::TlsStream;
use tonic::Streaming;

use super::*;
use crate::sys::grpc::Limits;
use crate::sys::grpc_use::Patience;

/// Long enough for no test to see its end.
const EVER: Duration = Duration::from_secs(3600);
/// What a test waits for.
const SHORT: Duration = Duration::from_millis(50);

/// A listener for the state with these bounds, for the workloads `billing` and `mail`.
async fn serve(ours: &Authority, limits: Limits) -> (SocketAddr, Publisher, Tasks) {
    let publisher = Publisher::new(two_connections());
    publisher.set_workloads(vec![workload("billing", &["svc-one"]), workload("mail", &["svc-two"])]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inbound = Inbound::Tls { listener, tls: ServerTls::load_unnamed(&ours.issue("admin.test")).unwrap() };
    let (service, mut tasks) = (grpc::one(publisher.service()), Tasks::default());
    tasks.spawn("state", |stop| grpc::serve("state", inbound, service, limits, stop));
    (address, publisher, tasks)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work).await.expect("in time")
}

/// A connection that has shown its certificate and says nothing.
async fn connect(address: SocketAddr, files: &TlsFiles) -> TlsStream<TcpStream> {
    let tls = ClientTls::load(files, "admin.test").unwrap();
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        tls.connector().connect(tls.server(), stream).await
    };
    within(connecting).await.unwrap()
}

/// Returns when the other end has given the connection up.
async fn ended(mut connection: TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    // However it ends: an end without TLS's own word is an error here.
    let _ = within(connection.read_to_end(&mut rest)).await;
}

/// A stream that has been sent something and goes on until it is dropped.
struct Open {
    responses: Streaming<proto::StateResponse>,
    /// Without an end of its words a stream, and its connection with it, would outlive this.
    _words: mpsc::Sender<proto::StateRequest>,
}

/// Opens one; `None`: the connection was not taken.
async fn try_open(address: SocketAddr, files: &TlsFiles, window: &str) -> Option<Open> {
    let source = StateSource::Tls(address.to_string(), ClientTls::load(files, "admin.test").unwrap());
    let (words, said) = mpsc::channel(1);
    words.send(proto::StateRequest { message: Some(hello(window)) }).await.unwrap();
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let opening = async {
        let channel = crate::state::connect(&source).await.ok()?;
        let mut responses = StateServiceClient::new(channel).stream(said).await.ok()?.into_inner();
        responses.message().await.ok()?.map(|_| Open { responses, _words: words })
    };
    within(opening).await
}

async fn open(address: SocketAddr, files: &TlsFiles, window: &str) -> Open {
    try_open(address, files, window).await.expect("a stream")
}

/// HTTP/2 on one connection that is never opened anew.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    ended: oneshot::Receiver<()>,
    _tasks: Tasks,
}

impl Client {
    async fn connect(address: SocketAddr, files: &TlsFiles) -> Self {
        let stream = TokioIo::new(connect(address, files).await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
        let (end, ended) = oneshot::channel();
        let mut tasks = Tasks::default();
        tasks.spawn("client", |_| async move {
            drop(connection.await);
            let _ = end.send(());
        });
        Self { sender, ended, _tasks: tasks }
    }

    /// A request that is answered at once: nobody is called so.
    async fn ask(&mut self) {
        let request = http::Request::post("http://admin/nobody.Nobody/Nothing").body(Full::default()).unwrap();
        assert_eq!(within(self.sender.send_request(request)).await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_certificate_make_room_for_another() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let patience = Patience { first: EVER, later: None };
    let limits = Limits { connections: 4, of_one: 4, patience, ..Publisher::limits() };
    let (address, _publisher, tasks) = serve(&ours, limits).await;
    let billing = ours.issue("billing.test");
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(connect(address, &billing).await);
    }
    let mail = open(address, &ours.issue("mail.test"), "local:m").await;
    // The oldest had to go.
    ended(idle.swap_remove(0)).await;
    drop((idle, mail));
    tasks.stop_handle().stop();
    tasks.supervise(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_has_its_share_of_connections_and_no_more() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let patience = Patience { first: EVER, later: None };
    let limits = Limits { connections: 4, of_one: 2, patience, ..Publisher::limits() };
    let (address, _publisher, tasks) = serve(&ours, limits).await;
    let billing = ours.issue("billing.test");
    let held = [open(address, &billing, "local:b").await, open(address, &billing, "local:b").await];
    ended(connect(address, &billing).await).await;
    let mail = open(address, &ours.issue("mail.test"), "local:m").await;
    // What is given back is free again.
    drop(held);
    let again = async { while try_open(address, &billing, "local:b").await.is_none() {} };
    within(again).await;
    drop(mail);
    tasks.stop_handle().stop();
    tasks.supervise(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_state_without_a_stream_ends_and_one_with_a_stream_stays() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let patience = Patience { first: SHORT, later: Some(SHORT) };
    let (address, publisher, tasks) = serve(&ours, Limits { patience, ..Publisher::limits() }).await;
    let (billing, mail) = (ours.issue("billing.test"), ours.issue("mail.test"));
    let mut held = open(address, &mail, "local:m").await;
    let mut asked = Client::connect(address, &billing).await;
    asked.ask().await;
    within(&mut asked.ended).await.unwrap();
    // It says nothing at all, not even in HTTP.
    ended(connect(address, &billing).await).await;
    publisher.set_workloads(vec![workload("mail", &["svc-one"])]);
    within(held.responses.message()).await.unwrap().unwrap();
    tasks.stop_handle().stop();
    tasks.supervise(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_envoys_may_rest_after_its_first_check_and_not_before() {
    let root = tempfile::tempdir().unwrap();
    let ours = Authority::new(root.path(), "ours");
    let limits = Limits { patience: Patience { first: SHORT, ..Limits::default().patience }, ..Limits::default() };
    let (address, _publisher, tasks) = serve(&ours, limits).await;
    let envoy = ours.issue("envoy.test");
    let mut rests = Client::connect(address, &envoy).await;
    rests.ask().await;
    let unused = Client::connect(address, &envoy).await;
    within(unused.ended).await.unwrap();
    // It came before that one, and is there.
    rests.ask().await;
    tasks.stop_handle().stop();
    tasks.supervise(TIMEOUT).await;
}
