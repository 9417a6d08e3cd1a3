//! A gateway that asks a control plane, and what it says of that.

use std::fs;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use super::agent::Agent;
use super::api::Service;
use super::client;
use super::client::Request;
use super::client::Response;
use super::gateway::Gateway;
use super::gateway::LIMIT;
use super::gateway::Setup;
use super::process::wait_until;

/// The first connection of every gateway, and the slug of its service.
pub const SERVICE: &str = "conn-000";
/// The gateway's own namespace.
pub const OWN: &str = "operator";

/// How much claims are asked for and how long they hold, in seconds.
pub fn pace(setup: Setup, refresh: u32, ttl: u32) -> Setup {
    setup
        .env("GATEWAY_CLAIMS_CACHE_REFRESH_SECONDS", &refresh.to_string())
        .env("GATEWAY_CLAIMS_CACHE_TTL_SECONDS", &ttl.to_string())
}

/// An installation that asks the control plane at `url` with the key of this service.
pub fn setup(url: &str, service: &Service) -> Setup {
    let setup = Setup::new().env("SIGILUM_API_URL", url);
    put_key(&setup, service);
    setup
}

/// Writes a service's key where the gateway looks for it.
pub fn put_key(setup: &Setup, service: &Service) {
    fs::write(setup.home().join(format!("service-api-key-{}", service.slug)), format!("{}\n", service.key)).unwrap();
}

/// A signed GET of an agent below [`SERVICE`].
pub fn get(gateway: &Gateway, agent: &Agent) -> Response {
    gateway.send(&agent.get(&gateway.authority(), &format!("/proxy/{SERVICE}/v1")))
}

/// The code of what an agent is told; `OK` where it is served.
pub fn outcome(gateway: &Gateway, agent: &Agent) -> String {
    let response = get(gateway, agent);
    if response.status == 200 { "OK".to_owned() } else { response.code() }
}

/// Waits until an agent is told this; how long that took.
pub fn until(gateway: &Gateway, agent: &Agent, wanted: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let found = outcome(gateway, agent);
        if found == wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LIMIT, "{found} and not {wanted} after {LIMIT:?}\n{}", gateway.logs());
    }
}

/// The condition of readiness that is about claims: whether they are fresh, and the reason.
pub fn fresh(gateway: &Gateway) -> (bool, String) {
    // As it is now: what was found last may be half a second old.
    let request = Request::new("GET", &gateway.setup.admin.to_string(), "/health/ready?fresh")
        .header("authorization", &format!("Bearer {}", gateway.token()));
    let answer = client::send(gateway.setup.admin, &request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let condition = body["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "ClaimsFresh"));
    let condition: &Value = condition.unwrap_or_else(|| panic!("no ClaimsFresh in {body}"));
    (condition["status"] == "True", condition["reason"].as_str().unwrap().to_owned())
}

/// Waits until readiness says that claims are fresh, or that they are not.
pub fn until_fresh(gateway: &Gateway, wanted: bool) {
    wait_until(&format!("ClaimsFresh is {wanted}"), LIMIT, || gateway.admin_ready() && fresh(gateway).0 == wanted);
}

/// Waits until the approvals of a service have been read: before that nobody can say who is a stranger.
pub fn until_read(gateway: &Gateway, service: &str) {
    wait_until("the approvals are read", LIMIT, || {
        metric(gateway, &format!("claims_age_seconds{{service=\"{service}\"}}")).is_some()
    });
}

/// One sample of admin's metrics, by its name with labels and without `sigilum_gateway_`.
pub fn metric(gateway: &Gateway, name: &str) -> Option<f64> {
    let request = Request::new("GET", &gateway.setup.admin.to_string(), "/metrics")
        .header("authorization", &format!("Bearer {}", gateway.token()));
    let answer = client::try_send(gateway.setup.admin, &request).ok()?;
    let text = answer.text();
    let sample = text.lines().find_map(|line| line.strip_prefix("sigilum_gateway_")?.strip_prefix(name))?;
    sample.trim().parse().ok()
}

/// Everything admin has logged.
pub fn admin_log(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.setup.data().join("logs/admin.log")).unwrap_or_default()
}
