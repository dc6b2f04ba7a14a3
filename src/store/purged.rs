//! The rest of a purge: oids that do not come back, keys of forgotten identities, and numbers that
//! are not used again (docs/DECISIONS.md 10).
//!
//! Invariants: a peer has at most as many rows in `purged` as its purge says. No `change_seq` and
//! no local id of a removed row is given out again. Tested in `tests/core/purged.rs`.

use std::collections::BTreeSet;

use keys::{Digest, Oid, PeerId};

use super::columns::fixed;
use super::error::StoreError;
use super::pull_again::{PullAgainCause, PullAgainNote};
use super::rights::{COLUMNS, RightsRow, rights_row};
use super::rows::{Rows, WriteTx};
use super::scope_id::ScopeId;
use super::sync_state::Direction;
use crate::op_context::Timestamp;

/// The kind of an oid that the node remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// An object or an identity of a purged peer, which does not come back.
    Object,
    /// A scope of a purged peer, which does not come back until the verdict ends.
    Scope,
    /// A scope that may come back. Objects of it may have been dropped meanwhile.
    Wanted,
}

impl Purged {
    fn number(self) -> u8 {
        match self {
            Self::Object => 0,
            Self::Scope => 1,
            Self::Wanted => 2,
        }
    }
}

/// The last known key of a forgotten identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgottenKey {
    /// Local number of the peer in whose account it counts.
    pub peer_no: i64,
    /// The number of the key.
    pub key_id: u32,
    /// The counter of the last known home.
    pub home_counter: u64,
    /// The digest of the key chain up to it.
    pub chain: Digest,
}

impl Rows<'_> {
    /// The highest `change_seq` of a row that a purge may have removed; 0: none was.
    pub(super) fn removed_head(&self) -> Result<u64, StoreError> {
        let mut statement = self.prepare(
            "reading the highest removed number",
            "SELECT value FROM meta WHERE name = 'head'",
        )?;
        Ok(statement.first([], |row| row.get(0))?.unwrap_or(0))
    }

    /// The highest local id of a removed Parent of an app; 0: none was removed.
    pub(super) fn removed_id(&self, slug: &str) -> Result<i64, StoreError> {
        let mut statement = self.prepare(
            "reading the highest removed id",
            "SELECT value FROM meta WHERE name = 'last_id:' || ?1",
        )?;
        Ok(statement.first([slug], |row| row.get(0))?.unwrap_or(0))
    }

    /// Whether the node remembers anything of purges, or removes a scope now.
    pub fn is_any_purged(&self) -> Result<bool, StoreError> {
        let context = "looking for purged oids";
        for sql in [
            "SELECT 1 FROM purged LIMIT 1",
            "SELECT 1 FROM purge_scope LIMIT 1",
        ] {
            if self.prepare(context, sql)?.exists([])? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The kind of an oid that the node remembers. When the verdict has ended, a scope may come
    /// back.
    pub fn purged(&self, oid: &Oid) -> Result<Option<Purged>, StoreError> {
        let mut statement = self.prepare(
            "looking up a purged oid",
            "SELECT MIN(CASE WHEN g.state IN ('ending', 'over') AND q.kind = 1 THEN 2
                        ELSE q.kind END)
             FROM purged AS q CROSS JOIN purge AS g ON g.peer_no = q.peer_no
             WHERE q.oid = ?1 AND NOT (g.state IN ('ending', 'over') AND q.kind = 0)",
        )?;
        let kind: Option<u8> = statement.one([oid.as_bytes()], |row| row.get(0))?;
        Ok(kind.map(|kind| match kind {
            0 => Purged::Object,
            1 => Purged::Scope,
            _ => Purged::Wanted,
        }))
    }

    /// Whether an oid was purged with a peer.
    pub fn is_purged_by(&self, oid: &Oid, peer: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking up the peer of a purged oid",
            "SELECT 1 FROM purged AS q CROSS JOIN peers AS p ON p.id = q.peer_no
             WHERE q.oid = ?1 AND p.peer_id = ?2",
        )?;
        statement.exists((oid.as_bytes(), peer.as_bytes()))
    }

    /// The last known key of an identity that was forgotten. `None`: it had its first key and its
    /// first home, or is known.
    pub fn forgotten_key(&self, identity: &Oid) -> Result<Option<ForgottenKey>, StoreError> {
        let mut statement = self.prepare(
            "looking up the key of a forgotten identity",
            "SELECT peer_no, key_id, home_counter, chain FROM forgotten_key WHERE oid = ?1",
        )?;
        statement.first([identity.as_bytes()], |row| {
            Ok(ForgottenKey {
                peer_no: row.get(0)?,
                key_id: row.get(1)?,
                home_counter: row.get(2)?,
                chain: Digest::from_bytes(fixed(row, 3)?),
            })
        })
    }

    /// A peer of which the node need not remember any more what it removed: the ban ended, or the
    /// peer is trusted. Its local number.
    pub(super) fn next_ended_purge(&self, now: Timestamp) -> Result<Option<i64>, StoreError> {
        let mut statement = self.prepare(
            "looking for purges whose verdict ended",
            "SELECT g.peer_no FROM purge AS g
             CROSS JOIN peers AS p ON p.id = g.peer_no
             LEFT JOIN verdict AS v ON v.peer_id = p.peer_id
             WHERE g.state = 'ending' OR g.state = 'done' AND CASE g.is_ban
               WHEN 1 THEN v.verdict IS NOT 'banned' OR v.until <= ?1
               ELSE p.tier = 'trusted' END
             LIMIT 1",
        )?;
        statement.first([now.0], |row| row.get(0))
    }
}

