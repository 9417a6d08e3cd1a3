//! Claims as a source listed them, and what has to be published for them to count.

use crate::domain::approval::Grant;
use crate::domain::approval::Source;
use crate::domain::grants::GrantTable;
use crate::domain::grants::Position;
use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;
use crate::domain::time::MonotonicMillis;
use crate::domain::time::UnixSeconds;
use crate::state::change::Change;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::state;
use crate::wire::state::proto;

/// Most single approvals of one change: some 200 KiB, far below what is sent as a full state.
const CHUNK: usize = 2000;
/// More single changes than this are published as one whole replacement: each change is a version, and each
/// version a commit.
const MAX_SINGLE: usize = 10 * CHUNK;
/// A list is of one service, whose name is not known to it.
const THIS_SERVICE: &str = "";

/// Everything a source approves for one service, read at one time. About 65 bytes an approval.
#[derive(Debug, Clone)]
pub struct ClaimList {
    began: MonotonicMillis,
    grants: GrantTable,
}

impl Default for ClaimList {
    fn default() -> Self {
        Self::new()
    }
}

impl ClaimList {
    /// An empty list. To be made when the reading begins: the claims are as old as that.
    pub fn new() -> Self {
        Self { began: SystemClock.now().monotonic, grants: GrantTable::default() }
    }

    /// As if the reading had begun then.
    #[cfg(test)]
    pub(super) fn at(began: MonotonicMillis) -> Self {
        Self { began, ..Self::new() }
    }

    /// Adds an approval; `expires_at` in Unix seconds. One that is listed already counts once, with the later
    /// word on its expiry. `false`: the namespace is none, and the approval is left out.
    pub fn push(&mut self, namespace: &str, key: PublicKey, expires_at: Option<u64>) -> bool {
        if !Namespace::is_valid(namespace) {
            return false;
        }
        let expires_at = expires_at.map(UnixSeconds);
        let grant = Grant { service: THIS_SERVICE, namespace, source: Source::Claims, expires_at };
        self.grants.add(&key, &grant);
        true
    }

    /// How many different approvals are listed.
    pub const fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether none is listed.
    pub const fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// When the reading began.
    pub(super) const fn began(&self) -> MonotonicMillis {
        self.began
    }

    /// Bytes the list has as a message, about.
    pub(super) fn bytes(&self) -> usize {
        self.grants.walk(Position::default()).map(|(_, _, grant)| grant.namespace.len().saturating_add(52)).sum()
    }

    /// The list as a message, confirmed just now; [`Published`](super::published::Published) puts the age right.
    pub(super) fn encode(&self, service: &str) -> proto::ServiceApprovals {
        let grants = self.grants.walk(Position::default()).map(|(_, key, grant)| state::encode_listed(key, &grant));
        proto::ServiceApprovals {
            service: service.to_owned(),
            source: state::encode_source(Source::Claims),
            grants: grants.collect(),
            age_ms: Some(0),
        }
    }

    /// Hands over every approval as one of `service`, giving memory back on the way.
    pub(super) fn consume(self, service: &str, mut visit: impl FnMut(&PublicKey, &Grant<'_>)) {
        self.grants.consume(|key, grant| visit(key, &Grant { service, ..*grant }));
    }

    /// What makes `published`, which holds what was read of `service` before, agree with this list. What is gone
    /// comes first.
    pub(super) fn difference(self, service: &str, published: &GrantTable) -> Vec<Change> {
        match self.single_changes(service, published) {
            Some((removed, added)) => {
                let removed = removed.chunks(CHUNK).map(|chunk| Change::RemoveApprovals(chunk.to_vec()));
                let added = added.chunks(CHUNK).map(|chunk| Change::AddApprovals(chunk.to_vec()));
                removed.chain(added).collect()
            }
            None => self.load(service),
        }
    }

    /// What is gone and what is new or has another expiry; `None`: more than is published singly.
    fn single_changes(
        &self,
        service: &str,
        published: &GrantTable,
    ) -> Option<(Vec<proto::Approval>, Vec<proto::Approval>)> {
        let mut added = Vec::new();
        let mut known = 0_usize;
        for (_, key, listed) in self.grants.walk(Position::default()) {
            let grant = Grant { service, ..listed };
            if published.has(key, &grant) {
                known = known.saturating_add(1);
            }
            if !published.holds(key, &grant) {
                added.push(state::encode_approval(key, &grant));
            }
            if added.len() > MAX_SINGLE {
                return None;
            }
        }
        let gone = published.count(service, Source::Claims).saturating_sub(known);
        if added.len().saturating_add(gone) > MAX_SINGLE {
            return None;
        }
        // Looking for them takes a walk through everything; mostly there is nothing to look for.
        if gone == 0 {
            return Some((Vec::new(), added));
        }
        let held = published.walk(Position::default()).filter(|(_, key, grant)| {
            grant.service == service
                && grant.source == Source::Claims
                && !self.grants.has(key, &Grant { service: THIS_SERVICE, ..*grant })
        });
        let removed = held.take(gone).map(|(_, key, grant)| state::encode_approval(key, &grant)).collect();
        Some((removed, added))
    }

    /// This list and nothing else.
    pub(super) fn load(self, service: &str) -> Vec<Change> {
        vec![Change::LoadClaims { service: service.to_owned(), list: Box::new(self) }]
    }
}
