//! Tests of the replies to each request and of each refusal, over a core with a temporary database.

use bastion::Features;
use futures::FutureExt as _;
use keys::{Epoch, Signature};
use tokio::task::JoinHandle;

use super::*;
use crate::peer::testing::{DOMAIN, TestCore, info, manual, peer_id, pong, pull};
use crate::state_engine::{CoreLimits, Exported, OBJECT_COST, Quotas, TierQuota};
use crate::store::WriteMode;

/// A node that knows a peer, and the server of its core.
pub(super) struct Fixture {
    pub(super) node: TestCore,
    pub(super) peer: TestCore,
    pub(super) server: RequestServer,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        Self::with(manual(), CoreLimits::default()).await
    }

    async fn with(config: SyncConfig, limits: CoreLimits) -> Self {
        let (node, peer) = (TestCore::with_limits(1, limits), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        let server = RequestServer::new(node.core.clone(), &config);
        Self { node, peer, server }
    }

    /// The reply to a request of the peer.
    pub(super) async fn reply(&self, request: SessionMessage) -> SessionMessage {
        let turns = ReplyTurns::default();
        let session = info(self.peer.peer_id(), Tier::Untrusted);
        let reply = self.server.reply(&session, request, &turns);
        reply.await.message
    }

    fn reply_later(&self, request: SessionMessage) -> JoinHandle<SessionMessage> {
        let (server, peer) = (self.server.clone(), self.peer.peer_id());
        tokio::spawn(async move {
            let turns = ReplyTurns::default();
            server
                .reply(&info(peer, Tier::Untrusted), request, &turns)
                .await
                .message
        })
    }

    fn pull(&self, wait_s: u32) -> SessionMessage {
        pull(7, self.peer.peer_id(), DOMAIN, wait_s)
    }

    /// The package that the peer would push.
    pub(super) async fn package(&self, last_seq: u64) -> Vec<u8> {
        let (to, features) = (self.node.peer_id(), Features::none());
        self.peer.package_for(to, features, DOMAIN, last_seq).await
    }

    pub(super) async fn push(&self, body: Vec<u8>) -> SessionMessage {
        self.reply(SessionMessage::Push(PackageBody { id: 7, body }))
            .await
    }

    async fn write_mode(&self) -> WriteMode {
        let now = self.node.core.now();
        let write_mode = self.node.core.read(move |view| view.write_mode_at(now));
        write_mode.await.unwrap()
    }
}

