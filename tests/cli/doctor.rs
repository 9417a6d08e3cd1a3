//! `doctor` on installations that do not run: one thing broken at a time is found and nothing else is, what can be mended is
//! mended, and a second time there is nothing to do.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::fs::Permissions;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::thread;

use boon::Compiler;
use boon::Schemas;
use serde_json::Value;
use sigilum::domain::secret::Secret;
use sigilum::store::worker::OpenStore;

use super::Person;
use super::text_of;

/// The master key of the store.
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// An installation with identity, keys, store and settings, and no gateway.
struct Patient {
    person: Person,
    environment: Vec<(String, String)>,
}

impl Patient {
    fn new() -> Self {
        let person = Person::new();
        let at = |name: &str| person.home().join(name).to_str().unwrap().to_owned();
        // Nobody listens there when it is let go.
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let environment = [
            ("GATEWAY_SIGILUM_HOME", at("home")),
            ("GATEWAY_DATA_DIR", at("data")),
            ("GATEWAY_ADDR", port()),
            ("GATEWAY_INGRESS_ADDR", port()),
            ("GATEWAY_ENVOY_ADMIN_ADDR", port()),
            ("GATEWAY_SIGILUM_NAMESPACE", "demo".to_owned()),
            ("GATEWAY_CLAIMS_SOURCE", "off".to_owned()),
            ("ENVOY_BIN", at("envoy")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let patient = Self { person, environment };
        patient.envoy("1.40.0", "exit 0");
        for folder in ["home", "data", "data/run", "data/logs", ".sigilum", ".openclaw"] {
            fs::create_dir(patient.at(folder)).unwrap();
            patient.chmod(folder, 0o700);
        }
        let made = patient.run(&["identity", "init", "--namespace", "demo"]);
        assert!(made.status.success(), "{made:?}");
        for (file, text) in [
            ("home/gateway-master-key", format!("{KEY}\n")),
            ("home/gateway.yaml", "limits: {max_body_bytes: 1000000}\n".to_owned()),
            ("data/admin-token", "0123456789abcdef0123456789abcdef\n".to_owned()),
            ("data/logs/admin.log", String::new()),
            (".sigilum/config.env", "# nothing\n".to_owned()),
            (".openclaw/openclaw.json", "{}\n".to_owned()),
        ] {
            patient.write(file, &text);
            patient.chmod(file, 0o600);
        }
        drop(OpenStore::open(&patient.at("data"), &Secret::new(KEY.to_owned()), "pid 1 (test)").unwrap());
        patient
    }

    /// Where the unit of this gateway would be installed, below the home folder.
    fn unit_file(&self) -> String {
        let shown = self.run(&["gateway", "install", "--dry-run", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        let path = Path::new(report["path"].as_str().unwrap()).strip_prefix(self.person.home()).unwrap().to_owned();
        path.to_str().unwrap().to_owned()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.person.home().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        self.person.file(name, text);
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
    }

    /// An Envoy that says this version, and does this when it is to judge a configuration.
    fn envoy(&self, version: &str, judge: &str) {
        let said = format!("envoy  version: 9e5580/{version}/Clean/RELEASE/BoringSSL");
        let script = format!("#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{said}'; exit; fi\n{judge}\n");
        self.write("envoy.draft", &script);
        self.chmod("envoy.draft", 0o755);
        // Another process writes it: one that we write cannot be run while a fork of ours holds it open.
        assert!(Command::new("mv").arg(self.at("envoy.draft")).arg(self.at("envoy")).status().unwrap().success());
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    fn value(&self, name: &str) -> String {
        self.environment.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.person.command(arguments);
        command.env("PATH", sigilum::sys::env::lookup("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).output().unwrap()
    }

    /// The report as JSON, which is as its schema says, and the exit code as the report says.
    fn report(&self, more: &[&str]) -> Value {
        let output = self.run(&[&["doctor", "--json"], more].concat());
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let schema: Value = serde_json::from_str(include_str!("../golden/doctor.schema.json")).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("doctor.json", schema).unwrap();
        let index = compiler.compile("doctor.json", &mut schemas).unwrap();
        if let Err(error) = schemas.validate(&report, index) {
            panic!("{error:#}\n{report:#}");
        }
        assert_eq!(output.status.code(), Some(i32::from(report["failures"] != 0)), "{report:#}");
        report
    }

    /// Findings: check and severity.
    fn findings(&self, more: &[&str]) -> BTreeSet<(String, String)> {
        found(&self.report(more))
    }

    /// Path, mode and content of everything there is.
    fn tree(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![self.person.home().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let found = fs::symlink_metadata(&path).unwrap();
                let content = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                tree.insert(path.clone(), (found.mode(), content));
                if found.is_dir() {
                    folders.push(path);
                }
            }
        }
        tree
    }
}

fn found(report: &Value) -> BTreeSet<(String, String)> {
    let pair = |finding: &Value| {
        (finding["checkId"].as_str().unwrap().to_owned(), finding["severity"].as_str().unwrap().to_owned())
    };
    report["findings"].as_array().unwrap().iter().map(pair).collect()
}

/// Breaks one thing and expects one check to say so; `mended`: `--fix` does away with it.
fn case(id: &str, severity: &str, mended: bool, break_it: impl FnOnce(&mut Patient)) {
    let mut patient = Patient::new();
    let before = patient.findings(&[]);
    break_it(&mut patient);
    let report = patient.report(&[]);
    let new: Vec<_> = found(&report).difference(&before).cloned().collect();
    assert_eq!(new, [(id.to_owned(), severity.to_owned())], "{report:#}");
    let untouched = patient.tree();
    let fixed = patient.report(&["--fix", "--non-interactive"]);
    if !mended {
        assert_eq!(fixed["applied_fixes"], serde_json::json!([]), "{id}");
        assert_eq!(patient.tree(), untouched, "{id}: what is not mended is not touched");
        return;
    }
    assert_eq!(found(&fixed), before, "{id}: {fixed:#}");
    assert_ne!(fixed["applied_fixes"], serde_json::json!([]), "{id}");
    let once = patient.tree();
    for (path, (mode, _)) in &once {
        let old = untouched.get(path).map_or(*mode, |(mode, _)| *mode);
        assert_eq!(mode & !old, 0, "{id}: {} got {mode:o} from {old:o}", path.display());
    }
    let again = patient.report(&["--fix", "--non-interactive"]);
    assert_eq!(again["applied_fixes"], serde_json::json!([]), "{id}");
    assert_eq!(patient.tree(), once, "{id}: the second time nothing changes");
}

#[test]
fn an_installation_that_is_well_and_does_not_run_lacks_its_gateway_alone() {
    let patient = Patient::new();
    let before = patient.tree();
    let report = patient.report(&[]);
    let expected = [("gateway/health", "warning"), ("identity/same-owner", "info")];
    let expected = expected.map(|(id, severity)| (id.to_owned(), severity.to_owned()));
    assert_eq!(found(&report), BTreeSet::from(expected), "{report:#}");
    assert_eq!((&report["status"], &report["warnings"], &report["ok"]), (&"warn".into(), &1.into(), &true.into()));
    assert_eq!(patient.tree(), before, "looking changes nothing");
}

#[test]
fn permissions_of_others_are_found_and_taken_away() {
    for (name, mode, severity) in [
        ("home/gateway-master-key", 0o644, "error"),
        ("data/admin-token", 0o640, "error"),
        ("home/identities/demo/identity.json", 0o604, "error"),
        (".sigilum/config.env", 0o644, "error"),
        ("data", 0o755, "warning"),
        ("data/run", 0o750, "warning"),
        ("data/logs", 0o711, "warning"),
        ("data/logs/admin.log", 0o644, "warning"),
        ("home", 0o755, "warning"),
        ("home/gateway.yaml", 0o664, "warning"),
    ] {
        case("files/modes", severity, true, |patient| patient.chmod(name, mode));
    }
    case("openclaw/config", "warning", true, |patient| patient.chmod(".openclaw/openclaw.json", 0o644));
}

#[test]
fn what_a_dead_gateway_left_is_removed() {
    case("gateway/lock", "warning", true, |patient| {
        let dead = r#"{"pid": 2147483000, "started": "never"}"#;
        let addresses = r#"{"ingress": [], "admin": [], "envoy_admin": [], "ingress_tls": false, "admin_tls": false}"#;
        let text = format!(r#"{{"supervisor": {dead}, "children": [], "addresses": {addresses}}}"#);
        patient.write("data/run/instance.json", &text);
        patient.chmod("data/run/instance.json", 0o600);
        drop(UnixListener::bind(patient.at("data/run/authz.sock")).unwrap());
    });
}

#[test]
fn a_folder_that_is_missing_is_made() {
    let mut patient = Patient::new();
    let before = patient.findings(&[]);
    let other = patient.at("other");
    patient.set("GATEWAY_DATA_DIR", other.to_str().unwrap());
    let new: Vec<_> = patient.findings(&[]).difference(&before).cloned().collect();
    assert_eq!(new, [("files/folders".to_owned(), "info".to_owned())]);
    assert_eq!(patient.findings(&["--fix"]), before);
    assert_eq!(super::mode(&other), 0o700);
}

#[test]
fn settings_that_are_wrong_are_found() {
    case("config/schema", "error", false, |patient| patient.write("home/gateway.yaml", "gateway:\n  adr: x\n"));
    case("gateway/allow-unsigned", "critical", false, |patient| patient.set("GATEWAY_ALLOW_UNSIGNED_PROXY", "true"));
    let mut patient = Patient::new();
    patient.set("GATEWAY_ADDR", "0.0.0.0:1");
    patient.set("GATEWAY_ADMIN_ACCESS_MODE", "loopback");
    let found = patient.findings(&["--only", "gateway/bind-auth"]);
    assert_eq!(found, BTreeSet::from([("gateway/bind-auth".to_owned(), "critical".to_owned())]));
}

#[test]
fn a_token_that_could_be_guessed_is_named_and_not_shown() {
    let mut patient = Patient::new();
    patient.set("GATEWAY_ADMIN_TOKEN", "hunter2");
    let report = patient.report(&[]);
    let said = report.to_string();
    assert!(found(&report).contains(&("config/schema".to_owned(), "warning".to_owned())), "{report:#}");
    assert!(said.contains("less than 16 characters") && !said.contains("hunter2"), "{report:#}");
}

#[test]
fn keys_store_and_identity_that_do_not_belong_together_are_found() {
    case("store/master-key", "error", false, |patient| {
        patient.write("home/gateway-master-key", &KEY.replace('0', "1"));
    });
    case("store/master-key", "error", false, |patient| {
        fs::remove_file(patient.at("home/gateway-master-key")).unwrap();
    });
    case("store/open", "error", false, |patient| {
        patient.write("data/gateway.db", "no database");
        patient.chmod("data/gateway.db", 0o600);
    });
    case("gateway/auth-present", "error", false, |patient| fs::remove_file(patient.at("data/admin-token")).unwrap());
    case("identity/key-match", "error", false, |patient| {
        let file = "home/identities/demo/identity.json";
        let text = patient.person.read(file).replace("did:sigilum:demo\"", "did:sigilum:evil\"");
        patient.write(file, &text);
    });
    let patient = Patient::new();
    fs::remove_file(patient.at("home/identities/demo/identity.json")).unwrap();
    let found = patient.findings(&["--only", "identity"]);
    assert_eq!(found, BTreeSet::from([("identity/present".to_owned(), "warning".to_owned())]));
}

#[test]
fn secrets_in_clear_are_counted_and_not_shown() {
    case("secrets/audit", "error", false, |patient| {
        patient.write("home/gateway-connection-secret-x", "canary-canary");
        patient.chmod("home/gateway-connection-secret-x", 0o600);
        let shown = text_of(&patient.run(&["doctor"]).stdout);
        assert!(shown.contains("LEGACY_RESIDUE in 1 place") && !shown.contains("canary"), "{shown}");
    });
}

#[test]
fn somebody_else_on_a_port_is_named() {
    let patient = Patient::new();
    let _stranger = TcpListener::bind(patient.value("GATEWAY_INGRESS_ADDR")).unwrap();
    let report = patient.report(&["--only", "gateway/port-collision"]);
    let message = report["findings"][0]["message"].as_str().unwrap();
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    assert_eq!(report["failures"], 1);
}

#[test]
fn an_envoy_that_is_wrong_is_found() {
    case("envoy/binary", "error", false, |patient| patient.set("ENVOY_BIN", "/nowhere/envoy"));
    case("envoy/version", "warning", false, |patient| patient.envoy("1.39.2", "exit 0"));
    case("envoy/validate", "error", false, |patient| {
        patient.envoy("1.40.0", "echo '[critical] error initializing config: no' >&2; exit 1");
    });
}

#[test]
fn the_hint_for_a_missing_identity_makes_it_where_the_gateway_looks() {
    let patient = Patient::new();
    fs::remove_dir_all(patient.at("home/identities")).unwrap();
    let report = patient.report(&[]);
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["checkId"] == "identity/present").unwrap().to_string();
    let home = patient.value("GATEWAY_SIGILUM_HOME");
    assert!(found.contains(&format!("identity init --namespace NAME --sigilum-home {home},")), "{found}");
}

#[test]
fn a_folder_of_openclaw_that_only_our_login_made_is_none() {
    let patient = Patient::new();
    let before = patient.findings(&[]);
    fs::remove_file(patient.at(".openclaw/openclaw.json")).unwrap();
    fs::create_dir(patient.at(".openclaw/.sigilum")).unwrap();
    assert_eq!(patient.findings(&[]), before);
}

#[test]
fn openclaw_and_the_bridge_are_looked_at() {
    let notifier = |enabled: bool, token: &str| {
        format!(
            r#"{{"hooks":{{"internal":{{"entries":{{"sigilum-authz-notify":{{"enabled":{enabled},"env":{{{token}}}}}}}}}}}}}"#
        )
    };
    case("openclaw/config", "error", false, |patient| patient.write(".openclaw/openclaw.json", &notifier(true, "")));
    case("openclaw/config", "error", false, |patient| patient.write(".openclaw/openclaw.json", "{ half"));
    case("openclaw/config", "warning", false, |patient| {
        fs::remove_file(patient.at(".openclaw/openclaw.json")).unwrap();
    });
    case("pair/bridge", "warning", false, |patient| {
        let note = r#"{"pid": 2147483000, "started": "never", "state": "connected", "since": 1}"#;
        patient.write("data/run/pair-bridge.json", note);
        patient.chmod("data/run/pair-bridge.json", 0o600);
    });
}

/// Answers every request with this, for good.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0_u8; 4096];
            // One read is the whole of so short a request.
            let _ = stream.read(&mut request).unwrap();
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn an_api_that_is_a_page_or_lives_at_another_time_is_found() {
    let page =
        answering("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
    let late = answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: \
         2\r\nconnection: close\r\n\r\n{}",
    );
    for (id, severity, url) in [("api/reachable", "warning", page), ("host/clock", "error", late)] {
        case(id, severity, false, |patient| {
            patient.set("GATEWAY_CLAIMS_SOURCE", "api");
            patient.set("SIGILUM_API_URL", &url);
        });
    }
}

/// A unit as this program writes it, for this program.
fn unit(arguments: &str, rest: &str) -> String {
    format!(
        "[Unit]\nDescription=Sigilum Gateway\nWants=network-online.target\nAfter=network-online.target\n\
         StartLimitIntervalSec=0\n\n[Service]\nType=simple\nExecStart=\"{}\" \"gateway\" \"start\"{arguments}\n{rest}",
        env!("CARGO_BIN_EXE_sigilum"),
    )
}

#[test]
fn a_unit_of_another_version_is_written_anew_after_a_yes_alone() {
    let patient = Patient::new();
    let before = patient.findings(&[]);
    patient.write(&patient.unit_file(), &unit("", "Restart=no\n"));
    patient.write(&format!("{}.d/mine.conf", patient.unit_file()), "[Service]\nNice=5\n");
    let drift = ("service/drift".to_owned(), "warning".to_owned());
    let new: Vec<_> = patient.findings(&[]).difference(&before).cloned().collect();
    assert_eq!(new, std::slice::from_ref(&drift));
    let asked = patient.tree();
    assert!(patient.findings(&["--fix", "--non-interactive"]).contains(&drift));
    assert_eq!(patient.tree(), asked);
    assert_eq!(patient.findings(&["--fix", "--yes"]), before);
    let once = patient.tree();
    assert!(
        patient.person.read(&patient.unit_file()).contains("KillMode=mixed")
            && patient.person.read(&patient.unit_file()).contains("\"gateway\" \"start\"")
    );
    assert_eq!(patient.person.read(&format!("{}.d/mine.conf", patient.unit_file())), "[Service]\nNice=5\n");
    assert_eq!(patient.report(&["--fix", "--yes"])["applied_fixes"], serde_json::json!([]));
    assert_eq!(patient.tree(), once);
}

#[test]
fn a_unit_that_somebody_else_manages_stays() {
    let mut patient = Patient::new();
    patient.set("SIGILUM_SERVICE_REPAIR_POLICY", "external");
    patient.write(&patient.unit_file(), &unit("", "Restart=no\n"));
    let before = patient.tree();
    let report = patient.report(&["--fix", "--yes", "--only", "service"]);
    assert_eq!(patient.tree(), before);
    assert!(report["findings"][0]["fixHint"].as_str().unwrap().contains("external"), "{report:#}");
}

#[test]
fn units_that_do_not_fit_are_found() {
    case("service/legacy-unit", "error", false, |patient| {
        patient.write(&patient.unit_file(), &unit("", "KillMode=process\n"));
    });
    case("service/duplicate", "warning", false, |patient| {
        let text = "[Service]\nExecStart=/opt/sigilum gateway start\n";
        patient.write(&patient.unit_file().replace("sigilum-gateway", "other"), text);
    });
    let patient = Patient::new();
    patient.write(&patient.unit_file(), &unit(" \"--addr\" \":1\"", "Restart=no\n"));
    let found = patient.findings(&["--only", "service/port-drift"]);
    assert_eq!(found, BTreeSet::from([("service/port-drift".to_owned(), "warning".to_owned())]));
}

#[test]
fn lint_answers_with_its_exit_code() {
    let patient = Patient::new();
    let lint = |more: &[&str]| patient.run(&[&["doctor", "--lint"], more].concat());
    let code = |more: &[&str]| lint(more).status.code();
    // That no gateway runs is a warning.
    assert_eq!(code(&[]), Some(1));
    assert_eq!(code(&["--severity-min", "error"]), Some(0));
    assert_eq!(code(&["--skip", "gateway/health"]), Some(0));
    assert_eq!(code(&["--skip", "gateway/health", "--severity-min", "info"]), Some(1));
    assert_eq!(code(&["--only", "files", "--only", "store/master-key"]), Some(0));
    let shown = text_of(&lint(&["--severity-min", "error", "--all"]).stdout);
    assert!(shown.starts_with("warning   gateway/health  no gateway runs"), "{shown}");
    assert_eq!(text_of(&lint(&["--severity-min", "error"]).stdout), "");
    let json = lint(&["--json", "--skip", "gateway/health"]);
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&report["findings"], json.status.code()), (&serde_json::json!([]), Some(0)));
    for wrong in [&["--only", "no/check"][..], &["--fix"], &["--severity-min", "bad"]] {
        assert_eq!(code(wrong), Some(64), "{wrong:?}");
    }
    assert_eq!(patient.run(&["doctor", "--yes"]).status.code(), Some(64));
}

#[test]
fn a_check_is_explained() {
    let person = Person::new();
    let told = person.done(&["doctor", "--explain", "store/master-key"]);
    assert!(told.starts_with("store/master-key: Master key\n") && told.contains("worst: error\n"), "{told}");
    assert_eq!(person.run(&["doctor", "--explain", "x"]).status.code(), Some(64));
}

#[test]
fn people_are_told_in_lines_and_what_to_type() {
    let patient = Patient::new();
    patient.chmod("data", 0o755);
    let output =
        patient.run(&["doctor", "--no-color", "--only", "files", "--only", "gateway/health", "--only", "host/disk"]);
    let shown = text_of(&output.stdout).replace(patient.person.home().to_str().unwrap(), "ROOT");
    let shown = shown.replace(&patient.value("GATEWAY_ADDR"), "ADDRESS");
    let lines: Vec<_> = shown.lines().filter(|line| !line.contains("MiB")).collect();
    let expected = [
        "warn  Gateway health  no gateway runs: nobody answers at http://ADDRESS [gateway/health]",
        "                      -> sigilum gateway start",
        "ok    Folders         the folders of the gateway are there",
        "warn  Permissions     others can read ROOT/data (mode 0755) [files/modes]",
        "                      -> chmod 700 ROOT/data",
        "",
        "1 of these can be mended: sigilum doctor --fix",
        "What a check means: sigilum doctor --explain ID",
        "Summary: 2 ok, 2 warnings, 0 failures",
    ];
    assert_eq!((output.status.code(), lines.as_slice()), (Some(0), &expected[..]), "{shown}");
    let fixed = text_of(&patient.run(&["doctor", "--fix", "--only", "files"]).stdout);
    assert!(
        fixed.contains("fixed: chmod 0700 ") && fixed.ends_with("Summary: 2 ok, 0 warnings, 0 failures\n"),
        "{fixed}"
    );
}

#[test]
fn a_missing_home_is_no_reason_to_fail() {
    let person = Person::new();
    let output = person.command(&["doctor", "--json"]).env("GATEWAY_CLAIMS_SOURCE", "off").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["checksRun"].as_u64().unwrap() > 0, "{report:#}");
    assert!(!Path::new(&person.home().join(".sigilum-workspace")).exists(), "looking makes nothing");
}

#[test]
fn a_token_is_made_where_none_is_there_and_none_is_ever_replaced() {
    let patient = Patient::new();
    let file = patient.at("data/admin-token");
    let text = || fs::read_to_string(&file).unwrap();
    let before = text();
    assert_eq!(patient.report(&["--generate-gateway-token"])["applied_fixes"], serde_json::json!([]));
    assert_eq!(text(), before);
    fs::remove_file(&file).unwrap();
    let named = patient.run(&["doctor", "--only", "gateway/auth-present"]);
    assert!(text_of(&named.stdout).contains("sigilum doctor --generate-gateway-token"), "{named:?}");
    let made = patient.report(&["--generate-gateway-token", "--only", "gateway/auth-present"]);
    let told = format!("made an admin token: {} (0600)", file.display());
    assert_eq!((&made["applied_fixes"], &made["findings"]), (&serde_json::json!([told]), &serde_json::json!([])));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let minted = text();
    assert!(minted.trim().len() == 64 && minted != before, "{minted}");
    assert!(!made.to_string().contains(minted.trim()));
    patient.report(&["--generate-gateway-token"]);
    assert_eq!(text(), minted);
}

#[test]
fn no_token_is_made_where_it_would_count_for_nothing() {
    let proxy = "admin: {trusted_proxies: [192.0.2.1], trusted_proxy: {user_header: X-User}}\n";
    let remote = "gateway: {mode: remote, remote: {url: 'https://gw.example:38100'}}\n";
    for (mode, settings, code) in [
        ("password", "admin: {password_file: /nowhere/at/all}\n", 78),
        ("trusted-proxy", proxy, 78),
        ("none", "", 78),
        ("token", remote, 78),
        ("token", "limits: {max_body_bytes: many}\n", 78),
    ] {
        let patient = Patient::new();
        let file = patient.at("data/admin-token");
        fs::remove_file(&file).unwrap();
        patient.write("home/gateway.yaml", settings);
        let output = patient.run(&["doctor", "--generate-gateway-token", "--auth", mode]);
        assert_eq!((output.status.code(), file.exists()), (Some(code), false), "{mode} {settings}: {output:?}");
    }
    // One that is given counts.
    let mut patient = Patient::new();
    fs::remove_file(patient.at("data/admin-token")).unwrap();
    patient.set("GATEWAY_ADMIN_TOKEN", "given-0123456789abcdef");
    let output = patient.run(&["doctor", "--generate-gateway-token"]);
    assert!(!patient.at("data/admin-token").exists(), "{output:?}");
    // And one of an example, or none at all, stays for a person to judge.
    for text in ["changeme\n", "\n"] {
        let patient = Patient::new();
        patient.write("data/admin-token", text);
        patient.chmod("data/admin-token", 0o600);
        patient.run(&["doctor", "--generate-gateway-token"]);
        assert_eq!(fs::read_to_string(patient.at("data/admin-token")).unwrap(), text);
    }
}

#[test]
fn a_password_file_that_others_can_read_is_found_and_closed() {
    let patient = Patient::new();
    let file = patient.at("password");
    patient.write("password", "a long enough password\n");
    let access = ["--auth", "password", "--password-file", file.to_str().unwrap(), "--only", "files/modes"];
    for (mode, after) in [(0o600, 0o600), (0o640, 0o640), (0o644, 0o640), (0o666, 0o640)] {
        patient.chmod("password", mode);
        let report = patient.report(&access);
        let found: Vec<_> =
            report["findings"].as_array().unwrap().iter().map(|one| (&one["path"], &one["severity"])).collect();
        let (path, severity) = (Value::from(file.to_str().unwrap()), Value::from("error"));
        assert_eq!(found, if mode == after { vec![] } else { vec![(&path, &severity)] }, "{mode:o}");
        patient.report(&[&access[..], &["--fix"]].concat());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, after, "{mode:o}");
    }
}
