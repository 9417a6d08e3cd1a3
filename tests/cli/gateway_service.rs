//! `gateway install`, `uninstall` and `stop`, with a `systemctl` that keeps what it is told.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// `<unit>.next` is what `show` says after a start; a stop is followed by nothing.
const SYSTEMCTL: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$@" >> "$folder/calls"
case "$2" in
    show) cat "$folder/$3.show" 2>/dev/null;;
    restart) cp "$folder/$3.next" "$folder/$3.show";;
    stop) rm -f "$folder/$3.show";;
esac
exit 0
"#;
const UNIT: &str = "sigilum-gateway.service";
const RUNNING: &str = "ActiveState=active\nMainPID=4711\nExecMainStatus=0\nUnitFileState=enabled\n";
const FAILED: &str = "ActiveState=failed\nMainPID=0\nExecMainStatus=78\n";

/// A person with a systemd, an Envoy and a folder for the machine's units.
struct Machine(Person);

impl Machine {
    fn new(next: &str) -> Self {
        let person = Person::new();
        let envoy = "#!/bin/sh\necho 'envoy  version: abc/1.40.0/Clean/RELEASE/BoringSSL'\n";
        for (name, text) in [("systemctl", SYSTEMCTL), ("loginctl", "#!/bin/sh\necho no\n"), ("envoy", envoy)] {
            let file = person.file(&format!("bin/{name}"), text);
            fs::set_permissions(file, fs::Permissions::from_mode(0o700)).unwrap();
        }
        person.file(&format!("bin/{UNIT}.next"), next);
        let folder = person.home().join("system");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        Self(person)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        let home = self.0.home();
        command.env("PATH", format!("{}:/usr/bin:/bin", home.join("bin").display()));
        command.env("ENVOY_BIN", home.join("bin/envoy")).env("SYSTEMD_UNIT_PATH", home.join("system"));
        command.env("SIGILUM_NAMESPACE", "acme");
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.code(), text_of(&output.stdout), text_of(&output.stderr))
    }

    fn unit_file(&self) -> std::path::PathBuf {
        self.0.home().join(".config/systemd/user").join(UNIT)
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.0.home().join("bin/calls")).unwrap_or_default()
    }
}

#[test]
fn an_installation_is_written_started_and_told_as_it_is() {
    let machine = Machine::new(RUNNING);
    let (code, out, err) = machine.run(&["gateway", "install", "--addr", "127.0.0.1:39100", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["result"].as_str(), report["pid"].as_i64()), (Some("installed"), Some(4711)));
    assert_eq!((report["scope"].as_str(), report["linger"].as_bool()), (Some("user"), Some(false)));
    assert!(err.contains("enable-linger"), "{err}");
    let text = fs::read_to_string(machine.unit_file()).unwrap();
    assert_eq!(mode(&machine.unit_file()), 0o600);
    // The ports as they are now, whatever the settings say later.
    for pinned in
        ["\"--addr\" \"127.0.0.1:39100\"", "\"--ingress-addr\" \"127.0.0.1:38000\"", "\"--namespace\" \"acme\""]
    {
        assert!(text.contains(pinned), "{pinned} in {text}");
    }
    assert!(text.contains("\"--gateway-admin-url\" \"http://127.0.0.1:39100\" \"secrets\" \"reload\""), "{text}");
    let done: Vec<_> =
        machine.calls().lines().filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect();
    assert!(done.join(" ").contains("daemon-reload enable reset-failed restart"), "{done:?}");
}

#[test]
fn no_secret_stands_in_a_unit() {
    let machine = Machine::new(RUNNING);
    let yaml = "connections:\n- id: my-api\n  base_url: https://api.example.com\n  auth_secret_key: key\n  secrets:\n    key: {source: env, id: PROVIDER_KEY}\n";
    let file = machine.0.file("gateway.yaml", yaml);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = machine.command(&["gateway", "install", "--config", &file]);
    for name in ["GATEWAY_MASTER_KEY", "GATEWAY_ADMIN_TOKEN", "PROVIDER_KEY", "SIGILUM_SERVICE_API_KEY"] {
        command.env(name, "canary-0123456789abcdef0123456789abcdef");
    }
    let output = command.output().unwrap();
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!fs::read_to_string(machine.unit_file()).unwrap().contains("canary"));
    assert!(!machine.calls().contains("canary") && !said.contains("canary"));
    for named in ["GATEWAY_MASTER_KEY", "GATEWAY_ADMIN_TOKEN", "PROVIDER_KEY"] {
        assert!(said.contains(named), "{named} in {said}");
    }
}

