//! The key pair that others seal secrets to, and the one place where sealed secrets are opened.
//!
//! The private part is sealed in the store like every other secret, so it goes with it: through another master key, a backup
//! and a restore. Made when it is first asked for; with a lost master key it is lost, and another one is made.

use zeroize::Zeroizing;

use crate::domain::audit::Action;
use crate::domain::audit::Asker;
use crate::domain::audit::Detail;
use crate::domain::audit::Entry;
use crate::domain::audit::SecretForm;
use crate::domain::connection::InvalidConnection;
use crate::domain::record::MAX_SECRETS;
use crate::domain::record::Secrets;
use crate::domain::record::is_reference;
use crate::domain::relay::RelayRefused;
use crate::domain::sealing::InvalidSealed;
use crate::domain::sealing::KEY_BYTES;
use crate::domain::sealing::Purpose;
use crate::domain::sealing::SealingKey;
use crate::domain::sealing::SealingPublicKey;
use crate::domain::sealing::Target;
use crate::domain::sealing::is_sealed;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;
use crate::store::StoreError;
use crate::store::sealed::SEALING_KEY;
use crate::store::sealed::SEALING_KEY_PLACE;
use crate::store::vault::Vault;
use crate::sys::random;

/// Another sealing key, made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealingKeyReplaced {
    /// What others seal to from now on.
    pub public: SealingPublicKey,
    /// What they sealed to before; `None` where there was none, or it did not open.
    pub previous: Option<SealingPublicKey>,
}

impl Vault {
    /// What others seal to, made where there is none yet. One that does not open is an error and is never replaced unasked:
    /// people have compared its fingerprint.
    pub fn sealing_key(&mut self, asker: &Asker, now: UnixMillis) -> Result<SealingPublicKey, StoreError> {
        match self.held_sealing_key()? {
            Some(key) => Ok(key.public()),
            None => Ok(self.replace_sealing_key(asker, now)?.public),
        }
    }

    /// Puts a new key in its place; what was sealed to the old one opens no more.
    pub fn replace_sealing_key(&mut self, asker: &Asker, now: UnixMillis) -> Result<SealingKeyReplaced, StoreError> {
        let previous = self.held_sealing_key().ok().flatten().map(|key| key.public());
        let private = Zeroizing::new(random::bytes::<KEY_BYTES>()?);
        let public = SealingKey::new(private.as_slice()).ok_or_else(unreadable)?.public();
        let sealed = self.key.seal(SEALING_KEY_PLACE, private.as_slice())?;
        let detail = Detail::default()
            .text("fingerprint", &public.fingerprint())
            .text("previous", &previous.map(|key| key.fingerprint()).unwrap_or_default());
        let entry = Entry::new(Action::SealingKeySet, "", asker, now).with(detail);
        // No part of the state that authz holds, so no version of it.
        self.engine.write(|writer| {
            writer.set_meta(SEALING_KEY, &sealed)?;
            writer.insert_audit(&entry)
        })?;
        self.noted(&entry);
        self.cut_back();
        Ok(SealingKeyReplaced { public, previous })
    }

    pub(super) fn held_sealing_key(&self) -> Result<Option<SealingKey>, StoreError> {
        let Some(sealed) = self.engine.meta(SEALING_KEY)? else { return Ok(None) };
        let private = self.key.open(SEALING_KEY_PLACE, &sealed)?;
        SealingKey::new(&private).ok_or_else(unreadable).map(Some)
    }

    /// What a request gave, in clear: a sealed value is opened for this target, anything else is what it is. How it came is
    /// noted with the asker. Every handler that takes a secret takes it through here.
    pub fn reveal(&self, given: Secret, target: &Target<'_>, asker: &mut Asker) -> Result<Secret, StoreError> {
        if given.expose().trim().is_empty() {
            return Ok(given);
        }
        let (secret, form) = if is_sealed(given.expose()) {
            let key = self.held_sealing_key()?.ok_or(InvalidSealed)?;
            (key.open(given.expose(), target)?, SecretForm::Sealed)
        } else {
            (given, SecretForm::Plain)
        };
        // Sealed or not: anybody can seal, so it proves nothing of who wants the variable there.
        if target.purpose == Purpose::Connection && asker.relay().is_some() && is_reference(secret.expose()) {
            return Err(RelayRefused::Variable.into());
        }
        asker.note_secret(form);
        Ok(secret)
    }

    /// The same of all secrets of a connection that leads to `destination`; without one nothing sealed opens.
    pub fn reveal_all(
        &self,
        given: Secrets,
        connection: &str,
        destination: Option<&str>,
        asker: &mut Asker,
    ) -> Result<Secrets, StoreError> {
        // Each costs an operation on the curve, and more than these are refused anyhow.
        let sealed = given.values().filter(|secret| is_sealed(secret.expose())).count();
        if sealed > MAX_SECRETS {
            let reason = format!("more than {MAX_SECRETS}");
            return Err(InvalidConnection::Field { field: "secrets", reason }.into());
        }
        let destination = match destination {
            None if sealed > 0 => return Err(InvalidSealed.into()),
            known => known.unwrap_or_default(),
        };
        let mut revealed = Secrets::new();
        for (name, secret) in given {
            let target = Target { purpose: Purpose::Connection, id: connection, field: &name, destination };
            let secret = self.reveal(secret, &target, asker)?;
            revealed.insert(name, secret);
        }
        Ok(revealed)
    }
}

fn unreadable() -> StoreError {
    StoreError::Record { id: SEALING_KEY.to_owned(), detail: "it is not 32 bytes".to_owned() }
}

#[cfg(test)]
#[path = "sealing_tests.rs"]
mod tests;
