//! Whom a command hands the admin token of the data folder: the gateway of that folder, and nobody who listens in its place.

use std::io::Read as _;
use std::sync::Mutex;

use super::*;

pub(super) const TOKEN: &str = "canary-admin-token-0123456789abcdef";

/// Somebody who listens on the gateway's port and writes down what he is told.
pub(super) struct Stranger {
    pub(super) address: String,
    heard: Arc<Mutex<String>>,
}

impl Stranger {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heard) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<String>>::default());
        let shared = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 16 * 1024];
                let length = stream.read(&mut head).unwrap_or_default();
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..length]));
                let body = r#"{"error":"no","code":"ADMIN_TOKEN_REQUIRED"}"#;
                let answer = format!(
                    "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, heard }
    }

    pub(super) fn heard(&self) -> String {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

/// Somebody whose gateway has a token.
pub(super) fn person() -> Person {
    let person = Person::new();
    let token = person.file(".local/share/sigilum-gateway/admin-token", TOKEN);
    fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
    person
}

#[test]
fn a_stranger_on_the_port_is_named_and_gets_no_token() {
    let (person, stranger) = (person(), Stranger::start());
    let port = stranger.address.rsplit_once(':').unwrap().1;
    let held = format!("port {port} is held by process {} (", std::process::id());
    for (arguments, code) in [
        (&["connection", "list"][..], 5),
        (&["variable", "list"], 5),
        (&["health"], 5),
        (&["gateway", "drain"], 5),
        (&["gateway", "status", "--json", "--require-rpc"], 5),
        (&["gateway", "status", "--json", "--require-ready"], 3),
        (&["gateway", "probe", "--json"], 1),
    ] {
        let output = person.command(arguments).env("GATEWAY_ADDR", &stranger.address).output().unwrap();
        let said = format!("{}{}", text_of(&output.stdout), text_of(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!stranger.heard().contains(TOKEN), "{arguments:?}");
        assert!(said.contains(&held), "{arguments:?}: {said}");
    }
    // It has findings, whatever their number is, and asks nobody it does not know.
    let mut doctor = person.command(&["doctor", "--lint", "--json"]);
    let doctor = doctor.env("GATEWAY_ADDR", &stranger.address).output().unwrap();
    assert!(!stranger.heard().contains(TOKEN) && !doctor.stdout.is_empty());
}

#[test]
fn a_token_goes_where_a_person_says() {
    let (person, stranger) = (person(), Stranger::start());
    let url = format!("http://{}", stranger.address);
    let named = person.run(&["--gateway-admin-url", &url, "connection", "list"]);
    assert_eq!((named.status.code(), stranger.heard().contains(TOKEN)), (Some(4), true));
    let mut command = person.command(&["connection", "list"]);
    let given = "another-token-of-the-environment";
    let output = command.env("GATEWAY_ADDR", &stranger.address).env("GATEWAY_ADMIN_TOKEN", given).output().unwrap();
    assert_eq!((output.status.code(), stranger.heard().contains(given)), (Some(4), true));
}

/// The address of a gateway elsewhere that nobody finds.
const ELSEWHERE: &str = "https://gateway.invalid:38100";

#[test]
fn the_token_of_a_gateway_elsewhere_is_not_for_who_listens_here() {
    let (person, stranger) = (person(), Stranger::start());
    let elsewhere = "canary-token-of-a-gateway-elsewhere";
    let file = person.file("remote-token", elsewhere);
    let remote = format!("gateway: {{mode: remote, remote: {{url: '{ELSEWHERE}', token_file: {file}}}}}\n");
    let settings = person.file("gateway.yaml", &remote);
    for (name, value) in [("GATEWAY_CONFIG_FILE", settings.as_str()), ("GATEWAY_ADMIN_URL", ELSEWHERE)] {
        for arguments in [&["gateway", "probe", "--json", "--timeout", "500"][..], &["doctor", "--lint", "--json"]] {
            let mut command = person.command(arguments);
            command
                .env("GATEWAY_ADDR", &stranger.address)
                .env(name, value)
                .env("GATEWAY_ADMIN_TOKEN", "canary-given-token");
            let output = command.output().unwrap();
            assert!(!output.stdout.is_empty(), "{arguments:?}: {}", text_of(&output.stderr));
            let heard = stranger.heard();
            assert!(!heard.contains("canary"), "{name} {arguments:?}: {heard}");
        }
    }
    let tunnel =
        format!("gateway: {{mode: remote, remote: {{url: 'http://{}', token_file: {file}}}}}\n", stranger.address);
    let settings = person.file("tunnel.yaml", &tunnel);
    person.command(&["gateway", "probe", "--json"]).env("GATEWAY_CONFIG_FILE", &settings).output().unwrap();
    assert!(stranger.heard().contains(elsewhere), "the end of a tunnel is the gateway that is meant");
}
