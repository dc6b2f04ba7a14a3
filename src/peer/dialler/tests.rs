//! Tests of dials over a transport that records them, with a paused clock, and of real handshakes
//! over memory pipes.

use bastion::transport::Stream;
use bastion::transport::memory::{MemoryNet, MemoryTransport};
use bastion::{HandshakeError, Tier};
use futures::future::BoxFuture;
use keys::PublicKey;
use tokio::time::timeout;

use super::*;
use crate::peer::EndCode;
use crate::peer::handshake_testing::{connector, serve};
use crate::peer::log_testing::CapturedLog;
use crate::peer::registry::LiveSession;
use crate::peer::testing::{TestCore, handle, manual};
use crate::store::Verdict;

/// Records when each address was dialled; then fails or hangs.
struct RecordingTransport {
    net: MemoryTransport,
    hangs: bool,
    dials: Mutex<Vec<(OnionAddr, Instant)>>,
}

impl Transport for RecordingTransport {
    fn dial<'a>(
        &'a self,
        onion: &'a OnionAddr,
    ) -> BoxFuture<'a, Result<Stream, bastion::DialError>> {
        self.dials.lock().push((*onion, Instant::now()));
        Box::pin(async {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            self.net.dial(onion).await
        })
    }
}

struct Fixture {
    node: TestCore,
    sync: SyncService,
    transport: Arc<RecordingTransport>,
    dialler: Dialler,
    stop: CancellationToken,
}

impl Fixture {
    async fn new(hangs: bool) -> Self {
        Self::with(hangs, manual()).await
    }

