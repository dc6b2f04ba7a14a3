//! What strangers may do at the gate, and what they learn. Time is paused wherever a deadline is awaited.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod support;

use std::sync::atomic::Ordering;

use bastion::messages::{Hello, Message};
use bastion::{Decision, GateConfig, HandshakeError, RefusalCode, Session, Step};
use tokio::io::{AsyncWriteExt, duplex};

use support::{Node, Stranger, easy, hello};

#[tokio::test]
async fn strangers_that_break_a_rule_learn_a_code_and_nothing_else() {
    let alice = Node::alice(easy());
    let challenge = {
        let mut stranger = Stranger::at(&alice).says(&hello()).await;
        stranger.hears().await
    };
    let other = Message::Hello(Hello {
        ticket: None,
        versions: vec![9],
    })
    .encode();
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
async fn a_stranger_learns_nothing_of_what_a_node_has_before_it_is_admitted() {
    let all = ["market.public_offers", "messages", "rides.offers"];
    let decisions = [
        RefusalCode::Banned,
        RefusalCode::Busy,
        RefusalCode::Pending,
        RefusalCode::Policy,
    ];
    for code in decisions {
        let refuse = Decision::Refuse(code);
        let mut heard = Vec::new();
        for domains in [&all[..], &[]] {
            let (alice, bob) = (Node::new(1000, domains, easy(), refuse), Node::bob());
            let mut stranger = Stranger::at(&alice).says(&hello()).await;
            let challenge = stranger.hears().await;
            let (solution, _) = bob.solve(&challenge, &alice);
            let mut stranger = stranger.says(&solution).await;
            let refused = stranger.hears().await;
            let Message::Challenge(challenge) = Message::decode(&challenge, 8192).unwrap() else {
                panic!("not a challenge")
            };
            // What is sealed is random; all else is compared to the byte.
            heard.push((challenge.cookie, challenge.sealed.len(), refused));
        }
        assert_eq!(heard[0], heard[1], "{code}");
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
    assert!(matches!(
        admitting.await.unwrap(),
        Err(HandshakeError::Malformed(_))
    ));
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
    assert_eq!(alice.gate.status().crowd.strangers(), 0);
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
    assert_eq!(alice.gate.status().crowd.strangers(), 3);
    alice.clock.fetch_add(5, Ordering::Relaxed);
    let mut late = Stranger::at(&alice).says(&hello()).await;
    late.hears().await;
    assert_eq!(alice.gate.status().effort, 2 << 5);
}
