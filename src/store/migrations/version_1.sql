-- The tables of version 1, without comments. Only the tests of the migrations run this file.
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
  home_counter   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_home   ON identity (home_peer);
CREATE INDEX identity_pubkey ON identity (pubkey_attr_id);
CREATE TABLE reader (
  identity_oid BLOB    NOT NULL,
  app_id       INTEGER NOT NULL,
  scope_id     INTEGER NOT NULL,
  since_seq    INTEGER NOT NULL,
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
  last_contact      INTEGER NOT NULL
) STRICT;
CREATE TABLE sync_state (
  peer_id   BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  direction TEXT    NOT NULL CHECK (direction IN ('in', 'out')),
  scope     BLOB    NOT NULL,
  epoch     BLOB    NOT NULL,
  last_seq  INTEGER NOT NULL,
  acked_seq INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain, direction, scope)
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
