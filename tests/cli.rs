//! The real binary as a person or a script meets it: exit codes, output, files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may panic"
)]

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature;
use ed25519_dalek::VerifyingKey;
use serde_json::Value;
use tempfile::TempDir;

#[path = "cli/access.rs"]
mod access;
#[path = "cli/auth.rs"]
mod auth;
#[path = "cli/claim.rs"]
mod claim;
#[path = "cli/clear_tokens.rs"]
mod clear_tokens;
#[path = "cli/config.rs"]
mod config;
#[path = "cli/connection.rs"]
mod connection;
#[path = "cli/container.rs"]
mod container;
#[path = "cli/diagnostics.rs"]
mod diagnostics;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/fake.rs"]
mod fake;
#[path = "cli/fake_admin.rs"]
mod fake_admin;
#[path = "cli/gateway.rs"]
mod gateway;
#[path = "cli/gateway_service.rs"]
mod gateway_service;
#[path = "cli/import.rs"]
mod import;
#[path = "cli/install.rs"]
mod install;
#[path = "cli/local_api.rs"]
mod local_api;
#[path = "cli/option_values.rs"]
mod option_values;
#[path = "cli/own_listener.rs"]
mod own_listener;
#[path = "cli/pair.rs"]
mod pair;
#[path = "cli/service.rs"]
mod service;
#[path = "cli/signatures.rs"]
mod signatures;
#[path = "cli/status.rs"]
mod status;
#[path = "cli/terminal.rs"]
mod terminal;

/// A home folder of its own and nothing of the caller's environment.
struct Person {
    folder: TempDir,
}

impl Person {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn home(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigilum"));
        command.env_clear().env("HOME", self.home()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Writes a file below the home folder and returns its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "a file of the test")]
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home().join(name)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed and returns its stdout.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn usage_errors_exit_64_and_say_nothing_on_stdout() {
    let person = Person::new();
    for arguments in [
        &[][..],
        &["nonsense"],
        &["--nonsense"],
        &["identity"],
        &["identity", "init", "--what"],
        &["identity", "init", "--namespace", "-bad-"],
        &["request", "GET"],
        &["request", "GET", "not a url"],
        &["request", "GET", "http://h/", "-H", "Host: x"],
        &["--gateway-port", "0", "version"],
        &["--gateway-master-key", "canary", "version"],
    ] {
        let output = person.run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty() && !text_of(&output.stderr).contains("canary"), "{arguments:?}");
    }
}

#[test]
fn the_version_is_one_line() {
    let person = Person::new();
    let expected = format!("sigilum {}\n", env!("CARGO_PKG_VERSION"));
    for arguments in [
        &["version"][..],
        &["-v"],
        &["--version"],
        &["--namespace", "demo", "version"],
        &["--", "version"],
        &["--namespace", "demo", "--", "version"],
    ] {
        assert_eq!(person.done(arguments), expected);
    }
    assert!(person.done(&["help", "request"]).contains("--dry-run"));
}

#[test]
fn a_wrong_configuration_exits_78_with_all_its_mistakes() {
    let person = Person::new();
    let file = person.home().join("gateway.yaml");
    let text = "gateway:\n  adr: x\nlimits: {max_body_bytes: lots}\napprovals:\n- {namespace: demo, service: svc}\n";
    #[allow(clippy::disallowed_methods, reason = "a file of the test")]
    fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    for command in [&["gateway", "start"][..], &["up", "--demo"], &["gateway", "envoy-config"]] {
        let mut arguments = command.to_vec();
        arguments.extend(["--config", name]);
        let output = person.run(&arguments);
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        let said = text_of(&output.stderr);
        for place in [":2:3: unknown key", ":3:26: limits.max_body_bytes", ":5:3: the approval has no public_key"] {
            assert!(said.contains(&format!("{name}{place}")), "{said}");
        }
    }
    let missing = person.run(&["gateway", "start", "--config", "/nowhere/gateway.yaml"]);
    assert_eq!(missing.status.code(), Some(78));
    let opened = person.command(&["gateway", "start"]).env("GATEWAY_ALLOW_UNSIGNED_PROXY", "true").output().unwrap();
    assert_eq!(opened.status.code(), Some(78));
    assert!(!person.home().join(".sigilum-workspace").exists(), "a start that is refused leaves nothing behind");
}

