//! Services and their keys.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::Response;
use http::StatusCode;

use crate::api::Api;
use crate::api::input::Page;
use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::api::service_keys;
use crate::api::service_keys::KeyView;
use crate::api::service_keys::MadeKey;
use crate::api::services;
use crate::api::services::ServiceView;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::html;
use crate::dashboard::answer::see_other;
use crate::dashboard::failure::Failure;
use crate::dashboard::filters;
use crate::dashboard::form::Form;
use crate::dashboard::layout::Layout;
use crate::dashboard::layout::Notice;
use crate::dashboard::layout::Section;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::when::When;

/// Keys that are shown of a service; it has far fewer.
const KEYS: Page = Page { limit: 200, offset: 0 };
/// The fields of a new service.
const FIELDS: [&str; 4] = ["name", "slug", "domain", "description"];

/// A service as it stands on a page.
struct ServiceRow {
    path: String,
    service: ServiceView,
    created: When,
}

impl ServiceRow {
    fn of(service: ServiceView, now_ms: i64) -> Self {
        Self { path: escaped(&service.id), created: When::of(&service.created_at, now_ms), service }
    }
}

/// A key as it stands on a page.
struct KeyRow {
    path: String,
    key: KeyView,
    created: When,
    last_used: Option<When>,
}

/// What was typed into the form of a new service.
#[derive(Default)]
struct Typed {
    name: String,
    slug: String,
    domain: String,
    description: String,
}

#[derive(Template)]
#[template(path = "services.html", config = "src/dashboard/askama.toml")]
struct ServicesPage {
    layout: Layout,
    services: Vec<ServiceRow>,
    most: u32,
    typed: Typed,
    /// Whether the form of a new service is open.
    open: bool,
}

#[derive(Template)]
#[template(path = "service.html", config = "src/dashboard/askama.toml")]
struct ServicePage {
    layout: Layout,
    row: ServiceRow,
    keys: Vec<KeyRow>,
    most: u32,
    /// A key that was just made, this once.
    made: Option<MadeKey>,
    /// The variable a gateway reads the key from.
    variable: String,
}

/// All services.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let notice = Notice::done(query.find("done"));
    let typed = Typed { slug: query.find("slug").unwrap_or_default().to_owned(), ..Typed::default() };
    list_page(&api, &visitor, StatusCode::OK, notice, typed).await
}

async fn list_page(
    api: &Api,
    visitor: &Visitor,
    status: StatusCode,
    notice: Option<Notice>,
    typed: Typed,
) -> Result<Response<Body>, Failure> {
    let services = services::all(api, visitor.owner.clone()).await?;
    let services: Vec<_> = services.into_iter().map(|one| ServiceRow::of(one, visitor.now_ms)).collect();
    let open = services.is_empty() || !typed.slug.is_empty() || status != StatusCode::OK;
    let layout = Layout::of(api, visitor, Section::Services).await?.with(notice);
    let most = api.limits.max_services_per_account;
    Ok(html(status, ServicesPage { layout, services, most, typed, open }).await)
}

/// Makes a service.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response<Body>, Failure> {
    match services::make(&api, visitor.owner.clone(), &form.object(&FIELDS)).await {
        Ok(made) => Ok(see_other(&format!("/services/{}?done=service-made", escaped(&made.id)))),
        Err(problem) => {
            let text = |name| form.text(name).unwrap_or_default().to_owned();
            let typed = Typed {
                name: text("name"),
                slug: text("slug"),
                domain: text("domain"),
                description: text("description"),
            };
            list_page(&api, &visitor, problem.status(), Some(Notice::problem(&problem)), typed).await
        }
    }
}

/// One service with its keys.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let notice = Notice::done(query.find("done"));
    one_page(&api, &visitor, id, StatusCode::OK, notice, None).await
}

async fn one_page(
    api: &Api,
    visitor: &Visitor,
    id: String,
    status: StatusCode,
    notice: Option<Notice>,
    made: Option<MadeKey>,
) -> Result<Response<Body>, Failure> {
    let service = services::find(api, visitor.owner.clone(), id.clone()).await?;
    let found = service_keys::active_keys(api, visitor.owner.clone(), id, KEYS).await?;
    let row = |key: KeyView| KeyRow {
        path: escaped(&key.id),
        created: When::of(&key.created_at, visitor.now_ms),
        last_used: key.last_used_at.as_deref().map(|text| When::of(text, visitor.now_ms)),
        key,
    };
    let page = ServicePage {
        layout: Layout::of(api, visitor, Section::Services).await?.with(notice),
        variable: format!("SIGILUM_SERVICE_API_KEY_{}", suffix(&service.slug)),
        row: ServiceRow::of(service, visitor.now_ms),
        keys: found.keys.into_iter().map(row).collect(),
        most: api.limits.max_keys_per_service,
        made,
    };
    Ok(html(status, page).await)
}

/// How a slug stands in the name of an environment variable.
fn suffix(slug: &str) -> String {
    slug.to_ascii_uppercase().replace('-', "_")
}

/// Makes a key and shows it this once: the answer to the form is the only place it stands.
pub(super) async fn make_key(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response<Body>, Failure> {
    match service_keys::make(&api, visitor.owner.clone(), id.clone(), &form.object(&["name"])).await {
        Ok((status, made)) => one_page(&api, &visitor, id, status, None, Some(made)).await,
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Err(problem.into()),
        Err(problem) => refused(&api, &visitor, id, &problem).await,
    }
}

async fn refused(api: &Api, visitor: &Visitor, id: String, problem: &Problem) -> Result<Response<Body>, Failure> {
    one_page(api, visitor, id, problem.status(), Some(Notice::problem(problem)), None).await
}

/// Revokes a key.
pub(super) async fn revoke_key(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response<Body>, Failure> {
    service_keys::end(&api, visitor.owner, id.clone(), key).await?;
    Ok(see_other(&format!("/services/{}?done=key-revoked", escaped(&id))))
}

/// Deletes a service with everything of it.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response<Body>, Failure> {
    services::delete(&api, visitor.owner, id).await?;
    Ok(see_other("/services?done=service-deleted"))
}
