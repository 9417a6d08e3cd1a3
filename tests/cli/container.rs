//! What the roles need in containers of their own: sockets apart, secrets from files, Envoy's file in a folder, a health check.

use super::gateway::Gateway;
use super::*;

const KEY: &str = "canary-master-key-of-a-container";

/// The only line that names what is wrong.
fn error(output: &Output) -> String {
    let text = text_of(&output.stderr);
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    errors[0].to_owned()
}

/// A file that is the person's alone.
fn secret(person: &Person, name: &str, text: &str) -> String {
    let path = person.file(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn folder(person: &Person, name: &str, mode: u32) -> String {
    let path = person.home().join(name);
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_file_of_an_envoy_in_a_container_names_its_sockets_and_listens_on_all_its_addresses() {
    let person = Person::new();
    let file = person.home().join("envoy.yaml");
    let arguments = ["gateway", "envoy-config", "--in-container", "--authz-socket", "/run/sigilum/authz/authz.sock"];
    let arguments = [&arguments[..], &["--bind", "0.0.0.0", "--output", file.to_str().unwrap()]].concat();
    assert_eq!(person.done(&arguments), "");
    assert_eq!(mode(&file), 0o600);
    let text = person.read("envoy.yaml");
    assert!(text.contains("pipe: { path: \"/run/sigilum/authz/authz.sock\" }") && !text.contains("path: authz.sock"));
    for port in [38000, 38200] {
        assert!(text.contains(&format!("address: 0.0.0.0, port_value: {port} }}")), "{port}");
    }
    // Elsewhere the face is for the machine alone.
    let refused = person.run(&["gateway", "envoy-config", "--envoy-admin-addr", "0.0.0.0:38200"]);
    assert_eq!(refused.status.code(), Some(64));
}

#[test]
fn a_file_with_the_master_key_that_is_named_must_be_there() {
    let person = Person::new();
    let away = person.home().join("away").display().to_string();
    let empty = secret(&person, "empty", "\n");
    for (file, why) in [(&away, "No such file or directory"), (&empty, "holds nothing")] {
        let output = person.command(&["gateway", "admin"]).env("GATEWAY_MASTER_KEY_FILE", file).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let error = error(&output);
        assert!(error.contains(file) && error.contains(why) && error.contains("GATEWAY_MASTER_KEY_FILE"), "{error}");
    }
    assert!(!person.home().join(".sigilum-workspace").exists(), "no key was made in its place");
}

#[test]
fn a_file_with_the_master_key_that_others_may_read_or_change_is_refused() {
    let person = Person::new();
    let file = person.file("key", &format!("{KEY}\n"));
    for (mode, why) in
        [(0o644, "is open to every user"), (0o602, "is open to every user"), (0o640, "can be read by its group")]
    {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = person.command(&["gateway", "admin"]).env("GATEWAY_MASTER_KEY_FILE", &file).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{mode:o}");
        let error = error(&output);
        assert!(error.contains(why) && error.contains("GATEWAY_MASTER_KEY_FILE") && !error.contains(KEY), "{error}");
    }
}

#[test]
fn an_admin_that_runs_by_itself_cleans_its_log_of_the_password_too() {
    const PASSWORD: &str = "canary-passphrase-of-the-admin";
    for in_file in [false, true] {
        let person = Person::new();
        let file = secret(&person, "password", PASSWORD);
        let name = if in_file { "SIGILUM_GATEWAY_PASSWORD_FILE" } else { "SIGILUM_GATEWAY_PASSWORD" };
        let value = if in_file { file.as_str() } else { PASSWORD };
        let settings = person.file("gateway.yaml", "admin: {access_mode: password}\n");
        let variables = [(name, value), ("GATEWAY_CONFIG_FILE", settings.as_str()), ("SIGILUM_LOG", "debug")];
        let log = person.home().join("log");
        let gateway = Gateway::start_told(&person, &variables, fs::File::create(&log).unwrap().into());
        // A client that mixes its variables up.
        let answer = gateway.ask(&format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-request-id: {PASSWORD}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(gateway);
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("request_id") && !log.contains(PASSWORD), "{log}");
    }
}

#[test]
fn the_master_key_of_a_file_seals_the_store() {
    let person = Person::new();
    let file = secret(&person, "key", &format!("{KEY}\n"));
    let gateway = Gateway::start_with(&person, &[("GATEWAY_MASTER_KEY_FILE", &file)]);
    drop(gateway);
    assert!(!person.home().join(".sigilum-workspace/gateway-master-key").exists());
    assert_eq!(gateway::holders(person.home(), KEY.as_bytes()), [file.as_str()]);
    person.file("key", "another key\n");
    let output = person.command(&["gateway", "admin"]).env("GATEWAY_MASTER_KEY_FILE", &file).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(error(&output).contains("master key mismatch"));
}

#[test]
fn an_admin_that_runs_by_itself_makes_the_identity_the_api_knows_it_by() {
    let person = Person::new();
    let _gateway = Gateway::start(&person);
    let known = person.home().join(".sigilum-workspace/identities/acme/identity.json");
    assert_eq!(mode(&known), 0o600);
}

#[test]
fn the_secret_of_owner_tokens_may_be_in_a_file() {
    let person = Person::new();
    let arguments = ["api", "--host", "0.0.0.0", "--port", "1"];
    let serve = |file: &str| {
        let mut command = person.command(&arguments);
        command.env("API_ALLOW_REMOTE", "true").env("JWT_SECRET_FILE", file).output().unwrap()
    };
    let away = person.home().join("away").display().to_string();
    let output = serve(&away);
    assert_eq!(output.status.code(), Some(78));
    assert!(error(&output).contains(&away), "{}", error(&output));
    let open = person.file("open", &"0123456789abcdef".repeat(4));
    let output = serve(&open);
    assert_eq!(output.status.code(), Some(78));
    assert!(error(&output).contains("is open to every user of this machine (mode 0644)"), "{}", error(&output));
    let short = secret(&person, "secret", "short");
    let output = serve(&short);
    assert_eq!(output.status.code(), Some(78));
    assert!(error(&output).contains("could be guessed"), "{}", error(&output));
    // The owner's commands find the same one.
    let secret = secret(&person, "secret", &"0123456789abcdef".repeat(4));
    let mut login = person.command(&["login", "--namespace", "acme", "--token-only"]);
    let login = login.env("JWT_SECRET_FILE", &secret).output().unwrap();
    assert_eq!(login.status.code(), Some(0), "{}", text_of(&login.stderr));
    assert_eq!(text_of(&login.stdout).trim().split('.').count(), 3);
}

#[test]
fn a_socket_in_a_folder_of_strangers_is_not_made() {
    let person = Person::new();
    let (open, run) = (folder(&person, "open", 0o1777), folder(&person, "run", 0o700));
    let socket = format!("unix:{open}/a.sock");
    // Bound for a moment to find one that is free.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let admin = ["gateway", "admin", "--addr", &port, "--run-dir", &run, "--state-listen", &socket];
    let authz = ["gateway", "authz", "--listen", &socket, "--state", "unix:/nowhere.sock", "--run-dir", &run];
    for role in [&admin[..], &authz[..]] {
        let output = person.run(role);
        assert_eq!(output.status.code(), Some(78), "{}", text_of(&output.stderr));
        assert!(error(&output).contains("every user of this machine may write to it"), "{}", error(&output));
    }
    assert!(fs::read_dir(&open).unwrap().next().is_none());
}

#[test]
fn a_mistake_in_an_option_of_a_role_is_one_of_usage() {
    let person = Person::new();
    let run = format!("/{}", "deep".repeat(30));
    let authz =
        ["gateway", "authz", "--listen", "unix:/nowhere/a.sock", "--state", "unix:/nowhere.sock", "--run-dir", &run];
    assert_eq!(person.run(&authz).status.code(), Some(64));
}

#[test]
fn a_container_that_runs_something_else_is_not_healthy() {
    let person = Person::new();
    let output = person.run(&["health", "--container"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(error(&output).contains("process 1 is no part of a gateway"), "{}", error(&output));
}

#[test]
fn where_no_file_has_what_processes_say_logs_names_the_place() {
    let person = Person::new();
    let logs = || person.command(&["logs"]).env("SIGILUM_SUPERVISOR_MODE", "external").output().unwrap();
    let nothing = logs();
    assert_eq!(nothing.status.code(), Some(3));
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(said.contains("kubectl logs") && said.contains("docker compose logs"), "{said}");
    assert!(!said.contains("gateway start"), "{said}");
}
