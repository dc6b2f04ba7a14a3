//! The node's part in a handshake: the profile that it sends, and its decision on an applicant.
//!
//! [`NodeGatekeeper`] gathers the facts of one committed state and passes them to the rule of
//! `rule.rs`. An applicant that needs the operator's approval becomes a pending request. Invariant:
//! an applicant learns nothing of this node's identities before it is admitted. Tested in
//! `tests/net/admission.rs`.

use bastion::{
    AdmissionPolicy, Applicant, Decision, Internal, LocalProfile, NodeProfile, RefusalCode, Tier,
};
use futures::future::BoxFuture;
use keys::protocol::CLAIMED_IDENTITIES_MAX;
use keys::{BootId, error_chain};

use super::current::ActivePolicy;
use super::rule::{Facts, Judgement, judge};
use crate::config::AdmissionConfig;
use crate::engine::{CoreHandle, EngineError};
use crate::peer::SyncService;
use crate::services::identities;
use crate::services::verdicts::claimed_names;
use crate::store::{PendingBounds, PendingRequest, StoreError};

/// The gatekeeper of a running node.
pub struct NodeGatekeeper {
    /// The open sessions, and the handle to the core.
    pub peers: SyncService,
    /// The policy in force at each decision.
    pub policy: ActivePolicy,
    /// The id of this start of the node, which peers compare to detect a restart.
    pub boot_id: BootId,
}

impl LocalProfile for NodeGatekeeper {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        Box::pin(async {
            let context = self.peers.engine().context();
            let identities = self
                .peers
                .engine()
                .read(move |view| identities::for_handshake(&view, CLAIMED_IDENTITIES_MAX))
                .await;
            Ok(NodeProfile {
                apps: context.schemas.claims(),
                sync_domains: context
                    .schemas
                    .sync_domains()
                    .map(|domain| domain.name.clone())
                    .collect(),
                epoch: context.epoch,
                boot_id: self.boot_id,
                identities: identities.map_err(|error| Internal(error_chain(&error)))?,
            })
        })
    }
}

impl AdmissionPolicy for NodeGatekeeper {
    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            self.judge_applicant(&applicant)
                .await
                .unwrap_or_else(|error| {
                    tracing::error!(error = %error_chain(&error), "cannot judge an applicant");
                    Decision::Refuse(RefusalCode::Internal)
                })
        })
    }
}

impl NodeGatekeeper {
    /// The handle whose writes carry the trace id of the applicant's handshake.
    fn engine_for(&self, applicant: &Applicant<'_>) -> CoreHandle {
        self.peers.engine().traced(applicant.trace)
    }

    async fn judge_applicant(
        &self,
        applicant: &Applicant<'_>,
    ) -> Result<Decision, EngineError<StoreError>> {
        let (peer, engine) = (applicant.claims.peer_id(), self.engine_for(applicant));
        let server = applicant.claims.chain.oid();
        let known = engine.read(move |view| {
            let rows = view.rows;
            Ok::<_, StoreError>((
                rows.peer(&peer)?,
                rows.verdict(&peer)?,
                rows.is_purging(&peer)?,
                identities::known_server_chain(&view, &server)?,
            ))
        });
        let (row, verdict, is_purging, chain) = known.await?;
        // Refused without a ticket: a shorter chain is of a restored or stolen key, a fork of a
        // stolen one.
        if chain.is_some_and(|known| !applicant.claims.node.continues(&known)) {
            tracing::warn!(
                %peer,
                "refused a node whose key chain does not continue the known one: stolen or \
                 restored keys"
            );
            return Ok(Decision::Refuse(RefusalCode::Signature));
        }
        let config = self.policy.get();
        let facts = Facts {
            tier: row.map(|row| row.tier),
            is_listed: config.allow.contains(&peer),
            is_purging,
            verdict,
            ticket_issued: applicant.ticket_issued,
            is_full: self.peers.registry().is_full_without(
                &peer,
                Tier::Untrusted,
                applicant.effort,
            ),
            is_full_for_trusted: self.peers.registry().is_full_without(
                &peer,
                Tier::Trusted,
                applicant.effort,
            ),
            now: engine.now(),
        };
        match judge(config.policy, &facts) {
            Judgement::Decided(decision) => Ok(decision),
            Judgement::NeedsApproval => self.note_request(applicant, &config).await,
        }
    }

    /// Stores an applicant as a pending request, where their number allows it.
    async fn note_request(
        &self,
        applicant: &Applicant<'_>,
        config: &AdmissionConfig,
    ) -> Result<Decision, EngineError<StoreError>> {
        let (claims, engine) = (applicant.claims, self.engine_for(applicant));
        let (peer, identities, limits) = (
            claims.peer_id(),
            claims.identities.clone(),
            engine.context().limits.graph,
        );
        let bounds = PendingBounds {
            rows_max: config.pending_max,
            since: config.pending_since(engine.now()),
        };
        // Checked before the names are verified, so that a refused request costs no signature and
        // no write.
        let effort = applicant.effort;
        if !engine
            .read(move |view| view.rows.may_wait(&peer, effort, &bounds))
            .await?
        {
            return Ok(Decision::Refuse(RefusalCode::Busy));
        }
        // Verifies at most about twenty signatures, for each of which the applicant has solved a
        // puzzle.
        let reading =
            tokio::task::spawn_blocking(move || claimed_names(&peer, identities, &limits));
        let request = PendingRequest {
            peer_id: peer,
            onion: claims.onion,
            apps: claims.apps.iter().map(|app| app.slug.clone()).collect(),
            sync_domains: claims.sync_domains.clone(),
            names: reading.await.unwrap_or_default(),
            effort: applicant.effort,
        };
        let noting =
            engine.graph(move |graph| graph.tx().put_pending(&request, graph.now(), &bounds));
        if noting.await? {
            tracing::info!(%peer, "an unadmitted node waits for approval");
            Ok(Decision::Refuse(RefusalCode::Pending))
        } else {
            Ok(Decision::Refuse(RefusalCode::Busy))
        }
    }
}

#[cfg(test)]
mod tests {
    use bastion::transport::memory::MemoryNet;
    use keys::TraceId;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Policy;
    use crate::peer::handshake_testing::admitted;
    use crate::peer::log_testing::CapturedLog;
    use crate::peer::testing::{TestCore, manual};

    #[tokio::test]
    async fn request_is_written_under_the_trace_id_of_its_handshake() {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        let (_, admitted) = admitted(&MemoryNet::new(), &peer, &node).await.accepted;
        let policy = ActivePolicy::new(AdmissionConfig::default());
        policy.set_policy(Policy::Approve);
        let gatekeeper = NodeGatekeeper {
            peers: SyncService::new(node.core.clone(), manual(), CancellationToken::new()),
            policy,
            boot_id: BootId::from_bytes([1; 16]),
        };
        let log = CapturedLog::start_at(tracing::Level::INFO);
        let applicant = Applicant {
            claims: admitted.claims(),
            effort: 8,
            ticket_issued: None,
            trace: TraceId(0xabc),
        };
        let decision = gatekeeper.decide(applicant).await;
        assert_eq!(decision, Decision::Refuse(RefusalCode::Pending));
        let writes = log.lines("write{trace=0000000000000abc}");
        assert!(!writes.is_empty(), "{:?}", log.lines(""));
    }
}
