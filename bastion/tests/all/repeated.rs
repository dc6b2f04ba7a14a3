//! Repeated handshakes at the server: the same solution again, and tickets.

use std::sync::atomic::Ordering;

use bastion::messages::HandshakeMessage;
use bastion::transport::memory::MemoryNet;
use bastion::{
    Decision, GateConfig, HandshakeError, Misbehaviour, Progress, RefusalCode, Ticket, Tier,
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
    let (code, error) = RawClient::refused(&alice, &solution).await;
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
async fn restart_and_full_cache_drop_replies() {
    let small = GateConfig {
        cached_replies_max: 1,
        ..easy()
    };
    let (alice, bob) = (Node::alice(small), Node::bob());
    let (first, _) = solution(&alice, &bob).await;
    let (second, _) = solution(&alice, &bob).await;
    let welcomed = async |solution: &[u8]| {
        let mut client = RawClient::connect(&alice).send(solution).await;
        let welcome = client.receive().await;
        client.admitting.await.unwrap().unwrap();
        welcome
    };
    let welcome = welcomed(&first).await;
    assert_eq!(welcomed(&first).await, welcome);
    // The newer reply takes the place of the oldest one.
    welcomed(&second).await;
    let (code, _) = RawClient::refused(&alice, &first).await;
    assert_eq!(code, RefusalCode::Used);
    // After a restart the server knows no cookie of the time before.
    let (code, _) = RawClient::refused(&Node::alice(easy()), &second).await;
    assert_eq!(code, RefusalCode::Expired);
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
    RawClient::exchange(&alice, &his).await;
    assert_eq!(RawClient::refused(&alice, &hers).await.0, RefusalCode::Used);
}

#[tokio::test]
async fn cached_refusal_is_replayed_and_cached_welcome_is_decided_again() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    alice.set_decision(Decision::Refuse(RefusalCode::Pending));
    let (refused, _) = solution(&alice, &bob).await;
    for _ in 0..2 {
        let (code, _) = RawClient::refused(&alice, &refused).await;
        assert_eq!(code, RefusalCode::Pending);
    }
    alice.set_decision(Decision::Admit(Tier::Untrusted));
    assert_eq!(
        RawClient::refused(&alice, &refused).await.0,
        RefusalCode::Pending
    );
    // A cached welcome is decided again: a peer that was banned meanwhile is refused.
    let (solution, _) = solution(&alice, &bob).await;
    RawClient::exchange(&alice, &solution).await;
    alice.set_decision(Decision::Refuse(RefusalCode::Banned));
    assert_eq!(
        RawClient::refused(&alice, &solution).await.0,
        RefusalCode::Banned
    );
    alice.gate.forget_replies(&bob.keys.peer_id());
    assert_eq!(
        RawClient::refused(&alice, &solution).await.0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn cached_welcome_is_not_replayed_after_a_change_of_tier() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, _) = solution(&alice, &bob).await;
    RawClient::exchange(&alice, &solution).await;
    // The ticket in the cached welcome names the old tier.
    alice.set_decision(Decision::Admit(Tier::Trusted));
    assert_eq!(
        RawClient::refused(&alice, &solution).await.0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn cached_reply_ends_with_its_cookie() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, _) = solution(&alice, &bob).await;
    RawClient::exchange(&alice, &solution).await;
    alice.clock.store(NOW + 601, Ordering::Relaxed);
    assert_eq!(
        RawClient::refused(&alice, &solution).await.0,
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
    assert_eq!(*steps.lock(), [Progress::Dialling, Progress::Verifying]);
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

#[tokio::test]
async fn solution_stays_valid_when_no_session_slot_is_free() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    alice.set_decision(Decision::Refuse(RefusalCode::Busy));
    let (solution, next) = solution(&alice, &bob).await;
    for busy in 1..=2 {
        let (code, error) = RawClient::refused(&alice, &solution).await;
        assert_eq!(code, RefusalCode::Busy);
        assert!(matches!(error, HandshakeError::Busy));
        assert_eq!(alice.gate.status().busy_total, busy);
    }
    alice.set_decision(Decision::Admit(Tier::Untrusted));
    let welcome = RawClient::exchange(&alice, &solution).await;
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
    let answer = RawClient::exchange(&alice, &hello()).await;
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
        codes.push(RawClient::refused(&alice, &solution).await.0);
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
        let (code, _) = RawClient::refused(&alice, &solution).await;
        assert_eq!(code, RefusalCode::Pending);
    }
    assert!(alice.gate.status().effort >= 4);
}
