-- From version 2 to 3: retired and frozen identities, epochs, and recovery after a restore.
ALTER TABLE identity ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identity ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
CREATE TABLE epoch (
  epoch  BLOB    NOT NULL PRIMARY KEY,
  reason TEXT    NOT NULL,
  at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO epoch (epoch, reason, at) SELECT value, 'new', 0 FROM meta WHERE name = 'epoch';
CREATE TABLE heard_epoch (
  peer_id   BLOB    NOT NULL,
  epoch     BLOB    NOT NULL,
  key_id    INTEGER NOT NULL,
  signature BLOB    NOT NULL,
  head      INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (peer_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE standing (
  id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  state   TEXT    NOT NULL CHECK (state IN ('recovering', 'read_only')),
  reason  TEXT    NOT NULL,
  since   INTEGER NOT NULL,
  until   INTEGER,
  foreign_epoch BLOB
) STRICT;
CREATE TABLE recovery_peer (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_asked (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_key (
  oid    BLOB    NOT NULL PRIMARY KEY,
  key_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE recovery_deletion (
  oid       BLOB    NOT NULL PRIMARY KEY,
  key_id    INTEGER NOT NULL,
  bytes     BLOB    NOT NULL,
  signature BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
