//! What is stored of a peer when it is admitted, by us or by it: its keys, what it says of itself, its ticket.
//!
//! Never begins a session: the registry does. Invariant: nothing is stored of a peer that is banned, whoever dialled.

use bastion::{Admitted, Tier};
use keys::PeerId;

use crate::engine::{CoreHandle, EngineError};
use crate::state_engine::ApplyPackageError;
use crate::store::{PeerRow, StoreError, Verdict};

/// Why an admitted stream became no session.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The operator banned the peer.
    #[error("the peer is banned here")]
    Banned,
    /// The peer could not be noted.
    #[error("the peer could not be stored")]
    Store(#[from] EngineError<ApplyPackageError>),
}

impl From<EngineError<StoreError>> for AdmitError {
    fn from(error: EngineError<StoreError>) -> Self {
        Self::Store(error.into())
    }
}

/// Notes a peer in the graph and in `peers`, and the ticket that it gave us where we dialled (docs/STORY.md 1.1 steps 4 and 5).
pub(super) async fn note(engine: &CoreHandle, admitted: &Admitted) -> Result<(), AdmitError> {
    let claims = admitted.claims();
    let (node, chain, onion) = (claims.node.clone(), claims.chain.clone(), claims.onion);
    let (apps, sync_domains, epoch) = (
        claims.apps.clone(),
        claims.sync_domains.clone(),
        claims.epoch,
    );
    let domains = admitted.domains().to_vec();
    let tier = admitted.tier();
    let dialled = admitted.we_dialled();
    let ticket = admitted.ticket().map(|ticket| ticket.as_bytes().to_vec());
    if engine
        .graph(move |graph| {
            let peer = chain.peer_id();
            if graph.tx().is_banned(&peer, graph.now())? {
                return Ok(false);
            }
            graph
                .save_server(&node, &chain)?
                .ok_or(ApplyPackageError::StaleKeys)?;
            graph.tx().put_peer(&PeerRow {
                peer_id: peer,
                server_oid: chain.oid(),
                peer_apps: apps,
                peer_sync_domains: sync_domains,
                domains,
                onion,
                epoch,
                tier,
                last_contact: graph.now(),
            })?;
            if dialled {
                graph.tx().put_ticket(&peer, ticket.as_deref())?;
            }
            graph.tx().remove_pending(&peer)?;
            Ok::<_, ApplyPackageError>(true)
        })
        .await?
    {
        Ok(())
    } else {
        Err(AdmitError::Banned)
    }
}

/// Whether the operator keeps a peer out now: by a ban, or by a refusal where it is not trusted. Where that cannot be
/// told, it is taken to be: the safe side, and the next session asks again.
pub(super) async fn is_kept_out(engine: &CoreHandle, peer: PeerId) -> bool {
    let now = engine.now();
    let looking = engine.read(move |view| {
        let said = view.rows.verdict(&peer)?.filter(|row| row.holds(now));
        match said.map(|row| row.verdict) {
            Some(Verdict::Banned) => Ok(true),
            Some(Verdict::Refused) => Ok(view
                .rows
                .peer(&peer)?
                .is_none_or(|row| row.tier == Tier::Untrusted)),
            Some(Verdict::Approved) | None => Ok(false),
        }
    });
    looking
        .await
        .unwrap_or_else(|error: EngineError<StoreError>| {
            tracing::error!(%peer, %error, "could not look for a word on a peer");
            true
        })
}
