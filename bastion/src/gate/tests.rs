//! Tests of the gate that need its private state: a full pool, and lost streams.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager};
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio::io::duplex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Gate;
use crate::claims::NodeProfile;
use crate::config::GateConfig;
use crate::error::{HandshakeError, HandshakeStep, Internal};
use crate::frames::Session;
use crate::handshake::{Admitted, AwaitChallenge, AwaitWelcome, Work};
use crate::messages::{HandshakeMessage, Refusal, RefusalCode};
use crate::policy::{AdmissionPolicy, Applicant, Decision, LocalProfile};
use crate::puzzle::{Attempt, Memory, solve};
use crate::ticket::Tier;

/// Admits every applicant. With a receiver, the next decision waits for it.
#[derive(Default)]
struct SlowPolicy(Mutex<Option<oneshot::Receiver<()>>>);

impl LocalProfile for SlowPolicy {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        let profile = NodeProfile {
            apps: Vec::new(),
            sync_domains: Vec::new(),
            epoch: Epoch::from_bytes([1; 16]),
            boot_id: BootId::from_bytes([1; 16]),
            identities: Vec::new(),
        };
        Box::pin(async { Ok(profile) })
    }
}

impl AdmissionPolicy for SlowPolicy {
    fn decide<'a>(&'a self, _: Applicant<'a>) -> BoxFuture<'a, Decision> {
        let released = self.0.lock().take();
        Box::pin(async {
            if let Some(released) = released {
                released.await.unwrap();
            }
            Decision::Admit(Tier::Untrusted)
        })
    }
}

fn config() -> GateConfig {
    GateConfig {
        effort_idle: 2,
        effort_base: 2,
        inner_bits: 1,
        verify_workers: 1,
        verify_queue_max: 1,
        ..GateConfig::default()
    }
}

fn gate(seed: u64, policy: SlowPolicy) -> Gate {
    gate_with(config(), seed, Arc::new(policy))
}

fn gate_with(config: GateConfig, seed: u64, policy: Arc<SlowPolicy>) -> Gate {
    let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(seed)));
    let clock = Arc::new(|| 1_700_000_000);
    Gate::new(config, keys, policy.clone(), policy, clock)
}

type Admitting = JoinHandle<Result<(Session, Admitted), HandshakeError>>;

fn stream(gate: &Gate) -> (Session, Admitting) {
    let (near, far) = duplex(64);
    let gate = gate.clone();
    let admitting = tokio::spawn(async move { gate.admit(far).await });
    (Session::new(near, 8192), admitting)
}

async fn request(session: &mut Session, frame: &[u8]) -> HandshakeMessage {
    session.writer.write(frame).await.unwrap();
    receive(session).await
}

async fn receive(session: &mut Session) -> HandshakeMessage {
    HandshakeMessage::decode(&session.reader.read().await.unwrap().unwrap(), 8192).unwrap()
}

/// Bob's solution of a challenge of Alice's. The stream of the challenge is closed.
async fn solution(alice: &Gate, bob: &Gate) -> (Vec<u8>, AwaitWelcome) {
    let (mut session, _) = stream(alice);
    let onion = alice.0.context.keys.onion();
    let (hello, next) = AwaitChallenge::begin(bob.0.context.clone(), onion, None);
    let challenge = request(&mut session, &hello).await;
    let solving = next.receive(&challenge.encode()).unwrap();
    let puzzle = solving.puzzle(0).unwrap().unwrap();
    let work = Work {
        nonce: solve(&puzzle, [0; 16], 1, &Attempt::default()).unwrap(),
        extra_doublings: 0,
    };
    let profile = bob.0.profile.profile().await.unwrap();
    solving.solved(work, profile, Duration::ZERO)
}

