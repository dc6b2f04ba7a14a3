-- From version 11 to 12: objects of a peer can be removed. Nothing is lost.
CREATE TABLE purge (
  peer_no      INTEGER NOT NULL PRIMARY KEY REFERENCES peers (id),
  state        TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'done', 'ending', 'over')),
  takes_objects INTEGER NOT NULL,
  is_ban       INTEGER NOT NULL,
  objects      INTEGER NOT NULL DEFAULT 0,
  bytes        INTEGER NOT NULL DEFAULT 0,
  identities   INTEGER NOT NULL DEFAULT 0,
  remembered   INTEGER NOT NULL DEFAULT 0,
  remembered_max INTEGER NOT NULL,
  after_oid    BLOB    NOT NULL DEFAULT x''
) STRICT;
CREATE TABLE purge_round (
  id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  step INTEGER NOT NULL
) STRICT;
CREATE TABLE purge_position (
  app_id   INTEGER NOT NULL PRIMARY KEY REFERENCES app (id),
  after_id INTEGER NOT NULL
) STRICT;
CREATE TABLE purge_scope (
  scope_id INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  peer_no  INTEGER NOT NULL REFERENCES peers (id),
  is_going INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX purge_scope_going ON purge_scope (scope_id) WHERE is_going = 1;
CREATE TABLE purge_identity (
  oid         BLOB    NOT NULL PRIMARY KEY,
  peer_no     INTEGER NOT NULL REFERENCES peers (id),
  after_scope INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE purged (
  oid       BLOB    NOT NULL,
  peer_no   INTEGER NOT NULL REFERENCES purge (peer_no),
  kind      INTEGER NOT NULL,
  PRIMARY KEY (oid, peer_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX purged_peer ON purged (peer_no, oid);
CREATE TABLE forgotten_key (
  oid     BLOB    NOT NULL PRIMARY KEY,
  peer_no INTEGER NOT NULL REFERENCES peers (id),
  key_id  INTEGER NOT NULL,
  home_counter INTEGER NOT NULL,
  chain   BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
