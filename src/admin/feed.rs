//! From the store to the state stream: what authz is told, as records and as changes.

use std::collections::BTreeMap;

use prost::Message as _;
use sha2::Digest as _;
use sha2::Sha256;

use crate::config::parts::DeclaredApproval;
use crate::domain::approval::Source;
use crate::domain::time::UnixMillis;
use crate::state::PublishedState;
use crate::state::Publisher;
use crate::store::StoreError;
use crate::store::declared::Resolved;
use crate::store::vault::Change;
use crate::store::vault::Vault;
use crate::store::worker::Listener;
use crate::sys::random;
use crate::wire::state::encode_connection;
use crate::wire::state::encode_grant;
use crate::wire::state::encode_settings;
use crate::wire::state::encode_source;
use crate::wire::state::proto;

/// The state a store and what is declared make up. Where that differs from the last start the version rises first: what
/// authz may hold of that start must not pass for this one.
pub fn initial_state(vault: &mut Vault, declared: Resolved, now: UnixMillis) -> Result<PublishedState, StoreError> {
    vault.begin_declared(declared, now)?;
    let settings = encode_settings(vault.settings());
    let approvals = encode_approvals(vault.approvals());
    let loaded = vault.load()?;
    for error in loaded.unreadable {
        tracing::error!(%error, "a connection cannot be read and is left out");
    }
    for id in loaded.shadowed {
        tracing::warn!(
            connection = id,
            "a stored connection is left out: one of the same id is declared, and that counts"
        );
    }
    let mut hash = Sha256::new();
    hash.update(settings.encode_length_delimited_to_vec());
    for list in &approvals {
        hash.update(list.encode_length_delimited_to_vec());
    }
    let mut connections = Vec::with_capacity(loaded.usable.len());
    for (record, secret) in loaded.usable {
        if let Err(reason) = &secret {
            tracing::warn!(connection = %record.settings.id, %reason, "a connection has no usable secret");
        }
        let mut message = encode_connection(&record.settings, secret.as_ref().map_err(String::as_str));
        if vault.declared_at(record.settings.id.as_str()).is_some() {
            // When this process began is no difference, and a map is written in any order.
            let (due, headers) = (message.next_rotation_due_at.take(), std::mem::take(&mut message.extra_headers));
            hash.update(message.encode_length_delimited_to_vec());
            for (name, value) in &record.settings.extra_headers {
                hash.update(format!("{}:{name}{}:{value}", name.len(), value.len()));
            }
            (message.next_rotation_due_at, message.extra_headers) = (due, headers);
        }
        connections.push(message);
    }
    vault.note_declared(&hash.finalize().into())?;
    let state = vault.state().clone();
    // A copy of the store that is put back has the epoch and, some changes later, the version of what it took the place of.
    let incarnation = random::uuid()?;
    Ok(PublishedState { epoch: state.epoch, incarnation, version: state.version, settings, connections, approvals })
}

/// Publishes each change of the store as it is committed.
pub fn listener(publisher: Publisher) -> Listener {
    Box::new(move |version, change| publisher.publish(version, encode_change(&change)))
}

fn encode_change(change: &Change) -> crate::state::Change {
    match change {
        Change::Saved(record, secret) => {
            let message = encode_connection(&record.settings, secret.as_ref().map_err(String::as_str));
            crate::state::Change::Upsert(Box::new(message))
        }
        Change::Settings(settings) => crate::state::Change::Settings(encode_settings(settings)),
        Change::Approvals(service, approvals) => {
            let source = encode_source(Source::Declared);
            let empty =
                || proto::ServiceApprovals { service: service.as_str().to_owned(), source, ..Default::default() };
            let list = encode_approvals(approvals).into_iter().next();
            crate::state::Change::ReplaceApprovals(list.unwrap_or_else(empty))
        }
        Change::Deleted(id) => crate::state::Change::Delete(id.as_str().to_owned()),
        Change::Together(changes) => crate::state::Change::Together(changes.iter().map(encode_change).collect()),
    }
}

fn encode_approvals(approvals: &[DeclaredApproval]) -> Vec<proto::ServiceApprovals> {
    let mut services: BTreeMap<&str, Vec<proto::Grant>> = BTreeMap::new();
    for approval in approvals {
        let grant = encode_grant(&approval.namespace, &approval.public_key, approval.expires_at);
        services.entry(approval.service.as_str()).or_default().push(grant);
    }
    let source = encode_source(Source::Declared);
    services
        .into_iter()
        .map(|(service, mut grants)| {
            grants.sort_by(|one, other| (&one.namespace, &one.public_key).cmp(&(&other.namespace, &other.public_key)));
            proto::ServiceApprovals { service: service.to_owned(), source, grants, age_ms: None }
        })
        .collect()
}

/// A report as an authz process sends it, for tests of other modules.
#[cfg(test)]
pub fn report(started_at_ms: u64, denied: &[(&str, u64)]) -> proto::Report {
    proto::Report {
        started_at_ms,
        allowed: 1,
        denied: denied.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect(),
        replay_entries: 1,
        replay_capacity: 10,
        ready: true,
        ..proto::Report::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may panic")]

    use super::*;
    use crate::domain::ids::ConnectionId;
    use crate::domain::ids::Namespace;
    use crate::domain::ids::PublicKey;
    use crate::domain::secret::Secret;
    use crate::domain::snapshot::Settings;

    fn approval(service: &str, key: u8) -> DeclaredApproval {
        DeclaredApproval {
            namespace: Namespace::parse("alice").unwrap(),
            public_key: PublicKey::new([key; 32]),
            service: ConnectionId::parse(service).unwrap(),
            expires_at: None,
        }
    }

    #[test]
    fn approvals_are_listed_by_service_and_their_order_in_the_file_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let key = Secret::new("key".to_owned());
        let mut vault = Vault::open(&folder.path().join("gateway.db"), &key).unwrap();
        let with = |settings: &Settings, approvals: &[DeclaredApproval]| Resolved {
            settings: settings.clone(),
            approvals: approvals.to_vec(),
            ..Resolved::default()
        };
        let settings = Settings::default();
        let one = [approval("linear", 2), approval("github", 1), approval("linear", 1)];
        let state = initial_state(&mut vault, with(&settings, &one), UnixMillis(0)).unwrap();
        let services: Vec<_> = state.approvals.iter().map(|list| (list.service.as_str(), list.grants.len())).collect();
        assert_eq!(services, [("github", 1), ("linear", 2)]);
        let other = [approval("linear", 1), approval("linear", 2), approval("github", 1)];
        let again = initial_state(&mut vault, with(&settings, &other), UnixMillis(0)).unwrap();
        assert_eq!((again.version, again.epoch), (state.version, state.epoch));
        // Anything else is another state.
        let fewer = initial_state(&mut vault, with(&settings, &one[..2]), UnixMillis(0)).unwrap();
        assert_eq!(fewer.version, state.version + 1);
        let private = Settings { allow_private: true, ..Settings::default() };
        assert_eq!(
            initial_state(&mut vault, with(&private, &one[..2]), UnixMillis(0)).unwrap().version,
            state.version + 2
        );
    }
}
