//! Nodes with fixed keys, and a stranger that speaks frames of its own.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by several test programs, each of which uses a part"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bastion::handshake::{AwaitChallenge, AwaitWelcome, Here, Work};
use bastion::messages::{Hello, Message, Refused};
use bastion::puzzle::{Attempt, solve};
use bastion::{
    Admitted, Applicant, Decision, Gate, GateConfig, Gatekeeper, HandshakeError, Internal,
    Listener, Profile, RefusalCode, Session, Tier, Transport,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const NOW: u64 = 1_700_000_000;

pub fn easy() -> GateConfig {
    GateConfig {
        effort_idle: 2,
        effort_base: 2,
        inner_bits: 2,
        ..GateConfig::default()
    }
}

pub struct Porter {
    pub profile: Profile,
    pub decision: Mutex<Decision>,
    /// When the ticket of the last applicant was issued.
    pub ticket_issued: Mutex<Option<u64>>,
}

impl Gatekeeper for Porter {
    fn profile(&self) -> BoxFuture<'_, Result<Profile, Internal>> {
        Box::pin(async { Ok(self.profile.clone()) })
    }

    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision> {
        *self.ticket_issued.lock() = applicant.ticket_issued;
        let decision = *self.decision.lock();
        Box::pin(async move { decision })
    }
}

/// A node's gate with its keys, and a clock that tests may turn.
pub struct Node {
    pub gate: Gate,
    pub keys: Arc<KeyManager>,
    pub profile: Profile,
    pub config: GateConfig,
    pub clock: Arc<AtomicU64>,
    pub porter: Arc<Porter>,
}

impl Node {
    pub fn new(number: u64, domains: &[&str], config: GateConfig, decision: Decision) -> Self {
        let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(
            number,
        )));
        let profile = Profile {
            apps: vec!["messages".into()],
            sync_domains: domains.iter().map(|name| name.to_string()).collect(),
            epoch: Epoch::from_bytes([number as u8; 16]),
            boot_id: BootId::from_bytes([number as u8; 16]),
            identities: Vec::new(),
        };
        let porter = Arc::new(Porter {
            profile: profile.clone(),
            decision: Mutex::new(decision),
            ticket_issued: Mutex::default(),
        });
        let clock = Arc::new(AtomicU64::new(NOW));
        let reads = clock.clone();
        let now = Arc::new(move || reads.load(Ordering::Relaxed));
        let gate = Gate::new(config.clone(), keys.clone(), porter.clone(), now);
        Self {
            gate,
            keys,
            profile,
            config,
            clock,
            porter,
        }
    }

    pub fn alice(config: GateConfig) -> Self {
        Self::new(
            1000,
            &["messages", "rides.offers", "market.public_offers"],
            config,
            Decision::Admit(Tier::Untrusted),
        )
    }

    pub fn bob() -> Self {
        Self::new(
            2000,
            &["identities", "rides.offers", "messages"],
            easy(),
            Decision::Admit(Tier::Untrusted),
        )
    }

    /// Changes what policy says from now on.
    pub fn decides(&self, decision: Decision) {
        *self.porter.decision.lock() = decision;
    }

    /// Works for a challenge of that node: the solution's frame, and what to make of the answer.
    pub fn solve(&self, challenge: &[u8], of: &Node) -> (Vec<u8>, AwaitWelcome) {
        let (_, next) = AwaitChallenge::begin(self.here(), of.keys.onion(), None);
        let solving = next.receive(challenge).unwrap();
        let puzzle = solving.puzzle(0).unwrap().unwrap();
        let nonce = solve(&puzzle, [0; 16], 1, &Attempt::default()).unwrap();
        solving.solved(
            Work { nonce, more: 0 },
            self.profile.clone(),
            Default::default(),
        )
    }

    pub fn here(&self) -> Arc<Here> {
        Arc::new(Here {
            config: self.config.clone(),
            keys: self.keys.clone(),
        })
    }

    /// Serves a listener in the background; admitted sessions arrive at the receiver.
    pub fn serve(&self, listener: impl Listener) -> mpsc::UnboundedReceiver<(Session, Admitted)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let gate = self.gate.clone();
        let on_admitted = move |session, admitted| drop(sender.send((session, admitted)));
        tokio::spawn(async move {
            gate.serve(Box::new(listener), on_admitted, CancellationToken::new())
                .await;
        });
        receiver
    }

    pub async fn dial(
        &self,
        transport: &dyn Transport,
        to: &Node,
    ) -> Result<(Session, Admitted), HandshakeError> {
        self.gate
            .dial(transport, &to.keys.onion(), None, &|_| ())
            .await
    }
}

/// A stranger that speaks frames of its own at Alice's gate.
pub struct Stranger {
    pub session: Session,
    pub admitting: tokio::task::JoinHandle<Result<(Session, Admitted), HandshakeError>>,
}

impl Stranger {
    pub fn at(alice: &Node) -> Self {
        let (near, far) = duplex(64);
        let gate = alice.gate.clone();
        Self {
            session: Session::new(near, 1 << 20),
            admitting: tokio::spawn(async move { gate.admit(far).await }),
        }
    }

    pub async fn says(mut self, frame: &[u8]) -> Self {
        self.session.writer.write(frame).await.unwrap();
        self
    }

    pub async fn hears(&mut self) -> Vec<u8> {
        self.session.reader.read().await.unwrap().unwrap()
    }

    /// The code that comes next, and why Alice sent it.
    pub async fn refusal(mut self) -> (RefusalCode, HandshakeError) {
        let frame = self.hears().await;
        drop(self.session);
        match Message::decode(&frame, 8192).unwrap() {
            Message::Refused(Refused { code, .. }) => {
                (code, self.admitting.await.unwrap().unwrap_err())
            }
            other => panic!("got a {}", other.kind()),
        }
    }
}

pub fn hello() -> Vec<u8> {
    Message::Hello(Hello {
        ticket: None,
        versions: vec![1],
    })
    .encode()
}
