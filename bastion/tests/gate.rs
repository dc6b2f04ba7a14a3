//! The gate on real streams: the same story over narrow pipes in memory and over loopback TCP, and what strangers may
//! do to it. Fixed keys; time is paused wherever a deadline is awaited.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bastion::handshake::{AwaitChallenge, Here};
use bastion::messages::{Hello, Message, Refused};
use bastion::puzzle::{Attempt, solve};
use bastion::transport::loopback::LoopbackDirectory;
use bastion::transport::memory::MemoryNet;
use bastion::{
    Admitted, Decision, Gate, GateConfig, Gatekeeper, HandshakeError, Internal, Listener, Misbehaviour, PeerClaims,
    Profile, Progress, RefusalCode, Session, Step, Stream, Transport,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const NOW: u64 = 1_700_000_000;

fn easy() -> GateConfig {
    GateConfig {
        effort_base: 2,
        inner_bits: 2,
        ..GateConfig::default()
    }
}

struct Porter {
    profile: Profile,
    decision: Decision,
}

impl Gatekeeper for Porter {
    fn profile(&self) -> BoxFuture<'_, Result<Profile, Internal>> {
        Box::pin(async { Ok(self.profile.clone()) })
    }

    fn decide<'a>(&'a self, _: &'a PeerClaims) -> BoxFuture<'a, Decision> {
        Box::pin(async { self.decision })
    }
}

/// A node's gate with its keys, and a clock that tests may turn.
struct Node {
    gate: Gate,
    keys: Arc<KeyManager>,
    profile: Profile,
    config: GateConfig,
    clock: Arc<AtomicU64>,
}

impl Node {
    fn new(number: u64, domains: &[&str], config: GateConfig, decision: Decision) -> Self {
        let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(number)));
        let profile = Profile {
            apps: vec!["messages".into()],
            sync_domains: domains.iter().map(|name| name.to_string()).collect(),
            epoch: Epoch::from_bytes([number as u8; 16]),
            boot_id: BootId::from_bytes([number as u8; 16]),
            identities: Vec::new(),
        };
        let porter = Arc::new(Porter {
            profile: profile.clone(),
            decision,
        });
        let clock = Arc::new(AtomicU64::new(NOW));
        let reads = clock.clone();
        let now = Arc::new(move || reads.load(Ordering::Relaxed));
        let gate = Gate::new(config.clone(), keys.clone(), porter, now);
        Self {
            gate,
            keys,
            profile,
            config,
            clock,
        }
    }

    fn alice(config: GateConfig) -> Self {
        Self::new(
            1000,
            &["messages", "rides.offers", "market.public_offers"],
            config,
            Decision::Admit,
        )
    }

    fn bob() -> Self {
        Self::new(
            2000,
            &["identities", "rides.offers", "messages"],
            easy(),
            Decision::Admit,
        )
    }

    fn here(&self) -> Arc<Here> {
        Arc::new(Here {
            config: self.config.clone(),
            keys: self.keys.clone(),
        })
    }

    /// Serves a listener in the background; admitted sessions arrive at the receiver.
    fn serve(&self, listener: impl Listener) -> mpsc::UnboundedReceiver<(Session, Admitted)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let gate = self.gate.clone();
        let on_admitted = move |session, admitted| drop(sender.send((session, admitted)));
        tokio::spawn(async move {
            gate.serve(Box::new(listener), on_admitted, CancellationToken::new())
                .await;
        });
        receiver
    }

    async fn dial(&self, transport: &dyn Transport, to: &Node) -> Result<(Session, Admitted), HandshakeError> {
        self.gate.dial(transport, &to.keys.onion(), &|_| ()).await
    }
}

