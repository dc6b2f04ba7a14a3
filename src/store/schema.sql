-- Postern's tables, besides the pair app_<slug>_parent and app_<slug>_attr of each app
-- (app_tables.rs). Oids have 16 bytes, peer ids and keys 32, epochs 16. Times are milliseconds
-- since 1970, UTC.

-- Facts about this database: 'epoch', and 'reserved' once a file of reserved sequence numbers
-- exists. Highest numbers, which rows may lack since a purge removed them: 'head' of
-- change_seq, 'last_scope' of ids of scopes, 'last_id:<app>' of ids of Parents.
CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value ANY  NOT NULL
) STRICT, WITHOUT ROWID;

-- Apps that have tables in this database. The id is local; the slug is what travels.
CREATE TABLE app (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  slug    TEXT    NOT NULL UNIQUE,
  version INTEGER NOT NULL,           -- version of the app's schema that was loaded last
  text    TEXT                        -- its file; NULL: not known, because the tables were migrated
) STRICT;

-- The bit of each domain in sync_flags, at most 63. A bit is never reused and never sent.
CREATE TABLE domain_bit (
  domain TEXT    NOT NULL PRIMARY KEY,
  bit    INTEGER NOT NULL UNIQUE CHECK (bit BETWEEN 0 AND 62)
) STRICT, WITHOUT ROWID;

