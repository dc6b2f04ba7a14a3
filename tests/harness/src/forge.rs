//! Packages and objects of a hostile peer, which signs any content with the keys that it holds.

use keys::{Oid, SecretKey, SignedObject};
use postern::object::{Attrs, Object};
use postern::state_engine::{AppliedPackage, Package};

use crate::TestNode;
use crate::pull::TakeError;

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
        to.take(self, &package.sign(&self.keys))
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

/// Signs an object with a key that belongs to no identity.
pub fn sign_with_unknown_key(object: &Object) -> SignedObject {
    SignedObject::sign(0, &SecretKey::from_seed(&[0x66; 32]), object.to_bytes())
}

/// An object, field by field.
pub fn object(
    app: &str,
    type_number: u16,
    oid: Oid,
    owner: Oid,
    rev: u64,
    attrs: Option<Attrs>,
) -> Object {
    Object {
        app: app.to_owned(),
        type_number,
        oid,
        owner,
        rev,
        attrs,
    }
}

/// An object id of 16 equal bytes, which no other object has.
pub fn oid(number: u8) -> Oid {
    Oid::from_bytes([number; 16])
}
