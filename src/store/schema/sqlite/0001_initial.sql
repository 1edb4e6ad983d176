-- Envelope's store, schema 1. What the columns mean and which queries are safe: docs/store.md.
-- Times are microseconds since 1970 UTC. Nothing in here is secret: data keys are wrapped.

CREATE TABLE store_meta (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    store_id       BLOB    NOT NULL CHECK (typeof(store_id) = 'blob' AND length(store_id) = 8),
    change_counter INTEGER NOT NULL CHECK (typeof(change_counter) = 'integer' AND change_counter >= 1),
    next_dek_id    INTEGER NOT NULL CHECK (typeof(next_dek_id) = 'integer' AND next_dek_id BETWEEN 1 AND 4294967296),
    created        INTEGER NOT NULL CHECK (typeof(created) = 'integer')
);

CREATE TABLE encryption_kek (
    kek_id  INTEGER PRIMARY KEY AUTOINCREMENT CHECK (kek_id BETWEEN 1 AND 4294967295),
    uri     TEXT    NOT NULL UNIQUE CHECK (typeof(uri) = 'text' AND length(uri) > 0),
    created INTEGER NOT NULL CHECK (typeof(created) = 'integer')
);

CREATE TABLE encryption_key (
    key_id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL UNIQUE
                    CHECK (typeof(name) = 'text' AND length(CAST(name AS BLOB)) BETWEEN 1 AND 255),
    state           TEXT    NOT NULL CHECK (state IN ('enabled', 'suspended', 'destroyed')),
    primary_version NUMERIC NOT NULL CHECK (typeof(primary_version) = 'integer' AND primary_version >= 1),
    kek_id          INTEGER NOT NULL REFERENCES encryption_kek (kek_id),
    message_limit   INTEGER NOT NULL
                    CHECK (typeof(message_limit) = 'integer' AND message_limit BETWEEN 1 AND 4294967296),
    created         INTEGER NOT NULL CHECK (typeof(created) = 'integer'),
    -- The primary is a version that exists; deferred, since key and first version come in one transaction.
    FOREIGN KEY (key_id, primary_version) REFERENCES encryption_key_version (key_id, version)
        DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE encryption_key_version (
    dek_id             INTEGER PRIMARY KEY CHECK (dek_id BETWEEN 1 AND 4294967295),
    key_id             INTEGER NOT NULL REFERENCES encryption_key (key_id),
    version            NUMERIC NOT NULL CHECK (typeof(version) = 'integer' AND version BETWEEN 1 AND 4294967295),
    state              TEXT    NOT NULL
                       CHECK (state IN ('active', 'deactivated', 'suspended', 'pending-destruction', 'destroyed')),
    algorithm          TEXT    NOT NULL CHECK (algorithm IN ('AES-256-GCM')),
    kek_id             INTEGER NOT NULL REFERENCES encryption_kek (kek_id),
    encrypted_key_blob BLOB    CHECK (typeof(encrypted_key_blob) IN ('blob', 'null')),
    message_limit      INTEGER NOT NULL
                       CHECK (typeof(message_limit) = 'integer' AND message_limit BETWEEN 1 AND 4294967296),
    messages_reserved  INTEGER NOT NULL DEFAULT 0
                       CHECK (typeof(messages_reserved) = 'integer' AND messages_reserved BETWEEN 0 AND message_limit),
    created            INTEGER NOT NULL CHECK (typeof(created) = 'integer'),
    deactivated        INTEGER CHECK (typeof(deactivated) IN ('integer', 'null')),
    UNIQUE (key_id, version),
    CHECK ((state = 'destroyed') = (encrypted_key_blob IS NULL)),
    CHECK (encrypted_key_blob IS NULL OR length(encrypted_key_blob) BETWEEN 1 AND 65535)
);

-- New data has one home: a second active version of a key is impossible, whoever writes.
CREATE UNIQUE INDEX encryption_key_version_one_active ON encryption_key_version (key_id) WHERE state = 'active';

CREATE TABLE encryption_key_history (
    history_id INTEGER PRIMARY KEY AUTOINCREMENT,
    happened   INTEGER NOT NULL CHECK (typeof(happened) = 'integer'),
    who        TEXT    NOT NULL,
    what       TEXT    NOT NULL,
    key_name   TEXT,    -- NULL: the store as a whole. A name, not a reference: a refusal may name a key that never was.
    version    NUMERIC, -- NULL: the key as a whole
    result     TEXT    NOT NULL,
    detail     TEXT
);
CREATE INDEX encryption_key_history_by_key ON encryption_key_history (key_name, history_id);

-- What ciphertexts rely on for ever does not change, not even by a slip of somebody's SQL shell.
CREATE TRIGGER store_meta_stays BEFORE DELETE ON store_meta
BEGIN SELECT RAISE(ABORT, 'the row of store_meta stays'); END;
CREATE TRIGGER store_id_stays BEFORE UPDATE OF store_id ON store_meta WHEN NEW.store_id IS NOT OLD.store_id
BEGIN SELECT RAISE(ABORT, 'store_id never changes'); END;
CREATE TRIGGER dek_ids_only_rise BEFORE UPDATE OF next_dek_id ON store_meta WHEN NEW.next_dek_id < OLD.next_dek_id
BEGIN SELECT RAISE(ABORT, 'a DEK id is never given out twice'); END;
CREATE TRIGGER version_stays BEFORE DELETE ON encryption_key_version
BEGIN SELECT RAISE(ABORT, 'versions are destroyed, not deleted: the row stays'); END;
CREATE TRIGGER version_keeps_its_place BEFORE UPDATE OF dek_id, key_id, version, algorithm ON encryption_key_version
WHEN NEW.dek_id IS NOT OLD.dek_id OR NEW.key_id IS NOT OLD.key_id OR NEW.version IS NOT OLD.version
    OR NEW.algorithm IS NOT OLD.algorithm
BEGIN SELECT RAISE(ABORT, 'a version keeps its DEK id, key, number and algorithm'); END;
CREATE TRIGGER destroyed_is_final BEFORE UPDATE OF state ON encryption_key_version
WHEN OLD.state = 'destroyed' AND NEW.state IS NOT 'destroyed'
BEGIN SELECT RAISE(ABORT, 'a destroyed version does not come back'); END;
CREATE TRIGGER history_stays BEFORE DELETE ON encryption_key_history
BEGIN SELECT RAISE(ABORT, 'history is only added to'); END;
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE ON encryption_key_history
BEGIN SELECT RAISE(ABORT, 'history is only added to'); END;
