//! The one static file, taken apart for an Envoy that is to take changes while it runs: what it starts with, and what it
//! watches. The parsed document is divided; nothing is written a second time.
//!
//! Each address becomes a listener of its own, named by it: Envoy changes a listener's filters in place, its addresses
//! never.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::envoy::render;
use crate::envoy::render::RenderError;
use crate::envoy::render::Rendering;

/// The folder Envoy watches, in the run folder. Files in it are replaced by renaming, which is all that Envoy notices;
/// nothing else is moved there.
pub const FOLDER: &str = "xds";
/// The listeners, in that folder.
pub const LISTENERS_FILE: &str = "listeners.json";
/// The folder of links to certificates, in that folder.
pub const LINKS: &str = "tls";
/// What the certificate of agents' listeners is called.
pub const CERTIFICATE: &str = "ingress_certificate";
/// What the authorities of agents' certificates are called.
pub const CLIENT_CA: &str = "ingress_client_ca";
/// What the listeners of agents are called before the slash.
const INGRESS: &str = "ingress";

/// Who this Envoy is to whoever configures it; it wants both names.
pub(super) const NODE: &str = "sigilum";

/// A configuration in two parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Everything that stays as it is while Envoy runs, as JSON.
    pub bootstrap: Value,
    /// The listeners, one per address.
    pub listeners: Vec<Listener>,
    /// What they need for TLS, by name; the listeners name it only.
    pub secrets: Vec<SecretFile>,
}

/// A certificate with its key, or the authorities of others, as Envoy is told of it: files are named, none is read here.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretFile {
    /// How the listeners call it.
    pub name: &'static str,
    kind: &'static str,
    body: Value,
}

impl SecretFile {
    /// The file in the watched folder that tells Envoy.
    pub fn file(&self) -> String {
        format!("{}.json", self.name)
    }

    /// The resource of a version, and the links it names with what they lead to. Envoy reads a file again only where its
    /// name is another, so each version has names of its own.
    pub fn resource(&self, version: u64) -> (Value, Vec<(PathBuf, PathBuf)>) {
        let (mut body, mut links) = (self.body.clone(), Vec::new());
        for (part, value) in body.as_object_mut().into_iter().flatten() {
            let Some(Value::String(file)) = value.get_mut("filename") else { continue };
            let link = format!("{FOLDER}/{LINKS}/{version}-{part}.pem");
            links.push((PathBuf::from(&link), PathBuf::from(std::mem::replace(file, link))));
        }
        let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        let resource = json!({ "@type": secret, "name": self.name, self.kind: body });
        (json!({ "version_info": version.to_string(), "resources": [resource] }), links)
    }
}

/// A listener of Envoy on one address.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// `<what>/<address>`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The resource as Envoy takes it.
    pub body: Value,
}

impl Listener {
    /// Whether agents come here.
    pub fn is_ingress(&self) -> bool {
        self.name.split('/').next() == Some(INGRESS)
    }

    /// Whether the two cannot listen at the same time.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (one, other) = (self.address, other.address);
        let any = |address: &SocketAddr| address.ip().is_unspecified();
        one.port() == other.port() && (one.ip() == other.ip() || any(&one) || any(&other))
    }
}

/// Renders the settings and divides them.
pub fn split(settings: &Rendering) -> Result<Parts, RenderError> {
    let text = render::render(settings)?;
    let mut document: Value = serde_yaml::from_str(&text).map_err(|error| RenderError::Document(error.to_string()))?;
    let missing = |what: &str| RenderError::Document(format!("no {what}"));
    let found = document.pointer_mut("/static_resources").and_then(Value::as_object_mut);
    let found = found.and_then(|resources| resources.shift_remove("listeners"));
    let Some(Value::Array(found)) = found else { return Err(missing("static_resources.listeners")) };
    let (mut listeners, mut secrets) = (Vec::new(), Vec::new());
    for listener in found {
        let Value::Object(mut listener) = listener else { return Err(missing("listener")) };
        take_secrets(&mut listener, &mut secrets);
        for_each_address(listener, &mut listeners).ok_or_else(|| missing("address of a listener"))?;
    }
    let root = document.as_object_mut().ok_or_else(|| missing("document"))?;
    root.insert("node".to_owned(), json!({ "id": NODE, "cluster": NODE }));
    // Without the listeners there is nothing to be ready for, so their first reading is waited for without end.
    let source = watched(LISTENERS_FILE, "0s");
    root.insert("dynamic_resources".to_owned(), json!({ "lds_config": source }));
    Ok(Parts { bootstrap: document, listeners, secrets })
}

