//! Unadmitted clients: the replies that they receive, and the deadlines that end them. Tests of
//! deadlines pause time.

use std::sync::atomic::Ordering;

use bastion::messages::{HandshakeMessage, Hello};
use bastion::{
    Decision, Features, GateConfig, HandshakeError, HandshakeStep, RefusalCode, Session,
};
use tokio::io::{AsyncWriteExt, duplex};

use crate::support::{Node, RawClient, easy, hello};

#[tokio::test]
async fn client_that_breaks_a_rule_receives_only_a_code() {
    let alice = Node::alice(easy());
    let challenge = {
        let mut client = RawClient::connect(&alice).send(&hello()).await;
        client.receive().await
    };
    let other = HandshakeMessage::Hello(Hello {
        ticket: None,
        features: Features::none(),
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
        let (code, error) = RawClient::refused(&alice, frame).await;
        assert_eq!((code, error.code()), (expected, Some(expected)), "{error}");
    }
}

#[tokio::test]
async fn replies_before_admission_do_not_depend_on_the_server_profile() {
    let all = ["market.public_offers", "messages", "rides.offers"];
    let decisions = [
        RefusalCode::Banned,
        RefusalCode::Busy,
        RefusalCode::Pending,
        RefusalCode::Policy,
    ];
    for code in decisions {
        let refuse = Decision::Refuse(code);
        let mut received = Vec::new();
        for domains in [&all[..], &[]] {
            let (alice, bob) = (Node::new(1000, domains, easy(), refuse), Node::bob());
            let mut client = RawClient::connect(&alice).send(&hello()).await;
            let challenge = client.receive().await;
            let (solution, _) = bob.solve(&challenge, &alice);
            let mut client = client.send(&solution).await;
            let refused = client.receive().await;
            let HandshakeMessage::Challenge(challenge) =
                HandshakeMessage::decode(&challenge, 8192).unwrap()
            else {
                panic!("not a challenge")
            };
            // `sealed` is random; everything else is compared byte by byte.
            received.push((challenge.cookie, challenge.sealed.len(), refused));
        }
        assert_eq!(received[0], received[1], "{code}");
    }
}

#[tokio::test]
async fn declared_length_above_the_limit_is_refused_before_its_bytes() {
    let alice = Node::alice(easy());
    let (mut near, far) = duplex(64);
    near.write_all(&8193u32.to_be_bytes()).await.unwrap();
    let gate = alice.gate.clone();
    let admitting = tokio::spawn(async move { gate.admit(far).await });
    let mut session = Session::new(near, 8192);
    let refused = session.reader.read().await.unwrap().unwrap();
    assert_eq!(
        HandshakeMessage::decode(&refused, 100).unwrap().kind(),
        "refused"
    );
    drop(session);
    assert!(matches!(
        admitting.await.unwrap(),
        Err(HandshakeError::Malformed(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn stalling_client_times_out_at_every_step() {
    let alice = Node::alice(easy());
    // Sends nothing.
    let silent = RawClient::connect(&alice);
    assert!(matches!(
        silent.admitting.await.unwrap(),
        Err(HandshakeError::Timeout(HandshakeStep::Hello))
    ));
    // Sends the beginning of a frame.
    let (mut near, far) = duplex(64);
    near.write_all(&[0, 0, 0, 20, 1]).await.unwrap();
    assert!(matches!(
        alice.gate.admit(far).await,
        Err(HandshakeError::Timeout(HandshakeStep::Hello))
    ));
    // Does not read the challenge, which is longer than the pipe's buffer.
    let deaf = RawClient::connect(&alice).send(&hello()).await;
    assert!(matches!(
        deaf.admitting.await.unwrap(),
        Err(HandshakeError::Timeout(HandshakeStep::Send))
    ));
    // Reads the challenge and sends no solution.
    let mut lazy = RawClient::connect(&alice).send(&hello()).await;
    lazy.receive().await;
    assert!(matches!(
        lazy.admitting.await.unwrap(),
        Err(HandshakeError::Timeout(HandshakeStep::Solution))
    ));
    assert_eq!(alice.gate.status().handshakes.without_ticket(), 0);
}

#[tokio::test]
async fn end_inside_a_frame_ends_the_handshake() {
    let alice = Node::alice(easy());
    let (mut near, far) = duplex(64);
    near.write_all(&[0, 0, 0, 20, 1]).await.unwrap();
    drop(near);
    assert!(matches!(
        alice.gate.admit(far).await,
        Err(HandshakeError::HungUp(HandshakeStep::Hello))
    ));
}

#[tokio::test]
async fn open_handshakes_raise_the_effort_within_seconds() {
    let alice = Node::alice(GateConfig {
        open_handshakes_max: 4,
        ..easy()
    });
    let mut handshakes = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(&alice).send(&hello()).await;
        client.receive().await;
        handshakes.push(client);
    }
    assert_eq!(alice.gate.status().handshakes.without_ticket(), 3);
    alice.clock.fetch_add(5, Ordering::Relaxed);
    let mut late = RawClient::connect(&alice).send(&hello()).await;
    late.receive().await;
    assert_eq!(alice.gate.status().effort, 2 << 5);
}
