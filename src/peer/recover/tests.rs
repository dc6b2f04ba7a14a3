//! Tests of showing epochs and of reclaiming objects, against a scripted peer.

use std::sync::Arc;

use bastion::Tier;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::graph::GraphManager;
use crate::peer::log_testing::CapturedLog;
use crate::peer::message::IdOnly;
use crate::peer::session_testing::{RunningSession, run_session};
use crate::peer::testing::{DOMAIN, TestCore, manual};
use keys::Epoch;

/// A node that runs [`keep_recovering`] in a session with a scripted peer.
struct Fixture {
    node: TestCore,
    peer: TestCore,
    session: RunningSession,
    context: Arc<SessionContext>,
}

impl Fixture {
    async fn new(node: TestCore, peer: TestCore) -> Self {
        let session = run_session(&node, peer.peer_id(), &manual());
        // Identities are last here and must come first.
        let domains = [DOMAIN, identities::DOMAIN];
        let context = session.context(&node, manual(), &domains);
        Self {
            node,
            peer,
            session,
            context,
        }
    }

    async fn met() -> Self {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        Self::new(node, peer).await
    }

    /// The node was restored after it had met the peer.
    async fn restored() -> Self {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        Self::new(node.restored(), peer).await
    }

    fn start(&self) -> JoinHandle<()> {
        let context = self.context.clone();
        tokio::spawn(async move { keep_recovering(&context).await })
    }

    async fn note_epochs(&mut self, count: usize) {
        for _ in 0..count {
            let id = match self.session.peer.receive().await {
                Some(SessionMessage::Epoch(note) | SessionMessage::Heard(note)) => note.id,
                other => panic!("expected an epoch, got {other:?}"),
            };
            let noted = SessionMessage::Noted(IdOnly { id });
            self.session.peer.send(&noted).await;
        }
    }

    async fn next_reclaim(&mut self) -> ReclaimRequest {
        loop {
            match self.session.peer.receive().await {
                Some(SessionMessage::Reclaim(request)) => return request,
                Some(SessionMessage::Ping(_)) => {}
                other => panic!("expected a reclaim, got {other:?}"),
            }
        }
    }

    async fn send_batch(&mut self, id: u64, next: Option<Oid>) {
        self.send_objects(id, &Vec::new(), next).await;
    }

    async fn send_objects(&mut self, id: u64, objects: &Vec<SignedObject>, next: Option<Oid>) {
        let body = keys::codec::encode(objects);
        let batch = ReclaimedBatch { id, body, next };
        self.session
            .peer
            .send(&SessionMessage::Reclaimed(batch))
            .await;
    }

