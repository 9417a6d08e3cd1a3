//! Tests of the approvals a demo service reads itself, at a pace a test can wait for.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::*;
use crate::sys::tasks::stop_pair;

const QUICK: Pace = Pace {
    refresh: Duration::from_millis(300),
    breath: Duration::from_millis(30),
    hold: Duration::from_millis(900),
    patience: Duration::from_secs(10),
};
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn caller(key: u8) -> Caller {
    Caller {
        namespace: Namespace::parse("alice").unwrap(),
        subject: "alice".to_owned(),
        key: PublicKey::new([key; 32]),
        agent_id: None,
    }
}

/// A control plane whose one approval and whose health the test decides.
#[derive(Default)]
struct Source {
    reads: AtomicUsize,
    approved: AtomicBool,
    down: AtomicBool,
}

impl Source {
    fn read(&self) -> Result<Approved, &'static str> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err("down");
        }
        let mut approved = Approved::default();
        approved.insert(Namespace::parse("alice").unwrap(), PublicKey::new([9; 32]), Some(UnixSeconds(NOW.0 + 1)));
        if self.approved.load(Ordering::SeqCst) {
            approved.insert(Namespace::parse("alice").unwrap(), PublicKey::new([1; 32]), None);
        }
        Ok(approved)
    }
}

/// Runs `test` beside a reader of `source`.
async fn with(source: &Source, test: impl AsyncFnOnce(Approvals)) {
    let (approvals, reader) = approvals(QUICK);
    let (handle, stop) = stop_pair();
    let run = reader.run(|| std::future::ready(source.read()), stop);
    let test = async {
        test(approvals).await;
        handle.stop();
    };
    tokio::join!(run, test);
}

#[tokio::test]
async fn a_new_approval_is_found_by_the_one_it_is_for() {
    let source = Source::default();
    with(&source, async |approvals| {
        assert_eq!(approvals.judge(&caller(1), NOW).await, Standing::Unapproved);
        source.approved.store(true, Ordering::SeqCst);
        assert_eq!(approvals.judge(&caller(1), NOW).await, Standing::Approved);
        assert_eq!(approvals.judge(&caller(2), NOW).await, Standing::Unapproved);
    })
    .await;
}

#[tokio::test]
async fn strangers_share_one_read_a_second() {
    let source = Source::default();
    with(&source, async |approvals| {
        approvals.judge(&caller(1), NOW).await;
        let (before, began) = (source.reads.load(Ordering::SeqCst), Instant::now());
        for _ in 0..5 {
            let mut many = tokio::task::JoinSet::new();
            for key in 0..50 {
                let approvals = approvals.clone();
                many.spawn(async move { approvals.judge(&caller(key), NOW).await });
            }
            many.join_all().await;
        }
        let reads = source.reads.load(Ordering::SeqCst) - before;
        let room = usize::try_from(began.elapsed().as_millis() / QUICK.breath.as_millis()).unwrap() + 2;
        assert!(reads >= 5 && reads <= room && reads < 50, "{reads} reads where {room} are fair");
    })
    .await;
}

#[tokio::test]
async fn approvals_end_with_their_time_and_hold_a_while_without_the_control_plane() {
    let source = Source::default();
    source.approved.store(true, Ordering::SeqCst);
    with(&source, async |approvals| {
        assert_eq!(approvals.judge(&caller(9), NOW).await, Standing::Approved);
        assert_eq!(approvals.judge(&caller(9), UnixSeconds(NOW.0 + 1)).await, Standing::Unapproved);
        source.down.store(true, Ordering::SeqCst);
        let (reads, began) = (source.reads.load(Ordering::SeqCst), Instant::now());
        while source.reads.load(Ordering::SeqCst) < reads + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let standing = approvals.judge(&caller(1), NOW).await;
        assert!(standing == Standing::Approved || began.elapsed() > QUICK.hold - QUICK.refresh);
        // Longer than the hold.
        while approvals.judge(&caller(1), NOW).await == Standing::Approved {
            assert!(began.elapsed() < QUICK.hold * 20);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(began.elapsed() > QUICK.hold - QUICK.refresh * 2);
        assert_eq!(approvals.judge(&caller(1), NOW).await, Standing::Unknown);
        source.down.store(false, Ordering::SeqCst);
        assert_eq!(approvals.judge(&caller(1), NOW).await, Standing::Approved);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_approval_is_gone_with_the_next_read() {
    let source = Source::default();
    source.approved.store(true, Ordering::SeqCst);
    with(&source, async |approvals| {
        assert_eq!(approvals.judge(&caller(1), NOW).await, Standing::Approved);
        source.approved.store(false, Ordering::SeqCst);
        let began = Instant::now();
        while approvals.judge(&caller(1), NOW).await == Standing::Approved {
            assert!(began.elapsed() < QUICK.refresh * 50);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(approvals.judge(&caller(1), NOW).await, Standing::Unapproved);
    })
    .await;
}