#[test]
fn the_envoy_configuration_follows_the_settings() {
    let person = Person::new();
    let shipped = person.done(&["gateway", "envoy-config", "--static"]);
    assert_eq!(shipped, include_str!("../envoy/envoy.yaml"));
    let rendered = person.done(&["gateway", "envoy-config", "--ingress-addr", "127.0.0.1:45678"]);
    assert!(rendered.contains("port_value: 45678") && !rendered.contains("port_value: 38000"), "{rendered}");
    let limited = person.command(&["gateway", "envoy-config"]).env("GATEWAY_MAX_REQUEST_BODY_BYTES", "4096").output();
    assert!(text_of(&limited.unwrap().stdout).contains("max_request_bytes: 4096"));
}

#[test]
fn down_has_nothing_to_stop_where_nothing_runs() {
    let person = Person::new();
    assert!(person.done(&["down"]).contains("not running"));
}

#[test]
fn an_identity_is_made_once_and_kept_private() {
    let person = Person::new();
    assert_eq!(person.done(&["identity", "list"]), "No identities found.\n");
    let created = person.done(&["identity", "init", "--namespace", " Demo-Agent "]);
    let lines: Vec<_> = created.lines().collect();
    assert_eq!(lines.len(), 6, "{created}");
    assert_eq!(lines[..3], ["Created Sigilum identity", "namespace: demo-agent", "did: did:sigilum:demo-agent"]);
    assert!(lines[3].starts_with("keyId: did:sigilum:demo-agent#ed25519-"));
    assert!(lines[4].starts_with("publicKey: ed25519:"));
    let file = person.home().join(".sigilum/identities/demo-agent/identity.json");
    assert_eq!(lines[5], format!("identityPath: {}", file.display()));

    assert_eq!(mode(&file), 0o600);
    for folder in [".sigilum", ".sigilum/identities", ".sigilum/identities/demo-agent"] {
        assert_eq!(mode(&person.home().join(folder)), 0o700, "{folder}");
    }
    let again = person.done(&["--namespace", "demo-agent", "identity", "init"]);
    assert_eq!(again.replace("Loaded existing", "Created"), created);
    assert_eq!(person.done(&["identity", "show"]), created.split_once('\n').unwrap().1);
    assert_eq!(person.done(&["identity", "list"]), "demo-agent\n");
}

#[test]
fn json_is_for_programs_and_holds_no_seed() {
    let person = Person::new();
    let home = person.home().join("elsewhere");
    let home = home.to_str().unwrap();
    let init: Value =
        serde_json::from_str(&person.done(&["identity", "init", "--namespace", "demo", "--home", home, "--json"]))
            .unwrap();
    assert_eq!(init["created"], true);
    assert_eq!(init["namespace"], "demo");
    let shown = person.done(&["identity", "show", "--sigilum-home", home, "--json"]);
    let show: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(show["publicKey"], init["publicKey"]);
    assert_eq!(show["identityPath"], init["identityPath"]);
    let list: Value = serde_json::from_str(&person.done(&["identity", "list", "--home", home, "--json"])).unwrap();
    assert_eq!(list, serde_json::json!(["demo"]));

    let file = fs::read_to_string(init["identityPath"].as_str().unwrap()).unwrap();
    let record: Value = serde_json::from_str(&file).unwrap();
    assert!(!shown.contains(record["privateKey"].as_str().unwrap()));
}

