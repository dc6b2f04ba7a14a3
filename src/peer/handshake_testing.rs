//! Handshakes for the peer tests: both sides over a memory network, with puzzles that take no time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bastion::transport::memory::MemoryNet;
use bastion::{
    AdmissionPolicy, Admitted, AppClaim, Applicant, Connector, Decision, Gate, GateConfig,
    Internal, LocalProfile, NodeProfile, RefusalCode, Session, Tier,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, SchemaDigest, SignedObject};
use tokio_util::sync::CancellationToken;

use super::service::SyncService;
use super::testing::{DOMAIN, TestCore, manual};
use crate::services::identities;

/// A node's part in a handshake: claims the domains of the tests and admits every applicant.
pub(super) struct TestProfile {
    epoch: Epoch,
    identities: Vec<SignedObject>,
    /// Whether tickets are refused as expired.
    tickets_are_void: AtomicBool,
}

impl LocalProfile for TestProfile {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        let domains = || vec!["identities".into(), DOMAIN.into()];
        let profile = NodeProfile {
            apps: vec![AppClaim::new(
                "identities",
                1,
                SchemaDigest::from_bytes([1; 16]),
            )],
            sync_domains: domains(),
            epoch: self.epoch,
            boot_id: BootId::from_bytes([1; 16]),
            identities: self.identities.clone(),
        };
        Box::pin(async { Ok(profile) })
    }
}

impl AdmissionPolicy for TestProfile {
    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision> {
        let is_void = self.tickets_are_void.load(Ordering::Relaxed);
        let decision = if is_void && applicant.ticket_issued.is_some() {
            Decision::Refuse(RefusalCode::Expired)
        } else {
            Decision::Admit(Tier::Untrusted)
        };
        Box::pin(async move { decision })
    }
}

impl TestProfile {
    async fn of(node: &TestCore) -> Arc<Self> {
        let identities = node
            .core
            .read(|view| identities::for_handshake(&view, 8))
            .await
            .unwrap();
        Arc::new(Self {
            epoch: node.epoch(),
            identities,
            tickets_are_void: AtomicBool::new(false),
        })
    }

    /// Refuses tickets from now on.
    pub(super) fn void_tickets(&self) {
        self.tickets_are_void.store(true, Ordering::Relaxed);
    }
}

/// Puzzles that take no time.
fn gate_config() -> GateConfig {
    GateConfig {
        effort_idle: 4,
        effort_base: 4,
        inner_bits: 2,
        ..GateConfig::default()
    }
}

/// The dialling side of `node`'s handshakes.
pub(super) async fn connector(node: &TestCore) -> Connector {
    let profile = TestProfile::of(node).await;
    Connector::new(gate_config(), node.keys.clone(), profile)
}

/// Serves handshakes of `node` on a memory network, in a task of its own.
async fn serve_gate(
    net: &MemoryNet,
    node: &TestCore,
    on_admitted: impl Fn(Session, Admitted) + Send + Sync + 'static,
) -> Arc<TestProfile> {
    let profile = TestProfile::of(node).await;
    let clock = Arc::new(node.clock.clone());
    let gate = Gate::new(
        gate_config(),
        node.keys.clone(),
        profile.clone(),
        profile.clone(),
        clock,
    );
    let listener = Box::new(net.listen(node.keys.onion()));
    tokio::spawn(async move {
        let stop = CancellationToken::new();
        gate.serve(listener, on_admitted, stop).await;
    });
    profile
}

/// Serves handshakes and sessions of `node` on a memory network.
pub(super) async fn serve(
    net: &MemoryNet,
    node: &TestCore,
    stop: CancellationToken,
) -> Arc<TestProfile> {
    let sync = SyncService::new(node.core.clone(), manual(), stop);
    serve_gate(net, node, move |session, admitted| {
        sync.admit_in_background(session, admitted);
    })
    .await
}

/// Both ends of a handshake.
pub(crate) struct Handshake {
    pub(crate) dialled: (Session, Admitted),
    pub(crate) accepted: (Session, Admitted),
}

/// A handshake in which `node` dialled `peer`.
pub(crate) async fn admitted(net: &MemoryNet, node: &TestCore, peer: &TestCore) -> Handshake {
    let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    serve_gate(net, peer, move |session, admitted| {
        sender.send((session, admitted)).unwrap();
    })
    .await;
    let connector = connector(node).await;
    let onion = peer.keys.onion();
    let dialled = connector
        .dial(&net.transport(), &onion, None, &|_| {})
        .await
        .unwrap();
    Handshake {
        dialled,
        accepted: accepted.recv().await.unwrap(),
    }
}
