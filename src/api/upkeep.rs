//! What happens by itself: approvals and pending claims end in time, last uses are written down, old things go.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Api;
use crate::api::ledger;
use crate::api::moment;
use crate::api::nonces;
use crate::api::problem::Problem;
use crate::api::service_key;
use crate::sys::tasks::Stop;

/// How often ended approvals are looked for: a reader of the change stream hears of one within about a second.
const APPROVALS_EVERY: Duration = Duration::from_secs(1);
/// Everything else is done once in so many rounds.
const ROUNDS: u32 = 20;
/// How long a usage event is kept.
const USAGE_KEPT_MS: i64 = 90 * 24 * 3_600_000;
/// Usage events removed in one transaction; a longer one would hold up everybody.
const USAGE_AT_ONCE: i64 = 5000;

/// Keeps at it until told to stop; then writes down what is still only in memory.
pub async fn run(api: Arc<Api>, mut stop: Stop) {
    let mut round = 0_u32;
    loop {
        if let Err(problem) = look_after(&api, round.is_multiple_of(ROUNDS)).await {
            tracing::warn!(code = problem.code(), "the upkeep of the database failed; it is tried again");
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = stop.wait() => break,
            () = tokio::time::sleep(APPROVALS_EVERY) => {}
        }
    }
    if let Err(problem) = write_uses(&api).await {
        tracing::warn!(code = problem.code(), "the last uses of service keys were not written down");
    }
}

async fn look_after(api: &Api, everything: bool) -> Result<(), Problem> {
    let now_ms = moment::now_ms(api.clock);
    if api.db.read(move |db| Ok(ledger::has_expired(db, now_ms)?)).await? {
        let ended = api.db.write(move |db| Ok(ledger::expire_approved(db, now_ms)?)).await?;
        tracing::info!(ended, "approvals have expired");
    }
    if !everything {
        return Ok(());
    }
    write_uses(api).await?;
    api.pairings.tidy().await?;
    let pending_ms = i64::try_from(api.limits.pending_expiry.as_millis()).unwrap_or(i64::MAX);
    let before_ms = now_ms.saturating_sub(pending_ms);
    let expired = api.db.write(move |db| {
        db.execute("DELETE FROM revoked_tokens WHERE expires_at_ms < ?1", [now_ms])?;
        nonces::purge(db, now_ms)?;
        let old = now_ms.saturating_sub(USAGE_KEPT_MS);
        let sql = "DELETE FROM usage_events WHERE number IN
                       (SELECT number FROM usage_events WHERE created_at_ms < ?1 LIMIT ?2)";
        db.prepare_cached(sql)?.execute([old, USAGE_AT_ONCE])?;
        Ok(ledger::expire_pending(db, before_ms, now_ms)?)
    });
    let expired = expired.await?;
    if expired > 0 {
        tracing::info!(expired, "pending claims have expired");
    }
    Ok(())
}

async fn write_uses(api: &Api) -> Result<(), Problem> {
    let uses = api.key_uses.take();
    if uses.is_empty() {
        return Ok(());
    }
    api.db.write(move |db| Ok(service_key::write_uses(db, &uses)?)).await
}
