-- Postern's tables, beside the pair app_<slug>_parent and app_<slug>_attr that each app has (app_tables.rs).
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
  home_counter   INTEGER NOT NULL,
  retired        INTEGER NOT NULL DEFAULT 0, -- 1: its owner writes no more
  frozen         INTEGER NOT NULL DEFAULT 0  -- 1: two homes under one counter; nothing is taken until its key is rotated
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
  tier              TEXT    NOT NULL, -- 'worked', 'trusted', or 'forgotten': then only name, usage and (banned) onion count
  last_contact      INTEGER NOT NULL,
  ticket            BLOB,             -- what that node gave us, to be shown there instead of work; NULL: none
  stored_objects    INTEGER NOT NULL DEFAULT 0, -- objects here that this peer sent, waiting ones included
  stored_bytes      INTEGER NOT NULL DEFAULT 0  -- their bytes as sent
) STRICT;

-- What the operator said of a node, known here or not. By peer id alone, so that it outlives every key of that node.
CREATE TABLE verdict (
  peer_id            BLOB    NOT NULL PRIMARY KEY,
  verdict            TEXT    NOT NULL CHECK (verdict IN ('approved', 'refused', 'banned')),
  reason             TEXT    NOT NULL,   -- the operator's words, never told to that node; empty: none given
  at                 INTEGER NOT NULL,   -- when it was said
  until              INTEGER,            -- when it ends; NULL: never
  tickets_void_until INTEGER NOT NULL DEFAULT 0 -- unix seconds: tickets that it got from us up to then are void
) STRICT, WITHOUT ROWID;

-- Strangers that worked and wait for the operator's word. What they claim is theirs, and unproved but for the peer id
-- and the onion address. Bounded in number and time.
CREATE TABLE pending (
  peer_id      BLOB    NOT NULL PRIMARY KEY,
  onion        BLOB    NOT NULL,      -- the service's public key
  apps         TEXT    NOT NULL,      -- JSON array of slugs
  sync_domains TEXT    NOT NULL,      -- JSON array of names
  names        TEXT    NOT NULL,      -- JSON array: what its identities call themselves
  effort       INTEGER NOT NULL,      -- the most that it worked for one knock, in expected evaluations
  first_seen   INTEGER NOT NULL,
  last_seen    INTEGER NOT NULL,
  knocks       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What all peers of one tier have stored here, so that a quota is checked without a sum.
CREATE TABLE tier_usage (
  tier    TEXT    NOT NULL PRIMARY KEY,  -- 'worked' or 'trusted'
  objects INTEGER NOT NULL,
  bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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

-- Every epoch that this database minted, the present one in 'meta' among them. Whoever hears another one from a peer is
-- not the only one who signs with these keys.
CREATE TABLE epoch (
  epoch  BLOB    NOT NULL PRIMARY KEY,
  reason TEXT    NOT NULL,            -- 'new', 'restored', 'fell_back', 'resolved', 'foreign'
  at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Epochs that peers said are theirs, with their signature: shown to them when they come with another one. A few each.
CREATE TABLE heard_epoch (
  peer_id   BLOB    NOT NULL,
  epoch     BLOB    NOT NULL,
  key_id    INTEGER NOT NULL,         -- number of the node's key that signed
  signature BLOB    NOT NULL,
  head      INTEGER NOT NULL,         -- the last change_seq of then, signed with the epoch
  at        INTEGER NOT NULL,
  PRIMARY KEY (peer_id, epoch)
) STRICT, WITHOUT ROWID;

-- Why this node may not write as usual; no row: it may.
CREATE TABLE standing (
  id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  state   TEXT    NOT NULL CHECK (state IN ('recovering', 'read_only')),
  reason  TEXT    NOT NULL,           -- as in 'epoch'; of 'read_only': the peer that showed the foreign epoch, shortened
  since   INTEGER NOT NULL,
  until   INTEGER,                    -- of 'recovering': when it ends by itself
  foreign_epoch BLOB                  -- of 'read_only'
) STRICT;

-- While recovering: peers that are waited for, having not been asked yet for what they hold of this node's.
CREATE TABLE recovery_peer (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Who gave back what it holds of this node's since the last epoch began. Each peer is asked once, late ones too.
CREATE TABLE recovery_asked (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- The number of each own identity's key when the last epoch began: what earlier keys signed and lives was in the backup.
CREATE TABLE recovery_key (
  oid    BLOB    NOT NULL PRIMARY KEY,
  key_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Deletions of our own that came back before what they delete did.
CREATE TABLE recovery_deletion (
  oid       BLOB    NOT NULL PRIMARY KEY,
  key_id    INTEGER NOT NULL,
  bytes     BLOB    NOT NULL,
  signature BLOB    NOT NULL
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
