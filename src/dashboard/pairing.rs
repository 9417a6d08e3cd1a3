//! Pairing a gateway: the command to run, and how the pairing stands.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::StatusCode;

use crate::api::Api;
use crate::api::input::Query;
use crate::api::owner;
use crate::api::pairing::Ended;
use crate::api::pairing::Standing;
use crate::api::problem::Problem;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::see_other;
use crate::dashboard::answer::short_html;
use crate::dashboard::answer::unchanged;
use crate::dashboard::failure::Failure;
use crate::dashboard::form::Form;
use crate::dashboard::gateway;
use crate::dashboard::layout::Notice;
use crate::dashboard::visitor::Visitor;
use crate::dashboard::when::When;
use crate::domain::secret::Secret;

/// How long a session waits for its gateway.
const PATIENCE: Duration = Duration::from_mins(10);
/// Tells the script that asked for a piece of a page to load another.
const REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// A pair session as it stands on a page.
#[derive(Debug, Clone)]
pub(super) struct SessionView {
    pub(super) id: String,
    /// The beginning of its id.
    pub(super) short: String,
    /// What the owner calls its gateway; empty where nothing.
    pub(super) name: String,
    pub(super) stands: Stands,
    pub(super) created: When,
    /// When it ends unless it is extended.
    pub(super) expires: When,
    pub(super) last_connected: Option<When>,
    /// Whether its bridge is there and the gateway behind it does not answer, as far as it was asked.
    pub(super) silent: bool,
}

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    /// No gateway has come yet.
    Waiting,
    /// Its gateway is there.
    Connected,
    /// Its gateway was there, and may come back.
    Lost,
    /// Its time is over.
    Expired,
    /// Its owner ended it.
    Closed,
    /// Too many wrong codes were tried.
    Guessed,
}

impl Stands {
    /// In an address.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connected => "connected",
            Self::Lost => "lost",
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::Guessed => "guessed",
        }
    }

    /// For people.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting for the gateway",
            Self::Connected => "Connected",
            Self::Lost => "Connection lost; the gateway tries to come back",
            Self::Expired => "The pairing has expired",
            Self::Closed => "The pairing was ended",
            Self::Guessed => "Ended: too many wrong pair codes were tried",
        }
    }

    /// How it is marked: `good`, `warn`, `bad`.
    pub(super) const fn tone(self) -> &'static str {
        match self {
            Self::Connected => "good",
            Self::Waiting | Self::Lost => "warn",
            Self::Expired | Self::Closed | Self::Guessed => "bad",
        }
    }

    /// Whether nothing can come of it any more.
    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::Expired | Self::Closed | Self::Guessed)
    }
}

impl SessionView {
    /// As it is seen at a moment.
    pub(super) fn of(standing: Standing, now_ms: i64) -> Self {
        let stands = match (standing.ended, standing.connected, standing.last_connected_at_ms) {
            (Some(Ended::WrongCodes), _, _) => Stands::Guessed,
            (Some(Ended::ByOwner), _, _) => Stands::Closed,
            (Some(_), _, _) => Stands::Expired,
            (None, true, _) => Stands::Connected,
            (None, false, Some(_)) => Stands::Lost,
            (None, false, None) => Stands::Waiting,
        };
        Self {
            short: standing.session_id.chars().take(8).collect(),
            name: standing.name.unwrap_or_default(),
            id: standing.session_id,
            stands,
            created: When::at(standing.created_at_ms, now_ms),
            expires: When::at(standing.expires_at_ms, now_ms),
            last_connected: standing.last_connected_at_ms.map(|at_ms| When::at(at_ms, now_ms)),
            silent: false,
        }
    }

    /// For people.
    pub(super) const fn text(&self) -> &'static str {
        if self.silent { "Connected, but the gateway does not answer" } else { self.stands.text() }
    }

    /// How it is marked: `good`, `warn`, `bad`.
    pub(super) const fn tone(&self) -> &'static str {
        if self.silent { "warn" } else { self.stands.tone() }
    }
}

/// A session that was just started: what is run where the gateway lives. The pair code stands in it, this once.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) session_id: String,
    /// Stays in the foreground.
    pub(super) pair: Secret,
    /// Starts the gateway too, and stays in the background.
    pub(super) connect: Secret,
}

