//! An object's exact bytes beside its owner's signature, as it is stored and sent (docs/DECISIONS.md 5).
//!
//! The signature covers context, key number and bytes; key number and signature lie beside the bytes, so that
//! re-signing under a new key changes no content. Never looks inside the bytes: the node's `object` module does.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::{PublicKey, Signature};
use crate::signing::{BadSignature, Context, SecretKey};

/// `[key_id, bytes, signature]`. Holding one proves nothing until it is verified against the owner's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedObject(u32, ByteBuf, Signature);

impl SignedObject {
    /// Puts bytes and a known signature together.
    pub fn from_parts(key_id: u32, bytes: Vec<u8>, signature: Signature) -> Self {
        Self(key_id, ByteBuf::from(bytes), signature)
    }

    /// Signs an object's bytes with the owner's key of that number.
    pub fn sign(key_id: u32, key: &SecretKey, bytes: Vec<u8>) -> Self {
        let signature = key.sign(Context::Object, &[&key_id.to_be_bytes(), &bytes]);
        Self::from_parts(key_id, bytes, signature)
    }

    /// Number of the owner's key that signed.
    pub fn key_id(&self) -> u32 {
        self.0
    }

    /// The object's canonical CBOR.
    pub fn bytes(&self) -> &[u8] {
        &self.1
    }

    /// The owner's signature.
    pub fn signature(&self) -> &Signature {
        &self.2
    }

    /// Checks the signature against the owner's key of number [`Self::key_id`].
    pub fn verify(&self, key: &PublicKey) -> Result<(), BadSignature> {
        key.verify(Context::Object, &[&self.0.to_be_bytes(), &self.1], &self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_number_is_signed_too() {
        let key = SecretKey::from_seed(&[1; 32]);
        let object = SignedObject::sign(0, &key, vec![0x80]);
        assert_eq!(object.verify(&key.public()), Ok(()));
        let renumbered = SignedObject::from_parts(1, object.bytes().to_vec(), *object.signature());
        assert_eq!(renumbered.verify(&key.public()), Err(BadSignature));
    }
}
