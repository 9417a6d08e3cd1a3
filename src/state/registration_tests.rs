use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::domain::approval::Freshness;
use crate::domain::ids::PublicKey;
use crate::domain::snapshot::Settings;
use crate::domain::snapshot::Snapshot;
use crate::state::PublishedState;
use crate::state::Publisher;
use crate::state::StateSource;
use crate::state::Subscriber;
use crate::sys::clock::SystemClock;
use crate::sys::peer::PeerRule;
use crate::sys::peer::bind_private;
use crate::sys::tasks::StopHandle;
use crate::sys::tasks::stop_pair;
use crate::wire::state;

/// Long enough for anything that is to happen at all.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

/// Admin's end, served on a Unix socket.
struct Admin {
    publisher: Publisher,
    stop: StopHandle,
    serving: JoinHandle<()>,
    _peers: watch::Sender<Option<PeerRule>>,
}

impl Admin {
    async fn serve(path: &Path) -> Self {
        Self::serve_from(path, 1, |_| {}).await
    }

    /// With the store at this version, and something said before anything is served.
    async fn serve_from(path: &Path, version: u64, prepare: impl FnOnce(&Publisher)) -> Self {
        let settings = state::encode_settings(&Settings::default());
        let publisher =
            Publisher::new(PublishedState { epoch: "e".to_owned(), version, settings, ..PublishedState::default() });
        prepare(&publisher);
        let (stop, stopped) = stop_pair();
        let (peers, rule) = watch::channel(Some(PeerRule::same_user()));
        let listener = bind_private(path).await.unwrap();
        let serving = tokio::spawn(publisher.clone().serve_unix(listener, rule, stopped));
        Self { publisher, stop, serving, _peers: peers }
    }

    async fn end(self) {
        self.stop.stop();
        in_time(self.serving).await.unwrap();
    }
}

/// Both ends on a socket of their own.
struct Pair {
    admin: Admin,
    registrar: RegistrarLink,
    current: Arc<ArcSwapOption<Snapshot>>,
    path: PathBuf,
    stop: StopHandle,
    following: JoinHandle<()>,
    _folder: TempDir,
}

impl Pair {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.sock");
        let admin = Admin::serve(&path).await;
        let subscriber = Subscriber::new();
        let (registrar, mut arrived) = (subscriber.registrar(), subscriber.arrived());
        let current = subscriber.current();
        assert_eq!(registrar.register(register("early")).await, None, "there is no stream yet");
        let (stop, stopped) = stop_pair();
        let (source, report) = (StateSource::Unix(path.clone()), proto::Report::default);
        let following = tokio::spawn(subscriber.run(
            source,
            "test".to_owned(),
            tokio::sync::watch::channel(Some(String::new())).1,
            SystemClock,
            report,
            stopped,
        ));
        in_time(arrived.wait_for(|arrived| *arrived)).await.unwrap();
        Self { admin, registrar, current, path, stop, following, _folder: folder }
    }

    async fn end(self) {
        self.stop.stop();
        in_time(self.following).await.unwrap();
        self.admin.end().await;
    }
}

fn register(subject: &str) -> proto::Register {
    proto::Register {
        id: 99,
        service: "svc".to_owned(),
        namespace: "abc".to_owned(),
        public_key: vec![7; 32],
        subject: subject.to_owned(),
        ..proto::Register::default()
    }
}

fn claimed(claim: &str) -> proto::Registered {
    let result = proto::RegisterResult::Recorded.into();
    proto::Registered { id: 1234, result, claim_id: claim.to_owned(), ..proto::Registered::default() }
}

