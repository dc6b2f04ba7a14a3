//! Repeated handshakes: the same solution again, a ticket, and retries after `busy`.

use std::sync::atomic::Ordering;

use bastion::messages::{Cookie, HandshakeMessage, Refusal, Solution};
use bastion::transport::memory::MemoryNet;
use bastion::{
    Decision, GateConfig, HandshakeError, Listener, Misbehaviour, Progress, RefusalCode, Session,
    Ticket, Tier,
};
use parking_lot::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::support::{NOW, Node, RawClient, easy, hello};

/// Bob's solution of a challenge of Alice's. The stream of the challenge is closed.
async fn solution(alice: &Node, bob: &Node) -> (Vec<u8>, bastion::handshake::AwaitWelcome) {
    let mut first = RawClient::connect(alice).send(&hello()).await;
    bob.solve(&first.receive().await, alice)
}

#[tokio::test]
async fn solution_gets_the_same_reply_on_every_stream() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, next) = solution(&alice, &bob).await;
    let mut second = RawClient::connect(&alice).send(&solution).await;
    let welcome = second.receive().await;
    assert_eq!(
        next.receive(&welcome).unwrap().claims().peer_id(),
        alice.keys.peer_id()
    );
    let (_, at_first) = second.admitting.await.unwrap().unwrap();
    for _ in 0..8 {
        let mut again = RawClient::connect(&alice).send(&solution).await;
        assert_eq!(again.receive().await, welcome);
        let (_, admitted) = again.admitting.await.unwrap().unwrap();
        assert_eq!(admitted.claims().peer_id(), bob.keys.peer_id());
        assert_eq!(admitted.domains(), at_first.domains());
    }
    // Replays are limited, because each one costs a session.
    let (code, error) = RawClient::connect(&alice)
        .send(&solution)
        .await
        .refusal()
        .await;
    assert_eq!(code, RefusalCode::Used);
    assert!(matches!(
        error,
        HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed)
    ));
    assert!(!error.is_abuse());
    // The solution was verified once.
    assert_eq!(alice.gate.status().admissions_per_minute, 1);
}

#[tokio::test]
async fn another_solution_of_a_used_cookie_is_refused() {
    let (alice, bob, mallory) = (
        Node::alice(easy()),
        Node::bob(),
        Node::new(3000, &[], easy(), Decision::Admit(Tier::Untrusted)),
    );
    let mut client = RawClient::connect(&alice).send(&hello()).await;
    let challenge = client.receive().await;
    let (his, _) = bob.solve(&challenge, &alice);
    let (hers, _) = mallory.solve(&challenge, &alice);
    RawClient::connect(&alice).send(&his).await.receive().await;
    assert_eq!(
        RawClient::connect(&alice)
            .send(&hers)
            .await
            .refusal()
            .await
            .0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn cached_refusal_is_replayed_and_cached_welcome_is_decided_again() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    alice.set_decision(Decision::Refuse(RefusalCode::Pending));
    let (refused, _) = solution(&alice, &bob).await;
    for _ in 0..2 {
        let (code, _) = RawClient::connect(&alice)
            .send(&refused)
            .await
            .refusal()
            .await;
        assert_eq!(code, RefusalCode::Pending);
    }
    alice.set_decision(Decision::Admit(Tier::Untrusted));
    assert_eq!(
        RawClient::connect(&alice)
            .send(&refused)
            .await
            .refusal()
            .await
            .0,
        RefusalCode::Pending
    );
    // A cached welcome is decided again: a peer that was banned meanwhile is refused.
    let (solution, _) = solution(&alice, &bob).await;
    RawClient::connect(&alice)
        .send(&solution)
        .await
        .receive()
        .await;
    alice.set_decision(Decision::Refuse(RefusalCode::Banned));
    assert_eq!(
        RawClient::connect(&alice)
            .send(&solution)
            .await
            .refusal()
            .await
            .0,
        RefusalCode::Banned
    );
    alice.gate.forget_replies(&bob.keys.peer_id());
    assert_eq!(
        RawClient::connect(&alice)
            .send(&solution)
            .await
            .refusal()
            .await
            .0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn cached_welcome_is_not_replayed_after_a_change_of_tier() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, _) = solution(&alice, &bob).await;
    RawClient::connect(&alice)
        .send(&solution)
        .await
        .receive()
        .await;
    // The ticket in the cached welcome names the old tier.
    alice.set_decision(Decision::Admit(Tier::Trusted));
    assert_eq!(
        RawClient::connect(&alice)
            .send(&solution)
            .await
            .refusal()
            .await
            .0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn cached_reply_ends_with_its_cookie() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, _) = solution(&alice, &bob).await;
    RawClient::connect(&alice)
        .send(&solution)
        .await
        .receive()
        .await;
    alice.clock.store(NOW + 601, Ordering::Relaxed);
    assert_eq!(
        RawClient::connect(&alice)
            .send(&solution)
            .await
            .refusal()
            .await
            .0,
        RefusalCode::Expired
    );
}

/// Returns the ticket that Alice gives Bob.
async fn ticket(alice: &Node, bob: &Node, net: &MemoryNet) -> Ticket {
    let (_, admitted) = bob.dial(&net.transport(), alice).await.unwrap();
    admitted.ticket().unwrap().clone()
}

#[tokio::test]
async fn ticket_replaces_the_work_also_after_a_restart() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let ticket = ticket(&alice, &bob, &net).await;
    // The same keys after a restart, and an effort that no client can solve.
    let high_effort = GateConfig {
        effort_idle: 1 << 40,
        effort_base: 1 << 40,
        effort_max: 1 << 40,
        ..easy()
    };
    let restarted = Node::alice(high_effort);
    let net = MemoryNet::new();
    let mut admitted = restarted.serve(net.listen(restarted.keys.onion()));
    restarted.clock.store(NOW + 5, Ordering::Relaxed);
    let steps = Mutex::new(Vec::new());
    let note = |step| steps.lock().push(step);
    let (_session, at_bob) = bob
        .connector
        .dial(
            &net.transport(),
            &restarted.keys.onion(),
            Some(ticket),
            &note,
        )
        .await
        .unwrap();
    let (_, at_alice) = admitted.recv().await.unwrap();
    assert_eq!((at_bob.effort(), at_alice.effort()), (0, 0));
    assert_eq!(*steps.lock(), [Progress::Dialling, Progress::Presenting]);
    assert_eq!(*restarted.policy.ticket_issued.lock(), Some(NOW));
    let status = restarted.gate.status();
    assert_eq!(
        (status.by_ticket_total, status.admissions_per_minute),
        (1, 0)
    );
    assert!(at_bob.ticket().is_some());
}

