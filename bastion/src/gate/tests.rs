//! What only shows from inside: a full pool, and a stream that is lost while its solution is judged.

use std::sync::mpsc::{Sender, channel};

use futures::future::BoxFuture;
use keys::{BootId, Epoch};
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio::io::duplex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::claims::Profile;
use crate::handshake::{Admitted, AwaitChallenge, AwaitWelcome, Work};
use crate::messages::{Message, Refused};
use crate::puzzle::{Attempt, solve};

/// Admits everybody, as soon as it is told to.
#[derive(Default)]
struct Slow(Mutex<Option<oneshot::Receiver<()>>>);

impl Gatekeeper for Slow {
    fn profile(&self) -> BoxFuture<'_, Result<Profile, Internal>> {
        let profile = Profile {
            apps: Vec::new(),
            sync_domains: Vec::new(),
            epoch: Epoch::from_bytes([1; 16]),
            boot_id: BootId::from_bytes([1; 16]),
            identities: Vec::new(),
        };
        Box::pin(async { Ok(profile) })
    }

    fn decide<'a>(&'a self, _: Applicant<'a>) -> BoxFuture<'a, Decision> {
        let told = self.0.lock().take();
        Box::pin(async {
            if let Some(told) = told {
                told.await.unwrap();
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

fn gate(seed: u64, gatekeeper: Slow) -> Gate {
    gate_with(config(), seed, Arc::new(gatekeeper))
}

fn gate_with(config: GateConfig, seed: u64, gatekeeper: Arc<Slow>) -> Gate {
    let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(seed)));
    let now = Arc::new(|| 1_700_000_000);
    Gate::new(config, keys, gatekeeper, now)
}

type Admitting = JoinHandle<Result<(Session, Admitted), HandshakeError>>;

fn stream(gate: &Gate) -> (Session, Admitting) {
    let (near, far) = duplex(64);
    let gate = gate.clone();
    let admitting = tokio::spawn(async move { gate.admit(far).await });
    (Session::new(near, 8192), admitting)
}

async fn say(session: &mut Session, frame: &[u8]) -> Message {
    session.writer.write(frame).await.unwrap();
    hear(session).await
}

async fn hear(session: &mut Session) -> Message {
    Message::decode(&session.reader.read().await.unwrap().unwrap(), 8192).unwrap()
}

/// Bob's solution of a challenge of Alice's, made on a stream that is gone.
async fn solution(alice: &Gate, bob: &Gate) -> (Vec<u8>, AwaitWelcome) {
    let (mut session, _) = stream(alice);
    let onion = alice.0.here.keys.onion();
    let (hello, next) = AwaitChallenge::begin(bob.0.here.clone(), onion, None);
    let challenge = say(&mut session, &hello).await;
    let solving = next.receive(&challenge.encode()).unwrap();
    let puzzle = solving.puzzle(0).unwrap().unwrap();
    let nonce = solve(&puzzle, [0; 16], 1, &Attempt::default()).unwrap();
    let profile = bob.0.gatekeeper.profile().await.unwrap();
    solving.solved(Work { nonce, more: 0 }, profile, Duration::ZERO)
}

/// Keeps the one worker busy and its queue full.
async fn fill(gate: &Gate) -> (Sender<()>, JoinHandle<()>) {
    let ((release, held), (begun, begins)) = (channel::<()>(), oneshot::channel());
    let working = gate.clone();
    let job = move |_: &mut crate::puzzle::Memory| {
        begun.send(()).unwrap();
        held.recv().unwrap();
    };
    let occupied = tokio::spawn(async move { working.0.pool.run(Some(1), job).await.unwrap() });
    begins.await.unwrap();
    let mut waiting = Box::pin(gate.0.pool.run(Some(u64::MAX), |_| ()));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    drop(waiting);
    (release, occupied)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_queue_full_is_told_when_to_come_again_and_keeps_its_serial() {
    let (alice, bob) = (gate(1, Slow::default()), gate(2, Slow::default()));
    let (frame, awaiting) = solution(&alice, &bob).await;
    let (release, occupied) = fill(&alice).await;
    let (mut session, admitting) = stream(&alice);
    match say(&mut session, &frame).await {
        Message::Refused(Refused { code, retry_s }) => {
            assert_eq!(code, RefusalCode::Busy);
            // The queue is full, which is half of the longest pause.
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
    assert!(
        awaiting
            .receive(&no_longer_busy(&alice, &frame).await)
            .is_ok()
    );
}

/// The answer to a solution on one stream after another, once it is another than `busy`.
async fn no_longer_busy(gate: &Gate, frame: &[u8]) -> Vec<u8> {
    loop {
        let (mut session, _) = stream(gate);
        match say(&mut session, frame).await {
            Message::Refused(Refused { code, .. }) => assert_eq!(code, RefusalCode::Busy),
            answer => return answer.encode(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_solution_whose_stream_is_lost_is_judged_to_the_end_and_its_answer_kept() {
    let (decide, decided) = oneshot::channel();
    let (alice, bob) = (
        gate(1, Slow(Mutex::new(Some(decided)))),
        gate(2, Slow::default()),
    );
    let (frame, awaiting) = solution(&alice, &bob).await;
    let (mut first, admitting) = stream(&alice);
    first.writer.write(&frame).await.unwrap();
    while alice.status().answers == 0 {
        tokio::task::yield_now().await;
    }
    // Another stream with the same solution: it is being judged, and may come again.
    let (mut second, _) = stream(&alice);
    match say(&mut second, &frame).await {
        Message::Refused(Refused { code, retry_s }) => {
            assert_eq!((code, retry_s.is_some()), (RefusalCode::Busy, true));
        }
        other => panic!("{}", other.kind()),
    }
    admitting.abort();
    drop(first);
    decide.send(()).unwrap();
    assert!(
        awaiting
            .receive(&no_longer_busy(&alice, &frame).await)
            .is_ok()
    );
}

#[tokio::test]
async fn a_decision_about_an_answer_that_is_asked_for_again_has_a_deadline_too() {
    let slow = Arc::new(Slow::default());
    let (alice, bob) = (
        gate_with(config(), 1, slow.clone()),
        gate(2, Slow::default()),
    );
    let (frame, awaiting) = solution(&alice, &bob).await;
    let (mut first, _) = stream(&alice);
    assert!(
        awaiting
            .receive(&say(&mut first, &frame).await.encode())
            .is_ok()
    );
    // From here on only deadlines are awaited.
    tokio::time::pause();
    let (_never, decided) = oneshot::channel();
    *slow.0.lock() = Some(decided);
    let (mut second, admitting) = stream(&alice);
    second.writer.write(&frame).await.unwrap();
    let ended = timeout(Duration::from_secs(3600), admitting).await;
    assert!(matches!(
        ended.unwrap().unwrap(),
        Err(HandshakeError::Timeout(Step::Decision))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_solution_that_waits_on_two_streams_is_used_up_for_neither() {
    let roomy = GateConfig {
        verify_queue_max: 3,
        ..config()
    };
    let alice = gate_with(roomy, 1, Arc::new(Slow::default()));
    let (frame, awaiting) = solution(&alice, &gate(2, Slow::default())).await;
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
        match hear(session).await {
            Message::Refused(Refused { code, .. }) => assert_eq!(code, RefusalCode::Busy),
            answer => {
                assert!(awaiting.clone().receive(&answer.encode()).is_ok());
                welcomes += 1;
            }
        }
    }
    assert!(welcomes >= 1);
}
