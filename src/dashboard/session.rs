//! Signing in with an owner token, and out.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use serde_json::Map;
use serde_json::Value;

use crate::api::Api;
use crate::api::account;
use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::dashboard::answer::see_other;
use crate::dashboard::answer::short_html;
use crate::dashboard::assets;
use crate::dashboard::failure::Failure;
use crate::dashboard::form::Form;
use crate::dashboard::layout::Notice;

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/dashboard/askama.toml")]
struct SignInPage {
    version: &'static str,
    notice: Option<Notice>,
    next: String,
}

/// The sign-in page.
pub(super) async fn show(query: Query) -> Response<Body> {
    let text = match query.find("why") {
        Some("TOKEN_EXPIRED") => Some("Your token has expired. Make another one and sign in again."),
        Some("USER_NOT_FOUND") => Some("The owner of your token does not exist any more."),
        Some("signed-out") => {
            Some("You are signed out in this browser. The token you signed in with stays good for your commands.")
        }
        Some(_) | None => None,
    };
    let good = query.find("why") == Some("signed-out");
    let notice = text.map(|text| Notice { good, text: text.to_owned(), code: "", details: Vec::new() });
    page(StatusCode::OK, notice, local(query.find("next")))
}

fn page(status: StatusCode, notice: Option<Notice>, next: String) -> Response<Body> {
    short_html(status, &SignInPage { version: assets::version(), notice, next })
}

/// A path of ours, else the first page. Neither `//host` nor `/\host`, which browsers take for another machine.
fn local(next: Option<&str>) -> String {
    let plain = |text: &&str| {
        let mut bytes = text.bytes();
        bytes.next() == Some(b'/')
            && !matches!(bytes.next(), Some(b'/' | b'\\'))
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    next.filter(plain).unwrap_or("/").to_owned()
}

/// Begins a session; its cookie is a token of its own.
pub(super) async fn begin(
    State(api): State<Arc<Api>>,
    method: Method,
    headers: HeaderMap,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let next = local(form.text("next"));
    let token = Map::from_iter([("token".to_owned(), Value::from(form.text("token").unwrap_or_default()))]);
    match account::begin(&api, &method, &headers, &token).await {
        Ok((_, cookie)) => {
            let mut response = see_other(&next);
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(response)
        }
        Err(problem) if is_about_token(&problem) => Ok(page(problem.status(), Some(Notice::problem(&problem)), next)),
        Err(problem) => Err(problem.into()),
    }
}

/// Whether another token helps.
fn is_about_token(problem: &Problem) -> bool {
    matches!(problem.code(), "VALIDATION_ERROR" | "UNAUTHORIZED" | "TOKEN_EXPIRED" | "USER_NOT_FOUND")
}

/// Ends the session: its token is worthless, and the cookie is forgotten.
pub(super) async fn end(
    State(api): State<Arc<Api>>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response<Body>, Failure> {
    let cookie = account::end(&api, &method, &headers).await?;
    let mut response = see_other("/sign-in?why=signed-out");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_elsewhere() {
        for good in ["/", "/claims?status=approved", "/gateway/connections/new"] {
            assert_eq!(local(Some(good)), good);
        }
        for bad in ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a b", "/\t/evil.example", "/é"]
        {
            assert_eq!(local(Some(bad)), "/", "{bad:?}");
        }
    }
}
