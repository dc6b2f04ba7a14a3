//! A hostile peer of the simulation: forged, replayed and malformed messages, and nosy pulls.
//!
//! Invariant: it holds its own keys only, so that nothing that it sends may change what an honest
//! node shows, and nothing private reaches it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bastion::{Connector, Features, GateConfig};
use keys::{Oid, OnionAddr, SignedObject};
use parking_lot::Mutex;
use postern::object::{Attrs, Object, ObjectLimits, Value};
use postern::peer::message::{DomainKey, FetchedBatch, PackageBody, Pull, SessionMessage, Watch};
use postern::schema;
use postern::services::identities;
use postern::state_engine::{Expected, PackageLimits, VerifiedPackage};
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use rand_chacha::ChaCha20Rng;
use tokio::time::timeout;

use super::hostile_stubs::Script;
use super::introductions::{self, QUESTION_ID};
use super::net::{SimNet, SimTransport};
use super::scenario::{Feature, Scenario};
use super::world::{World, folder};
use crate::clock::ManualClock;
use crate::node::TestNode;
use crate::profile::FixedProfile;
use crate::setup::{ALL_APPS, Setup, boot_id};
use crate::values::ride;

/// Time for which the hostile peer reads replies.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The replies of the hostile peer to packages, and to questions for addresses.
type Replies = (Option<Script>, Vec<u8>);

/// The hostile peer. Its core is used to sign, never to sync.
pub(super) struct Mallory {
    pub(super) core: TestNode,
    connector: Connector,
    transport: Arc<SimTransport>,
    offered: Features,
    pub(super) seed: u64,
    /// The objects that nodes have sent it.
    pub(super) received: Arc<Mutex<Vec<Oid>>>,
    /// The identities of others whose records it fetched.
    pub(super) records: Arc<Mutex<Vec<Oid>>>,
    /// Number of addresses that it got for scopes of others.
    pub(super) addresses: Arc<Mutex<usize>>,
}

impl Mallory {
    pub(super) fn new(
        rng: &mut ChaCha20Rng,
        net: &SimNet,
        clock: &ManualClock,
        scenario: &Scenario,
    ) -> Self {
        let seed = rng.random();
        let offered = scenario.offered(rng);
        let gate = GateConfig {
            features: offered.clone(),
            ..gate()
        };
        let core = Setup::seeded("mallory", seed)
            .clock(clock.clone())
            .folder(folder())
            .node();
        let domains = core.sync_domains();
        let domains: Vec<_> = domains.iter().map(String::as_str).collect();
        let objects = core.read(|view| identities::for_handshake(&view, 8));
        let mut profile = FixedProfile::new(&ALL_APPS, &domains, boot_id(seed, 0), objects);
        // Otherwise each of its packages is refused.
        profile.0.epoch = core.epoch();
        Self {
            connector: Connector::new(gate, core.keys.clone(), Arc::new(profile)),
            transport: Arc::new(net.transport(core.onion())),
            received: Arc::default(),
            records: Arc::default(),
            addresses: Arc::default(),
            offered,
            seed,
            core,
        }
    }
}

/// Handshakes without threads, and with the least work.
pub(super) fn gate() -> GateConfig {
    GateConfig {
        inner_bits: 0,
        is_inline: true,
        ..GateConfig::default().with_effort_max(1)
    }
}

impl World {
    /// Lets the hostile peer attack a node.
    pub(super) fn attack(&mut self, node: usize) {
        let frames = match self.rng.random_range(0..8) {
            4..8 if self.has(Feature::HostileScopes) => self.scope_push(node),
            0 => vec![(0..self.rng.random_range(0..300)).map(|_| 0x9f).collect()],
            1 => self.nosy_requests(node),
            2 if self.has(Feature::Moves) => self.replayed_push(node),
            _ => self.forged_push(node),
        };
        let script = self.script(node);
        let victim = self.rng.random_range(0..self.nodes.len());
        let addresses = self.false_addresses(victim);
        self.visit(node, frames, (script, addresses));
    }

    /// Lets the hostile peer dial a node, send it frames, and reply to it.
    pub(super) fn visit(&self, node: usize, frames: Vec<Vec<u8>>, replies: Replies) {
        let onion = self.nodes[node].onion;
        let mallory = &self.mallory;
        tokio::spawn(send(
            mallory.connector.clone(),
            mallory.transport.clone(),
            onion,
            (frames, replies),
            Receiver::new(mallory, self.up(node).unwrap(), self.hostile_features(node)),
        ));
    }

