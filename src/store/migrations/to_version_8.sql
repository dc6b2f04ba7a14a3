-- From version 7 to 8: identities accept or decline the scopes that others invite them to. Scopes
-- that an identity of this node reads already have no invitation, so that they stay visible.
CREATE TABLE accept (
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  identity_oid BLOB    NOT NULL,
  key_number   INTEGER NOT NULL,
  version      INTEGER NOT NULL,
  list_id      INTEGER NOT NULL REFERENCES rights_list (id),
  PRIMARY KEY (scope_id, identity_oid, key_number, version, list_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX accept_list ON accept (list_id);
CREATE TABLE invitation (
  identity_oid BLOB    NOT NULL,
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  state        TEXT    NOT NULL CHECK (state IN ('open', 'due', 'held', 'accepted', 'declined')),
  from_seq     INTEGER,
  at           INTEGER NOT NULL,
  PRIMARY KEY (identity_oid, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX invitation_list  ON invitation (identity_oid, state, scope_id);
CREATE INDEX invitation_scope ON invitation (scope_id, state);
CREATE INDEX invitation_declined ON invitation (scope_id) WHERE state = 'declined';
CREATE INDEX invitation_due   ON invitation (at) WHERE state = 'due';
CREATE INDEX invitation_held  ON invitation (scope_id) WHERE state = 'held';
