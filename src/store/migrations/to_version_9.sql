-- From version 8 to 9: a home that a record proves can wait, for a day or for the operator.
ALTER TABLE identity ADD COLUMN home_moved_at INTEGER NOT NULL DEFAULT 0;
CREATE TABLE pending_home (
  identity_oid BLOB    NOT NULL PRIMARY KEY,
  home_peer    BLOB    NOT NULL,
  key_number   INTEGER NOT NULL,
  home_counter INTEGER NOT NULL,
  due_at       INTEGER,
  peer_no      INTEGER REFERENCES peers (id),
  bytes        BLOB,
  signature    BLOB,
  at           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_home_due  ON pending_home (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX pending_home_peer ON pending_home (home_peer) WHERE due_at IS NULL;
