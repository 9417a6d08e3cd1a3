//! A certificate and its key as files that somebody replaces: whether they can be used, and whether they have changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustls::SignatureAlgorithm;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;

use crate::sys::tls::TlsError;
use crate::sys::tls::authorities;
use crate::sys::tls::chain;
use crate::sys::tls::key;

/// Reads them as a server would. The error names the file and never its content.
pub fn check(certificate: &Path, private: &Path, client_authorities: Option<&Path>) -> Result<(), TlsError> {
    let pair =
        CertifiedKey::from_der(chain(certificate)?, key(private)?, &ring::default_provider()).map_err(|error| {
            let what = format!("{} and {} cannot be used together: {error}", certificate.display(), private.display());
            TlsError::Config(what)
        })?;
    // rustls would serve it; Envoy's BoringSSL would not.
    if pair.key.algorithm() == SignatureAlgorithm::ED25519 {
        let path = certificate.display();
        return Err(TlsError::Config(format!("{path} has an Ed25519 key; Envoy takes RSA and ECDSA (P-256, P-384)")));
    }
    if let Some(path) = client_authorities {
        authorities(path)?;
    }
    Ok(())
}

/// What the system says of the files that links lead to, without reading them: another text, and one of them was
/// written, replaced or taken away.
pub fn fingerprint<'p>(files: impl IntoIterator<Item = &'p Path>) -> String {
    let one = |path: &Path| match fs::metadata(path) {
        Ok(found) => {
            let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
            format!("{}:{}:{}:{times:?}", found.dev(), found.ino(), found.size())
        }
        Err(error) => error.kind().to_string(),
    };
    files.into_iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code may panic")]

    use super::*;

    #[test]
    fn only_what_belongs_together_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(path(&format!("{name}.crt")), made.cert.pem()).unwrap();
            fs::write(path(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        check(&path("a.crt"), &path("a.key"), Some(&path("b.crt"))).unwrap();
        let error = check(&path("a.crt"), &path("b.key"), None).unwrap_err().to_string();
        assert!(error.contains("a.crt") && error.contains("b.key"), "{error}");
        let whole = fs::read_to_string(path("a.crt")).unwrap();
        fs::write(path("half"), &whole[..whole.len() / 2]).unwrap();
        for (certificate, key, authorities) in [
            ("half", "a.key", None),
            ("a.crt", "half", None),
            ("a.crt", "a.key", Some("half")),
            ("gone", "a.key", None),
        ] {
            let authorities = authorities.map(path);
            assert!(check(&path(certificate), &path(key), authorities.as_deref()).is_err(), "{certificate} {key}");
        }
    }

    #[test]
    fn every_way_of_replacing_a_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (link, one, two) = (folder.path().join("link"), folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let see = || fingerprint([link.as_path()]);
        let mut seen = vec![see()];
        assert_eq!(seen[0], see());
        fs::write(&one, "in place").unwrap();
        seen.push(see());
        fs::rename(&two, &one).unwrap();
        seen.push(see());
        fs::write(&two, "2").unwrap();
        fs::remove_file(&link).unwrap();
        seen.push(see());
        std::os::unix::fs::symlink(&two, &link).unwrap();
        seen.push(see());
        let different: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len(), "{seen:?}");
    }
}
