//! The client's retries, against a server that sends scripted replies.

use bastion::messages::{Cookie, HandshakeMessage, Refusal, Solution};
use bastion::transport::memory::MemoryNet;
use bastion::{HandshakeError, Listener, Progress, RefusalCode, Session};
use parking_lot::Mutex;

use crate::support::{Node, RawClient, easy, hello};

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
    HandshakeMessage::Refused(Refusal {
        code,
        retry_s,
        versions: None,
    })
    .encode()
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
    let challenge = RawClient::exchange(&alice, &hello()).await;
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
async fn client_requests_one_new_challenge_after_expiry() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let stream = || async { RawClient::exchange(&alice, &hello()).await };
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
