-- From version 12 to 13: peers have a column for the operator's removal. Rows of pull_again state
-- whether objects of the peer itself may be missing. Those of earlier versions count as if.
ALTER TABLE peers ADD COLUMN is_removed INTEGER NOT NULL DEFAULT 0;
UPDATE peers SET is_removed = 1 WHERE id IN (SELECT peer_no FROM purge
  WHERE takes_objects = 1 AND is_ban = 0 AND state IN ('queued', 'running', 'done'));
ALTER TABLE pull_again ADD COLUMN lacks_own INTEGER NOT NULL DEFAULT 1;
ALTER TABLE pull_again ADD COLUMN noted_own INTEGER NOT NULL DEFAULT 0;
-- An empty oid stood for further refused objects. Their domains are pulled again, so that these
-- objects are refused and named once more.
INSERT OR REPLACE INTO pull_again
  SELECT p.id, r.domain, x'', r.epoch, 0, s.last_seq, 'no_room', 0, 0, 86400000, 0, 0, 0, 0, 1, 0
  FROM refused_object AS r
  JOIN peers AS p ON p.peer_id = r.peer_id
  JOIN sync_state AS s ON s.peer_id = r.peer_id AND s.domain = r.domain
    AND s.direction = 'in' AND s.epoch = r.epoch
  WHERE r.oid = x'';
DELETE FROM refused_object WHERE oid = x'';