#[test]
fn a_dry_run_prints_the_unit_and_changes_nothing() {
    let machine = Machine::new(RUNNING);
    let (code, out, err) = machine.run(&["gateway", "install", "--dry-run"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("[Service]\nType=notify\n"), "{out}");
    let (code, out, _) = machine.run(&["gateway", "install", "--system", "--dry-run", "--json"]);
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let text = report["text"].as_str().unwrap();
    assert!(text.contains("DynamicUser=yes") && text.contains("/var/lib/sigilum-gateway/data"), "{text}");
    assert!(!text.contains(machine.0.home().join(".sigilum-workspace").to_str().unwrap()), "{text}");
    assert!(!machine.unit_file().exists() && machine.calls().is_empty());
}

#[test]
fn commands_of_root_mean_the_machines_gateway_where_they_name_no_other() {
    let machine = Machine::new(RUNNING);
    let (code, unit, err) = machine.run(&["gateway", "install", "--system", "--dry-run"]);
    assert_eq!(code, Some(0), "{err}");
    machine.0.file("system/sigilum-gateway.service", &unit);
    let config_file = |arguments: &[&str]| {
        let (_, out, err) = machine.run(&[arguments, &["gateway", "status", "--json"]].concat());
        let report: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}"));
        report["config"].to_string()
    };
    let root = fs::metadata(machine.0.home()).unwrap().uid() == 0;
    assert_eq!(config_file(&[]).contains("/var/lib/sigilum-gateway/home/"), root, "{}", config_file(&[]));
    let own = machine.0.home().join("own").display().to_string();
    assert!(config_file(&["--sigilum-home", &own]).contains(&own));
}

#[test]
fn twice_is_once_and_other_settings_want_force() {
    let machine = Machine::new(RUNNING);
    assert_eq!(machine.run(&["gateway", "install"]).0, Some(0));
    let before = fs::read_to_string(machine.unit_file()).unwrap();
    let restarts = |machine: &Machine| machine.calls().lines().filter(|line| line.contains(" restart ")).count();
    let (code, out, _) = machine.run(&["gateway", "install", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["result"].as_str(), restarts(&machine)), (Some(0), Some("unchanged"), 1));
    let (code, _, err) = machine.run(&["gateway", "install", "--addr", ":39100"]);
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("--force"), "{err}");
    assert_eq!(fs::read_to_string(machine.unit_file()).unwrap(), before);
    assert_eq!(machine.run(&["gateway", "install", "--addr", ":39100", "--force"]).0, Some(0));
    assert!(fs::read_to_string(machine.unit_file()).unwrap().contains("127.0.0.1:39100"));
    assert_eq!(restarts(&machine), 2);
}

#[test]
fn a_unit_that_does_not_come_up_is_a_failure_with_where_to_look() {
    let machine = Machine::new(FAILED);
    let (code, _, err) = machine.run(&["gateway", "install"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("exit code 78") && err.contains("journalctl --user -u sigilum-gateway.service"), "{err}");
}

#[test]
fn places_that_others_control_are_refused() {
    let machine = Machine::new(RUNNING);
    let folder = machine.unit_file().parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let (code, _, err) = machine.run(&["gateway", "install"]);
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("[unsafe-permissions]") && err.contains("chmod go-w"), "{err}");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    machine.0.file(&format!(".config/systemd/user/{UNIT}"), "[Service]\nExecStart=/opt/mine\n");
    let (code, _, err) = machine.run(&["gateway", "install", "--force"]);
    assert_eq!(code, Some(78), "somebody's file is not ours to replace: {err}");
    assert_eq!(machine.run(&["gateway", "uninstall"]).0, Some(78), "nor to remove");
    assert!(machine.unit_file().exists());
}

#[test]
fn a_second_manager_is_refused() {
    let machine = Machine::new(RUNNING);
    machine.0.file(&format!("system/{UNIT}"), "[Service]\n");
    let (code, _, err) = machine.run(&["gateway", "install"]);
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("another manager") && err.contains(&format!("system/{UNIT}")), "{err}");
    fs::remove_file(machine.0.home().join("system").join(UNIT)).unwrap();
    assert_eq!(machine.run(&["gateway", "install"]).0, Some(0));
    let (code, _, err) = machine.run(&["gateway", "install", "--system", "--dry-run"]);
    assert_eq!(code, Some(78), "and the other way round: {err}");
}

