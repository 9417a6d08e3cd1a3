//! Connections of the paired gateway: added from its catalog, tested, rotated, switched off, deleted.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use serde_json::json;

use crate::api::Api;
use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::api::services;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::html;
use crate::dashboard::answer::see_other;
use crate::dashboard::failure::Failure;
use crate::dashboard::filters;
use crate::dashboard::form::Form;
use crate::dashboard::gateway::ConnectionRow;
use crate::dashboard::layout::Layout;
use crate::dashboard::layout::Notice;
use crate::dashboard::layout::Section;
use crate::dashboard::listed::Listed;
use crate::dashboard::offer::MAX_FIELDS;
use crate::dashboard::offer::Members;
use crate::dashboard::offer::Offer;
use crate::dashboard::relay::Agent;
use crate::dashboard::relay::Connection;
use crate::dashboard::relay::Gateway;
use crate::dashboard::relay::ServiceKey;
use crate::dashboard::secrets;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::when::When;
use crate::domain::ids::ConnectionId;
use crate::domain::ids::PublicKey;
use crate::domain::secret::Secret;
use crate::wire::catalog::CredentialField;

/// Name in an address of the form for a provider the catalog does not have.
const CUSTOM: &str = "custom";
/// Name of the one secret of such a provider.
const CUSTOM_SECRET: &str = "api_key";

/// The pair session a request is about.
fn session(query: &Query) -> Result<String, Problem> {
    query.find("session").map(str::to_owned).ok_or_else(|| Problem::invalid("session", "must be given"))
}

/// The pair session a form is about.
pub(super) fn session_of(form: &Form) -> Result<String, Problem> {
    form.text("session").map(str::to_owned).ok_or_else(|| Problem::invalid("session", "must be given"))
}

/// The gateway behind a session of the visitor's.
pub(super) fn gateway<'a>(api: &'a Api, visitor: &'a Visitor, session: &'a str) -> Gateway<'a> {
    Gateway { api, owner: &visitor.owner.user, session }
}

#[derive(Template)]
#[template(path = "catalog.html", config = "src/dashboard/askama.toml")]
struct CatalogPage {
    layout: Layout,
    session: String,
    offers: Listed<(String, Offer)>,
}

#[derive(Template)]
#[template(path = "connection_new.html", config = "src/dashboard/askama.toml")]
struct NewPage {
    layout: Layout,
    session: String,
    /// Without its fields.
    offer: Offer,
    /// What of it is asked for.
    fields: Listed<CredentialField, MAX_FIELDS>,
    /// Whether the provider is none of the catalog.
    custom: bool,
    typed: Typed,
    sealing_key: String,
}

/// What stands in the form.
struct Typed {
    id: String,
    name: String,
    base_url: String,
    auth_mode: String,
    auth_header_name: String,
    rotation_interval_days: String,
}

impl Typed {
    fn of(offer: &Offer) -> Self {
        Self {
            id: offer.connection_id.clone(),
            name: offer.label.clone(),
            base_url: offer.base_url.clone(),
            auth_mode: offer.auth_mode.clone(),
            auth_header_name: String::new(),
            rotation_interval_days: String::new(),
        }
    }

    fn again(form: &Form) -> Self {
        let text = |name| form.text(name).unwrap_or_default().to_owned();
        Self {
            id: text("id"),
            name: text("name"),
            base_url: text("base_url"),
            auth_mode: text("auth_mode"),
            auth_header_name: text("auth_header_name"),
            rotation_interval_days: text("rotation_interval_days"),
        }
    }
}

/// What is offered for a name: a template of the gateway's catalog, or an empty one.
async fn offer_of(gateway: Gateway<'_>, name: &str) -> Result<Offer, Problem> {
    if name != CUSTOM {
        let found = gateway.catalog().await?.shown.into_iter().find(|one| one.key == name);
        return found.ok_or_else(Problem::not_found);
    }
    let field = CredentialField {
        key: CUSTOM_SECRET.to_owned(),
        label: "API key or token".to_owned(),
        secret: true,
        required: true,
        ..CredentialField::default()
    };
    Ok(Offer {
        key: CUSTOM.to_owned(),
        protocol: "http".to_owned(),
        auth_mode: "bearer".to_owned(),
        auth_secret_key: CUSTOM_SECRET.to_owned(),
        credential_fields: Listed::of(vec![field]),
        ..Offer::default()
    })
}

