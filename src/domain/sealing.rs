//! Secrets sealed to this gateway: whoever carries one (a control plane that relays for a page) cannot read it, and cannot
//! put it anywhere but where it was sealed for.
//!
//! HPKE (RFC 9180) in base mode, one message per encapsulation: DHKEM(X25519, HKDF-SHA256) 0x0020, HKDF-SHA256 0x0001,
//! AES-256-GCM 0x0002. `info` is `sigilum sealed secret v1`; `aad` is the UTF-8 of purpose, id, field and destination, joined
//! by line feeds. In place of a secret's value stands the text
//!
//! ```text
//! sealed:v1:<base64url of the encapsulated key, 32 bytes>.<base64url of the ciphertext>
//! ```
//!
//! Base mode proves nothing of the sender: anybody who has the public key can seal. What a sealed value is good for is that
//! nobody on its way has read it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hpke::Deserializable as _;
use hpke::Kem as _;
use hpke::OpModeR;
use hpke::OpModeS;
use hpke::Serializable as _;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::CryptoRng;
use hpke::single_shot_open;
use hpke::single_shot_seal_with_rng;
use sha2::Digest as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::domain::draft::Draft;
use crate::domain::hex;
use crate::domain::record::ConnectionRecord;
use crate::domain::record::MAX_SECRET_BYTES;
use crate::domain::secret::Secret;

/// Name of the key encapsulation in RFC 9180.
pub const KEM: &str = "DHKEM(X25519, HKDF-SHA256)";
/// Name of the key derivation.
pub const KDF: &str = "HKDF-SHA256";
/// Name of the encryption.
pub const AEAD: &str = "AES-256-GCM";
/// Bytes of a private key, of a public key and of an encapsulated key.
pub const KEY_BYTES: usize = 32;

/// The application's part of the key schedule.
const INFO: &[u8] = b"sigilum sealed secret v1";
/// What the text of every version begins with.
const SCHEME: &str = "sealed:";
/// What the text of this version begins with.
pub const PREFIX: &str = "sealed:v1:";
/// Bytes of the tag of AES-GCM.
const TAG_BYTES: usize = 16;
/// Longest ciphertext, in bytes: that of the longest secret with as many blanks around it, which do not count.
const MAX_CIPHERTEXT_BYTES: usize = 2 * MAX_SECRET_BYTES + TAG_BYTES;
/// Bytes of the public key's digest that a person compares: 128 bits, so that nobody makes a second key of the same.
const FINGERPRINT_BYTES: usize = 16;
/// Digits of a group of them.
const GROUP: usize = 4;

/// A sealed value is not one, was sealed for another place or another key, or was changed. Which of them is not said: it
/// would help whoever tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sealed value does not open: it is damaged, or was sealed for another gateway, connection, field or address, or to a \
     key that is no longer in use"
)]
pub struct InvalidSealed;

/// What a sealed value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A secret of a connection.
    Connection,
    /// The value of a credential variable.
    Variable,
    /// What the gateway authenticates with at the Sigilum API.
    ServiceApiKey,
}

impl Purpose {
    /// The first line of the associated data.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Variable => "variable",
            Self::ServiceApiKey => "service-api-key",
        }
    }
}

/// Where a sealed value belongs; it opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// What sort of secret it is.
    pub purpose: Purpose,
    /// The connection's or service's id, or the variable's key.
    pub id: &'a str,
    /// The name of a connection's secret; `value` of a variable, `key` of a service API key.
    pub field: &'a str,
    /// [`Destination::text`] of a connection; empty of anything else.
    pub destination: &'a str,
}

/// Everything that decides where and how a connection's secret is sent, and which of its secrets comes next: who carries a
/// sealed value can use it for this alone, and not again once another has taken its place.
///
/// Of a new connection the texts are those of the request's members, as they are written there, and empty where a member is
/// absent; of one that exists, those it is shown with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is the JSON member of the same name (admin API)")]
pub struct Destination<'a> {
    pub base_url: &'a str,
    pub path_prefix: &'a str,
    pub mcp_endpoint: &'a str,
    pub auth_mode: &'a str,
    pub auth_header_name: &'a str,
    pub auth_prefix: &'a str,
    pub auth_secret_key: &'a str,
    /// 0 of a new connection.
    pub secret_version: u64,
}

impl Destination<'_> {
    /// Of a connection that is to be made.
    pub fn of_draft(draft: &Draft) -> Option<String> {
        let destination = Destination {
            base_url: &draft.base_url,
            path_prefix: &draft.path_prefix,
            mcp_endpoint: &draft.mcp_endpoint,
            auth_mode: &draft.auth_mode,
            auth_header_name: draft.auth_header_name.as_deref().unwrap_or_default(),
            auth_prefix: draft.auth_prefix.as_deref().unwrap_or_default(),
            auth_secret_key: &draft.auth_secret_key,
            secret_version: 0,
        };
        destination.text()
    }

    /// Of a connection that exists.
    pub fn of_record(record: &ConnectionRecord) -> Option<String> {
        let settings = &record.settings;
        let destination = Destination {
            base_url: &settings.upstream.base_url(),
            path_prefix: &settings.path_prefix,
            mcp_endpoint: record.mcp.as_ref().map(|mcp| mcp.endpoint.as_str()).unwrap_or_default(),
            auth_mode: settings.auth_mode.name(),
            auth_header_name: &settings.auth_target,
            auth_prefix: &settings.auth_prefix,
            auth_secret_key: record.auth_secret_key.as_deref().unwrap_or_default(),
            secret_version: settings.secret_version,
        };
        destination.text()
    }

    /// The fields in their order, joined by line feeds; `None` where one is more than a line, as two could read the same then.
    pub fn text(&self) -> Option<String> {
        let texts = [
            self.base_url,
            self.path_prefix,
            self.mcp_endpoint,
            self.auth_mode,
            self.auth_header_name,
            self.auth_prefix,
            self.auth_secret_key,
        ];
        let clean = texts.iter().all(|text| !text.contains('\n'));
        clean.then(|| format!("{}\n{}", texts.join("\n"), self.secret_version))
    }
}

