//! The commands around the control plane, with a real gateway and a real API behind them.

use std::process::Output;

use serde_json::Value;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::api::Api;
use crate::support::api::owner_token;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::plane;
use crate::support::plane::OWN;
use crate::support::plane::SERVICE;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An installation whose commands find the API's folder, as the user of both has it.
fn setup(api: &Api) -> Setup {
    let data = api.folder().join("data");
    let setup = Setup::new().env("SIGILUM_API_URL", &api.url()).env("API_DATA_DIR", data.to_str().unwrap());
    plane::pace(setup, 1, 60).env("PROVIDER_SECRET", "provider-secret")
}

#[test]
fn a_service_added_twice_serves_whom_its_owner_approves_by_command() {
    let (api, upstream) = (Api::start(), Upstream::start());
    let gateway = setup(&api).start();
    let run = |arguments: &[&str]| gateway.setup.command(arguments).output().unwrap();
    let done = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let base = upstream.base_url();
    let add = ["service", "add", "--service-slug", SERVICE, "--mode", "gateway", "--upstream-base-url", &base];
    let add = [&add[..], &["--upstream-secret-env", "PROVIDER_SECRET"]].concat();
    let first = done(&add);
    assert!(first.contains("state:      created"), "{first}");
    let file = gateway.setup.home().join(format!("service-api-key-{SERVICE}"));
    let key = std::fs::read(&file).unwrap();
    let second = done(&add);
    assert!(second.contains("state:      unchanged"), "{second}");
    assert_eq!(std::fs::read(&file).unwrap(), key, "the key of the first time stays");
    let services = api.owner(OWN, "GET", "/v1/services", None);
    assert_eq!(services["services"].as_array().unwrap().len(), 1, "{services}");
    assert_eq!(services["services"][0]["active_key_count"], 1, "{services}");

    // From the first refusal to the revocation, nothing but requests and commands.
    let agent = Agent::new(OWN);
    plane::until(&gateway, &agent, "AUTH_CLAIM_REQUIRED");
    let mut claims = Vec::new();
    wait_until("the claim is listed", LIMIT, || {
        plane::outcome(&gateway, &agent);
        claims = serde_json::from_str::<Vec<Value>>(&done(&["claim", "list", "--json"])).unwrap();
        !claims.is_empty()
    });
    assert_eq!((&claims[0]["status"], &claims[0]["public_key"]), (&json!("pending"), &json!(agent.public_key)));
    let id = claims[0]["claim_id"].as_str().unwrap();
    done(&["claim", "approve", "--service", SERVICE, "--key", &agent.public_key]);
    plane::until(&gateway, &agent, "OK");
    assert_eq!(upstream.only().header("authorization"), Some("Bearer provider-secret"));
    done(&["claim", "revoke", id]);
    plane::until(&gateway, &agent, "AUTH_CLAIM_REQUIRED");

    // What is wrong is said, with what to do, and changes nothing.
    let stale = owner_token(&api.jwt_secret(), OWN, -120);
    let expired = gateway.setup.command(&["claim", "approve", id]).env("SIGILUM_OWNER_TOKEN", &stale).output().unwrap();
    assert_eq!(expired.status.code(), Some(4), "{}", said(&expired));
    assert!(said(&expired).contains("expired") && said(&expired).contains("sigilum auth login"), "{}", said(&expired));
    assert!(!said(&expired).contains(&stale), "{}", said(&expired));
    let upper = run(&["service", "add", "--service-slug", "Upper-Case"]);
    assert_eq!(upper.status.code(), Some(1));
    assert!(said(&upper).contains("a-z, 0-9"), "{}", said(&upper));
    let two = run(&[&add[..], &["--upstream-secret-stdin"]].concat());
    assert_eq!(two.status.code(), Some(64));
    assert!(said(&two).contains("cannot be used with"), "{}", said(&two));
    let services = api.owner(OWN, "GET", "/v1/services", None);
    assert_eq!(services["services"].as_array().unwrap().len(), 1, "{services}");
    // Its key may have asked again already, and then waits; that it was revoked is told of it.
    let claim = &api.claims(OWN)[0];
    assert!([&claim["status"], &claim["earlier_status"]].contains(&&json!("revoked")), "{claim}");
}

#[test]
fn where_a_person_would_be_asked_and_nobody_is_there_it_says_what_to_give() {
    let api = Api::start();
    let setup = setup(&api);
    for arguments in [&["gateway", "start"][..], &["claim", "list"], &["service", "add"]] {
        let mut command = setup.command(arguments);
        command.env_remove("GATEWAY_SIGILUM_NAMESPACE");
        let output = command.output().unwrap();
        assert!(matches!(output.status.code(), Some(64 | 78)), "{arguments:?}: {}", said(&output));
        let wanted = if arguments == ["service", "add"] { "--service-slug" } else { "--namespace" };
        assert!(said(&output).contains(wanted), "{arguments:?}: {}", said(&output));
    }
    let secret = ["service", "secret", "set", "--service-slug", SERVICE, "--upstream-secret-stdin"];
    let nothing = setup.command(&secret).output().unwrap();
    assert_eq!(nothing.status.code(), Some(1), "{}", said(&nothing));
    assert!(said(&nothing).contains("no secret in standard input"), "{}", said(&nothing));
    assert!(!setup.data().exists(), "nothing was made");
}
