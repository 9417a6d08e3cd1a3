//! Reloads over the admin API: asking for one, and how it stands. The work is done by a task of its own.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Asked;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::domain::audit::Asker;
use crate::telemetry::data_plane::IN_SYNC;
use crate::wire::envelope::ErrorBody;
use crate::wire::reload::ConfigStatusBody;
use crate::wire::reload::EnvoyConditionBody;
use crate::wire::reload::ReloadQuery;
use crate::wire::reload::SecretsReloadBody;
use crate::wire::reload::SecretsStatusBody;

/// Reloads that wait for one another; each takes them all along.
const QUEUE: usize = 16;

/// What can be asked of whoever reloads.
#[derive(Debug)]
pub enum Ask {
    /// Resolve all references again.
    Secrets {
        /// Activate nothing.
        dry_run: bool,
        /// For the audit.
        asker: Asker,
        /// Told when it is done.
        answer: oneshot::Sender<SecretsReloadBody>,
    },
    /// Read the file and resolve all references again.
    Config {
        /// For the audit.
        asker: Asker,
        /// Told when it is done.
        answer: oneshot::Sender<ConfigStatusBody>,
    },
}

/// How it stands, kept whole so that telling it never waits for a reload.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The file. The condition of Envoy is added when it is told.
    pub config: ConfigStatusBody,
    /// The secrets. Their age is added when it is told.
    pub secrets: SecretsStatusBody,
    /// When they were all resolved last.
    pub resolved_at: Instant,
    /// Whether some are too old to be used.
    pub too_old: bool,
}

/// Reaches whoever reloads; cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadDesk {
    asks: mpsc::Sender<Ask>,
    standing: watch::Receiver<Standing>,
}

impl ReloadDesk {
    /// A desk, and where what is asked there arrives.
    pub fn new(standing: watch::Receiver<Standing>) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(QUEUE);
        (Self { asks, standing }, asked)
    }

    /// How it stands with the secrets now.
    pub fn secrets(&self) -> SecretsStatusBody {
        let standing = self.standing.borrow();
        let age_seconds = standing.resolved_at.elapsed().as_secs();
        SecretsStatusBody { age_seconds, ..standing.secrets.clone() }
    }

    /// Readiness and metrics: generation, whether resolving fails, whether secrets are too old, age in seconds.
    pub fn snapshot(&self) -> (u64, bool, bool, u64) {
        let standing = self.standing.borrow();
        let secrets = &standing.secrets;
        (secrets.generation, secrets.degraded, standing.too_old, standing.resolved_at.elapsed().as_secs())
    }

    /// How it stands with the file now.
    pub fn config(&self) -> ConfigStatusBody {
        self.standing.borrow().config.clone()
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Problem> {
        let busy = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "", "a reload is under way").retry_after(1);
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(make(answer)).map_err(|_| busy())?;
        answered.await.map_err(|_| busy())
    }
}

/// The same with how it stands with Envoy's configuration.
fn with_envoy(admin: &Admin, told: ConfigStatusBody) -> ConfigStatusBody {
    let conditions = admin.metrics.data_plane().conditions();
    let envoy = conditions.into_iter().find(|found| found.kind == IN_SYNC).map(|found| EnvoyConditionBody {
        status: if found.holds { "True" } else { "False" }.to_owned(),
        reason: found.reason.to_owned(),
        message: found.message,
    });
    ConfigStatusBody { envoy, ..told }
}

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(reload_secrets))
        .routes(routes!(secrets_status))
        .routes(routes!(reload_config))
        .routes(routes!(config_status))
}

/// Resolves every reference again and activates all secrets or none.
#[utoipa::path(
    post, path = "/api/admin/secrets/reload", operation_id = "reloadSecrets", tag = "reload", params(ReloadQuery),
    responses(
        (status = 200, description = "Done; `ok` says whether all were resolved. If not, the last secrets stay in use",
            body = SecretsReloadBody),
        (status = 400, description = "`dry_run` is neither true nor false, or the body broke off", body = ErrorBody),
        (status = 503, description = "Another reload is under way", body = ErrorBody),
    ),
)]
async fn reload_secrets(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Who,
    query: Asked<ReloadQuery>,
    request: Request,
) -> Response<Body> {
    let work = async {
        json_body(request).await?;
        let dry = query.ok().and_then(|Query(query)| query.is_dry());
        let dry_run = dry.ok_or_else(|| Problem::invalid("dry_run: must be true or false"))?;
        json(StatusCode::OK, &admin.reload.ask(|answer| Ask::Secrets { dry_run, asker, answer }).await?)
    };
    finish(&id, work.await)
}

/// How it stands with the secrets: which references, and whether each was resolved.
#[utoipa::path(get, path = "/api/admin/secrets/status", operation_id = "secretsStatus", tag = "reload", responses(
    (status = 200, description = "Names and keyed fingerprints, no values", body = SecretsStatusBody),
))]
async fn secrets_status(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, json(StatusCode::OK, &admin.reload.secrets()))
}

/// Reads the configuration file again, as its mode says.
#[utoipa::path(post, path = "/api/admin/config/reload", operation_id = "reloadConfig", tag = "reload", responses(
    (status = 200, description = "Done; `ok` says whether the file is in force now", body = ConfigStatusBody),
    (status = 503, description = "Another reload is under way", body = ErrorBody),
))]
async fn reload_config(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Who,
    request: Request,
) -> Response<Body> {
    let work = async {
        json_body(request).await?;
        let told = admin.reload.ask(|answer| Ask::Config { asker, answer }).await?;
        json(StatusCode::OK, &with_envoy(&admin, told))
    };
    finish(&id, work.await)
}

/// How it stands with the configuration file.
#[utoipa::path(get, path = "/api/admin/config/status", operation_id = "configStatus", tag = "reload", responses(
    (status = 200, description = "What is in force, what differs, and why", body = ConfigStatusBody),
))]
async fn config_status(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    finish(&id, json(StatusCode::OK, &with_envoy(&admin, admin.reload.config())))
}
