//! Tests of admission, of the start of sessions and of requested syncs, with scripted peers.

use bastion::AppClaim;
use bastion::transport::memory::MemoryNet;
use keys::SchemaDigest;
use tokio::time::Instant;

use super::*;
use crate::peer::handshake_testing::{admitted, connector, serve};
use crate::peer::log_testing::CapturedLog;
use crate::peer::message::SessionMessage;
use crate::peer::session_testing::{ScriptedPeer, session};
use crate::peer::testing::{DOMAIN, TestCore, manual, peer_id, ping, pong};
use crate::store::Verdict;

struct Fixture {
    node: TestCore,
    peer: TestCore,
    sync: SyncService,
    config: SyncConfig,
}

impl Fixture {
    async fn new(config: SyncConfig) -> Self {
        let (node, peer) = (TestCore::new(1), TestCore::new(2));
        node.meet(&peer, Tier::Untrusted).await;
        peer.meet(&node, Tier::Untrusted).await;
        let stop = CancellationToken::new();
        let sync = SyncService::new(node.core.clone(), config.clone(), stop);
        Self {
            node,
            peer,
            sync,
            config,
        }
    }

    /// Enters a session with the peer; returns its other end.
    fn enter(&self, we_dialled: bool) -> ScriptedPeer {
        let (driver, remote) = session(
            self.peer.peer_id(),
            Tier::Untrusted,
            &self.config,
            &self.sync.0.stop,
        );
        let arrival = self.sync.registry().next_arrival();
        let live = LiveSession::for_test(driver.handle().clone(), we_dialled, arrival);
        self.sync.enter(driver, live);
        remote
    }

    /// Whether this node's id is the smaller one: its dials are preferred.
    fn is_smaller(&self) -> bool {
        self.node.peer_id() < self.peer.peer_id()
    }

    fn sessions(&self) -> usize {
        self.sync.registry().sessions().len()
    }
}

#[tokio::test(start_paused = true)]
async fn listed_session_runs_and_frees_its_slot_at_its_end() {
    let config = SyncConfig {
        sessions_max: 1,
        ..manual()
    };
    let fixture = Fixture::new(config).await;
    let mut peer = fixture.enter(true);
    assert_eq!(fixture.sessions(), 1);
    peer.send(&ping(5)).await;
    while peer.receive().await != Some(pong(5)) {}
    let registry = fixture.sync.registry();
    registry.trust(&fixture.peer.peer_id());
    let is_full = || registry.is_full_without(&peer_id(9), Tier::Trusted, 8);
    assert!(is_full());
    registry.end(&fixture.peer.peer_id(), EndCode::End);
    assert_eq!(peer.bye().await, "end");
    fixture.sync.close().await;
    assert!(!is_full());
}

#[tokio::test(start_paused = true)]
async fn session_shows_its_epoch_first() {
    let fixture = Fixture::new(manual()).await;
    let mut peer = fixture.enter(true);
    assert!(
        matches!(peer.receive().await, Some(SessionMessage::Epoch(note))
        if note.epoch == fixture.node.epoch())
    );
}