/// Bob dials Alice; they learn of each other and exchange a frame that no stranger could send.
async fn story(alice: Node, listener: impl Listener, transport: &dyn Transport) {
    let mut admitted = alice.serve(listener);
    let bob = Node::bob();
    let steps = Mutex::new(Vec::new());
    let note = |step| steps.lock().unwrap().push(step);
    let (mut near, at_bob) = bob.gate.dial(transport, &alice.keys.onion(), &note).await.unwrap();
    let (mut far, at_alice) = admitted.recv().await.unwrap();

    assert_eq!(at_bob.claims().peer_id(), alice.keys.peer_id());
    assert_eq!(at_alice.claims().peer_id(), bob.keys.peer_id());
    assert_eq!(at_alice.claims().onion, bob.keys.onion());
    assert_eq!(at_alice.domains(), ["messages", "rides.offers"]);
    assert_eq!(at_bob.domains(), at_alice.domains());
    assert!(at_bob.we_dialled() && !at_alice.we_dialled());

    let package = vec![7; 100_000];
    let sent = package.clone();
    let sending = tokio::spawn(async move {
        near.writer.write(&sent).await.unwrap();
        near
    });
    assert_eq!(far.reader.read().await.unwrap(), Some(package));
    let mut near = sending.await.unwrap();
    far.writer.write(b"ack").await.unwrap();
    assert_eq!(near.reader.read().await.unwrap(), Some(b"ack".to_vec()));

    let steps = steps.into_inner().unwrap();
    assert_eq!(
        (steps.first(), steps.last()),
        (Some(&Progress::Dialling), Some(&Progress::Presenting))
    );
    let (status, dialled) = (alice.gate.status(), bob.gate.status().dialled_total);
    assert_eq!((status.admitted_total, status.refused_total, dialled), (1, 0, 1));
    assert_eq!((status.open_handshakes, status.effort), (0, 2));
}

#[tokio::test]
async fn the_story_over_pipes_of_64_bytes() {
    let (alice, net) = (Node::alice(easy()), MemoryNet::new());
    let listener = net.listen(alice.keys.onion());
    story(alice, listener, &net.transport()).await;
}

#[tokio::test]
async fn the_story_over_loopback_tcp() {
    let (alice, directory) = (Node::alice(easy()), LoopbackDirectory::default());
    let listener = directory.listen(alice.keys.onion()).await.unwrap();
    story(alice, listener, &directory.transport()).await;
}

/// A stranger that speaks frames of its own at Alice's gate.
struct Stranger {
    session: Session,
    admitting: tokio::task::JoinHandle<Result<(Session, Admitted), HandshakeError>>,
}

impl Stranger {
    fn at(alice: &Node) -> Self {
        let (near, far) = duplex(64);
        let gate = alice.gate.clone();
        Self {
            session: Session::new(near, 1 << 20),
            admitting: tokio::spawn(async move { gate.admit(far).await }),
        }
    }

    async fn says(mut self, frame: &[u8]) -> Self {
        self.session.writer.write(frame).await.unwrap();
        self
    }

    async fn hears(&mut self) -> Vec<u8> {
        self.session.reader.read().await.unwrap().unwrap()
    }

    /// The code that comes next, and why Alice sent it.
    async fn refusal(mut self) -> (RefusalCode, HandshakeError) {
        let frame = self.hears().await;
        drop(self.session);
        match Message::decode(&frame, 8192).unwrap() {
            Message::Refused(Refused { code }) => (code, self.admitting.await.unwrap().unwrap_err()),
            other => panic!("got a {}", other.kind()),
        }
    }
}

fn hello() -> Vec<u8> {
    Message::Hello(Hello { versions: vec![1] }).encode()
}

#[tokio::test]
async fn strangers_that_break_a_rule_learn_a_code_and_nothing_else() {
    let alice = Node::alice(easy());
    let challenge = {
        let mut stranger = Stranger::at(&alice).says(&hello()).await;
        stranger.hears().await
    };
    let other = Message::Hello(Hello { versions: vec![9] }).encode();
    let long = vec![0; 8193];
    let table: [(&[u8], RefusalCode); 5] = [
        (b"garbage", RefusalCode::Malformed),
        (&challenge, RefusalCode::Malformed),
        (&other, RefusalCode::Version),
        (&hello()[..5], RefusalCode::Malformed),
        (&long[..8192], RefusalCode::Malformed),
    ];
    for (frame, expected) in table {
        let (code, error) = Stranger::at(&alice).says(frame).await.refusal().await;
        assert_eq!((code, error.code()), (expected, Some(expected)), "{error}");
    }
}

#[tokio::test]
async fn an_announced_length_above_the_limit_is_refused_before_its_bytes() {
    let alice = Node::alice(easy());
    let (mut near, far) = duplex(64);
    near.write_all(&8193u32.to_be_bytes()).await.unwrap();
    let gate = alice.gate.clone();
    let admitting = tokio::spawn(async move { gate.admit(far).await });
    let mut session = Session::new(near, 8192);
    let refused = session.reader.read().await.unwrap().unwrap();
    assert_eq!(Message::decode(&refused, 100).unwrap().kind(), "refused");
    drop(session);
    assert!(matches!(admitting.await.unwrap(), Err(HandshakeError::Malformed(_))));
}

