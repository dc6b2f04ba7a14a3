-- The tables of version 4, without comments. Only the tests of the migrations run this file.
CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value ANY  NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE app (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  slug    TEXT    NOT NULL UNIQUE,
  version INTEGER NOT NULL
) STRICT;
CREATE TABLE domain_bit (
  domain TEXT    NOT NULL PRIMARY KEY,
  bit    INTEGER NOT NULL UNIQUE CHECK (bit BETWEEN 0 AND 62)
) STRICT, WITHOUT ROWID;
CREATE TABLE identity (
  oid            BLOB    NOT NULL PRIMARY KEY,
  parent_id      INTEGER NOT NULL,
  pubkey_attr_id INTEGER NOT NULL,
  key_id         INTEGER NOT NULL,
  public_key     BLOB    NOT NULL,
  home_peer      BLOB    NOT NULL,
  home_counter   INTEGER NOT NULL,
  retired        INTEGER NOT NULL DEFAULT 0,
  frozen         INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_home   ON identity (home_peer);
CREATE INDEX identity_pubkey ON identity (pubkey_attr_id);
CREATE TABLE reader (
  identity_oid BLOB    NOT NULL,
  app_id       INTEGER NOT NULL,
  scope_id     INTEGER NOT NULL,
  PRIMARY KEY (identity_oid, app_id, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX reader_scope ON reader (app_id, scope_id, identity_oid);
CREATE TABLE peers (
  id                INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id           BLOB    NOT NULL UNIQUE,
  server_oid        BLOB    NOT NULL,
  peer_apps         TEXT    NOT NULL,
  peer_sync_domains TEXT    NOT NULL,
  domains           TEXT    NOT NULL,
  onion             BLOB    NOT NULL,
  epoch             BLOB    NOT NULL,
  tier              TEXT    NOT NULL,
  last_contact      INTEGER NOT NULL,
  ticket            BLOB,
  stored_objects    INTEGER NOT NULL DEFAULT 0,
  stored_bytes      INTEGER NOT NULL DEFAULT 0
) STRICT;
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
  attempts     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE tier_usage (
  tier    TEXT    NOT NULL PRIMARY KEY,
  objects INTEGER NOT NULL,
  bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sync_state (
  peer_id   BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  direction TEXT    NOT NULL CHECK (direction IN ('in', 'out')),
  epoch     BLOB    NOT NULL,
  last_seq  INTEGER NOT NULL,
  acked_seq INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain, direction)
) STRICT, WITHOUT ROWID;
CREATE TABLE epoch (
  epoch  BLOB    NOT NULL PRIMARY KEY,
  reason TEXT    NOT NULL,
  at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE peer_epoch (
  peer_id   BLOB    NOT NULL,
  epoch     BLOB    NOT NULL,
  key_id    INTEGER NOT NULL,
  signature BLOB    NOT NULL,
  head      INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (peer_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE write_mode (
  id            INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  mode          TEXT    NOT NULL CHECK (mode IN ('new_objects_only', 'read_only')),
  reason        TEXT    NOT NULL,
  since         INTEGER NOT NULL,
  until         INTEGER,
  foreign_epoch BLOB
) STRICT;
CREATE TABLE recovery_peer (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE reclaimed_peer (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_key (
  oid    BLOB    NOT NULL PRIMARY KEY,
  key_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_tombstone (
  oid       BLOB    NOT NULL PRIMARY KEY,
  key_id    INTEGER NOT NULL,
  bytes     BLOB    NOT NULL,
  signature BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sync_rejects (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id BLOB    NOT NULL,
  domain  TEXT    NOT NULL,
  epoch   BLOB    NOT NULL,
  seq     INTEGER NOT NULL,
  oid     BLOB    NOT NULL,
  code    TEXT    NOT NULL,
  at      INTEGER NOT NULL
) STRICT;
CREATE INDEX sync_rejects_peer ON sync_rejects (peer_id, id);
CREATE TABLE sync_parked (
  id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id   BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  epoch     BLOB    NOT NULL,
  seq       INTEGER NOT NULL,
  oid       BLOB    NOT NULL,
  missing   BLOB    NOT NULL,
  key_id    INTEGER NOT NULL,
  bytes     BLOB    NOT NULL,
  signature BLOB    NOT NULL,
  at        INTEGER NOT NULL,
  UNIQUE (peer_id, oid, key_id, bytes)
) STRICT;
CREATE INDEX sync_parked_missing ON sync_parked (missing);
CREATE INDEX sync_parked_peer    ON sync_parked (peer_id);
CREATE TABLE api_token (
  hash  BLOB    NOT NULL PRIMARY KEY,
  label TEXT    NOT NULL,
  at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
