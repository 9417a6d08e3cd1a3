//! The certificate of agents in a file of its own, for an Envoy that nobody of ours runs: in a container there is no supervisor
//! that would tell it of a renewed one.
//!
//! Envoy reads what its own file names once. What a resource names (SDS) it reads again when something is moved into the watched
//! folder, which is how Kubernetes replaces the files of a Secret and how careful tools replace a file. A pair that does not
//! fit together leaves it with the one it had.

use std::path::Path;

use crate::config::parts::IngressTls;
use crate::envoy::render;
use crate::envoy::render::RenderError;
use crate::envoy::split::CERTIFICATE;
use crate::envoy::split::CLIENT_CA;
use crate::envoy::split::NODE;

/// Before the first key of the file.
const FIRST_KEY: &str = "\nadmin:";

/// The rendered file, which names the resources in `file` where it named certificate, key and authorities. `file` is where Envoy
/// finds it: an absolute path.
pub fn refer(rendered: &str, tls: &IngressTls, file: &Path) -> Result<String, RenderError> {
    let path = render::quoted(&file.display().to_string());
    // A listener without its certificate is none: it opens when it has it.
    let source = |name: &str| {
        format!(
            "{{ name: {name}, sds_config: {{ path_config_source: {{ path: {path} }}, resource_api_version: V3, \
             initial_fetch_timeout: 0s }} }}"
        )
    };
    let certificate = format!("tls_certificate_sds_secret_configs: [{}]", source(CERTIFICATE));
    let text = render::replace(rendered, &render::certificate(tls), 1, &certificate)?;
    let text = match &tls.client_ca_file {
        Some(authorities) => {
            let source = format!("validation_context_sds_secret_config: {}", source(CLIENT_CA));
            render::replace(&text, &render::authorities(authorities), 1, &source)?
        }
        None => text,
    };
    // Whoever asks for resources says who asks.
    render::replace(&text, FIRST_KEY, 1, &format!("\nnode: {{ id: {NODE}, cluster: {NODE} }}\n{FIRST_KEY}"))
}

/// The file with the resources: paths alone, no certificate and no key.
pub fn resources(tls: &IngressTls) -> Result<String, RenderError> {
    let kind = "\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let quoted = |path: &Path| render::quoted(&path.display().to_string());
    let folder = folder(&tls.cert_file)?;
    if folder != self::folder(&tls.key_file)? {
        let (certificate, key) = (tls.cert_file.display(), tls.key_file.display());
        return Err(RenderError::Folders(format!("{certificate} and {key}")));
    }
    let mut text = format!(
        "# What Envoy shows agents: files that are read again when something is moved into their folder.
resources:
- {kind}
  name: {CERTIFICATE}
  tls_certificate:
    certificate_chain: {{ filename: {} }}
    private_key: {{ filename: {} }}
    watched_directory: {{ path: {} }}\n",
        quoted(&tls.cert_file),
        quoted(&tls.key_file),
        quoted(folder)
    );
    if let Some(authorities) = &tls.client_ca_file {
        text.push_str(&format!(
            "- {kind}
  name: {CLIENT_CA}
  validation_context:
    trusted_ca: {{ filename: {} }}
    watched_directory: {{ path: {} }}\n",
            quoted(authorities),
            quoted(self::folder(authorities)?)
        ));
    }
    Ok(text)
}

fn folder(file: &Path) -> Result<&Path, RenderError> {
    file.parent().ok_or_else(|| RenderError::Folders(file.display().to_string()))
}

#[cfg(test)]
#[path = "sds_tests.rs"]
mod tests;
