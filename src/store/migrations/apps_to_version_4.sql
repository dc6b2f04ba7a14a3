-- The tables of an app up to version 4. Only the tests of the migrations run this file, with the
-- app's slug in place of SLUG.
CREATE TABLE app_SLUG_parent (
  id         INTEGER NOT NULL PRIMARY KEY,
  oid        BLOB    NOT NULL UNIQUE,
  type       INTEGER NOT NULL,
  owner_oid  BLOB    NOT NULL,
  scope_id   INTEGER,
  rev        INTEGER NOT NULL,
  deleted    INTEGER NOT NULL,
  key_id     INTEGER NOT NULL,
  signature  BLOB    NOT NULL,
  origin     INTEGER REFERENCES peers (id),
  change_seq INTEGER NOT NULL,
  sync_flags INTEGER NOT NULL
) STRICT;
CREATE INDEX app_SLUG_parent_seq ON app_SLUG_parent (change_seq);
CREATE INDEX app_SLUG_parent_scope ON app_SLUG_parent (scope_id, change_seq);
CREATE TABLE app_SLUG_attr (
  id              INTEGER NOT NULL PRIMARY KEY,
  parent_id       INTEGER NOT NULL REFERENCES app_SLUG_parent (id),
  type            INTEGER NOT NULL,
  ordinal         INTEGER NOT NULL,
  value           ANY,
  value_parent_id INTEGER REFERENCES app_SLUG_parent (id),
  change_seq      INTEGER NOT NULL,
  sync_flags      INTEGER NOT NULL
) STRICT;
