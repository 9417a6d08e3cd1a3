//! The key of a connection's service, made here and handed to the paired gateway: with it the gateway asks whom the owner
//! approved. It is sealed to the gateway's key, so that it is in clear nowhere on its way.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use http::Response;
use http::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::api::Api;
use crate::api::problem::Problem;
use crate::api::service_keys;
use crate::api::services;
use crate::dashboard::connections;
use crate::dashboard::failure::Failure;
use crate::dashboard::form::Form;
use crate::dashboard::relay::Gateway;
use crate::dashboard::visitor::Visitor;
use crate::domain::sealing::Purpose;
use crate::domain::sealing::SealingPublicKey;
use crate::domain::sealing::Target;
use crate::domain::secret::Secret;
use crate::sys::random;

/// Name of a key that is made here.
const KEY_NAME: &str = "Gateway";

/// Makes a key of the connection's service, and the service where there is none, and hands the key over.
pub(super) async fn hand_over(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let session = connections::session_of(&form)?;
    let outcome = transfer(&api, &visitor, connections::gateway(&api, &visitor, &session), &id).await;
    connections::done(&api, &visitor, session.clone(), &id, outcome, "key-handed-over").await
}

async fn transfer(api: &Api, visitor: &Visitor, to: Gateway<'_>, id: &str) -> Result<(), Problem> {
    // First whether the gateway can take it: nothing is made for nobody.
    let connection = to.connection(id).await?;
    let sealing_key = to.sealing_key().await?.public_key;
    let service = service_of(api, visitor, id, &connection.name, &connection.base_url).await?;
    let name = Map::from_iter([("name".to_owned(), Value::from(KEY_NAME))]);
    let owner = &visitor.owner;
    let (_, made) = service_keys::make(api, owner.clone(), service.clone(), &name).await?;
    let key = Secret::new(made.key.unwrap_or_default());
    let handed = async {
        let value = seal(&sealing_key, id, &key)?;
        to.put_service_key(id, Secret::new(json!({ "key": value.expose() }).to_string())).await
    };
    if let Err(problem) = handed.await {
        // Nobody has it: it must not take the place of one somebody has.
        service_keys::end(api, owner.clone(), service, made.id).await?;
        return Err(problem);
    }
    service_keys::mark(api, owner.clone(), service, made.id).await?;
    Ok(())
}

/// Id of the owner's service of a slug; made where there is none.
async fn service_of(api: &Api, visitor: &Visitor, slug: &str, name: &str, base_url: &str) -> Result<String, Problem> {
    let owner = &visitor.owner;
    let known = services::all(api, owner.clone()).await?.into_iter().find(|service| service.slug == slug);
    if let Some(known) = known {
        return Ok(known.id);
    }
    let host = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    let host = host.split(['/', '?']).next().unwrap_or_default();
    let description = format!("The connection {slug} of a gateway");
    let members = [("name", if name.is_empty() { slug } else { name }), ("slug", slug), ("domain", host)];
    let mut object: Map<_, _> = members.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
    object.insert("description".to_owned(), Value::from(description));
    Ok(services::make(api, owner.clone(), &object).await?.id)
}

/// Seals a service's key to a gateway's (base64url, 32 bytes); as it is where the gateway has none to seal to.
fn seal(sealing_key: &str, id: &str, key: &Secret) -> Result<Secret, Problem> {
    if sealing_key.is_empty() {
        return Ok(Secret::new(key.expose().to_owned()));
    }
    let unreadable = || {
        let text = "the gateway shows a sealing key that cannot be read";
        Problem::new(StatusCode::BAD_GATEWAY, "GATEWAY_REFUSED", text)
    };
    let to = SealingPublicKey::parse(sealing_key).ok_or_else(unreadable)?;
    let target = Target { purpose: Purpose::ServiceApiKey, id, field: "key", destination: "" };
    let sealed = to.seal(&target, key.expose().as_bytes(), &mut random::generator());
    sealed.map(Secret::new).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hpke::Deserializable as _;
    use hpke::Kem as _;
    use hpke::OpModeR;
    use hpke::Serializable as _;
    use hpke::aead::AesGcm256;
    use hpke::kdf::HkdfSha256;
    use hpke::kem::X25519HkdfSha256;

    use super::*;

    const INFO: &[u8] = b"sigilum sealed secret v1";

    #[test]
    fn a_sealed_key_opens_for_its_service_alone() {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        let text = URL_SAFE_NO_PAD.encode(public.to_bytes());
        let key = Secret::new("sk_live_canary".to_owned());
        let sealed = seal(&text, "slack-proxy", &key).unwrap();
        let (enc, ciphertext) = sealed.expose().strip_prefix("sealed:v1:").unwrap().split_once('.').unwrap();
        let enc = URL_SAFE_NO_PAD.decode(enc).unwrap();
        let enc = <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(&enc).unwrap();
        let ciphertext = URL_SAFE_NO_PAD.decode(ciphertext).unwrap();
        let open = |place: &[u8]| {
            let mode = OpModeR::Base;
            hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &mode,
                &private,
                &enc,
                INFO,
                &ciphertext,
                place,
            )
        };
        assert_eq!(open(b"service-api-key\nslack-proxy\nkey\n").unwrap(), key.expose().as_bytes());
        assert!(open(b"service-api-key\nother-proxy\nkey\n").is_err());
        assert!(open(b"connection\nslack-proxy\nkey\n").is_err());
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let key = Secret::new("sk_live_canary".to_owned());
        for bad in ["A", "!!", "AAAA"] {
            assert_eq!(seal(bad, "slack-proxy", &key).unwrap_err().code(), "GATEWAY_REFUSED", "{bad}");
        }
    }
}