    async fn with(hangs: bool, config: crate::config::SyncConfig) -> Self {
        let node = TestCore::new(1);
        let transport = Arc::new(RecordingTransport {
            net: MemoryNet::new().transport(),
            hangs,
            dials: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let sync = SyncService::new(node.core.clone(), config, stop.clone());
        let connector = connector(&node).await;
        let dialler = Dialler::new(connector, transport.clone(), sync.clone(), stop.clone());
        Self {
            node,
            sync,
            transport,
            dialler,
            stop,
        }
    }

    fn dials(&self) -> usize {
        self.transport.dials.lock().len()
    }

    async fn wait_for_dials(&self, count: usize) {
        while self.dials() < count {
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    }

    /// Seconds between the dials, rounded down.
    fn pauses(&self) -> Vec<u64> {
        let dials = self.transport.dials.lock();
        let pairs = dials.windows(2);
        pairs
            .map(|pair| (pair[1].1 - pair[0].1).as_secs())
            .collect()
    }

    fn start(&self, onion: OnionAddr) -> tokio::task::JoinHandle<Result<Reached, PeerDialError>> {
        let dialler = self.dialler.clone();
        tokio::spawn(async move { dialler.dial(&onion, &|_| {}).await })
    }
}

fn onion(number: u8) -> OnionAddr {
    OnionAddr::from_public_key(PublicKey::from_bytes([number; 32]))
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn kept_address_is_dialled_with_doubling_pauses() {
    let fixture = Fixture::new(false).await;
    fixture.dialler.keep(onion(1));
    fixture.wait_for_dials(6).await;
    let pauses = fixture.pauses();
    let expected = [3..=4, 6..=8, 12..=16, 12..=16, 12..=16];
    for (pause, expected) in pauses.iter().zip(&expected) {
        assert!(expected.contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn address_that_is_kept_twice_has_one_task() {
    let fixture = Fixture::new(true).await;
    fixture.dialler.keep(onion(1));
    fixture.dialler.keep(onion(1));
    fixture.dialler.keep_later(onion(1));
    settle().await;
    assert_eq!(fixture.dialler.0.tasks.len(), 1);
    fixture.dialler.keep(onion(2));
    settle().await;
    assert_eq!((fixture.dialler.0.tasks.len(), fixture.dials()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn own_address_is_not_kept() {
    let log = CapturedLog::start();
    let fixture = Fixture::new(false).await;
    fixture.dialler.keep(fixture.node.keys.onion());
    settle().await;
    assert_eq!(log.lines("the onion address of this node").len(), 1);
    assert_eq!(log.lines("could not reach a peer"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn keep_later_pauses_before_the_first_dial() {
    let fixture = Fixture::new(false).await;
    let start = Instant::now();
    fixture.dialler.keep_later(onion(1));
    fixture.wait_for_dials(1).await;
    let pause = fixture.transport.dials.lock()[0].1 - start;
    assert!((3..=4).contains(&pause.as_secs()), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn banned_address_is_not_dialled() {
    let fixture = Fixture::new(false).await;
    let banned = TestCore::new(2);
    fixture.node.meet(&banned, Tier::Untrusted).await;
    fixture
        .node
        .set_verdict(&banned, Verdict::Banned, None)
        .await;
    let refused = fixture.dialler.dial(&banned.keys.onion(), &|_| {}).await;
    assert!(matches!(refused, Err(PeerDialError::Banned)));
    fixture.dialler.keep(banned.keys.onion());
    tokio::time::advance(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(fixture.dials(), 0);
    fixture
        .node
        .set_verdict(&banned, Verdict::Banned, Some(1))
        .await;
    fixture.wait_for_dials(1).await;
}

#[tokio::test(start_paused = true)]
async fn dial_that_fails_in_the_handshake_is_an_error() {
    let fixture = Fixture::new(false).await;
    let result = fixture.dialler.dial(&onion(1), &|_| {}).await;
    assert!(matches!(
        result,
        Err(PeerDialError::Handshake(HandshakeError::Dial(_)))
    ));
    assert_eq!(fixture.dialler.underway(), []);
}

#[tokio::test(start_paused = true)]
async fn dial_ends_with_the_node() {
    let fixture = Fixture::new(true).await;
    let dial = fixture.start(onion(1));
    fixture.dialler.keep(onion(2));
    settle().await;
    fixture.stop.cancel();
    assert!(matches!(dial.await.unwrap(), Err(PeerDialError::Stopped)));
    fixture.dialler.close().await;
    let after = fixture.dialler.dial(&onion(1), &|_| {}).await;
    assert!(matches!(after, Err(PeerDialError::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn dials_beyond_the_slots_wait() {
    let config = crate::config::SyncConfig {
        dials_max: 2,
        ..manual()
    };
    let fixture = Fixture::with(true, config).await;
    let first = fixture.start(onion(1));
    let _second = fixture.start(onion(2));
    let _third = fixture.start(onion(3));
    settle().await;
    assert_eq!(fixture.dials(), 2);
    first.abort();
    settle().await;
    assert_eq!(fixture.dials(), 3);
}

#[tokio::test(start_paused = true)]
async fn address_is_dialled_once_at_a_time() {
    let fixture = Fixture::new(true).await;
    let first = fixture.start(onion(1));
    let _second = fixture.start(onion(1));
    settle().await;
    assert_eq!(fixture.dials(), 1);
    first.abort();
    settle().await;
    assert_eq!(fixture.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn dial_in_progress_is_listed_with_its_step() {
    let fixture = Fixture::new(true).await;
    let dial = fixture.start(onion(1));
    settle().await;
    let listed = fixture.dialler.underway();
    assert_eq!(listed, [(onion(1), Progress::Dialling)]);
    dial.abort();
    settle().await;
    assert_eq!(fixture.dialler.underway(), []);
}

/// Enters a session with the node at the address of `peer`.
fn enter_session(fixture: &Fixture, peer: &TestCore) -> Arc<crate::peer::handle::SessionHandle> {
    let (handle, _) = handle(peer.peer_id(), &manual());
    let arrival = fixture.sync.registry().next_arrival();
    let live = LiveSession::for_test(handle.clone(), true, arrival);
    fixture.sync.registry().enter(live.at(peer.keys.onion()));
    handle
}

#[tokio::test(start_paused = true)]
async fn kept_address_with_a_session_is_dialled_after_its_end() {
    let fixture = Fixture::new(true).await;
    let peer = TestCore::new(2);
    let session = enter_session(&fixture, &peer);
    fixture.dialler.keep(peer.keys.onion());
    settle().await;
    tokio::time::advance(Duration::from_secs(600)).await;
    settle().await;
    assert_eq!(fixture.dials(), 0, "the session is open");
    session.end(EndCode::End);
    settle().await;
    assert_eq!(fixture.dials(), 1, "at once, because the session lasted");
}

#[tokio::test(start_paused = true)]
async fn short_session_counts_as_a_failure() {
    let fixture = Fixture::new(true).await;
    let peer = TestCore::new(2);
    let session = enter_session(&fixture, &peer);
    fixture.dialler.keep(peer.keys.onion());
    settle().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    session.end(EndCode::End);
    let ended = Instant::now();
    settle().await;
    assert_eq!(fixture.dials(), 0);
    fixture.wait_for_dials(1).await;
    let pause = fixture.transport.dials.lock()[0].1 - ended;
    assert!((3..=4).contains(&pause.as_secs()), "{pause:?}");
}

#[tokio::test]
async fn dial_starts_a_session_and_uses_the_ticket_next_time() {
    let net = MemoryNet::new();
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let stop = CancellationToken::new();
    let server = serve(&net, &peer, stop.clone()).await;
    let sync = SyncService::new(node.core.clone(), manual(), stop.clone());
    let transport = Arc::new(net.transport());
    let dialler = Dialler::new(
        connector(&node).await,
        transport,
        sync.clone(),
        stop.clone(),
    );
    let first = dialler.dial(&peer.keys.onion(), &|_| {}).await.unwrap();
    assert_eq!(first.peer, peer.peer_id());
    assert!(first.effort > 0);
    assert!(sync.registry().session_at(&peer.keys.onion()).is_some());
    let second = dialler.dial(&peer.keys.onion(), &|_| {}).await.unwrap();
    assert_eq!((second.peer, second.effort), (peer.peer_id(), 0));
    server.void_tickets();
    let third = dialler.dial(&peer.keys.onion(), &|_| {}).await.unwrap();
    assert!(
        third.effort > 0,
        "solved the puzzle once the ticket was void"
    );
    stop.cancel();
    let closing = timeout(Duration::from_secs(60), sync.close());
    closing.await.unwrap();
}

#[tokio::test]
async fn dial_and_its_session_share_a_trace_id() {
    let log = CapturedLog::start();
    let net = MemoryNet::new();
    let (node, peer) = (TestCore::new(1), TestCore::new(2));
    let stop = CancellationToken::new();
    serve(&net, &peer, stop.clone()).await;
    let sync = SyncService::new(node.core.clone(), manual(), stop.clone());
    let transport = Arc::new(net.transport());
    let dialler = Dialler::new(connector(&node).await, transport, sync.clone(), stop);
    dialler.dial(&peer.keys.onion(), &|_| {}).await.unwrap();
    sync.close().await;
    let admitted = log.lines("admitted by a peer");
    let onion = peer.keys.onion();
    let (_, after) = admitted[0]
        .split_once(&format!("dial{{onion={onion} trace="))
        .unwrap();
    let trace = after.split('}').next().unwrap();
    let session = format!("session{{peer={} trace={trace}}}", peer.peer_id());
    assert!(
        !log.lines(&session).is_empty(),
        "{:?}",
        log.lines("session{")
    );
}
