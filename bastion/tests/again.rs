//! Coming again: with the same solution, with a ticket, and to a gate that was busy.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod support;

use std::sync::atomic::Ordering;

use bastion::messages::{Cookie, Message, Refused, Solution};
use bastion::transport::memory::MemoryNet;
use bastion::{
    Decision, GateConfig, HandshakeError, Listener, Misbehaviour, Progress, RefusalCode, Session,
    Ticket, Tier,
};
use parking_lot::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use support::{NOW, Node, Stranger, easy, hello};

/// Bob's solution of a challenge of Alice's, on a stream that is gone by now.
async fn solution(alice: &Node, bob: &Node) -> (Vec<u8>, bastion::handshake::AwaitWelcome) {
    let mut first = Stranger::at(alice).says(&hello()).await;
    bob.solve(&first.hears().await, alice)
}

#[tokio::test]
async fn a_solution_is_taken_on_any_stream_and_gets_the_same_answer_again() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, next) = solution(&alice, &bob).await;
    let mut second = Stranger::at(&alice).says(&solution).await;
    let welcome = second.hears().await;
    assert_eq!(
        next.receive(&welcome).unwrap().claims().peer_id(),
        alice.keys.peer_id()
    );
    let (_, at_first) = second.admitting.await.unwrap().unwrap();
    for _ in 0..8 {
        let mut again = Stranger::at(&alice).says(&solution).await;
        assert_eq!(again.hears().await, welcome);
        let (_, admitted) = again.admitting.await.unwrap().unwrap();
        assert_eq!(admitted.claims().peer_id(), bob.keys.peer_id());
        assert_eq!(admitted.domains(), at_first.domains());
    }
    // Not for ever: each costs a session.
    let (code, error) = Stranger::at(&alice).says(&solution).await.refusal().await;
    assert_eq!(code, RefusalCode::Used);
    assert!(matches!(
        error,
        HandshakeError::PeerMisbehaved(Misbehaviour::CookieUsed)
    ));
    assert!(!error.is_abuse());
    // One was verified, however often it was shown.
    assert_eq!(alice.gate.status().admissions_per_minute, 1);
}

#[tokio::test]
async fn a_changed_solution_under_a_used_cookie_is_another_one() {
    let (alice, bob, mallory) = (
        Node::alice(easy()),
        Node::bob(),
        Node::new(3000, &[], easy(), Decision::Admit(Tier::Untrusted)),
    );
    let mut stranger = Stranger::at(&alice).says(&hello()).await;
    let challenge = stranger.hears().await;
    let (his, _) = bob.solve(&challenge, &alice);
    let (hers, _) = mallory.solve(&challenge, &alice);
    Stranger::at(&alice).says(&his).await.hears().await;
    assert_eq!(
        Stranger::at(&alice).says(&hers).await.refusal().await.0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn a_refusal_is_the_same_again_too_until_the_operator_changes_his_mind_about_an_admission() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    alice.decides(Decision::Refuse(RefusalCode::Pending));
    let (refused, _) = solution(&alice, &bob).await;
    for _ in 0..2 {
        let (code, _) = Stranger::at(&alice).says(&refused).await.refusal().await;
        assert_eq!(code, RefusalCode::Pending);
    }
    alice.decides(Decision::Admit(Tier::Untrusted));
    assert_eq!(
        Stranger::at(&alice).says(&refused).await.refusal().await.0,
        RefusalCode::Pending
    );
    // An admission is asked for again: who is banned meanwhile is out, and forgotten.
    let (solution, _) = solution(&alice, &bob).await;
    Stranger::at(&alice).says(&solution).await.hears().await;
    alice.decides(Decision::Refuse(RefusalCode::Banned));
    assert_eq!(
        Stranger::at(&alice).says(&solution).await.refusal().await.0,
        RefusalCode::Banned
    );
    alice.gate.forget(&bob.keys.peer_id());
    assert_eq!(
        Stranger::at(&alice).says(&solution).await.refusal().await.0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn a_welcome_is_not_given_again_to_who_is_in_another_tier_by_now() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, _) = solution(&alice, &bob).await;
    Stranger::at(&alice).says(&solution).await.hears().await;
    // The ticket in the welcome names the tier of then.
    alice.decides(Decision::Admit(Tier::Trusted));
    assert_eq!(
        Stranger::at(&alice).says(&solution).await.refusal().await.0,
        RefusalCode::Used
    );
}

#[tokio::test]
async fn what_is_remembered_ends_with_its_cookie() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    let (solution, _) = solution(&alice, &bob).await;
    Stranger::at(&alice).says(&solution).await.hears().await;
    alice.clock.store(NOW + 601, Ordering::Relaxed);
    assert_eq!(
        Stranger::at(&alice).says(&solution).await.refusal().await.0,
        RefusalCode::Expired
    );
}

