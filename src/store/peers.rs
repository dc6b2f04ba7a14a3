//! Peers that were admitted: what they said of themselves, and when they were last heard (docs/STORY.md 1.1 step 5).
//!
//! Never holds what was not verified in a handshake. A peer that is forgotten keeps its row, because what it sent refers to
//! it; the row says nothing of it but its name, how much it has stored and, of one that was banned, its address, by which
//! alone a query here finds it. Invariants: one row per `peer_id`, which never changes; `tier_usage` is the sum of what the
//! peers of a tier have stored, forgotten ones counted as worked.

use bastion::Tier;
use keys::{Epoch, Oid, OnionAddr, PeerId, PublicKey};
use rusqlite::{OptionalExtension as _, Row};

use super::{Rows, SqlContext as _, StoreError, WriteTx, fixed};
use crate::op_context::Timestamp;

/// The value of the column `tier`.
pub(super) fn tier_text(tier: Tier) -> &'static str {
    match tier {
        Tier::Untrusted => "worked",
        Tier::Trusted => "trusted",
    }
}

/// The tier of a value of the column `tier`. A forgotten peer counts as untrusted.
pub(super) fn tier_of(text: &str) -> Tier {
    match text {
        "trusted" => Tier::Trusted,
        _ => Tier::Untrusted,
    }
}

/// A peer as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRow {
    /// The node's name.
    pub peer_id: PeerId,
    /// Its server identity in the graph.
    pub server_oid: Oid,
    /// Apps that it has.
    pub peer_apps: Vec<String>,
    /// Domains that it supports.
    pub peer_sync_domains: Vec<String>,
    /// The intersection with ours.
    pub domains: Vec<String>,
    /// Where it said that it is reached.
    pub onion: OnionAddr,
    /// Its epoch as last heard.
    pub epoch: Epoch,
    /// How far it is trusted.
    pub tier: Tier,
    /// When it was last admitted, or known to have a session.
    pub last_contact: Timestamp,
}

/// Who was met at an onion address last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetThere {
    /// The node's name.
    pub peer_id: PeerId,
    /// The ticket that it gave us last, as it came.
    pub ticket: Option<Vec<u8>>,
}

const COLUMNS: &str =
    "peer_id, server_oid, peer_apps, peer_sync_domains, domains, onion, epoch, tier, last_contact";

/// Names as the JSON array that a column holds.
pub(super) fn json(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// A column that holds a JSON array of names.
pub(super) fn names(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

fn peer_row(row: &Row<'_>) -> rusqlite::Result<PeerRow> {
    Ok(PeerRow {
        peer_id: PeerId::from_bytes(fixed(row, 0)?),
        server_oid: Oid::from_bytes(fixed(row, 1)?),
        peer_apps: names(row, 2)?,
        peer_sync_domains: names(row, 3)?,
        domains: names(row, 4)?,
        onion: OnionAddr::from_public_key(PublicKey::from_bytes(fixed(row, 5)?)),
        epoch: Epoch::from_bytes(fixed(row, 6)?),
        tier: tier_of(&row.get::<_, String>(7)?),
        last_contact: Timestamp(row.get(8)?),
    })
}

impl Rows<'_> {
    /// A peer by its name.
    pub fn peer(&self, peer_id: &PeerId) -> Result<Option<PeerRow>, StoreError> {
        let context = "reading a peer";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM peers WHERE peer_id = ?1 AND tier != 'forgotten'"
            ))
            .context(context)?;
        statement
            .query_row([peer_id.as_bytes()], peer_row)
            .optional()
            .context(context)
    }

    /// A peer's local number, as rows that it sent carry it.
    pub fn peer_number(&self, peer_id: &PeerId) -> Result<Option<i64>, StoreError> {
        let context = "reading a peer's number";
        let mut statement = self
            .connection
            .prepare_cached("SELECT id FROM peers WHERE peer_id = ?1")
            .context(context)?;
        statement
            .query_row([peer_id.as_bytes()], |row| row.get(0))
            .optional()
            .context(context)
    }

    /// The peer that was met last at an onion address.
    pub fn met_at(&self, onion: &OnionAddr) -> Result<Option<MetThere>, StoreError> {
        let context = "looking for a peer by its address";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT peer_id, ticket FROM peers WHERE onion = ?1 ORDER BY last_contact DESC, id DESC LIMIT 1",
            )
            .context(context)?;
        statement
            .query_row([onion.public_key().as_bytes()], |row| {
                Ok(MetThere {
                    peer_id: PeerId::from_bytes(fixed(row, 0)?),
                    ticket: row.get(1)?,
                })
            })
            .optional()
            .context(context)
    }

    /// All peers, oldest first.
    pub fn peers(&self) -> Result<Vec<PeerRow>, StoreError> {
        let context = "listing peers";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM peers WHERE tier != 'forgotten' ORDER BY id"
            ))
            .context(context)?;
        let rows = statement.query_map([], peer_row).context(context)?;
        rows.collect::<rusqlite::Result<_>>().context(context)
    }
}