#[track_caller]
pub(super) fn code(reply: &SessionMessage) -> &str {
    match reply {
        SessionMessage::Refused(refusal) if refusal.id == 7 => &refusal.code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn refuses_a_pull_in_the_name_of_another_peer() {
    let fixture = Fixture::new().await;
    let other = pull(7, fixture.node.peer_id(), DOMAIN, 0);
    assert_eq!(code(&fixture.reply(other).await), "peer_id");
}

#[tokio::test(start_paused = true)]
async fn replies_up_to_date_without_changes_after_the_wait() {
    let fixture = Fixture::new().await;
    let start = Instant::now();
    let reply = fixture.reply(fixture.pull(20)).await;
    let expected = UpToDate {
        id: 7,
        epoch: fixture.node.epoch(),
        last_seq: 0,
    };
    assert_eq!(reply, SessionMessage::UpToDate(expected));
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn replies_the_same_for_a_domain_outside_the_intersection() {
    let fixture = Fixture::new().await;
    let start = Instant::now();
    let inside = fixture.reply(fixture.pull(20)).await;
    let outside = pull(7, fixture.peer.peer_id(), "contacts", 20);
    assert_eq!(fixture.reply(outside).await, inside);
    assert_eq!(start.elapsed().as_secs(), 40, "the same wait");
}

#[tokio::test(start_paused = true)]
async fn waits_at_most_as_long_as_the_protocol_allows() {
    let fixture = Fixture::new().await;
    let start = Instant::now();
    fixture.reply(fixture.pull(u32::MAX)).await;
    assert_eq!(start.elapsed().as_secs(), PULL_WAIT_S_MAX);
}

#[tokio::test(start_paused = true)]
async fn replies_at_once_while_all_waiting_permits_are_taken() {
    let config = SyncConfig {
        waiting_pulls_max: 1,
        ..manual()
    };
    let fixture = Fixture::with(config, CoreLimits::default()).await;
    let start = Instant::now();
    let first = fixture.reply_later(fixture.pull(30));
    tokio::task::yield_now().await;
    let second = fixture.reply(fixture.pull(30)).await;
    assert!(matches!(second, SessionMessage::UpToDate(_)));
    assert_eq!(start.elapsed().as_secs(), 0);
    first.await.unwrap();
    fixture.reply(fixture.pull(30)).await;
    assert_eq!(start.elapsed().as_secs(), 60, "the permit is free again");
}

#[tokio::test(start_paused = true)]
async fn waiting_pull_gets_a_package_when_something_changes() {
    let fixture = Fixture::new().await;
    let start = Instant::now();
    let waiting = fixture.reply_later(fixture.pull(60));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    fixture.node.send_message(&fixture.peer, "hello").await;
    let reply = waiting.await.unwrap();
    assert!(matches!(reply, SessionMessage::Package(body) if body.id == 7));
    assert_eq!(start.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_commit_wakes_only_the_pulls_of_peers_that_may_read_it() {
    let fixture = Fixture::new().await;
    let (node, stranger) = (&fixture.node, TestCore::new(3));
    node.meet(&stranger, Tier::Untrusted).await;
    let news = |peer: &TestCore, domain| node.core.watch(&peer.peer_id(), domain, Exported::Own);
    let (own, others) = (news(&fixture.peer, DOMAIN), news(&stranger, DOMAIN));
    let identities = news(&fixture.peer, "identities");
    let is_woken = |news: &crate::engine::News| news.wait().now_or_never().is_some();
    node.send_message(&fixture.peer, "hello").await;
    assert!(is_woken(&own), "its conversation");
    assert!(!is_woken(&others), "a conversation of others");
    assert!(!is_woken(&identities), "another app");
    // Objects that a peer sends are not sent on, so they are no news.
    fixture.peer.send_message(node, "hello").await;
    fixture.push(fixture.package(0).await).await;
    assert!(!is_woken(&own) && !is_woken(&others));
    let identity = node.identity;
    let rename = move |graph: &mut crate::graph::GraphManager<'_>| {
        graph.save_identity(identity, Some("Other"))
    };
    node.core.graph(rename).await.unwrap();
    assert!(is_woken(&identities), "a public object");
    assert!(!is_woken(&own) && !is_woken(&others));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_pull_is_woken_when_an_identity_of_its_peer_becomes_known() {
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let news = node.core.watch(&peer.peer_id(), DOMAIN, Exported::Own);
    node.meet(&peer, Tier::Untrusted).await;
    assert!(news.wait().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn package_holds_the_build_permit_and_is_recorded() {
    let fixture = Fixture::new().await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    let (peer, turns) = (fixture.peer.peer_id(), ReplyTurns::default());
    let session = info(peer, Tier::Untrusted);
    let reply = fixture
        .server
        .reply(&session, fixture.pull(0), &turns)
        .await;
    assert!(matches!(reply.message, SessionMessage::Package(_)));
    assert_eq!(turns.build.available_permits(), 0);
    drop(reply);
    assert_eq!(turns.build.available_permits(), 1);
    let epoch = fixture.node.epoch();
    let state = fixture
        .node
        .core
        .read(move |view| view.rows.sync_states(&peer))
        .await
        .unwrap();
    let sent = state
        .iter()
        .filter(|(domain, _, state)| domain == DOMAIN && state.epoch == epoch);
    assert_eq!(sent.count(), 1, "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn up_to_date_holds_no_build_permit() {
    let fixture = Fixture::new().await;
    let (peer, turns) = (fixture.peer.peer_id(), ReplyTurns::default());
    let session = info(peer, Tier::Untrusted);
    let reply = fixture
        .server
        .reply(&session, fixture.pull(0), &turns)
        .await;
    assert!(reply.build_permit.is_none());
}

#[tokio::test(start_paused = true)]
async fn notes_an_epoch_that_the_peer_signed() {
    let fixture = Fixture::new().await;
    let note = fixture.peer.signed_epoch(7, fixture.peer.epoch(), 3);
    let reply = fixture.reply(SessionMessage::Epoch(note)).await;
    assert_eq!(reply, SessionMessage::Noted(IdOnly { id: 7 }));
}

#[tokio::test(start_paused = true)]
async fn refuses_an_epoch_that_the_peer_did_not_sign_or_claim() {
    let fixture = Fixture::new().await;
    let unsigned = EpochNote {
        signature: Signature::from_bytes([1; 64]),
        ..fixture.peer.signed_epoch(7, fixture.peer.epoch(), 3)
    };
    let reply = fixture.reply(SessionMessage::Epoch(unsigned)).await;
    assert_eq!(code(&reply), "epoch");
    let another = fixture.peer.signed_epoch(7, Epoch::from_bytes([7; 16]), 3);
    let reply = fixture.reply(SessionMessage::Epoch(another)).await;
    assert_eq!(code(&reply), "epoch");
}

#[tokio::test(start_paused = true)]
async fn notes_a_known_epoch_of_this_node() {
    let fixture = Fixture::new().await;
    let known = fixture.node.signed_epoch(7, fixture.node.epoch(), 0);
    let reply = fixture.reply(SessionMessage::Heard(known)).await;
    assert_eq!(reply, SessionMessage::Noted(IdOnly { id: 7 }));
    assert_eq!(fixture.write_mode().await, WriteMode::ReadWrite);
}

#[tokio::test(start_paused = true)]
async fn unknown_epoch_with_this_nodes_key_makes_it_read_only() {
    let fixture = Fixture::new().await;
    let foreign = fixture.node.signed_epoch(7, Epoch::from_bytes([7; 16]), 0);
    let reply = fixture.reply(SessionMessage::Heard(foreign)).await;
    assert_eq!(reply, SessionMessage::Noted(IdOnly { id: 7 }));
    assert_eq!(fixture.write_mode().await, WriteMode::ReadOnly);
}

#[tokio::test(start_paused = true)]
async fn refuses_an_unknown_epoch_with_another_key() {
    let fixture = Fixture::new().await;
    let foreign = fixture.peer.signed_epoch(7, Epoch::from_bytes([7; 16]), 0);
    let reply = fixture.reply(SessionMessage::Heard(foreign)).await;
    assert_eq!(code(&reply), "epoch");
    assert_eq!(fixture.write_mode().await, WriteMode::ReadWrite);
}

#[tokio::test(start_paused = true)]
async fn acknowledges_a_pushed_package_once_and_again() {
    let fixture = Fixture::new().await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    let package = fixture.package(0).await;
    let first = fixture.push(package.clone()).await;
    let SessionMessage::Ack(ack) = &first else {
        panic!("{first:?}");
    };
    assert_eq!((ack.id, ack.epoch), (7, fixture.peer.epoch()));
    assert!(ack.last_seq > 0);
    assert_eq!(fixture.push(package).await, first);
}

#[tokio::test(start_paused = true)]
async fn refuses_a_pushed_package_behind_a_gap_with_the_cursor() {
    let fixture = Fixture::new().await;
    fixture.peer.send_message(&fixture.node, "one").await;
    let SessionMessage::Ack(ack) = fixture.push(fixture.package(0).await).await else {
        panic!("no ack");
    };
    fixture.peer.send_message(&fixture.node, "two").await;
    fixture.peer.send_message(&fixture.node, "three").await;
    let reply = fixture.push(fixture.package(ack.last_seq + 1).await).await;
    assert_eq!(code(&reply), "gap");
    assert!(matches!(reply, SessionMessage::Refused(refusal)
        if refusal.last_seq == Some(ack.last_seq)));
}

#[tokio::test(start_paused = true)]
async fn refuses_a_pushed_package_with_the_code_of_its_fault() {
    let fixture = Fixture::new().await;
    assert_eq!(code(&fixture.push(b"\x80".to_vec()).await), "malformed");
    fixture.peer.send_message(&fixture.node, "hello").await;
    let mut package = fixture.package(0).await;
    let last = package.len() - 1;
    package[last] ^= 1;
    assert_eq!(code(&fixture.push(package).await), "signature");
}

#[tokio::test(start_paused = true)]
async fn refuses_a_pushed_package_beyond_the_quota() {
    let none = TierQuota {
        stored_objects_max: 1,
        ..Quotas::default().untrusted
    };
    let limits = CoreLimits {
        quotas: Quotas {
            untrusted: none,
            ..Quotas::default()
        },
        ..CoreLimits::default()
    };
    let fixture = Fixture::with(manual(), limits).await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    let reply = fixture.push(fixture.package(0).await).await;
    assert_eq!(code(&reply), "quota");
    let peer = fixture.peer.peer_id();
    assert!(
        !fixture.server.quota_log.refused(&peer, &"full"),
        "it was logged"
    );
}

#[tokio::test(start_paused = true)]
async fn accepted_push_makes_the_next_full_quota_logged_again() {
    let fixture = Fixture::new().await;
    let peer = fixture.peer.peer_id();
    fixture.server.quota_log.refused(&peer, &"full");
    fixture.peer.send_message(&fixture.node, "hello").await;
    fixture.push(fixture.package(0).await).await;
    assert!(fixture.server.quota_log.refused(&peer, &"full"));
}

#[tokio::test(start_paused = true)]
async fn push_of_a_peer_that_used_up_its_processor_time_waits() {
    let fixture = Fixture::new().await;
    let (peer, budget) = (fixture.peer.peer_id(), fixture.server.budget());
    let each = Quotas::default().untrusted.processor_per_minute_max;
    let mut charge = budget.begin(&peer, Tier::Untrusted, 0);
    charge.set_objects(each * 3 / 2);
    drop(charge);
    fixture.peer.send_message(&fixture.node, "hello").await;
    let start = Instant::now();
    let reply = fixture.push(fixture.package(0).await).await;
    assert!(matches!(reply, SessionMessage::Ack(_)), "{reply:?}");
    assert_eq!(start.elapsed().as_secs(), 30, "half of a minute's time");
}

#[tokio::test(start_paused = true)]
async fn new_objects_cost_no_processor_time_and_the_same_ones_again_do() {
    let fixture = Fixture::new().await;
    let (peer, budget) = (fixture.peer.peer_id(), fixture.server.budget());
    fixture.peer.send_message(&fixture.node, "hello").await;
    let package = fixture.package(0).await;
    fixture.push(package.clone()).await;
    let new = budget.spent(&peer);
    fixture.push(package).await;
    let again = budget.spent(&peer) - new;
    let objects = budget.refill(Tier::Untrusted, OBJECT_COST * 2);
    assert_eq!((again - new).as_millis(), objects.as_millis());
}

#[tokio::test(start_paused = true)]
async fn refuses_a_push_of_an_unknown_peer_as_its_own_fault() {
    let fixture = Fixture::new().await;
    let turns = ReplyTurns::default();
    let push = SessionMessage::Push(PackageBody {
        id: 7,
        body: vec![0x80],
    });
    let unknown = info(peer_id(9), Tier::Untrusted);
    let reply = fixture.server.reply(&unknown, push, &turns).await;
    assert_eq!(code(&reply.message), "internal");
}

#[tokio::test(start_paused = true)]
async fn refuses_a_message_that_is_no_request() {
    let fixture = Fixture::new().await;
    let reply = fixture.reply(pong(7)).await;
    assert!(matches!(reply, SessionMessage::Refused(refusal) if refusal.code == "internal"));
}

#[tokio::test(start_paused = true)]
async fn may_ask_until_the_bucket_of_the_tier_is_empty() {
    let fixture = Fixture::new().await;
    let peer = fixture.peer.peer_id();
    let quotas = fixture.node.core.context().limits.quotas;
    for _ in 0..quotas.untrusted.requests_per_minute_max {
        assert!(fixture.server.may_ask(&peer, Tier::Untrusted));
    }
    assert!(!fixture.server.may_ask(&peer, Tier::Untrusted));
}