impl Begun {
    /// The words of a command, each of which is broken only where it must be.
    pub(super) fn words(command: &Secret) -> impl Iterator<Item = &str> {
        command.expose().split(' ')
    }
}

/// The session that is asked for, or the one a page is most likely about: the newest that is connected, else the
/// newest. With it all that are not over, newest first.
pub(super) async fn sessions(
    api: &Api,
    visitor: &Visitor,
    wanted: Option<&str>,
) -> Result<(Option<SessionView>, Vec<SessionView>), Problem> {
    let view = |standing| SessionView::of(standing, visitor.now_ms);
    let live: Vec<_> = api.pairings.live(&visitor.owner.user).await?.into_iter().map(view).collect();
    let chosen = match wanted {
        Some(id) => Some(view(api.pairings.standing(&visitor.owner.user, id).await?)),
        None => {
            let connected = live.iter().find(|one| one.stands == Stands::Connected);
            connected.or_else(|| live.first()).cloned()
        }
    };
    Ok((chosen, live))
}

/// Starts a session and shows the command to run, this once.
pub(super) async fn start(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Response<Body>, Failure> {
    match api.pairings.start(&visitor.owner.user, PATIENCE).await {
        Ok(started) => {
            let of = format!("--namespace {} --api-url {}", started.namespace, owner::origin(&api, &headers));
            // In the environment other users of the machine see neither the code nor the session that codes could be tried
            // for, as they would among the arguments.
            let run = |command: &str| {
                let (id, code) = (&started.session_id, started.pair_code.expose());
                let variables = format!("SIGILUM_PAIR_SESSION_ID={id} SIGILUM_PAIR_CODE={code}");
                Secret::new(format!("{variables} sigilum gateway {command} {of}"))
            };
            let (pair, connect) = (run("pair"), run("connect"));
            let begun = Begun { pair, connect, session_id: started.session_id };
            gateway::page(&api, &visitor, None, StatusCode::OK, None, Some(begun)).await
        }
        Err(problem) => {
            let notice = Some(Notice::problem(&problem));
            gateway::page(&api, &visitor, None, problem.status(), notice, None).await
        }
    }
}

#[derive(Template)]
#[template(path = "pairing_state.html", config = "src/dashboard/askama.toml")]
struct StatePiece {
    session: SessionView,
}

/// How a session stands, where that is another way than the page knows; else nothing. Once the gateway is there, the
/// page of the gateway is next.
pub(super) async fn state(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    query: Query,
) -> Result<Response<Body>, Failure> {
    let (Some(id), known) = (query.find("session"), query.find("known")) else {
        return Err(Problem::not_found().into());
    };
    let standing = api.pairings.standing(&visitor.owner.user, id).await?;
    let session = SessionView::of(standing, visitor.now_ms);
    if known == Some(session.stands.name()) {
        return Ok(unchanged());
    }
    if session.stands == Stands::Connected {
        let mut response = unchanged();
        let target = HeaderValue::try_from(format!("/gateway?session={}&done=paired", escaped(&session.id)));
        if let Ok(target) = target {
            response.headers_mut().insert(REDIRECT, target);
        }
        return Ok(response);
    }
    Ok(short_html(StatusCode::OK, &StatePiece { session }))
}

/// Calls the gateway of a session by another name.
pub(super) async fn rename(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let id = form.text("session").unwrap_or_default();
    match api.pairings.rename(&visitor.owner.user, id, form.text("name").unwrap_or_default()).await {
        Ok(()) => Ok(see_other(&format!("/gateway?session={}&done=gateway-named", escaped(id)))),
        Err(problem) if problem.code() == "VALIDATION_ERROR" => {
            let notice = Some(Notice::problem(&problem));
            gateway::page(&api, &visitor, Some(id), problem.status(), notice, None).await
        }
        Err(problem) => Err(problem.into()),
    }
}

/// Ends a session.
pub(super) async fn end(State(api): State<Arc<Api>>, visitor: Visitor, form: Form) -> Result<Response<Body>, Failure> {
    let id = form.text("session").unwrap_or_default();
    api.pairings.end(&visitor.owner.user, id).await?;
    Ok(see_other("/gateway?done=pairing-ended"))
}
