//! From an empty dashboard to a request that passes, and to one that is refused again: the real browser, API, bridge,
//! gateway and Envoy, and a secret that nobody on its way can read.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::agent::Agent;
use crate::support::api::Api;
use crate::support::browser::Browser;
use crate::support::client::Response;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::plane::OWN;
use crate::support::plane::admin_log;
use crate::support::process::wait_until;
use crate::support::upstream::Upstream;
use crate::support::wiretap::Wiretap;

/// The provider's secret.
const CANARY: &str = "tk_canary_7f3a9c5e1b2d4860";
/// The connection that is made.
const CONNECTION: &str = "tickets-api";

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// Whether the secret stands there, in clear or as base64 of any kind.
fn holds(haystack: &[u8]) -> bool {
    let plain = CANARY.as_bytes();
    // The middle of base64, which is the same whatever stands before it, for each of the three ways it can be aligned.
    let encoded = (0..3).flat_map(|before| {
        let padded = [&vec![b'x'; before], plain].concat();
        [STANDARD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)].map(|text| text.as_bytes()[4..28].to_vec())
    });
    std::iter::once(plain.to_vec())
        .chain(encoded)
        .any(|needle| haystack.windows(needle.len()).any(|window| window == needle))
}

/// The command that the page shows, to be run beside a gateway as a person pastes it.
fn command(setup: &Setup, shown: &str) -> Command {
    let (variables, arguments) = shown.split_once(" sigilum ").unwrap();
    let variables: Vec<_> = variables.split_whitespace().map(|word| word.split_once('=').unwrap()).collect();
    let names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["SIGILUM_PAIR_SESSION_ID", "SIGILUM_PAIR_CODE"], "{shown}");
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let mut command = setup.command(&arguments);
    command.envs(variables);
    command
}

fn ask(gateway: &Gateway, agent: &Agent) -> Response {
    gateway.send(&agent.get(&gateway.authority(), &format!("/proxy/{CONNECTION}/v1/tickets")))
}

fn until(gateway: &Gateway, agent: &Agent, wanted: &str) {
    wait_until(&format!("an agent is told {wanted}"), LIMIT, || {
        let answer = ask(gateway, agent);
        if answer.status == 200 { wanted == "OK" } else { answer.code() == wanted }
    });
}

