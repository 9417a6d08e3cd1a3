//! Who administers: no way from the port of agents to the admin API, passwords and bind modes with the real binary.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::agent::random_hex;
use crate::support::client;
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;

/// The log of `admin`, each of its requests in it.
fn admin_log(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.setup.data().join("logs/admin.jsonl")).unwrap_or_default()
}

#[test]
fn nothing_that_agents_send_to_their_port_arrives_at_the_admin_api() {
    let gateway = Setup::new().env("SIGILUM_LOG", "debug").start();
    let (token, authority) = (gateway.token(), gateway.authority());
    let mark = format!("probe-{}", random_hex(12));
    let mut sent = 0;
    let prefixes = ["", "/.", "//", "/proxy/..", "/proxy/%2e%2e", "/mcp/..", "/slack/../..", "/health/..", "/%2f"];
    let admin = gateway.setup.admin.to_string();
    for prefix in prefixes {
        for path in ["/api/admin/connections", "/api/admin/audit", "/api/v1/status", "/metrics", "/openapi.json"] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let target = format!("{prefix}{path}?{mark}");
                let signed = gateway.agent().get(&authority, &target);
                let bare = Request::new(method, &authority, &target);
                // As somebody would who knows the token, the proxy's header, and where admin listens.
                let spoofed = Request::new(method, &admin, &target)
                    .header("x-sigilum-admin-token", &token)
                    .header("x-forwarded-user", "alice")
                    .header("x-forwarded-for", "127.0.0.1")
                    .header("x-envoy-original-path", "/api/admin/connections");
                let absolute = Request::new(method, &admin, &format!("http://{admin}{target}"));
                for request in [signed, bare, spoofed, absolute] {
                    let response = client::send(gateway.setup.ingress, &request);
                    assert!(response.status >= 400, "{method} {target}: {}", response.status);
                    assert!(!response.text().contains("\"connections\""), "{method} {target}");
                    sent += 1;
                }
            }
        }
    }
    assert_eq!(sent, prefixes.len() * 5 * 5 * 4);
    // One that does arrive is in the log, and by then all before it would be.
    let last = format!("arrived-{}", random_hex(12));
    assert_eq!(gateway.admin("GET", &format!("/{last}"), None).status, 404);
    wait_until("the log of admin to have it", LIMIT, || admin_log(&gateway).contains(&last));
    let log = admin_log(&gateway);
    // The log has paths and no queries, so the refused access of a stranger counts as well.
    assert!(!log.contains(&mark) && !log.contains("admin_access_denied"), "{log}");
    for path in ["/api/admin/audit", "/api/admin/connections", "/openapi.json"] {
        assert!(!log.contains(&format!("\"path\":\"{path}\"")), "{path} arrived");
    }
}

#[test]
fn commands_and_the_gateway_go_by_a_password_that_may_change() {
    let setup = Setup::new();
    let file = setup.root.path().join("password");
    let write = |text: &str| {
        let beside = file.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&beside, &file).unwrap();
    };
    write("the first passphrase\n");
    let setup = setup.yaml(&format!("admin: {{password_file: {}}}\n", file.display()));
    setup.begin_journal();
    setup.write_yaml();
    let running =
        crate::support::gateway::Running::spawn_in(setup.command(&["gateway", "start"]), Some(setup.root.path()));
    wait_until("the gateway to be ready", std::time::Duration::from_secs(300), || running.said().contains("ready:"));
    let status = |setup: &Setup, password: &str| {
        let request = Request::new("GET", &setup.admin.to_string(), "/api/admin/connections");
        client::send(setup.admin, &request.header("authorization", &format!("Bearer {password}"))).status
    };
    assert_eq!((status(&setup, "the first passphrase"), status(&setup, "another passphrase")), (200, 403));
    let list = || setup.command(&["connection", "list"]).output().unwrap().status.code();
    assert_eq!(list(), Some(0));
    write("the second passphrase\n");
    assert_eq!((status(&setup, "the first passphrase"), status(&setup, "the second passphrase")), (403, 200));
    assert_eq!(list(), Some(0));
    // No token was made, and none is made or shown in this mode.
    assert!(!setup.data().join("admin-token").exists());
    let rotated = setup.command(&["gateway", "auth-token", "--rotate"]).output().unwrap();
    assert_eq!(rotated.status.code(), Some(78), "{rotated:?}");
    assert!(!setup.data().join("admin-token").exists());
    drop(running);
}

#[test]
fn a_reload_of_the_settings_forgets_no_wrong_token() {
    let gateway = Gateway::start();
    let admin = gateway.setup.admin;
    let origin = format!("http://localhost:{}", admin.port());
    let page = |token: &str| {
        let request = Request::new("GET", &admin.to_string(), "/api/admin/connections");
        client::send(admin, &request.header("origin", &origin).header("x-sigilum-admin-token", token))
    };
    for _ in 0..10 {
        assert_eq!(page("wrong").status, 403);
    }
    assert_eq!(page("wrong").status, 429);
    let reloaded = gateway.admin("POST", "/config/reload", Some(&serde_json::json!({})));
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    let locked = page("wrong");
    assert_eq!((locked.status, locked.header("retry-after").is_some()), (429, true));
    assert_eq!(page(&gateway.token()).status, 200);
}

#[test]
fn a_custom_address_and_loopback_are_bound_both_or_none() {
    // Every address of 127.0.0.0/8 is this machine's.
    let other = |port: u16| SocketAddr::from(([127, 8, 8, 8], port));
    let setup = Setup::new();
    setup.begin_journal();
    let port = setup.admin.port();
    let start = |setup: &Setup| {
        let mut command = setup.command(&["gateway", "start"]);
        command.env("GATEWAY_BIND", "custom").env("GATEWAY_CUSTOM_BIND_HOST", "127.8.8.8");
        command.env("GATEWAY_ADDR", format!(":{port}"));
        command
    };
    for held in [other(port), SocketAddr::from(([127, 0, 0, 1], port))] {
        let taken = TcpListener::bind(held).unwrap();
        let refused = crate::support::gateway::refused(start(&setup));
        assert_eq!(refused.code, Some(78), "{held}: {}", refused.said);
        assert!(refused.said.contains(&format!("port {port}")), "{held}: {}", refused.said);
        drop(taken);
    }
    setup.write_yaml();
    let running = crate::support::gateway::Running::spawn_in(start(&setup), Some(setup.root.path()));
    wait_until("the gateway to be ready", std::time::Duration::from_secs(300), || running.said().contains("ready:"));
    for address in [other(port), SocketAddr::from(([127, 0, 0, 1], port))] {
        let health = client::send(address, &Request::new("GET", &address.to_string(), "/health"));
        assert_eq!(health.status, 200, "{address}");
    }
    drop(running);
}