/// The gateway's catalog, or the form for one of it.
pub(super) async fn offer(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let session = session(&query)?;
    if let Some(name) = query.find("template") {
        let offer = offer_of(gateway(&api, &visitor, &session), name).await?;
        let typed = Typed::of(&offer);
        return form_page(&api, &visitor, session, offer, typed, StatusCode::OK, None).await;
    }
    let catalog = gateway(&api, &visitor, &session).catalog().await?;
    let page = CatalogPage {
        layout: Layout::of(&api, &visitor, Section::Gateway).await?,
        session,
        offers: catalog.map(|offer| (escaped(&offer.key), offer)),
    };
    Ok(html(StatusCode::OK, page).await)
}

async fn form_page(
    api: &Api,
    visitor: &Visitor,
    session: String,
    mut offer: Offer,
    typed: Typed,
    status: StatusCode,
    notice: Option<Notice>,
) -> Result<Response<Body>, Failure> {
    let sealing_key = gateway(api, visitor, &session).sealing_key().await?.public_key;
    let layout = Layout::of(api, visitor, Section::Gateway).await?.with(notice);
    let custom = offer.key == CUSTOM;
    let fields = std::mem::take(&mut offer.credential_fields);
    Ok(html(status, NewPage { layout, session, offer, fields, custom, typed, sealing_key }).await)
}

/// Makes a connection. Its id and its address go to the gateway letter by letter as the form has them: sealed secrets
/// are bound to them.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let session = session_of(&form)?;
    let to = gateway(&api, &visitor, &session);
    let offer = offer_of(to, form.text("template").unwrap_or_default()).await?;
    let made = async {
        let (id, body) = new_connection(&offer, &form)?;
        to.create(body).await?;
        Ok(id)
    };
    match made.await {
        Ok(id) => {
            let (id, session) = (escaped(&id), escaped(&session));
            Ok(see_other(&format!("/gateway/connections/{id}?session={session}&done=connection-made")))
        }
        Err(problem) => {
            let (status, notice) = (Problem::status(&problem), Some(Notice::problem(&problem)));
            form_page(&api, &visitor, session, offer, Typed::again(&form), status, notice).await
        }
    }
}

/// Id and body of a connection made of a template and what the form says.
fn new_connection(offer: &Offer, form: &Form) -> Result<(String, Secret), Problem> {
    let id = form.text("id").unwrap_or_default();
    ConnectionId::parse(id).map_err(|error| Problem::invalid("id", error.to_string()))?;
    let base_url = form.text("base_url").ok_or_else(|| Problem::invalid("base_url", "must be given"))?;
    let mut body = Members::default();
    let mut put = |name, text: &str| body.text(name, text);
    put("id", id);
    put("name", form.text("name").unwrap_or(id));
    put("protocol", &offer.protocol);
    put("base_url", base_url);
    put("path_prefix", &offer.path_prefix);
    put("auth_secret_key", &offer.auth_secret_key);
    if offer.key == CUSTOM {
        put("auth_mode", form.text("auth_mode").unwrap_or_default());
        put("auth_header_name", form.text("auth_header_name").unwrap_or_default());
    } else {
        put("auth_mode", &offer.auth_mode);
        put("auth_header_name", &offer.auth_header_name);
        put("auth_prefix", &offer.auth_prefix);
    }
    if offer.protocol == "mcp" {
        offer.carry_tools(&mut body);
    }
    if let Some(text) = form.text("rotation_interval_days") {
        let days = text.parse::<u32>().map_err(|_| Problem::invalid("rotation_interval_days", "must be whole days"))?;
        body.put("rotation_interval_days", &days);
    }
    body.put("secrets", &secrets::read(form)?);
    Ok((id.to_owned(), body.body()))
}