#[test]
fn uninstall_takes_the_unit_and_nothing_else_and_twice_is_once() {
    let machine = Machine::new(RUNNING);
    assert_eq!(machine.run(&["gateway", "install"]).0, Some(0));
    machine.0.file(".sigilum-workspace/gateway.yaml", "# mine\n");
    for result in ["uninstalled", "not-installed"] {
        let (code, out, err) = machine.run(&["gateway", "uninstall", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["result"], result);
    }
    assert!(!machine.unit_file().exists());
    assert_eq!(machine.0.read(".sigilum-workspace/gateway.yaml"), "# mine\n");
    let calls = machine.calls();
    assert!(
        calls.contains(&format!("--user stop {UNIT}")) && calls.contains(&format!("--user disable {UNIT}")),
        "{calls}"
    );
}

#[test]
fn somebody_outside_who_manages_it_is_left_to_it() {
    let machine = Machine::new(RUNNING);
    for arguments in [&["gateway", "install"][..], &["gateway", "uninstall"], &["gateway", "stop", "--yes"]] {
        let output = machine.command(arguments).env("SIGILUM_SUPERVISOR_MODE", "external").output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{arguments:?}");
        assert!(text_of(&output.stderr).contains("SIGILUM_SUPERVISOR_MODE=external"), "{arguments:?}");
    }
    assert!(machine.calls().is_empty());
}

#[test]
fn without_a_systemd_it_is_said_what_to_do_instead() {
    let machine = Machine::new(RUNNING);
    let script =
        machine.0.file("bin/systemctl", "#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n");
    fs::set_permissions(script, fs::Permissions::from_mode(0o700)).unwrap();
    let (code, _, err) = machine.run(&["gateway", "install"]);
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("gateway start"), "{err}");
    assert!(!machine.unit_file().exists());
}

#[test]
fn stopping_what_does_not_run_is_no_failure() {
    let machine = Machine::new(RUNNING);
    for _ in 0..2 {
        let (code, out, err) = machine.run(&["gateway", "stop", "--json"]);
        assert_eq!(code, Some(0), "{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["result"], "not-running");
    }
}

#[test]
fn the_master_key_comes_from_the_folder_of_credentials() {
    let person = Person::new();
    let key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let file = person.file("credentials/gateway-master-key", &format!("{key}\n"));
    fs::set_permissions(file, fs::Permissions::from_mode(0o400)).unwrap();
    let folder = person.home().join("credentials").display().to_string();
    drop(gateway::Gateway::start_with(&person, &[("CREDENTIALS_DIRECTORY", &folder)]));
    // It sealed the store, and no other was made; without it nothing opens.
    assert!(!person.home().join(".sigilum-workspace/gateway-master-key").exists());
    let output = person.run(&["gateway", "admin", "--addr", "127.0.0.1:1", "--namespace", "acme"]);
    assert_eq!(output.status.code(), Some(78), "{}", text_of(&output.stderr));
    assert!(text_of(&output.stderr).contains("master key"), "{}", text_of(&output.stderr));
}

#[test]
fn doctor_stops_a_unit_that_runs_before_it_writes_it_and_starts_it_once() {
    let machine = Machine::new(RUNNING);
    let (code, _, err) = machine.run(&["gateway", "install", "--addr", "127.0.0.1:39100"]);
    assert_eq!(code, Some(0), "{err}");
    let text = fs::read_to_string(machine.unit_file()).unwrap();
    let told = |next: &str| {
        let edited = text.replace("KillMode=mixed", "KillMode=control-group");
        machine.0.file(&format!(".config/systemd/user/{UNIT}"), &edited);
        machine.0.file(&format!("bin/{UNIT}.show"), RUNNING);
        machine.0.file(&format!("bin/{UNIT}.next"), next);
        fs::remove_file(machine.0.home().join("bin/calls")).unwrap();
        let (code, _, err) = machine.run(&["doctor", "--fix", "--yes", "--only", "service/drift"]);
        assert_eq!(fs::read_to_string(machine.unit_file()).unwrap(), text);
        let done = machine.calls().lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>();
        let changes = done.into_iter().filter(|call| ["stop", "daemon-reload", "restart"].contains(&call.as_str()));
        (code, err, changes.collect::<Vec<_>>())
    };
    let (code, err, changes) = told(RUNNING);
    assert_eq!((code, changes), (Some(0), ["stop", "daemon-reload", "restart"].map(str::to_owned).to_vec()), "{err}");
    let (code, err, changes) = told(FAILED);
    let wanted = ["stop", "daemon-reload", "restart", "stop"].map(str::to_owned).to_vec();
    assert_eq!((code, changes), (Some(1), wanted), "{err}");
    assert!(err.contains("exit code 78") && err.contains("stays stopped"), "{err}");
}
