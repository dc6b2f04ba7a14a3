-- The tables as version 1 of the database had them. Kept for the test of the migration alone: never changed, never run.
-- the story's nouns are kept. Oids are 16 bytes, peer ids and keys 32, epochs 16; times are milliseconds since 1970.

-- Facts of this database: 'epoch' (minted with it).
CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value ANY  NOT NULL
) STRICT, WITHOUT ROWID;

-- Apps that ever had tables here. The id is local; the slug is what travels.
CREATE TABLE app (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  slug    TEXT    NOT NULL UNIQUE,
  version INTEGER NOT NULL            -- of the schema that made or last widened the tables
) STRICT;

-- One bit of sync_flags per domain, bound for ever: never on the wire, never reused (63 at most).
CREATE TABLE domain_bit (
  domain TEXT    NOT NULL PRIMARY KEY,
  bit    INTEGER NOT NULL UNIQUE CHECK (bit BETWEEN 0 AND 62)
) STRICT, WITHOUT ROWID;

-- Derived from identity and server objects: whose key is current, and where they live.
CREATE TABLE identity (
  oid            BLOB    NOT NULL PRIMARY KEY,
  parent_id      INTEGER NOT NULL,    -- in app_identities_parent
  pubkey_attr_id INTEGER NOT NULL,    -- in app_identities_attr
  key_id         INTEGER NOT NULL,
  public_key     BLOB    NOT NULL,
  home_peer      BLOB    NOT NULL,    -- of a server, itself
  home_counter   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_home   ON identity (home_peer);
CREATE INDEX identity_pubkey ON identity (pubkey_attr_id);

-- Derived: who may read which scope (a Parent whose readers decide), since when. Kept by GraphManager.
CREATE TABLE reader (
  identity_oid BLOB    NOT NULL,
  app_id       INTEGER NOT NULL,
  scope_id     INTEGER NOT NULL,      -- in app_<slug>_parent
  since_seq    INTEGER NOT NULL,
  PRIMARY KEY (identity_oid, app_id, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX reader_scope ON reader (app_id, scope_id, identity_oid);

-- Peers that were admitted (docs/STORY.md 1.1 step 5). Their server identity is in the graph.
CREATE TABLE peers (
  id                INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id           BLOB    NOT NULL UNIQUE,
  server_oid        BLOB    NOT NULL,
  peer_apps         TEXT    NOT NULL, -- JSON array of slugs
  peer_sync_domains TEXT    NOT NULL, -- JSON array of names
  domains           TEXT    NOT NULL, -- JSON array: the intersection with ours
  onion             BLOB    NOT NULL, -- the service's public key
  epoch             BLOB    NOT NULL, -- the peer's, as last heard
  tier              TEXT    NOT NULL, -- 'worked' or 'trusted'
  last_contact      INTEGER NOT NULL
) STRICT;

-- Cursors. Outbound: what was sent (last_seq) and what the peer is known to hold (acked_seq), in our epoch.
-- Inbound: what was applied (last_seq), in the peer's epoch; it moves in the transaction that applies the rows.
CREATE TABLE sync_state (
  peer_id   BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  direction TEXT    NOT NULL CHECK (direction IN ('in', 'out')),
  scope     BLOB    NOT NULL,         -- empty: the domain's main cursor
  epoch     BLOB    NOT NULL,
  last_seq  INTEGER NOT NULL,
  acked_seq INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain, direction, scope)
) STRICT, WITHOUT ROWID;

-- Objects of packages that were refused, for the operator.
CREATE TABLE sync_rejects (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id BLOB    NOT NULL,
  domain  TEXT    NOT NULL,
  epoch   BLOB    NOT NULL,
  seq     INTEGER NOT NULL,           -- to_seq of the package
  oid     BLOB    NOT NULL,           -- empty where the object could not be read
  code    TEXT    NOT NULL,
  at      INTEGER NOT NULL
) STRICT;
CREATE INDEX sync_rejects_peer ON sync_rejects (peer_id, id);

-- Objects that wait for another one: a Parent that they refer to, or their owner's identity.
CREATE TABLE sync_parked (
  id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id   BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  epoch     BLOB    NOT NULL,
  seq       INTEGER NOT NULL,
  oid       BLOB    NOT NULL,
  missing   BLOB    NOT NULL,
  key_id    INTEGER NOT NULL,
  bytes     BLOB    NOT NULL,
  signature BLOB    NOT NULL,
  at        INTEGER NOT NULL,
  UNIQUE (peer_id, oid, key_id, bytes)  -- per peer: what one has no right to send must not stand in for another's
) STRICT;
CREATE INDEX sync_parked_missing ON sync_parked (missing);
CREATE INDEX sync_parked_peer    ON sync_parked (peer_id);

-- Tokens of the local API, by their hash.
CREATE TABLE api_token (
  hash  BLOB    NOT NULL PRIMARY KEY,
  label TEXT    NOT NULL,
  at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
