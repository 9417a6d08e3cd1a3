//! THE path: the one composition of checks, from a request to a verdict. Synchronous and embeddable; uses domain only.
//!
//! Owns the order of the checks (steps 1 to 9 and 11; step 10, the admission to the replay window,
//! is its caller's: it is the one step with an effect). Promises: no IO, no clock, no panic; the
//! earliest step that objects names the reason; nothing is said of a caller before the signature
//! has been verified; no setting skips a step.
//!
//! What it keeps between requests is only what saves work or bounds it: verified certificates of
//! approved keys, tables for those in much use, requests whose signature the head stage has verified,
//! and two budgets. Losing any of it changes no verdict but `RateLimited`.

mod authenticate;
mod budget;
mod memory;
mod plan;
mod policy;

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod signer_tests;

use crate::domain::approval::Approval;
use crate::domain::authority;
use crate::domain::decision::Admission;
use crate::domain::decision::Caller;
use crate::domain::decision::Denial;
use crate::domain::decision::DenyReason;
use crate::domain::decision::Passed;
use crate::domain::decision::Plan;
use crate::domain::decision::Verdict;
use crate::domain::ids::ConnectionId;
use crate::domain::request::MOST_OF_CLIENT;
use crate::domain::request::RequestView;
use crate::domain::request::Stage;
use crate::domain::route;
use crate::domain::signature::HotKeys;
use crate::domain::signature::SignatureParams;
use crate::domain::signature::SignedHeaders;
use crate::domain::signature::check_age;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::Now;

use authenticate::Attempt;
use budget::Budgets;
use memory::Memory;

/// The gate. One per process, shared by all requests.
#[derive(Debug)]
pub struct Gate {
    memory: Memory,
    budgets: Budgets,
    hot_keys: HotKeys,
}

/// Buffers a front keeps and hands over with each request, so that none is allocated anew. Holds no
/// secret, and nothing of one request is read while the next is judged.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The signature base.
    base: Vec<u8>,
}

/// What a refusal may tell of the request, filled in as it is found out.
#[derive(Default)]
struct Found<'a> {
    connection: Option<&'a str>,
    caller: Option<Caller>,
}

impl Gate {
    /// A gate that remembers nothing yet. `secret_seed` comes from the operating system's randomness:
    /// who knew it could make two requests look like one.
    pub fn new(secret_seed: [u8; 16]) -> Self {
        Self { memory: Memory::new(secret_seed), budgets: Budgets::default(), hot_keys: HotKeys::new() }
    }

    /// Judges one request against one state at one moment.
    ///
    /// The head stage checks everything that can be checked without the body, and answers `Continue`
    /// or `Deny`. The body stage checks everything, whether or not there was a head stage before, and
    /// answers `Admit` or `Deny`; a plan counts only once its admission succeeded.
    pub fn decide<R: RequestView>(
        &self,
        stage: Stage,
        request: &R,
        snapshot: &Snapshot,
        now: Now,
        scratch: &mut Scratch,
    ) -> Verdict {
        let mut found = Found::default();
        self.judge(stage, request, snapshot, now, scratch, &mut found).unwrap_or_else(|reason| {
            let connection = found.connection.and_then(|id| ConnectionId::parse(id).ok());
            Verdict::Deny(Box::new(Denial { reason, connection, caller: found.caller }))
        })
    }

    fn judge<'a, R: RequestView>(
        &self,
        stage: Stage,
        request: &'a R,
        snapshot: &Snapshot,
        now: Now,
        scratch: &mut Scratch,
        found: &mut Found<'a>,
    ) -> Result<Verdict, DenyReason> {
        let settings = &*snapshot.settings;
        // Before anything of it is read: how much it is.
        if !request.sent().is_within(MOST_OF_CLIENT) {
            return Err(DenyReason::HeadersTooLarge);
        }
        // 1: whose host.
        authority::check(request.authority(), &settings.authorities, settings.loopback_names)?;
        // 2: which connection.
        let assigned = request.assigned_connection();
        let route = match assigned {
            Some(connection) => route::parse_assigned(request.method(), request.target(), connection)?,
            None => route::parse(request.method(), request.target())?,
        };
        found.connection = Some(route.connection);
        // 3 and 4: headers, signature input, age.
        let headers = SignedHeaders::collect(request)?;
        let params = SignatureParams::parse(&headers)?;
        check_age(params.created, now.seconds(), settings.max_age)?;
        // 5 to 7: certificate and identity, digest, signature.
        let attempt = Attempt { stage, request, headers: &headers, params: &params, snapshot, now };
        let proven = self.authenticate(&attempt, scratch)?;
        let caller = proven.caller;
        let (namespace, service) = (caller.namespace.as_str(), route.connection);
        // 8: approval. A name no connection has is told from one that is not approved only to a key
        // that is approved for it.
        let hold = u64::try_from(settings.claims_hold.as_millis()).unwrap_or(u64::MAX);
        let approval = snapshot.approvals.judge(&caller.key, namespace, service, now, hold);
        let objection = match (approval, snapshot.connection(service)) {
            (Approval::Approved, Some(connection)) => Ok(connection),
            (Approval::Approved, None) => Err(DenyReason::ConnectionUnknown),
            (Approval::Missing, Some(_) | None) | (Approval::Stale, None) => Err(DenyReason::ClaimRequired),
            (Approval::Stale, Some(_)) => Err(DenyReason::ClaimsLookupFailed),
        };
        // 9: what the connection allows.
        let allowed = objection.and_then(|connection| {
            policy::check(connection, request, &route, params.components, settings, now)
                .map(|proof| (connection, proof))
        });
        let (connection, allowed) = match allowed {
            Ok(allowed) => allowed,
            Err(reason) => {
                found.caller = Some(caller);
                return Err(reason);
            }
        };
        let admission = Admission { key: caller.key, nonce: params.nonce.trim().to_owned(), created: params.created };
        match stage {
            Stage::Head => {
                if let Some(print) = proven.print {
                    self.memory.remember(print, now);
                }
                let connection = connection.settings.id.clone();
                Ok(Verdict::Continue(Box::new(Passed { admission, connection, caller })))
            }
            // 10 is the admission, 11 the plan.
            Stage::Body => {
                let plan = Plan {
                    connection: connection.clone(),
                    caller,
                    path: plan::upstream_path(&connection.settings, &allowed, &route, assigned.is_some()),
                    rotation_overdue: allowed.rotation_overdue(),
                    allow_private: settings.allow_private || connection.settings.allow_private,
                    allow_loopback: settings.allow_loopback,
                };
                Ok(Verdict::Admit(Box::new(plan), admission))
            }
        }
    }
}
