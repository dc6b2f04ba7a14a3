//! A client without a core: it dials a node and then sends any session message.

use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use bastion::{Connector, Feature, Features, GateConfig, HandshakeError, Session};
use keys::{BootId, KeyManager, Oid, PeerId};
use postern::peer::message::{IdOnly, Pull, ReclaimRequest, ReclaimedBatch, SessionMessage};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::LiveNode;
use crate::profile::FixedProfile;
use crate::setup::boot_id;

/// A client that holds keys and nothing else.
pub struct RawClient {
    /// The client's keys: those of the node with the same seed.
    pub keys: Arc<KeyManager>,
    connector: Connector,
}

impl RawClient {
    /// A client with keys from a seed.
    pub fn new(seed: u64) -> Self {
        Self::with_boot(seed, boot_id(seed, 0))
    }

    /// [`RawClient::new`] with the feature `watch`.
    pub fn watching(seed: u64) -> Self {
        Self::offering(seed, Features::from_iter([Feature::Watch]))
    }

    /// [`RawClient::new`] with the feature `relay`.
    pub fn relaying(seed: u64) -> Self {
        Self::offering(seed, Features::from_iter([Feature::Relay]))
    }

    /// [`RawClient::new`] with these features.
    pub fn offering(seed: u64, features: Features) -> Self {
        Self::with_features(seed, two_domains(boot_id(seed, 0)), features)
    }

    /// A client with keys from a seed, and a boot id.
    pub fn with_boot(seed: u64, boot_id: BootId) -> Self {
        Self::with_profile(seed, two_domains(boot_id))
    }

    /// A client with keys from a seed, and a profile.
    pub fn with_profile(seed: u64, profile: FixedProfile) -> Self {
        Self::with_features(seed, profile, Features::none())
    }

    fn with_features(seed: u64, profile: FixedProfile, features: Features) -> Self {
        let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(seed)));
        // Repeats a request once where the server is busy, and then gives up rather than solve a
        // harder puzzle.
        let config = GateConfig {
            attempts_max: 2,
            features,
            ..GateConfig::default()
        };
        let connector = Connector::new(config, keys.clone(), Arc::new(profile));
        Self { keys, connector }
    }

    /// The client's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    /// Performs a handshake with a node.
    pub async fn dial(&self, net: &MemoryNet, node: &LiveNode) -> Result<Session, HandshakeError> {
        let dialled = self
            .connector
            .dial(&net.transport(), &node.onion(), None, &|_| {})
            .await;
        dialled.map(|(session, _)| session)
    }

    /// A pull of a domain from the start.
    pub fn pull(&self, id: u64, domain: &str) -> SessionMessage {
        SessionMessage::Pull(Pull {
            again: None,
            id,
            epoch: None,
            domain: domain.into(),
            wait_s: 0,
            peer_id: self.peer_id(),
            last_seq: 0,
        })
    }
}

/// The profile of a client with two domains.
fn two_domains(boot_id: BootId) -> FixedProfile {
    let (apps, domains) = (["identities", "rides"], ["identities", "rides.offers"]);
    FixedProfile::new(&apps, &domains, boot_id, Vec::new())
}

/// Sends a message.
pub async fn send(session: &mut Session, message: &SessionMessage) {
    session.writer.write(&message.encode()).await.unwrap();
}

/// Receives the next message other than `epoch`, with which every session begins; none at the end
/// of the stream.
pub async fn receive(session: &mut Session) -> Option<SessionMessage> {
    loop {
        let frame = session.reader.read().await.ok().flatten()?;
        match SessionMessage::decode(&frame).unwrap() {
            SessionMessage::Epoch(_) => continue,
            message => return Some(message),
        }
    }
}

/// Receives messages until the node closes the session. Returns the code of `bye`.
pub async fn receive_bye(session: &mut Session) -> String {
    loop {
        match receive(session).await.unwrap() {
            SessionMessage::Bye(bye) => return bye.code,
            _ => continue,
        }
    }
}

/// Confirms every epoch that the node sends, and returns its next recovery request; none after
/// `bye`.
pub async fn next_recovery_request(session: &mut Session) -> Option<ReclaimRequest> {
    loop {
        let frame = session.reader.read().await.ok().flatten()?;
        match SessionMessage::decode(&frame).unwrap() {
            SessionMessage::Epoch(note) | SessionMessage::Heard(note) => {
                send(session, &SessionMessage::Noted(IdOnly { id: note.id })).await
            }
            SessionMessage::Reclaim(request) => return Some(request),
            SessionMessage::Bye(_) => return None,
            _ => continue,
        }
    }
}

/// Answers a recovery request with these bytes.
pub async fn answer_recovery(
    session: &mut Session,
    request: &ReclaimRequest,
    body: Vec<u8>,
    next: Option<Oid>,
) {
    let reply = ReclaimedBatch {
        id: request.id,
        body,
        next,
    };
    send(session, &SessionMessage::Reclaimed(reply)).await;
}