/// Bob's ticket of Alice's.
async fn ticket(alice: &Node, bob: &Node, net: &MemoryNet) -> Ticket {
    let (_, admitted) = bob.dial(&net.transport(), alice).await.unwrap();
    admitted.ticket().unwrap().clone()
}

#[tokio::test]
async fn a_ticket_opens_the_gate_without_work_even_after_a_restart() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let ticket = ticket(&alice, &bob, &net).await;
    // The same keys, another life; and by now nobody could work that much.
    let dear = GateConfig {
        effort_idle: 1 << 40,
        effort_base: 1 << 40,
        effort_max: 1 << 40,
        ..easy()
    };
    let restarted = Node::alice(dear);
    let net = MemoryNet::new();
    let mut admitted = restarted.serve(net.listen(restarted.keys.onion()));
    restarted.clock.store(NOW + 5, Ordering::Relaxed);
    let steps = Mutex::new(Vec::new());
    let note = |step| steps.lock().push(step);
    let (_session, at_bob) = bob
        .gate
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
    assert_eq!(*restarted.porter.ticket_issued.lock(), Some(NOW));
    let status = restarted.gate.status();
    assert_eq!(
        (status.by_ticket_total, status.admissions_per_minute),
        (1, 0)
    );
    assert!(at_bob.ticket().is_some());
}

#[tokio::test]
async fn a_ticket_gets_in_where_a_crowd_of_strangers_holds_every_place() {
    let crowded = GateConfig {
        open_handshakes_max: 4,
        trusted_handshakes_max: 1,
        ..easy()
    };
    let alice = Node::alice(crowded);
    alice.decides(Decision::Admit(Tier::Trusted));
    let (bob, net) = (Node::bob(), MemoryNet::new());
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let ticket = ticket(&alice, &bob, &net).await;
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let mut stranger = Stranger::at(&alice).says(&hello()).await;
        stranger.hears().await;
        crowd.push(stranger);
    }
    assert_eq!(alice.gate.status().crowd.strangers(), 4);
    let (_, at_bob) = bob
        .gate
        .dial(&net.transport(), &alice.keys.onion(), Some(ticket), &|_| ())
        .await
        .unwrap();
    assert_eq!(at_bob.effort(), 0);
}

/// Answers the first frames of streams by a script, one stream a line.
async fn scripted(mut listener: impl Listener, script: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    for answers in script {
        let mut session = Session::new(listener.accept().await.unwrap().stream, 8192);
        for answer in answers {
            heard.push(session.reader.read().await.unwrap().unwrap());
            session.writer.write(&answer).await.unwrap();
        }
        drop(session);
    }
    heard
}

fn refused(code: RefusalCode, retry_s: Option<u32>) -> Vec<u8> {
    Message::Refused(Refused { code, retry_s }).encode()
}

fn solution_of(frame: &[u8]) -> Solution {
    match Message::decode(frame, 8192).unwrap() {
        Message::Solution(solution) => solution,
        other => panic!("got a {}", other.kind()),
    }
}

