-- From version 6 to 7: received objects of scopes are sent on to peers with the feature 'relay',
-- and count in accounts. Their bits in sync_flags are set in portions, after the schemas are
-- loaded. The column of the accounts of objects is added by to_version_7.rs. Bans end.
ALTER TABLE peers ADD COLUMN relayed_objects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN relayed_bytes   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN relays INTEGER NOT NULL DEFAULT 0;
ALTER TABLE waiting ADD COLUMN account BLOB;
CREATE TABLE relayed_usage (
  peer_no INTEGER NOT NULL REFERENCES peers (id),
  account BLOB    NOT NULL,
  objects INTEGER NOT NULL,
  bytes   INTEGER NOT NULL,
  PRIMARY KEY (peer_no, account)
) STRICT, WITHOUT ROWID;
CREATE TABLE ended_ban (
  key          BLOB    NOT NULL PRIMARY KEY,
  due_at       INTEGER NOT NULL,
  identity_oid BLOB    NOT NULL,
  after_scope  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_ban_due ON ended_ban (due_at);
INSERT INTO ended_ban (key, due_at, identity_oid, after_scope)
  SELECT peer_id, until, x'', 0 FROM verdict WHERE verdict = 'banned' AND until IS NOT NULL;
