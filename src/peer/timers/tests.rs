//! Tests of the periodic tasks, against a scripted peer with a paused clock.

use std::sync::Arc;

use bastion::{Features, Tier};
use tokio::time::Instant;

use super::*;
use crate::peer::EndCode;
use crate::peer::message::{PackageBody, Pull, RequestRefusal, SessionMessage};
use crate::peer::session_testing::{RunningSession, run_session};
use crate::peer::testing::{DOMAIN, TestCore, manual};
use crate::state_engine::{AppliedPackage, CoreLimits, Quotas, Window};

/// A session between a node and a scripted peer, without tasks.
struct Fixture {
    node: TestCore,
    peer: TestCore,
    session: RunningSession,
    context: Arc<SessionContext>,
    identified: CancellationToken,
}

impl Fixture {
    async fn new(config: SyncConfig) -> Self {
        Self::with_limits(config, CoreLimits::default()).await
    }

    async fn with_limits(config: SyncConfig, limits: CoreLimits) -> Self {
        let (node, peer) = (TestCore::with_limits(1, limits), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        let session = run_session(&node, peer.peer_id(), &config);
        let context = session.context(&node, config, &[identities::DOMAIN, DOMAIN]);
        Self {
            node,
            peer,
            session,
            context,
            identified: CancellationToken::new(),
        }
    }

    fn start_pulling(&self, domain: &'static str) -> tokio::task::JoinHandle<()> {
        let (context, identified) = (self.context.clone(), self.identified.clone());
        tokio::spawn(async move { keep_pulling(&context, domain, &identified).await })
    }

    fn start_pushing(&self) -> tokio::task::JoinHandle<()> {
        let context = self.context.clone();
        tokio::spawn(async move { keep_pushing(&context, DOMAIN).await })
    }

    async fn reply_up_to_date(&mut self, pull: &Pull) {
        let epoch = self.peer.epoch();
        self.session.peer.up_to_date(pull, epoch).await;
    }

    /// Replies with the package of a message that the peer wrote for the node.
    async fn reply_package(&mut self, pull: &Pull) {
        let (to, features) = (self.node.peer_id(), Features::none());
        let package = self
            .peer
            .package_for(to, features, &pull.domain, pull.last_seq);
        let (id, body) = (pull.id, package.await);
        let package = SessionMessage::Package(PackageBody { id, body });
        self.session.peer.send(&package).await;
    }
}

fn interval() -> SyncConfig {
    SyncConfig {
        pull_interval_s: 20,
        push_interval_s: 20,
        ..manual()
    }
}

#[test]
fn pause_after_a_pull_depends_on_more_and_on_waiting() {
    let window = Some(Window {
        from_seq: 0,
        to_seq: 1,
    });
    let outcome = |window, more| PullOutcome {
        domain: DOMAIN.into(),
        window,
        applied: AppliedPackage::default(),
        more,
    };
    let (periodic, live) = (
        interval(),
        SyncConfig {
            pull_wait_s: 30,
            ..interval()
        },
    );
    let seconds =
        |window, more, config: &SyncConfig| pause_after(&outcome(window, more), config).as_secs();
    assert_eq!(seconds(window, true, &periodic), 0);
    assert_eq!(seconds(window, false, &periodic), 20);
    assert_eq!(seconds(None, false, &periodic), 20);
    assert_eq!(seconds(window, true, &live), 0);
    assert_eq!(seconds(window, false, &live), 0);
    assert_eq!(seconds(None, false, &live), 1);
}

#[tokio::test(start_paused = true)]
async fn interval_of_zero_pulls_and_pushes_nothing() {
    let fixture = Fixture::new(manual()).await;
    fixture.start_pulling(identities::DOMAIN).await.unwrap();
    fixture.start_pushing().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pulls_at_the_interval_until_the_session_ends() {
    let mut fixture = Fixture::new(interval()).await;
    let task = fixture.start_pulling(identities::DOMAIN);
    for round in 0..3 {
        let start = Instant::now();
        let pull = fixture.session.peer.next_pull().await;
        assert_eq!(start.elapsed().as_secs(), if round == 0 { 0 } else { 20 });
        fixture.reply_up_to_date(&pull).await;
    }
    fixture.session.handle.end(EndCode::End);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn other_domains_wait_for_the_identities() {
    let mut fixture = Fixture::new(interval()).await;
    let _other = fixture.start_pulling(DOMAIN);
    let _identities = fixture.start_pulling(identities::DOMAIN);
    let first = fixture.session.peer.next_pull().await;
    assert_eq!(
        (first.domain.as_str(), first.wait_s),
        (identities::DOMAIN, 0)
    );
    assert!(!fixture.identified.is_cancelled());
    fixture.reply_up_to_date(&first).await;
    assert_eq!(fixture.session.peer.next_pull().await.domain, DOMAIN);
}

#[tokio::test(start_paused = true)]
async fn other_domains_stop_waiting_if_the_identities_cannot_be_pulled() {
    let mut fixture = Fixture::new(interval()).await;
    let _other = fixture.start_pulling(DOMAIN);
    let _identities = fixture.start_pulling(identities::DOMAIN);
    let first = fixture.session.peer.next_pull().await;
    fixture.session.peer.refuse(first.id, "internal").await;
    assert_eq!(fixture.session.peer.next_pull().await.domain, DOMAIN);
}

#[tokio::test(start_paused = true)]
async fn domain_that_waits_for_identities_ends_with_the_session() {
    let fixture = Fixture::new(interval()).await;
    let task = fixture.start_pulling(DOMAIN);
    fixture.session.handle.end(EndCode::End);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn identities_wait_for_changes_once_they_are_here() {
    let config = SyncConfig {
        pull_wait_s: 30,
        ..interval()
    };
    let mut fixture = Fixture::new(config).await;
    let _task = fixture.start_pulling(identities::DOMAIN);
    let first = fixture.session.peer.next_pull().await;
    assert_eq!(first.wait_s, 0);
    fixture.reply_up_to_date(&first).await;
    assert_eq!(fixture.session.peer.next_pull().await.wait_s, 30);
}

#[tokio::test(start_paused = true)]
async fn failed_pulls_are_retried_with_backoff_until_one_succeeds() {
    let mut fixture = Fixture::new(interval()).await;
    fixture.identified.cancel();
    let _task = fixture.start_pulling(DOMAIN);
    let mut pauses = Vec::new();
    let pull = fixture.session.peer.next_pull().await;
    fixture.session.peer.refuse(pull.id, "busy").await;
    for code in ["busy", "internal", "up to date", "busy"] {
        let start = Instant::now();
        let pull = fixture.session.peer.next_pull().await;
        pauses.push(start.elapsed().as_secs());
        if code == "up to date" {
            fixture.reply_up_to_date(&pull).await;
        } else {
            fixture.session.peer.refuse(pull.id, code).await;
        }
    }
    let start = Instant::now();
    fixture.session.peer.next_pull().await;
    pauses.push(start.elapsed().as_secs());
    let expected = [3..=4, 6..=8, 12..=16, 20..=20, 3..=4];
    for (pause, expected) in pauses.iter().zip(&expected) {
        assert!(expected.contains(pause), "{pauses:?}");
    }
    assert_eq!(pauses.len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn full_quota_of_a_pull_is_logged_once_until_one_is_applied() {
    let mut limits = CoreLimits {
        quotas: Quotas::default(),
        ..CoreLimits::default()
    };
    limits.quotas.untrusted.stored_objects_max = 1;
    let mut fixture = Fixture::with_limits(interval(), limits).await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    fixture.identified.cancel();
    let _task = fixture.start_pulling(DOMAIN);
    let pull = fixture.session.peer.next_pull().await;
    fixture.reply_package(&pull).await;
    fixture.session.peer.next_pull().await;
    let peer = fixture.peer.peer_id();
    assert!(!fixture.context.quota_log.refused(&peer, &"full"));
}

#[tokio::test(start_paused = true)]
async fn applied_package_clears_the_log_of_the_quota() {
    let mut fixture = Fixture::new(interval()).await;
    let peer = fixture.peer.peer_id();
    fixture.context.quota_log.refused(&peer, &"full");
    fixture.peer.send_message(&fixture.node, "hello").await;
    fixture.identified.cancel();
    let _task = fixture.start_pulling(DOMAIN);
    let pull = fixture.session.peer.next_pull().await;
    fixture.reply_package(&pull).await;
    fixture.session.peer.next_pull().await;
    assert!(fixture.context.quota_log.refused(&peer, &"full"));
}

#[tokio::test(start_paused = true)]
async fn pushes_at_the_interval_with_backoff_after_a_failure() {
    let mut fixture = Fixture::new(interval()).await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    let task = fixture.start_pushing();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let push = fixture.session.peer.next_push().await;
        pauses.push(start.elapsed().as_secs());
        fixture.session.peer.refuse(push.id, "internal").await;
    }
    let start = Instant::now();
    let push = fixture.session.peer.next_push().await;
    pauses.push(start.elapsed().as_secs());
    let expected = [20..=20, 3..=4, 6..=8, 12..=16];
    for (pause, expected) in pauses.iter().zip(&expected) {
        assert!(expected.contains(pause), "{pauses:?}");
    }
    let (epoch, head) = (fixture.node.epoch(), fixture.node.head().await);
    fixture.session.peer.acknowledge(push.id, epoch, head).await;
    fixture.node.send_message(&fixture.peer, "again").await;
    let start = Instant::now();
    fixture.session.peer.next_push().await;
    assert_eq!(start.elapsed().as_secs(), 20);
    fixture.session.handle.end(EndCode::End);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pushes_again_soon_after_a_gap() {
    let mut fixture = Fixture::new(interval()).await;
    fixture.node.send_message(&fixture.peer, "hello").await;
    let peer = fixture.peer.peer_id();
    fixture
        .node
        .core
        .write(move |core, now| core.record_ack(now, &peer, DOMAIN, 1))
        .await
        .unwrap();
    let _task = fixture.start_pushing();
    let push = fixture.session.peer.next_push().await;
    let gap = SessionMessage::Refused(RequestRefusal {
        id: push.id,
        code: "gap".into(),
        last_seq: Some(0),
    });
    fixture.session.peer.send(&gap).await;
    let start = Instant::now();
    fixture.session.peer.next_push().await;
    assert_eq!(start.elapsed(), PUSH_PAUSE);
}
