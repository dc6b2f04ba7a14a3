//! Somebody who has stolen keys of a live node, and what it makes of them.
//!
//! Beside `live.rs` and `held.rs`, which the test program has as its modules `live` and `held`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by several test programs, each of which uses a part; helpers may fail like the tests themselves"
)]

use keys::{Genesis, HomeRecord, KeyChain, OnionKey, SecretKey, SignedObject, codec};
use postern::object::{Object, ObjectLimits, Value};
use postern::schema::identities;
use postern::state_engine::{AppliedPackage, Package, PackageLimits, VerifiedPackage};
use postern::store::{Cursor, Direction};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::held::Held;
use crate::live::LiveNode;

/// The first keys of the node of a seed.
pub struct Thief {
    pub node: SecretKey,
    pub node_next: SecretKey,
    pub identity: SecretKey,
}

impl Thief {
    pub fn of(seed: u64) -> Self {
        // In the order in which a vault makes them.
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        drop(OnionKey::generate(&mut rng));
        let [node, node_next, identity] = std::array::from_fn(|_| SecretKey::generate(&mut rng));
        Self {
            node,
            node_next,
            identity,
        }
    }

    pub fn object(&self, held: &Held) -> Object {
        Object::from_bytes(&held.bytes, &ObjectLimits::default()).unwrap()
    }

    /// With the stolen key of the identity.
    pub fn sign(&self, object: &Object) -> SignedObject {
        SignedObject::sign(0, &self.identity, object.to_bytes())
    }

    /// The stolen identity's record, which says that it lives at the node of a seed.
    pub fn claims(&self, record: &Held, at: u64, counter: u64, rev: u64) -> SignedObject {
        let home = Self::of(at);
        let chain = KeyChain::new(Genesis::new(home.node.public(), &home.node_next.public()));
        let mut object = self.object(record);
        let home = HomeRecord::sign(object.oid, (0, &self.identity), chain, &home.node, counter);
        let home = Value::Bytes(codec::encode(&home));
        object
            .attrs
            .as_mut()
            .unwrap()
            .insert(identities::HOME, vec![home]);
        object.rev = rev;
        self.sign(&object)
    }
}

/// Sends objects in the window that the other awaits, whatever they are.
pub async fn force(
    from: &LiveNode,
    to: &LiveNode,
    domain: &str,
    objects: Vec<SignedObject>,
) -> AppliedPackage {
    let (peer, name) = (from.peer_id(), domain.to_owned());
    let state = to
        .read(move |view| {
            view.rows.sync_state(Cursor {
                peer: &peer,
                domain: &name,
                direction: Direction::In,
            })
        })
        .await;
    let last_seq = state.map_or(0, |state| state.last_seq);
    let package = Package {
        more: false,
        epoch: from.engine.ground().epoch,
        domain: domain.to_owned(),
        sender: peer,
        to_seq: last_seq + 1,
        objects,
        version: 1,
        from_seq: if last_seq == 0 { 0 } else { last_seq + 1 },
        recipient: to.peer_id(),
    };
    let key = from.keys.node_chain().verify().unwrap().current();
    let bytes = package.sign(&from.keys);
    let limits = PackageLimits::PROTOCOL;
    let mut package =
        VerifiedPackage::verify(&bytes, &limits, (&peer, &key), &to.peer_id()).unwrap();
    let checked = to.engine.check(package.take_objects()).await.unwrap();
    let applied = to
        .engine
        .write(move |core, now| core.apply_package(now, &package, checked));
    applied.await.unwrap()
}
