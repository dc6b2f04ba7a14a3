//! [`OutboxPlan`]: the peers of which the operator wants that they are pushed every change, and the
//! rows that writes leave for them (docs/DECISIONS.md 7).
//!
//! Invariants: a commit that may hold something for a planned peer leaves a row in the same
//! transaction. Without configured peers a write costs one branch. Tested in
//! `tests/core/outbox.rs`.

use std::collections::BTreeMap;

use keys::{OnionAddr, PeerId};
use parking_lot::RwLock;

use crate::graph::GraphManager;
use crate::op_context::AppId;
use crate::store::{PeerRow, StoreError, WriteTx};

/// An app, and a domain of it.
type AppDomain = (AppId, String);

/// The domains that the operator configured, by the peers' onion addresses.
#[derive(Debug, Default)]
pub(super) struct OutboxPlan(RwLock<BTreeMap<OnionAddr, Planned>>);

/// The plan for one onion address.
#[derive(Debug, Default)]
pub(super) struct Planned {
    configured: Vec<AppDomain>,
    /// The peer that was admitted last at the address, so that peers cannot enlarge the plan. With
    /// those of the domains that it shares.
    peer: Option<(PeerId, Vec<AppDomain>)>,
}

impl Planned {
    /// A plan for an address at which no peer is known.
    pub(super) fn new(configured: Vec<AppDomain>) -> Self {
        Self {
            configured,
            peer: None,
        }
    }

    /// Plans the peer that was admitted last at the address.
    pub(super) fn set_peer(&mut self, peer: &PeerRow) {
        let shared = self.configured.iter();
        let shared = shared.filter(|(_, domain)| peer.domains.contains(domain));
        self.peer = Some((peer.peer_id, shared.cloned().collect()));
    }
}

impl OutboxPlan {
    /// Replaces the plan.
    pub(super) fn set(&self, plan: BTreeMap<OnionAddr, Planned>) {
        *self.0.write() = plan;
    }

    fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// The domains of which a peer is pushed every change.
    pub(super) fn domains_of(&self, peer: &PeerId) -> Vec<String> {
        let plan = self.0.read();
        let domains = plan.values().filter_map(|planned| planned.peer.as_ref());
        let domains = domains.filter(|(id, _)| id == peer);
        let names = domains.flat_map(|(_, domains)| domains.iter().map(|(_, name)| name.clone()));
        names.collect()
    }

    /// Whether a peer is pushed every change of a domain.
    pub(super) fn has(&self, peer: &PeerId, domain: &str) -> bool {
        let plan = self.0.read();
        let mut peers = plan.values().filter_map(|planned| planned.peer.as_ref());
        peers.any(|(id, domains)| id == peer && domains.iter().any(|(_, name)| name == domain))
    }

    /// Plans a peer that is being admitted. Deletes the rows of the peer that it replaces, and of
    /// domains that it does not share any more.
    fn admit(&self, tx: &WriteTx<'_>, peer: &PeerRow) -> Result<(), StoreError> {
        let mut plan = self.0.write();
        let Some(planned) = plan.get_mut(&peer.onion) else {
            return Ok(());
        };
        let before = planned.peer.take();
        planned.set_peer(peer);
        let Some((id, domains)) = before else {
            return Ok(());
        };
        for (_, domain) in &domains {
            if id != peer.peer_id || !peer.domains.contains(domain) {
                tx.remove_outbox(&id, domain, i64::MAX.cast_unsigned())?;
            }
        }
        Ok(())
    }
}

/// Notes in the transaction of a write what planned peers may not have after it. A failed write may
/// leave notes for the next one, so a row may be one too many.
pub(super) fn note_outbox(graph: &GraphManager<'_>, plan: &OutboxPlan) -> Result<(), StoreError> {
    if plan.is_empty() {
        return Ok(());
    }
    let (tx, touched) = (graph.tx(), graph.touched());
    if let Some(peer) = graph.saved_peer() {
        plan.admit(tx, peer)?;
    }
    if touched.is_empty() {
        return Ok(());
    }
    let plan = plan.0.read();
    let mut head = None;
    for (peer, domains) in plan.values().filter_map(|planned| planned.peer.as_ref()) {
        for (_, domain) in domains
            .iter()
            .filter(|(app, _)| touched.is_news(*app, peer))
        {
            let head = match head {
                Some(head) => head,
                None => *head.insert(tx.heads()?.0),
            };
            tx.put_outbox(peer, domain, head)?;
        }
    }
    Ok(())
}