/// Occupies the one worker until the sender is used, and fills its queue.
async fn fill(gate: &Gate) -> (Sender<()>, JoinHandle<()>) {
    let ((release, released), (start, started)) = (channel::<()>(), oneshot::channel());
    let working = gate.clone();
    let job = move |_: &mut Memory| {
        start.send(()).unwrap();
        released.recv().unwrap();
    };
    let occupied = tokio::spawn(async move { working.0.pool.run(Some(1), job).await.unwrap() });
    started.await.unwrap();
    let mut waiting = Box::pin(gate.0.pool.run(Some(u64::MAX), |_| ()));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    drop(waiting);
    (release, occupied)
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_refuses_with_a_retry_delay_and_leaves_the_serial_unused() {
    let (alice, bob) = (
        gate(1, SlowPolicy::default()),
        gate(2, SlowPolicy::default()),
    );
    let (frame, awaiting) = solution(&alice, &bob).await;
    let (release, occupied) = fill(&alice).await;
    let (mut session, admitting) = stream(&alice);
    match request(&mut session, &frame).await {
        HandshakeMessage::Refused(Refusal { code, retry_s, .. }) => {
            assert_eq!(code, RefusalCode::Busy);
            // A full queue counts half, so the delay is half of the longest one.
            assert_eq!(retry_s, Some(3));
        }
        other => panic!("{}", other.kind()),
    }
    drop(session);
    assert!(matches!(
        admitting.await.unwrap(),
        Err(HandshakeError::Busy)
    ));
    release.send(()).unwrap();
    occupied.await.unwrap();
    let welcome = first_reply_but_busy(&alice, &frame).await;
    assert!(awaiting.receive(&welcome).is_ok());
}

/// Sends a solution on one stream after another until the reply is not `busy`.
async fn first_reply_but_busy(gate: &Gate, frame: &[u8]) -> Vec<u8> {
    loop {
        let (mut session, _) = stream(gate);
        match request(&mut session, frame).await {
            HandshakeMessage::Refused(Refusal { code, .. }) => assert_eq!(code, RefusalCode::Busy),
            reply => return reply.encode(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn solution_of_a_lost_stream_is_decided_and_its_reply_cached() {
    let (release, released) = oneshot::channel();
    let (alice, bob) = (
        gate(1, SlowPolicy(Mutex::new(Some(released)))),
        gate(2, SlowPolicy::default()),
    );
    let (frame, awaiting) = solution(&alice, &bob).await;
    let (mut first, admitting) = stream(&alice);
    first.writer.write(&frame).await.unwrap();
    while alice.status().cached_replies == 0 {
        tokio::task::yield_now().await;
    }
    // The same solution on another stream gets `busy` while it is being decided.
    let (mut second, _) = stream(&alice);
    match request(&mut second, &frame).await {
        HandshakeMessage::Refused(Refusal { code, retry_s, .. }) => {
            assert_eq!((code, retry_s.is_some()), (RefusalCode::Busy, true));
        }
        other => panic!("{}", other.kind()),
    }
    admitting.abort();
    drop(first);
    release.send(()).unwrap();
    let welcome = first_reply_but_busy(&alice, &frame).await;
    assert!(awaiting.receive(&welcome).is_ok());
}

#[tokio::test]
async fn decision_about_a_cached_reply_has_a_deadline() {
    let policy = Arc::new(SlowPolicy::default());
    let (alice, bob) = (
        gate_with(config(), 1, policy.clone()),
        gate(2, SlowPolicy::default()),
    );
    let (frame, awaiting) = solution(&alice, &bob).await;
    let (mut first, _) = stream(&alice);
    let welcome = request(&mut first, &frame).await.encode();
    assert!(awaiting.receive(&welcome).is_ok());
    // Paused time advances only while every task waits.
    tokio::time::pause();
    let (_never, released) = oneshot::channel();
    *policy.0.lock() = Some(released);
    let (mut second, admitting) = stream(&alice);
    second.writer.write(&frame).await.unwrap();
    let ended = timeout(Duration::from_secs(3600), admitting).await;
    assert!(matches!(
        ended.unwrap().unwrap(),
        Err(HandshakeError::Timeout(HandshakeStep::Decision))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn solution_queued_on_two_streams_gets_a_welcome_or_busy_on_each() {
    let config = GateConfig {
        verify_queue_max: 3,
        ..config()
    };
    let alice = gate_with(config, 1, Arc::new(SlowPolicy::default()));
    let (frame, awaiting) = solution(&alice, &gate(2, SlowPolicy::default())).await;
    let (release, occupied) = fill(&alice).await;
    let (mut streams, mut welcomes) = ([stream(&alice), stream(&alice)], 0);
    for (session, _) in &mut streams {
        session.writer.write(&frame).await.unwrap();
    }
    while alice.status().queue < 3 {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    occupied.await.unwrap();
    for (session, _) in &mut streams {
        match receive(session).await {
            HandshakeMessage::Refused(Refusal { code, .. }) => assert_eq!(code, RefusalCode::Busy),
            reply => {
                assert!(awaiting.clone().receive(&reply.encode()).is_ok());
                welcomes += 1;
            }
        }
    }
    assert!(welcomes >= 1);
}
