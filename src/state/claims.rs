//! Claims as a source listed them, and what has to be published for them to count.

use crate::domain::approval::Grant;
use crate::domain::approval::Source;
use crate::domain::grants::GrantTable;
use crate::domain::grants::Marks;
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

/// Everything a source approves for one service, read at one time. An approval takes 65 bytes, or one bit where the
/// list was begun by [`Publisher::claim_list`](crate::state::Publisher::claim_list) and it is published already.
#[derive(Debug, Clone)]
pub struct ClaimList {
    began: MonotonicMillis,
    /// What is listed and does not stand in `base`, or not with this expiry.
    grants: GrantTable,
    /// How many of those have no place in `base`.
    new: usize,
    /// What was published when the list was begun, of which service the list is, and what of it is listed.
    base: Option<(GrantTable, String)>,
    marks: Marks,
}

impl Default for ClaimList {
    fn default() -> Self {
        Self::new()
    }
}

impl ClaimList {
    /// An empty list. To be made when the reading begins: the claims are as old as that.
    pub fn new() -> Self {
        Self::begun(None, SystemClock.now().monotonic)
    }

    /// An empty list for something of which most is published, probably.
    pub(super) fn begun(base: Option<(GrantTable, String)>, began: MonotonicMillis) -> Self {
        Self { began, grants: GrantTable::default(), new: 0, base, marks: Marks::default() }
    }

    /// Adds an approval; `expires_at` in Unix seconds. One that is listed already counts once, with the later
    /// word on its expiry. `false`: the namespace is none, and the approval is left out.
    pub fn push(&mut self, namespace: &str, key: PublicKey, expires_at: Option<u64>) -> bool {
        if !Namespace::is_valid(namespace) {
            return false;
        }
        let expires_at = expires_at.map(UnixSeconds);
        let grant = Grant { service: THIS_SERVICE, namespace, source: Source::Claims, expires_at };
        let marked = self
            .base
            .as_ref()
            .and_then(|(base, service)| base.mark(&key, &Grant { service, ..grant }, &mut self.marks));
        match marked {
            Some(true) => {
                // An earlier word on its expiry may have been another.
                self.grants.remove(&key, &grant);
            }
            Some(false) => {
                self.grants.add(&key, &grant);
            }
            None => {
                let before = self.grants.len();
                self.grants.add(&key, &grant);
                self.new = self.new.saturating_add(self.grants.len().saturating_sub(before));
            }
        }
        true
    }

    /// How many different approvals are listed.
    pub const fn len(&self) -> usize {
        self.marks.len().saturating_add(self.new)
    }

    /// Whether none is listed.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the reading began.
    pub(super) const fn began(&self) -> MonotonicMillis {
        self.began
    }

    /// Everything listed, as of `service`.
    fn iter<'a>(&'a self, service: &'a str) -> impl Iterator<Item = (&'a PublicKey, Grant<'a>)> {
        let known = self.base.iter().flat_map(|(base, _)| base.walk_marked(&self.marks));
        let unchanged = known.filter(|(key, grant)| {
            self.grants.is_empty() || !self.grants.has(key, &Grant { service: THIS_SERVICE, ..*grant })
        });
        let others = self.grants.walk(Position::default()).map(|(_, key, grant)| (key, grant));
        unchanged.chain(others).map(move |(key, grant)| (key, Grant { service, ..grant }))
    }

    /// Whether it is listed, with whatever expiry.
    fn lists(&self, key: &PublicKey, grant: &Grant<'_>) -> bool {
        let in_base =
            |(base, service): &(GrantTable, String)| base.is_marked(key, &Grant { service, ..*grant }, &self.marks);
        self.base.as_ref().is_some_and(in_base) || self.grants.has(key, &Grant { service: THIS_SERVICE, ..*grant })
    }

    /// Bytes the list has as a message, about.
    pub(super) fn bytes(&self) -> usize {
        self.iter(THIS_SERVICE).map(|(_, grant)| grant.namespace.len().saturating_add(52)).sum()
    }

    /// The list as a message, confirmed just now; [`Published`](super::published::Published) puts the age right.
    pub(super) fn encode(&self, service: &str) -> proto::ServiceApprovals {
        proto::ServiceApprovals {
            service: service.to_owned(),
            source: state::encode_source(Source::Claims),
            grants: self.iter(service).map(|(key, grant)| state::encode_listed(key, &grant)).collect(),
            age_ms: Some(0),
        }
    }

    /// Puts the list in the place of everything `held` has of the service's claims.
    pub(super) fn load_into(self, service: &str, held: &mut GrantTable) {
        let is_other = |grant: &Grant<'_>| grant.source != Source::Claims || grant.service != service;
        if self.grants.len() > held.len() {
            // The smaller is moved to the larger: at no time is the list held twice.
            let Self { mut grants, base, marks, .. } = self;
            grants.rename(THIS_SERVICE, service);
            let unchanged = base.iter().flat_map(|(base, _)| base.walk_marked(&marks));
            for (key, grant) in unchanged {
                // What the list says itself is the later word.
                if !grants.has(key, &grant) {
                    grants.add(key, &grant);
                }
            }
            for (_, key, grant) in held.walk(Position::default()).filter(|(_, _, grant)| is_other(grant)) {
                grants.add(key, &grant);
            }
            *held = grants;
            return;
        }
        let mut marks = Marks::default();
        for (key, grant) in self.iter(service) {
            held.add_marked(key, &grant, &mut marks);
        }
        held.sweep(&marks, is_other);
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
        for (key, grant) in self.iter(service) {
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
            grant.service == service && grant.source == Source::Claims && !self.lists(key, grant)
        });
        let removed = held.take(gone).map(|(_, key, grant)| state::encode_approval(key, &grant)).collect();
        Some((removed, added))
    }

    /// This list and nothing else.
    pub(super) fn load(self, service: &str) -> Vec<Change> {
        vec![Change::LoadClaims { service: service.to_owned(), list: Box::new(self) }]
    }
}