#[tokio::test]
async fn a_solution_is_taken_on_any_stream_but_once() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let mut first = Stranger::at(&alice).says(&hello()).await;
    let challenge = first.hears().await;
    let (_, next) = AwaitChallenge::begin(bob.here(), alice.keys.onion());
    let solving = next.receive(&challenge).unwrap();
    let nonce = solve(solving.puzzle(), [0; 16], 1, &Attempt::default()).unwrap();
    let (solution, next) = solving.solved(nonce, bob.profile.clone(), Default::default());
    drop(first);
    let mut second = Stranger::at(&alice).says(&solution).await;
    let admitted = next.receive(&second.hears().await).unwrap();
    assert_eq!(admitted.claims().peer_id(), alice.keys.peer_id());
    let (code, error) = Stranger::at(&alice).says(&solution).await.refusal().await;
    assert_eq!(code, RefusalCode::Used);
    assert!(matches!(
        error,
        HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed)
    ));
    assert!(!error.is_abuse());
}

#[tokio::test]
async fn who_was_hung_up_on_while_working_dials_again_and_presents_the_work() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let mut admitted = alice.serve(net.listen(alice.keys.onion()));
    let (dials, presented) = (AtomicU64::new(0), AtomicU64::new(0));
    let note = |step| match step {
        Progress::Dialling => drop(dials.fetch_add(1, Ordering::Relaxed)),
        // The work is done; now the stream goes, once.
        Progress::Presenting if presented.fetch_add(1, Ordering::Relaxed) == 0 => net.cut_all(),
        _ => (),
    };
    let transport = net.transport();
    let (_near, at_bob) = bob.gate.dial(&transport, &alice.keys.onion(), &note).await.unwrap();
    let (_far, at_alice) = admitted.recv().await.unwrap();
    assert_eq!(at_alice.domains(), at_bob.domains());
    assert_eq!((dials.into_inner(), presented.into_inner()), (2, 2));
}

#[tokio::test]
async fn policy_refuses_with_its_own_code() {
    let alice = Node::new(1000, &["messages"], easy(), Decision::Refuse(RefusalCode::Policy));
    let net = MemoryNet::new();
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let refused = Node::bob().dial(&net.transport(), &alice).await.unwrap_err();
    assert!(
        matches!(refused, HandshakeError::Refused(RefusalCode::Policy)),
        "{refused}"
    );
    assert_eq!(alice.gate.status().refused_total, 1);
}

