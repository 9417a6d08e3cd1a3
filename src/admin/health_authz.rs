//! What authz processes tell of themselves, joined: whose word readiness goes by, and whose is only told.
//!
//! One of this machine was started by whoever started us. One of another host has the certificate of a workload, and
//! whoever took that over says what he likes. So readiness goes by those of this machine, wherever there is or was one; what
//! those of other hosts say of their troubles is told with their names. Where there are none but those, readiness goes by what they say
//! all together: one that says it is unwell stops nobody, and it takes all of them to say that nothing is decided.

use crate::admin::Admin;
use crate::admin::health_judge::AuthzFact;
use crate::admin::health_judge::Ending;
use crate::admin::health_judge::NOTED;
use crate::admin::health_judge::Trouble;
use crate::admin::health_judge::WELL;
use crate::admin::health_judge::condition;
use crate::state::PeerState;
use crate::wire::health::ConditionBody;
use crate::wire::health::ConditionKind;
use crate::wire::state::proto;

/// Most authz processes that are named in one message.
const MAX_NAMED: usize = 8;

/// Those whose word readiness goes by.
#[derive(Debug)]
pub(super) struct Counted<'p> {
    /// In the order they came.
    pub(super) peers: Vec<&'p PeerState>,
    /// Whether they are of this machine.
    ours: bool,
}

impl<'p> Counted<'p> {
    pub(super) fn of(admin: &Admin, peers: &'p [PeerState]) -> Self {
        Self::among(peers, admin.health.own_envoy() || admin.publisher.had_ours())
    }

    fn among(peers: &'p [PeerState], ours: bool) -> Self {
        Self { peers: peers.iter().filter(|peer| !(ours && peer.remote)).collect(), ours }
    }

    /// How many have applied what is published.
    pub(super) fn current(&self) -> usize {
        self.peers.iter().filter(|peer| peer.current).count()
    }

    /// How many of those would decide a request signed now.
    pub(super) fn ready(&self) -> usize {
        let reports = self.peers.iter().filter(|peer| peer.current).filter_map(|peer| peer.report.as_ref());
        reports.filter(|report| report.ready).count()
    }

    /// Whether anybody has told how it stands.
    pub(super) fn reported(&self) -> bool {
        self.reports().next().is_some()
    }

    /// Whether this is to be believed of the gateway: of its own where one says it, of others where all do.
    pub(super) fn say(&self, is_so: impl Fn(&proto::Report) -> bool) -> bool {
        if self.ours { self.reports().any(is_so) } else { self.reported() && self.reports().all(is_so) }
    }

    /// Why one would not have what it was sent; of another host with its name.
    pub(super) fn refused(&self) -> Option<String> {
        self.peers.iter().find_map(|peer| {
            let why = peer.refused.as_ref()?;
            Some(if peer.remote { format!("{}: {why}", peer.node) } else { why.clone() })
        })
    }

    /// The first by name of those that cannot write admissions down, where that is to be believed.
    pub(super) fn failing(&self) -> Option<(&'p str, &'p proto::Report)> {
        let told =
            self.peers.iter().copied().filter_map(|peer| Some((peer.node.as_str(), told_by_one_that_decides(peer)?)));
        let failing = told.filter(|(_, report)| report.replay_failing);
        failing.min_by_key(|(node, _)| *node).filter(|_| self.say(|report| report.replay_failing))
    }

    fn reports(&self) -> impl Iterator<Item = &'p proto::Report> {
        self.peers.iter().copied().filter_map(told_by_one_that_decides)
    }
}

/// What those of other hosts say is wrong with them. A start is nothing wrong.
pub(super) fn troubles(peers: &[PeerState]) -> Vec<Trouble> {
    peers.iter().filter(|peer| peer.remote).filter_map(trouble).collect()
}

fn trouble(peer: &PeerState) -> Option<Trouble> {
    let told = |reason, said: &str| Some(Trouble { node: peer.node.clone(), reason, said: said.to_owned() });
    if let Some(why) = &peer.refused {
        return told("Nack", &format!("would not have what it was sent: {why}"));
    }
    let report = told_by_one_that_decides(peer)?;
    if report.replay_store_failing {
        return told("StoreUnreachable", "cannot ask the replay window that replicas share");
    }
    if report.replay_failing {
        let reason = if report.replay_volume_full { "VolumeFull" } else { "ReadOnly" };
        return told(reason, "cannot write admissions down");
    }
    if is_full(report) {
        return told("Full", "has a full replay window");
    }
    if report.ready || report.replay_starting { None } else { told("NotReady", "is not ready") }
}

/// Whether the replay window of one is full.
pub(super) const fn is_full(report: &proto::Report) -> bool {
    report.replay_entries >= report.replay_capacity
}

/// What an authz tells of its replay window. One that has no state yet, or stands beside another whose place it is to take, has
/// none: a window without room is no full one.
fn told_by_one_that_decides(peer: &PeerState) -> Option<&proto::Report> {
    peer.report.as_ref().filter(|report| peer.applied.is_some() && report.replay_capacity > 0)
}

