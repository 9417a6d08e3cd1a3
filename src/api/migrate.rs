//! Schema steps: forward only, each in the transaction that makes or upgrades the database.
//!
//! Moments are Unix milliseconds. A claim belongs to a service (its id, never its slug, which two owners may share),
//! a namespace and a public key. Every change of what is approved is written down by triggers, in the transaction
//! that makes it, and counted: nobody who changes a claim can forget to tell the feed's readers. (`INSERT OR REPLACE` would get
//! around them and is not used.)

use rusqlite::Transaction;

/// Marks the file as the control plane's (`PRAGMA application_id`): "SGLA".
pub const APPLICATION_ID: i64 = 0x5347_4c41;

/// Step n leads from schema version n to n + 1. A released step is never changed.
const STEPS: &[&str] = &[
    // 0 -> 1
    "CREATE TABLE meta (
        name TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;

    CREATE TABLE users (
        id TEXT NOT NULL PRIMARY KEY,
        email TEXT NOT NULL,
        namespace TEXT NOT NULL UNIQUE,
        plan TEXT NOT NULL DEFAULT 'free',
        settings TEXT NOT NULL DEFAULT '{}',
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        tokens_valid_after_ms INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE revoked_tokens (
        token_hash TEXT NOT NULL PRIMARY KEY,
        expires_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE services (
        id TEXT NOT NULL PRIMARY KEY,
        owner_user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        slug TEXT NOT NULL,
        domain TEXT NOT NULL,
        description TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        last_change INTEGER NOT NULL DEFAULT 0,
        approved INTEGER NOT NULL DEFAULT 0,
        UNIQUE (owner_user_id, slug)
    ) STRICT;
    CREATE INDEX services_by_slug ON services (slug);

    CREATE TABLE service_api_keys (
        id TEXT NOT NULL PRIMARY KEY,
        service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        key_prefix TEXT NOT NULL,
        key_hash TEXT NOT NULL UNIQUE,
        created_at_ms INTEGER NOT NULL,
        last_used_at_ms INTEGER,
        revoked_at_ms INTEGER,
        gateway_registered_at_ms INTEGER
    ) STRICT;
    CREATE INDEX service_api_keys_by_service ON service_api_keys (service_id, created_at_ms);

    CREATE TABLE authorizations (
        service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
        namespace TEXT NOT NULL,
        public_key TEXT NOT NULL,
        claim_id TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'revoked', 'expired')),
        agent_ip TEXT NOT NULL,
        subject TEXT,
        agent_id TEXT,
        agent_name TEXT,
        created_at_ms INTEGER NOT NULL,
        approved_at_ms INTEGER CHECK (status <> 'approved' OR approved_at_ms IS NOT NULL),
        expires_at_ms INTEGER,
        ended_at_ms INTEGER,
        PRIMARY KEY (service_id, namespace, public_key)
    ) STRICT;
    CREATE INDEX authorizations_feed
        ON authorizations (service_id, status, approved_at_ms DESC, claim_id DESC);
    CREATE INDEX authorizations_by_namespace
        ON authorizations (namespace, status, created_at_ms DESC, claim_id DESC);
    CREATE INDEX authorizations_pending ON authorizations (created_at_ms) WHERE status = 'pending';
    CREATE INDEX authorizations_expiring ON authorizations (expires_at_ms)
        WHERE status = 'approved' AND expires_at_ms IS NOT NULL;

    CREATE TABLE claim_changes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        service_id TEXT NOT NULL,
        approved INTEGER NOT NULL,
        claim_id TEXT NOT NULL,
        namespace TEXT NOT NULL,
        public_key TEXT NOT NULL,
        subject TEXT,
        agent_id TEXT,
        agent_name TEXT,
        approved_at_ms INTEGER,
        expires_at_ms INTEGER
    ) STRICT;
    CREATE INDEX claim_changes_by_service ON claim_changes (service_id, number);

    CREATE TRIGGER claim_added AFTER INSERT ON authorizations WHEN NEW.status = 'approved' BEGIN
        INSERT INTO claim_changes (service_id, approved, claim_id, namespace, public_key, subject, agent_id,
                                   agent_name, approved_at_ms, expires_at_ms)
        VALUES (NEW.service_id, 1, NEW.claim_id, NEW.namespace, NEW.public_key, NEW.subject, NEW.agent_id,
                NEW.agent_name, NEW.approved_at_ms, NEW.expires_at_ms);
        UPDATE services SET approved = approved + 1 WHERE id = NEW.service_id;
    END;
    CREATE TRIGGER claim_approved AFTER UPDATE ON authorizations WHEN NEW.status = 'approved' BEGIN
        INSERT INTO claim_changes (service_id, approved, claim_id, namespace, public_key, subject, agent_id,
                                   agent_name, approved_at_ms, expires_at_ms)
        VALUES (NEW.service_id, 1, NEW.claim_id, NEW.namespace, NEW.public_key, NEW.subject, NEW.agent_id,
                NEW.agent_name, NEW.approved_at_ms, NEW.expires_at_ms);
        UPDATE services SET approved = approved + (OLD.status <> 'approved') WHERE id = NEW.service_id;
    END;
    CREATE TRIGGER claim_ended AFTER UPDATE ON authorizations
        WHEN OLD.status = 'approved' AND NEW.status <> 'approved' BEGIN
        INSERT INTO claim_changes (service_id, approved, claim_id, namespace, public_key, subject, agent_id,
                                   agent_name, approved_at_ms, expires_at_ms)
        VALUES (OLD.service_id, 0, OLD.claim_id, OLD.namespace, OLD.public_key, OLD.subject, OLD.agent_id,
                OLD.agent_name, OLD.approved_at_ms, OLD.expires_at_ms);
        UPDATE services SET approved = approved - 1 WHERE id = OLD.service_id;
    END;
    CREATE TRIGGER claim_removed AFTER DELETE ON authorizations WHEN OLD.status = 'approved' BEGIN
        INSERT INTO claim_changes (service_id, approved, claim_id, namespace, public_key, subject, agent_id,
                                   agent_name, approved_at_ms, expires_at_ms)
        VALUES (OLD.service_id, 0, OLD.claim_id, OLD.namespace, OLD.public_key, OLD.subject, OLD.agent_id,
                OLD.agent_name, OLD.approved_at_ms, OLD.expires_at_ms);
        UPDATE services SET approved = approved - 1 WHERE id = OLD.service_id;
    END;
    -- The history is bounded: 50,000 changes, of which each new one lets the oldest go.
    CREATE TRIGGER claim_change_noted AFTER INSERT ON claim_changes BEGIN
        UPDATE services SET last_change = NEW.number WHERE id = NEW.service_id;
        DELETE FROM claim_changes WHERE number <= NEW.number - 50000;
    END;
    CREATE TRIGGER service_removed AFTER DELETE ON services BEGIN
        DELETE FROM claim_changes WHERE service_id = OLD.id;
    END;

    CREATE TABLE usage_events (
        number INTEGER PRIMARY KEY,
        service_id TEXT NOT NULL,
        event_id TEXT NOT NULL,
        namespace TEXT NOT NULL,
        service TEXT NOT NULL,
        public_key TEXT NOT NULL,
        subject TEXT NOT NULL,
        agent_id TEXT,
        protocol TEXT NOT NULL,
        action TEXT NOT NULL,
        outcome TEXT NOT NULL,
        status_code INTEGER,
        duration_ms INTEGER,
        response_bytes INTEGER,
        request_method TEXT,
        request_path TEXT,
        remote_ip TEXT,
        created_at_ms INTEGER NOT NULL,
        UNIQUE (service_id, event_id)
    ) STRICT;
    CREATE INDEX usage_events_by_namespace ON usage_events (namespace, created_at_ms);
    CREATE INDEX usage_events_by_time ON usage_events (created_at_ms);

    CREATE TABLE nonces (
        hash BLOB NOT NULL PRIMARY KEY,
        expires_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX nonces_by_expiry ON nonces (expires_at_ms);
    CREATE TABLE nonce_count (held INTEGER NOT NULL) STRICT;
    INSERT INTO nonce_count (held) VALUES (0);
    CREATE TRIGGER nonce_added AFTER INSERT ON nonces BEGIN UPDATE nonce_count SET held = held + 1; END;
    CREATE TRIGGER nonce_gone AFTER DELETE ON nonces BEGIN UPDATE nonce_count SET held = held - 1; END;",
    // 1 -> 2
    "-- Owners who left: their tokens stay worthless, and resolvers are told that the namespace has ended.
    CREATE TABLE departed_users (
        id TEXT NOT NULL PRIMARY KEY,
        namespace TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX departed_users_by_namespace ON departed_users (namespace);
    -- A service made again may bear the id of one that was removed: who followed that one must hear what ended.
    DROP TRIGGER service_removed;
    -- Everything a summary asks for, in the order it is grouped in.
    CREATE INDEX usage_events_summary
        ON usage_events (namespace, subject, service, agent_id, public_key, outcome, created_at_ms);",
    // 2 -> 3
    "-- Who had an id that is made of a slug. The history of claims and what owners trust go by ids, so one that was
    -- somebody's is never another's. Of ids that only the history knows, nobody knows whose they were.
    CREATE TABLE local_service_ids (
        id TEXT NOT NULL PRIMARY KEY,
        owner_user_id TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO local_service_ids (id, owner_user_id) SELECT id, owner_user_id FROM services WHERE id GLOB 'svc_local_*';
    INSERT OR IGNORE INTO local_service_ids (id, owner_user_id)
        SELECT DISTINCT service_id, '' FROM claim_changes WHERE service_id GLOB 'svc_local_*';
    CREATE TRIGGER service_added AFTER INSERT ON services WHEN NEW.id GLOB 'svc_local_*' BEGIN
        INSERT INTO local_service_ids (id, owner_user_id) VALUES (NEW.id, NEW.owner_user_id) ON CONFLICT DO NOTHING;
    END;",
    // 3 -> 4
    "-- Pair sessions: a restart does not end them. Of the pair code there is a keyed hash only.
    CREATE TABLE pairing_sessions (
        id TEXT NOT NULL PRIMARY KEY,
        owner_user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        namespace TEXT NOT NULL,
        code_hash BLOB NOT NULL,
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        last_connected_at_ms INTEGER,
        ended TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX pairing_sessions_by_owner ON pairing_sessions (owner_user_id);
    CREATE INDEX pairing_sessions_by_expiry ON pairing_sessions (expires_at_ms);",
    // 4 -> 5
    "-- When a key was last used at a service: one look per claim, however many events there are.
    CREATE INDEX usage_events_by_key ON usage_events (namespace, public_key, service_id, created_at_ms);",
    // 5 -> 6
    "-- What the bridge of a session comes back with: a keyed hash, as of the pair code.
    ALTER TABLE pairing_sessions ADD COLUMN reconnect_hash BLOB;",
    // 6 -> 7
    "-- Wrong pair codes before a bridge has joined: a restart gives nobody more tries.
    ALTER TABLE pairing_sessions ADD COLUMN wrong_codes INTEGER NOT NULL DEFAULT 0;",
    // 7 -> 8
    "-- Gateways tell agents how their claims stand: that one was rejected is told as that an approval has ended.
    CREATE TRIGGER claim_rejected AFTER UPDATE ON authorizations
        WHEN OLD.status = 'pending' AND NEW.status = 'rejected' BEGIN
        INSERT INTO claim_changes (service_id, approved, claim_id, namespace, public_key, subject, agent_id,
                                   agent_name, approved_at_ms, expires_at_ms)
        VALUES (OLD.service_id, 0, OLD.claim_id, OLD.namespace, OLD.public_key, OLD.subject, OLD.agent_id,
                OLD.agent_name, OLD.approved_at_ms, OLD.expires_at_ms);
    END;
    -- A key that asks again takes the place of its claim that was refused; who decides is told of that one.
    ALTER TABLE authorizations ADD COLUMN earlier_status TEXT;
    ALTER TABLE authorizations ADD COLUMN earlier_ended_at_ms INTEGER;
    -- What an owner calls the gateway of a pairing.
    ALTER TABLE pairing_sessions ADD COLUMN name TEXT;",
];

/// Changes of claims that are kept, as the trigger above has it.
pub const KEPT_CHANGES: i64 = 50_000;

/// The schema version this program writes.
pub const NEWEST: i64 = STEPS.len() as i64;

/// Runs every step after `from`; the caller commits.
pub fn upgrade(transaction: &Transaction<'_>, from: i64) -> Result<(), rusqlite::Error> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", NEWEST)
}
