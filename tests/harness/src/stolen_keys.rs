//! An attacker that has stolen the first keys of a node.

use keys::{Genesis, HomeRecord, KeyChain, OnionKey, SecretKey, SignedObject, codec};
use postern::object::{Object, ObjectLimits, Value};
use postern::schema::identities;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use crate::setup::seed_of;
use crate::stored::StoredObject;

/// The first keys of the node that has a seed.
pub struct StolenKeys {
    /// The node's current key.
    pub node: SecretKey,
    /// The node's next key.
    pub node_next: SecretKey,
    /// The identity's current key.
    pub identity: SecretKey,
}

impl StolenKeys {
    /// The first keys of the node that [`crate::Setup::seeded`] makes of a seed.
    pub fn of(seed: u64) -> Self {
        // In the order in which a vault creates them.
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        drop(OnionKey::generate(&mut rng));
        let [node, node_next, identity] = std::array::from_fn(|_| SecretKey::generate(&mut rng));
        Self {
            node,
            node_next,
            identity,
        }
    }

    /// The first keys of the node that [`crate::Setup::new`] makes of a name.
    pub fn of_name(name: &str) -> Self {
        Self::of(seed_of(name))
    }

    /// A stored object, decoded, to be changed and signed again.
    pub fn object(&self, stored: &StoredObject) -> Object {
        Object::from_bytes(&stored.bytes, &ObjectLimits::default()).unwrap()
    }

    /// Signs an object with the stolen key of the identity.
    pub fn sign(&self, object: &Object) -> SignedObject {
        SignedObject::sign(0, &self.identity, object.to_bytes())
    }

    /// The stolen identity's record with another home: the node that has the seed `home`.
    pub fn claim_home(
        &self,
        record: &StoredObject,
        home: u64,
        counter: u64,
        rev: u64,
    ) -> SignedObject {
        self.claim(self.object(record), home, counter, rev)
    }

    /// [`StolenKeys::claim_home`] of a decoded record.
    pub fn claim(&self, mut object: Object, home: u64, counter: u64, rev: u64) -> SignedObject {
        let home = Self::of(home);
        let chain = KeyChain::new(Genesis::new(home.node.public(), &home.node_next.public()));
        let home = HomeRecord::sign(object.oid, (0, &self.identity), chain, &home.node, counter);
        let home = Value::Bytes(codec::encode(&home));
        let attrs = object.attrs.as_mut().unwrap();
        attrs.insert(identities::HOME, vec![home]);
        object.rev = rev;
        self.sign(&object)
    }
}