#[tokio::test]
async fn each_answer_finds_who_asked_in_whatever_order_it_comes() {
    let pair = Pair::start().await;
    let mut desk = pair.admin.publisher.registrations();
    let asked: Vec<_> = ["one", "two", "three"]
        .map(|subject| {
            let registrar = pair.registrar.clone();
            tokio::spawn(async move { (subject, registrar.register(register(subject)).await) })
        })
        .into();
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(in_time(desk.recv()).await.unwrap());
    }
    taken.reverse();
    for Registration { register, answer } in taken {
        assert_eq!((register.service.as_str(), register.public_key.len()), ("svc", 32));
        answer.send(claimed(&format!("cl_{}", register.subject))).unwrap();
    }
    for asked in asked {
        let (subject, answer) = in_time(asked).await.unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.claim_id, format!("cl_{subject}"));
        assert_eq!(answer.result(), proto::RegisterResult::Recorded);
    }
    // The stream still carries the state.
    let mut changes = pair.admin.publisher.changes();
    changes.mark_unchanged();
    pair.admin.publisher.publish(2, crate::state::Change::Delete("none".to_owned()));
    in_time(changes.changed()).await.unwrap();
    in_time(async {
        while !pair.admin.publisher.peers().iter().any(|peer| peer.current) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    pair.end().await;
}

#[tokio::test]
async fn where_nobody_registers_or_gives_up_the_answer_says_so_at_once() {
    let pair = Pair::start().await;
    let failed = proto::RegisterResult::FailedBeforeResponse;
    let answer = in_time(pair.registrar.register(register("nobody"))).await.unwrap();
    assert_eq!((answer.result(), answer.error.as_str()), (failed, NOBODY));
    let mut desk = pair.admin.publisher.registrations();
    let (answer, ()) = tokio::join!(in_time(pair.registrar.register(register("dropped"))), async {
        drop(in_time(desk.recv()).await.unwrap());
    });
    let answer = answer.unwrap();
    assert_eq!((answer.result(), answer.error.as_str()), (failed, DROPPED));
    // The one that was there first is told that another has taken over.
    let mut later = pair.admin.publisher.registrations();
    assert!(in_time(desk.recv()).await.is_none());
    let (answer, ()) = tokio::join!(in_time(pair.registrar.register(register("later"))), async {
        in_time(later.recv()).await.unwrap().answer.send(claimed("cl_later")).unwrap();
    });
    assert_eq!(answer.unwrap().claim_id, "cl_later");
    drop(later);
    let answer = in_time(pair.registrar.register(register("gone"))).await.unwrap();
    assert_eq!(answer.error, NOBODY);
    pair.end().await;
}

#[tokio::test]
async fn a_flood_is_turned_away_and_what_was_taken_is_answered() {
    let pair = Pair::start().await;
    let mut desk = pair.admin.publisher.registrations();
    let asks: Vec<_> = (0..500)
        .map(|number| {
            let registrar = pair.registrar.clone();
            tokio::spawn(async move { registrar.register(register(&number.to_string())).await })
        })
        .collect();
    // Nobody has been answered yet: who comes away now was turned away.
    let taken = in_time(async {
        let mut taken = Vec::new();
        while taken.len() < MAX_IN_FLIGHT {
            taken.push(desk.recv().await.unwrap());
        }
        while asks.iter().filter(|ask| ask.is_finished()).count() < 500 - MAX_IN_FLIGHT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        taken
    })
    .await;
    assert!(desk.try_recv().is_err());
    assert_eq!(in_time(pair.registrar.register(register("one more"))).await, None);
    for Registration { register, answer } in taken {
        answer.send(claimed(&register.subject)).unwrap();
    }
    let mut answered = 0;
    for (number, ask) in asks.into_iter().enumerate() {
        if let Some(answer) = in_time(ask).await.unwrap() {
            assert_eq!(answer.claim_id, number.to_string());
            answered += 1;
        }
    }
    assert_eq!(answered, MAX_IN_FLIGHT);
    // There is room again.
    let (answer, ()) = tokio::join!(in_time(pair.registrar.register(register("after"))), async {
        in_time(desk.recv()).await.unwrap().answer.send(claimed("cl_after")).unwrap();
    });
    assert_eq!(answer.unwrap().claim_id, "cl_after");
    pair.end().await;
}

#[tokio::test]
async fn the_end_of_the_stream_ends_the_waiting() {
    let pair = Pair::start().await;
    let mut desk = pair.admin.publisher.registrations();
    let registrar = pair.registrar.clone();
    let asked = tokio::spawn(async move { registrar.register(register("caught")).await });
    let held = in_time(desk.recv()).await.unwrap();
    let Pair { admin, registrar, path, stop, following, _folder, current: _ } = pair;
    admin.end().await;
    assert_eq!(in_time(asked).await.unwrap(), None);
    drop(held);
    // A new admin, a new stream: registrations go there.
    let admin = Admin::serve(&path).await;
    let mut desk = admin.publisher.registrations();
    let answer = in_time(async {
        loop {
            let answering = async { desk.recv().await.unwrap().answer.send(claimed("cl_again")).unwrap() };
            tokio::select! {
                answer = registrar.register(register("again")) => match answer {
                    Some(answer) => break answer,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                },
                () = async { answering.await; std::future::pending().await } => {}
            }
        }
    })
    .await;
    assert_eq!(answer.claim_id, "cl_again");
    stop.stop();
    in_time(following).await.unwrap();
    admin.end().await;
}

/// A client that is not our subscriber, and keeps to no limit.
#[tokio::test]
async fn an_authz_that_floods_is_answered_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sock");
    let admin = Admin::serve(&path).await;
    let desk = admin.publisher.registrations();
    let channel = tonic::transport::Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
    let channel = in_time(channel.connect()).await.unwrap();
    let (outgoing, requests) = mpsc::channel(1);
    outgoing.send(request(proto::state_request::Message::Hello(proto::Hello::default()))).await.unwrap();
    let mut client = proto::state_service_client::StateServiceClient::new(channel);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut responses = in_time(client.stream(requests)).await.unwrap().into_inner();
    let flood = tokio::spawn(async move {
        for id in 0..5000 {
            let register = proto::Register { id, ..register("flood") };
            outgoing.send(request(proto::state_request::Message::Register(register))).await.unwrap();
        }
        outgoing
    });
    // The first are taken and never answered; every other is, as busy.
    let mut busy = std::collections::BTreeSet::new();
    while busy.len() < 5000 - MAX_IN_FLIGHT {
        let response = in_time(responses.message()).await.unwrap().unwrap();
        if let Some(proto::state_response::Message::Registered(registered)) = response.message {
            assert_eq!((registered.error.as_str(), registered.http_status), (BUSY, 0));
            assert!(busy.insert(registered.id), "{} is answered twice", registered.id);
        }
    }
    assert_eq!(desk.len(), MAX_IN_FLIGHT);
    drop(in_time(flood).await.unwrap());
    admin.end().await;
}

