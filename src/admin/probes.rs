//! Tests of connections, and what an MCP server offers.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::extract::Request;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Id;
use crate::admin::input::Name;
use crate::admin::input::Shared;
use crate::admin::input::Who;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::domain::address::AddressPolicy;
use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::connection::Connection;
use crate::domain::connection::Protocol;
use crate::domain::connection::Upstream;
use crate::domain::ids::ConnectionId;
use crate::domain::probe::LastTest;
use crate::domain::probe::TestOutcome;
use crate::domain::probe::TestRequest;
use crate::domain::relay::RelayRefused;
use crate::domain::route;
use crate::probe::Busy;
use crate::probe::Prober;
use crate::store::StoreError;
use crate::store::worker::Store;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::wire::admin::decode;
use crate::wire::catalog::Catalog;
use crate::wire::catalog::Template;
use crate::wire::envelope::ErrorBody;
use crate::wire::probe::TestBody;
use crate::wire::probe::TestResultBody;
use crate::wire::probe::verdict;

/// Seconds after which there may be room for another test.
const RETRY_SECONDS: u32 = 5;
/// Longest time for a test that a pairing relays: its bridge waits 10 s for us where nobody says otherwise, and whoever asked
/// is to hear how the test ended.
const RELAYED_PATIENCE: Duration = Duration::from_secs(8);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(test)).routes(routes!(discover))
}

/// Sends one request to the provider with the connection's credential, and tells whether 200 to 399 was answered. No
/// redirect is followed.
#[utoipa::path(post, path = "/api/admin/connections/{id}/test", operation_id = "testConnection", tag = "connections",
    params(("id" = String, Path, description = "Slug of the connection")),
    request_body(content = Option<TestBody>, description = "May be left out"), responses(
    (status = 200, description = "The provider answered", body = TestResultBody),
    (status = 400, description = "The connection has no usable secret, or what is asked for may not be sent", body = ErrorBody),
    (status = 404, description = "No connection of that id", body = ErrorBody),
    (status = 429, description = "As many tests as may run at a time are running", body = ErrorBody),
    (status = 501, description = "The protocol is `mcp`, whose tests this version does not have", body = ErrorBody),
    (status = 502, description = "Nothing was answered", body = TestResultBody),
))]
pub(super) async fn test(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Who,
    name: Name,
    request: Request,
) -> Response<Body> {
    let work = async { run(&admin, &asker, name.connection()?, &json_body(request).await?).await };
    finish(&id, work.await)
}

/// Tests that are running. Each ends and is written down where whoever asked for it has left too, because the credential
/// was sent all the same. The prober says how many there may be.
#[derive(Debug, Default)]
pub struct Tests(Mutex<JoinSet<()>>);

impl Tests {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(work);
    }
}

/// One test, with everything it needs to be sent and written down.
struct Test {
    prober: Arc<Prober>,
    store: Store,
    clock: SystemClock,
    addresses: Arc<AddressPolicy>,
    asker: Asker,
    connection: Arc<Connection>,
    request: TestRequest,
}

impl Test {
    async fn run(self) -> Result<TestOutcome, Problem> {
        let Self { prober, store, clock, addresses, asker, connection, request } = self;
        let credential = connection.credential.as_ref().map_err(|reason| Problem::invalid(reason.clone()))?;
        let (id, method) = (connection.settings.id.clone(), request.method.to_string());
        let tested = id.clone();
        let made = store.read(move |vault| vault.made_at(tested.as_str())).await?;
        let within = asker.relay().map(|_| RELAYED_PATIENCE);
        let mut outcome = prober.test(&connection, credential, request, &addresses, within).await.map_err(|Busy| {
            let text = "as many tests as may run at a time are running";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "", text).retry_after(RETRY_SECONDS)
        })?;
        if asker.relay().is_some() && !outcome.passed && outcome.http_status > 0 {
            // A provider may repeat a credential in a form that nobody looks for.
            outcome.error = format!("http {}", outcome.http_status);
        }
        let now = clock.now().wall;
        let detail = Detail::default()
            .text("method", &method)
            .text("result", verdict(outcome.passed))
            .number("http_status", outcome.http_status.into());
        let entry = Entry::new(Action::ConnectionTest, id.as_str(), &asker, now).with(detail);
        let last = LastTest { at: now, outcome: outcome.clone() };
        store.keep(move |vault| vault.keep_test(id.as_str(), made, &last, &entry)).await?;
        Ok(outcome)
    }
}