#[tokio::test]
async fn who_is_told_busy_comes_again_with_the_same_solution_and_then_with_more_work() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let challenge = Stranger::at(&alice).says(&hello()).await.hears().await;
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
        .gate
        .dial(&net.transport(), &alice.keys.onion(), None, &note)
        .await;
    assert!(matches!(
        dialled,
        Err(HandshakeError::Refused {
            code: RefusalCode::Policy,
            ..
        })
    ));
    let heard = listening.await.unwrap();
    let solutions: Vec<_> = heard[2..].iter().map(|frame| solution_of(frame)).collect();
    assert_eq!(
        solutions.iter().map(|it| it.more).collect::<Vec<_>>(),
        [0, 0, 1, 1]
    );
    assert_eq!(heard[2], heard[3], "the very same solution");
    assert_eq!(heard[4], heard[5]);
    let cookies: Vec<_> = solutions.iter().map(|it| it.cookie.clone()).collect();
    assert!(
        cookies.iter().all(|it| *it == cookies[0]),
        "the challenge is still good"
    );
    assert_eq!(Cookie::decode(&cookies[0]).unwrap().effort, 2);
    // Where more work is done nobody waits besides.
    assert_eq!(*waits.lock(), 3);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_it_wants_nor_comes_again_without_end() {
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
        .gate
        .dial(&net.transport(), &alice.keys.onion(), None, &note)
        .await;
    assert!(matches!(dialled, Err(HandshakeError::Refused { .. })));
    assert_eq!(listening.await.unwrap().len(), 8);
    assert!(*longest.lock() <= std::time::Duration::from_secs(30));
}

#[tokio::test]
async fn who_finds_no_room_behind_the_gate_may_come_again_with_the_same_work() {
    let (alice, bob) = (Node::alice(easy()), Node::bob());
    alice.decides(Decision::Refuse(RefusalCode::Busy));
    let (solution, next) = solution(&alice, &bob).await;
    for busy in 1..=2 {
        let (code, error) = Stranger::at(&alice).says(&solution).await.refusal().await;
        assert_eq!(code, RefusalCode::Busy);
        assert!(matches!(error, HandshakeError::Busy));
        assert_eq!(alice.gate.status().busy_total, busy);
    }
    alice.decides(Decision::Admit(Tier::Untrusted));
    let welcome = Stranger::at(&alice).says(&solution).await.hears().await;
    assert!(next.receive(&welcome).is_ok());
}

/// Presents a solution and reads no more of the answer than that there is one.
async fn reads_no_answer(alice: &Node, solution: &[u8]) -> DuplexStream {
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
async fn whoever_does_not_read_its_welcome_keeps_nobody_out() {
    let alice = Node::alice(GateConfig {
        open_handshakes_max: 2,
        ..easy()
    });
    let (solution, _) = solution(&alice, &Node::bob()).await;
    let _deaf = [
        reads_no_answer(&alice, &solution).await,
        reads_no_answer(&alice, &solution).await,
    ];
    let answer = Stranger::at(&alice).says(&hello()).await.hears().await;
    assert_eq!(Message::decode(&answer, 8192).unwrap().kind(), "challenge");
}

#[tokio::test]
async fn one_piece_of_work_is_not_judged_without_end_where_there_is_no_room() {
    let alice = Node::alice(easy());
    alice.decides(Decision::Refuse(RefusalCode::Busy));
    let (solution, _) = solution(&alice, &Node::bob()).await;
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(Stranger::at(&alice).says(&solution).await.refusal().await.0);
    }
    assert_eq!(codes[..9], [RefusalCode::Busy; 9]);
    assert_eq!(codes[9..], [RefusalCode::Used; 3]);
    // It counts once as work that was done.
    assert_eq!(alice.gate.status().admissions_per_minute, 1);
}

#[tokio::test]
async fn work_that_held_raises_the_effort_whatever_came_of_it() {
    let alice = Node::alice(GateConfig {
        effort_base: 4,
        admissions_per_minute_max: 4,
        ..easy()
    });
    alice.decides(Decision::Refuse(RefusalCode::Pending));
    for _ in 0..4 {
        let (solution, _) = solution(&alice, &Node::bob()).await;
        let (code, _) = Stranger::at(&alice).says(&solution).await.refusal().await;
        assert_eq!(code, RefusalCode::Pending);
    }
    assert!(alice.gate.status().effort >= 4);
}

#[tokio::test]
async fn whose_challenge_is_no_longer_good_asks_for_another_once() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let stream = || async { Stranger::at(&alice).says(&hello()).await.hears().await };
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
    let heard = listening.await.unwrap();
    assert_ne!(solution_of(&heard[1]).sealed, solution_of(&heard[3]).sealed);
}
