//! Tests of each reply to a pull.

use std::sync::Arc;

use super::*;
use crate::peer::message::{IdOnly, PackageBody, RequestRefusal, UpToDate};
use crate::peer::processor_budget::ProcessorBudget;
use crate::peer::session_testing::{RunningSession, elsewhere, run_session};
use crate::peer::testing::{DOMAIN, TestCore, manual};
use crate::state_engine::Quotas;
use crate::store::{PeerRow, StoreError};
use bastion::{Features, Tier};
use keys::Epoch;
use tokio::time::Instant;

/// A node that pulls from a scripted peer, which holds one message for it.
struct Fixture {
    node: TestCore,
    peer: TestCore,
    session: RunningSession,
    budget: Arc<ProcessorBudget>,
}

impl Fixture {
    async fn new() -> Self {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        peer.send_message(&node, "hello").await;
        let session = run_session(&node, peer.peer_id(), &manual());
        Self {
            node,
            peer,
            session,
            budget: Arc::new(ProcessorBudget::new(Quotas::default())),
        }
    }

    /// Pulls `domain`; `reply` makes the reply of the pull that the peer receives.
    async fn pull(
        &mut self,
        domain: &'static str,
        reply: impl FnOnce(Pull) -> SessionMessage,
    ) -> Result<PullOutcome, SyncError> {
        let (core, handle) = (self.node.core.clone(), self.session.handle.clone());
        let (budget, elsewhere) = (self.budget.clone(), elsewhere(&self.node));
        let pulling = tokio::spawn(async move {
            let puller = Puller {
                engine: &core,
                budget: &budget,
                handle: &handle,
                elsewhere: &elsewhere,
            };
            pull_once(puller, domain, 5).await
        });
        let Some(SessionMessage::Pull(pull)) = self.session.peer.receive().await else {
            panic!("no pull");
        };
        self.session.peer.send(&reply(pull)).await;
        pulling.await.unwrap()
    }

    async fn package(&self) -> Vec<u8> {
        let (to, features) = (self.node.peer_id(), Features::none());
        self.peer.package_for(to, features, DOMAIN, 0).await
    }
}

fn body(id: u64, body: Vec<u8>) -> SessionMessage {
    SessionMessage::Package(PackageBody { id, body })
}

#[tokio::test(start_paused = true)]
async fn applies_a_package_and_continues_behind_it() {
    let mut fixture = Fixture::new().await;
    let package = fixture.package().await;
    let node = fixture.node.peer_id();
    let outcome = fixture.pull(DOMAIN, |pull| {
        let asked = (pull.epoch, pull.last_seq, pull.wait_s, pull.peer_id);
        assert_eq!(asked, (None, 0, 5, node));
        body(pull.id, package)
    });
    let outcome = outcome.await.unwrap();
    let window = outcome.window.unwrap();
    assert_eq!((outcome.applied.written, outcome.more), (2, false));
    let epoch = fixture.peer.epoch();
    let up_to_date = fixture.pull(DOMAIN, |pull| {
        assert_eq!((pull.epoch, pull.last_seq), (Some(epoch), window.to_seq));
        SessionMessage::UpToDate(UpToDate {
            id: pull.id,
            epoch,
            last_seq: window.to_seq,
        })
    });
    let outcome = up_to_date.await.unwrap();
    assert_eq!((outcome.window, outcome.more), (None, false));
    assert_eq!(outcome.applied.last_seq, window.to_seq);
}

#[tokio::test(start_paused = true)]
async fn refuses_a_package_that_brings_nothing_new() {
    let mut fixture = Fixture::new().await;
    let package = fixture.package().await;
    let again = package.clone();
    let first = fixture.pull(DOMAIN, |pull| body(pull.id, package)).await;
    first.unwrap();
    let second = fixture.pull(DOMAIN, |pull| body(pull.id, again)).await;
    assert!(matches!(
        second,
        Err(SyncError::Package(PackageFault::Window))
    ));
}

