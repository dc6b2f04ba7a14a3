//! Removing peers, and what they sent (docs/DECISIONS.md 10).
//!
//! Stores the order; the writer removes in portions, and `node` ends the session and the dials.
//! Invariants: nothing is removed while the node recovers. The removed oids stay remembered until
//! the ban ends, or the operator trusts the peer again. Tested in `tests/core/purge.rs`.

use keys::{OnionAddr, PeerId};

use super::verdicts::{Reason, VerdictError, ban, not_itself};
use crate::graph::GraphManager;
use crate::op_context::Timestamp;
use crate::state_engine::Quotas;
use crate::store::{PurgeOrder, Verdict, VerdictRow};

/// Why a peer was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// No such peer was admitted.
    #[error("no such peer was admitted")]
    Unknown,
    /// The node waits for its peers after a restore, and they may return its objects.
    #[error(
        "the node recovers, and its peers may return its objects: remove when the recovery has \
         ended (`postern recovery`)"
    )]
    Recovering,
    /// The verdict was not stored.
    #[error(transparent)]
    Verdict(#[from] VerdictError),
}

impl From<crate::store::StoreError> for RemovalError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Verdict(error.into())
    }
}

/// A peer that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedPeer {
    /// The peer.
    pub peer: PeerId,
    /// The onion address that it claimed. `None`: it was forgotten before.
    pub onion: Option<OnionAddr>,
}

/// Removes a peer: its claims, cursors, waiting objects and rejects, and identities of which
/// nothing is kept. With `purge`, what it sent goes too. An approval ends, and a ban stays.
pub fn remove(
    graph: &mut GraphManager<'_>,
    quotas: &Quotas,
    peer: PeerId,
    purge: bool,
) -> Result<RemovedPeer, RemovalError> {
    not_itself(graph, &peer)?;
    may_remove(graph)?;
    let (tx, now) = (graph.tx(), graph.now());
    let known = tx.peer(&peer)?;
    // Objects of a forgotten peer can be purged too.
    if known.is_none() && !(purge && tx.peer_number(&peer)?.is_some()) {
        return Err(RemovalError::Unknown);
    }
    let order = order(graph, quotas, &peer, purge)?;
    let approval = tx.verdict(&peer)?;
    if let Some(row) = approval.filter(|row| row.verdict == Verdict::Approved && row.holds(now)) {
        tx.put_verdict(&VerdictRow {
            until: Some(now),
            ..row
        })?;
    }
    tx.remove_pending(&peer)?;
    tx.remove_introduction(&peer)?;
    tx.forget_peer(&peer)?;
    tx.note_removed(&peer)?;
    tx.order_purge(&peer, &order)?;
    Ok(RemovedPeer {
        peer,
        onion: known.map(|known| known.onion),
    })
}

/// Bans a peer until a time, and removes what it sent. When the ban ends and the peer is admitted
/// again, everything comes again.
pub fn ban_and_purge(
    graph: &mut GraphManager<'_>,
    quotas: &Quotas,
    peer: PeerId,
    (reason, until): (Reason, Option<Timestamp>),
) -> Result<VerdictRow, RemovalError> {
    may_remove(graph)?;
    let order = order(graph, quotas, &peer, true)?;
    let row = ban(graph, peer, reason, until)?;
    let tx = graph.tx();
    tx.drop_aside(&peer, false)?;
    tx.restart_all_in(&peer)?;
    tx.order_purge(
        &peer,
        &PurgeOrder {
            is_ban: true,
            ..order
        },
    )?;
    Ok(row)
}

fn may_remove(graph: &GraphManager<'_>) -> Result<(), RemovalError> {
    match graph.may_change() {
        true => Ok(()),
        false => Err(RemovalError::Recovering),
    }
}

/// The order for a peer. The node remembers as many oids as the quota of the peer's tier allows
/// objects. An earlier order may have lowered the tier, so that all stored objects count too.
fn order(
    graph: &GraphManager<'_>,
    quotas: &Quotas,
    peer: &PeerId,
    takes_objects: bool,
) -> Result<PurgeOrder, RemovalError> {
    if !takes_objects {
        return Ok(PurgeOrder::IDENTITIES);
    }
    let stored = graph.tx().stored_by(peer)?;
    Ok(PurgeOrder {
        takes_objects,
        is_ban: graph.tx().is_banned(peer, graph.now())?,
        remembered_max: stored.map_or(0, |stored| {
            let quota = quotas.of(stored.tier).stored_objects_max;
            let objects = stored.usage.objects + stored.relayed.objects;
            quota.max(objects.unsigned_abs())
        }),
    })
}
