//! Tests of the pushes that a commit causes, against a scripted peer with a paused clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use bastion::Tier;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::peer::EndCode;
use crate::peer::message::PackageBody;
use crate::peer::session_testing::{RunningSession, run_session};
use crate::peer::testing::{DOMAIN, TestCore, manual};

/// A session between a node that pushes changes of [`DOMAIN`] and a scripted peer.
struct Fixture {
    node: TestCore,
    peer: TestCore,
    session: RunningSession,
    context: Arc<SessionContext>,
}

impl Fixture {
    async fn new() -> Self {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Trusted).await;
        peer.meet(&node, Tier::Trusted).await;
        let configured = BTreeMap::from([(peer.keys.onion(), vec![DOMAIN.to_owned()])]);
        node.core
            .write(move |core, now| core.plan_outbox(now, &configured))
            .await
            .unwrap();
        let session = run_session(&node, peer.peer_id(), &manual());
        let context = session.context(&node, manual(), &[DOMAIN]);
        Self {
            node,
            peer,
            session,
            context,
        }
    }

    fn start(&self) -> JoinHandle<()> {
        let context = self.context.clone();
        tokio::spawn(async move { keep_emptying_outbox(&context, DOMAIN).await })
    }

    /// The next push, and the time that passed before it; pings are answered.
    async fn next_push(&mut self) -> (PackageBody, Duration) {
        let start = Instant::now();
        (self.session.peer.next_push().await, start.elapsed())
    }

    /// Nothing is pushed for a while.
    async fn is_quiet(&mut self) {
        let push = timeout(Duration::from_secs(20), self.next_push()).await;
        assert!(push.is_err(), "{push:?}");
    }

    async fn refuse(&mut self, id: u64) {
        self.session.peer.refuse(id, "internal").await;
    }

    /// Acknowledges everything.
    async fn acknowledge(&mut self, id: u64) {
        let (epoch, head) = (self.node.epoch(), self.node.head().await);
        self.session.peer.acknowledge(id, epoch, head).await;
    }

    async fn row(&self) -> Option<u64> {
        let peer = self.peer.peer_id();
        let row = self
            .node
            .core
            .read(move |view| view.rows.outbox_seq(&peer, DOMAIN));
        row.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn pushes_at_once_and_again_after_a_failure() {
    let mut fixture = Fixture::new().await;
    let task = fixture.start();
    fixture.is_quiet().await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    let (push, waited) = fixture.next_push().await;
    assert_eq!(waited, Duration::ZERO);
    fixture.refuse(push.id).await;
    for expected in [3..=4, 6..=8] {
        assert!(
            fixture.row().await.is_some(),
            "a failed push leaves the row"
        );
        let (push, waited) = fixture.next_push().await;
        assert!(expected.contains(&waited.as_secs()), "{waited:?}");
        fixture.refuse(push.id).await;
    }
    let (push, _) = fixture.next_push().await;
    fixture.acknowledge(push.id).await;
    fixture.is_quiet().await;
    assert_eq!(fixture.row().await, None);
    fixture.node.send_message(&fixture.peer, "again").await;
    let (push, waited) = fixture.next_push().await;
    assert_eq!(waited, Duration::ZERO);
    fixture.refuse(push.id).await;
    let (_, waited) = fixture.next_push().await;
    assert!(
        (3..=4).contains(&waited.as_secs()),
        "backs off from the start"
    );
    fixture.session.handle.end(EndCode::End);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn row_of_an_earlier_session_is_pushed_at_the_start() {
    let mut fixture = Fixture::new().await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    assert!(fixture.row().await.is_some());
    let _task = fixture.start();
    let (push, waited) = fixture.next_push().await;
    assert_eq!(waited, Duration::ZERO);
    fixture.acknowledge(push.id).await;
    fixture.is_quiet().await;
    assert_eq!(fixture.row().await, None);
}

/// The node wrote before the operator configured the peer.
#[tokio::test(start_paused = true)]
async fn session_begins_with_a_push_of_what_has_no_row() {
    let mut fixture = Fixture::new().await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    let (peer, head) = (fixture.peer.peer_id(), fixture.node.head().await);
    fixture
        .node
        .core
        .graph(move |graph| graph.tx().remove_outbox(&peer, DOMAIN, head))
        .await
        .unwrap();
    let _task = fixture.start();
    let (push, waited) = fixture.next_push().await;
    assert_eq!(waited, Duration::ZERO);
    fixture.refuse(push.id).await;
    let (push, _) = fixture.next_push().await;
    fixture.acknowledge(push.id).await;
    fixture.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn change_during_a_push_is_pushed_after_it() {
    let mut fixture = Fixture::new().await;
    let _task = fixture.start();
    fixture.node.send_message(&fixture.peer, "hello").await;
    let (push, _) = fixture.next_push().await;
    let sent = fixture.node.head().await;
    fixture.node.send_message(&fixture.peer, "meanwhile").await;
    let epoch = fixture.node.epoch();
    fixture.session.peer.acknowledge(push.id, epoch, sent).await;
    let (_, waited) = fixture.next_push().await;
    assert_eq!(waited, PUSH_PAUSE);
    assert!(fixture.row().await.is_some_and(|row| row > sent));
}

#[tokio::test(start_paused = true)]
async fn row_without_anything_to_send_is_deleted() {
    let mut fixture = Fixture::new().await;
    let (peer, head) = (fixture.peer.peer_id(), fixture.node.head().await);
    fixture
        .node
        .core
        .graph(move |graph| graph.tx().put_outbox(&peer, DOMAIN, head))
        .await
        .unwrap();
    let task = fixture.start();
    fixture.is_quiet().await;
    assert_eq!(fixture.row().await, None);
    fixture.session.handle.end(EndCode::End);
    task.await.unwrap();
}
