//! A signed object: exact bytes with the owner's signature, as stored and sent (docs/DECISIONS.md
//! 5).
//!
//! The signature covers context, key number and bytes. Key number and signature are not part of the
//! bytes, so re-signing with a new key does not change the content. The bytes are opaque to this
//! module; the node's `object` module decodes them. Tested below.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::{PublicKey, Signature};
use crate::signing::{BadSignature, Context, SecretKey};

/// `[key_id, bytes, signature]`. Proves nothing until it is verified with the owner's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedObject(u32, ByteBuf, Signature);

impl SignedObject {
    /// Combines bytes and an existing signature.
    pub fn from_parts(key_id: u32, bytes: Vec<u8>, signature: Signature) -> Self {
        Self(key_id, ByteBuf::from(bytes), signature)
    }

    /// Signs an object's bytes with the owner's key that has the number `key_id`.
    pub fn sign(key_id: u32, key: &SecretKey, bytes: Vec<u8>) -> Self {
        let signature = key.sign(Context::Object, &[&key_id.to_be_bytes(), &bytes]);
        Self::from_parts(key_id, bytes, signature)
    }

    /// Returns the number of the owner's key that signed.
    pub fn key_id(&self) -> u32 {
        self.0
    }

    /// Returns the object's canonical CBOR.
    pub fn bytes(&self) -> &[u8] {
        &self.1
    }

    /// Returns the owner's signature.
    pub fn signature(&self) -> &Signature {
        &self.2
    }

    /// Checks the signature with the owner's key that has the number [`Self::key_id`].
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, key: &PublicKey) -> Result<(), BadSignature> {
        key.verify(Context::Object, &[&self.0.to_be_bytes(), &self.1], &self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_covers_the_key_number() {
        let key = SecretKey::from_seed(&[1; 32]);
        let object = SignedObject::sign(0, &key, vec![0x80]);
        assert_eq!(object.verify(&key.public()), Ok(()));
        let renumbered = SignedObject::from_parts(1, object.bytes().to_vec(), *object.signature());
        assert_eq!(renumbered.verify(&key.public()), Err(BadSignature));
    }
}
