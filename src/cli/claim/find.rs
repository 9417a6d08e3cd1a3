//! Which claim is meant: by its id, or by what is known of it where that is one claim only.

use clap::Args;

use crate::app::owner_api::Claim;
use crate::app::owner_api::ClaimFilter;
use crate::cli::claim::fingerprint;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::owner;
use crate::cli::owner::Owner;

/// Most claims that are looked through.
const MOST: usize = 10_000;
/// Most candidates that are named in an error.
const NAMED: usize = 5;

/// One claim.
#[derive(Debug, Clone, Args)]
pub(super) struct Which {
    /// The claim's id, cl_…
    #[arg(value_name = "CLAIM", conflicts_with_all = ["service", "key"], required_unless_present_any = ["service", "key"])]
    id: Option<String>,
    /// Its service
    #[arg(long, value_name = "SLUG")]
    service: Option<String>,
    /// Its key: ed25519:… or the key's fingerprint
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl Which {
    /// Finds it; `status` is the one it must have.
    pub(super) async fn find(&self, owner: &Owner, status: Option<&str>) -> Result<Claim, CliError> {
        if let Some(id) = &self.id {
            return owner.api.claim(id.trim()).await.map_err(|error| match error.status() {
                404 => CliError::new(Outcome::Failed, format!("there is no claim {}", id.trim()))
                    .hint("sigilum claim list"),
                _ => owner::failed(&error),
            });
        }
        let filter = ClaimFilter { status: None, service: self.service.as_deref() };
        let listed = owner.api.claims(owner.namespace.as_str(), filter, MOST).await;
        let (claims, _) = listed.map_err(|error| owner::failed(&error))?;
        let mut meant: Vec<Claim> = claims.into_iter().filter(|claim| self.is_of_key(claim)).collect();
        // A slug means a service of our own; somebody else's of the same slug is named by the claim's id.
        if self.service.is_some() && meant.iter().any(Claim::is_for_own_service) {
            meant.retain(Claim::is_for_own_service);
        }
        // Where some could be meant and others not, the others are not.
        if meant.len() > 1 && meant.iter().any(|claim| status.is_some_and(|status| claim.status == status)) {
            meant.retain(|claim| status.is_some_and(|status| claim.status == status));
        }
        match (meant.pop(), meant.is_empty()) {
            (Some(claim), true) => Ok(claim),
            (None, _) => {
                Err(CliError::new(Outcome::Failed, format!("no claim of {} {}", owner.namespace, self.words()))
                    .hint("sigilum claim list"))
            }
            (Some(last), false) => {
                meant.push(last);
                let ids: Vec<_> = meant.iter().take(NAMED).map(|claim| claim.claim_id.as_str()).collect();
                let more = if meant.len() > NAMED { ", …" } else { "" };
                let message = format!("{} claims of {} {}", meant.len(), owner.namespace, self.words());
                Err(CliError::new(Outcome::Failed, message)
                    .hint(format!("name one by its id: {}{more}", ids.join(", "))))
            }
        }
    }

    fn is_of_key(&self, claim: &Claim) -> bool {
        self.key
            .as_deref()
            .map(str::trim)
            .is_none_or(|key| claim.public_key == key || fingerprint(&claim.public_key).eq_ignore_ascii_case(key))
    }

    fn words(&self) -> String {
        let service = self.service.as_ref().map(|service| format!("for the service {service}"));
        let key = self.key.as_ref().map(|key| format!("with the key {key}"));
        service.into_iter().chain(key).collect::<Vec<_>>().join(" ")
    }
}
