//! Address records: which this node takes, and how long it keeps them (docs/DECISIONS.md 10).
//!
//! Invariant: a record of another member is taken only for the home in this node's own record of an
//! identity. A record that an identity brought in its own file needs no member. Tested in
//! `tests/core/introductions.rs`.

use std::collections::BTreeMap;

use keys::{Oid, PeerId, VerifiedAddress, codec};

use super::engine::StateEngine;
use crate::graph::{home_chain, known_server_chain};
use crate::op_context::Timestamp;
use crate::store::{AddressRow, ScopeId, StoreError, WriteTx};

/// Seconds by which a counter of an address record may be ahead of the clock.
const AHEAD_S_MAX: u64 = 24 * 60 * 60;
/// Time after which an address record is deleted.
const KEPT_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl StateEngine {
    /// Takes the address records whose nodes are homes of members of a scope. Returns how many were
    /// new.
    pub fn take_addresses(
        &mut self,
        now: Timestamp,
        scope: ScopeId,
        records: &[VerifiedAddress],
    ) -> Result<usize, StoreError> {
        let (Some(place), _) = self.view().meeting_place(scope)? else {
            return Ok(0);
        };
        let mut homes: BTreeMap<PeerId, Vec<Oid>> = BTreeMap::new();
        for member in &place.members {
            homes.entry(member.home).or_default().push(member.identity);
        }
        self.store.transaction(|tx| {
            let mut taken = 0;
            for record in records {
                if let Some(identities) = homes.get(&record.node())
                    && take_address(tx, now, (record, identities), place.owner)?
                {
                    taken += 1;
                }
            }
            Ok(taken)
        })
    }

    /// Deletes the address records that were taken long ago, or by a clock that was ahead.
    pub fn expire_addresses(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let first = Timestamp(now.0.saturating_sub(KEPT_MS));
        let last = Timestamp(now.0.saturating_add(DAY_MS));
        self.store
            .transaction(|tx| tx.keep_addresses_between(first, last))
    }
}

/// Stores the address record of a node that is the home of `identities`, if no ban holds and no
/// later record is known. Returns whether it did.
pub(super) fn take_address(
    tx: &WriteTx<'_>,
    now: Timestamp,
    (record, identities): (&VerifiedAddress, &[Oid]),
    scope_owner: Oid,
) -> Result<bool, StoreError> {
    let node = record.node();
    if tx.is_banned(&node, now)? || !is_later(tx, record, identities, now)? {
        return Ok(false);
    }
    let stored = tx.address(&node)?;
    tx.put_address(&AddressRow {
        peer: node,
        record: codec::encode(&[record.record()]),
        onion: record.onion(),
        key_id: record.order().0,
        counter: record.order().1,
        // Another owner must not take over the place of the record.
        scope_owner: stored.map_or(scope_owner, |stored| stored.scope_owner),
        at: now,
    })?;
    Ok(true)
}

/// Whether a record follows all that is known of its node. The stored record, the home record of an
/// identity and the last session each have a chain. A counter far ahead of this node's clock would
/// outlast every later record.
fn is_later(
    tx: &WriteTx<'_>,
    record: &VerifiedAddress,
    identities: &[Oid],
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (chain, (key_id, counter)) = (&record.record().node, record.order());
    let now_s = now.0 / 1000;
    if counter > now_s + AHEAD_S_MAX || counter < now_s.saturating_sub(KEPT_MS / 1000) {
        return Ok(false);
    }
    let mut known = vec![known_server_chain(tx, &chain.oid())?];
    for identity in identities {
        if let Some(identity) = tx.identity(identity)? {
            known.push(home_chain(tx, &identity)?);
        }
    }
    if let Some(stored) = tx.address(&record.node())? {
        if (key_id, counter) <= (stored.key_id, stored.counter) {
            return Ok(false);
        }
        known.push(Some(stored.record()?.node));
    }
    Ok(known.iter().flatten().all(|known| chain.continues(known)))
}
