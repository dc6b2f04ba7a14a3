//! Stores a peer when it is admitted: its keys, its claims and its ticket.
//!
//! Input is the result of a handshake, whichever side dialled; output is rows. [`super::service`]
//! starts the session. Invariant: nothing is stored of a banned peer.

use bastion::{Admitted, Feature, Tier};
use keys::{PeerId, error_chain};

use crate::engine::{CoreHandle, EngineError};
use crate::schema::PeerSchema;
use crate::state_engine::ApplyPackageError;
use crate::store::{PeerRow, StoreError, Verdict};

/// Why an admitted stream did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The operator banned the peer.
    #[error("the peer is banned here")]
    Banned,
    /// Objects of the peer are being removed.
    #[error("what the peer sent is being removed: it is admitted after that")]
    Purging,
    /// The peer's key chain does not continue the known one: it uses a stolen or restored key.
    #[error("the peer's key chain does not continue the known one: stolen or restored keys")]
    ChainForked,
    /// The peer could not be written to the database.
    #[error("the peer could not be stored")]
    Store(#[from] EngineError<ApplyPackageError>),
}

/// Result of the transaction that stores a peer.
enum Noted {
    Stored,
    Banned,
    Purging,
    ChainForked,
}

impl From<EngineError<StoreError>> for AdmitError {
    fn from(error: EngineError<StoreError>) -> Self {
        Self::Store(error.into())
    }
}

/// Stores a peer in the graph and in `peers`, and the ticket that it issued if this node dialled
/// (docs/STORY.md 1.1 steps 4 and 5).
pub(super) async fn note(core: &CoreHandle, admitted: &Admitted) -> Result<(), AdmitError> {
    let claims = admitted.claims();
    let (node, chain, onion) = (claims.node.clone(), claims.chain.clone(), claims.onion);
    let (apps, sync_domains, epoch) = (
        claims.apps.clone(),
        claims.sync_domains.clone(),
        claims.epoch,
    );
    let domains = admitted.domains().to_vec();
    let tier = admitted.tier();
    let relays = admitted.features().has(Feature::Relay);
    let dialled = admitted.we_dialled();
    let ticket = admitted.ticket().map(|ticket| ticket.as_bytes().to_vec());
    let noted = core
        .graph(move |graph| {
            let peer = chain.peer_id();
            if graph.tx().is_banned(&peer, graph.now())? {
                return Ok(Noted::Banned);
            }
            if graph.tx().is_purging(&peer)? {
                return Ok(Noted::Purging);
            }
            // A key that an address record revoked may be stolen, also where the node is new.
            let record = graph.tx().address(&peer)?.map(|row| row.record());
            let is_older = record
                .transpose()?
                .is_some_and(|it| !node.continues(&it.node));
            if is_older || graph.save_server(&node, &chain)?.is_none() {
                return Ok(Noted::ChainForked);
            }
            graph.save_peer(&PeerRow {
                peer_id: peer,
                server_oid: chain.oid(),
                peer_apps: apps,
                peer_sync_domains: sync_domains,
                domains,
                onion,
                epoch,
                tier,
                last_contact: graph.now(),
                relays,
            })?;
            if dialled {
                graph.tx().put_ticket(&peer, ticket.as_deref())?;
            }
            graph.tx().remove_pending(&peer)?;
            Ok::<_, ApplyPackageError>(Noted::Stored)
        })
        .await?;
    match noted {
        Noted::Stored => Ok(()),
        Noted::Banned => Err(AdmitError::Banned),
        Noted::Purging => Err(AdmitError::Purging),
        Noted::ChainForked => Err(AdmitError::ChainForked),
    }
}

/// Reports the apps of which the peer has a later schema, or another one of the same version.
pub(super) async fn report_schemas(core: &CoreHandle, peer: PeerId) {
    let claims = core.read(move |view| view.rows.peer(&peer));
    let claims = match claims.await {
        Ok(row) => row.map_or_else(Vec::new, |row| row.peer_apps),
        Err(error) => {
            let error: EngineError<StoreError> = error;
            return tracing::error!(error = %error_chain(&error), "could not read a peer's apps");
        }
    };
    for claim in &claims {
        let own = core.context().schemas.app(&claim.slug);
        let Some((own, difference)) = own.and_then(|own| Some((own, own.of_peer(claim)?))) else {
            continue;
        };
        let (app, version, here) = (&own.slug, claim.version, own.version);
        match difference {
            PeerSchema::Later => tracing::warn!(
                app,
                version,
                here,
                "the peer has a later schema of an app, and objects that need it wait: install the \
                 later file and restart"
            ),
            PeerSchema::OtherText => tracing::warn!(
                app,
                version,
                "the peer has another text of this version of an app's schema: one of both must be \
                 published as the next version"
            ),
        }
    }
}

/// Returns whether the operator's verdict keeps a peer out now: a ban, or a refusal of a peer that
/// is not trusted. If the database fails, the peer is kept out, and its next session checks again.
pub(super) async fn is_kept_out(core: &CoreHandle, peer: PeerId) -> bool {
    let now = core.now();
    let kept_out = core.read(move |view| {
        let verdict = view.rows.verdict(&peer)?.filter(|row| row.holds(now));
        match verdict.map(|row| row.verdict) {
            Some(Verdict::Banned) => Ok(true),
            Some(Verdict::Refused) => Ok(view
                .rows
                .peer(&peer)?
                .is_none_or(|row| row.tier == Tier::Untrusted)),
            Some(Verdict::Approved) | None => Ok(false),
        }
    });
    kept_out
        .await
        .unwrap_or_else(|error: EngineError<StoreError>| {
            tracing::error!(error = %error_chain(&error), "could not read the verdict on a peer");
            true
        })
}
