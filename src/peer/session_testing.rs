//! Shared parts of the peer tests: sessions over memory pipes with a scripted peer.

use std::sync::Arc;

use bastion::{Session, Tier};
use keys::protocol::FRAME_BYTES_MAX;
use keys::{Epoch, PeerId};
use tokio_util::sync::CancellationToken;

use super::context::SessionContext;
use super::elsewhere::Elsewhere;
use super::handle::{SessionError, SessionHandle, SessionInfo};
use super::message::{PackageBody, Pull, RequestRefusal, SessionMessage, UpToDate};
use super::processor_budget::ProcessorBudget;
use super::registry::SessionRegistry;
use super::serve::RequestServer;
use super::session::SessionDriver;
use super::testing::{TestCore, info, manual};
use crate::config::SyncConfig;
use crate::state_engine::Quotas;

/// Both ends of a memory pipe that holds `bytes` in each direction.
pub(super) fn pipe(bytes: usize) -> (Session, Session) {
    let (a, b) = tokio::io::duplex(bytes);
    (
        Session::new(a, FRAME_BYTES_MAX),
        Session::new(b, FRAME_BYTES_MAX),
    )
}

/// The other end of a session, which sends and receives what a test says.
pub(super) struct ScriptedPeer(pub(super) Session);

impl ScriptedPeer {
    pub(super) async fn send(&mut self, message: &SessionMessage) {
        self.send_frame(&message.encode()).await;
    }

    pub(super) async fn send_frame(&mut self, frame: &[u8]) {
        self.0.writer.write(frame).await.unwrap();
    }

    /// The next message, or none at the end of the stream.
    pub(super) async fn receive(&mut self) -> Option<SessionMessage> {
        let frame = self.0.reader.read().await.ok().flatten()?;
        Some(SessionMessage::decode(&frame).unwrap())
    }

    /// The next message that is no ping.
    pub(super) async fn receive_reply(&mut self) -> Option<SessionMessage> {
        loop {
            match self.receive().await {
                Some(SessionMessage::Ping(_)) => {}
                other => return other,
            }
        }
    }

    /// The next message that is no ping; pings are answered.
    pub(super) async fn next(&mut self) -> SessionMessage {
        loop {
            match self.receive().await {
                Some(SessionMessage::Ping(ping)) => self.send(&SessionMessage::Pong(ping)).await,
                Some(other) => return other,
                None => panic!("the stream ended"),
            }
        }
    }

    /// The next message, which must be a pull; pings are answered.
    pub(super) async fn next_pull(&mut self) -> Pull {
        match self.next().await {
            SessionMessage::Pull(pull) => pull,
            other => panic!("expected a pull, got {other:?}"),
        }
    }

    /// The next message, which must be a push; pings are answered.
    pub(super) async fn next_push(&mut self) -> PackageBody {
        match self.next().await {
            SessionMessage::Push(push) => push,
            other => panic!("expected a push, got {other:?}"),
        }
    }

    /// Replies to a pull that nothing is new in the peer's epoch.
    pub(super) async fn up_to_date(&mut self, pull: &Pull, epoch: Epoch) {
        let (id, last_seq) = (pull.id, pull.last_seq);
        let reply = UpToDate {
            id,
            epoch,
            last_seq,
        };
        self.send(&SessionMessage::UpToDate(reply)).await;
    }

    /// Acknowledges a push up to a number of the node's epoch.
    pub(super) async fn acknowledge(&mut self, id: u64, epoch: Epoch, last_seq: u64) {
        let ack = UpToDate {
            id,
            epoch,
            last_seq,
        };
        self.send(&SessionMessage::Ack(ack)).await;
    }

    /// Refuses a request.
    pub(super) async fn refuse(&mut self, id: u64, code: &str) {
        let refusal = RequestRefusal {
            id,
            code: code.into(),
            last_seq: None,
        };
        self.send(&SessionMessage::Refused(refusal)).await;
    }

    /// The code of the next message, which must be a refusal.
    pub(super) async fn refusal(&mut self) -> String {
        match self.receive().await {
            Some(SessionMessage::Refused(refusal)) => refusal.code,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// The code of `bye`, after whatever comes before it.
    pub(super) async fn bye(&mut self) -> String {
        loop {
            match self.receive().await {
                Some(SessionMessage::Bye(bye)) => return bye.code,
                Some(_) => {}
                None => panic!("the stream ended without bye"),
            }
        }
    }
}

/// A session that is ready to run, and its other end.
pub(super) fn session(
    peer: PeerId,
    tier: Tier,
    config: &SyncConfig,
    stop: &CancellationToken,
) -> (SessionDriver, ScriptedPeer) {
    session_of(info(peer, tier), config, stop)
}

fn session_of(
    info: SessionInfo,
    config: &SyncConfig,
    stop: &CancellationToken,
) -> (SessionDriver, ScriptedPeer) {
    let (local, remote) = pipe(64);
    let driver = SessionDriver::new(local, info, config, stop);
    (driver, ScriptedPeer(remote))
}

/// A session that runs over `node`'s core with a scripted peer.
pub(super) struct RunningSession {
    pub(super) handle: Arc<SessionHandle>,
    pub(super) peer: ScriptedPeer,
    pub(super) end: tokio::task::JoinHandle<SessionError>,
    pub(super) stop: CancellationToken,
}

impl RunningSession {
    /// The state that the tasks of this session share, over the core of its node.
    pub(super) fn context(
        &self,
        node: &TestCore,
        config: SyncConfig,
        domains: &[&str],
    ) -> Arc<SessionContext> {
        Arc::new(SessionContext {
            core: node.core.clone(),
            config,
            handle: self.handle.clone(),
            domains: domains.iter().map(ToString::to_string).collect(),
            quota_log: Arc::default(),
            budget: Arc::new(ProcessorBudget::new(Quotas::default())),
            elsewhere: Arc::new(elsewhere(node)),
        })
    }
}

/// The [`Elsewhere`] of a node without other sessions.
pub(super) fn elsewhere(node: &TestCore) -> Elsewhere {
    Elsewhere::new(SessionRegistry::new(node.peer_id(), manual()))
}

pub(super) fn run_session(node: &TestCore, peer: PeerId, config: &SyncConfig) -> RunningSession {
    run_session_of(node, info(peer, Tier::Untrusted), config)
}

/// [`run_session`] as the handshake left it.
pub(super) fn run_session_of(
    node: &TestCore,
    info: SessionInfo,
    config: &SyncConfig,
) -> RunningSession {
    let stop = CancellationToken::new();
    let (driver, remote) = session_of(info, config, &stop);
    let handle = driver.handle().clone();
    let server = RequestServer::new(node.core.clone(), config);
    let config = config.clone();
    RunningSession {
        handle,
        peer: remote,
        end: tokio::spawn(async move { driver.run(server, &config).await }),
        stop,
    }
}
