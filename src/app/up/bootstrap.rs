//! What the local control plane must know before the gateway starts: services, their keys, the demo's approvals.
//!
//! All of it goes through the API's own endpoints, as the owner of the namespace. Each step looks first and
//! changes only what is missing, so that a second start changes nothing and one that was broken off is completed.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::app::api;
use crate::app::gateway::progress::Progress;
use crate::app::owner_api;
use crate::app::owner_api::ApiError;
use crate::app::owner_api::NewService;
use crate::app::owner_api::OwnerApi;
use crate::app::owner_api::Submission;
use crate::app::up::error::SetupError;
use crate::app::up::keys;
use crate::domain::ids::Namespace;
use crate::domain::secret::Secret;
use crate::identity::Identity;

/// The gateway's own service: its key is the one for connections that have none of their own.
pub(super) const GATEWAY: Wanted =
    Wanted { slug: "sigilum-gateway", name: "Sigilum Gateway", description: "The gateway of the local stack." };
/// The demo that verifies its callers itself.
pub(super) const NATIVE: Wanted = Wanted {
    slug: "demo-service-native",
    name: "Demo Service (Native)",
    description: "A demo service that verifies its callers itself.",
};
/// The demo behind the gateway.
pub(super) const BEHIND: Wanted = Wanted {
    slug: "demo-service-gateway",
    name: "Demo Service (Gateway)",
    description: "A demo service behind the gateway.",
};

/// Where all of them live.
const DOMAIN: &str = "localhost";
/// What the keys we import are called.
const KEY_NAME: &str = "sigilum up";
/// How long the owner's token holds: far longer than setting up takes.
const TOKEN_TTL: Duration = Duration::from_secs(600);
/// How long a claim that was revoked or rejected is asked for again, and how often: the API waits a minute.
const COOLDOWN: Duration = Duration::from_secs(75);
const COOLDOWN_LOOK: Duration = Duration::from_secs(2);
/// The address the demo's agent has.
const AGENT_ADDRESS: &str = "127.0.0.1";
/// What the demo's agent is called.
const AGENT_NAME: &str = "demo agent";

/// A service the stack needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// What approvals and connections call it.
    pub(super) slug: &'static str,
    /// Its name for people.
    pub(super) name: &'static str,
    description: &'static str,
}

/// The keys of the services, by file.
#[derive(Debug)]
pub(super) struct Keys {
    /// Of [`GATEWAY`].
    pub(super) gateway: Secret,
    /// Of [`NATIVE`] and [`BEHIND`], with the demo.
    pub(super) demo: Option<(Secret, Secret)>,
}

impl Keys {
    /// Reads them, makes what is missing.
    pub(super) fn of(home: &Path, demo: bool) -> Result<Self, SetupError> {
        let demo = if demo {
            Some((keys::service_key(home, NATIVE.slug)?, keys::service_key(home, BEHIND.slug)?))
        } else {
            None
        };
        Ok(Self { gateway: keys::service_key(home, GATEWAY.slug)?, demo })
    }
}

/// Makes everything so. `identity` is the gateway's, and the demo's agent; `secret` is what the API signs
/// owners' tokens with.
pub(super) async fn run(
    base: &str,
    secret: &Secret,
    identity: &Identity,
    keys: &Keys,
    progress: &mpsc::Sender<Progress>,
) -> Result<(), SetupError> {
    let owner = OwnerApi::new(base, &token(secret, identity.namespace())?).map_err(asked("the local API"))?;
    match service(&owner, GATEWAY, &keys.gateway).await {
        Ok(()) => {}
        // It is a fallback: an owner who uses up what the API allows needs none.
        Err(SetupError::Api { what, source }) if source.code() == "SERVICE_LIMIT_REACHED" => {
            let _ = progress.try_send(Progress::Note(format!("{what}: {source}; connections need keys of their own")));
        }
        Err(error) => return Err(error),
    }
    if let Some((native, behind)) = &keys.demo {
        for (wanted, key) in [(NATIVE, native), (BEHIND, behind)] {
            service(&owner, wanted, key).await?;
            approve(&owner, base, identity, wanted.slug, key, progress).await?;
        }
    }
    Ok(())
}

fn token(secret: &Secret, namespace: &Namespace) -> Result<Secret, SetupError> {
    api::issue_local_token(secret, namespace, None, TOKEN_TTL).map_err(|error| SetupError::Token(error.to_string()))
}

/// The service exists and this key is one of its keys.
async fn service(owner: &OwnerApi, wanted: Wanted, key: &Secret) -> Result<(), SetupError> {
    let new = NewService { name: wanted.name, slug: wanted.slug, domain: DOMAIN, description: wanted.description };
    let (service, _) =
        owner.ensure_service(&new).await.map_err(asked(&format!("the service {} at the local API", wanted.slug)))?;
    let what = format!("the key of the service {} at the local API", wanted.slug);
    let full = match owner.import_key(&service, KEY_NAME, key).await {
        Ok(_) => return Ok(()),
        Err(error) if error.code() == "KEY_LIMIT_REACHED" => error,
        Err(error) => return Err(asked(&what)(error)),
    };
    // Keys of ours whose home folders are gone, most likely; one that is still in use comes back with its next start.
    let known = owner.keys(&service.id).await.map_err(asked(&what))?;
    let ours: Vec<_> = known.iter().filter(|known| known.name == KEY_NAME).collect();
    if ours.is_empty() {
        return Err(asked(&what)(full));
    }
    for known in ours {
        owner.revoke_key(&service.id, &known.id).await.map_err(asked(&what))?;
    }
    owner.import_key(&service, KEY_NAME, key).await.map(drop).map_err(asked(&what))
}

/// The agent is approved for the service, also where somebody revoked that: who asks for the demo asks for its
/// agent. Shortly after a revocation the API takes no new claim of the same key, which is waited for.
async fn approve(
    owner: &OwnerApi,
    base: &str,
    identity: &Identity,
    service: &'static str,
    key: &Secret,
    progress: &mpsc::Sender<Progress>,
) -> Result<(), SetupError> {
    let what = format!("the demo agent's claim for {service}");
    let submission = Submission { service, agent_ip: AGENT_ADDRESS, agent_id: None, agent_name: Some(AGENT_NAME) };
    let started = Instant::now();
    let mut told = false;
    let claim = loop {
        let claim = owner_api::submit_claim(base, identity, key, &submission).await.map_err(asked(&what))?;
        let ended = matches!(claim.status.as_str(), "revoked" | "rejected");
        if !ended || started.elapsed() > COOLDOWN {
            break claim;
        }
        if !told {
            let note = format!("{what} was {} a moment ago; waiting until it may ask again", claim.status);
            let _ = progress.try_send(Progress::Note(note));
            told = true;
        }
        tokio::time::sleep(COOLDOWN_LOOK).await;
    };
    match claim.status.as_str() {
        "approved" => Ok(()),
        "pending" => match owner.approve(&claim.claim_id, None).await {
            Ok(_) => Ok(()),
            Err(error) => {
                // Somebody may have been faster.
                let now = owner.claim(&claim.claim_id).await.map_err(asked(&what))?;
                if now.status == "approved" { Ok(()) } else { Err(asked(&what)(error)) }
            }
        },
        _ => Err(SetupError::Claim { service, status: claim.status }),
    }
}

fn asked(what: &str) -> impl FnOnce(ApiError) -> SetupError {
    let what = what.to_owned();
    move |source| SetupError::Api { what, source }
}
