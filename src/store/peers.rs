//! Admitted peers: their last claims, and the time of their last session (docs/STORY.md 1.1 step
//! 5).
//!
//! Holds only claims that a handshake verified. A forgotten peer keeps its row, because objects
//! that it sent refer to the row. That row keeps the peer id, the usage and, of a banned peer, the
//! onion address. Invariants: one row for each `peer_id`, which never changes. `tier_usage` is the
//! sum of what the peers of a tier have stored, where forgotten peers count as untrusted.

use bastion::{AppClaim, Tier};
use keys::{Epoch, Oid, OnionAddr, PeerId, PublicKey};
use rusqlite::Row;

use super::columns::{apps, apps_json, fixed, json, names, tier};
use super::error::StoreError;
use super::purge::PurgeOrder;
use super::rows::{Rows, WriteTx};
use super::usage::{Account, Usage};
use crate::op_context::Timestamp;

/// A peer as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRow {
    /// The node's id.
    pub peer_id: PeerId,
    /// Oid of its server identity in the graph.
    pub server_oid: Oid,
    /// The apps that it announced last, sorted by slug.
    pub peer_apps: Vec<AppClaim>,
    /// Names of the domains that it supports.
    pub peer_sync_domains: Vec<String>,
    /// Intersection of its domains with this node's.
    pub domains: Vec<String>,
    /// The onion address that it claimed.
    pub onion: OnionAddr,
    /// Its epoch in its last session.
    pub epoch: Epoch,
    /// How far it is trusted.
    pub tier: Tier,
    /// Time at which it was last admitted, or last seen in a session.
    pub last_contact: Timestamp,
    /// Whether its last session had the feature `relay`.
    pub relays: bool,
}

/// The peer that was last reached at an onion address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPeerAt {
    /// The node's id.
    pub peer_id: PeerId,
    /// The last ticket that it issued to this node, as received.
    pub ticket: Option<Vec<u8>>,
}

/// Most that a portion of forgetting spends ([`WriteTx::spent`]), besides its last peer.
const FORGOTTEN_SPENT_MAX: usize = 1024;

const COLUMNS: &str = "peer_id, server_oid, peer_apps, peer_sync_domains, domains, onion, epoch, \
     tier, last_contact, relays";

fn peer_row(row: &Row<'_>) -> rusqlite::Result<PeerRow> {
    Ok(PeerRow {
        peer_id: PeerId::from_bytes(fixed(row, 0)?),
        server_oid: Oid::from_bytes(fixed(row, 1)?),
        peer_apps: apps(row, 2)?,
        peer_sync_domains: names(row, 3)?,
        domains: names(row, 4)?,
        onion: OnionAddr::from_public_key(PublicKey::from_bytes(fixed(row, 5)?)),
        epoch: Epoch::from_bytes(fixed(row, 6)?),
        tier: tier(row, 7)?,
        last_contact: Timestamp(row.get(8)?),
        relays: row.get(9)?,
    })
}

impl Rows<'_> {
    /// A peer by its id. `None` for an unknown or forgotten one.
    pub fn peer(&self, peer_id: &PeerId) -> Result<Option<PeerRow>, StoreError> {
        let mut statement = self.prepare(
            "reading a peer",
            &format!("SELECT {COLUMNS} FROM peers WHERE peer_id = ?1 AND tier != 'forgotten'"),
        )?;
        statement.first([peer_id.as_bytes()], peer_row)
    }

    /// Whether the operator removed a peer, and has not trusted it since.
    pub fn is_removed(&self, peer_id: &PeerId) -> Result<bool, StoreError> {
        let mut statement = self.prepare(
            "looking for a removed peer",
            "SELECT 1 FROM peers WHERE peer_id = ?1 AND is_removed = 1",
        )?;
        statement.exists([peer_id.as_bytes()])
    }

    /// A peer's local number, which the column `origin` of its objects holds.
    pub fn peer_number(&self, peer_id: &PeerId) -> Result<Option<i64>, StoreError> {
        let mut statement = self.prepare(
            "reading a peer's number",
            "SELECT id FROM peers WHERE peer_id = ?1",
        )?;
        statement.first([peer_id.as_bytes()], |row| row.get(0))
    }

    /// The peer that has a local number.
    pub fn peer_by_number(&self, number: i64) -> Result<Option<PeerId>, StoreError> {
        let mut statement = self.prepare(
            "reading a peer by its number",
            "SELECT peer_id FROM peers WHERE id = ?1",
        )?;
        statement.first([number], |row| fixed(row, 0).map(PeerId::from_bytes))
    }

    /// The peer that was last reached at an onion address.
    pub fn last_peer_at(&self, onion: &OnionAddr) -> Result<Option<LastPeerAt>, StoreError> {
        let mut statement = self.prepare(
            "looking for a peer by its address",
            "SELECT peer_id, ticket FROM peers WHERE onion = ?1
             ORDER BY last_contact DESC, id DESC LIMIT 1",
        )?;
        statement.first([onion.public_key().as_bytes()], |row| {
            Ok(LastPeerAt {
                peer_id: PeerId::from_bytes(fixed(row, 0)?),
                ticket: row.get(1)?,
            })
        })
    }

    /// All peers that are not forgotten, oldest first.
    pub fn peers(&self) -> Result<Vec<PeerRow>, StoreError> {
        let mut statement = self.prepare(
            "listing peers",
            &format!("SELECT {COLUMNS} FROM peers WHERE tier != 'forgotten' ORDER BY id"),
        )?;
        statement.all([], peer_row)
    }
}

