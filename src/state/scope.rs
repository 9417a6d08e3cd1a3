//! What one authz may hold: everything, or the connections of its workload and what belongs to them.
//!
//! Pure. Whatever is sent passes [`Scope::restrict`] or is gathered by [`Scope::covers`]; the property test holds that the
//! two agree and that nothing of another workload is ever in a message.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::fleet::Reach;
use crate::config::fleet::Workload;
use crate::wire::state::proto;

/// A set of connections, those that do not exist yet included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All there are and will be.
    Everything,
    /// These ids.
    Only(Arc<BTreeSet<String>>),
}

impl Default for Scope {
    /// Nothing.
    fn default() -> Self {
        Self::Only(Arc::default())
    }
}

impl Scope {
    /// What a certificate with these names is sent: what any workload with one of them is. `None`: no workload has one,
    /// and nothing at all is sent, the settings neither.
    pub(super) fn of(names: &[String], workloads: &[Workload]) -> Option<Self> {
        let mut all = None::<BTreeSet<String>>;
        for workload in workloads.iter().filter(|workload| workload.sans.iter().any(|san| names.contains(san))) {
            match &workload.reach {
                Reach::Everything => return Some(Self::Everything),
                Reach::Only(ids) => all.get_or_insert_default().extend(ids.iter().map(ToString::to_string)),
            }
        }
        all.map(|all| Self::Only(Arc::new(all)))
    }

    /// Whether a connection, and the approvals of it, are in it.
    pub(super) fn covers(&self, connection: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(ids) => ids.contains(connection),
        }
    }

    /// Whether there is, or may be, a connection in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, Self::Everything) => true,
            (Self::Everything, Self::Only(ids)) | (Self::Only(ids), Self::Everything) => !ids.is_empty(),
            (Self::Only(ids), Self::Only(others)) => !ids.is_disjoint(others),
        }
    }

    /// How much is in it, to be compared.
    pub(super) fn reach(&self) -> usize {
        match self {
            Self::Everything => usize::MAX,
            Self::Only(ids) => ids.len(),
        }
    }

    /// What is left of it without the other. Of everything nothing is left: what is not in a set has no name.
    pub(super) fn without(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Everything, _) | (_, Self::Everything) => Self::default(),
            (Self::Only(ids), Self::Only(others)) => Self::Only(Arc::new(ids.difference(others).cloned().collect())),
        }
    }

    /// Both together.
    pub(super) fn with(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
            (Self::Only(ids), Self::Only(others)) => Self::Only(Arc::new(ids.union(others).cloned().collect())),
        }
    }

    /// What is left of it without what `other` has; of that, what is in `kept` stays. Of everything nothing is left but that.
    pub(super) fn free_of(&self, other: &Self, kept: &Self) -> Self {
        match self {
            Self::Everything if other.is_empty() => Self::Everything,
            Self::Everything => kept.clone(),
            Self::Only(ids) => {
                let free = ids.iter().filter(|id| !other.covers(id) || kept.covers(id));
                Self::Only(Arc::new(free.cloned().collect()))
            }
        }
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Everything => false,
            Self::Only(ids) => ids.is_empty(),
        }
    }

    /// Takes out of a delta what is not in it. What is left may be nothing but the new version.
    pub(super) fn restrict(&self, delta: &mut proto::Delta) {
        if matches!(self, Self::Everything) {
            return;
        }
        delta.upsert_connections.retain(|connection| self.covers(&connection.id));
        delta.delete_connections.retain(|id| self.covers(id));
        delta.replace_approvals.retain(|list| self.covers(&list.service));
        delta.add_approvals.retain(|approval| self.covers(&approval.service));
        delta.remove_approvals.retain(|approval| self.covers(&approval.service));
        delta.end_claims.retain(|service| self.covers(service));
    }
}
