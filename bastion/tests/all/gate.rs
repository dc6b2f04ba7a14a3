//! Gate and connector on real streams: memory pipes of 64 bytes, and loopback TCP.

use std::sync::atomic::{AtomicU64, Ordering};

use bastion::transport::loopback::LoopbackDirectory;
use bastion::transport::memory::MemoryNet;
use bastion::{
    Admitted, Decision, GateConfig, HandshakeError, HandshakeStep, Listener, Progress, RefusalCode,
    Session, Stream, Tier, Transport,
};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{Node, easy, hello};

/// Bob dials Alice. Both are admitted and exchange a frame longer than the limit before admission.
async fn dial_and_exchange_frames(alice: Node, listener: impl Listener, transport: &dyn Transport) {
    let mut admitted = alice.serve(listener);
    let bob = Node::bob();
    let steps = Mutex::new(Vec::new());
    let note = |step| steps.lock().push(step);
    let (mut near, at_bob) = bob
        .connector
        .dial(transport, &alice.keys.onion(), None, &note)
        .await
        .unwrap();
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

    let steps = steps.into_inner();
    assert_eq!(
        (steps.first(), steps.last()),
        (Some(&Progress::Dialling), Some(&Progress::Verifying))
    );
    let (status, dialled) = (alice.gate.status(), bob.connector.admitted_total());
    assert_eq!(
        (status.admitted_total, status.refused_total, dialled),
        (1, 0, 1)
    );
    assert_eq!((status.handshakes.without_ticket(), status.effort), (0, 2));
}

#[tokio::test]
async fn peers_are_admitted_over_pipes_of_64_bytes() {
    let (alice, net) = (Node::alice(easy()), MemoryNet::new());
    let listener = net.listen(alice.keys.onion());
    dial_and_exchange_frames(alice, listener, &net.transport()).await;
}

#[tokio::test]
async fn peers_are_admitted_over_loopback_tcp() {
    let (alice, directory) = (Node::alice(easy()), LoopbackDirectory::default());
    let listener = directory.listen(alice.keys.onion()).await.unwrap();
    dial_and_exchange_frames(alice, listener, &directory.transport()).await;
}

#[tokio::test]
async fn client_presents_its_solution_on_a_new_stream_after_losing_one() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let mut admitted = alice.serve(net.listen(alice.keys.onion()));
    let (dials, presented) = (AtomicU64::new(0), AtomicU64::new(0));
    let note = |step| match step {
        Progress::Dialling => drop(dials.fetch_add(1, Ordering::Relaxed)),
        // Closes the stream once, after the client has solved.
        Progress::Verifying if presented.fetch_add(1, Ordering::Relaxed) == 0 => net.cut_all(),
        _ => (),
    };
    let transport = net.transport();
    let (_near, at_bob) = bob
        .connector
        .dial(&transport, &alice.keys.onion(), None, &note)
        .await
        .unwrap();
    let (_far, at_alice) = admitted.recv().await.unwrap();
    assert_eq!(at_alice.domains(), at_bob.domains());
    assert_eq!((dials.into_inner(), presented.into_inner()), (2, 2));
}

#[tokio::test]
async fn refusal_of_the_policy_reaches_the_client() {
    let alice = Node::new(
        1000,
        &["messages"],
        easy(),
        Decision::Refuse(RefusalCode::Policy),
    );
    let net = MemoryNet::new();
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let refused = Node::bob()
        .dial(&net.transport(), &alice)
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            HandshakeError::Refused {
                code: RefusalCode::Policy,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(alice.gate.status().refused_total, 1);
}

#[tokio::test(start_paused = true)]
async fn dial_of_a_silent_server_times_out() {
    let (alice, bob, net) = (Node::alice(easy()), Node::bob(), MemoryNet::new());
    let mut listener = net.listen(alice.keys.onion());
    let transport = net.transport();
    let (accepted, dialled) = tokio::join!(listener.accept(), bob.dial(&transport, &alice));
    drop(accepted);
    assert!(matches!(
        dialled,
        Err(HandshakeError::Timeout(HandshakeStep::Challenge))
    ));
}

#[tokio::test]
async fn evicted_client_is_admitted_on_another_stream() {
    let alice = Node::alice(GateConfig {
        open_handshakes_max: 1,
        ..easy()
    });
    let net = MemoryNet::new();
    let mut admitted = alice.serve(net.listen(alice.keys.onion()));
    // Carol holds the only slot while she solves.
    let carol = Node::new(
        3000,
        &["messages"],
        easy(),
        Decision::Admit(Tier::Untrusted),
    );
    let mut first = Session::new(
        net.transport().dial(&alice.keys.onion()).await.unwrap(),
        8192,
    );
    first.writer.write(&hello()).await.unwrap();
    let challenge = first.reader.read().await.unwrap().unwrap();
    Node::bob().dial(&net.transport(), &alice).await.unwrap();
    admitted.recv().await.unwrap();
    assert!(
        !matches!(first.reader.read().await, Ok(Some(_))),
        "Carol's stream is closed"
    );
    assert_eq!(alice.gate.status().busy_total, 1);
    // Carol's solution is accepted on another stream.
    let (solution, next) = carol.solve(&challenge, &alice);
    let mut second = Session::new(
        net.transport().dial(&alice.keys.onion()).await.unwrap(),
        8192,
    );
    second.writer.write(&solution).await.unwrap();
    let welcome = second.reader.read().await.unwrap().unwrap();
    assert_eq!(
        next.receive(&welcome).unwrap().claims().peer_id(),
        alice.keys.peer_id()
    );
}

#[tokio::test]
async fn dropped_or_late_dial_stops_solving() {
    let alice = Node::alice(GateConfig {
        effort_idle: 1 << 39,
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
    // If the search went on, the test's runtime could not end.
    let bob = Node::new(2000, &[], patient.clone(), Decision::Admit(Tier::Untrusted));
    let working = tokio::sync::Notify::new();
    let note = |step| {
        if matches!(
            step,
            Progress::Solving {
                evaluations: 1..,
                ..
            }
        ) {
            working.notify_one();
        }
    };
    let onion = alice.keys.onion();
    tokio::select! {
        _ = bob.connector.dial(&transport, &onion, None, &note) => panic!("puzzle was solved"),
        () = working.notified() => (),
    }
    let hasty = GateConfig {
        solve_deadline_s: 0,
        ..patient
    };
    let bob = Node::new(2000, &[], hasty, Decision::Admit(Tier::Untrusted));
    assert!(matches!(
        bob.dial(&transport, &alice).await,
        Err(HandshakeError::Timeout(HandshakeStep::Solve))
    ));
}

#[tokio::test]
async fn stopping_closes_unadmitted_streams_only() {
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
    let mut client: Stream = net.transport().dial(&alice.keys.onion()).await.unwrap();

    stop.cancel();
    serving.await.unwrap();
    assert!(client.read_u8().await.is_err());
    near.writer.write(b"still here").await.unwrap();
    assert_eq!(
        far.reader.read().await.unwrap(),
        Some(b"still here".to_vec())
    );
}

#[tokio::test]
async fn dialling_the_own_onion_is_refused() {
    let (alice, net) = (Node::alice(easy()), MemoryNet::new());
    let _admitted = alice.serve(net.listen(alice.keys.onion()));
    let error = alice.dial(&net.transport(), &alice).await.unwrap_err();
    assert!(matches!(
        error,
        HandshakeError::NotAdmitted(RefusalCode::OwnPeerId)
    ));
}
