//! Certificates as Envoy is told of them: by links that lead to the files of whoever runs the gateway. No key is copied.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::config::parts::IngressTls;
use crate::envoy::split::CERTIFICATE;
use crate::envoy::split::CLIENT_CA;
use crate::envoy::split::FOLDER;
use crate::envoy::split::LINKS;
use crate::envoy::split::SecretFile;
use crate::sys::files;
use crate::sys::tls::TlsError;
use crate::sys::tls::pair;

/// Whether Envoy could use these files.
pub(super) fn check(tls: &IngressTls) -> Result<(), TlsError> {
    pair::check(&tls.cert_file, &tls.key_file, tls.client_ca_file.as_deref())
}

/// Tells Envoy of a version: the links first, then the file that names them.
pub(super) fn write(run_dir: &Path, secrets: &[SecretFile], version: u64) -> io::Result<()> {
    files::own_folder(&run_dir.join(FOLDER).join(LINKS))?;
    for secret in secrets {
        let (resource, links) = secret.resource(version);
        for (link, target) in links {
            let link = run_dir.join(link);
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => symlink(target, link)?,
            }
        }
        files::write_private(&run_dir.join(FOLDER).join(secret.file()), &serde_json::to_vec(&resource)?)?;
    }
    Ok(())
}

/// Removes what no version but this one needs; everything where there is none. What stays behind harms nobody.
pub(super) fn tidy(run_dir: &Path, secrets: &[SecretFile], version: u64) {
    let folder = run_dir.join(FOLDER);
    for name in [CERTIFICATE, CLIENT_CA] {
        if !secrets.iter().any(|secret| secret.name == name) {
            let _ = fs::remove_file(folder.join(format!("{name}.json")));
        }
    }
    let current = format!("{version}-");
    for entry in fs::read_dir(folder.join(LINKS)).into_iter().flatten().flatten() {
        if secrets.is_empty() || !entry.file_name().to_string_lossy().starts_with(&current) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