impl WriteTx<'_> {
    /// Inserts a peer, or updates its claims. A trusted peer stays trusted. A peer's usage moves
    /// with it to its new tier. In a new epoch, its earlier receipts do not count.
    pub fn put_peer(&self, peer: &PeerRow) -> Result<(), StoreError> {
        // A forgotten peer has its epoch too.
        let mut statement = self.prepare(
            "reading the epoch of a peer",
            "SELECT 1 FROM peers WHERE peer_id = ?1 AND epoch <> ?2",
        )?;
        if statement.exists((peer.peer_id.as_bytes(), peer.epoch.as_bytes()))? {
            self.forget_receipts(&peer.peer_id)?;
        }
        let mut statement = self.prepare(
            "writing a peer",
            &format!(
                "INSERT INTO peers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (peer_id) DO UPDATE SET
                   peer_apps = excluded.peer_apps,
                   peer_sync_domains = excluded.peer_sync_domains, domains = excluded.domains,
                   onion = excluded.onion, epoch = excluded.epoch,
                   last_contact = excluded.last_contact, relays = excluded.relays,
                   tier = CASE WHEN tier = 'forgotten' THEN 'untrusted' ELSE tier END"
            ),
        )?;
        statement.execute((
            peer.peer_id.as_bytes(),
            peer.server_oid.as_bytes(),
            apps_json(&peer.peer_apps),
            json(&peer.peer_sync_domains),
            json(&peer.domains),
            peer.onion.public_key().as_bytes(),
            peer.epoch.as_bytes(),
            peer.tier.as_str(),
            peer.last_contact.0,
            peer.relays,
        ))?;
        self.withdraw_purge(&peer.peer_id)?;
        match peer.tier {
            Tier::Trusted => self.set_tier(&peer.peer_id, Tier::Trusted),
            Tier::Untrusted => Ok(()),
        }
    }

    /// Notes that the operator removed a peer. The note stays until the operator trusts the peer.
    pub fn note_removed(&self, peer_id: &PeerId) -> Result<(), StoreError> {
        self.set_removed(peer_id, true)
    }

    fn set_removed(&self, peer_id: &PeerId, is_removed: bool) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing whether a peer was removed",
            "UPDATE peers SET is_removed = ?2 WHERE peer_id = ?1",
        )?;
        statement
            .execute((peer_id.as_bytes(), is_removed))
            .map(drop)
    }

    /// Changes a peer's tier, and moves its usage to that tier. Does nothing for a peer that has
    /// the tier already, is unknown, or was forgotten: admission decides when it connects again.
    pub fn set_tier(&self, peer_id: &PeerId, tier: Tier) -> Result<(), StoreError> {
        if self.peer(peer_id)?.is_none() {
            return Ok(());
        }
        let Some(stored) = self
            .stored_by(peer_id)?
            .filter(|stored| stored.tier != tier)
        else {
            return Ok(());
        };
        self.add_to_tier(stored.tier, &-stored.all())?;
        self.add_to_tier(tier, &stored.all())?;
        let mut statement = self.prepare(
            "changing a peer's tier",
            "UPDATE peers SET tier = ?2 WHERE peer_id = ?1",
        )?;
        statement.execute((peer_id.as_bytes(), tier.as_str()))?;
        if tier == Tier::Trusted {
            self.set_removed(peer_id, false)?;
            self.end_purge(peer_id.as_bytes())?;
        }
        self.wake_no_room(peer_id)
    }

    /// Sets the time of the last contact with a peer.
    pub fn touch_peer(&self, peer_id: &PeerId, now: Timestamp) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing the time of a contact",
            "UPDATE peers SET last_contact = ?2 WHERE peer_id = ?1",
        )?;
        statement.execute((peer_id.as_bytes(), now.0))?;
        Ok(())
    }

    /// Forgets one portion of the untrusted peers whose last contact was before a time: at most
    /// `most`, the longest inactive first. Returns the number of forgotten peers; 0: none is left.
    ///
    /// Deletes their claims, cursors, waiting objects and rejects. Their stored objects stay, and
    /// orders that their identities be forgotten of which nothing is kept. A banned peer's onion
    /// address stays, because the node must not dial it.
    pub fn forget_untrusted_peers(
        &self,
        before: Timestamp,
        most: usize,
    ) -> Result<usize, StoreError> {
        let context = "forgetting peers";
        let mut statement = self.prepare(
            context,
            "SELECT peer_id FROM peers WHERE tier = 'untrusted' AND last_contact < ?1
             ORDER BY last_contact, id LIMIT ?2",
        )?;
        let idle: Vec<PeerId> = statement.all((before.0, most), |row| {
            fixed(row, 0).map(PeerId::from_bytes)
        })?;
        let mut forgotten = 0;
        for peer in &idle {
            if self.spent() > FORGOTTEN_SPENT_MAX {
                break;
            }
            forgotten += 1;
            self.forget_peer(peer)?;
            self.order_purge(peer, &PurgeOrder::IDENTITIES)?;
        }
        Ok(forgotten)
    }

    /// Forgets a peer: its claims, cursors, waiting objects and rejects. Its identities of which
    /// nothing is kept are forgotten later. Receipts of the peer are kept while its identities have
    /// or had a right to read, because they decide which messages count as delivered.
    pub fn forget_peer(&self, peer: &PeerId) -> Result<(), StoreError> {
        self.set_tier(peer, Tier::Untrusted)?;
        for sql in [
            "DELETE FROM sync_state WHERE peer_id = ?1",
            // The returned objects of this node that are deleted are requested again.
            "DELETE FROM reclaimed_domain WHERE peer_id = ?1 AND EXISTS (
               SELECT 1 FROM waiting WHERE is_reclaimed = 1
                 AND peer_no = (SELECT id FROM peers WHERE peer_id = ?1))",
            "DELETE FROM sync_outbox WHERE peer_id = ?1",
        ] {
            let mut statement = self.prepare("forgetting peers", sql)?;
            statement.execute([peer.as_bytes()])?;
        }
        self.drop_aside(peer, true)?;
        if !self.has_readers_at(peer)? {
            self.forget_receipts(peer)?;
        }
        let mut statement = self.prepare(
            "forgetting peers",
            "UPDATE peers SET tier = 'forgotten', peer_apps = '[]', peer_sync_domains = '[]',
               domains = '[]',
               onion = CASE WHEN EXISTS (
                         SELECT 1 FROM verdict WHERE peer_id = ?1 AND verdict = 'banned')
                       THEN onion ELSE zeroblob(32) END,
               last_contact = 0, ticket = NULL WHERE peer_id = ?1",
        )?;
        statement.execute([peer.as_bytes()]).map(drop)
    }

    /// Deletes what a peer sent and is not stored: waiting objects, rejects, and what is to be
    /// pulled again. `returned`: also objects of this node that it returned after a restore.
    pub fn drop_aside(&self, peer: &PeerId, returned: bool) -> Result<(), StoreError> {
        for (account, usage) in self.waiting_usage(peer)? {
            self.add_usage(peer, account, &-usage)?;
        }
        let rejects = Usage {
            objects: i64::try_from(self.reject_count(Some(peer))?).unwrap_or(0),
            bytes: 0,
        };
        self.add_usage(peer, Account::Own, &-rejects)?;
        let context = "deleting what a peer sent and is not stored";
        let mut statement = self.prepare(
            context,
            "DELETE FROM waiting WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)
               AND is_reclaimed <= ?2",
        )?;
        statement.execute((peer.as_bytes(), returned))?;
        for sql in [
            "DELETE FROM pull_again WHERE peer_no = (SELECT id FROM peers WHERE peer_id = ?1)",
            "DELETE FROM sync_rejects WHERE peer_id = ?1",
            "DELETE FROM refused_object WHERE peer_id = ?1",
        ] {
            self.prepare(context, sql)?.execute([peer.as_bytes()])?;
        }
        Ok(())
    }

    /// Stores or deletes the ticket that a peer issued to this node.
    pub fn put_ticket(&self, peer: &PeerId, ticket: Option<&[u8]>) -> Result<(), StoreError> {
        let mut statement = self.prepare(
            "writing a ticket",
            "UPDATE peers SET ticket = ?2 WHERE peer_id = ?1",
        )?;
        statement.execute((peer.as_bytes(), ticket))?;
        Ok(())
    }
}