/// An agent as it stands on a page.
struct AgentRow {
    agent: Agent,
    fingerprint: String,
    last_used: When,
}

/// Whether a gateway can ask this API whom its owner approved for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asking {
    /// How the key begins that it asks with; `None` where it cannot.
    works: Option<String>,
    /// Why it cannot.
    why: &'static str,
    /// Whether the owner has the service of the connection.
    registered: bool,
}

impl Asking {
    /// That a gateway has some key says little: one for all services is taken for the service it belongs to alone.
    fn of(key: &ServiceKey, registered: bool) -> Self {
        let shared = key.key_source.as_deref() == Some("shared");
        let standing = key.api_standing.as_deref().unwrap_or_default();
        let why = match standing {
            _ if !key.has_key => "The gateway has no key of this service",
            "confirmed" => "",
            "refused" if shared => {
                "The gateway has no key of this service's own, and its key for all services is refused"
            }
            "refused" => "The API refuses the gateway's key of this service",
            _ if !registered => "You have no service of this name yet",
            _ if shared => "The gateway has no key of this service's own",
            _ => "",
        };
        Self { works: why.is_empty().then(|| key.key_prefix.clone()), why, registered }
    }
}

#[derive(Template)]
#[template(path = "connection.html", config = "src/dashboard/askama.toml")]
struct ConnectionPage {
    layout: Layout,
    session: String,
    row: ConnectionRow,
    agents: Result<Listed<AgentRow>, String>,
    sealing_key: String,
    /// Whether the gateway can ask whom the owner approved for it.
    asking: Result<Asking, String>,
    /// The path a test asks for.
    test_path: String,
    /// What a secret that replaces one is bound to, by name.
    bound: Vec<(&'static str, String)>,
    /// The names of its secrets, each with the name for people where the catalog has one.
    fields: Listed<(String, String)>,
}

/// One connection.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let session = session(&query)?;
    let notice = Notice::done(query.find("done"));
    page(&api, &visitor, session, &id, StatusCode::OK, notice).await
}

async fn page(
    api: &Api,
    visitor: &Visitor,
    session: String,
    id: &str,
    status: StatusCode,
    notice: Option<Notice>,
) -> Result<Response<Body>, Failure> {
    let from = gateway(api, visitor, &session);
    let (connection, agents, key, catalog, service_key, services) = tokio::join!(
        from.connection(id),
        from.agents(id),
        from.sealing_key(),
        from.catalog(),
        from.service_key(id),
        services::all(api, visitor.owner.clone()),
    );
    let registered = services?.iter().any(|service| service.slug == id);
    let row = ConnectionRow::of(connection?, visitor.now_ms);
    let agent = |agent: Agent| AgentRow {
        fingerprint: PublicKey::parse(&agent.public_key).map(|key| key.fingerprint()).unwrap_or_default(),
        last_used: When::of(&agent.last_used_at, visitor.now_ms),
        agent,
    };
    let offers = catalog.unwrap_or_default();
    let offered = offers.shown.into_iter().find(|offer| offer.connection_id == row.connection.id);
    let test_path = test_path(offered.as_ref()).to_owned();
    let named = |key: String| {
        let field = offered.iter().flat_map(|offer| &offer.credential_fields.shown).find(|field| field.key == key);
        let label = field.map_or_else(|| key.clone(), |field| field.label.clone());
        (key, label)
    };
    let page = ConnectionPage {
        layout: Layout::of(api, visitor, Section::Gateway).await?.with(notice),
        fields: row.connection.credential_keys.clone().map(named),
        test_path,
        bound: bound(&row.connection),
        agents: agents.map(|all| all.map(agent)).map_err(|problem| problem.sentence()),
        sealing_key: key.map(|key| key.public_key).unwrap_or_default(),
        asking: service_key.map(|key| Asking::of(&key, registered)).map_err(|problem| problem.sentence()),
        row,
        session,
    };
    Ok(html(status, page).await)
}

