//! What this node says of itself to strangers that it dials or admits, and whom it lets in.
//!
//! Never tells a stranger that was not admitted anything. Invariant: claims are made anew for each handshake, from one
//! committed state.

use bastion::{Applicant, Decision, Gatekeeper, Internal, Profile, RefusalCode};
use futures::future::BoxFuture;
use keys::{BootId, VerifiedChain};

use super::current::ActivePolicy;
use super::rule::{Facts, Judgement, judge};
use crate::config::AdmissionConfig;
use crate::engine::EngineError;
use crate::peer::Peers;
use crate::services::admission::claimed_names;
use crate::services::identities;
use crate::store::{IdentityRow, Knock, PendingBounds, StoreError};

/// The node's part in a handshake.
pub struct NodeGatekeeper {
    /// Who is here, and the engine behind.
    pub peers: Peers,
    /// Whom to let in, as it holds at each decision.
    pub policy: ActivePolicy,
    /// This start of the node.
    pub boot_id: BootId,
    /// Most identities that our claims carry.
    pub identities_max: usize,
}

impl Gatekeeper for NodeGatekeeper {
    fn profile(&self) -> BoxFuture<'_, Result<Profile, Internal>> {
        Box::pin(async {
            let ground = self.peers.engine().ground();
            let most = self.identities_max;
            let identities = self
                .peers
                .engine()
                .read(move |view| identities::for_handshake(&view, most))
                .await;
            Ok(Profile {
                apps: ground.schemas.apps().map(|app| app.slug.clone()).collect(),
                sync_domains: ground
                    .schemas
                    .sync_domains()
                    .map(|domain| domain.name.clone())
                    .collect(),
                epoch: ground.epoch,
                boot_id: self.boot_id,
                identities: identities.map_err(|error| Internal(error.to_string()))?,
            })
        })
    }

    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            self.judged(&applicant).await.unwrap_or_else(|error| {
                tracing::error!(%error, "could not judge an applicant");
                Decision::Refuse(RefusalCode::Internal)
            })
        })
    }
}

/// Whether a later key of a node is known than the one it comes with, or another one of that number. It learns nothing here,
/// and gets no ticket.
fn is_behind(chain: &VerifiedChain, known: &IdentityRow) -> bool {
    let is_other = chain.key_id() == known.key_id && chain.current() != known.public_key;
    chain.key_id() < known.key_id || is_other
}

impl NodeGatekeeper {
    async fn judged(&self, applicant: &Applicant<'_>) -> Result<Decision, EngineError<StoreError>> {
        let (peer, engine) = (applicant.claims.peer_id(), self.peers.engine());
        let server = applicant.claims.chain.oid();
        let known = engine.read(move |view| {
            let rows = view.rows;
            Ok::<_, StoreError>((
                rows.peer(&peer)?,
                rows.verdict(&peer)?,
                rows.identity(&server)?,
            ))
        });
        let (row, verdict, node) = known.await?;
        if node.is_some_and(|node| is_behind(&applicant.claims.chain, &node)) {
            tracing::warn!(%peer, "a node came with keys that are older than those known: a thief, or restored from an old backup");
            return Ok(Decision::Refuse(RefusalCode::Signature));
        }
        let admission = self.policy.get();
        let facts = Facts {
            tier: row.map(|row| row.tier),
            is_listed: admission.allow.contains(&peer),
            verdict,
            ticket_issued: applicant.ticket_issued,
            is_full: self
                .peers
                .is_full_without(&peer, bastion::Tier::Untrusted, applicant.effort),
            is_full_for_trusted: self.peers.is_full_without(
                &peer,
                bastion::Tier::Trusted,
                applicant.effort,
            ),
            now: engine.now(),
        };
        match judge(admission.policy, &facts) {
            Judgement::Decided(decision) => Ok(decision),
            Judgement::NeedsApproval => self.note_request(applicant, &admission).await,
        }
    }

    /// Notes a stranger among those that wait for the operator's word, where there is room.
    async fn note_request(
        &self,
        applicant: &Applicant<'_>,
        admission: &AdmissionConfig,
    ) -> Result<Decision, EngineError<StoreError>> {
        let (claims, engine) = (applicant.claims, self.peers.engine());
        let (peer, identities, limits) = (
            claims.peer_id(),
            claims.identities.clone(),
            engine.ground().limits.graph,
        );
        let bounds = PendingBounds {
            rows_max: admission.pending_max,
            since: admission.pending_since(engine.now()),
        };
        // Who finds no room costs no signature of its names, and the writer nothing.
        let effort = applicant.effort;
        if !engine
            .read(move |view| view.rows.may_wait(&peer, effort, &bounds))
            .await?
        {
            return Ok(Decision::Refuse(RefusalCode::Busy));
        }
        // Some twenty signatures at most, each of which the stranger worked for.
        let reading =
            tokio::task::spawn_blocking(move || claimed_names(&peer, identities, &limits));
        let knock = Knock {
            peer_id: peer,
            onion: claims.onion,
            apps: claims.apps.clone(),
            sync_domains: claims.sync_domains.clone(),
            names: reading.await.unwrap_or_default(),
            effort: applicant.effort,
        };
        let noting = engine.write(move |core, now| {
            core.write(now, |graph| graph.tx().note_knock(&knock, now, &bounds))
        });
        if noting.await? {
            tracing::info!(%peer, "a stranger waits for approval");
            Ok(Decision::Refuse(RefusalCode::Pending))
        } else {
            Ok(Decision::Refuse(RefusalCode::Busy))
        }
    }
}