    async fn needs_reclaim_from(&self) -> bool {
        let (peer, shared) = (self.peer.peer_id(), self.context.domains.clone());
        let asks = self
            .node
            .core
            .read(move |view| view.domains_to_reclaim(&peer, &shared));
        asks.await.unwrap().is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn shows_its_own_epoch_and_those_that_the_peer_signed() {
    let mut fixture = Fixture::met().await;
    let heard = fixture.peer.signed_epoch(1, fixture.peer.epoch(), 5);
    let (peer, stored) = (
        fixture.peer.peer_id(),
        PeerEpoch {
            epoch: heard.epoch,
            key_id: heard.key_id,
            signature: heard.signature,
            head: heard.head,
        },
    );
    fixture
        .node
        .core
        .write(move |core, now| core.put_peer_epoch(now, &peer, &stored))
        .await
        .unwrap();
    let task = fixture.start();
    let Some(SessionMessage::Epoch(own)) = fixture.session.peer.receive().await else {
        panic!("no epoch");
    };
    assert_eq!(own.epoch, fixture.node.epoch());
    let noted = SessionMessage::Noted(IdOnly { id: own.id });
    fixture.session.peer.send(&noted).await;
    let Some(SessionMessage::Heard(shown)) = fixture.session.peer.receive().await else {
        panic!("no heard epoch");
    };
    assert_eq!((shown.epoch, shown.head), (heard.epoch, 5));
    let noted = SessionMessage::Noted(IdOnly { id: shown.id });
    fixture.session.peer.send(&noted).await;
    task.await.unwrap();
    assert!(!fixture.session.handle.closed().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn does_not_show_a_refused_epoch_again() {
    let mut fixture = Fixture::met().await;
    let task = fixture.start();
    let Some(SessionMessage::Epoch(own)) = fixture.session.peer.receive().await else {
        panic!("no epoch");
    };
    fixture.session.peer.refuse(own.id, "epoch").await;
    task.await.unwrap();
    assert!(!fixture.session.handle.closed().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn reply_of_another_kind_ends_the_session() {
    let mut fixture = Fixture::met().await;
    let task = fixture.start();
    let Some(SessionMessage::Epoch(own)) = fixture.session.peer.receive().await else {
        panic!("no epoch");
    };
    fixture.send_batch(own.id, None).await;
    task.await.unwrap();
    assert_eq!(fixture.session.peer.bye().await, "misbehaviour");
}

#[tokio::test(start_paused = true)]
async fn reclaims_nothing_without_a_restore() {
    let mut fixture = Fixture::met().await;
    let task = fixture.start();
    fixture.note_epochs(1).await;
    task.await.unwrap();
    assert!(!fixture.needs_reclaim_from().await);
}

#[tokio::test(start_paused = true)]
async fn asks_for_each_domain_identities_first_and_counts_the_peer_as_asked() {
    let mut fixture = Fixture::restored().await;
    let task = fixture.start();
    fixture.note_epochs(1).await;
    let first = fixture.next_reclaim().await;
    assert_eq!(
        (first.domain.as_str(), first.after),
        (identities::DOMAIN, None)
    );
    let next = Some(Oid::from_bytes([3; 16]));
    fixture.send_batch(first.id, next).await;
    let second = fixture.next_reclaim().await;
    assert_eq!(
        (second.domain.as_str(), second.after),
        (identities::DOMAIN, next)
    );
    fixture.send_batch(second.id, None).await;
    assert!(fixture.needs_reclaim_from().await, "a domain is left");
    let third = fixture.next_reclaim().await;
    assert_eq!((third.domain.as_str(), third.after), (DOMAIN, None));
    fixture.send_batch(third.id, None).await;
    task.await.unwrap();
    assert!(!fixture.needs_reclaim_from().await);
    // A domain that is shared later is asked for alone.
    let peer = fixture.peer.peer_id();
    let shared = [identities::DOMAIN, DOMAIN, "later"].map(String::from);
    let looking = fixture
        .node
        .core
        .read(move |view| view.domains_to_reclaim(&peer, &shared));
    assert_eq!(looking.await.unwrap(), Some(vec!["later".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn asks_a_busy_peer_for_the_same_batch_after_a_pause() {
    let mut fixture = Fixture::restored().await;
    let _task = fixture.start();
    fixture.note_epochs(1).await;
    let first = fixture.next_reclaim().await;
    let next = Some(Oid::from_bytes([3; 16]));
    fixture.send_batch(first.id, next).await;
    let start = Instant::now();
    let second = fixture.next_reclaim().await;
    fixture.session.peer.refuse(second.id, "busy").await;
    let again = fixture.next_reclaim().await;
    assert_eq!((again.domain, again.after), (second.domain, next));
    assert!((3..=4).contains(&start.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn starts_again_after_another_refusal() {
    let mut fixture = Fixture::restored().await;
    let _task = fixture.start();
    fixture.note_epochs(1).await;
    let first = fixture.next_reclaim().await;
    let next = Some(Oid::from_bytes([3; 16]));
    fixture.send_batch(first.id, next).await;
    let second = fixture.next_reclaim().await;
    fixture.session.peer.refuse(second.id, "internal").await;
    let again = fixture.next_reclaim().await;
    assert_eq!(
        (again.domain.as_str(), again.after),
        (identities::DOMAIN, None)
    );
    assert!(fixture.needs_reclaim_from().await);
}

#[tokio::test(start_paused = true)]
async fn ends_the_session_if_batches_do_not_ascend() {
    for next in [[3; 16], [2; 16]] {
        let mut fixture = Fixture::restored().await;
        let task = fixture.start();
        fixture.note_epochs(1).await;
        let first = fixture.next_reclaim().await;
        let after = Some(Oid::from_bytes([3; 16]));
        fixture.send_batch(first.id, after).await;
        let second = fixture.next_reclaim().await;
        let next = Some(Oid::from_bytes(next));
        fixture.send_batch(second.id, next).await;
        task.await.unwrap();
        assert_eq!(
            fixture.session.handle.end_code(),
            Some(EndCode::Misbehaviour)
        );
        assert!(fixture.needs_reclaim_from().await);
    }
}

#[tokio::test(start_paused = true)]
async fn bounds_the_batches_of_a_domain() {
    let mut fixture = Fixture::restored().await;
    let context = fixture.context.clone();
    let task = tokio::spawn(async move {
        let mut backoff = Backoff::new(&context.config);
        reclaim_domain(&context, DOMAIN, 2, &mut backoff).await
    });
    for number in 1..=2 {
        let request = fixture.next_reclaim().await;
        let next = Some(Oid::from_bytes([number; 16]));
        fixture.send_batch(request.id, next).await;
    }
    assert!(matches!(
        task.await.unwrap(),
        Err(SyncError::Session(SessionError::Misbehaved(
            "recovery batches have no end"
        )))
    ));
}

#[tokio::test(start_paused = true)]
async fn malformed_batch_ends_the_session() {
    let mut fixture = Fixture::restored().await;
    let task = fixture.start();
    fixture.note_epochs(1).await;
    let first = fixture.next_reclaim().await;
    let batch = ReclaimedBatch {
        id: first.id,
        body: b"\xff".to_vec(),
        next: None,
    };
    let malformed = SessionMessage::Reclaimed(batch);
    fixture.session.peer.send(&malformed).await;
    task.await.unwrap();
    assert_eq!(
        fixture.session.handle.end_code(),
        Some(EndCode::Misbehaviour)
    );
}

#[tokio::test(start_paused = true)]
async fn ends_with_the_session() {
    let fixture = Fixture::met().await;
    let task = fixture.start();
    fixture.session.handle.end(EndCode::End);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn object_without_its_conversation_waits_and_the_peer_counts_as_asked() {
    // The peer holds a message of the restored node, in a conversation that the node does not hold.
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    node.meet(&peer, Tier::Untrusted).await;
    peer.meet(&node, Tier::Untrusted).await;
    let message = node.message_object(&peer, "hello").await;
    let mut fixture = Fixture::new(TestCore::new(1).met_and_restored(&peer).await, peer).await;
    let _task = fixture.start();
    fixture.note_epochs(1).await;
    let identities = fixture.next_reclaim().await;
    assert_eq!(identities.domain, identities::DOMAIN);
    fixture.send_batch(identities.id, None).await;
    let request = fixture.next_reclaim().await;
    fixture.send_objects(request.id, &vec![message], None).await;
    while fixture.needs_reclaim_from().await {
        tokio::task::yield_now().await;
    }
}

/// The record of an identity that the node makes now.
async fn new_record(node: &TestCore) -> SignedObject {
    let mut rng = ChaCha20Rng::seed_from_u64(50);
    let identity = node.keys.add_identity(&mut rng).unwrap();
    let publish = move |graph: &mut GraphManager<'_>| {
        crate::services::identities::publish(graph, identity, Some("New"))
    };
    node.core.graph(publish).await.unwrap();
    let read = node
        .core
        .read(|view| crate::services::identities::for_handshake(&view, 8));
    let records = read.await.unwrap();
    let oid = |object: &SignedObject| {
        let limits = crate::graph::GraphLimits::default();
        crate::graph::decode_object(object.clone(), &limits)
            .unwrap()
            .oid()
    };
    let mut records = records.into_iter().filter(|it| oid(it) == identity);
    records.next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn records_that_a_peer_returns_cause_one_line_for_each_reply() {
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let (own, foreign) = (new_record(&node).await, new_record(&peer).await);
    // Restored from a backup that was made before the identity.
    let mut fixture = Fixture::new(TestCore::new(1).met_and_restored(&peer).await, peer).await;
    let log = CapturedLog::start_at(tracing::Level::INFO);
    let _task = fixture.start();
    fixture.note_epochs(1).await;
    let after = |number| Some(Oid::from_bytes([number; 16]));
    let request = fixture.next_reclaim().await;
    fixture
        .send_objects(request.id, &vec![foreign.clone(); 150], after(1))
        .await;
    let request = fixture.next_reclaim().await;
    assert_eq!(log.lines("ERROR"), Vec::<String>::new());
    let lines = log.lines("WARN");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("refused=150"), "{lines:?}");
    let both = [vec![own; 150], vec![foreign; 10]].concat();
    fixture.send_objects(request.id, &both, after(2)).await;
    fixture.next_reclaim().await;
    let lines = log.lines("ERROR");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("records=150") && lines[0].contains("refused=160"));
    assert_eq!(log.lines("WARN").len(), 1);
}

#[test]
fn note_carries_the_whole_epoch() {
    let node = TestCore::new(1);
    let signed = node.signed_epoch(4, Epoch::from_bytes([1; 16]), 9);
    let heard = PeerEpoch {
        epoch: signed.epoch,
        key_id: signed.key_id,
        signature: signed.signature,
        head: signed.head,
    };
    assert_eq!(note(4, heard), signed);
}
