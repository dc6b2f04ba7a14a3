//! Usage: the objects and bytes that each peer and each tier have stored on this node.
//!
//! Counts objects that are written and objects that wait, as the bytes that were sent, without
//! indexes and page overhead. Invariant: both sums change in the transaction that writes the
//! objects, and never fall below zero.

use std::ops::{AddAssign, Neg};

use bastion::Tier;
use keys::PeerId;
use rusqlite::Row;

use super::columns::tier;
use super::error::StoreError;
use super::rows::{Rows, WriteTx};

/// A stored amount, or a change of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Number of objects.
    pub objects: i64,
    /// Sum of their signed bytes.
    pub bytes: i64,
}

impl Usage {
    /// The usage of one object of `bytes` bytes.
    pub fn one(bytes: usize) -> Self {
        Self {
            objects: 1,
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }

    /// Whether both numbers are 0.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Neg for Usage {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            objects: self.objects.saturating_neg(),
            bytes: self.bytes.saturating_neg(),
        }
    }
}

/// The usage of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The tier in which it counts. A forgotten peer counts as untrusted.
    pub tier: Tier,
    /// Objects and bytes of the peer.
    pub usage: Usage,
}

/// Reads objects and bytes from two columns, starting at `column`.
fn usage(row: &Row<'_>, column: usize) -> rusqlite::Result<Usage> {
    Ok(Usage {
        objects: row.get(column)?,
        bytes: row.get(column + 1)?,
    })
}

impl Rows<'_> {
    /// The usage of a peer. `None` if it was never admitted.
    pub fn stored_by(&self, peer: &PeerId) -> Result<Option<Stored>, StoreError> {
        let mut statement = self.prepare(
            "reading the usage of a peer",
            "SELECT tier, stored_objects, stored_bytes FROM peers WHERE peer_id = ?1",
        )?;
        statement.first([peer.as_bytes()], |row| {
            Ok(Stored {
                tier: tier(row, 0)?,
                usage: usage(row, 1)?,
            })
        })
    }

    /// The usage of all peers of a tier together.
    pub fn tier_usage(&self, tier: Tier) -> Result<Usage, StoreError> {
        let mut statement = self.prepare(
            "reading the usage of a tier",
            "SELECT objects, bytes FROM tier_usage WHERE tier = ?1",
        )?;
        let usage = statement.first([tier.as_str()], |row| usage(row, 0))?;
        Ok(usage.unwrap_or_default())
    }
}

impl WriteTx<'_> {
    /// Adds a change to the usage of a peer and of its tier.
    pub fn add_usage(&self, peer: &PeerId, change: &Usage) -> Result<(), StoreError> {
        if change.is_zero() {
            return Ok(());
        }
        let Some(stored) = self.stored_by(peer)? else {
            return Ok(());
        };
        let mut statement = self.prepare(
            "writing the usage of a peer",
            "UPDATE peers SET stored_objects = MAX(0, stored_objects + ?2),
               stored_bytes = MAX(0, stored_bytes + ?3)
             WHERE peer_id = ?1",
        )?;
        statement.execute((peer.as_bytes(), change.objects, change.bytes))?;
        // Objects from before usage was counted were never added, so they must not be subtracted.
        let floor = -stored.usage;
        let counted = Usage {
            objects: change.objects.max(floor.objects),
            bytes: change.bytes.max(floor.bytes),
        };
        self.add_to_tier(stored.tier, &counted)
    }

    /// Adds a change to the usage of a tier.
    pub(super) fn add_to_tier(&self, tier: Tier, change: &Usage) -> Result<(), StoreError> {
        if change.is_zero() {
            return Ok(());
        }
        let mut statement = self.prepare(
            "writing the usage of a tier",
            "INSERT INTO tier_usage (tier, objects, bytes) VALUES (?1, MAX(0, ?2), MAX(0, ?3))
             ON CONFLICT (tier) DO UPDATE SET
               objects = MAX(0, objects + ?2), bytes = MAX(0, bytes + ?3)",
        )?;
        statement.execute((tier.as_str(), change.objects, change.bytes))?;
        Ok(())
    }
}