impl WriteTx<'_> {
    /// Keeps the highest numbers that rows have, before some are removed. `head` is the highest
    /// `change_seq`, that of this write included.
    pub fn keep_numbers(&self, head: u64) -> Result<(), StoreError> {
        let context = "keeping the highest numbers";
        let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)";
        let (last_head, ids) = self.heads()?;
        let mut statement = self.prepare(context, sql)?;
        statement.execute(("head", head.max(last_head)))?;
        statement.execute(("last_scope", self.last_scope()?.0))?;
        for (slug, id) in ids {
            let before = self.removed_id(&slug)?;
            statement.execute((format!("last_id:{slug}"), id.max(before)))?;
        }
        Ok(())
    }

    /// Remembers an oid, as long as the purge of the peer has room.
    pub fn remember_purged(&self, peer_no: i64, oid: &Oid, what: Purged) -> Result<(), StoreError> {
        let context = "remembering a purged oid";
        let mut statement = self.prepare(
            context,
            "INSERT INTO purged (oid, peer_no, kind)
             SELECT ?2, ?1, ?3 FROM purge WHERE peer_no = ?1 AND remembered < remembered_max
             ON CONFLICT DO NOTHING",
        )?;
        let values = (peer_no, oid.as_bytes(), what.number());
        if statement.execute(values)? > 0 {
            let mut statement = self.prepare(
                context,
                "UPDATE purge SET remembered = remembered + 1 WHERE peer_no = ?1",
            )?;
            statement.execute([peer_no])?;
        }
        Ok(())
    }

    /// Forgets that a scope is wanted, because its Parent was stored. Returns whether it was.
    pub fn forget_wanted(&self, scope: &Oid) -> Result<bool, StoreError> {
        if self.purged(scope)? != Some(Purged::Wanted) {
            return Ok(false);
        }
        self.forget_oid(scope).map(|()| true)
    }

    /// Forgets an oid that may come back.
    pub fn forget_oid(&self, oid: &Oid) -> Result<(), StoreError> {
        let context = "forgetting an oid that came back";
        for sql in [
            "UPDATE purge SET remembered = remembered - 1 WHERE peer_no IN
               (SELECT peer_no FROM purged WHERE oid = ?1)",
            "DELETE FROM purged WHERE oid = ?1",
        ] {
            self.prepare(context, sql)?.execute([oid.as_bytes()])?;
        }
        let sql = "DELETE FROM purge WHERE state = 'over' AND remembered = 0";
        self.prepare(context, sql)?.execute([]).map(drop)
    }

    /// Lets what was removed of a trusted peer come back. A ban ends by its own verdict.
    pub(super) fn end_purge(&self, peer_id: &[u8]) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "ending a purge",
            "UPDATE purge SET state = 'ending'
             WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)
               AND state = 'done' AND is_ban = 0",
        )?;
        statement.execute([peer_id]).map(drop)
    }

    /// Forgets at most `limit` oids of a purge whose verdict ended. Scopes stay, because objects of
    /// others in them were dropped meanwhile. Returns `false` if there is no such purge.
    pub fn forget_purged(&self, now: Timestamp, limit: usize) -> Result<bool, StoreError> {
        let Some(peer_no) = self.next_ended_purge(now)? else {
            return Ok(false);
        };
        let context = "forgetting purged oids";
        let mut ending = self.prepare(
            context,
            "UPDATE purge SET state = 'ending' WHERE peer_no = ?1 AND state <> 'ending'",
        )?;
        ending.execute([peer_no])?;
        let mut statement = self.prepare(
            context,
            "DELETE FROM purged WHERE peer_no = ?1 AND oid IN
               (SELECT oid FROM purged WHERE peer_no = ?1 AND kind = 0 LIMIT ?2)",
        )?;
        if statement.execute((peer_no, limit))? == limit {
            return Ok(true);
        }
        // Scopes may come back. Objects of others in them were dropped meanwhile.
        let mut statement = self.prepare(
            context,
            "UPDATE purged SET kind = 2 WHERE peer_no = ?1 AND oid IN
               (SELECT oid FROM purged WHERE peer_no = ?1 AND kind = 1 LIMIT ?2)",
        )?;
        if statement.execute((peer_no, limit))? == limit {
            return Ok(true);
        }
        for sql in [
            "UPDATE purge SET state = 'over',
               remembered = (SELECT COUNT(*) FROM purged WHERE peer_no = ?1)
             WHERE peer_no = ?1",
            "DELETE FROM purge WHERE peer_no = ?1 AND remembered = 0",
        ] {
            self.prepare(context, sql)?.execute([peer_no])?;
        }
        self.pull_all_again(peer_no, now)?;
        Ok(true)
    }

    /// Lets all that a peer sends be pulled again, because its objects were dropped below the
    /// cursors. Each domain is pulled to its end, in the epoch of the last session. A package in
    /// progress may move a cursor later, or store the first one.
    fn pull_all_again(&self, peer_no: i64, now: Timestamp) -> Result<(), StoreError> {
        let Some(peer) = self.peer_by_number(peer_no)? else {
            return Ok(());
        };
        let Some(known) = self.peer(&peer)? else {
            return Ok(());
        };
        let mut domains: BTreeSet<String> = known.domains.into_iter().collect();
        for (domain, direction, _) in self.sync_states(&peer)? {
            if direction == Direction::In {
                domains.insert(domain);
            }
        }
        for domain in domains {
            let note = PullAgainNote {
                peer: &peer,
                domain: &domain,
                scope: None,
                epoch: known.epoch,
                until_seq: i64::MAX.unsigned_abs(),
                cause: PullAgainCause::Named,
                is_again: false,
                is_own: true,
            };
            self.note_pull_again(&note, now)?;
        }
        Ok(())
    }

    /// Keeps the key of an identity that is forgotten.
    pub fn put_forgotten_key(&self, identity: &Oid, key: &ForgottenKey) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "keeping the key of a forgotten identity",
            "INSERT OR REPLACE INTO forgotten_key (oid, peer_no, key_id, home_counter, chain)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let values = (
            identity.as_bytes(),
            key.peer_no,
            key.key_id,
            key.home_counter,
            key.chain.as_bytes(),
        );
        statement.execute(values).map(drop)
    }

    /// Deletes the kept key of an identity, because the identity is known again.
    pub fn remove_forgotten_key(&self, identity: &Oid) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting the kept key of an identity",
            "DELETE FROM forgotten_key WHERE oid = ?1",
        )?;
        statement.execute([identity.as_bytes()]).map(drop)
    }

    /// Deletes the row of an identity whose record is removed.
    pub fn remove_identity(&self, identity: &Oid) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "forgetting an identity",
            "DELETE FROM identity WHERE oid = ?1",
        )?;
        statement.execute([identity.as_bytes()]).map(drop)
    }

    /// Deletes the invitations to a scope and the notes of work on it, because it is removed.
    pub fn drop_work_in(&self, scope: ScopeId) -> Result<(), StoreError> {
        let context = "deleting the work on a removed scope";
        for sql in [
            "DELETE FROM invitation WHERE scope_id = ?1",
            "DELETE FROM due_list WHERE scope_id = ?1",
            "DELETE FROM ended_scope WHERE scope_id = ?1",
            "DELETE FROM overruled WHERE scope_id = ?1",
            "DELETE FROM introduction WHERE scope_id = ?1",
        ] {
            self.prepare(context, sql)?.execute([scope.0])?;
        }
        Ok(())
    }

    /// At most `limit` rights lists of a scope that is removed.
    pub fn some_lists(&self, scope: ScopeId, limit: usize) -> Result<Vec<RightsRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM rights_list WHERE scope_id = ?1 LIMIT ?2");
        let mut statement = self.prepare("reading the lists of a removed scope", &sql)?;
        statement.all((scope.0, limit), rights_row)
    }

    /// Deletes a rights list with its entries, and the answers to it.
    pub fn remove_list(&self, list: i64) -> Result<(), StoreError> {
        let context = "deleting a rights list";
        for sql in [
            "DELETE FROM rights_entry WHERE list_id = ?1",
            "DELETE FROM list_named WHERE by_list = ?1",
            "DELETE FROM leave WHERE list_id = ?1",
            "DELETE FROM accept WHERE list_id = ?1",
            "DELETE FROM rights_list WHERE id = ?1",
        ] {
            self.prepare(context, sql)?.execute([list])?;
        }
        Ok(())
    }

    /// Deletes one portion of the readers of a scope that is removed. Returns whether all are
    /// deleted.
    pub fn remove_readers(&self, scope: ScopeId) -> Result<bool, StoreError> {
        let context = "deleting the readers of a removed scope";
        for sql in [
            "DELETE FROM reader WHERE scope_id = ?1 AND identity_oid IN
               (SELECT identity_oid FROM reader WHERE scope_id = ?1 LIMIT ?2)",
            "DELETE FROM opening WHERE scope_id = ?1 AND (identity_oid, opened_seq) IN
               (SELECT identity_oid, opened_seq FROM opening WHERE scope_id = ?1 LIMIT ?2)",
        ] {
            let mut statement = self.prepare(context, sql)?;
            if statement.execute((scope.0, READERS_AT_ONCE))? == READERS_AT_ONCE {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes the row of a scope of which nothing is left.
    pub fn remove_scope(&self, scope: ScopeId) -> Result<(), StoreError> {
        self.drop_work_in(scope)?;
        let context = "deleting a scope";
        for sql in [
            "DELETE FROM purge_scope WHERE scope_id = ?1",
            "DELETE FROM scope WHERE id = ?1",
        ] {
            self.prepare(context, sql)?.execute([scope.0])?;
        }
        self.drop_settling_in(scope)
    }

    /// Stops pulling a scope again, because it does not come back.
    pub fn drop_pull_again(&self, scope: &Oid) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "deleting what was to be pulled again",
            "DELETE FROM pull_again WHERE scope_oid = ?1",
        )?;
        statement.execute([scope.as_bytes()]).map(drop)
    }
}

/// Most readers of a scope that are deleted at once.
const READERS_AT_ONCE: usize = 256;