#[test]
fn which_identity_is_meant_must_be_clear() {
    let person = Person::new();
    let output = person.run(&["identity", "show"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output.stderr).contains("sigilum identity init"), "{}", text_of(&output.stderr));
    person.done(&["identity", "init", "--namespace", "bob"]);
    person.done(&["identity", "init", "--namespace", "alice"]);
    let output = person.run(&["identity", "show"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text_of(&output.stderr).contains("alice, bob"), "{}", text_of(&output.stderr));
    assert_eq!(person.done(&["identity", "list"]), "alice\nbob\n");
    let output = person.command(&["identity", "show"]).env("SIGILUM_NAMESPACE", "bob").output().unwrap();
    assert!(text_of(&output.stdout).starts_with("namespace: bob\n"));
}

#[test]
fn saved_defaults_are_used_unless_another_home_is_named() {
    let person = Person::new();
    let workspace = person.home().join("workspace");
    person.done(&["identity", "init", "--namespace", "demo", "--home", workspace.to_str().unwrap()]);
    fs::create_dir(person.home().join(".sigilum")).unwrap();
    let saved =
        format!("# saved\nGATEWAY_SIGILUM_NAMESPACE=\"demo\"\r\nGATEWAY_SIGILUM_HOME={}\n", workspace.display());
    #[allow(clippy::disallowed_methods, reason = "a file of the test")]
    fs::write(person.home().join(".sigilum/config.env"), saved).unwrap();
    assert!(person.done(&["identity", "show"]).contains("namespace: demo\n"));
    let other = person.home().join("other");
    person.done(&["identity", "init", "--namespace", "other", "--home", other.to_str().unwrap()]);
    assert!(person.done(&["identity", "show", "--home", other.to_str().unwrap()]).contains("namespace: other\n"));
    // The saved folder named once more is the saved folder, also where it holds several identities.
    person.done(&["identity", "init", "--namespace", "second", "--home", workspace.to_str().unwrap()]);
    for name in ["SIGILUM_HOME", "GATEWAY_SIGILUM_HOME"] {
        let output = person.command(&["identity", "show"]).env(name, &workspace).output().unwrap();
        assert!(text_of(&output.stdout).contains("namespace: demo\n"), "{name}: {output:?}");
    }
}

#[test]
fn a_broken_identity_is_an_error_and_stays_as_it_is() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let file = person.home().join(".sigilum/identities/demo/identity.json");
    let broken = fs::read_to_string(&file).unwrap().replace("did:sigilum:demo\"", "did:sigilum:evil\"");
    #[allow(clippy::disallowed_methods, reason = "a file of the test")]
    fs::write(&file, &broken).unwrap();
    for arguments in [&["identity", "show"][..], &["identity", "init", "--namespace", "demo"]] {
        let output = person.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text_of(&output.stderr).contains("identity.json"), "{}", text_of(&output.stderr));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), broken);
}

/// One request as it came over the wire.
struct Received {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let value = found.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(found.next().is_none(), "{name} twice");
        value
    }
}

/// Serves one request with `answer` and hands back what was received.
fn serve(answer: &'static str) -> (String, thread::JoinHandle<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let split = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: Vec<_> = lines[1..].iter().map(|line| split(line).unwrap()).collect();
        let length =
            headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        Received { line: lines[0].clone(), headers, body }
    });
    (authority, server)
}

