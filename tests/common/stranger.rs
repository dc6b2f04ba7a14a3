//! Somebody with keys and nothing behind them, who dials a node and then says what it likes.
//!
//! Beside `live.rs`, which the test program has as its module `live`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by several test programs, each of which uses a part; helpers may fail like the tests themselves"
)]

use std::sync::Arc;

use bastion::transport::memory::MemoryNet;
use bastion::{
    Connector, GateConfig, HandshakeError, Internal, LocalProfile, NodeProfile, Session,
};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, KeyManager, Oid, PeerId};
use postern::peer::message::{Id, Message, Pull, Return, Returned};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::live::{LiveNode, boot_id};

struct Dials(BootId);

impl LocalProfile for Dials {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        let profile = NodeProfile {
            apps: vec!["identities".into(), "rides".into()],
            sync_domains: vec!["identities".into(), "rides.offers".into()],
            epoch: Epoch::from_bytes([9; 16]),
            boot_id: self.0,
            identities: Vec::new(),
        };
        Box::pin(async { Ok(profile) })
    }
}

/// Somebody who holds keys, and says what it likes on streams that it opens.
pub struct Stranger {
    pub keys: Arc<KeyManager>,
    connector: Connector,
}

impl Stranger {
    pub fn new(seed: u64) -> Self {
        Self::with_boot(seed, boot_id(seed, 0))
    }

    /// With the keys of the node of that seed.
    pub fn with_boot(seed: u64, boot_id: BootId) -> Self {
        let keys = Arc::new(KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(seed)));
        // Comes again once where it is busy, and puts no more work into it.
        let config = GateConfig {
            attempts_max: 2,
            ..GateConfig::default()
        };
        let connector = Connector::new(config, keys.clone(), Arc::new(Dials(boot_id)));
        Self { keys, connector }
    }

    pub fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    pub async fn dial(&self, net: &MemoryNet, node: &LiveNode) -> Result<Session, HandshakeError> {
        let dialled = self
            .connector
            .dial(&net.transport(), &node.onion(), None, &|_| {})
            .await;
        dialled.map(|(session, _)| session)
    }

    pub fn pull(&self, id: u64) -> Message {
        Message::Pull(Pull {
            id,
            epoch: None,
            domain: "rides.offers".into(),
            wait_s: 0,
            peer_id: self.peer_id(),
            last_seq: 0,
        })
    }
}

pub async fn say(session: &mut Session, message: &Message) {
    session.writer.write(&message.encode()).await.unwrap();
}

pub async fn hear(session: &mut Session) -> Option<Message> {
    loop {
        let frame = session.reader.read().await.ok().flatten()?;
        // With this every session begins; few tests are about it.
        match Message::decode(&frame).unwrap() {
            Message::Epoch(_) => continue,
            message => return Some(message),
        }
    }
}

/// What the peer says in parting.
pub async fn goodbye(session: &mut Session) -> String {
    loop {
        match hear(session).await.unwrap() {
            Message::Bye(bye) => return bye.code,
            _ => continue,
        }
    }
}

/// Takes what the node says of epochs, and gives the next of its questions for what it once sent.
pub async fn next_return(session: &mut Session) -> Option<Return> {
    loop {
        let frame = session.reader.read().await.ok().flatten()?;
        match Message::decode(&frame).unwrap() {
            Message::Epoch(note) | Message::Heard(note) => {
                say(session, &Message::Noted(Id { id: note.id })).await
            }
            Message::Return(ask) => return Some(ask),
            Message::Bye(_) => return None,
            _ => continue,
        }
    }
}

/// Answers such a question with these bytes.
pub async fn give_back(session: &mut Session, ask: &Return, body: Vec<u8>, next: Option<Oid>) {
    let returned = Returned {
        id: ask.id,
        body,
        next,
    };
    say(session, &Message::Returned(returned)).await;
}
