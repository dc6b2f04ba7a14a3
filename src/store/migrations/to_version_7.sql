-- From version 6 to 7: received objects of scopes are sent on to peers with the feature 'relay',
-- and count in accounts. Their bits in sync_flags are set in portions, after the schemas are
-- loaded. The column of the accounts of objects is added by to_version_7.rs.
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
