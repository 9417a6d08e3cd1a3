//! DID documents of namespaces (W3C DID Core 1.0) and the result of resolving one (W3C DID Resolution). Pure.
//!
//! A key's id is the one its certificates carry, `did:sigilum:<ns>#ed25519-<fingerprint>`, so that it stays the same
//! whatever else is approved; its `publicKeyMultibase` is base58btc of the Ed25519 multicodec prefix and 32 bytes.

use serde_json::Value;
use serde_json::json;

use crate::domain::ids::Namespace;
use crate::domain::ids::PublicKey;

/// Content type of a document.
pub const DOCUMENT_TYPE: &str = "application/did+ld+json";
/// Content type of a resolution result.
pub const RESOLUTION_TYPE: &str = "application/ld+json;profile=\"https://w3id.org/did-resolution\"";

const METHOD: &str = "did:sigilum:";
const CONTEXTS: [&str; 2] = ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/ed25519-2020/v1"];
const RESOLUTION_CONTEXT: &str = "https://w3id.org/did-resolution/v1";
/// `ed25519-pub`, 0xed, as an unsigned varint (multicodec table).
const ED25519_PREFIX: [u8; 2] = [0xed, 0x01];

/// What is known of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Whose document it is.
    pub namespace: Namespace,
    /// Distinct approved keys, newest approval first.
    pub keys: Vec<PublicKey>,
    /// Slugs of the services those keys are approved for, each once.
    pub services: Vec<String>,
    /// When the namespace was registered; `None` where its owner has left.
    pub created: Option<String>,
    /// When something in the document last changed, where that is known.
    pub updated: Option<String>,
}

impl Subject {
    /// Whether nobody owns the namespace any more.
    pub const fn is_deactivated(&self) -> bool {
        self.created.is_none()
    }
}

/// Reads `did:sigilum:<namespace>`; the namespace may be written in any case and is lower-cased.
pub fn parse_did(did: &str) -> Option<Namespace> {
    Namespace::parse(&did.strip_prefix(METHOD)?.to_ascii_lowercase()).ok()
}

/// The document; endpoints lie under `origin`, e.g. `http://127.0.0.1:8787`. Nobody's namespace has an empty one.
pub fn document(subject: &Subject, origin: &str) -> Value {
    let did = subject.namespace.did();
    if subject.is_deactivated() {
        return json!({"@context": CONTEXTS, "id": did, "controller": did, "verificationMethod": [],
            "authentication": [], "assertionMethod": [], "service": [], "deactivated": true});
    }
    let ids: Vec<_> = subject.keys.iter().map(|key| key.key_id(&subject.namespace)).collect();
    let methods: Vec<_> = subject
        .keys
        .iter()
        .zip(&ids)
        .map(|(key, id)| {
            json!({"id": id, "type": "Ed25519VerificationKey2020", "controller": did,
                "publicKeyMultibase": multibase(key)})
        })
        .collect();
    let services: Vec<_> = subject
        .services
        .iter()
        .map(|slug| {
            // Namespace and slug consist of characters that stand for themselves in a query.
            let endpoint = format!("{origin}/v1/verify?namespace={}&service={slug}", subject.namespace);
            json!({"id": format!("{did}#agent-runtime-{slug}"), "type": "AgentEndpoint", "serviceEndpoint": endpoint})
        })
        .collect();
    json!({"@context": CONTEXTS, "id": did, "controller": did, "verificationMethod": methods, "authentication": ids,
        "assertionMethod": ids, "service": services})
}

/// The result of resolving a namespace's DID.
pub fn resolution(subject: &Subject, origin: &str) -> Value {
    let mut metadata = serde_json::Map::new();
    if let Some(created) = &subject.created {
        metadata.insert("created".to_owned(), json!(created));
    }
    if let Some(updated) = &subject.updated {
        metadata.insert("updated".to_owned(), json!(updated));
    }
    if subject.is_deactivated() {
        metadata.insert("deactivated".to_owned(), json!(true));
    }
    json!({"@context": RESOLUTION_CONTEXT, "didDocument": document(subject, origin),
        "didResolutionMetadata": {"contentType": DOCUMENT_TYPE}, "didDocumentMetadata": metadata})
}

/// The result where there is nothing to resolve: `invalidDid`, `notFound` or `internalError`.
pub fn resolution_error(error: &str) -> Value {
    json!({"@context": RESOLUTION_CONTEXT, "didDocument": null, "didResolutionMetadata": {"error": error},
        "didDocumentMetadata": {}})
}

fn multibase(key: &PublicKey) -> String {
    let mut bytes = [0_u8; 34];
    let (prefix, raw) = bytes.split_at_mut(ED25519_PREFIX.len());
    prefix.copy_from_slice(&ED25519_PREFIX);
    raw.copy_from_slice(key.as_bytes());
    format!("z{}", bs58::encode(bytes).into_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use super::*;

    fn alice() -> Subject {
        Subject {
            namespace: Namespace::parse("fixture-alice").unwrap(),
            keys: vec![PublicKey::parse("ed25519:J07dj/co4diCmQYTTQGq4adhnMKYejHazCYUQ7eBh0k=").unwrap()],
            services: vec!["slack".to_owned()],
            created: Some("2026-01-01T00:00:00.000Z".to_owned()),
            updated: None,
        }
    }

    #[test]
    fn the_example_of_the_ed25519_2020_suite_is_met() {
        // did:key of the all-known example in "The did:key Method v0.7", section 3.1.
        let raw = bs58::decode("6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK").into_vec().unwrap();
        let key = PublicKey::new(raw.get(2..).unwrap().try_into().unwrap());
        assert_eq!(multibase(&key), "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK");
    }

    #[test]
    fn keys_bear_the_id_of_their_certificates() {
        let document = document(&alice(), "http://127.0.0.1:8787");
        let id = "did:sigilum:fixture-alice#ed25519-99fb00dc16ee555a";
        assert_eq!(document.pointer("/verificationMethod/0/id").unwrap(), id);
        assert_eq!(document.get("authentication").unwrap(), &json!([id]));
        assert_eq!(document.get("assertionMethod").unwrap(), &json!([id]));
        assert_eq!(document.pointer("/@context/1").unwrap(), "https://w3id.org/security/suites/ed25519-2020/v1");
        assert!(
            document.pointer("/verificationMethod/0/publicKeyMultibase").unwrap().as_str().unwrap().starts_with("z6Mk")
        );
        assert_eq!(
            document.pointer("/service/0").unwrap(),
            &json!({"id": "did:sigilum:fixture-alice#agent-runtime-slack", "type": "AgentEndpoint",
                "serviceEndpoint": "http://127.0.0.1:8787/v1/verify?namespace=fixture-alice&service=slack"})
        );
    }

    #[test]
    fn a_namespace_left_by_its_owner_has_no_keys_to_trust() {
        let left = Subject { created: None, ..alice() };
        let document = document(&left, "http://127.0.0.1:8787");
        assert_eq!(document.get("verificationMethod").unwrap(), &json!([]));
        assert_eq!(document.get("deactivated").unwrap(), true);
        assert_eq!(resolution(&left, "").pointer("/didDocumentMetadata").unwrap(), &json!({"deactivated": true}));
    }

    #[test]
    fn dids_are_of_our_method_and_any_case() {
        assert_eq!(parse_did("did:sigilum:JohnDee").unwrap().as_str(), "johndee");
        for bad in ["", "did:sigilum:", "did:key:johndee", "DID:sigilum:johndee", "did:sigilum:a", "did:sigilum:a b c"]
        {
            assert_eq!(parse_did(bad), None, "{bad}");
        }
    }
}
