//! The admin API over TLS with client certificates, end to end: the supervisor finds it healthy, commands reach it,
//! and nobody else does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;

use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::process::wait_until;

/// The first start on a machine fetches Envoy.
const START_LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

/// An authority, and a folder for what it signs.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(setup: &Setup) -> Self {
        let folder = setup.root.path().join("tls");
        fs::create_dir(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn put(&self, file: &str, name: SanType) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        let paths = [".crt", ".key"].map(|end| self.folder.join(format!("{file}{end}")));
        for (path, text) in paths.iter().zip([params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem()])
        {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let [certificate, key] = paths.map(|path| path.display().to_string());
        (certificate, key)
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A gateway in mode `mtls` that has started, its authority, and the operator's pair.
fn started() -> (Setup, Running, Authority, (String, String)) {
    let setup = Setup::new();
    let authority = Authority::new(&setup);
    // As certificates for the world are: for a name, and not for 127.0.0.1.
    let (certificate, key) = authority.put("server", dns("gateway.example"));
    let operator = authority.put("operator", dns("ops.example"));
    let ca = authority.folder.join("ca.pem").display().to_string();
    let setup = setup.yaml(&format!(
        "admin:\n  access_mode: mtls\n  tls:\n    cert_file: {certificate}\n    key_file: {key}\n    client_ca_file: {ca}\n    client_names: [ops.example]\n"
    ));
    setup.begin_journal();
    setup.write_yaml();
    let running = Running::spawn_in(setup.command(&["gateway", "start"]), Some(setup.root.path()));
    wait_until("the gateway to be ready", START_LIMIT, || running.said().contains("ready:"));
    (setup, running, authority, operator)
}

#[test]
fn a_gateway_under_mtls_starts_and_its_commands_reach_it_with_a_certificate_alone() {
    let (setup, running, authority, operator) = started();
    assert!(running.said().contains(&format!("admin https://{}", setup.admin)), "{}", running.said());
    let list = |pair: Option<&(String, String)>| {
        let mut command = setup.command(&["connection", "list"]);
        if let Some((certificate, key)) = pair {
            command.env("GATEWAY_ADMIN_CLIENT_CERT_FILE", certificate).env("GATEWAY_ADMIN_CLIENT_KEY_FILE", key);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(list(Some(&operator)).0, Some(0));
    for pair in [None, Some(&authority.put("other", dns("other.example")))] {
        let (code, said) = list(pair);
        assert!(code == Some(4) && said.contains("ADMIN_CERTIFICATE_REQUIRED"), "{code:?} {said}");
    }
    // In clear nobody is answered, whatever token is shown.
    let mut clear = setup.command(&["connection", "list"]);
    clear.env("GATEWAY_ADMIN_URL", format!("http://{}", setup.admin));
    assert_eq!(clear.output().unwrap().status.code(), Some(5));
    drop(running);
}

#[test]
fn elsewhere_a_private_authority_and_the_name_are_what_counts() {
    let (setup, running, authority, (certificate, key)) = started();
    let ask = |file: &str, ca: Option<&str>, url: &str| {
        let home = setup.root.path().join(file);
        fs::create_dir_all(&home).unwrap();
        let mut command = setup.command(&["connection", "list"]);
        // Another machine: it has neither our settings nor our token.
        command.env("GATEWAY_SIGILUM_HOME", &home).env("GATEWAY_DATA_DIR", &home).env("GATEWAY_ADMIN_URL", url);
        command.env("GATEWAY_ADMIN_CLIENT_CERT_FILE", &certificate).env("GATEWAY_ADMIN_CLIENT_KEY_FILE", &key);
        command.envs(ca.map(|ca| ("GATEWAY_ADMIN_CA_FILE", ca)));
        command.output().unwrap()
    };
    let ca = authority.folder.join("ca.pem").display().to_string();
    let url = format!("https://{}", setup.admin);
    // It is called gateway.example, which is not the name that was asked for; and nobody vouches for it here.
    for (file, ca) in [("named", Some(ca.as_str())), ("unknown", None)] {
        let output = ask(file, ca, &url);
        assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // The same authority for the address itself, taken over while it runs.
    authority.put("server", SanType::IpAddress(setup.admin.ip()));
    wait_until("the new certificate to be served", crate::support::gateway::LIMIT, || {
        ask("named", Some(&ca), &url).status.success()
    });
    drop(running);
}