    /// Features of the sessions of the hostile peer with a node.
    pub(super) fn hostile_features(&self, node: usize) -> Features {
        let offered = &self.nodes[node].offered;
        self.mallory.offered.intersection(offered)
    }

    /// Pulls of every domain, from any sequence number, and perhaps a watch of all of them and
    /// fetches.
    fn nosy_requests(&mut self, node: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut domains = self.mallory.core.sync_domains();
        domains.push("club".to_owned());
        if self.hostile_features(node).has(bastion::Feature::Watch) {
            frames.push(self.nosy_watch(node, &domains));
        }
        if self.hostile_features(node).has(bastion::Feature::Relay) {
            frames.extend(self.nosy_fetches(&domains));
        }
        if self.hostile_features(node).has(bastion::Feature::Introduce) {
            frames.extend(self.nosy_questions());
        }
        for (id, domain) in (1..).zip(domains) {
            frames.push(SessionMessage::Pull(Pull {
                again: self.hostile_again(),
                id,
                epoch: None,
                domain,
                wait_s: self.rng.random_range(0..90),
                peer_id: self.mallory.core.peer_id(),
                last_seq: self.hostile_seq(),
            }));
        }
        frames.iter().map(SessionMessage::encode).collect()
    }

    /// A watch of domains, from any sequence numbers.
    fn nosy_watch(&mut self, node: usize, domains: &[String]) -> SessionMessage {
        let epoch = self.up(node).unwrap().epoch();
        let cursors = domains.iter().map(|domain| DomainKey(domain.clone()));
        let cursors: BTreeMap<_, _> = cursors.map(|domain| (domain, self.hostile_seq())).collect();
        SessionMessage::Watch(Watch {
            id: 100,
            epoch: self.rng.random_bool(0.5).then_some(epoch),
            wait_s: self.rng.random_range(0..90),
            cursors,
        })
    }

    fn hostile_seq(&mut self) -> u64 {
        [0, 0, 7, i64::MAX as u64][self.rng.random_range(0..4)]
    }

    /// Mostly nothing; else the hostile peer's own scopes, or a whole domain.
    fn hostile_again(&mut self) -> Option<Vec<Oid>> {
        match self.rng.random_range(0..4) {
            0 if self.has(Feature::HostileScopes) => Some(self.hostile_oids()),
            1 if self.has(Feature::HostileScopes) => Some(Vec::new()),
            _ => None,
        }
    }

    /// A push of objects that mimic those of an honest node.
    fn forged_push(&mut self, node: usize) -> Vec<Vec<u8>> {
        let mut objects = Vec::new();
        let domain = ["rides.offers", "messages", "contacts"][self.rng.random_range(0..3)];
        let app = domain.split('.').next().unwrap_or_default();
        for _ in 0..self.rng.random_range(1..20) {
            objects.extend(self.forged(app));
        }
        self.push_of(node, domain, objects)
    }

    /// A push of objects to a node.
    pub(super) fn push_of(
        &self,
        node: usize,
        domain: &str,
        objects: Vec<SignedObject>,
    ) -> Vec<Vec<u8>> {
        let mallory = &self.mallory.core;
        let victim = self.up(node).unwrap();
        let last_seq = victim.request(mallory, domain).last_seq;
        let from_seq = if last_seq == 0 { 0 } else { last_seq + 1 };
        let package = mallory.package(victim, domain, (from_seq, last_seq + 1), objects);
        let body = package.sign(&mallory.keys, &self.hostile_features(node));
        vec![SessionMessage::Push(PackageBody { id: 1, body }).encode()]
    }

    /// An object that mimics one that an honest node wrote in an app.
    pub(super) fn forged(&mut self, app: &str) -> Option<SignedObject> {
        let made = self.memory.made.iter().filter(|(_, made)| made.app == app);
        let (oid, made) = made.choose(&mut self.rng)?;
        let (oid, home, is_public) = (*oid, made.home, made.scope.is_none());
        let (mut object, signed) = self
            .up(home)
            .filter(|live| live.parent(app, oid).is_some())
            .and_then(|live| live.object(app, oid))?;
        let mallory = &self.mallory.core;
        match self.rng.random_range(0..5) {
            // As its owner signed it, which only its home may send.
            0 => return is_public.then_some(signed),
            // With another owner.
            1 if self.has(Feature::OidThieves) => object.owner = mallory.identity,
            2 => object.attrs = None,
            3 if self.has(Feature::OidThieves) => {
                object.owner = mallory.identity;
                object.attrs = Some(if app == "rides" {
                    ride("hell", 1)
                } else {
                    Attrs::new()
                });
            }
            _ => {
                let attrs = object.attrs.iter_mut().flatten();
                for (_, values) in attrs.take(2) {
                    values.push(Value::from("forged"));
                }
            }
        }
        object.rev += self.rng.random_range(0..3);
        let signed = mallory
            .keys
            .sign_object(mallory.identity, object.to_bytes())
            .unwrap();
        Some(signed)
    }