-- Derived from identity and server objects: the current key and the home of each identity.
CREATE TABLE identity (
  oid            BLOB    NOT NULL PRIMARY KEY,
  parent_id      INTEGER NOT NULL,    -- in app_identities_parent
  pubkey_attr_id INTEGER NOT NULL,    -- in app_identities_attr
  key_id         INTEGER NOT NULL,    -- number of the current key in the key chain
  public_key     BLOB    NOT NULL,
  home_peer      BLOB    NOT NULL,    -- a server is its own home
  home_counter   INTEGER NOT NULL,
  retired        INTEGER NOT NULL DEFAULT 0, -- 1: its owner writes no more objects
  frozen         INTEGER NOT NULL DEFAULT 0, -- 1: two homes with one counter; objects are refused
  home_since_seq   INTEGER NOT NULL DEFAULT 0, -- change_seq of the write that noted this home;
                                              -- 0: its node had no session before
  home_since_scope INTEGER NOT NULL DEFAULT 0, -- highest id of a scope at that write
  home_moved_at    INTEGER NOT NULL DEFAULT 0 -- time of its last move as this node learned it;
                                              -- 0: none
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_home   ON identity (home_peer);
CREATE INDEX identity_pubkey ON identity (pubkey_attr_id);

-- Homes that records prove and that do not count yet. At most one of each identity.
CREATE TABLE pending_home (
  identity_oid BLOB    NOT NULL PRIMARY KEY,
  home_peer    BLOB    NOT NULL,
  key_number   INTEGER NOT NULL,      -- number of the identity's key that signed the record
  home_counter INTEGER NOT NULL,
  due_at       INTEGER,               -- time from which it counts, because the identity moved on
                                      -- the day before; its stored object is the record. NULL:
                                      -- when the operator confirms it; the next three are the
                                      -- record
  peer_no      INTEGER REFERENCES peers (id), -- its sender
  bytes        BLOB,
  signature    BLOB,
  at           INTEGER NOT NULL       -- time of its arrival
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_home_due  ON pending_home (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX pending_home_peer ON pending_home (home_peer) WHERE due_at IS NULL;

-- Scopes: each object is in exactly one, which never changes. Rows 0 (local: never leaves this
-- node) and 1 (public) always exist. Every other scope is a Parent of one app.
CREATE TABLE scope (
  id        INTEGER NOT NULL PRIMARY KEY,
  app_id    INTEGER,                  -- NULL: local or public
  parent_id INTEGER,                  -- in app_<slug>_parent; NULL: local or public
  oid       BLOB,                     -- the oid of that Parent, which never changes
  founders  BLOB,                     -- digest of the identities that could read it at first
  is_local  INTEGER NOT NULL DEFAULT 0 -- 1: its owner lives on this node
) STRICT;
CREATE INDEX scope_founders ON scope (app_id, founders);
INSERT INTO scope (id) VALUES (0), (1);

-- Every rights list of a scope that was ever valid. Version 0 is the founding list, which is part
-- of the scope's Parent.
CREATE TABLE rights_list (
  id         INTEGER NOT NULL PRIMARY KEY,
  scope_id   INTEGER NOT NULL REFERENCES scope (id),
  digest     BLOB    NOT NULL,
  key_number INTEGER NOT NULL,        -- number of the owner's key that signed the list
  version    INTEGER NOT NULL,
  parent_id  INTEGER,                 -- Parent of the object that holds the list; NULL: version 0
  is_head    INTEGER NOT NULL DEFAULT 0, -- 1: no stored list replaces or merges it; always 0 in a
                                      -- scope whose owner lives elsewhere, and at version 0
  UNIQUE (scope_id, digest)
) STRICT;
CREATE INDEX rights_list_order ON rights_list (scope_id, key_number, version, digest);
CREATE INDEX rights_list_head  ON rights_list (scope_id, key_number, version, digest)
  WHERE is_head = 1;
CREATE INDEX rights_list_scope ON rights_list (scope_id);
CREATE UNIQUE INDEX rights_list_founding ON rights_list (scope_id) WHERE version = 0;

-- The lists that each list replaces and merges, in scopes whose owners live here. A named list may
-- be missing.
CREATE TABLE list_named (
  scope_id   INTEGER NOT NULL REFERENCES scope (id),
  digest     BLOB    NOT NULL,
  by_list    INTEGER NOT NULL REFERENCES rights_list (id),
  key_number INTEGER NOT NULL,        -- number of the key that signed these names
  PRIMARY KEY (scope_id, digest, by_list)
) STRICT, WITHOUT ROWID;
CREATE INDEX list_named_by ON list_named (by_list);

-- Scopes of this node in which a list is due: the node writes the owner's next list at once.
CREATE TABLE due_list (
  scope_id   INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  is_merging INTEGER NOT NULL,        -- 1: several lists that no list replaces or merges; the scope
                                      -- is closed for peers. 0: perhaps an identity left
  is_held    INTEGER NOT NULL         -- 1: could not be written; tried again after an event
) STRICT;

-- The entries of each rights list. 1: read, 2: write, 3: both.
CREATE TABLE rights_entry (
  list_id      INTEGER NOT NULL REFERENCES rights_list (id),
  identity_oid BLOB    NOT NULL,
  rights       INTEGER NOT NULL,
  PRIMARY KEY (list_id, identity_oid)
) STRICT, WITHOUT ROWID;

-- Identities that ended their own right to read a scope, each with a list that it named.
CREATE TABLE leave (
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  identity_oid BLOB    NOT NULL,
  key_number   INTEGER NOT NULL,      -- of that list, raised with it
  version      INTEGER NOT NULL,      -- of that list
  list_id      INTEGER NOT NULL REFERENCES rights_list (id),
  PRIMARY KEY (scope_id, identity_oid, key_number, version, list_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX leave_list ON leave (list_id);

-- Identities that take part in a scope which another one founded, each with a list that it named.
CREATE TABLE accept (
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  identity_oid BLOB    NOT NULL,
  key_number   INTEGER NOT NULL,      -- of that list, raised with it
  version      INTEGER NOT NULL,      -- of that list
  list_id      INTEGER NOT NULL REFERENCES rights_list (id),
  PRIMARY KEY (scope_id, identity_oid, key_number, version, list_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX accept_list ON accept (list_id);

-- Scopes that others let an identity of this node read, except those that were founded for it and
-- its owner alone. No row: nothing has to be decided.
CREATE TABLE invitation (
  identity_oid BLOB    NOT NULL,
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  -- 'open': hidden until the operator decides. 'due': the node is to write the 'accept'. 'held': it
  -- could not; tried again after an event. 'accepted'. 'declined': hidden, and nothing is stored.
  state        TEXT    NOT NULL CHECK (state IN ('open', 'due', 'held', 'accepted', 'declined')),
  from_seq     INTEGER,               -- as in opening, for the time of the acceptance; NULL: the
                                      -- scope had ended
  at           INTEGER NOT NULL,      -- time of the invitation or the decision
  PRIMARY KEY (identity_oid, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX invitation_list  ON invitation (identity_oid, state, scope_id);
CREATE INDEX invitation_scope ON invitation (scope_id, state);
CREATE INDEX invitation_declined ON invitation (scope_id) WHERE state = 'declined';
CREATE INDEX invitation_due   ON invitation (at) WHERE state = 'due';
CREATE INDEX invitation_held  ON invitation (scope_id) WHERE state = 'held';

-- Address records of the nodes of other members, at most 1,024, and 256 for each owner of scopes.
CREATE TABLE address (
  peer_id BLOB    NOT NULL PRIMARY KEY,
  record  BLOB    NOT NULL,           -- a list of one record (docs/PROTOCOL.md 5.8)
  onion   BLOB    NOT NULL,           -- public key of the node's onion service
  key_id  INTEGER NOT NULL,           -- number of the node's key that signed
  counter INTEGER NOT NULL,
  scope_owner BLOB NOT NULL,          -- owner of the scope by which the record came
  at      INTEGER NOT NULL            -- time at which the record was taken
) STRICT, WITHOUT ROWID;
CREATE INDEX address_owner ON address (scope_owner, at);

-- Nodes of other members that this node dials by itself, at most 256.
CREATE TABLE introduction (
  peer_id     BLOB    NOT NULL PRIMARY KEY,
  scope_id    INTEGER NOT NULL REFERENCES scope (id), -- an identity of both nodes takes part in it
  scope_owner BLOB    NOT NULL,       -- the dials are counted to this identity
  begun_at    INTEGER NOT NULL,
  next_at     INTEGER NOT NULL,       -- time of the next dial
  failures    INTEGER NOT NULL,       -- since the last session
  reached_at  INTEGER                 -- time of the last session that was dialled; NULL: none
) STRICT, WITHOUT ROWID;

-- Derived: the identities that may read each scope. GraphManager writes it.
CREATE TABLE reader (
  identity_oid BLOB    NOT NULL,
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  since_seq    INTEGER NOT NULL,      -- change_seq of the write that opened the row; 0: all
  until_seq    INTEGER,               -- change_seq of the write that closed it; NULL: open
  PRIMARY KEY (identity_oid, scope_id)
) STRICT, WITHOUT ROWID;
-- Open rows of a scope first, because a scope may have very many closed ones.
CREATE INDEX reader_scope ON reader (scope_id, until_seq, identity_oid);

-- Derived: when a local identity began to read a scope that was stored already, so that its
-- history is new to that identity (feed.rs). Objects are its history if their created_seq is above
-- from_seq and not above opened_seq.
CREATE TABLE opening (
  identity_oid BLOB    NOT NULL,
  opened_seq   INTEGER NOT NULL,      -- change_seq of the write that opened the row in reader
  scope_id     INTEGER NOT NULL REFERENCES scope (id),
  from_seq     INTEGER NOT NULL,      -- change_seq of the write that closed it before; 0: none did;
                                      -- -1: the scope had ended
  PRIMARY KEY (identity_oid, opened_seq, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX opening_scope ON opening (scope_id, identity_oid, opened_seq);

-- Scopes that ended, because their Parents were deleted, while some of their objects still have
-- values.
CREATE TABLE ended_scope (
  scope_id  INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  after_seq INTEGER NOT NULL          -- change_seq of the last object that was dropped
) STRICT;

-- Peers that were admitted (docs/STORY.md 1.1 step 5). Their server identities are in the graph.
-- Of a forgotten peer only peer_id, the usage and, if it is banned, the onion address count.
CREATE TABLE peers (
  id                INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id           BLOB    NOT NULL UNIQUE,
  server_oid        BLOB    NOT NULL,
  peer_apps         TEXT    NOT NULL, -- JSON array of [slug, version, digest in hex]
  peer_sync_domains TEXT    NOT NULL, -- JSON array of names
  domains           TEXT    NOT NULL, -- JSON array: the intersection with this node's domains
  onion             BLOB    NOT NULL, -- public key of its onion service
  epoch             BLOB    NOT NULL, -- the peer's epoch in its last session
  tier              TEXT    NOT NULL, -- 'untrusted', 'trusted' or 'forgotten'
  last_contact      INTEGER NOT NULL,
  ticket            BLOB,             -- ticket that the peer issued to this node; NULL: none
  stored_objects    INTEGER NOT NULL DEFAULT 0, -- objects that it sent, waiting ones included
  stored_bytes      INTEGER NOT NULL DEFAULT 0, -- their bytes as sent
  relayed_objects   INTEGER NOT NULL DEFAULT 0, -- the same of what it relayed: the sums of its
  relayed_bytes     INTEGER NOT NULL DEFAULT 0, -- rows in relayed_usage
  relays            INTEGER NOT NULL DEFAULT 0, -- 1: its last session had the feature 'relay'
  is_removed        INTEGER NOT NULL DEFAULT 0  -- 1: the operator removed it
) STRICT;

-- The accounts of relayed objects of each peer. An empty account has no row.
CREATE TABLE relayed_usage (
  peer_no INTEGER NOT NULL REFERENCES peers (id),
  account BLOB    NOT NULL,           -- oid of the author; empty: all authors in scopes that no
                                      -- identity of this node reads
  objects INTEGER NOT NULL,
  bytes   INTEGER NOT NULL,
  PRIMARY KEY (peer_no, account)
) STRICT, WITHOUT ROWID;

-- The operator's decisions on nodes, known or unknown. By peer id alone, so that a decision
-- survives every key change of the node.
CREATE TABLE verdict (
  peer_id            BLOB    NOT NULL PRIMARY KEY,
  verdict            TEXT    NOT NULL CHECK (verdict IN ('approved', 'refused', 'banned')),
  reason             TEXT    NOT NULL,   -- the operator's reason, never sent; empty: none given
  at                 INTEGER NOT NULL,   -- time of the decision
  until              INTEGER,            -- time at which it ends; NULL: never
  tickets_void_until INTEGER NOT NULL DEFAULT 0 -- unix seconds: tickets issued up to then are void
) STRICT, WITHOUT ROWID;

-- Unadmitted nodes that proved work and wait for the operator's approval. Only the peer id and the
-- onion address are proved. Bounded in number and time.
CREATE TABLE pending (
  peer_id      BLOB    NOT NULL PRIMARY KEY,
  onion        BLOB    NOT NULL,      -- public key of its onion service
  apps         TEXT    NOT NULL,      -- JSON array of slugs
  sync_domains TEXT    NOT NULL,      -- JSON array of names
  names        TEXT    NOT NULL,      -- JSON array: names that its identities claim
  effort       INTEGER NOT NULL,      -- most work proved for one request, in expected evaluations
  first_seen   INTEGER NOT NULL,
  last_seen    INTEGER NOT NULL,
  attempts     INTEGER NOT NULL       -- number of requests
) STRICT, WITHOUT ROWID;

-- The usage of all peers of a tier, so that checking a quota needs no sum.
CREATE TABLE tier_usage (
  tier    TEXT    NOT NULL PRIMARY KEY,  -- 'untrusted' or 'trusted'
  objects INTEGER NOT NULL,
  bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Cursors. 'out': last_seq was sent and acked_seq was acknowledged, in this node's epoch. 'in':
-- last_seq was applied, in the peer's epoch; it moves in the transaction that applies the rows.
CREATE TABLE sync_state (
  peer_id   BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  direction TEXT    NOT NULL CHECK (direction IN ('in', 'out')),
  epoch     BLOB    NOT NULL,
  last_seq  INTEGER NOT NULL,
  acked_seq INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain, direction)
) STRICT, WITHOUT ROWID;

-- How far peers applied what this node sent, as their receipts state. Every object that was created
-- up to 'seq' is applied, except those of the next two tables. At most 256 rows of a peer and
-- domain. A new epoch of this node or of the peer deletes the rows of all three tables.
CREATE TABLE receipt (
  peer_id BLOB    NOT NULL,
  domain  TEXT    NOT NULL,
  seq     INTEGER NOT NULL,           -- in this node's epoch
  head    INTEGER NOT NULL,           -- this node's last change_seq when the receipt came
  at      INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain, seq)
) STRICT, WITHOUT ROWID;

-- Objects of this node that peers received and did not apply, as their receipts state. Bounded for
-- each peer and domain.
CREATE TABLE unapplied_object (
  peer_id    BLOB    NOT NULL,
  domain     TEXT    NOT NULL,
  oid        BLOB    NOT NULL,
  scope_oid  BLOB    NOT NULL,
  is_refused INTEGER NOT NULL,        -- 0: it waits
  applied_at INTEGER,                 -- time since which it does not wait; NULL: not applied
  PRIMARY KEY (peer_id, domain, oid)
) STRICT, WITHOUT ROWID;

-- Scopes of which peers still lack objects, as their receipts state. Bounded for each peer and
-- domain.
CREATE TABLE unapplied_scope (
  peer_id    BLOB    NOT NULL,
  domain     TEXT    NOT NULL,
  scope_oid  BLOB    NOT NULL,
  after_seq  INTEGER NOT NULL,        -- what was created up to here was applied before
  applied_at INTEGER,                 -- time since which the peer has all; NULL: it does not
  PRIMARY KEY (peer_id, domain, scope_oid)
) STRICT, WITHOUT ROWID;

-- Objects of peers that this node refused, until the next receipt has told the peer. At most 1000
-- of a peer. Scopes of further ones are noted in 'pull_again'.
CREATE TABLE refused_object (
  peer_id BLOB NOT NULL,
  domain  TEXT NOT NULL,
  oid     BLOB NOT NULL,
  epoch   BLOB NOT NULL,              -- of the peer
  PRIMARY KEY (peer_id, domain, oid)
) STRICT, WITHOUT ROWID;

-- Every epoch that this database began, the current one in 'meta' included. If a peer presents
-- another epoch that this node's key signed, another copy of this node exists.
CREATE TABLE epoch (
  epoch  BLOB    NOT NULL PRIMARY KEY,
  -- 'new', 'restored', 'rolled_back', 'resolved', 'foreign' or 'migrated'
  reason TEXT    NOT NULL,
  at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Epochs that peers signed as their own, a few for each. This node presents them to a peer that
-- comes with another epoch.
CREATE TABLE peer_epoch (
  peer_id   BLOB    NOT NULL,
  epoch     BLOB    NOT NULL,
  key_id    INTEGER NOT NULL,         -- number of the node's key that signed
  signature BLOB    NOT NULL,         -- over the epoch and head
  head      INTEGER NOT NULL,         -- the peer's last change_seq when it signed
  at        INTEGER NOT NULL,
  PRIMARY KEY (peer_id, epoch)
) STRICT, WITHOUT ROWID;

-- A restricted write mode of this node. No row: this node may write all objects.
CREATE TABLE write_mode (
  id            INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  mode          TEXT    NOT NULL CHECK (mode IN ('new_objects_only', 'read_only')),
  reason        TEXT    NOT NULL,     -- as in 'epoch', 'new_domain', or a peer (foreign epoch)
  since         INTEGER NOT NULL,
  until         INTEGER,              -- time at which 'new_objects_only' ends by itself
  foreign_epoch BLOB                  -- of 'read_only'
) STRICT;

-- While the node recovers: peers from which it still has to reclaim its objects.
CREATE TABLE recovery_peer (
  peer_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Peers that a recovery no longer waits for, while some scopes that their identities read are still
-- closed. Rows of 'reader' up to this one, by identity and scope, are open.
CREATE TABLE asked_peer (
  peer_id      BLOB    NOT NULL PRIMARY KEY,
  identity_oid BLOB    NOT NULL,      -- empty: none is open
  scope_id     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The homes that close the scopes of identities during a recovery. They were known when it began,
-- or became known before their node was asked. A row remains when the identity moves, until its
-- scopes are open.
CREATE TABLE recovery_home (
  peer_id      BLOB NOT NULL,
  identity_oid BLOB NOT NULL,
  PRIMARY KEY (peer_id, identity_oid)
) STRICT, WITHOUT ROWID;
CREATE INDEX recovery_home_identity ON recovery_home (identity_oid);

-- Domains of which this node has reclaimed its objects from a peer since the last epoch began. Once
-- for each peer and domain.
CREATE TABLE reclaimed_domain (
  peer_id BLOB NOT NULL,
  domain  TEXT NOT NULL,
  PRIMARY KEY (peer_id, domain)
) STRICT, WITHOUT ROWID;

-- Domains that were enabled while a recovery of the last epoch waited for peers. If another one is
-- enabled later, the node waits for all peers again.
CREATE TABLE recovery_domain (
  domain TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Number of the key of each identity of this node when the last epoch began. The backup contains
-- every live object that an earlier key signed.
CREATE TABLE recovery_key (
  oid    BLOB    NOT NULL PRIMARY KEY,
  key_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rejected objects of packages, for the operator. Bounded for each peer.
CREATE TABLE sync_rejects (
  id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_id BLOB    NOT NULL,           -- empty: relayed, so that no peer is blamed
  domain  TEXT    NOT NULL,
  epoch   BLOB    NOT NULL,           -- of the sender
  seq     INTEGER NOT NULL,           -- to_seq of the package
  oid     BLOB    NOT NULL,           -- empty if the object could not be read
  type    TEXT    NOT NULL,           -- name in the schema; empty: unknown or not read
  code    TEXT    NOT NULL,
  at      INTEGER NOT NULL
) STRICT;
CREATE INDEX sync_rejects_peer ON sync_rejects (peer_id, id);

-- Waiting objects: something that they need is missing (waiting.rs lists the causes). Unique for
-- each peer, because an object of a peer without the right to send it must not replace another
-- peer's.
CREATE TABLE waiting (
  id           INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  peer_no      INTEGER NOT NULL REFERENCES peers (id),
  domain       TEXT    NOT NULL,
  epoch        BLOB    NOT NULL,      -- of the sender
  seq          INTEGER NOT NULL,      -- to_seq of the package
  oid          BLOB    NOT NULL,
  needs_kind   INTEGER NOT NULL,      -- 1: object, 2: key of an identity, 3: unfreezing, 4: home,
                                      -- 5: rights list, 6: version of an app's schema
  needs        BLOB    NOT NULL,      -- its oid, then what the kind adds; 5: its digest; 6: app
                                      -- and version
  is_reclaimed INTEGER NOT NULL,      -- 1: of this node, returned after a restore
  key_id       INTEGER NOT NULL,
  digest       BLOB    NOT NULL,      -- SHA-256 of bytes
  bytes        BLOB    NOT NULL,
  signature    BLOB    NOT NULL,
  at           INTEGER NOT NULL,      -- since when it waits; at most 30 days if not returned
  account      BLOB,                  -- of relayed_usage in which it counts; NULL: the peer's own
  UNIQUE (peer_no, oid, key_id, digest)
) STRICT;
CREATE INDEX waiting_needs ON waiting (needs_kind, needs);
CREATE INDEX waiting_oid   ON waiting (oid);
CREATE INDEX waiting_at    ON waiting (at) WHERE is_reclaimed = 0;

-- Work that is done in portions (settling.rs). Waiting objects whose cause has occurred are tried,
-- and objects in a scope are restamped. After a recovery scopes open, and rotations are completed.
CREATE TABLE settling (
  id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  needs_kind INTEGER NOT NULL,
  needs      BLOB    NOT NULL,
  after_id   INTEGER NOT NULL,        -- last position that is done: waiting.id or change_seq
  until_id   INTEGER NOT NULL,        -- last position that is to be done
  UNIQUE (needs_kind, needs)
) STRICT;

-- Scopes whose deletion was overruled, or of which a ban refused objects. They are noted in
-- 'pull_again' for each peer that may have objects of them. Finished rows stay as long as they
-- count for their owners.
CREATE TABLE overruled (
  scope_id   INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  owner_oid  BLOB    NOT NULL,        -- owner of the scope
  place      INTEGER NOT NULL,        -- time from which the owner's scopes are counted
  not_before INTEGER,                 -- earliest time of the next step; NULL: finished;
                                      -- 2^63 - 1: held, because the app is disabled
  noted_at   INTEGER NOT NULL,        -- time at which 'place' or 'not_before' was chosen; after
                                      -- the present time: the clock was ahead, or a held scope's
                                      -- app was enabled
  after_list INTEGER NOT NULL,        -- rights_list.id that was looked at last
  was_full   INTEGER NOT NULL         -- 1: some peer had too many; tried again after a day
) STRICT;
CREATE INDEX overruled_due   ON overruled (not_before, place);
CREATE INDEX overruled_owner ON overruled (owner_oid, place, noted_at);
CREATE INDEX overruled_noted ON overruled (noted_at);

-- Bans that end, and identities that moved away from a banned node. Their scopes are noted in
-- 'overruled' then, because relayed objects of the owners were refused.
CREATE TABLE ended_ban (
  key          BLOB    NOT NULL PRIMARY KEY, -- peer id of the node, or oid of the identity
  due_at       INTEGER NOT NULL,
  identity_oid BLOB    NOT NULL,      -- identity of the node that was looked at last; empty: none
  after_scope  INTEGER NOT NULL       -- its scope that was noted last; 2^63 - 1: all are noted
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_ban_due ON ended_ban (due_at);

-- Scopes and domains of peers that this node pulls again from 0. An object of them found no room
-- to wait or waited too long, or this node may read more than before. Bounded for each domain.
CREATE TABLE pull_again (
  peer_no     INTEGER NOT NULL REFERENCES peers (id),
  domain      TEXT    NOT NULL,
  scope_oid   BLOB    NOT NULL,       -- empty: the whole domain
  epoch       BLOB    NOT NULL,       -- of the peer, in which the next two count
  cursor      INTEGER NOT NULL,       -- last number that was pulled again; 0: not started,
                                      -- 2^63 - 1: finished, and kept for 'starts'
  until_seq   INTEGER NOT NULL,       -- number at which it ends
  cause       TEXT    NOT NULL CHECK (
                cause IN ('no_room', 'expired', 'named', 'overruled')),
  noted_again INTEGER NOT NULL,       -- 1: noted again since its start, so it starts once more
  not_before  INTEGER NOT NULL,       -- earliest time of the next request
  pause_ms    INTEGER NOT NULL,       -- pause before the next start unless something settles
  starts      INTEGER NOT NULL,       -- starts within 'day'
  rounds      INTEGER NOT NULL,       -- windows within 'day'
  day         INTEGER NOT NULL,       -- number of the day of the last start, UTC
  retry_at    INTEGER NOT NULL,       -- earliest time of the next request after a failed one
  lacks_own   INTEGER NOT NULL DEFAULT 1, -- 1: objects of the peer itself may be missing, and
                                      -- not only relayed ones
  noted_own   INTEGER NOT NULL DEFAULT 0, -- 1: such objects were noted since its start
  PRIMARY KEY (peer_no, domain, scope_oid)
) STRICT, WITHOUT ROWID;
CREATE INDEX pull_again_scope ON pull_again (scope_oid);

-- Domains of which a configured peer has to be pushed something. A row wakes the push, which is
-- built from the acknowledged number. The configuration bounds the table.
CREATE TABLE sync_outbox (
  peer_id    BLOB    NOT NULL,
  domain     TEXT    NOT NULL,
  change_seq INTEGER NOT NULL,        -- highest number that the peer may not have
  PRIMARY KEY (peer_id, domain)
) STRICT, WITHOUT ROWID;

-- The address book: the operator's names for identities, and private notes. Local: no package,
-- handshake or object contains a row. At most 10,000 rows. An identity of this node has its own
-- name here.
CREATE TABLE contact (
  identity_oid BLOB NOT NULL PRIMARY KEY,
  name         TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 64),
  -- The name in the form in which names are compared (src/text.rs).
  folded       TEXT NOT NULL UNIQUE CHECK (length(CAST(folded AS BLOB)) <= 1024),
  note         TEXT NOT NULL CHECK (length(CAST(note AS BLOB)) <= 2000) -- empty: none
) STRICT, WITHOUT ROWID;

-- Peers whose identities, of which nothing is kept, the node forgets, and whose objects it removes
-- (purge.rs). A row without objects is deleted at its end. Another one stays as long as the node
-- remembers what it removed.
CREATE TABLE purge (
  peer_no      INTEGER NOT NULL PRIMARY KEY REFERENCES peers (id),
  -- 'queued', 'running', 'done', 'ending': the verdict ended, and the oids are being forgotten.
  -- 'over': only scopes are left that may come again
  state        TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'done', 'ending', 'over')),
  takes_objects INTEGER NOT NULL,     -- 1: its objects too
  is_ban       INTEGER NOT NULL,      -- 1: remembered until its ban ends; 0: until it is trusted
  objects      INTEGER NOT NULL DEFAULT 0, -- objects that were removed
  bytes        INTEGER NOT NULL DEFAULT 0, -- their bytes as sent
  identities   INTEGER NOT NULL DEFAULT 0, -- identities that were forgotten
  remembered   INTEGER NOT NULL DEFAULT 0, -- rows in purged
  remembered_max INTEGER NOT NULL,    -- most rows in purged: the peer's quota of objects
  after_oid    BLOB    NOT NULL DEFAULT x'' -- its last identity that was noted; 17 bytes: all are
) STRICT;

-- The step of the purges that run, which all take together. At most one row.
CREATE TABLE purge_round (
  id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  step INTEGER NOT NULL
) STRICT;

-- How far a step has looked at the objects of each app.
CREATE TABLE purge_position (
  app_id   INTEGER NOT NULL PRIMARY KEY REFERENCES app (id),
  after_id INTEGER NOT NULL           -- local id of the last Parent
) STRICT;

-- Scopes whose Parents a purged peer sent. They are removed unless something in them is kept.
CREATE TABLE purge_scope (
  scope_id INTEGER NOT NULL PRIMARY KEY REFERENCES scope (id),
  peer_no  INTEGER NOT NULL REFERENCES peers (id),
  is_going INTEGER NOT NULL DEFAULT 0 -- 1: closed, and being removed
) STRICT;
CREATE INDEX purge_scope_going ON purge_scope (scope_id) WHERE is_going = 1;

-- Identities of purged peers. They are forgotten unless something of them is kept.
CREATE TABLE purge_identity (
  oid         BLOB    NOT NULL PRIMARY KEY,
  peer_no     INTEGER NOT NULL REFERENCES peers (id),
  after_scope INTEGER NOT NULL DEFAULT 0 -- the last scope that was looked at
) STRICT, WITHOUT ROWID;

-- Oids that a purge removed. Objects with such an oid, such an owner, or in such a scope are
-- dropped when they arrive. Bounded for each peer.
CREATE TABLE purged (
  oid       BLOB    NOT NULL,
  peer_no   INTEGER NOT NULL REFERENCES purge (peer_no),
  kind      INTEGER NOT NULL,         -- 0: an object or identity, 1: a scope; 2: a scope that may
                                      -- come again, and is pulled from others then
  PRIMARY KEY (oid, peer_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX purged_peer ON purged (peer_no, oid);

-- Forgotten identities with a later key or home than their first. Otherwise the thief of an earlier
-- key, or an earlier home, could introduce them again. Each counts as an object of the peer.
CREATE TABLE forgotten_key (
  oid     BLOB    NOT NULL PRIMARY KEY,
  peer_no INTEGER NOT NULL REFERENCES peers (id),
  key_id  INTEGER NOT NULL,           -- number of the last known key
  home_counter INTEGER NOT NULL,      -- of its last known home
  chain   BLOB    NOT NULL            -- SHA-256 of the last known key chain
) STRICT, WITHOUT ROWID;

-- Tokens of the local API, by their hash.
CREATE TABLE api_token (
  hash  BLOB    NOT NULL PRIMARY KEY,
  label TEXT    NOT NULL,
  at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