#[tokio::test(start_paused = true)]
async fn peer_that_used_up_its_processor_time_is_not_pulled_until_some_comes_back() {
    let mut fixture = Fixture::new().await;
    let package = fixture.package().await;
    let each = Quotas::default().untrusted.processor_per_minute_max;
    let peer = fixture.peer.peer_id();
    let mut charge = fixture.budget.begin(&peer, Tier::Untrusted, 0);
    charge.set_objects(each * 13 / 12);
    drop(charge);
    let (start, mut asked) = (Instant::now(), 0);
    let outcome = fixture.pull(DOMAIN, |pull| {
        asked = start.elapsed().as_secs();
        body(pull.id, package)
    });
    outcome.await.unwrap();
    assert_eq!(asked, 5, "a twelfth of a minute's time");
}

#[tokio::test(start_paused = true)]
async fn refuses_a_package_of_another_domain_than_requested() {
    let mut fixture = Fixture::new().await;
    let package = fixture.package().await;
    let outcome = fixture
        .pull("identities", |pull| body(pull.id, package))
        .await;
    assert!(matches!(
        outcome,
        Err(SyncError::Package(PackageFault::Domain))
    ));
}

#[tokio::test(start_paused = true)]
async fn refuses_a_package_of_another_epoch_than_the_admitted_one() {
    let mut fixture = Fixture::new().await;
    let peer = fixture.peer.peer_id();
    let other = fixture.node.core.graph(move |graph| {
        let row = graph.tx().peer(&peer)?;
        let row = row.ok_or(StoreError::Inconsistent("no peer"))?;
        graph.save_peer(&PeerRow {
            epoch: Epoch::from_bytes([7; 16]),
            ..row
        })
    });
    other.await.unwrap();
    let package = fixture.package().await;
    let outcome = fixture.pull(DOMAIN, |pull| body(pull.id, package)).await;
    assert!(matches!(
        outcome,
        Err(SyncError::Package(PackageFault::Epoch))
    ));
}

#[tokio::test(start_paused = true)]
async fn passes_on_a_refusal() {
    let mut fixture = Fixture::new().await;
    let outcome = fixture.pull(DOMAIN, |pull| {
        SessionMessage::Refused(RequestRefusal {
            id: pull.id,
            code: "busy".into(),
            last_seq: None,
        })
    });
    assert!(matches!(outcome.await, Err(SyncError::Refused(code)) if code == "busy"));
}

#[tokio::test(start_paused = true)]
async fn reply_of_another_kind_ends_the_session() {
    let mut fixture = Fixture::new().await;
    let outcome = fixture
        .pull(DOMAIN, |pull| SessionMessage::Noted(IdOnly { id: pull.id }))
        .await;
    assert!(matches!(
        outcome,
        Err(SyncError::Session(SessionError::Over))
    ));
    let end = fixture.session.end.await.unwrap();
    assert!(matches!(end, SessionError::Misbehaved(_)), "{end:?}");
}

#[test]
fn position_is_repeated_only_within_its_epoch_and_number() {
    let epoch = Epoch::from_bytes([1; 16]);
    let package = |epoch, to_seq| ReceivedPackage {
        epoch,
        window: Window {
            from_seq: 0,
            to_seq,
        },
        more: false,
        applied: AppliedPackage::default(),
    };
    let cursor = NextPull {
        epoch: Some(epoch),
        last_seq: 9,
        again: None,
    };
    assert!(is_repeated(&cursor, &package(epoch, 9)));
    assert!(!is_repeated(&cursor, &package(epoch, 10)));
    let other = Epoch::from_bytes([2; 16]);
    assert!(!is_repeated(&cursor, &package(other, 9)));
    let start = NextPull {
        epoch: None,
        last_seq: 0,
        again: None,
    };
    assert!(!is_repeated(&start, &package(epoch, 0)));
}
