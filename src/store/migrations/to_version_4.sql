-- From version 3 to 4: names and values follow the glossary of README.md; unused columns go.
UPDATE peers SET tier = 'untrusted' WHERE tier = 'worked';
UPDATE tier_usage SET tier = 'untrusted' WHERE tier = 'worked';
UPDATE epoch SET reason = 'rolled_back' WHERE reason = 'fell_back';
ALTER TABLE pending RENAME COLUMN knocks TO attempts;
ALTER TABLE reader DROP COLUMN since_seq;
ALTER TABLE heard_epoch RENAME TO peer_epoch;
ALTER TABLE recovery_asked RENAME TO reclaimed_peer;
ALTER TABLE recovery_deletion RENAME TO recovery_tombstone;
-- The primary key and the CHECK constraint change, so these two tables are copied.
ALTER TABLE sync_state RENAME TO sync_state_3;
CREATE TABLE sync_state (
  peer_id   BLOB    NOT NULL,
  domain    TEXT    NOT NULL,
  direction TEXT    NOT NULL CHECK (direction IN ('in', 'out')),
  epoch     BLOB    NOT NULL,
  last_seq  INTEGER NOT NULL,
  acked_seq INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain, direction)
) STRICT, WITHOUT ROWID;
-- No program ever wrote a scope that is not empty.
INSERT INTO sync_state (peer_id, domain, direction, epoch, last_seq, acked_seq)
  SELECT peer_id, domain, direction, epoch, last_seq, acked_seq FROM sync_state_3 WHERE scope = x'';
DROP TABLE sync_state_3;
CREATE TABLE write_mode (
  id            INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  mode          TEXT    NOT NULL CHECK (mode IN ('new_objects_only', 'read_only')),
  reason        TEXT    NOT NULL,
  since         INTEGER NOT NULL,
  until         INTEGER,
  foreign_epoch BLOB
) STRICT;
INSERT INTO write_mode (id, mode, reason, since, until, foreign_epoch)
  SELECT id, CASE state WHEN 'recovering' THEN 'new_objects_only' ELSE state END,
    CASE reason WHEN 'fell_back' THEN 'rolled_back' ELSE reason END, since, until, foreign_epoch
  FROM standing;
DROP TABLE standing;