#[test]
fn a_gateway_is_paired_and_managed_and_its_secret_is_read_by_nobody_else() {
    let Some(mut browser) = Browser::start() else { return };
    let (api, upstream) = (Api::start(), Upstream::start());
    let tap = Wiretap::start(api.address);
    // As `up` leaves it: with a key for all services, which the API takes for one of them.
    let other = api.service(OWN, "another-service");
    let setup = Setup::new().env("SIGILUM_API_URL", &api.url()).env("SIGILUM_SERVICE_API_KEY", &other.key);
    let gateway = setup.start();
    browser.go(&format!("{}/", tap.url()));
    browser.fill("#token", &api.token(OWN));
    browser.click("form button[type=submit]");
    browser.until("First steps");

    // One command where the gateway lives.
    browser.press("Pair your gateway");
    browser.press("Start pairing");
    browser.until("Run this where the gateway lives");
    let shown = browser.script("return document.getElementById('pair-command').textContent", vec![]);
    let mut bridge = Running::spawn(command(&gateway.setup, shown.as_str().unwrap()));
    browser.until("The gateway is connected.");
    wait_until("the bridge prints the fingerprint", LIMIT, || bridge.said().contains("sealing key fingerprint: "));
    let said = bridge.said();
    let (_, printed) = said.split_once("sealing key fingerprint: ").unwrap();
    let printed = printed.split_whitespace().next().unwrap().to_owned();
    assert_eq!(printed.len(), 39, "{printed}");

    // A connection whose secret is sealed to the key with that fingerprint.
    browser.press("Add a connection");
    browser.press("Another provider");
    browser.until(&printed);
    browser.fill("#id", CONNECTION);
    browser.fill("#name", "Tickets");
    browser.fill("#base_url", &upstream.base_url());
    browser.fill("[data-secret]", CANARY);
    browser.click("#compared");
    browser.press("Add connection");
    browser.until("The connection is there.");
    let audit = gateway.admin("GET", &format!("/audit?connection={CONNECTION}"), None).text();
    assert!(audit.contains("\"sealed\"") && !audit.contains("\"plain\""), "{audit}");
    browser.press("Test");
    browser.until("The last test passed");
    let address = browser.url();
    wait_until("the page says that the key for all services does not help", LIMIT, || {
        browser.go(&address);
        browser.text().contains("its key for all services is refused")
    });
    wait_until("the log says what to do", LIMIT, || {
        admin_log(&gateway).contains(&format!("sigilum service add --service-slug {CONNECTION}"))
    });
    browser.press("Register the service and hand its key over");
    browser.until("The gateway asks this API whom you approved");
    browser.pictures("story-connection");

    // An agent asks, the owner is told without asking, approves, and the request passes with the secret.
    browser.go(&format!("{}/claims", tap.url()));
    browser.until("Nobody is waiting");
    let agent = Agent::new(OWN);
    until(&gateway, &agent, "AUTH_CLAIM_REQUIRED");
    wait_until("the claim is submitted", LIMIT, || {
        ask(&gateway, &agent);
        !api.claims(OWN).is_empty()
    });
    browser.until("One claim is pending now.");
    let badge = "const badge = document.querySelector('.side .count'); return badge.offsetWidth > 2 && \
                 [...document.querySelectorAll('[data-pending]')].map((number) => number.textContent).join()";
    assert_eq!(browser.script(badge, vec![]), "1,1", "the numbers beside the news say something else");
    browser.press("Show");
    browser.until(CONNECTION);
    browser.press("Approve");
    browser.until("The agent may use the service now.");
    until(&gateway, &agent, "OK");
    let seen = upstream.seen();
    assert_eq!(seen.last().unwrap().header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    wait_until("the use is told", LIMIT, || api.usage(OWN) > 0);
    browser.go(&format!("{}/claims?status=approved", tap.url()));
    browser.until("just now");
    browser.pictures("story-approved");

    // Revoked, it is refused, and the page of the gateway says why.
    browser.press("Revoke");
    browser.press("Yes, revoke");
    browser.until("The approval is revoked");
    until(&gateway, &agent, "AUTH_CLAIM_REQUIRED");
    browser.go(&format!("{}/usage?range=24h", tap.url()));
    browser.until("By service");
    browser.go(&format!("{}/gateway", tap.url()));
    browser.until("AUTH_CLAIM_REQUIRED");
    browser.pictures("story-gateway");

    // Switched off it serves nobody, whoever is approved.
    browser.press("Manage");
    browser.press("Disable");
    browser.press("Yes, disable");
    browser.until("The connection is disabled");
    browser.go(&format!("{}/", tap.url()));
    browser.until("Overview");
    browser.pictures("story-overview");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // The secret is nowhere on its way: the API's files and log, both wires, the browser's own record, the bridge.
    let mut found = Vec::new();
    files(api.folder(), &mut found);
    files(gateway.setup.root.path(), &mut found);
    found.push(("the API's log".to_owned(), api.said().into_bytes()));
    found.push(("the bridge's output".to_owned(), bridge.said().into_bytes()));
    found.push(("the wire".to_owned(), tap.carried()));
    found.push(("the browser's traffic".to_owned(), browser.traffic().into_bytes()));
    assert!(found.len() > 8, "{}", found.len());
    let wire = tap.carried();
    assert!(wire.windows(10).any(|part| part == b"sealed:v1:"), "the wire was not recorded");
    for (name, content) in &found {
        assert!(!holds(content), "{name} holds the secret");
    }
    bridge.signal(rustix::process::Signal::TERM);
    assert!(bridge.wait(LIMIT).success(), "{}", bridge.said());
}

#[test]
fn the_secret_would_be_found() {
    assert!(holds(format!("x{CANARY}y").as_bytes()));
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{CANARY}{{}}");
        assert!(
            holds(STANDARD.encode(&text).as_bytes()) && holds(URL_SAFE_NO_PAD.encode(&text).as_bytes()),
            "{before}"
        );
    }
    assert!(!holds(b"tk_canary"));
}