#[tokio::test(start_paused = true)]
async fn who_stalls_is_let_go_at_every_step() {
    let alice = Node::alice(easy());
    // Says nothing.
    let silent = Stranger::at(&alice);
    assert!(matches!(
        silent.admitting.await.unwrap(),
        Err(HandshakeError::Timeout(Step::Hello))
    ));
    // Begins a frame and drips no more of it.
    let (mut near, far) = duplex(64);
    near.write_all(&[0, 0, 0, 20, 1]).await.unwrap();
    assert!(matches!(
        alice.gate.admit(far).await,
        Err(HandshakeError::Timeout(Step::Hello))
    ));
    // Does not read the challenge, which is wider than the pipe.
    let deaf = Stranger::at(&alice).says(&hello()).await;
    assert!(matches!(
        deaf.admitting.await.unwrap(),
        Err(HandshakeError::Timeout(Step::Send))
    ));
    // Takes the challenge and keeps the slot.
    let mut lazy = Stranger::at(&alice).says(&hello()).await;
    lazy.hears().await;
    assert!(matches!(
        lazy.admitting.await.unwrap(),
        Err(HandshakeError::Timeout(Step::Solution))
    ));
    assert_eq!(alice.gate.status().open_handshakes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_nothing_costs_its_caller_a_deadline() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let mut listener = net.listen(alice.keys.onion());
    let transport = net.transport();
    let (accepted, dialled) = tokio::join!(listener.accept(), bob.dial(&transport, &alice));
    drop(accepted);
    assert!(matches!(dialled, Err(HandshakeError::Timeout(Step::Challenge))));
}

#[tokio::test]
async fn an_end_in_the_middle_is_no_admission() {
    let alice = Node::alice(easy());
    let (mut near, far) = duplex(64);
    near.write_all(&[0, 0, 0, 20, 1]).await.unwrap();
    drop(near);
    assert!(matches!(
        alice.gate.admit(far).await,
        Err(HandshakeError::HungUp(Step::Hello))
    ));
}

#[tokio::test]
async fn without_a_free_slot_one_is_told_busy_at_once() {
    let alice = Node::alice(GateConfig {
        open_handshakes_max: 1,
        ..easy()
    });
    let net = MemoryNet::new();
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let mut first = Session::new(net.transport().dial(&alice.keys.onion()).await.unwrap(), 8192);
    first.writer.write(&hello()).await.unwrap();
    first.reader.read().await.unwrap().unwrap();
    let refused = Node::bob().dial(&net.transport(), &alice).await.unwrap_err();
    assert!(
        matches!(refused, HandshakeError::Refused(RefusalCode::Busy)),
        "{refused}"
    );
}

#[tokio::test]
async fn crowding_raises_the_effort_within_seconds() {
    let alice = Node::alice(GateConfig {
        open_handshakes_max: 4,
        ..easy()
    });
    let mut crowd = Vec::new();
    for _ in 0..3 {
        let mut stranger = Stranger::at(&alice).says(&hello()).await;
        stranger.hears().await;
        crowd.push(stranger);
    }
    assert_eq!(alice.gate.status().open_handshakes, 3);
    alice.clock.fetch_add(5, Ordering::Relaxed);
    let mut late = Stranger::at(&alice).says(&hello()).await;
    late.hears().await;
    assert_eq!(alice.gate.status().effort, 2 << 5);
}

#[tokio::test]
async fn a_dial_that_is_dropped_or_takes_too_long_stops_working() {
    let alice = Node::alice(GateConfig {
        effort_base: 1 << 39,
        effort_max: 1 << 39,
        ..easy()
    });
    let patient = GateConfig {
        effort_accept_max: u64::MAX,
        ..easy()
    };
    let net = MemoryNet::new();
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let transport = net.transport();
    // Were the search to go on, the test's runtime could not end.
    let bob = Node::new(2000, &[], patient.clone(), Decision::Admit);
    let working = tokio::sync::Notify::new();
    let note = |step| {
        if matches!(step, Progress::Solving { evaluations: 1.., .. }) {
            working.notify_one();
        }
    };
    let onion = alice.keys.onion();
    tokio::select! {
        _ = bob.gate.dial(&transport, &onion, &note) => panic!("nobody can solve this"),
        () = working.notified() => (),
    }
    let hasty = GateConfig {
        solve_deadline_s: 0,
        ..patient
    };
    let bob = Node::new(2000, &[], hasty, Decision::Admit);
    assert!(matches!(
        bob.dial(&transport, &alice).await,
        Err(HandshakeError::Timeout(Step::Solve))
    ));
}

#[tokio::test]
async fn stopping_ends_the_strangers_and_no_admitted_session() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let (sender, mut admitted) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let on_admitted = move |session, admitted| drop(sender.send((session, admitted)));
    let (gate, listener, stopping) = (
        alice.gate.clone(),
        Box::new(net.listen(alice.keys.onion())),
        stop.clone(),
    );
    let serving = tokio::spawn(async move { gate.serve(listener, on_admitted, stopping).await });
    let (mut near, _) = bob.dial(&net.transport(), &alice).await.unwrap();
    let (mut far, _): (Session, Admitted) = admitted.recv().await.unwrap();
    let mut stranger: Stream = net.transport().dial(&alice.keys.onion()).await.unwrap();

    stop.cancel();
    serving.await.unwrap();
    assert!(stranger.read_u8().await.is_err());
    near.writer.write(b"still here").await.unwrap();
    assert_eq!(far.reader.read().await.unwrap(), Some(b"still here".to_vec()));
}

#[tokio::test]
async fn nobody_dials_itself() {
    let (alice, net) = (Node::alice(easy()), MemoryNet::new());
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let error = alice.dial(&net.transport(), &alice).await.unwrap_err();
    assert!(matches!(error, HandshakeError::NotAdmitted(RefusalCode::OwnPeerId)));
}
