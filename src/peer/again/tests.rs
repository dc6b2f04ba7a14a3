//! Tests of the tasks that pull again, against a scripted peer with a paused clock.

use std::sync::Arc;

use bastion::Tier;
use keys::Oid;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::peer::EndCode;
use crate::peer::message::Pull;
use crate::peer::session_testing::{RunningSession, run_session};
use crate::peer::testing::{DOMAIN, TestCore, manual};
use crate::state_engine::AppliedPackage;
use crate::store::{PullAgainCause, PullAgainNote};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A node that pulls nothing by itself, and a scripted peer.
struct Fixture {
    node: TestCore,
    peer: TestCore,
    session: RunningSession,
    context: Arc<SessionContext>,
}

impl Fixture {
    async fn new() -> Self {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        let session = run_session(&node, peer.peer_id(), &manual());
        let context = session.context(&node, manual(), &[identities::DOMAIN, DOMAIN]);
        Self {
            node,
            peer,
            session,
            context,
        }
    }

    /// Starts the tasks of both domains.
    fn start(&self) -> JoinHandle<()> {
        let context = self.context.clone();
        tokio::spawn(async move {
            let identified = CancellationToken::new();
            tokio::join!(
                keep_pulling_again(&context, DOMAIN, &identified),
                keep_pulling_again(&context, identities::DOMAIN, &identified),
            );
        })
    }

    /// Notes that a domain is to be pulled again.
    async fn note(&self, domain: &'static str, cause: PullAgainCause) {
        let (peer, epoch) = (self.peer.peer_id(), self.peer.epoch());
        let noted = self.node.core.graph(move |graph| {
            let note = PullAgainNote {
                peer: &peer,
                domain,
                scope: Some(Oid::from_bytes([7; 16])),
                epoch,
                until_seq: 100,
                cause,
                is_again: false,
                is_own: true,
            };
            graph.tx().note_pull_again(&note, graph.now())
        });
        noted.await.unwrap();
    }

    /// The next pull, and the seconds until it; pings are answered.
    async fn next_pull(&mut self) -> (Pull, u64) {
        let start = Instant::now();
        let pull = self.session.peer.next_pull().await;
        assert!(pull.again.is_some(), "an ordinary pull");
        (pull, start.elapsed().as_secs())
    }

    /// The tasks look for rows meanwhile, and pull nothing.
    async fn is_quiet_for(&mut self, time: Duration) {
        assert!(timeout(time, self.next_pull()).await.is_err());
    }

    async fn up_to_date(&mut self, pull: &Pull) {
        let epoch = self.peer.epoch();
        self.session.peer.up_to_date(pull, epoch).await;
    }
}

#[tokio::test(start_paused = true)]
async fn identities_are_pulled_again_first() {
    let mut fixture = Fixture::new().await;
    for domain in [DOMAIN, identities::DOMAIN] {
        fixture.note(domain, PullAgainCause::Named).await;
    }
    let task = fixture.start();
    for domain in [identities::DOMAIN, DOMAIN] {
        let (pull, after_s) = fixture.next_pull().await;
        assert_eq!((pull.domain.as_str(), after_s), (domain, 0));
        fixture.up_to_date(&pull).await;
    }
    fixture.session.handle.end(EndCode::End);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn other_domains_stop_waiting_if_the_identities_cannot_be_pulled_again() {
    let mut fixture = Fixture::new().await;
    for domain in [DOMAIN, identities::DOMAIN] {
        fixture.note(domain, PullAgainCause::Named).await;
    }
    let _task = fixture.start();
    let (first, _) = fixture.next_pull().await;
    fixture.session.peer.refuse(first.id, "busy").await;
    let (second, after_s) = fixture.next_pull().await;
    assert_eq!((second.domain.as_str(), after_s), (DOMAIN, 0));
}

#[tokio::test(start_paused = true)]
async fn note_of_a_package_is_seen_at_once() {
    let mut fixture = Fixture::new().await;
    let _task = fixture.start();
    for _ in 0..2 {
        fixture.is_quiet_for(LOOK_INTERVAL / 2).await;
        fixture.note(DOMAIN, PullAgainCause::Named).await;
        fixture.context.note_applied(&AppliedPackage::default());
        let (pull, after_s) = fixture.next_pull().await;
        assert_eq!((pull.domain.as_str(), after_s), (DOMAIN, 0));
        fixture.up_to_date(&pull).await;
    }
}

#[tokio::test(start_paused = true)]
async fn note_is_seen_within_half_a_minute_after_it_is_due() {
    let mut fixture = Fixture::new().await;
    fixture.note(DOMAIN, PullAgainCause::NoRoom).await;
    let _task = fixture.start();
    fixture.is_quiet_for(10 * LOOK_INTERVAL).await;
    fixture.node.clock.advance_ms(DAY_MS);
    let (pull, after_s) = fixture.next_pull().await;
    assert_eq!(pull.domain, DOMAIN);
    assert!(after_s <= LOOK_INTERVAL.as_secs(), "{after_s}");
}
