//! The other side of a listener's TLS: how our own commands know the admin API, and what they show it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls_platform_verifier::BuilderVerifierExt as _;
use sha2::Digest as _;
use sha2::Sha256;

use crate::domain::hex;
use crate::sys::tls::TlsError;
use crate::sys::tls::authorities;
use crate::sys::tls::chain;
use crate::sys::tls::key;

/// Whom a client of ours believes, as PEM files that are read at each use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerTrust {
    /// Authorities; a certificate of theirs must carry the name that was asked for.
    pub authorities: Option<PathBuf>,
    /// A file whose first certificate is believed itself, whatever name it carries: that of our own listener, which
    /// is reached at 127.0.0.1 and is called otherwise.
    pub own: Option<PathBuf>,
    /// SHA-256 of the only certificate that is believed, 64 lower-case hex digits; then nothing above counts.
    pub fingerprint: Option<String>,
    /// Our certificate, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ServerTrust {
    /// Whether it names whom to believe; otherwise the authorities of the system are meant.
    pub const fn is_closed(&self) -> bool {
        self.authorities.is_some() || self.own.is_some() || self.fingerprint.is_some()
    }

    /// Reads the files.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let failed = |error: rustls::Error| TlsError::Config(error.to_string());
        let provider = Arc::new(ring::default_provider());
        let signed = match &self.authorities {
            Some(file) => {
                let roots = Arc::new(authorities(file)?);
                let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
                Some(built.map_err(|error| TlsError::Config(error.to_string()))?)
            }
            None => None,
        };
        let own = self.own.as_ref().map(|file| chain(file)).transpose()?.and_then(|found| found.into_iter().next());
        let fingerprint = self.fingerprint.clone();
        let verifier = Known { own, signed, fingerprint, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match &self.identity {
            Some((certificate, private)) => {
                builder.with_client_auth_cert(chain(certificate)?, key(private)?).map_err(failed)
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

/// Whom the system believes, for a client that speaks HTTP/1.1 and shows no certificate.
pub fn system() -> Result<ClientConfig, TlsError> {
    system_for(b"http/1.1")
}

/// The same for a client that speaks another protocol (its id as in RFC 7301).
pub fn system_for(protocol: &[u8]) -> Result<ClientConfig, TlsError> {
    let failed = |error: rustls::Error| TlsError::Config(error.to_string());
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_platform_verifier()
        .map_err(failed)?
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Believes one certificate by itself, others by their authorities and name.
#[derive(Debug)]
struct Known {
    own: Option<CertificateDer<'static>>,
    signed: Option<Arc<WebPkiServerVerifier>>,
    /// With one nothing else is believed.
    fingerprint: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(fingerprint) = &self.fingerprint {
            let found = hex::text(&Sha256::digest(end_entity.as_ref()));
            let known = found == *fingerprint;
            return if known {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(CertificateError::UnknownIssuer.into())
            };
        }
        if self.own.as_ref().is_some_and(|own| own.as_ref() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.signed {
            Some(signed) => signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
