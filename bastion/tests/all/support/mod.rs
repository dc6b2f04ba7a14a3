//! Nodes with fixed keys, and a client that sends arbitrary frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bastion::handshake::{AwaitChallenge, AwaitWelcome, HandshakeContext, Work};
use bastion::messages::{HandshakeMessage, Hello, Refusal};
use bastion::puzzle::{Attempt, solve};
use bastion::{
    AdmissionPolicy, Admitted, AppClaim, Applicant, Connector, Decision, Features, Gate,
    GateConfig, HandshakeError, Internal, Listener, LocalProfile, NodeProfile, RefusalCode,
    Session, Tier, Transport,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager, SchemaDigest};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const NOW: u64 = 1_700_000_000;

pub(crate) fn easy() -> GateConfig {
    GateConfig {
        effort_idle: 2,
        effort_base: 2,
        inner_bits: 2,
        ..GateConfig::default()
    }
}

/// A profile and a decision that tests set.
pub(crate) struct TestPolicy {
    pub(crate) profile: NodeProfile,
    pub(crate) decision: Mutex<Decision>,
    /// Time of issue of the last applicant's ticket.
    pub(crate) ticket_issued: Mutex<Option<u64>>,
}

impl LocalProfile for TestPolicy {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        Box::pin(async { Ok(self.profile.clone()) })
    }
}

impl AdmissionPolicy for TestPolicy {
    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision> {
        *self.ticket_issued.lock() = applicant.ticket_issued;
        let decision = *self.decision.lock();
        Box::pin(async move { decision })
    }
}

/// Gate, connector and keys of a node, with a clock that tests set.
pub(crate) struct Node {
    pub(crate) gate: Gate,
    pub(crate) connector: Connector,
    pub(crate) keys: Arc<KeyManager>,
    pub(crate) profile: NodeProfile,
    pub(crate) config: GateConfig,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) policy: Arc<TestPolicy>,
}

impl Node {
    pub(crate) fn new(
        number: u64,
        domains: &[&str],
        config: GateConfig,
        decision: Decision,
    ) -> Self {
        let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(
            number,
        )));
        let profile = NodeProfile {
            apps: vec![AppClaim::new(
                "messages",
                1,
                SchemaDigest::from_bytes([1; 16]),
            )],
            sync_domains: domains.iter().map(|name| name.to_string()).collect(),
            epoch: Epoch::from_bytes([number as u8; 16]),
            boot_id: BootId::from_bytes([number as u8; 16]),
            identities: Vec::new(),
        };
        let policy = Arc::new(TestPolicy {
            profile: profile.clone(),
            decision: Mutex::new(decision),
            ticket_issued: Mutex::default(),
        });
        let clock = Arc::new(AtomicU64::new(NOW));
        let reads = clock.clone();
        let now = Arc::new(move || reads.load(Ordering::Relaxed));
        let connector = Connector::new(config.clone(), keys.clone(), policy.clone());
        let gate = Gate::new(
            config.clone(),
            keys.clone(),
            policy.clone(),
            policy.clone(),
            now,
        );
        Self {
            gate,
            connector,
            keys,
            profile,
            config,
            clock,
            policy,
        }
    }

    pub(crate) fn alice(config: GateConfig) -> Self {
        Self::new(
            1000,
            &["messages", "rides.offers", "market.public_offers"],
            config,
            Decision::Admit(Tier::Untrusted),
        )
    }

    pub(crate) fn bob() -> Self {
        Self::new(
            2000,
            &["identities", "rides.offers", "messages"],
            easy(),
            Decision::Admit(Tier::Untrusted),
        )
    }

    /// Sets the policy's decision from now on.
    pub(crate) fn set_decision(&self, decision: Decision) {
        *self.policy.decision.lock() = decision;
    }

    /// Solves a challenge of `server`. Returns the solution and the next state.
    pub(crate) fn solve(&self, challenge: &[u8], server: &Node) -> (Vec<u8>, AwaitWelcome) {
        let (_, next) = AwaitChallenge::begin(self.context(), server.keys.onion(), None);
        let solving = next.receive(challenge).unwrap();
        let puzzle = solving.puzzle(0).unwrap().unwrap();
        let nonce = solve(&puzzle, [0; 16], 1, &Attempt::default()).unwrap();
        solving.solved(
            Work {
                nonce,
                extra_doublings: 0,
            },
            self.profile.clone(),
            Default::default(),
        )
    }

    pub(crate) fn context(&self) -> Arc<HandshakeContext> {
        Arc::new(HandshakeContext {
            config: self.config.clone(),
            keys: self.keys.clone(),
        })
    }

    /// Serves a listener in the background. Admitted sessions arrive at the receiver.
    pub(crate) fn serve(
        &self,
        listener: impl Listener,
    ) -> mpsc::UnboundedReceiver<(Session, Admitted)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let gate = self.gate.clone();
        let on_admitted = move |session, admitted| drop(sender.send((session, admitted)));
        tokio::spawn(async move {
            gate.serve(Box::new(listener), on_admitted, CancellationToken::new())
                .await;
        });
        receiver
    }

    pub(crate) async fn dial(
        &self,
        transport: &dyn Transport,
        to: &Node,
    ) -> Result<(Session, Admitted), HandshakeError> {
        self.connector
            .dial(transport, &to.keys.onion(), None, &|_| ())
            .await
    }
}

/// A client that sends arbitrary frames to a gate, over a pipe of 64 bytes.
pub(crate) struct RawClient {
    pub(crate) session: Session,
    pub(crate) admitting: tokio::task::JoinHandle<Result<(Session, Admitted), HandshakeError>>,
}

impl RawClient {
    pub(crate) fn connect(alice: &Node) -> Self {
        let (near, far) = duplex(64);
        let gate = alice.gate.clone();
        Self {
            session: Session::new(near, 1 << 20),
            admitting: tokio::spawn(async move { gate.admit(far).await }),
        }
    }

    /// Sends one frame on a new stream and returns the reply.
    pub(crate) async fn exchange(alice: &Node, frame: &[u8]) -> Vec<u8> {
        Self::connect(alice).send(frame).await.receive().await
    }

    /// Sends one frame on a new stream and returns the refusal code and the gate's error.
    pub(crate) async fn refused(alice: &Node, frame: &[u8]) -> (RefusalCode, HandshakeError) {
        Self::connect(alice).send(frame).await.refusal().await
    }

    pub(crate) async fn send(mut self, frame: &[u8]) -> Self {
        self.session.writer.write(frame).await.unwrap();
        self
    }

    pub(crate) async fn receive(&mut self) -> Vec<u8> {
        self.session.reader.read().await.unwrap().unwrap()
    }

    /// Returns the refusal code that the client receives, and the gate's error.
    pub(crate) async fn refusal(mut self) -> (RefusalCode, HandshakeError) {
        let frame = self.receive().await;
        drop(self.session);
        match HandshakeMessage::decode(&frame, 8192).unwrap() {
            HandshakeMessage::Refused(Refusal { code, .. }) => {
                (code, self.admitting.await.unwrap().unwrap_err())
            }
            other => panic!("got a {}", other.kind()),
        }
    }
}

pub(crate) fn hello() -> Vec<u8> {
    HandshakeMessage::Hello(Hello {
        ticket: None,
        features: Features::none(),
        versions: vec![1],
    })
    .encode()
}
