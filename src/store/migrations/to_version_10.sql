-- From version 9 to 10: members of a scope learn each other's onion services.
CREATE TABLE address (
  peer_id BLOB    NOT NULL PRIMARY KEY,
  record  BLOB    NOT NULL,
  onion   BLOB    NOT NULL,
  key_id  INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  scope_owner BLOB NOT NULL,
  at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX address_owner ON address (scope_owner, at);
CREATE TABLE introduction (
  peer_id     BLOB    NOT NULL PRIMARY KEY,
  scope_id    INTEGER NOT NULL REFERENCES scope (id),
  scope_owner BLOB    NOT NULL,
  begun_at    INTEGER NOT NULL,
  next_at     INTEGER NOT NULL,
  failures    INTEGER NOT NULL,
  reached_at  INTEGER
) STRICT, WITHOUT ROWID;