async fn run(admin: &Admin, asker: &Asker, id: ConnectionId, body: &[u8]) -> Result<Response<Body>, Problem> {
    let connection = published(admin, &id)?;
    if connection.settings.protocol == Protocol::Mcp {
        return Err(not_yet());
    }
    let asked = if body.trim_ascii().is_empty() { TestBody::default() } else { decode::<TestBody>(body)? };
    if asker.relay().is_some() && !is_relayable(&asked, &connection) {
        return Err(RelayRefused::Test.into());
    }
    let request = asked.into_draft().check(&connection.settings).map_err(StoreError::Invalid)?;
    let test = Test {
        prober: Arc::clone(&admin.prober),
        store: admin.store.clone(),
        clock: admin.clock,
        addresses: admin.addresses.load_full(),
        asker: asker.clone(),
        connection,
        request,
    };
    let (answer, answered) = oneshot::channel();
    admin.tests.spawn(async move {
        // Whoever asked may have left.
        let _ = answer.send(test.run().await);
    });
    let outcome = answered.await.unwrap_or_else(|_| Err(Problem::internal()))?;
    let unanswered = !outcome.passed && outcome.http_status == 0;
    let status = if unanswered { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
    json(status, &TestResultBody::encode(outcome))
}

/// Whether a request through a pairing may have this sent with the credential: a look, or what the catalog of this version
/// (not the file, which such a request may add to) has for the connection's provider.
fn is_relayable(asked: &TestBody, connection: &Connection) -> bool {
    let base_url = connection.settings.upstream.base_url();
    let leads_there =
        |template: &Template| Upstream::parse(&template.base_url).is_ok_and(|upstream| upstream.base_url() == base_url);
    asked.is_look()
        || Catalog::defaults().services.iter().any(|template| leads_there(template) && asked.is_of(template))
}

/// Asks an MCP server for its tools.
#[utoipa::path(post, path = "/api/admin/connections/{id}/discover", operation_id = "discoverConnection",
    tag = "connections", params(
        ("id" = String, Path, description = "Slug of the connection"),
        ("refresh" = Option<String>, Query, description = "`auto`, `if_stale`, `cache`, `false`, `0`, `no`: what is \
            known counts while it is fresh; `force` (default), `always`, `true`, `1`, `yes`: asked in any case"),
    ), responses(
    (status = 400, description = "`INVALID_REFRESH_MODE`, or the protocol is not `mcp`", body = ErrorBody),
    (status = 404, description = "No connection of that id", body = ErrorBody),
    (status = 501, description = "This version does not have it", body = ErrorBody),
))]
pub(super) async fn discover(
    State(admin): Shared,
    Extension(id): Id,
    name: Name,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response<Body> {
    let work = async {
        json_body(request).await?;
        let connection = published(&admin, &name.connection()?)?;
        if connection.settings.protocol != Protocol::Mcp {
            return Err(Problem::invalid("protocol: only connections of protocol mcp can be discovered"));
        }
        if !refresh_is_known(query.as_deref().unwrap_or_default()) {
            let text = "refresh: must be auto or force";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "INVALID_REFRESH_MODE", text));
        }
        Err(not_yet())
    };
    finish(&id, work.await)
}

/// Whether the first `refresh` of a query, if any, is one of the words for it.
fn refresh_is_known(query: &str) -> bool {
    let mut given = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, value)) = given.find(|(name, _)| *name == "refresh") else { return true };
    let mut decoded = Vec::new();
    route::decode(value.replace('+', " ").as_bytes(), &mut decoded);
    let word = decoded.trim_ascii().to_ascii_lowercase();
    let known: [&[u8]; 12] =
        [b"", b"auto", b"if_stale", b"cache", b"false", b"0", b"no", b"force", b"always", b"true", b"1", b"yes"];
    known.contains(&word.as_slice())
}

/// The connection as authz has it, with its secret found wherever it is kept.
fn published(admin: &Admin, id: &ConnectionId) -> Result<Arc<Connection>, Problem> {
    admin.publisher.connection(id.as_str()).ok_or_else(|| StoreError::NotFound.into())
}

fn not_yet() -> Problem {
    let text = "this version of the gateway does not speak to MCP servers";
    Problem::new(StatusCode::NOT_IMPLEMENTED, "", text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;
    use crate::domain::draft::Draft;
    use crate::domain::secret::Secret;

    #[test]
    fn the_test_of_a_template_is_relayed_to_its_own_provider_alone() {
        let connection = |base_url: &str| {
            let draft = Draft {
                id: "demo".into(),
                base_url: base_url.into(),
                auth_secret_key: "key".into(),
                ..Draft::default()
            };
            let settings = draft.check(&AddressPolicy::default()).unwrap().settings;
            Connection::new(settings, Ok(&Secret::new("s".to_owned())))
        };
        let mut own = 0;
        for template in Catalog::defaults().check().unwrap().services {
            let body = serde_json::json!({"method": template.default_test_method, "test_path": template.default_test_path,
                "headers": template.default_test_headers, "body": template.default_test_body});
            let asked = decode::<TestBody>(body.to_string().as_bytes()).unwrap();
            assert!(is_relayable(&asked, &connection(&template.base_url)), "{}", template.key);
            assert_eq!(is_relayable(&asked, &connection("https://evil.example")), asked.is_look(), "{}", template.key);
            own += usize::from(!asked.is_look());
        }
        assert!(own > 0, "some need more than a look");
    }

    #[test]
    fn the_words_for_refresh_are_known() {
        for known in
            ["", "x=1", "refresh", "refresh=", "refresh=force", "a&refresh=IF_STALE&refresh=x", "refresh=+0%20"]
        {
            assert!(refresh_is_known(known), "{known}");
        }
        for unknown in ["refresh=2", "refresh=forced", "refresh=%00", "refresh=x&refresh=auto"] {
            assert!(!refresh_is_known(unknown), "{unknown}");
        }
    }
}