/// What a secret of this connection is sealed for.
fn bound(connection: &Connection) -> Vec<(&'static str, String)> {
    let texts = [
        ("id", &connection.id),
        ("base_url", &connection.base_url),
        ("path_prefix", &connection.path_prefix),
        ("mcp_endpoint", &connection.mcp_endpoint),
        ("auth_mode", &connection.auth_mode),
        ("auth_header_name", &connection.auth_header_name),
        ("auth_prefix", &connection.auth_prefix),
        ("auth_secret_key", &connection.auth_secret_key),
    ];
    let version = ("secret_version", connection.secret_version.to_string());
    texts.into_iter().map(|(name, text)| (name, text.clone())).chain([version]).collect()
}

/// Back to the connection with what was done, or the connection with why it was not.
pub(super) async fn done(
    api: &Api,
    visitor: &Visitor,
    session: String,
    id: &str,
    outcome: Result<(), Problem>,
    word: &str,
) -> Result<Response<Body>, Failure> {
    match outcome {
        Ok(()) => {
            let (id, session) = (escaped(id), escaped(&session));
            Ok(see_other(&format!("/gateway/connections/{id}?session={session}&done={word}")))
        }
        // Without a connection or a gateway there is no page to say it on.
        Err(problem) if problem.code() != "GATEWAY_REFUSED" && problem.code() != "VALIDATION_ERROR" => {
            Err(problem.into())
        }
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Err(problem.into()),
        Err(problem) => page(api, visitor, session, id, problem.status(), Some(Notice::problem(&problem))).await,
    }
}

/// What is asked for where a template names a path and the owner does not name another.
fn trial(offer: Option<&Offer>, path: Option<&str>) -> Members {
    match (offer, path) {
        (Some(offer), None) => offer.trial(),
        (Some(offer), Some(path)) if path == test_path(Some(offer)) => offer.trial(),
        // Method, headers and body of the template belong to its own path.
        (_, Some(path)) => {
            let mut members = Members::default();
            members.text("test_path", path);
            members
        }
        (None, None) => Members::default(),
    }
}

/// The path a test asks for by itself.
fn test_path(offer: Option<&Offer>) -> &str {
    offer.map(|offer| offer.default_test_path.as_str()).filter(|path| !path.is_empty()).unwrap_or("/")
}

/// Tries the connection, at the path the owner names or as the catalog says for its provider; the page then shows what came
/// of it.
pub(super) async fn test(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let session = session_of(&form)?;
    let at = gateway(&api, &visitor, &session);
    // Without a catalog the gateway tries what it tries by itself.
    let offers = at.catalog().await.unwrap_or_default();
    let how = trial(offers.shown.iter().find(|offer| offer.connection_id == id), form.text("test_path"));
    let outcome = at.test(&id, how.body()).await;
    done(&api, &visitor, session.clone(), &id, outcome, "tested").await
}

/// Puts other secrets in the place of those it has.
pub(super) async fn rotate(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let session = session_of(&form)?;
    let outcome = async {
        let body = json!({
            "secrets": secrets::read(&form)?,
            "rotated_by": visitor.owner.namespace.as_str(),
            "rotation_reason": "by the owner, in the dashboard",
        });
        gateway(&api, &visitor, &session).rotate(&id, Secret::new(body.to_string())).await
    };
    let outcome = outcome.await;
    done(&api, &visitor, session.clone(), &id, outcome, "connection-rotated").await
}

/// Switches it off, or on again.
pub(super) async fn set_status(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let session = session_of(&form)?;
    let (status, word) = match form.text("status") {
        Some("active") => ("active", "connection-enabled"),
        Some("disabled") => ("disabled", "connection-disabled"),
        Some(_) | None => return Err(Problem::invalid("status", "must be active or disabled").into()),
    };
    let outcome = gateway(&api, &visitor, &session).change(&id, json!({ "status": status })).await;
    done(&api, &visitor, session.clone(), &id, outcome, word).await
}

/// Deletes it with its secrets.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let session = session_of(&form)?;
    match gateway(&api, &visitor, &session).delete(&id).await {
        Ok(()) => Ok(see_other(&format!("/gateway?session={}&done=connection-deleted", escaped(&session)))),
        Err(problem) => done(&api, &visitor, session.clone(), &id, Err(problem), "").await,
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
