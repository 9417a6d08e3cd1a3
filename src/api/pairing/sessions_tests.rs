//! Sessions whose end nobody is there to see, and room.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use super::*;
use crate::api::db::OpenDb;
use crate::api::pairing::line::QUEUE;
use crate::api::token::Owner;
use crate::domain::ids::Namespace;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Ground {
    pairings: Arc<Pairings>,
    owner: User,
    _arrivals: Arrivals,
    _folder: tempfile::TempDir,
}

async fn ground() -> Ground {
    let folder = tempfile::tempdir().unwrap();
    let (db, _) = OpenDb::open(folder.path(), "pid 1 (test)").unwrap().start().unwrap();
    let owner = Owner::local(Namespace::parse("acme").unwrap(), None);
    let owner = db.write(move |db| Ok(users::insert(db, &owner, 1)?)).await.unwrap();
    let secret = Secret::new("s".repeat(32));
    let (pairings, arrivals) = Pairings::new(db, &secret, PairingLimits::default(), 100);
    Ground { pairings, owner, _arrivals: arrivals, _folder: folder }
}

impl Ground {
    async fn sql(&self, sql: &'static str) {
        self.pairings.db.write(move |db| Ok(db.execute(sql, [])?)).await.unwrap();
    }

    async fn rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM pairing_sessions";
        self.pairings.db.read(move |db| Ok(db.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
    }
}

#[tokio::test]
async fn an_ended_session_is_known_for_a_while_and_then_forgotten() {
    let ground = ground().await;
    ground.pairings.start(&ground.owner, Duration::from_secs(30)).await.unwrap();
    ground.sql("UPDATE pairing_sessions SET expires_at_ms = unixepoch() * 1000 - 590000").await;
    ground.pairings.tidy().await.unwrap();
    assert_eq!(ground.rows().await, 1);
    ground.sql("UPDATE pairing_sessions SET expires_at_ms = unixepoch() * 1000 - 610000").await;
    ground.pairings.tidy().await.unwrap();
    assert_eq!(ground.rows().await, 0);
}

#[tokio::test]
async fn the_bridge_of_an_owner_who_has_left_is_told_to_go() {
    let ground = ground().await;
    let started = ground.pairings.start(&ground.owner, Duration::from_secs(600)).await.unwrap();
    let (outbound, _queue) = mpsc::channel(QUEUE);
    let hub = &ground.pairings.hub;
    let line = hub.join(&started.session_id, None, ADDRESS, outbound, i64::MAX).unwrap();
    ground.pairings.tidy().await.unwrap();
    let told = tokio::time::timeout(Duration::from_millis(1), line.told_to_end()).await;
    assert!(told.is_err(), "{told:?}");
    ground.sql("DELETE FROM users").await;
    ground.pairings.tidy().await.unwrap();
    assert_eq!(line.told_to_end().await, Goodbye::NotFound);
    assert!(!ground.pairings.is_known(&started.session_id));
}

#[tokio::test]
async fn a_session_is_known_from_its_start_and_after_a_restart() {
    let ground = ground().await;
    let started = ground.pairings.start(&ground.owner, Duration::from_secs(600)).await.unwrap();
    assert!(ground.pairings.is_known(&started.session_id));
    let secret = Secret::new("s".repeat(32));
    let (again, _arrivals) = Pairings::new(ground.pairings.db.clone(), &secret, PairingLimits::default(), 100);
    assert!(!again.is_known(&started.session_id));
    again.recall().await.unwrap();
    assert!(again.is_known(&started.session_id));
    assert!(!again.is_known("b2f5ff47-4366-4d9c-8b28-5e0fd1a4c1a9"));
}

#[tokio::test]
async fn of_two_who_saw_the_same_place_free_one_takes_it() {
    let ground = ground().await;
    let hub = &ground.pairings.hub;
    let join = |instead_of| hub.join("s", instead_of, ADDRESS, mpsc::channel(QUEUE).0, i64::MAX);
    let first = join(None).unwrap();
    assert!(join(None).is_none());
    let second = join(Some(first.number)).unwrap();
    assert_eq!(first.told_to_end().await, Goodbye::Replaced);
    assert!(join(Some(first.number)).is_none());
    hub.leave("s", &first, crate::api::pairing::line::Lost::Disconnected);
    assert_eq!(hub.line("s").unwrap().number, second.number, "the end of the first touches nothing of the second");
}

#[tokio::test]
async fn sockets_have_room() {
    let ground = ground().await;
    let mut held: Vec<_> = std::iter::from_fn(|| ground.pairings.hub.room()).collect();
    assert_eq!(held.len(), 100);
    held.pop();
    assert!(ground.pairings.hub.room().is_some());
    let most = Hub::new(usize::MAX);
    assert_eq!(std::iter::from_fn(|| most.room()).collect::<Vec<_>>().len(), 4096);
}

#[tokio::test]
async fn a_lease_is_extended_when_it_is_nearly_over_and_never_beyond_its_last_moment() {
    let ground = ground().await;
    let extended = |expires_ms, now_ms| ground.pairings.extended(0, expires_ms, now_ms);
    let hour_ms = 3_600_000;
    assert_eq!(
        extended(600_000, 1),
        Some(2 * hour_ms + 1),
        "a bridge that was heard may be away for more than an hour"
    );
    let over_ms = 10 * hour_ms;
    assert_eq!(extended(over_ms, over_ms - 110 * 60_000 - 1), None, "it is not written at every beat");
    assert_eq!(extended(over_ms, over_ms - 110 * 60_000), Some(over_ms + 10 * 60_000));
    let last_ms = 24 * hour_ms;
    assert_eq!(extended(last_ms - 60_000, last_ms - 100_000), Some(last_ms));
    assert_eq!(extended(last_ms, last_ms - 100_000), None);
}

fn claimed(started: &Started, code: &str) -> Claimed {
    Claimed {
        session_id: started.session_id.clone(),
        namespace: started.namespace.clone(),
        code: Secret::new(code.to_owned()),
        reconnect: None,
    }
}

#[tokio::test]
async fn a_restart_gives_nobody_more_wrong_codes() {
    let ground = ground().await;
    let started = ground.pairings.start(&ground.owner, Duration::from_secs(600)).await.unwrap();
    let secret = Secret::new("s".repeat(32));
    let (again, _arrivals) = Pairings::new(ground.pairings.db.clone(), &secret, PairingLimits::default(), 100);
    for pairings in [&ground.pairings, &ground.pairings, &ground.pairings, &again, &again] {
        let standing = pairings.standing(&ground.owner, &started.session_id).await.unwrap();
        assert_eq!(standing.ended, None);
        let refused = pairings.admit(&claimed(&started, "WRONG"), ADDRESS).await.unwrap_err();
        assert_eq!(refused.code(), "INVALID_PAIR_CODE");
    }
    let standing = again.standing(&ground.owner, &started.session_id).await.unwrap();
    assert_eq!(standing.ended, Some(Ended::WrongCodes));
}

#[tokio::test]
async fn a_code_may_be_typed_small() {
    let ground = ground().await;
    let started = ground.pairings.start(&ground.owner, Duration::from_secs(600)).await.unwrap();
    let small = started.pair_code.expose().to_ascii_lowercase();
    ground.pairings.admit(&claimed(&started, &small), ADDRESS).await.unwrap();
}

#[tokio::test]
async fn an_end_by_the_owner_is_told_from_one_by_time() {
    let ground = ground().await;
    let started = ground.pairings.start(&ground.owner, Duration::from_secs(600)).await.unwrap();
    ground.pairings.end(&ground.owner, &started.session_id).await.unwrap();
    let code = started.pair_code.expose();
    let refused = ground.pairings.admit(&claimed(&started, code), ADDRESS).await.unwrap_err();
    assert_eq!((refused.status(), refused.code()), (StatusCode::GONE, "PAIR_SESSION_ENDED"));
}
