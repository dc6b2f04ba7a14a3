-- From version 5 to 6: the address book. The names of this node's identities are put into it by
-- to_version_6.rs.
CREATE TABLE contact (
  identity_oid BLOB NOT NULL PRIMARY KEY,
  name         TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 64),
  folded       TEXT NOT NULL UNIQUE CHECK (length(CAST(folded AS BLOB)) <= 1024),
  note         TEXT NOT NULL CHECK (length(CAST(note AS BLOB)) <= 2000)
) STRICT, WITHOUT ROWID;
