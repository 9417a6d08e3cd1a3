//! What goes wrong, as a page: the sentence and the code the API would have answered, or the way to the sign-in.

use askama::Template;
use axum::body::Body;
use axum::response::IntoResponse;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;

use crate::api::problem::Problem;
use crate::dashboard::answer::escaped;
use crate::dashboard::answer::see_other;
use crate::dashboard::answer::short_html;
use crate::dashboard::assets;

/// Tells the script that asked for a piece of a page to load a whole one.
const REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// Why there is no page.
#[derive(Debug)]
pub enum Failure {
    /// Nobody is signed in, or no longer: the sign-in page says why and leads back.
    SignIn {
        /// Code of the refusal.
        code: &'static str,
        /// Path of the page that was asked for; `None` = the first one.
        next: Option<String>,
        /// Whether a script asked for a piece of a page.
        piece: bool,
    },
    /// Anything else.
    Problem(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

#[derive(Template)]
#[template(path = "error.html", config = "src/dashboard/askama.toml")]
struct ErrorPage {
    version: &'static str,
    heading: &'static str,
    sentence: String,
    code: &'static str,
    /// Where it can be mended: path and words.
    mend: Option<(&'static str, &'static str)>,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::SignIn { code, next, piece } => {
                let mut target = format!("/sign-in?why={code}");
                if let Some(next) = next {
                    target.push_str("&next=");
                    target.push_str(&escaped(&next));
                }
                if !piece {
                    return see_other(&target);
                }
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
                response.headers_mut().insert(REDIRECT, HeaderValue::from_static("/sign-in"));
                response
            }
            Self::Problem(problem) => {
                let heading = match problem.status() {
                    StatusCode::NOT_FOUND => "There is nothing here",
                    StatusCode::FORBIDDEN => "This is not allowed",
                    status if status.is_server_error() => "That did not work",
                    _ => "That could not be done",
                };
                let page = ErrorPage {
                    version: assets::version(),
                    heading,
                    sentence: problem.sentence(),
                    code: problem.code(),
                    mend: match problem.code() {
                        "SERVICE_LIMIT_REACHED" => {
                            Some(("/services", "See your services, and delete one you do not use"))
                        }
                        "GATEWAY_NOT_CONNECTED" | "GATEWAY_NOT_RUNNING" => Some(("/gateway", "To the gateway")),
                        _ => None,
                    },
                };
                short_html(problem.status(), &page)
            }
        }
    }
}