#[tokio::test(start_paused = true)]
async fn session_without_a_slot_is_refused() {
    let config = SyncConfig {
        sessions_max: 0,
        ..manual()
    };
    let fixture = Fixture::new(config).await;
    assert_eq!(fixture.enter(true).bye().await, "busy");
    assert_eq!(fixture.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn duplicate_is_refused_if_the_old_session_is_alive() {
    let fixture = Fixture::new(manual()).await;
    let preferred = fixture.is_smaller();
    let mut old = fixture.enter(preferred);
    let mut new = fixture.enter(!preferred);
    loop {
        match old.receive().await {
            Some(SessionMessage::Ping(probe)) => {
                old.send(&SessionMessage::Pong(probe)).await;
                break;
            }
            Some(_) => {}
            None => panic!("the old session ended"),
        }
    }
    assert_eq!(new.bye().await, "duplicate");
    // The old session can be probed again, at once.
    let start = Instant::now();
    let mut third = fixture.enter(!preferred);
    loop {
        match old.receive().await {
            Some(SessionMessage::Ping(probe)) => {
                old.send(&SessionMessage::Pong(probe)).await;
                break;
            }
            Some(_) => {}
            None => panic!("the old session ended"),
        }
    }
    assert_eq!(start.elapsed().as_secs(), 0);
    assert_eq!(third.bye().await, "duplicate");
    assert_eq!(fixture.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn duplicate_replaces_an_old_session_that_is_silent() {
    let fixture = Fixture::new(manual()).await;
    let preferred = fixture.is_smaller();
    let start = Instant::now();
    let mut old = fixture.enter(preferred);
    let mut new = fixture.enter(!preferred);
    assert_eq!(old.bye().await, "silence");
    assert_eq!(start.elapsed().as_secs(), fixture.config.ping_interval_s);
    new.send(&ping(5)).await;
    while new.receive().await != Some(pong(5)) {}
    assert_eq!(fixture.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn session_of_a_peer_that_was_kept_out_meanwhile_ends_at_once() {
    let fixture = Fixture::new(manual()).await;
    for verdict in [Verdict::Banned, Verdict::Refused] {
        fixture.node.set_verdict(&fixture.peer, verdict, None).await;
        assert_eq!(fixture.enter(true).bye().await, "refused", "{verdict:?}");
        fixture.sync.0.registry.end_all(EndCode::End);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_peer_that_is_trusted_and_approved_peer_are_not_kept_out() {
    let fixture = Fixture::new(manual()).await;
    let (core, peer) = (&fixture.node.core, fixture.peer.peer_id());
    fixture
        .node
        .set_verdict(&fixture.peer, Verdict::Refused, None)
        .await;
    assert!(admit::is_kept_out(core, peer).await);
    fixture.node.meet(&fixture.peer, Tier::Trusted).await;
    assert!(!admit::is_kept_out(core, peer).await);
    fixture
        .node
        .set_verdict(&fixture.peer, Verdict::Banned, None)
        .await;
    assert!(admit::is_kept_out(core, peer).await);
    fixture
        .node
        .set_verdict(&fixture.peer, Verdict::Banned, Some(1))
        .await;
    assert!(!admit::is_kept_out(core, peer).await, "the ban has ended");
    fixture
        .node
        .set_verdict(&fixture.peer, Verdict::Approved, None)
        .await;
    assert!(!admit::is_kept_out(core, peer).await);
}

#[tokio::test(start_paused = true)]
async fn sync_without_a_session_is_refused() {
    let fixture = Fixture::new(manual()).await;
    let peer = fixture.peer.peer_id();
    let pull = fixture.sync.pull(&peer, DOMAIN).await;
    assert!(matches!(pull, Err(SyncError::NoSession)));
    let push = fixture.sync.push(&peer, DOMAIN).await;
    assert!(matches!(push, Err(SyncError::NoSession)));
}

#[tokio::test(start_paused = true)]
async fn push_of_a_domain_that_is_not_shared_is_refused() {
    let fixture = Fixture::new(manual()).await;
    let _remote = fixture.enter(true);
    let push = fixture.sync.push(&fixture.peer.peer_id(), "contacts").await;
    assert!(matches!(push, Err(SyncError::NotShared(domain)) if domain == "contacts"));
}

#[tokio::test(start_paused = true)]
async fn close_ends_sessions_and_background_work() {
    let fixture = Fixture::new(manual()).await;
    let mut remote = fixture.enter(true);
    fixture.sync.in_background(std::future::pending());
    let closing = fixture.sync.clone();
    let closing = tokio::spawn(async move { closing.close().await });
    assert_eq!(remote.bye().await, "shutdown");
    closing.await.unwrap();
    assert_eq!(fixture.sessions(), 0);
}

#[tokio::test]
async fn admission_stores_the_peer_and_its_ticket_and_starts_a_session() {
    let net = MemoryNet::new();
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let stop = CancellationToken::new();
    let dialler = SyncService::new(node.core.clone(), manual(), stop.clone());
    let server = SyncService::new(peer.core.clone(), manual(), stop.clone());
    let handshake = admitted(&net, &node, &peer).await;
    let (session, outcome) = handshake.dialled;
    let reached = dialler.admit(session, outcome).await.unwrap();
    assert_eq!(reached, peer.peer_id());
    let (session, outcome) = handshake.accepted;
    server.admit_in_background(session, outcome);
    assert_eq!(dialler.registry().sessions()[0].tier, Tier::Trusted);
    let onion = peer.keys.onion();
    let met = node
        .core
        .read(move |view| view.rows.last_peer_at(&onion))
        .await;
    assert!(met.unwrap().unwrap().ticket.is_some());
    assert!(node.knows(&peer.identity).await);
    dialler.pull(&reached, DOMAIN).await.unwrap();
    assert!(peer.knows(&node.identity).await);
    let accepted = server.registry().sessions();
    assert_eq!(accepted[0].peer, node.peer_id());
    assert_eq!(
        (accepted[0].tier, accepted[0].we_dialled),
        (Tier::Untrusted, false)
    );
    dialler.close().await;
    server.close().await;
}

#[tokio::test]
async fn admission_of_a_banned_peer_is_refused() {
    let net = MemoryNet::new();
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let stop = CancellationToken::new();
    let sync = SyncService::new(node.core.clone(), manual(), stop);
    node.set_verdict(&peer, Verdict::Banned, None).await;
    let handshake = admitted(&net, &node, &peer).await;
    let (session, outcome) = handshake.dialled;
    let refused = sync.admit(session, outcome).await;
    assert!(matches!(refused, Err(AdmitError::Banned)));
    assert!(sync.registry().sessions().is_empty());
    assert!(!node.knows(&peer.identity).await, "nothing is stored of it");
}

#[tokio::test]
async fn admission_beyond_the_quota_starts_a_session_all_the_same() {
    let net = MemoryNet::new();
    let mut limits = crate::state_engine::CoreLimits::default();
    limits.quotas.untrusted.stored_objects_max = 0;
    let (node, peer) = (TestCore::new(1), TestCore::with_limits(2, limits));
    let stop = CancellationToken::new();
    let server = SyncService::new(peer.core.clone(), manual(), stop);
    let handshake = admitted(&net, &node, &peer).await;
    let (session, outcome) = handshake.accepted;
    server.admit(session, outcome).await.unwrap();
    assert_eq!(server.registry().sessions().len(), 1);
    assert!(!peer.knows(&node.identity).await);
    let id = node.peer_id();
    assert!(!server.0.server.quota_log().refused(&id, &"full"), "logged");
}

#[tokio::test]
async fn trusted_admission_trusts_the_session_that_is_listed() {
    let net = MemoryNet::new();
    let mut nodes = [TestCore::new(1), TestCore::new(2)];
    // The dial of the larger peer id does not replace the listed session: it waits for a probe.
    nodes.sort_by_key(|node| std::cmp::Reverse(node.peer_id()));
    let [node, peer] = nodes;
    node.meet(&peer, Tier::Untrusted).await;
    let sync = SyncService::new(node.core.clone(), manual(), CancellationToken::new());
    let fixture = Fixture {
        node,
        peer,
        sync,
        config: manual(),
    };
    let _old = fixture.enter(false);
    let listed = fixture.sync.registry().session(&fixture.peer.peer_id());
    let handshake = admitted(&net, &fixture.node, &fixture.peer).await;
    let (session, outcome) = handshake.dialled;
    fixture.sync.admit(session, outcome).await.unwrap();
    let after = fixture.sync.registry().session(&fixture.peer.peer_id());
    let (listed, after) = (listed.unwrap().handle, after.unwrap().handle);
    assert!(Arc::ptr_eq(&listed, &after));
    assert_eq!(after.tier(), Tier::Trusted);
}

#[tokio::test]
async fn session_logs_and_writes_carry_its_trace_id() {
    let log = CapturedLog::start();
    let net = MemoryNet::new();
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let sync = SyncService::new(node.core.clone(), manual(), CancellationToken::new());
    let (session, outcome) = admitted(&net, &node, &peer).await.dialled;
    let trace = TraceId(0xabc);
    sync.admit_traced(trace, session, outcome).await.unwrap();
    let live = sync.registry().session(&peer.peer_id()).unwrap();
    assert_eq!(live.handle.trace(), trace);
    sync.close().await;
    let span = format!("session{{peer={} trace={trace}}}", peer.peer_id());
    for event in ["session started", "session ended"] {
        let lines = log.lines(event);
        assert!(lines[0].contains(&span), "{lines:?}");
        assert!(!lines[0].contains("handshake"), "{lines:?}");
    }
    let write = format!("{span}:write{{trace={trace}}}");
    assert!(!log.lines(&write).is_empty(), "{:?}", log.lines("write{"));
}

#[tokio::test]
async fn admission_is_logged_in_the_span_of_its_handshake() {
    let log = CapturedLog::start_at(tracing::Level::INFO);
    let net = MemoryNet::new();
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let stop = CancellationToken::new();
    serve(&net, &peer, stop.clone()).await;
    let connector = connector(&node).await;
    let onion = peer.keys.onion();
    let _session = connector
        .dial(&net.transport(), &onion, None, &|_| {})
        .await
        .unwrap();
    while log.lines("session started").is_empty() {
        tokio::task::yield_now().await;
    }
    let lines = log.lines("admitted a peer");
    assert!(
        lines[0].contains("handshake{side=\"server\" trace="),
        "{lines:?}"
    );
    assert!(lines[0].contains("session="), "{lines:?}");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn schemas_that_differ_are_reported_once_in_a_session() {
    let log = CapturedLog::start_at(tracing::Level::INFO);
    let fixture = Fixture::new(manual()).await;
    let peer = fixture.peer.peer_id();
    let mut claims = fixture.node.core.context().schemas.claims();
    let warnings = || log.lines("WARN").len();
    let start = async |claims: &[AppClaim]| {
        let claims = claims.to_vec();
        let note = fixture.node.core.graph(move |graph| {
            let mut row = graph.tx().peer(&peer)?.unwrap();
            row.peer_apps = claims;
            graph.tx().put_peer(&row)
        });
        note.await.unwrap();
        let before = log.lines("session ended").len();
        let mut remote = fixture.enter(true);
        // The session's tasks run from now on.
        assert!(remote.receive().await.is_some());
        fixture.sync.registry().end(&peer, EndCode::End);
        assert_eq!(remote.bye().await, "end");
        while log.lines("session ended").len() == before {
            tokio::task::yield_now().await;
        }
    };
    claims.push(AppClaim::new("unknown", 9, claims[0].digest));
    start(&claims).await;
    assert_eq!(warnings(), 0, "{:?}", log.lines("WARN"));
    let here = claims[0].version;
    claims[0].version += 1;
    start(&claims).await;
    let app = claims[0].slug.clone();
    let [line] = log.lines("a later schema").try_into().unwrap();
    assert!(
        line.contains(&format!("app=\"{app}\" version={} here={here}", here + 1)),
        "{line}"
    );
    claims[0].version -= 1;
    claims[0].digest = SchemaDigest::from_bytes([7; 16]);
    start(&claims).await;
    let [line] = log.lines("another text").try_into().unwrap();
    assert!(
        line.contains(&format!("app=\"{app}\" version={here}")),
        "{line}"
    );
    assert_eq!(warnings(), 2, "{:?}", log.lines("WARN"));
    start(&claims).await;
    assert_eq!(log.lines("another text").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn end_of_a_session_is_logged_with_every_cause() {
    let log = CapturedLog::start_at(tracing::Level::INFO);
    let fixture = Fixture::new(manual()).await;
    let mut peer = fixture.enter(true);
    peer.send_frame(b"\xff").await;
    assert_eq!(peer.bye().await, "misbehaviour");
    fixture.sync.close().await;
    let [line] = log.lines("session ended").try_into().unwrap();
    let cause = SessionMessage::decode(b"\xff").unwrap_err();
    let reason = format!("reason=the peer sent a malformed message: {cause}");
    assert!(line.contains(&reason), "{line}");
}
