//! Signing a draft and sending it exactly as it was signed.

use reqwest::Response;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;

use crate::cli::identity;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::request::input::Draft;
use crate::cli::settings::IdentityPlace;
use crate::identity::Home;
use crate::identity::Outgoing;
use crate::sys::clock::Clock as _;
use crate::sys::clock::SystemClock;
use crate::sys::http;
use crate::sys::http::chain;
use crate::sys::random;

/// Adds the headers of the signature; nothing that is signed may change after this.
pub(crate) fn sign(
    draft: &mut Draft,
    place: &IdentityPlace,
    subject: Option<&str>,
    agent_id: Option<&str>,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let opened = identity::open(&Home::new(&place.home), place.namespace.as_deref())?;
    identity::warn(&opened, printer);
    let nonce = random::uuid().map_err(|error| CliError::new(Outcome::Failed, error.to_string()))?;
    let outgoing = Outgoing {
        method: draft.method.as_str(),
        url: draft.url.as_str(),
        body: &draft.body,
        subject,
        agent_id,
        created: SystemClock.now().seconds(),
        nonce: &nonce,
    };
    let usage = |message: String| CliError::new(Outcome::Usage, message);
    let signed = opened.identity.signer().sign(&outgoing).map_err(|error| usage(error.to_string()))?;
    for (name, value) in signed {
        // Text beyond ASCII is allowed in a header as opaque bytes (RFC 9110 section 5.5).
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| usage(format!("{name} cannot be sent in a header")))?;
        draft.headers.push((HeaderName::from_static(name), value));
    }
    Ok(())
}

/// Sends the request; returns when the answer's headers are there.
pub(crate) async fn send(draft: Draft) -> Result<Response, CliError> {
    let failed = |message: String| CliError::new(Outcome::Failed, message);
    let client = http::client(draft.url.scheme() == "https").map_err(|error| failed(chain(&error)))?;
    let authority = draft.authority();
    let mut request = client.request(draft.method, draft.url).body(draft.body);
    for (name, value) in draft.headers {
        request = request.header(name, value);
    }
    request.send().await.map_err(|error| {
        let error = error.without_url();
        if error.is_builder() {
            return CliError::new(Outcome::Usage, format!("the request cannot be sent: {}", chain(&error)));
        }
        let message = format!("{authority} does not answer: {}", chain(&error));
        CliError::new(Outcome::Unreachable, message).hint("is the gateway running? start it with `sigilum up`")
    })
}
