//! What the store says of itself and of its changes, and what it is asked for.

use std::sync::Arc;

use crate::config::parts::DeclaredApproval;
use crate::domain::ids::ConnectionId;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::Secrets;
use crate::domain::secret::Secret;
use crate::domain::snapshot::Settings;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::declared::Place as DeclaredPlace;

/// What a change did, told in the order of commits.
#[derive(Debug)]
pub enum Change {
    /// A connection is new or different. The secret is the one to inject; `Err` says why there is none.
    Saved(Arc<ConnectionRecord>, Result<Secret, String>),
    /// A connection is gone.
    Deleted(ConnectionId),
    /// The settings are different.
    Settings(Box<Settings>),
    /// The declared approvals of a service are exactly these.
    Approvals(ConnectionId, Vec<DeclaredApproval>),
    /// Several changes that are one version.
    Together(Vec<Change>),
}

impl Change {
    /// Id of the connection that is new or different, where it is that.
    pub(super) fn saved_id(&self) -> Option<&str> {
        match self {
            Self::Saved(record, _) => Some(record.settings.id.as_str()),
            Self::Deleted(_) | Self::Settings(_) | Self::Approvals(..) | Self::Together(_) => None,
        }
    }
}

/// All connections of a store, as one look at it found them.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Records with the secret to inject; `Err` says why there is none.
    pub usable: Vec<(Arc<ConnectionRecord>, Result<Secret, String>)>,
    /// Ids of stored connections that are left out because one of the same id is declared.
    pub shadowed: Vec<String>,
    /// Rows that are no records of this version.
    pub unreadable: Vec<StoreError>,
}

/// A connection, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Everything but the values of its secrets.
    pub record: Arc<ConnectionRecord>,
    /// Where it is declared; `None`: it is stored.
    pub declared: Option<DeclaredPlace>,
    /// Why its secret cannot be injected, as far as that is known without opening it.
    pub problem: Option<String>,
    /// When an agent last used it, as far as that is written down.
    pub last_used_at: Option<UnixMillis>,
}

/// A rotation as asked for.
#[derive(Debug)]
pub struct RotationRequest {
    /// Merged into what is there.
    pub secrets: Secrets,
    /// Who, by their own word.
    pub by: String,
    /// Why, by their own word.
    pub reason: String,
}
