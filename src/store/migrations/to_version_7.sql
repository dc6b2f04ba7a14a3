-- From version 6 to 7: received objects of scopes are sent on to peers with the feature 'relay'.
-- Their bits in sync_flags are set in portions, after the schemas are loaded.
ALTER TABLE peers ADD COLUMN relays INTEGER NOT NULL DEFAULT 0;
