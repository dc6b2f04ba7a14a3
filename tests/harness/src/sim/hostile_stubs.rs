//! The hostile peer in sessions with the protocol feature `relay`. Sends stubs of objects that it
//! lacks, false replies to fetches, and fetches of objects that it may not read.

use std::sync::Arc;

use bastion::Features;
use keys::{KeyManager, Limits, Oid, SignedObject, codec};
use postern::peer::message::{Fetch, FetchedBatch, PackageBody, SessionMessage, UpToDate};
use postern::state_engine::{Package, Stubs};
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;

use super::world::World;

/// Most stubs of a package of the hostile peer.
const STUBS_MAX: usize = 20;
/// Most packages of the hostile peer in one session.
const PACKAGES_MAX: usize = 4;
/// Most oids that the hostile peer fetches at once.
const FETCHED_MAX: usize = 200;

/// The replies of the hostile peer to a node that pulls and fetches.
pub(super) struct Script {
    keys: Arc<KeyManager>,
    features: Features,
    /// Its window is that of the request.
    package: Package,
    objects: Vec<SignedObject>,
    answer: Answer,
    /// Packages that it still sends.
    left: usize,
}

/// The reply to a fetch.
#[derive(Clone, Copy)]
enum Answer {
    /// No object, as if none could be read.
    Nothing,
    /// Objects that mimic others, whatever was fetched.
    Others,
    /// More objects than were fetched.
    TooMuch,
    /// No oid was looked up.
    NoProgress,
    /// None.
    Silence,
}

impl Script {
    /// The reply to a message of the node.
    pub(super) fn reply(&mut self, frame: &[u8]) -> Option<SessionMessage> {
        let domain = self.package.domain.clone();
        match SessionMessage::decode(frame).ok()? {
            SessionMessage::Pull(pull) if pull.domain == domain && self.left > 0 => {
                self.left -= 1;
                Some(self.package_after(pull.id, pull.last_seq))
            }
            SessionMessage::Pull(pull) => Some(SessionMessage::UpToDate(UpToDate {
                id: pull.id,
                epoch: self.package.epoch,
                last_seq: pull.last_seq,
            })),
            SessionMessage::Watch(watch) if self.left > 0 => {
                self.left -= 1;
                let mut cursors = watch.cursors.iter();
                let (_, last_seq) = cursors.find(|(watched, _)| watched.0 == domain)?;
                Some(self.package_after(watch.id, *last_seq))
            }
            SessionMessage::Fetch(fetch) => self.answer(&fetch).map(SessionMessage::Fetched),
            _ => None,
        }
    }

    fn package_after(&self, id: u64, last_seq: u64) -> SessionMessage {
        let package = Package {
            from_seq: if last_seq == 0 { 0 } else { last_seq + 1 },
            to_seq: last_seq + 1,
            ..self.package.clone()
        };
        let body = package.sign(&self.keys, &self.features);
        SessionMessage::Package(PackageBody { id, body })
    }

    fn answer(&self, fetch: &Fetch) -> Option<FetchedBatch> {
        let count = fetch.oids.len();
        let mut objects = self.objects.iter().cycle().cloned();
        let (objects, looked_up): (Vec<_>, _) = match self.answer {
            Answer::Nothing => (Vec::new(), count),
            Answer::Others => (objects.by_ref().take(count).collect(), count),
            Answer::TooMuch => (objects.by_ref().take(count + 1).collect(), count),
            Answer::NoProgress => (Vec::new(), 0),
            Answer::Silence => return None,
        };
        Some(FetchedBatch {
            id: fetch.id,
            body: codec::encode(&objects),
            looked_up: looked_up as u32,
        })
    }
}

impl World {
    /// Replies with stubs of objects of one app, if the sessions with a node relay.
    pub(super) fn script(&mut self, node: usize) -> Option<Script> {
        let features = self.hostile_features(node);
        if !features.has(bastion::Feature::Relay) {
            return None;
        }
        let domain = ["messages", "contacts"][self.rng.random_range(0..2)];
        let stubs = self.hostile_stubs(domain);
        let mut objects = Vec::new();
        for _ in 0..self.rng.random_range(1..8) {
            objects.extend(self.forged(domain));
        }
        let answer = match self.rng.random_range(0..8) {
            0..2 => Answer::Nothing,
            2..5 => Answer::Others,
            5 => Answer::TooMuch,
            6 => Answer::NoProgress,
            _ => Answer::Silence,
        };
        let mallory = &self.mallory.core;
        let package = mallory.package(self.up(node).unwrap(), domain, (0, 0), Vec::new());
        Some(Script {
            keys: mallory.keys.clone(),
            features,
            package: Package { stubs, ..package },
            objects,
            answer,
            left: PACKAGES_MAX,
        })
    }

    /// Stubs of objects that honest nodes wrote in an app, or that no node wrote.
    fn hostile_stubs(&mut self, app: &str) -> Option<Stubs> {
        let made = self.memory.made.iter().filter(|(_, made)| made.app == app);
        let known = made.sample(&mut self.rng, STUBS_MAX).into_iter();
        let known = known.map(|(oid, made)| (*oid, made.owner, made.scope));
        let known: Vec<_> = known.collect();
        let (mut places, mut owners, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for (oid, owner, scope) in known {
            let mut random = || Oid::from_bytes(self.rng.random());
            let invented = [random(), random(), random(), random()];
            let [oid, owner, place] = match self.rng.random_range(0..4) {
                0 => [oid, invented[1], invented[2]],
                1 => [invented[0], owner, scope.unwrap_or(invented[2])],
                _ => [oid, owner, scope.unwrap_or(invented[2])],
            };
            let number = places.len() as u16;
            places.push(place);
            owners.push(owner);
            let (key_id, rev): (u32, u64) =
                (self.rng.random_range(0..3), self.rng.random_range(1..9));
            let (deleted, is_core) = (self.rng.random_bool(0.3), self.rng.random_bool(0.3));
            // A tag has as many bytes as an oid.
            let tag = invented[3];
            entries.push((number, number, oid, key_id, rev, deleted, is_core, tag));
        }
        if entries.is_empty() {
            return None;
        }
        let bytes = codec::encode(&(places, owners, entries));
        let limits = Limits {
            bytes_max: bytes.len(),
            depth_max: 3,
            items_max: 1024,
        };
        Some(codec::decode(&bytes, &limits).unwrap())
    }

    /// Fetches of objects of every domain, and of the records of their owners.
    pub(super) fn nosy_fetches(&mut self, domains: &[String]) -> Vec<SessionMessage> {
        let mut fetches = Vec::new();
        for (id, domain) in (200..).zip(domains) {
            let made = self.memory.made.keys().copied();
            let oids: Vec<Oid> = made.sample(&mut self.rng, FETCHED_MAX);
            if !oids.is_empty() {
                fetches.push(SessionMessage::Fetch(Fetch {
                    id,
                    oids,
                    domain: domain.clone(),
                    records: self.rng.random_bool(0.3),
                }));
            }
        }
        fetches
    }
}
