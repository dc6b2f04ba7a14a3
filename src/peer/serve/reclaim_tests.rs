//! Objects that are returned to a restored peer.

use super::tests::{Fixture, code};
use super::*;
use crate::peer::message::ReclaimRequest;
use crate::peer::testing::DOMAIN;
use crate::state_engine::{OBJECT_COST, Quotas};

#[tokio::test(start_paused = true)]
async fn reclaims_what_came_from_the_peer() {
    let fixture = Fixture::new().await;
    fixture.peer.send_message(&fixture.node, "hello").await;
    fixture.push(fixture.package(0).await).await;
    let request = |domain: &str| {
        SessionMessage::Reclaim(ReclaimRequest {
            id: 7,
            after: None,
            domain: domain.into(),
        })
    };
    let SessionMessage::Reclaimed(batch) = fixture.reply(request(DOMAIN)).await else {
        panic!("no batch");
    };
    assert_eq!((batch.id, batch.next), (7, None));
    assert_eq!(
        batch.objects().unwrap().len(),
        2,
        "conversation and message"
    );
    let SessionMessage::Reclaimed(batch) = fixture.reply(request("contacts")).await else {
        panic!("no batch");
    };
    assert_eq!(batch.objects().unwrap(), [], "outside the intersection");
}

#[tokio::test(start_paused = true)]
async fn reclaim_costs_processor_time_and_is_refused_without_any_left() {
    let fixture = Fixture::new().await;
    let (peer, budget) = (fixture.peer.peer_id(), fixture.server.budget());
    let each = Quotas::default().untrusted.processor_per_minute_max;
    for number in 0..60 {
        let body: &'static str = ["one", "two", "three"][number % 3];
        fixture.peer.send_message(&fixture.node, body).await;
    }
    fixture.push(fixture.package(0).await).await;
    let ask = || {
        fixture.reply(SessionMessage::Reclaim(ReclaimRequest {
            id: 7,
            after: None,
            domain: DOMAIN.into(),
        }))
    };
    let before = budget.spent(&peer);
    assert!(matches!(ask().await, SessionMessage::Reclaimed(_)));
    let cost = budget.spent(&peer) - before;
    let objects = budget.refill(Tier::Untrusted, OBJECT_COST * 60);
    assert!(
        (objects..objects * 2).contains(&cost),
        "{cost:?} of {objects:?}"
    );
    let mut charge = budget.begin(&peer, Tier::Untrusted, 0);
    charge.set_objects(each);
    drop(charge);
    let start = Instant::now();
    assert_eq!(code(&ask().await), "busy");
    assert_eq!(start.elapsed().as_secs(), 0, "the requester waits itself");
}
