//! Steps 5 to 7: certificate and identity, digest, signature. The only place a caller is proven.

use crate::domain::decision::Caller;
use crate::domain::decision::DenyReason;
use crate::domain::request::BodyView;
use crate::domain::request::RequestView;
use crate::domain::request::Stage;
use crate::domain::signature::Certificate;
use crate::domain::signature::SignatureParams;
use crate::domain::signature::SignedHeaders;
use crate::domain::signature::VerifiedCertificate;
use crate::domain::signature::check_digest;
use crate::domain::signature::check_identity;
use crate::domain::signature::target_uris;
use crate::domain::signature::write_base;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::Now;
use crate::gate::Gate;
use crate::gate::Scratch;
use crate::gate::budget::Account;
use crate::gate::memory::Print;

/// A caller whose signature over this request has been verified, now or at the head stage.
pub(super) struct Proven {
    pub(super) caller: Caller,
    /// What to remember so that the other stage need not verify again; `None` where there is none.
    pub(super) print: Option<Print>,
}

/// One request on its way through these steps: what is judged, against which state, at which moment.
pub(super) struct Attempt<'a, R> {
    pub(super) stage: Stage,
    pub(super) request: &'a R,
    pub(super) headers: &'a SignedHeaders<'a>,
    pub(super) params: &'a SignatureParams<'a>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Now,
}

/// A certificate before its signature is known to be good.
enum Presented {
    /// Verified with an earlier request.
    Known(VerifiedCertificate),
    New(Certificate),
}

impl Gate {
    pub(super) fn authenticate<R: RequestView>(
        &self,
        attempt: &Attempt<'_, R>,
        scratch: &mut Scratch,
    ) -> Result<Proven, DenyReason> {
        let header = attempt.headers.certificate()?;
        let print = self.memory.certificate_print(header);
        let presented = match self.memory.certificate(&print) {
            Some(certificate) => Presented::Known(certificate),
            None => Presented::New(Certificate::decode(header).map_err(DenyReason::SignatureInvalid)?),
        };
        let key = match &presented {
            Presented::Known(certificate) => certificate.key(),
            Presented::New(certificate) => certificate.key(),
        };
        let is_new = matches!(presented, Presented::New(_));
        let address = attempt.request.client_address();
        let mut account = self.budgets.open(key, !is_new, address, attempt.snapshot, attempt.now);
        let outcome = self.prove(attempt, scratch, presented, &mut account);
        match outcome {
            Ok((proven, certificate)) => {
                if is_new && account.approved() {
                    self.memory.keep_certificate(print, certificate);
                }
                Ok(proven)
            }
            Err(reason) => {
                account.failed();
                Err(reason)
            }
        }
    }

    fn prove<R: RequestView>(
        &self,
        attempt: &Attempt<'_, R>,
        scratch: &mut Scratch,
        presented: Presented,
        account: &mut Account<'_>,
    ) -> Result<(Proven, VerifiedCertificate), DenyReason> {
        let Attempt { stage, request, headers, params, snapshot, now } = *attempt;
        // 5: certificate and identity.
        let certificate = match presented {
            Presented::Known(certificate) => certificate,
            Presented::New(certificate) => {
                account.charge()?;
                certificate.verify().map_err(DenyReason::SignatureInvalid)?
            }
        };
        certificate.check_time(now.seconds()).map_err(DenyReason::SignatureInvalid)?;
        let caller = check_identity(headers, params, &certificate)?;
        // 6: the body, once it is there.
        if stage == Stage::Body {
            check_size(request.body(), snapshot.settings.max_body_bytes)?;
            check_digest(headers, params.components, request.body())?;
        }
        // 7: the signature.
        let print = self.verify(attempt, scratch, &certificate, account)?;
        Ok((Proven { caller, print }, certificate))
    }

    /// Verifies the signature over one of the few spellings of the target, unless the other stage did.
    fn verify<R: RequestView>(
        &self,
        attempt: &Attempt<'_, R>,
        scratch: &mut Scratch,
        certificate: &VerifiedCertificate,
        account: &mut Account<'_>,
    ) -> Result<Option<Print>, DenyReason> {
        let Attempt { stage, request, headers, params, now, .. } = *attempt;
        let mut spellings = target_uris(request.scheme(), request.authority(), request.target());
        let raw = spellings.next().ok_or(DenyReason::Unavailable)?;
        let base = &mut scratch.base;
        write_base(base, request.method(), &raw, headers, params)?;
        // Behind our own Envoy these methods have no head stage, so there is nothing to recall.
        let once = stage == Stage::Body
            && request.assigned_connection().is_none()
            && matches!(request.method(), b"GET" | b"HEAD");
        // The raw spelling holds everything the others are made of, so it stands for all of them.
        let print = (!once).then(|| self.memory.request_print(certificate.key(), &params.signature, base));
        let recalled = print.is_some_and(|print| match stage {
            Stage::Head => self.memory.recalls(&print, now),
            Stage::Body => self.memory.consume(&print, now),
        });
        if recalled {
            return Ok(print);
        }
        account.charge()?;
        // Tables are for keys somebody approved; a stranger must not displace them.
        let approved = account.approved();
        let verify = |base: &[u8]| match approved {
            true => self.hot_keys.verify(certificate, base, &params.signature),
            false => certificate.verify_signature(base, &params.signature),
        };
        let mut outcome = verify(base);
        for spelling in spellings {
            if outcome.is_ok() {
                break;
            }
            write_base(base, request.method(), &spelling, headers, params)?;
            outcome = verify(base);
        }
        outcome.map(|()| print).map_err(DenyReason::SignatureInvalid)
    }
}

/// Envoy has refused what is too large already; a front that does not is caught here.
fn check_size(body: BodyView<'_>, limit: u64) -> Result<(), DenyReason> {
    match body {
        BodyView::Whole(body) if u64::try_from(body.len()).unwrap_or(u64::MAX) > limit => Err(DenyReason::BodyTooLarge),
        BodyView::Whole(_) | BodyView::Hidden => Ok(()),
    }
}