#[tokio::test]
async fn ticket_holder_is_admitted_while_all_other_slots_are_taken() {
    let config = GateConfig {
        open_handshakes_max: 4,
        trusted_handshakes_max: 1,
        ..easy()
    };
    let alice = Node::alice(config);
    alice.set_decision(Decision::Admit(Tier::Trusted));
    let (bob, net) = (Node::bob(), MemoryNet::new());
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let ticket = ticket(&alice, &bob, &net).await;
    let mut handshakes = Vec::new();
    for _ in 0..4 {
        let mut client = RawClient::connect(&alice).send(&hello()).await;
        client.receive().await;
        handshakes.push(client);
    }
    assert_eq!(alice.gate.status().handshakes.without_ticket(), 4);
    let (_, at_bob) = bob
        .connector
        .dial(&net.transport(), &alice.keys.onion(), Some(ticket), &|_| ())
        .await
        .unwrap();
    assert_eq!(at_bob.effort(), 0);
}

/// Accepts one stream for each entry of `script` and sends the replies of that entry.
async fn scripted(mut listener: impl Listener, script: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    for answers in script {
        let mut session = Session::new(listener.accept().await.unwrap().stream, 8192);
        for answer in answers {
            received.push(session.reader.read().await.unwrap().unwrap());
            session.writer.write(&answer).await.unwrap();
        }
        drop(session);
    }
    received
}

fn refused(code: RefusalCode, retry_s: Option<u32>) -> Vec<u8> {
    HandshakeMessage::Refused(Refusal { code, retry_s }).encode()
}

fn solution_of(frame: &[u8]) -> Solution {
    match HandshakeMessage::decode(frame, 8192).unwrap() {
        HandshakeMessage::Solution(solution) => solution,
        other => panic!("got a {}", other.kind()),
    }
}

#[tokio::test]
async fn busy_client_retries_with_the_same_solution_and_then_with_extra_doublings() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let challenge = RawClient::connect(&alice)
        .send(&hello())
        .await
        .receive()
        .await;
    let busy = refused(RefusalCode::Busy, Some(0));
    let script = vec![
        vec![busy.clone()],
        vec![challenge, busy.clone()],
        vec![busy.clone()],
        vec![busy],
        vec![refused(RefusalCode::Policy, None)],
    ];
    let listening = tokio::spawn(scripted(net.listen(alice.keys.onion()), script));
    let waits = Mutex::new(0);
    let note = |step| {
        if matches!(step, Progress::Waiting(_)) {
            *waits.lock() += 1;
        }
    };
    let dialled = bob
        .connector
        .dial(&net.transport(), &alice.keys.onion(), None, &note)
        .await;
    assert!(matches!(
        dialled,
        Err(HandshakeError::Refused {
            code: RefusalCode::Policy,
            ..
        })
    ));
    let received = listening.await.unwrap();
    let solutions: Vec<_> = received[2..]
        .iter()
        .map(|frame| solution_of(frame))
        .collect();
    assert_eq!(
        solutions
            .iter()
            .map(|solution| solution.extra_doublings)
            .collect::<Vec<_>>(),
        [0, 0, 1, 1]
    );
    assert_eq!(received[2], received[3], "the same solution");
    assert_eq!(received[4], received[5]);
    let cookies: Vec<_> = solutions
        .iter()
        .map(|solution| solution.cookie.clone())
        .collect();
    assert!(
        cookies.iter().all(|cookie| *cookie == cookies[0]),
        "the client solves the same challenge"
    );
    assert_eq!(Cookie::decode(&cookies[0]).unwrap().effort, 2);
    // The client does not wait before it does extra work.
    assert_eq!(*waits.lock(), 3);
}

