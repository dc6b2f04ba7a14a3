-- From version 10 to 11: receipts. Peers state what they applied from their next session on.
CREATE TABLE receipt (
  peer_id BLOB    NOT NULL,
  domain  TEXT    NOT NULL,
  seq     INTEGER NOT NULL,
  head    INTEGER NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE unapplied_object (
  peer_id    BLOB    NOT NULL,
  domain     TEXT    NOT NULL,
  oid        BLOB    NOT NULL,
  scope_oid  BLOB    NOT NULL,
  is_refused INTEGER NOT NULL,
  applied_at INTEGER,
  PRIMARY KEY (peer_id, domain, oid)
) STRICT, WITHOUT ROWID;
CREATE TABLE unapplied_scope (
  peer_id    BLOB    NOT NULL,
  domain     TEXT    NOT NULL,
  scope_oid  BLOB    NOT NULL,
  after_seq  INTEGER NOT NULL,
  applied_at INTEGER,
  PRIMARY KEY (peer_id, domain, scope_oid)
) STRICT, WITHOUT ROWID;
CREATE TABLE refused_object (
  peer_id BLOB NOT NULL,
  domain  TEXT NOT NULL,
  oid     BLOB NOT NULL,
  epoch   BLOB NOT NULL,
  PRIMARY KEY (peer_id, domain, oid)
) STRICT, WITHOUT ROWID;
