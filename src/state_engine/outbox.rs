//! Table `sync_outbox`: what has to be pushed at once to the peers that the operator configured
//! (docs/STORY.md 5, docs/DECISIONS.md 7).
//!
//! A row only wakes the push, which is built from the acknowledged number. Invariant: a row stays
//! until the peer has acknowledged its number, or a push has examined all up to it and found
//! nothing. Tested in `tests/core/outbox.rs`.

use std::collections::BTreeMap;

use keys::{OnionAddr, PeerId};

use super::engine::StateEngine;
use super::outbox_plan::Planned;
use super::view::{CoreContext, View};
use crate::op_context::Timestamp;
use crate::store::StoreError;

impl CoreContext {
    /// The domains of which a peer is pushed every change: those of the configuration that it
    /// shares.
    pub fn pushed_domains(&self, peer: &PeerId) -> Vec<String> {
        self.memory.outbox.domains_of(peer)
    }
}

impl View<'_> {
    /// The number up to which a package of a domain examines changes.
    pub fn examined(&self, domain: &str) -> Result<u64, StoreError> {
        self.head_of(domain, self.head()?)
    }
}

impl StateEngine {
    /// Sets of which domains the peer at an onion address is pushed every change; names of unknown
    /// domains have no effect. Deletes the rows of other peers and domains. Call it once, after
    /// opening.
    pub fn plan_outbox(
        &mut self,
        now: Timestamp,
        configured: &BTreeMap<OnionAddr, Vec<String>>,
    ) -> Result<(), StoreError> {
        let mut plan = BTreeMap::new();
        let rows = self.store.rows();
        for (onion, names) in configured {
            let domains = names.iter().filter_map(|name| {
                let domain = self.context.schemas.domain(name)?;
                Some((rows.apps().get(&domain.app)?.id, name.clone()))
            });
            let mut planned = Planned::new(domains.collect());
            if let Some(last) = rows.last_peer_at(onion)?
                && let Some(peer) = rows.peer(&last.peer_id)?
            {
                planned.set_peer(&peer);
            }
            plan.insert(*onion, planned);
        }
        let outbox = &self.context.memory.outbox;
        outbox.set(plan);
        let mut surplus = rows.outbox()?;
        surplus.retain(|row| !outbox.has(&row.peer, &row.domain));
        if surplus.is_empty() {
            return Ok(());
        }
        self.write(now, |graph| {
            let mut surplus = surplus.iter();
            surplus.try_for_each(|row| {
                let tx = graph.tx();
                tx.remove_outbox(&row.peer, &row.domain, row.change_seq)
            })
        })
    }

    /// Deletes the row of a peer and domain after a push that found nothing to send. `examined` is
    /// the number up to which the push had looked ([`View::examined`]).
    pub fn clear_outbox(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        domain: &str,
        examined: u64,
    ) -> Result<(), StoreError> {
        if !self.is_done(peer, domain, examined)? {
            return Ok(());
        }
        self.write(now, |graph| {
            graph.tx().remove_outbox(peer, domain, examined)
        })
    }

    /// Whether a row exists of which the peer has everything now, as it has all up to `seq`. Reads
    /// nothing for other peers.
    pub(super) fn is_done(
        &self,
        peer: &PeerId,
        domain: &str,
        seq: u64,
    ) -> Result<bool, StoreError> {
        if !self.context.memory.outbox.has(peer, domain) {
            return Ok(false);
        }
        let row = self.store.rows().outbox_seq(peer, domain)?;
        Ok(row.is_some_and(|change_seq| change_seq <= seq))
    }
}