/// Verifies the signature from the received bytes alone.
fn assert_signed(received: &Received, components: &[&str], scheme_and_authority: &str) {
    let mut words = received.line.split(' ');
    let (method, target) = (words.next().unwrap().to_lowercase(), words.next().unwrap());
    let input = received.header("signature-input").strip_prefix("sig1=").unwrap();
    let names: Vec<_> = components.iter().map(|name| format!("\"{name}\"")).collect();
    assert!(input.starts_with(&format!("({});created=", names.join(" "))), "{input}");
    let mut base = String::new();
    for name in components {
        let value = match *name {
            "@method" => method.clone(),
            "@target-uri" => format!("{scheme_and_authority}{target}"),
            name => received.header(name).to_owned(),
        };
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base.push_str(&format!("\"@signature-params\": {input}"));
    let key = received.header("sigilum-agent-key").strip_prefix("ed25519:").unwrap();
    let key: [u8; 32] = STANDARD.decode(key).unwrap().try_into().unwrap();
    let signature = received.header("signature").strip_prefix("sig1=:").unwrap().strip_suffix(':').unwrap();
    let signature = Signature::from_slice(&STANDARD.decode(signature).unwrap()).unwrap();
    VerifyingKey::from_bytes(&key).unwrap().verify_strict(base.as_bytes(), &signature).unwrap();
}

#[test]
fn a_request_goes_out_as_it_was_signed() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let (authority, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-One: 1\r\n\r\n\"pong\"");
    let url = format!("http://{authority}/proxy/svc/a%2Fb?x=%20&x=1#fragment");
    let answer =
        person.done(&["request", "post", &url, "-d", "\"ping\"", "-H", "X-Extra: a", "--subject", "customer-1"]);
    assert_eq!(answer, "\"pong\"");
    let received = server.join().unwrap();
    assert_eq!(received.line, "POST /proxy/svc/a%2Fb?x=%20&x=1 HTTP/1.1");
    assert_eq!(received.body, b"\"ping\"");
    assert_eq!(received.header("host"), authority);
    assert_eq!(received.header("content-type"), "application/json");
    assert_eq!(received.header("x-extra"), "a");
    assert_eq!(received.header("sigilum-subject"), "customer-1");
    let covered = [
        "@method",
        "@target-uri",
        "content-digest",
        "sigilum-namespace",
        "sigilum-subject",
        "sigilum-agent-key",
        "sigilum-agent-cert",
    ];
    assert_signed(&received, &covered, &format!("http://{authority}"));
}

#[test]
fn unusual_characters_are_signed_as_they_are_sent() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    for path in ["/a|b^c?d|e", "/é ü?ö='x'", "/%7e/%C3%A9//x/./y/../z", "/a\\b;c=d,e@f:g!$&()*+[]"] {
        let (authority, server) = serve("HTTP/1.1 204 No Content\r\n\r\n");
        person.done(&["request", "GET", &format!("http://{authority}{path}")]);
        let received = server.join().unwrap();
        let covered = [
            "@method",
            "@target-uri",
            "sigilum-namespace",
            "sigilum-subject",
            "sigilum-agent-key",
            "sigilum-agent-cert",
        ];
        assert_signed(&received, &covered, &format!("http://{authority}"));
    }
}

#[test]
fn a_request_without_body_can_name_its_agent() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let (authority, server) = serve("HTTP/1.1 204 No Content\r\n\r\n");
    let url = format!("http://{authority}");
    let answer = person.done(&["request", "GET", &url, "--agent-id", "agent-7", "--include"]);
    assert_eq!(answer, "HTTP/1.1 204 No Content\n\n");
    let received = server.join().unwrap();
    assert_eq!(received.line, "GET / HTTP/1.1");
    assert_eq!(received.header("sigilum-subject"), "demo");
    assert_eq!(received.header("sigilum-agent-id"), "agent-7");
    let covered = [
        "@method",
        "@target-uri",
        "sigilum-namespace",
        "sigilum-subject",
        "sigilum-agent-id",
        "sigilum-agent-key",
        "sigilum-agent-cert",
    ];
    assert_signed(&received, &covered, &format!("http://{authority}"));
}

#[test]
fn a_refusal_shows_its_body_and_exits_1() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let (authority, server) =
        serve("HTTP/1.1 403 Forbidden\r\nX-Sigilum-Code: AUTH_CLAIM_REQUIRED\r\nContent-Length: 3\r\n\r\nno\n");
    let output = person.run(&["request", "GET", &format!("http://{authority}/")]);
    server.join().unwrap();
    assert_eq!((output.status.code(), text_of(&output.stdout).as_str()), (Some(1), "no\n"));
    assert_eq!(text_of(&output.stderr), "HTTP 403 Forbidden (AUTH_CLAIM_REQUIRED)\n");
}