impl WriteTx<'_> {
    /// Notes a peer, or what it says of itself now. A trusted peer stays trusted; what a peer has stored moves with it to
    /// its new tier.
    pub fn put_peer(&self, peer: &PeerRow) -> Result<(), StoreError> {
        let context = "noting a peer";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "INSERT INTO peers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (peer_id) DO UPDATE SET
                   peer_apps = excluded.peer_apps, peer_sync_domains = excluded.peer_sync_domains, domains = excluded.domains,
                   onion = excluded.onion, epoch = excluded.epoch, last_contact = excluded.last_contact,
                   tier = CASE WHEN tier = 'forgotten' THEN 'worked' ELSE tier END"
            ))
            .context(context)?;
        statement
            .execute((
                peer.peer_id.as_bytes(),
                peer.server_oid.as_bytes(),
                json(&peer.peer_apps),
                json(&peer.peer_sync_domains),
                json(&peer.domains),
                peer.onion.public_key().as_bytes(),
                peer.epoch.as_bytes(),
                tier_text(peer.tier),
                peer.last_contact.0,
            ))
            .context(context)?;
        match peer.tier {
            Tier::Trusted => self.set_tier(&peer.peer_id, Tier::Trusted),
            Tier::Untrusted => Ok(()),
        }
    }

    /// Changes a peer's tier. What it has stored counts in the new one from now on. Nothing happens where it has that tier,
    /// is not known, or was forgotten: it is judged anew when it comes back.
    pub fn set_tier(&self, peer_id: &PeerId, tier: Tier) -> Result<(), StoreError> {
        let context = "changing a peer's tier";
        if self.peer(peer_id)?.is_none() {
            return Ok(());
        }
        let Some(stored) = self
            .stored_by(peer_id)?
            .filter(|stored| stored.tier != tier)
        else {
            return Ok(());
        };
        self.add_to_tier(stored.tier, &-stored.usage)?;
        self.add_to_tier(tier, &stored.usage)?;
        let mut statement = self
            .connection
            .prepare_cached("UPDATE peers SET tier = ?2 WHERE peer_id = ?1")
            .context(context)?;
        statement
            .execute((peer_id.as_bytes(), tier_text(tier)))
            .context(context)?;
        Ok(())
    }

    /// A peer has a session at this time.
    pub fn touch_peer(&self, peer_id: &PeerId, now: Timestamp) -> Result<(), StoreError> {
        let context = "noting a contact";
        let mut statement = self
            .connection
            .prepare_cached("UPDATE peers SET last_contact = ?2 WHERE peer_id = ?1")
            .context(context)?;
        statement
            .execute((peer_id.as_bytes(), now.0))
            .context(context)?;
        Ok(())
    }

    /// Forgets untrusted peers that were last heard before a time, those longest away first and at most `most` of them: what
    /// they said of themselves, their cursors, what waits of theirs and what was refused. What they stored stays, and of one
    /// that was banned its address: else nobody would know that it is not to be dialled. The number of those forgotten.
    pub fn forget_worked_peers(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let context = "forgetting peers";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT peer_id FROM peers WHERE tier = 'worked' AND last_contact < ?1 ORDER BY last_contact, id LIMIT ?2",
            )
            .context(context)?;
        let idle = statement
            .query_map((before.0, most), |row| {
                fixed(row, 0).map(PeerId::from_bytes)
            })
            .context(context)?
            .collect::<rusqlite::Result<Vec<_>>>()
            .context(context)?;
        for peer in &idle {
            let waiting = self.parked_usage(peer)?;
            self.add_usage(peer, &-waiting)?;
            for sql in [
                "DELETE FROM sync_state WHERE peer_id = ?1",
                "DELETE FROM sync_parked WHERE peer_id = ?1",
                "DELETE FROM sync_rejects WHERE peer_id = ?1",
                "UPDATE peers SET tier = 'forgotten', peer_apps = '[]', peer_sync_domains = '[]', domains = '[]',
                   onion = CASE WHEN EXISTS (SELECT 1 FROM verdict WHERE peer_id = ?1 AND verdict = 'banned')
                                THEN onion ELSE zeroblob(32) END,
                   epoch = zeroblob(16), last_contact = 0, ticket = NULL WHERE peer_id = ?1",
            ] {
                let mut statement = self.connection.prepare_cached(sql).context(context)?;
                statement.execute([peer.as_bytes()]).context(context)?;
            }
        }
        Ok(idle.len())
    }

    /// Keeps or drops what a known peer gave us to show instead of work.
    pub fn put_ticket(&self, peer: &PeerId, ticket: Option<&[u8]>) -> Result<(), StoreError> {
        let context = "noting a ticket";
        let mut statement = self
            .connection
            .prepare_cached("UPDATE peers SET ticket = ?2 WHERE peer_id = ?1")
            .context(context)?;
        statement
            .execute((peer.as_bytes(), ticket))
            .context(context)?;
        Ok(())
    }
}
