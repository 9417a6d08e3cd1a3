//! Where a token goes in clear: to this machine, and nowhere else without leave.

use super::own_listener::Stranger;
use super::own_listener::TOKEN;
use super::own_listener::person;
use super::*;

/// An address for documentation (RFC 5737): nobody answers there, and nobody is asked.
const ELSEWHERE: &str = "http://192.0.2.1:38100";

#[test]
fn the_stored_token_does_not_go_to_an_address_that_was_typed_with_url() {
    let (person, stranger) = (person(), Stranger::start());
    let url = format!("http://{}", stranger.address);
    for command in [&["logs"][..], &["gateway", "status"], &["gateway", "probe"]] {
        let output = person.run(&[command, &["--url", &url]].concat());
        let heard = stranger.heard();
        assert!(!heard.is_empty() && !heard.contains(TOKEN), "{command:?}: {heard} {}", text_of(&output.stderr));
    }
    let file = person.file("other-token", "the-token-of-that-gateway");
    let output = person.run(&["logs", "--url", &url, "--token-file", &file]);
    assert_eq!((output.status.code(), stranger.heard().contains("the-token-of-that-gateway")), (Some(4), true));
}

#[test]
fn no_token_goes_in_clear_to_another_machine() {
    let person = person();
    for (arguments, variable, code) in [
        (&["--gateway-admin-url", ELSEWHERE, "connection", "list"][..], "", 64),
        (&["--gateway-admin-url", ELSEWHERE, "gateway", "status"], "", 64),
        (&["--gateway-admin-url", ELSEWHERE, "health"], "", 64),
        (&["connection", "list"], ELSEWHERE, 78),
        (&["secrets", "status"], ELSEWHERE, 78),
        (&["logs", "--url", ELSEWHERE], "", 64),
        (&["gateway", "status", "--url", ELSEWHERE], "", 64),
        (&["gateway", "probe", "--url", ELSEWHERE], "", 64),
    ] {
        let output = person.command(arguments).env("GATEWAY_ADMIN_URL", variable).output().unwrap();
        let said = text_of(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains("must be https") && said.contains("SIGILUM_ALLOW_INSECURE_PRIVATE_WS"), "{said}");
    }
    // Whoever sends no token there is not concerned, nor is the bridge of the gateway that listens at that address.
    for arguments in [
        &["gateway", "envoy-config"][..],
        &["gateway", "config", "check"],
        &["--gateway-admin-url", ELSEWHERE, "gateway", "pair", "--own-gateway", "--status"],
    ] {
        let output = person.command(arguments).env("GATEWAY_ADMIN_URL", ELSEWHERE).output().unwrap();
        let said = text_of(&output.stdout) + &text_of(&output.stderr);
        assert!(!said.contains("must be https") && output.status.code() != Some(64), "{arguments:?}: {said}");
    }
    // The switch is for private networks; that one is none.
    let mut command = person.command(&["connection", "list"]);
    let command = command.env("GATEWAY_ADMIN_URL", ELSEWHERE).env("SIGILUM_ALLOW_INSECURE_PRIVATE_WS", "1");
    assert_eq!(command.output().unwrap().status.code(), Some(78));
}
