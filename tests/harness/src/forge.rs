//! Packages and objects of a hostile peer, which signs any content with the keys that it holds.

use bastion::Features;
use keys::protocol::KEY_EVENTS_MAX;
use keys::{Genesis, HomeRecord, KeyChain, Limits, Oid, SecretKey, SignedObject, codec};
use postern::graph::new_identity_attrs;
use postern::object::{Attrs, Object, OidParts, OidProof, Place};
use postern::schema::{Schemas, Visibility, identities};
use postern::state_engine::{AppliedPackage, Package, Stubs};

use crate::pull::TakeError;
use crate::{ALL_APPS, TestNode};

impl TestNode {
    /// A package of this node with an honest header.
    pub fn package(
        &self,
        to: &TestNode,
        domain: &str,
        (from_seq, to_seq): (u64, u64),
        objects: Vec<SignedObject>,
    ) -> Package {
        Package {
            stubs: None,
            scopes: Some(Vec::new()),
            more: false,
            epoch: self.epoch(),
            domain: domain.to_owned(),
            sender: self.peer_id(),
            to_seq,
            objects,
            version: 1,
            from_seq,
            recipient: to.peer_id(),
        }
    }

    /// Sends objects to another node in the window that it expects next.
    pub fn force(
        &self,
        to: &TestNode,
        domain: &str,
        objects: Vec<SignedObject>,
    ) -> Result<AppliedPackage, TakeError> {
        let last_seq = to.request(self, domain).last_seq;
        let from_seq = if last_seq == 0 { 0 } else { last_seq + 1 };
        let package = self.package(to, domain, (from_seq, last_seq + 1), objects);
        to.take(self, &package.sign(&self.keys, &Features::none()))
    }

    /// Sends one object. Returns the code of its refusal, if it was refused.
    pub fn force_one(&self, to: &TestNode, domain: &str, object: SignedObject) -> Option<String> {
        let before = to.rejects().len();
        let applied = self.force(to, domain, vec![object]).unwrap();
        let rejects = to.rejects();
        assert_eq!(rejects.len() - before, applied.rejected);
        (applied.rejected > 0).then(|| rejects[0].clone())
    }

    /// Signs an object with the key of its owner, which this node must hold.
    pub fn sign(&self, object: &Object) -> SignedObject {
        self.keys
            .sign_object(object.owner, object.to_bytes())
            .unwrap()
    }
}

/// One stub, as any peer can make it.
pub fn stub_of(place: Oid, owner: Oid, oid: Oid) -> Stubs {
    // A tag has as many bytes as an oid.
    let tag = Oid::from_bytes([3; 16]);
    let entry = (0u16, 0u16, oid, 0u32, 1u64, false, false, tag);
    let bytes = codec::encode(&([place], [owner], [entry]));
    let limits = Limits {
        bytes_max: 4096,
        depth_max: 3,
        items_max: 64,
    };
    codec::decode(&bytes, &limits).unwrap()
}

/// Signs an object with a key that belongs to no identity.
pub fn sign_with_unknown_key(object: &Object) -> SignedObject {
    SignedObject::sign(0, &SecretKey::from_seed(&[0x66; 32]), object.to_bytes())
}

/// Signs an object with a key that its owner could have after a rotation.
pub fn sign_with_later_key(object: &Object) -> SignedObject {
    SignedObject::sign(1, &SecretKey::from_seed(&[0x67; 32]), object.to_bytes())
}

/// An identity record with the longest key chains. Its last signature may be wrong.
pub fn long_record(number: u8, is_valid: bool) -> SignedObject {
    let secret = |of: u8, event: usize| {
        let mut seed = [0x68; 32];
        [seed[0], seed[1]] = [of, event as u8];
        SecretKey::from_seed(&seed)
    };
    let chain_of = |of| {
        let genesis = Genesis::new(secret(of, 0).public(), &secret(of, 1).public());
        let mut chain = KeyChain::new(genesis);
        for event in 1..=KEY_EVENTS_MAX {
            chain.rotate(&secret(of, event), &secret(of, event + 1).public());
        }
        chain
    };
    let (chain, node) = (chain_of(number), chain_of(255));
    let (key_id, key) = (KEY_EVENTS_MAX as u32, secret(number, KEY_EVENTS_MAX));
    let node_key = secret(if is_valid { 255 } else { number }, KEY_EVENTS_MAX);
    let home = HomeRecord::sign(chain.oid(), (key_id, &key), node, &node_key, 1);
    let attrs = new_identity_attrs(&chain, &chain.verify().unwrap(), &home, None);
    let record = Object {
        app: identities::APP.into(),
        type_number: identities::IDENTITY,
        oid: chain.oid(),
        owner: chain.oid(),
        rev: 1,
        proof: OidProof::Genesis,
        rights: None,
        attrs: Some(attrs),
    };
    SignedObject::sign(key_id, &key, record.to_bytes())
}

/// Revision `rev` of the object with this number. Its oid is bound to its owner, and its place is
/// the one that its values give: equal numbers, owners and places give equal oids.
///
/// A tombstone of a type in a scope is [`tombstone`] of its object.
pub fn object(
    app: &str,
    type_number: u16,
    number: u8,
    owner: Oid,
    rev: u64,
    attrs: Option<Attrs>,
) -> Object {
    salted((app, type_number), [number; 8], owner, rev, attrs)
}

/// [`object`] with any salt.
pub fn salted(
    (app, type_number): (&str, u16),
    salt: [u8; 8],
    owner: Oid,
    rev: u64,
    attrs: Option<Attrs>,
) -> Object {
    let place = place_of(app, type_number, &owner, attrs.as_ref());
    let parts = OidParts {
        owner: &owner,
        app,
        type_number,
        place: &place,
    };
    Object {
        rev,
        attrs,
        ..Object::create(&parts, 1_700_000_000_000, salt)
    }
}

/// The place of an object of a built-in app.
fn place_of(app: &str, type_number: u16, owner: &Oid, attrs: Option<&Attrs>) -> Place {
    let schemas = Schemas::load(&ALL_APPS.map(str::to_owned), None).unwrap();
    let (Some(schema), Some(attrs)) = (schemas.type_(app, type_number), attrs) else {
        return Place::Public;
    };
    if let Some(list) = schema.founding_list(owner, attrs) {
        return Place::Founds(list.digest());
    }
    match schema.visibility {
        Visibility::Participants { through } => attrs
            .get(&through)
            .and_then(|values| values[0].as_oid())
            .map_or(Place::Public, Place::In),
        _ => Place::Public,
    }
}

/// A tombstone of an object.
pub fn tombstone(object: &Object, rev: u64) -> Object {
    Object {
        rev,
        attrs: None,
        ..object.clone()
    }
}

/// An object id of 16 equal bytes, which no other object has.
pub fn oid(number: u8) -> Oid {
    Oid::from_bytes([number; 16])
}