/// Takes the files of TLS out of a listener, and has it ask for them by name.
fn take_secrets(listener: &mut Map<String, Value>, into: &mut Vec<SecretFile>) {
    let chain = listener.get_mut("filter_chains").and_then(|chains| chains.get_mut(0));
    let socket = chain.and_then(|chain| chain.pointer_mut("/transport_socket/typed_config/common_tls_context"));
    let Some(Value::Object(context)) = socket else { return };
    // A listener without its certificate is none: it opens when it has it.
    let source = |name: &str| json!({ "name": name, "sds_config": watched(&format!("{name}.json"), "0s") });
    if let Some(body) = context.shift_remove("tls_certificates").and_then(|list| list.get(0).cloned()) {
        context.insert("tls_certificate_sds_secret_configs".to_owned(), json!([source(CERTIFICATE)]));
        into.push(SecretFile { name: CERTIFICATE, kind: "tls_certificate", body });
    }
    if let Some(body) = context.shift_remove("validation_context") {
        context.insert("validation_context_sds_secret_config".to_owned(), source(CLIENT_CA));
        into.push(SecretFile { name: CLIENT_CA, kind: "validation_context", body });
    }
}

/// A file in the watched folder as a source of configuration.
fn watched(file: &str, first: &str) -> Value {
    json!({
        "path_config_source": { "path": format!("{FOLDER}/{file}"), "watched_directory": { "path": FOLDER } },
        "resource_api_version": "V3",
        "initial_fetch_timeout": first,
    })
}

/// One listener per address. `None` where the document is not as expected.
fn for_each_address(mut listener: Map<String, Value>, into: &mut Vec<Listener>) -> Option<()> {
    let name = listener.get("name")?.as_str()?.to_owned();
    let first = listener.get("address")?.clone();
    let others = match listener.shift_remove("additional_addresses") {
        Some(Value::Array(others)) => others,
        Some(_) => return None,
        None => Vec::new(),
    };
    let others = others.into_iter().map(|other| other.get("address").cloned());
    for place in std::iter::once(Some(first)).chain(others) {
        let place = place?;
        let address = read_address(&place)?;
        let name = format!("{name}/{address}");
        let mut body = Map::new();
        body.insert("@type".to_owned(), "type.googleapis.com/envoy.config.listener.v3.Listener".into());
        body.extend(listener.clone());
        body.insert("name".to_owned(), name.clone().into());
        body.insert("address".to_owned(), place);
        into.push(Listener { name, address, body: body.into() });
    }
    Some(())
}

fn read_address(place: &Value) -> Option<SocketAddr> {
    let place = place.get("socket_address")?;
    let host: IpAddr = place.get("address")?.as_str()?.parse().ok()?;
    let port = u16::try_from(place.get("port_value")?.as_u64()?).ok()?;
    Some(SocketAddr::new(host, port))
}

/// The file of listeners: what Envoy reads, with the version it then shows.
pub fn listeners_file<'l>(version: u64, listeners: impl IntoIterator<Item = &'l Listener>) -> Value {
    let resources: Vec<&Value> = listeners.into_iter().map(|listener| &listener.body).collect();
    json!({ "version_info": version.to_string(), "resources": resources })
}

/// The files to write one after the other so that nobody finds the door closed: first what is new beside what goes,
/// then without it. An address that cannot be bound before an old one is given up (`0.0.0.0:1` and `127.0.0.1:1`) is
/// opened after that is closed.
pub fn stages<'l>(old: &'l [Listener], new: &'l [Listener]) -> Vec<Vec<&'l Listener>> {
    let within = |list: &[Listener], one: &Listener| list.iter().any(|other| other.name == one.name);
    let leaving: Vec<_> = old.iter().filter(|one| !within(new, one)).collect();
    let blocked = |one: &Listener| !within(old, one) && leaving.iter().any(|other| one.overlaps(other));
    let all: Vec<_> = new.iter().collect();
    if new.iter().any(blocked) {
        let kept = leaving.iter().filter(|one| !new.iter().any(|other| one.overlaps(other)));
        let first = new.iter().filter(|one| !blocked(one)).chain(kept.copied()).collect();
        vec![first, all]
    } else if leaving.is_empty() || new.iter().all(|one| within(old, one)) {
        vec![all]
    } else {
        vec![new.iter().chain(leaving).collect(), all]
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
