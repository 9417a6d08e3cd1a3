//! What can change in a published state, and how several changes become one delta.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use prost::Message as _;

use crate::state::claims::ClaimList;
use crate::wire::state::proto;

/// The source of claims, as messages have it.
pub(super) const CLAIMS: i32 = proto::ApprovalSource::Claims as i32;

/// One committed change of the store.
#[derive(Debug, Clone)]
pub enum Change {
    /// The settings, whole.
    Settings(proto::Settings),
    /// New requests are refused until then.
    Drain {
        /// Unix milliseconds; 0: they are not.
        until_ms: u64,
    },
    /// A connection that is new or different.
    Upsert(Box<proto::Connection>),
    /// A connection that is gone, by id.
    Delete(String),
    /// Everything one source says of one service. An entry of the declared source without grants ends the
    /// approvals. One of claims without an age says that the service has a claims source that was not read yet:
    /// it changes nothing where there is one.
    ReplaceApprovals(proto::ServiceApprovals),
    /// Single approvals that are new or have another expiry. Claims count only where the source was read.
    AddApprovals(Vec<proto::Approval>),
    /// Single approvals that are gone.
    RemoveApprovals(Vec<proto::Approval>),
    /// Everything the claims source of a service said, in place of what it said before.
    LoadClaims {
        /// Connection id.
        service: String,
        /// What it said, and when the reading began.
        list: Box<ClaimList>,
    },
    /// A service has no claims source any more: what it said is forgotten.
    EndClaims(String),
    /// Several changes that are one: whoever holds one of them holds them all.
    Together(Vec<Change>),
}

impl Change {
    /// Bytes it has as a message, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Settings(settings) => settings.encoded_len(),
            Self::Upsert(connection) => connection.encoded_len(),
            Self::Drain { .. } => size_of::<u64>(),
            Self::Delete(id) => id.len(),
            Self::ReplaceApprovals(list) => list.encoded_len(),
            Self::AddApprovals(list) | Self::RemoveApprovals(list) => {
                list.iter().map(|approval| approval.encoded_len().saturating_add(4)).sum()
            }
            Self::LoadClaims { service, list } => list.bytes().saturating_add(service.len()),
            Self::EndClaims(service) => service.len(),
            Self::Together(changes) => changes.iter().map(Self::bytes).sum(),
        }
    }
}

/// Service and source.
type Place = (String, i32);
/// Namespace and key.
type Holder = (String, Vec<u8>);

/// Several changes as one: the last word on each record counts.
#[derive(Debug, Default)]
pub(super) struct Merged {
    settings: Option<proto::Settings>,
    connections: BTreeMap<String, Option<Box<proto::Connection>>>,
    ended: BTreeSet<String>,
    replaced: BTreeMap<Place, proto::ServiceApprovals>,
    single: BTreeMap<(Place, Holder), Option<proto::Grant>>,
}

impl Merged {
    pub(super) fn add(&mut self, change: Change) {
        match change {
            Change::Settings(settings) => self.settings = Some(settings),
            // The publisher has made settings of it.
            Change::Drain { .. } => {}
            Change::Upsert(connection) => {
                self.connections.insert(connection.id.clone(), Some(connection));
            }
            Change::Delete(id) => {
                self.connections.insert(id, None);
            }
            Change::ReplaceApprovals(list) => self.replace(list),
            Change::LoadClaims { service, list } => self.replace(list.encode(&service)),
            Change::AddApprovals(list) => self.add_single(list, true),
            Change::RemoveApprovals(list) => self.add_single(list, false),
            Change::EndClaims(service) => {
                self.forget(&(service.clone(), CLAIMS));
                self.ended.insert(service);
            }
            Change::Together(changes) => changes.into_iter().for_each(|change| self.add(change)),
        }
    }

    fn replace(&mut self, list: proto::ServiceApprovals) {
        let place = (list.service.clone(), list.source);
        if list.source == CLAIMS && list.age_ms.is_none() {
            // It says nothing of the approvals; what was said of them before stands.
            self.replaced.entry(place).or_insert(list);
        } else {
            self.forget(&place);
            self.replaced.insert(place, list);
        }
    }

    fn forget(&mut self, place: &Place) {
        self.single.retain(|(held, _), _| held != place);
        self.replaced.remove(place);
    }

    fn add_single(&mut self, list: Vec<proto::Approval>, present: bool) {
        for approval in list {
            let Some(grant) = approval.grant else { continue };
            let place = (approval.service, approval.source);
            let holder = (grant.namespace.clone(), grant.public_key.clone());
            self.single.insert((place, holder), present.then_some(grant));
        }
    }

    /// The delta. `age` says how old what the claims source of a service said is now, in milliseconds.
    pub(super) fn into_delta(self, follows: u64, age: impl Fn(&str) -> Option<u64>) -> proto::Delta {
        let mut delta = proto::Delta { follows, settings: self.settings, ..proto::Delta::default() };
        for (id, connection) in self.connections {
            match connection {
                Some(connection) => delta.upsert_connections.push(*connection),
                None => delta.delete_connections.push(id),
            }
        }
        delta.end_claims = self.ended.into_iter().collect();
        for (_, mut list) in self.replaced {
            // Time has passed since the change was made: its age then is not its age now.
            list.age_ms = list.age_ms.map(|_| age(&list.service).unwrap_or(u64::MAX));
            delta.replace_approvals.push(list);
        }
        for (((service, source), (namespace, public_key)), grant) in self.single {
            let removed = proto::Grant { namespace, public_key, expires_at: None };
            match grant {
                Some(grant) => delta.add_approvals.push(proto::Approval { service, source, grant: Some(grant) }),
                None => delta.remove_approvals.push(proto::Approval { service, source, grant: Some(removed) }),
            }
        }
        delta
    }
}
