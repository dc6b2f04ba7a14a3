-- The tables of version 5, without comments. Only the tests of the migrations run this file.
CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value ANY  NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE app (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  slug    TEXT    NOT NULL UNIQUE,
  version INTEGER NOT NULL,
  text    TEXT
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
  frozen         INTEGER NOT NULL DEFAULT 0,
  home_since_seq   INTEGER NOT NULL DEFAULT 0,
  home_since_scope INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_home   ON identity (home_peer);
CREATE INDEX identity_pubkey ON identity (pubkey_attr_id);
CREATE TABLE scope (
  id        INTEGER NOT NULL PRIMARY KEY,
  app_id    INTEGER,
  parent_id INTEGER,
  oid       BLOB,
  founders  BLOB,
  is_local  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX scope_founders ON scope (app_id, founders);
INSERT INTO scope (id) VALUES (0), (1);
CREATE TABLE rights_list (
  id         INTEGER NOT NULL PRIMARY KEY,
  scope_id   INTEGER NOT NULL REFERENCES scope (id),
  digest     BLOB    NOT NULL,
  key_number INTEGER NOT NULL,
  version    INTEGER NOT NULL,
  parent_id  INTEGER,
  is_head    INTEGER NOT NULL DEFAULT 0,
  UNIQUE (scope_id, digest)
) STRICT;
CREATE INDEX rights_list_order ON rights_list (scope_id, key_number, version, digest);
CREATE INDEX rights_list_head  ON rights_list (scope_id, key_number, version, digest)
  WHERE is_head = 1;
CREATE INDEX rights_list_scope ON rights_list (scope_id);
CREATE UNIQUE INDEX rights_list_founding ON rights_list (scope_id) WHERE version = 0;
CREATE TABLE list_named (
  scope_id   INTEGER NOT NULL REFERENCES scope (id),
  digest     BLOB    NOT NULL,
  by_list    INTEGER NOT NULL REFERENCES rights_list (id),
  key_number INTEGER NOT NULL,
  PRIMARY KEY (scope_id, digest, by_list)
) STRICT, WITHOUT ROWID;
CREATE INDEX list_named_by ON list_named (by_list);
CREATE TABLE due_list (
  scope_id   INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  is_merging INTEGER NOT NULL,
  is_held    INTEGER NOT NULL
) STRICT;
CREATE TABLE rights_entry (
  list_id      INTEGER NOT NULL REFERENCES rights_list (id),
  identity_oid BLOB    NOT NULL,
  rights       INTEGER NOT NULL,
  PRIMARY KEY (list_id, identity_oid)
) STRICT, WITHOUT ROWID;
CREATE TABLE leave (
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  identity_oid BLOB    NOT NULL,
  key_number   INTEGER NOT NULL,
  version      INTEGER NOT NULL,
  list_id      INTEGER NOT NULL REFERENCES rights_list (id),
  PRIMARY KEY (scope_id, identity_oid, key_number, version, list_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX leave_list ON leave (list_id);
CREATE TABLE reader (
  identity_oid BLOB    NOT NULL,
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  since_seq    INTEGER NOT NULL,
  until_seq    INTEGER,
  PRIMARY KEY (identity_oid, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX reader_scope ON reader (scope_id, until_seq, identity_oid);
CREATE TABLE opening (
  identity_oid BLOB    NOT NULL,
  opened_seq   INTEGER NOT NULL,
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  from_seq     INTEGER NOT NULL,
  PRIMARY KEY (identity_oid, opened_seq, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX opening_scope ON opening (scope_id, identity_oid, opened_seq);
CREATE TABLE ended_scope (
  scope_id  INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  after_seq INTEGER NOT NULL
) STRICT;
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
CREATE TABLE asked_peer (
  peer_id      BLOB    NOT NULL PRIMARY KEY,
  identity_oid BLOB    NOT NULL,
  scope_id     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_home (
  peer_id      BLOB NOT NULL,
  identity_oid BLOB NOT NULL,
  PRIMARY KEY (peer_id, identity_oid)
) STRICT, WITHOUT ROWID;
CREATE INDEX recovery_home_identity ON recovery_home (identity_oid);
CREATE TABLE reclaimed_domain (
  peer_id BLOB NOT NULL,
  domain  TEXT NOT NULL,
  PRIMARY KEY (peer_id, domain)
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_domain (
  domain TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_key (
  oid    BLOB    NOT NULL PRIMARY KEY,
  key_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sync_rejects (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id BLOB    NOT NULL,
  domain  TEXT    NOT NULL,
  epoch   BLOB    NOT NULL,
  seq     INTEGER NOT NULL,
  oid     BLOB    NOT NULL,
  type    TEXT    NOT NULL,
  code    TEXT    NOT NULL,
  at      INTEGER NOT NULL
) STRICT;
CREATE INDEX sync_rejects_peer ON sync_rejects (peer_id, id);
CREATE TABLE waiting (
  id           INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_no      INTEGER NOT NULL REFERENCES peers (id),
  domain       TEXT    NOT NULL,
  epoch        BLOB    NOT NULL,
  seq          INTEGER NOT NULL,
  oid          BLOB    NOT NULL,
  needs_kind   INTEGER NOT NULL,
  needs        BLOB    NOT NULL,
  is_reclaimed INTEGER NOT NULL,
  key_id       INTEGER NOT NULL,
  digest       BLOB    NOT NULL,
  bytes        BLOB    NOT NULL,
  signature    BLOB    NOT NULL,
  at           INTEGER NOT NULL,
  UNIQUE (peer_no, oid, key_id, digest)
) STRICT;
CREATE INDEX waiting_needs ON waiting (needs_kind, needs);
CREATE INDEX waiting_oid   ON waiting (oid);
CREATE INDEX waiting_at    ON waiting (at) WHERE is_reclaimed = 0;
CREATE TABLE settling (
  id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  needs_kind INTEGER NOT NULL,
  needs      BLOB    NOT NULL,
  after_id   INTEGER NOT NULL,
  until_id   INTEGER NOT NULL,
  UNIQUE (needs_kind, needs)
) STRICT;
CREATE TABLE overruled (
  scope_id   INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  owner_oid  BLOB    NOT NULL,
  place      INTEGER NOT NULL,
  not_before INTEGER,
  noted_at   INTEGER NOT NULL,
  after_list INTEGER NOT NULL,
  was_full   INTEGER NOT NULL
) STRICT;
CREATE INDEX overruled_due   ON overruled (not_before, place);
CREATE INDEX overruled_owner ON overruled (owner_oid, place, noted_at);
CREATE INDEX overruled_noted ON overruled (noted_at);
CREATE TABLE pull_again (
  peer_no     INTEGER NOT NULL REFERENCES peers (id),
  domain      TEXT    NOT NULL,
  scope_oid   BLOB    NOT NULL,
  epoch       BLOB    NOT NULL,
  cursor      INTEGER NOT NULL,
  until_seq   INTEGER NOT NULL,
  cause       TEXT    NOT NULL CHECK (
                cause IN ('no_room', 'expired', 'named', 'overruled')),
  noted_again INTEGER NOT NULL,
  not_before  INTEGER NOT NULL,
  pause_ms    INTEGER NOT NULL,
  starts      INTEGER NOT NULL,
  rounds      INTEGER NOT NULL,
  day         INTEGER NOT NULL,
  retry_at    INTEGER NOT NULL,
  PRIMARY KEY (peer_no, domain, scope_oid)
) STRICT, WITHOUT ROWID;
CREATE INDEX pull_again_scope ON pull_again (scope_oid);
CREATE TABLE sync_outbox (
  peer_id    BLOB    NOT NULL,
  domain     TEXT    NOT NULL,
  change_seq INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain)
) STRICT, WITHOUT ROWID;
CREATE TABLE api_token (
  hash  BLOB    NOT NULL PRIMARY KEY,
  label TEXT    NOT NULL,
  at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
