//! An Envoy that `gateway start` does not run shows agents a certificate, and the next one, without a restart.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use crate::ingress_tls::Pair;
use crate::ingress_tls::connect;
use crate::support::gateway::LIMIT;
use crate::support::gateway::Running;
use crate::support::gateway::Setup;
use crate::support::parts::run_envoy;
use crate::support::process::wait_until;
use crate::support::upstream::runtime;

/// The files of a Secret as a kubelet lays them out: a folder per version, a link to it, links to the files in it.
struct Secret {
    folder: PathBuf,
}

impl Secret {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
        }
        Self { folder }
    }

    /// Another version in place of the one before, in one step.
    fn put(&self, version: &str, certificate: &str, key: &str) {
        let name = format!("..{version}");
        fs::create_dir(self.folder.join(&name)).unwrap();
        fs::write(self.folder.join(&name).join("tls.crt"), certificate).unwrap();
        fs::write(self.folder.join(&name).join("tls.key"), key).unwrap();
        symlink(&name, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
    }

    fn put_pair(&self, version: &str, pair: &Pair) {
        self.put(version, &pair.made.cert.pem(), &pair.made.signing_key.serialize_pem());
    }
}

fn shows(address: SocketAddr, pair: &Pair) -> bool {
    runtime().block_on(connect(address, pair, None, "http/1.1")).is_ok()
}

/// An Envoy alone, with the files that the command has written.
fn envoy(setup: &Setup, secret: &Secret) -> Running {
    let folder = &secret.folder;
    fs::create_dir_all(setup.run_dir()).unwrap();
    let files = ["envoy-alone.yaml", "sds.yaml"].map(|name| setup.run_dir().join(name));
    let [output, sds] = files.each_ref().map(|file| file.to_str().unwrap());
    let mut command = setup.command(&["gateway", "envoy-config", "--output", output, "--sds-file", sds]);
    for (name, file) in [("GATEWAY_TLS_CERT_FILE", "tls.crt"), ("GATEWAY_TLS_KEY_FILE", "tls.key")] {
        command.env(name, folder.join(file));
    }
    let written = command.output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    run_envoy(&files[0], &setup.run_dir())
}

#[test]
fn a_certificate_that_is_replaced_as_a_kubelet_does_it_is_shown_and_a_broken_one_is_not() {
    let setup = Setup::new();
    setup.write_yaml();
    let secret = Secret::new(setup.root.path().join("agents-tls"));
    let pairs = [Pair::new(), Pair::new(), Pair::new()];
    secret.put_pair("first", &pairs[0]);
    let mut envoy = envoy(&setup, &secret);
    wait_until("the first certificate", LIMIT, || shows(setup.ingress, &pairs[0]));

    secret.put_pair("second", &pairs[1]);
    wait_until("the second certificate", LIMIT, || shows(setup.ingress, &pairs[1]));
    assert!(!shows(setup.ingress, &pairs[0]), "the first one is gone");

    // The key of another.
    secret.put("broken", &pairs[2].made.cert.pem(), &pairs[0].made.signing_key.serialize_pem());
    wait_until("a word about it", LIMIT, || envoy.said().contains("Failed to reload certificates"));
    assert!(shows(setup.ingress, &pairs[1]));
    secret.put_pair("third", &pairs[2]);
    wait_until("the third certificate", LIMIT, || shows(setup.ingress, &pairs[2]));
    assert!(envoy.ended().is_none(), "it is the same Envoy");
}
