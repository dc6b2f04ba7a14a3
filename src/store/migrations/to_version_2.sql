-- From version 1 to 2: tickets of other nodes, verdicts, pending requests, and usage.
ALTER TABLE peers ADD COLUMN ticket BLOB;
ALTER TABLE peers ADD COLUMN stored_objects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0;
CREATE TABLE verdict (
  peer_id            BLOB    NOT NULL PRIMARY KEY,
  verdict            TEXT    NOT NULL CHECK (verdict IN ('approved', 'refused', 'banned')),
  reason             TEXT    NOT NULL,
  at                 INTEGER NOT NULL,
  until              INTEGER,
  tickets_void_until INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE pending (
  peer_id      BLOB    NOT NULL PRIMARY KEY,
  onion        BLOB    NOT NULL,
  apps         TEXT    NOT NULL,
  sync_domains TEXT    NOT NULL,
  names        TEXT    NOT NULL,
  effort       INTEGER NOT NULL,
  first_seen   INTEGER NOT NULL,
  last_seen    INTEGER NOT NULL,
  knocks       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE tier_usage (
  tier    TEXT    NOT NULL PRIMARY KEY,
  objects INTEGER NOT NULL,
  bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