impl Target<'_> {
    /// The lines; `None` where one of the first three is more than a line, as two targets could read the same then.
    fn associated_data(&self) -> Option<String> {
        let clean = !self.id.contains('\n') && !self.field.contains('\n');
        clean.then(|| [self.purpose.name(), self.id, self.field, self.destination].join("\n"))
    }
}

/// Whether a text claims to be a sealed value, of this or another version: never a secret to be kept as it is.
pub fn is_sealed(text: &str) -> bool {
    text.trim_start().starts_with(SCHEME)
}

/// A sealed value, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    encapsulated: [u8; KEY_BYTES],
    ciphertext: Vec<u8>,
}

impl SealedSecret {
    /// Reads the text, blanks around it left out. Base64url without padding and without spare bits, so that one value has one
    /// text.
    pub fn parse(text: &str) -> Result<Self, InvalidSealed> {
        let (key, ciphertext) =
            text.trim().strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or(InvalidSealed)?;
        // Checked first, so that nothing long is decoded.
        if key.len() != KEY_BYTES.saturating_mul(4).div_ceil(3)
            || ciphertext.len() > MAX_CIPHERTEXT_BYTES.saturating_mul(2)
        {
            return Err(InvalidSealed);
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidSealed);
        let encapsulated = decode(key)?.try_into().map_err(|_| InvalidSealed)?;
        let ciphertext = decode(ciphertext)?;
        if !(TAG_BYTES..=MAX_CIPHERTEXT_BYTES).contains(&ciphertext.len()) {
            return Err(InvalidSealed);
        }
        Ok(Self { encapsulated, ciphertext })
    }

    /// The text.
    pub fn text(&self) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        format!("{PREFIX}{}.{}", encode(&self.encapsulated), encode(&self.ciphertext))
    }
}

/// What others seal to. Public.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealingPublicKey([u8; KEY_BYTES]);

impl SealingPublicKey {
    /// Reads [`Self::text`].
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Base64url without padding: 43 characters.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Seals for this target, and for nothing else; `None` where the target or the key is none. The randomness makes the key
    /// that is encapsulated.
    pub fn seal(&self, target: &Target<'_>, plaintext: &[u8], randomness: &mut impl CryptoRng) -> Option<String> {
        let public = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(&self.0).ok()?;
        let (encapsulated, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            INFO,
            plaintext,
            target.associated_data()?.as_bytes(),
            randomness,
        )
        .ok()?;
        let encapsulated = encapsulated.to_bytes().as_slice().try_into().ok()?;
        Some(SealedSecret { encapsulated, ciphertext }.text())
    }

    /// What a person compares: the first 16 bytes of SHA-256 of the key as 8 groups of four hex digits, e.g.
    /// `9fd2-1fdc-e897-1c86-0bad-d32e-f0dd-e737`.
    pub fn fingerprint(&self) -> String {
        let digits = hex::begin(&Sha256::digest(self.0), FINGERPRINT_BYTES);
        let mut text = String::with_capacity(digits.len().saturating_add(digits.len() / GROUP));
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(digit);
        }
        text
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealingPublicKey({})", self.fingerprint())
    }
}

/// What opens. Wiped from memory on drop; `Debug` shows the public part.
pub struct SealingKey {
    private: <X25519HkdfSha256 as hpke::Kem>::PrivateKey,
    public: SealingPublicKey,
}

impl SealingKey {
    /// Of 32 random bytes; `None` of anything else.
    pub fn new(private: &[u8]) -> Option<Self> {
        let private = <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(private).ok()?;
        let public = X25519HkdfSha256::sk_to_pk(&private).to_bytes().as_slice().try_into().ok()?;
        Some(Self { private, public: SealingPublicKey(public) })
    }

    /// The public part.
    pub const fn public(&self) -> SealingPublicKey {
        self.public
    }

    /// Opens the text of a value that was sealed for this target.
    pub fn open(&self, text: &str, target: &Target<'_>) -> Result<Secret, InvalidSealed> {
        let SealedSecret { encapsulated, ciphertext } = SealedSecret::parse(text)?;
        let aad = target.associated_data().ok_or(InvalidSealed)?;
        let encapsulated =
            <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(&encapsulated).map_err(|_| InvalidSealed)?;
        let opened = single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private,
            &encapsulated,
            INFO,
            &ciphertext,
            aad.as_bytes(),
        );
        let opened = Zeroizing::new(opened.map_err(|_| InvalidSealed)?);
        let text = std::str::from_utf8(&opened).map_err(|_| InvalidSealed)?;
        // Sealed twice it would be kept as it stands.
        if is_sealed(text) {
            return Err(InvalidSealed);
        }
        Ok(Secret::new(text.to_owned()))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SealingKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// As a page does it, for tests.
#[cfg(test)]
pub fn seal(key: &SealingPublicKey, target: &Target<'_>, plaintext: &[u8]) -> Option<String> {
    key.seal(target, plaintext, &mut crate::sys::random::generator())
}

#[cfg(test)]
#[path = "sealing_tests.rs"]
mod tests;