/// Those that authz processes of other hosts show for the state; nothing where there are none. One that has ended makes nobody
/// unready: that authz goes on with what it had, and the others are not concerned.
pub(super) fn state_certificates(fact: &AuthzFact) -> Option<ConditionBody> {
    let kind = ConditionKind::StateCertificates;
    if !fact.certified {
        return None;
    }
    if fact.endings.is_empty() {
        let message = "every authz of another host shows a certificate that holds for long enough";
        return Some(condition(kind, "authz", WELL, "Valid", message));
    }
    let said = |ending: &Ending| {
        let Ending { node, said, cut_off } = ending;
        let effect = if *cut_off { ": it is without admin, and goes on with what it had" } else { "" };
        format!("the certificate of {node} {said}{effect}")
    };
    let message = fact.endings.iter().map(said).collect::<Vec<_>>().join("; ");
    let reason = if fact.endings.iter().any(|ending| ending.cut_off) { "Ended" } else { "EndsSoon" };
    Some(condition(kind, "authz", NOTED, reason, message))
}

/// What authz processes of other hosts say of themselves; nothing where there are none. It makes nobody unready: whoever has the
/// certificate of one workload could else take all others out of service.
pub(super) fn remote_authz(fact: &AuthzFact) -> Option<ConditionBody> {
    let kind = ConditionKind::RemoteAuthz;
    if fact.remote == 0 {
        return None;
    }
    let Some(first) = fact.troubles.first() else {
        let message = format!("{} authz of other hosts are connected, and none tells of trouble", fact.remote);
        return Some(condition(kind, "authz", WELL, "Well", message));
    };
    let named = fact.troubles.iter().take(MAX_NAMED).map(|Trouble { node, said, .. }| format!("{node} {said}"));
    let mut message = named.collect::<Vec<_>>().join("; ");
    let more = fact.troubles.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    Some(condition(kind, "authz", NOTED, first.reason, message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn well() -> proto::Report {
        proto::Report { ready: true, replay_capacity: 10, ..proto::Report::default() }
    }

    fn peer(node: &str, remote: bool, report: proto::Report) -> PeerState {
        let (node, applied) = (node.to_owned(), Some(proto::StateVersion::default()));
        PeerState { node, applied, current: true, report: Some(report), remote, ..PeerState::default() }
    }

    /// Everything one can say against itself.
    fn unwell() -> [proto::Report; 3] {
        [
            proto::Report { replay_store_failing: true, ready: false, ..well() },
            proto::Report { replay_failing: true, ready: false, ..well() },
            proto::Report { replay_entries: u64::MAX, ready: false, ..well() },
        ]
    }

    fn says_anything(counted: &Counted<'_>) -> bool {
        counted.say(|report| report.replay_store_failing)
            || counted.say(|report| report.replay_failing)
            || counted.say(|report| report.replay_starting)
            || counted.say(is_full)
    }

    #[test]
    fn what_one_of_another_host_says_of_itself_is_told_by_its_name_and_believed_of_nobody_else() {
        for report in unwell() {
            for ours in [true, false] {
                let peers = [peer("ours", !ours, well()), peer("billing.test (x)", true, report.clone())];
                let counted = Counted::among(&peers, ours);
                assert!(!says_anything(&counted), "{report:?}");
                assert_eq!(counted.ready(), 1);
                let told = troubles(&peers).pop().unwrap();
                assert_eq!((told.node.as_str(), troubles(&peers).len()), ("billing.test (x)", 1));
            }
        }
    }

    #[test]
    fn what_one_of_this_machine_says_counts_whatever_others_say() {
        for report in unwell() {
            let peers = [peer("ours", false, report), peer("billing.test", true, well())];
            let counted = Counted::among(&peers, true);
            assert!(says_anything(&counted) && counted.ready() == 0);
            assert!(troubles(&peers).is_empty());
        }
        // One that is gone is not replaced by a stranger's word.
        let peers = [peer("billing.test", true, well())];
        assert!(Counted::among(&peers, true).peers.is_empty());
    }

    #[test]
    fn where_all_of_other_hosts_say_the_same_nothing_is_decided() {
        let failing = proto::Report { replay_store_failing: true, ready: false, ..well() };
        let peers = [peer("a", true, failing.clone()), peer("b", true, failing)];
        let counted = Counted::among(&peers, false);
        assert!(counted.say(|report| report.replay_store_failing) && counted.ready() == 0);
        assert!(!Counted::among(&[], false).say(|_| true), "nobody has said so");
    }

    #[test]
    fn a_start_is_no_trouble() {
        let peers = [peer("a", true, proto::Report { replay_starting: true, ready: false, ..well() })];
        assert!(troubles(&peers).is_empty());
    }

    #[test]
    fn a_successor_that_has_no_window_yet_tells_nothing_of_one() {
        let peer = |applied: Option<proto::StateVersion>, replay_entries, replay_capacity| PeerState {
            applied,
            report: Some(proto::Report { replay_entries, replay_capacity, ..proto::Report::default() }),
            ..PeerState::default()
        };
        let applied = || Some(proto::StateVersion::default());
        assert!(told_by_one_that_decides(&peer(applied(), 0, 0)).is_none());
        assert!(told_by_one_that_decides(&peer(None, 0, 10)).is_none());
        assert!(told_by_one_that_decides(&peer(applied(), 10, 10)).is_some());
        assert!(told_by_one_that_decides(&PeerState::default()).is_none());
    }
}