#[test]
fn a_redirect_is_shown_and_not_followed() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let (authority, server) = serve("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    let answer = person.done(&["request", "-i", "GET", &format!("http://{authority}/")]);
    server.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 302 Found\nlocation: http://127.0.0.1:1/\n"), "{answer}");
}

#[test]
fn nobody_there_exits_5() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = person.run(&["request", "GET", &format!("http://{authority}/secret-path")]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text_of(&output.stderr).contains(&format!("{authority} does not answer")), "{}", text_of(&output.stderr));
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let (authority, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
    let output = person.run(&["request", "GET", &format!("http://{authority}/")]);
    server.join().unwrap();
    assert_eq!((output.status.code(), text_of(&output.stdout).as_str()), (Some(1), "short"));
    assert!(text_of(&output.stderr).contains("broke off"), "{}", text_of(&output.stderr));
}

#[test]
fn an_answer_is_shown_as_it_comes() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut child = person.command(&["request", "GET", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
    while request.next().unwrap().unwrap() != "" {}
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    // Only now is the second part sent.
    stream.write_all(b"7\r\nsecond\n\r\n0\r\n\r\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn https_is_spoken_to_names_the_system_trusts_and_to_no_others() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let roots = person.home().join("roots.pem");
    #[allow(clippy::disallowed_methods, reason = "a file of the test")]
    fs::write(&roots, certified.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    for (host, trusted) in [("localhost", true), ("127.0.0.1", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::clone(&config);
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), stream);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsafe");
            let _ = stream.flush();
            head
        });
        let url = format!("https://{host}:{port}/x");
        let output = person.command(&["request", "GET", &url]).env("SSL_CERT_FILE", &roots).output().unwrap();
        let head = server.join().unwrap();
        if trusted {
            assert_eq!(text_of(&output.stdout), "safe", "{}", text_of(&output.stderr));
            assert!(head.starts_with(b"GET /x HTTP/1.1\r\n"));
        } else {
            assert_eq!(output.status.code(), Some(5), "{}", text_of(&output.stdout));
            assert!(head.is_empty(), "nothing is said to a server that is not known");
        }
    }
}

#[test]
fn a_dry_run_prints_the_signed_request_and_sends_nothing() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let body = person.home().join("body");
    #[allow(clippy::disallowed_methods, reason = "a file of the test")]
    fs::write(&body, "{\"a\": 1}\n").unwrap();
    let data = format!("@{}", body.display());
    let shown = person.done(&["request", "PUT", "http://127.0.0.1:1/x?y", "-d", &data, "--dry-run"]);
    let (head, body) = shown.split_once("\n\n").unwrap();
    assert!(head.starts_with("PUT /x?y HTTP/1.1\nhost: 127.0.0.1:1\n"), "{head}");
    assert!(head.contains("\nsignature: sig1=:") && head.contains("\ncontent-digest: sha-256=:"), "{head}");
    assert_eq!(body, "{\"a\": 1}\n");
    let record = fs::read_to_string(person.home().join(".sigilum/identities/demo/identity.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert!(!shown.contains(record["privateKey"].as_str().unwrap()));
}

#[test]
fn a_body_can_come_from_standard_input() {
    let person = Person::new();
    person.done(&["identity", "init", "--namespace", "demo"]);
    let mut child = person
        .command(&["request", "POST", "http://127.0.0.1:1/", "-d", "@-", "--dry-run"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"plain words").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text_of(&output.stdout).contains("content-type: text/plain; charset=utf-8\n"));
    assert!(text_of(&output.stdout).ends_with("\n\nplain words"));
}