    /// Whether an identity belongs to a hostile peer.
    pub(super) fn is_hostile(&self, identity: &Oid) -> bool {
        *identity == self.mallory.core.identity || self.is_listed(identity)
    }

    /// Nothing private was sent to the hostile peer.
    pub(super) fn check_secrecy(&self) -> Result<(), String> {
        for oid in self.mallory.received.lock().iter() {
            let made = self.memory.made.get(oid);
            if let Some(made) = made.filter(|made| made.scope.is_some()) {
                return Err(format!("the hostile peer received {oid:?}: {made:?}"));
            }
        }
        if *self.mallory.addresses.lock() > 0 {
            return Err("the hostile peer got addresses of members of others".to_owned());
        }
        if let Some(oid) = self.mallory.records.lock().first() {
            return Err(format!("the hostile peer fetched the record of {oid:?}"));
        }
        Ok(())
    }
}

/// Reads packages that a node sends to the hostile peer.
struct Receiver {
    received: Arc<Mutex<Vec<Oid>>>,
    records: Arc<Mutex<Vec<Oid>>>,
    addresses: Arc<Mutex<usize>>,
    own: Oid,
    sender: (keys::PeerId, keys::PublicKey, keys::Epoch),
    recipient: keys::PeerId,
    features: Features,
}

impl Receiver {
    fn new(mallory: &Mallory, sender: &TestNode, features: Features) -> Self {
        Self {
            received: mallory.received.clone(),
            records: mallory.records.clone(),
            addresses: mallory.addresses.clone(),
            own: mallory.core.identity,
            sender: (sender.peer_id(), sender.public_key(), sender.epoch()),
            recipient: mallory.core.peer_id(),
            features,
        }
    }

    fn note(&self, frame: &[u8]) {
        let body = match SessionMessage::decode(frame) {
            Ok(SessionMessage::Package(body)) => body,
            Ok(SessionMessage::Fetched(batch)) => return self.note_fetched(&batch),
            Ok(SessionMessage::Introduced(reply)) if reply.id >= QUESTION_ID => {
                let records = reply.records().unwrap();
                *self.addresses.lock() += records.len();
                return;
            }
            _ => return,
        };
        let (peer, key, epoch) = &self.sender;
        let expected = Expected {
            sender: peer,
            key,
            recipient: &self.recipient,
            epoch: *epoch,
            features: &self.features,
        };
        let package = VerifiedPackage::verify(&body.body, &PackageLimits::PROTOCOL, &expected);
        for object in package.into_iter().flat_map(|mut it| it.take_objects()) {
            let object = Object::from_bytes(object.bytes(), &ObjectLimits::default()).unwrap();
            self.received.lock().push(object.oid);
        }
    }

    fn note_fetched(&self, batch: &FetchedBatch) {
        for object in batch.objects().unwrap() {
            let object = Object::from_bytes(object.bytes(), &ObjectLimits::default()).unwrap();
            if object.app == schema::identities::APP && object.oid != self.own {
                self.records.lock().push(object.oid);
            }
            self.received.lock().push(object.oid);
        }
    }
}

/// Sends frames to a node and reads what it replies, for a while.
async fn send(
    connector: Connector,
    transport: Arc<SimTransport>,
    onion: OnionAddr,
    (frames, (mut script, addresses)): (Vec<Vec<u8>>, Replies),
    receiver: Receiver,
) {
    let Ok((mut session, _)) = connector.dial(&*transport, &onion, None, &|_| {}).await else {
        return;
    };
    for frame in frames {
        if session.writer.write(&frame).await.is_err() {
            return;
        }
    }
    let reading = async {
        while let Ok(Some(frame)) = session.reader.read().await {
            receiver.note(&frame);
            let reply = script.as_mut().and_then(|script| script.reply(&frame));
            let reply = reply.or_else(|| introductions::reply(&frame, &addresses));
            if let Some(reply) = reply
                && session.writer.write(&reply.encode()).await.is_err()
            {
                return;
            }
        }
    };
    // The session ends with this task.
    let _ = timeout(PATIENCE, reading).await;
}
