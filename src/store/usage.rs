//! Who has stored how much here: objects and bytes, for each peer and for each tier.
//!
//! Counts what is written and what waits, as the bytes that were sent; never the indexes and pages around them. Never
//! judges. Invariant: both sums change in the transaction that writes what they count, and never fall below zero.

use std::ops::{AddAssign, Neg};

use bastion::Tier;
use keys::PeerId;
use rusqlite::OptionalExtension as _;

use super::peers::{tier_of, tier_text};
use super::{Rows, SqlContext as _, StoreError, WriteTx};

/// An amount stored, or a change of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Objects.
    pub objects: i64,
    /// Their signed bytes.
    pub bytes: i64,
}

impl Usage {
    /// One object of that many bytes.
    pub fn one(bytes: usize) -> Self {
        Self {
            objects: 1,
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }

    /// Whether it is nothing at all.
    pub fn is_none(&self) -> bool {
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

/// What one peer has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The tier that it counts in; a forgotten peer counts as worked.
    pub tier: Tier,
    /// How much.
    pub usage: Usage,
}

impl Rows<'_> {
    /// What a peer has stored, if it was ever admitted.
    pub fn stored_by(&self, peer: &PeerId) -> Result<Option<Stored>, StoreError> {
        let context = "reading what a peer has stored";
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT tier, stored_objects, stored_bytes FROM peers WHERE peer_id = ?1",
            )
            .context(context)?;
        statement
            .query_row([peer.as_bytes()], |row| {
                let tier = tier_of(&row.get::<_, String>(0)?);
                let usage = Usage {
                    objects: row.get(1)?,
                    bytes: row.get(2)?,
                };
                Ok(Stored { tier, usage })
            })
            .optional()
            .context(context)
    }

    /// What all peers of a tier have stored.
    pub fn tier_usage(&self, tier: Tier) -> Result<Usage, StoreError> {
        let context = "reading what a tier has stored";
        let mut statement = self
            .connection
            .prepare_cached("SELECT objects, bytes FROM tier_usage WHERE tier = ?1")
            .context(context)?;
        let usage = statement
            .query_row([tier_text(tier)], |row| {
                Ok(Usage {
                    objects: row.get(0)?,
                    bytes: row.get(1)?,
                })
            })
            .optional()
            .context(context)?;
        Ok(usage.unwrap_or_default())
    }

    /// What of a peer waits for other objects.
    pub(super) fn parked_usage(&self, peer: &PeerId) -> Result<Usage, StoreError> {
        let context = "adding up parked objects";
        let mut statement = self
            .connection
            .prepare_cached("SELECT COUNT(*), COALESCE(SUM(LENGTH(bytes)), 0) FROM sync_parked WHERE peer_id = ?1")
            .context(context)?;
        statement
            .query_row([peer.as_bytes()], |row| {
                Ok(Usage {
                    objects: row.get(0)?,
                    bytes: row.get(1)?,
                })
            })
            .context(context)
    }
}

impl WriteTx<'_> {
    /// Adds to what a peer and its tier have stored.
    pub fn add_usage(&self, peer: &PeerId, change: &Usage) -> Result<(), StoreError> {
        let context = "counting what a peer has stored";
        if change.is_none() {
            return Ok(());
        }
        let Some(stored) = self.stored_by(peer)? else {
            return Ok(());
        };
        let mut statement = self
            .connection
            .prepare_cached(
                "UPDATE peers SET stored_objects = MAX(0, stored_objects + ?2), stored_bytes = MAX(0, stored_bytes + ?3)
                 WHERE peer_id = ?1",
            )
            .context(context)?;
        statement
            .execute((peer.as_bytes(), change.objects, change.bytes))
            .context(context)?;
        // What was here before there was a count was never added, and is not taken away.
        let floor = -stored.usage;
        let counted = Usage {
            objects: change.objects.max(floor.objects),
            bytes: change.bytes.max(floor.bytes),
        };
        self.add_to_tier(stored.tier, &counted)
    }

    /// Adds to what a tier has stored.
    pub(super) fn add_to_tier(&self, tier: Tier, change: &Usage) -> Result<(), StoreError> {
        let context = "counting what a tier has stored";
        if change.is_none() {
            return Ok(());
        }
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO tier_usage (tier, objects, bytes) VALUES (?1, MAX(0, ?2), MAX(0, ?3))
                 ON CONFLICT (tier) DO UPDATE SET objects = MAX(0, objects + ?2), bytes = MAX(0, bytes + ?3)",
            )
            .context(context)?;
        statement
            .execute((tier_text(tier), change.objects, change.bytes))
            .context(context)?;
        Ok(())
    }
}
