//! Packages and objects as a hostile peer makes them: it holds its own keys and may say anything with them.

use keys::{Oid, SecretKey, SignedObject};
use postern::object::{Attrs, Object};
use postern::state_engine::{AppliedPackage, Package};

use super::TestNode;
use super::sync::NotTaken;

impl TestNode {
    /// A package of this node with the header that an honest one would have.
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

    /// Sends objects of its own making in the window that the other awaits.
    pub fn force(
        &self,
        to: &TestNode,
        domain: &str,
        objects: Vec<SignedObject>,
    ) -> Result<AppliedPackage, NotTaken> {
        let last_seq = to.request(self, domain).last_seq;
        let from_seq = if last_seq == 0 { 0 } else { last_seq + 1 };
        let package = self.package(to, domain, (from_seq, last_seq + 1), objects);
        to.take(self, &package.sign(&self.keys))
    }

    /// Forces one object; gives the code with which it was refused, if it was.
    pub fn force_one(&self, to: &TestNode, domain: &str, object: SignedObject) -> Option<String> {
        let before = to.rejects().len();
        let applied = self.force(to, domain, vec![object]).unwrap();
        let rejects = to.rejects();
        assert_eq!(rejects.len() - before, applied.rejected);
        (applied.rejected > 0).then(|| rejects[0].clone())
    }

    /// An object in the name of an identity whose key this node holds, whatever the object says.
    pub fn sign(&self, object: &Object) -> SignedObject {
        self.keys
            .sign_object(object.owner, object.to_bytes())
            .unwrap()
    }
}

/// An object with a signature that is nobody's.
pub fn sign_as_nobody(object: &Object) -> SignedObject {
    SignedObject::sign(0, &SecretKey::from_seed(&[0x66; 32]), object.to_bytes())
}

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

/// An oid that nothing else has.
pub fn oid(number: u8) -> Oid {
    Oid::from_bytes([number; 16])
}
