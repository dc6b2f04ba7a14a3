//! Peers that were admitted: what they said of themselves, and when they were last heard (SEED 1.1 step 5).
//!
//! Never holds what was not verified in a handshake. Invariant: one row per `peer_id`, which never changes.

use keys::{Epoch, Oid, OnionAddr, PeerId, PublicKey};
use rusqlite::{OptionalExtension as _, Row};

use super::{Doing as _, Rows, StoreError, WriteTx, fixed};
use crate::op_context::Timestamp;

/// How far a peer is trusted (DESIGN 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Admitted by policy `open`, for its work.
    Worked,
    /// Approved or listed by the operator, or dialled by us.
    Trusted,
}

impl Tier {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worked => "worked",
            Self::Trusted => "trusted",
        }
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
    /// When it was last admitted.
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

const COLUMNS: &str = "peer_id, server_oid, peer_apps, peer_sync_domains, domains, onion, epoch, tier, last_contact";

/// Names as the JSON array that a column holds.
pub(super) fn json(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// A column that holds a JSON array of names.
pub(super) fn names(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
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
        tier: if row.get::<_, String>(7)? == "trusted" {
            Tier::Trusted
        } else {
            Tier::Worked
        },
        last_contact: Timestamp(row.get(8)?),
    })
}

impl Rows<'_> {
    /// A peer by its name.
    pub fn peer(&self, peer_id: &PeerId) -> Result<Option<PeerRow>, StoreError> {
        let doing = "reading a peer";
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM peers WHERE peer_id = ?1"))
            .doing(doing)?;
        statement
            .query_row([peer_id.as_bytes()], peer_row)
            .optional()
            .doing(doing)
    }

    /// A peer's local number, as rows that it sent carry it.
    pub fn peer_number(&self, peer_id: &PeerId) -> Result<Option<i64>, StoreError> {
        let doing = "reading a peer's number";
        let mut statement = self
            .connection
            .prepare_cached("SELECT id FROM peers WHERE peer_id = ?1")
            .doing(doing)?;
        statement
            .query_row([peer_id.as_bytes()], |row| row.get(0))
            .optional()
            .doing(doing)
    }

    /// The peer that was met last at an onion address.
    pub fn met_at(&self, onion: &OnionAddr) -> Result<Option<MetThere>, StoreError> {
        let doing = "looking for a peer by its address";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT peer_id, ticket FROM peers WHERE onion = ?1 ORDER BY last_contact DESC, id DESC LIMIT 1",
            )
            .doing(doing)?;
        statement
            .query_row([onion.public_key().as_bytes()], |row| {
                Ok(MetThere {
                    peer_id: PeerId::from_bytes(fixed(row, 0)?),
                    ticket: row.get(1)?,
                })
            })
            .optional()
            .doing(doing)
    }

    /// All peers, oldest first.
    pub fn peers(&self) -> Result<Vec<PeerRow>, StoreError> {
        let doing = "listing peers";
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM peers ORDER BY id"))
            .doing(doing)?;
        let rows = statement.query_map([], peer_row).doing(doing)?;
        rows.collect::<rusqlite::Result<_>>().doing(doing)
    }
}

impl WriteTx<'_> {
    /// Notes a peer, or what it says of itself now. A trusted peer stays trusted.
    pub fn put_peer(&self, peer: &PeerRow) -> Result<(), StoreError> {
        let doing = "noting a peer";
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "INSERT INTO peers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (peer_id) DO UPDATE SET
                   peer_apps = excluded.peer_apps, peer_sync_domains = excluded.peer_sync_domains, domains = excluded.domains,
                   onion = excluded.onion, epoch = excluded.epoch, last_contact = excluded.last_contact,
                   tier = CASE WHEN tier = 'trusted' THEN tier ELSE excluded.tier END"
            ))
            .doing(doing)?;
        statement
            .execute((
                peer.peer_id.as_bytes(),
                peer.server_oid.as_bytes(),
                json(&peer.peer_apps),
                json(&peer.peer_sync_domains),
                json(&peer.domains),
                peer.onion.public_key().as_bytes(),
                peer.epoch.as_bytes(),
                peer.tier.as_str(),
                peer.last_contact.0,
            ))
            .doing(doing)?;
        Ok(())
    }

    /// Keeps or drops what a known peer gave us to show instead of work.
    pub fn put_ticket(&self, peer: &PeerId, ticket: Option<&[u8]>) -> Result<(), StoreError> {
        let doing = "noting a ticket";
        let mut statement = self
            .connection
            .prepare_cached("UPDATE peers SET ticket = ?2 WHERE peer_id = ?1")
            .doing(doing)?;
        statement.execute((peer.as_bytes(), ticket)).doing(doing)?;
        Ok(())
    }

    /// Trusts a known peer, or no longer. Says whether it is known.
    pub fn set_tier(&self, peer: &PeerId, tier: Tier) -> Result<bool, StoreError> {
        let doing = "changing a peer's tier";
        let mut statement = self
            .connection
            .prepare_cached("UPDATE peers SET tier = ?2 WHERE peer_id = ?1")
            .doing(doing)?;
        Ok(statement.execute((peer.as_bytes(), tier.as_str())).doing(doing)? > 0)
    }
}
