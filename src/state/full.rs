//! A full state on its way out, cut into parts as they are asked for.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;

use crate::domain::approval::Source;
use crate::domain::grants::GrantTable;
use crate::domain::grants::Position;
use crate::state::change::CLAIMS;
use crate::state::scope::Scope;
use crate::state::tenure::Marks;
use crate::wire::state;
use crate::wire::state::proto;

/// Soft size of one part, in bytes: what both ends hold of it at a time is a few times that.
const PART_BYTES: usize = 256 << 10;
/// Most approvals that are looked at for one part: of those that are for others, many may stand in a row.
const MAX_LOOKED_AT: usize = 100_000;

/// What is still to be sent. Records are shared with the state they come from, not copied.
#[derive(Debug)]
pub(super) struct FullParts {
    version: proto::StateVersion,
    confirmations: u64,
    settings: Option<proto::Settings>,
    connections: VecDeque<Arc<proto::Connection>>,
    /// Claims sources not named yet.
    sources: VecDeque<String>,
    /// Age of what each claims source said, in milliseconds; `None`: it was not read.
    ages: BTreeMap<String, Option<u64>>,
    grants: GrantTable,
    scope: Scope,
    marks: Marks,
    /// Where the next grant is; `None`: all are sent.
    position: Option<Position>,
    part: u32,
    done: bool,
}

/// What a full state is made of.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) version: proto::StateVersion,
    pub(super) confirmations: u64,
    pub(super) settings: proto::Settings,
    pub(super) connections: VecDeque<Arc<proto::Connection>>,
    pub(super) ages: BTreeMap<String, Option<u64>>,
    /// All of them; those outside the scope are left out on the way.
    pub(super) grants: GrantTable,
    pub(super) scope: Scope,
    /// What is said of each connection to this one authz.
    pub(super) marks: Marks,
}

impl FullParts {
    pub(super) fn new(whole: Whole) -> Self {
        Self {
            version: whole.version,
            confirmations: whole.confirmations,
            settings: Some(whole.settings),
            connections: whole.connections,
            sources: whole.ages.keys().cloned().collect(),
            ages: whole.ages,
            grants: whole.grants,
            scope: whole.scope,
            marks: whole.marks,
            position: Some(Position::default()),
            part: 0,
            done: false,
        }
    }

    /// The state it carries.
    pub(super) const fn version(&self) -> &proto::StateVersion {
        &self.version
    }

    /// The newest confirmation its ages know of.
    pub(super) const fn confirmations(&self) -> u64 {
        self.confirmations
    }

    /// The next part; `None` after the last.
    pub(super) fn next(&mut self) -> Option<proto::StateResponse> {
        if self.done {
            return None;
        }
        let mut full = proto::Full { part: self.part, settings: self.settings.take(), ..proto::Full::default() };
        let mut bytes = full.settings.as_ref().map_or(0, prost::Message::encoded_len);
        while bytes < PART_BYTES {
            let Some(connection) = self.connections.pop_front() else { break };
            let mut connection = proto::Connection::clone(&connection);
            self.marks.mark(&mut connection);
            bytes = bytes.saturating_add(connection.encoded_len());
            full.connections.push(connection);
        }
        while bytes < PART_BYTES {
            let Some(service) = self.sources.pop_front() else { break };
            let age_ms = self.ages.get(&service).copied().flatten();
            let list = proto::ServiceApprovals { service, source: CLAIMS, grants: Vec::new(), age_ms };
            bytes = bytes.saturating_add(list.encoded_len()).saturating_add(4);
            full.approvals.push(list);
        }
        if bytes < PART_BYTES {
            self.take_grants(&mut full, bytes);
        }
        self.part = self.part.saturating_add(1);
        self.done = self.position.is_none();
        full.last = self.done;
        let message = Some(proto::state_response::Message::Full(full));
        Some(proto::StateResponse { version: Some(self.version.clone()), message })
    }

    /// Adds grants until the part has its size.
    fn take_grants(&mut self, full: &mut proto::Full, mut bytes: usize) {
        let Some(from) = self.position.take() else { return };
        let mut lists: HashMap<(&str, Source), proto::ServiceApprovals> = HashMap::new();
        for (number, (next, key, grant)) in self.grants.walk(from).enumerate() {
            if number >= MAX_LOOKED_AT {
                self.position = Some(next);
            }
            if !self.scope.covers(grant.service) {
                if self.position.is_some() {
                    break;
                }
                continue;
            }
            let list = lists.entry((grant.service, grant.source)).or_insert_with(|| {
                let age_ms = match grant.source {
                    Source::Declared => None,
                    Source::Claims => self.ages.get(grant.service).copied().flatten(),
                };
                let source = state::encode_source(grant.source);
                proto::ServiceApprovals { service: grant.service.to_owned(), source, grants: Vec::new(), age_ms }
            });
            if list.grants.is_empty() {
                bytes = bytes.saturating_add(list.encoded_len()).saturating_add(4);
            }
            let grant = state::encode_listed(key, &grant);
            bytes = bytes.saturating_add(grant.encoded_len()).saturating_add(4);
            list.grants.push(grant);
            if bytes >= PART_BYTES || self.position.is_some() {
                self.position = Some(next);
                break;
            }
        }
        full.approvals.extend(lists.into_values());
    }
}