#[tokio::test(start_paused = true)]
async fn client_limits_its_retries_and_their_delay() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let busy = vec![refused(RefusalCode::Busy, Some(u32::MAX))];
    let listening = tokio::spawn(scripted(net.listen(alice.keys.onion()), vec![busy; 8]));
    let longest = Mutex::new(std::time::Duration::ZERO);
    let note = |step| {
        if let Progress::Waiting(wait) = step {
            let mut longest = longest.lock();
            *longest = wait.max(*longest);
        }
    };
    let dialled = bob
        .connector
        .dial(&net.transport(), &alice.keys.onion(), None, &note)
        .await;
    assert!(matches!(dialled, Err(HandshakeError::Refused { .. })));
    assert_eq!(listening.await.unwrap().len(), 8);
    assert!(*longest.lock() <= std::time::Duration::from_secs(30));
}

#[tokio::test]
async fn solution_stays_valid_when_no_session_slot_is_free() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    alice.set_decision(Decision::Refuse(RefusalCode::Busy));
    let (solution, next) = solution(&alice, &bob).await;
    for busy in 1..=2 {
        let (code, error) = RawClient::connect(&alice)
            .send(&solution)
            .await
            .refusal()
            .await;
        assert_eq!(code, RefusalCode::Busy);
        assert!(matches!(error, HandshakeError::Busy));
        assert_eq!(alice.gate.status().busy_total, busy);
    }
    alice.set_decision(Decision::Admit(Tier::Untrusted));
    let welcome = RawClient::connect(&alice)
        .send(&solution)
        .await
        .receive()
        .await;
    assert!(next.receive(&welcome).is_ok());
}

/// Presents a solution and reads only the length of the reply.
async fn present_without_reading(alice: &Node, solution: &[u8]) -> DuplexStream {
    let (mut near, far) = duplex(64);
    let gate = alice.gate.clone();
    tokio::spawn(async move { gate.admit(far).await });
    near.write_all(&(solution.len() as u32).to_be_bytes())
        .await
        .unwrap();
    near.write_all(solution).await.unwrap();
    near.read_u32().await.unwrap();
    near
}

#[tokio::test]
async fn client_that_does_not_read_its_welcome_is_evicted() {
    let alice = Node::alice(GateConfig {
        open_handshakes_max: 2,
        ..easy()
    });
    let (solution, _) = solution(&alice, &Node::bob()).await;
    let _unread = [
        present_without_reading(&alice, &solution).await,
        present_without_reading(&alice, &solution).await,
    ];
    let answer = RawClient::connect(&alice)
        .send(&hello())
        .await
        .receive()
        .await;
    assert_eq!(
        HandshakeMessage::decode(&answer, 8192).unwrap().kind(),
        "challenge"
    );
}

#[tokio::test]
async fn solution_is_verified_a_limited_number_of_times_without_a_session_slot() {
    let alice = Node::alice(easy());
    alice.set_decision(Decision::Refuse(RefusalCode::Busy));
    let (solution, _) = solution(&alice, &Node::bob()).await;
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(
            RawClient::connect(&alice)
                .send(&solution)
                .await
                .refusal()
                .await
                .0,
        );
    }
    assert_eq!(codes[..9], [RefusalCode::Busy; 9]);
    assert_eq!(codes[9..], [RefusalCode::Used; 3]);
    // The solution counts once as verified work.
    assert_eq!(alice.gate.status().admissions_per_minute, 1);
}

#[tokio::test]
async fn verified_work_raises_the_effort_even_when_refused() {
    let alice = Node::alice(GateConfig {
        effort_base: 4,
        admissions_per_minute_max: 4,
        ..easy()
    });
    alice.set_decision(Decision::Refuse(RefusalCode::Pending));
    for _ in 0..4 {
        let (solution, _) = solution(&alice, &Node::bob()).await;
        let (code, _) = RawClient::connect(&alice)
            .send(&solution)
            .await
            .refusal()
            .await;
        assert_eq!(code, RefusalCode::Pending);
    }
    assert!(alice.gate.status().effort >= 4);
}

#[tokio::test]
async fn client_requests_one_new_challenge_after_expiry() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let stream = || async {
        RawClient::connect(&alice)
            .send(&hello())
            .await
            .receive()
            .await
    };
    let (first, second) = (stream().await, stream().await);
    let expired = refused(RefusalCode::Expired, None);
    let script = vec![vec![first, expired.clone()], vec![second, expired]];
    let listening = tokio::spawn(scripted(net.listen(alice.keys.onion()), script));
    let dialled = bob.dial(&net.transport(), &alice).await;
    assert!(matches!(
        dialled,
        Err(HandshakeError::Refused {
            code: RefusalCode::Expired,
            ..
        })
    ));
    let received = listening.await.unwrap();
    assert_ne!(
        solution_of(&received[1]).sealed,
        solution_of(&received[3]).sealed
    );
}