#[tokio::test]
async fn an_authz_goes_on_with_its_claims_while_admin_begins_anew() {
    let Pair { admin, path, current, stop, following, _folder, registrar: _ } = Pair::start().await;
    let version = async |wanted| {
        while current.load().as_ref().is_none_or(|held| held.version.version != wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut list = admin.publisher.claim_list("svc");
    list.push("abc", PublicKey::new([7; 32]), None);
    let changes = admin.publisher.claims_difference("svc", list);
    for (change, version) in changes.into_iter().zip(2..) {
        admin.publisher.publish(version, change);
    }
    in_time(version(2)).await;
    admin.publisher.expect_claims(vec!["too-late".to_owned()]);
    assert_eq!(admin.publisher.claims_ages().len(), 1);
    let held = current.load_full().unwrap();
    let age = held.approvals.freshness("svc");
    assert!(age.is_some() && held.approvals.len() == 1);
    admin.end().await;
    let expected = ["svc", "new"].map(str::to_owned).to_vec();
    let admin = Admin::serve_from(&path, 3, |publisher| publisher.expect_claims(expected)).await;
    assert!(admin.publisher.begin_claims("svc").is_none(), "it is said already");
    in_time(version(3)).await;
    let held = current.load_full().unwrap();
    assert_eq!((held.approvals.len(), held.approvals.freshness("svc")), (1, age));
    assert_eq!(held.approvals.freshness("new"), Some(Freshness::Never));
    let change = admin.publisher.end_claims("svc").unwrap();
    admin.publisher.publish(4, change);
    in_time(version(4)).await;
    let held = current.load_full().unwrap();
    assert_eq!((held.approvals.len(), held.approvals.freshness("svc")), (0, None));
    stop.stop();
    in_time(following).await.unwrap();
    admin.end().await;
}

fn request(message: proto::state_request::Message) -> proto::StateRequest {
    proto::StateRequest { message: Some(message) }
}
