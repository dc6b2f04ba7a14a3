//! Tests of forgetting idle peers and of a recovery's deadline, with a clock that the test sets.

use bastion::Tier;
use tokio::time::advance;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::graph::GraphManager;
use crate::peer::EndCode;
use crate::peer::log_testing::CapturedLog;
use crate::peer::registry::LiveSession;
use crate::peer::testing::{TestCore, handle, manual};
use crate::store::RejectRow;

/// A node that knows an untrusted peer since `idle_days`.
async fn node_with_idle_peer(idle_days: u64, tier: Tier) -> (TestCore, TestCore, SyncService) {
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    node.meet(&peer, tier).await;
    node.clock.advance_ms(idle_days * DAY_MS);
    let sync = SyncService::new(node.core.clone(), manual(), CancellationToken::new());
    (node, peer, sync)
}

async fn is_known(node: &TestCore, peer: &TestCore) -> bool {
    let peer = peer.peer_id();
    let row = node.core.read(move |view| view.rows.peer(&peer)).await;
    row.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn forgets_an_untrusted_peer_that_was_idle() {
    let (node, peer, sync) = node_with_idle_peer(31, Tier::Untrusted).await;
    assert_eq!(sync.forget_idle(30).await.unwrap(), 1);
    assert!(!is_known(&node, &peer).await);
}

#[tokio::test(start_paused = true)]
async fn forgets_peers_that_left_much_in_several_portions() {
    let (node, peer, sync) = node_with_idle_peer(0, Tier::Untrusted).await;
    let other = TestCore::new(3);
    node.meet(&other, Tier::Untrusted).await;
    node.clock.advance_ms(31 * DAY_MS);
    let ids = [peer.peer_id(), other.peer_id()];
    let reject_much = move |graph: &mut GraphManager<'_>| {
        ids.iter().try_for_each(|peer| {
            let reject = |seq| RejectRow {
                peer: Some(*peer),
                domain: "messages".into(),
                epoch: keys::Epoch::from_bytes([1; 16]),
                seq,
                oid: None,
                type_name: None,
                code: "schema".into(),
                at: graph.now(),
            };
            let rejects: Vec<_> = (0..1100).map(reject).collect();
            graph.tx().put_rejects(Some(peer), &rejects, 1100)
        })
    };
    node.core.graph(reject_much).await.unwrap();
    let portion = move |graph: &mut GraphManager<'_>| {
        let forgotten = graph.tx().forget_untrusted_peers(graph.now(), 500)?;
        // Undone, so that the run below finds both.
        Err::<usize, _>(StoreError::Inconsistent(match forgotten {
            1 => "one",
            _ => "another number",
        }))
    };
    let portion = node.core.graph(portion).await.unwrap_err().to_string();
    assert!(portion.contains("one"), "{portion}");
    assert_eq!(sync.forget_idle(30).await.unwrap(), 2);
    assert!(!is_known(&node, &peer).await && !is_known(&node, &other).await);
}

#[tokio::test(start_paused = true)]
async fn keeps_recent_and_trusted_peers_and_forgets_none_with_0_days() {
    let (node, peer, sync) = node_with_idle_peer(29, Tier::Untrusted).await;
    assert_eq!(sync.forget_idle(30).await.unwrap(), 0);
    assert!(is_known(&node, &peer).await);
    assert_eq!(sync.forget_idle(0).await.unwrap(), 0);
    let (node, peer, sync) = node_with_idle_peer(31, Tier::Trusted).await;
    assert_eq!(sync.forget_idle(30).await.unwrap(), 0);
    assert!(is_known(&node, &peer).await);
}

#[tokio::test(start_paused = true)]
async fn peer_with_a_session_is_not_idle() {
    let (node, peer, sync) = node_with_idle_peer(31, Tier::Untrusted).await;
    let (handle, _frames) = handle(peer.peer_id(), &manual());
    let live = LiveSession::for_test(handle.clone(), true, 0);
    sync.registry().enter(live);
    assert_eq!(sync.forget_idle(30).await.unwrap(), 0);
    handle.end(EndCode::End);
    node.clock.advance_ms(29 * DAY_MS);
    assert_eq!(sync.forget_idle(30).await.unwrap(), 0, "it was here");
    node.clock.advance_ms(2 * DAY_MS);
    assert_eq!(sync.forget_idle(30).await.unwrap(), 1);
}

/// Lets every task run that is ready.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn forgets_soon_after_the_start_and_then_at_an_interval() {
    let (node, peer, sync) = node_with_idle_peer(29, Tier::Untrusted).await;
    sync.keep_forgetting(|| 30);
    settle().await;
    advance(FORGET_SOON).await;
    settle().await;
    node.clock.advance_ms(2 * DAY_MS);
    advance(FORGET_INTERVAL - FORGET_SOON).await;
    settle().await;
    assert!(is_known(&node, &peer).await, "not before the interval");
    advance(FORGET_SOON).await;
    settle().await;
    assert!(!is_known(&node, &peer).await);
    sync.close().await;
}

#[tokio::test(start_paused = true)]
async fn first_run_of_forgetting_waits_for_sessions() {
    let (node, peer, sync) = node_with_idle_peer(31, Tier::Untrusted).await;
    sync.keep_forgetting(|| 30);
    settle().await;
    advance(FORGET_SOON - Duration::from_millis(1)).await;
    settle().await;
    assert!(is_known(&node, &peer).await);
    advance(Duration::from_millis(1)).await;
    settle().await;
    assert!(!is_known(&node, &peer).await);
}

#[tokio::test(start_paused = true)]
async fn ends_a_recovery_at_its_deadline() {
    let peer = TestCore::new(2);
    let node = TestCore::new(1).met_and_restored(&peer).await;
    let sync = SyncService::new(node.core.clone(), manual(), CancellationToken::new());
    sync.keep_watching_recovery();
    settle().await;
    advance(RECOVERY_CHECK_INTERVAL).await;
    settle().await;
    let mode = node.core.read(|view| view.rows.write_mode()).await;
    assert!(mode.unwrap().is_some(), "before the deadline");
    let wait_ms = node.core.context().limits.recovery.wait_ms;
    node.clock.advance_ms(wait_ms + 1);
    advance(RECOVERY_CHECK_INTERVAL).await;
    settle().await;
    let mode = node.core.read(|view| view.rows.write_mode()).await;
    assert_eq!(mode.unwrap(), None, "the recovery is over");
    sync.close().await;
}

#[tokio::test(start_paused = true)]
async fn each_run_writes_under_a_trace_id_of_its_own() {
    let log = CapturedLog::start_at(tracing::Level::INFO);
    let (_node, _peer, sync) = node_with_idle_peer(31, Tier::Untrusted).await;
    sync.keep_forgetting(|| 30);
    sync.keep_watching_recovery();
    settle().await;
    advance(RECOVERY_CHECK_INTERVAL).await;
    settle().await;
    let forgot = log.lines("forgot idle untrusted peers");
    assert!(forgot[0].contains("maintenance{trace="), "{forgot:?}");
    let writes = log.lines("}:write{trace=");
    let trace = |line: &String| line.split("maintenance{trace=").nth(1).unwrap()[..16].to_owned();
    let mut traces: Vec<_> = writes.iter().map(trace).collect();
    for (line, trace) in writes.iter().zip(&traces) {
        assert!(line.contains(&format!("write{{trace={trace}}}")), "{line}");
    }
    traces.dedup();
    assert_eq!(traces.len(), 2, "{writes:?}");
    assert_ne!(traces[0], traces[1]);
    sync.close().await;
}
