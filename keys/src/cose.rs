//! COSE_Sign1 (RFC 9052, section 4.2), untagged, EdDSA only: the envelope of a package.
//!
//! Form: `[protected: bstr {1: -8}, unprotected: {}, payload: bstr, signature: bstr]`. The signed
//! bytes are RFC 9052's `["Signature1", protected, external_aad, payload]`, where `external_aad` is
//! the canonical CBOR of `[context, part, …]`. The payload is opaque bytes. Invariant:
//! [`Sign1::verify`] returns a payload only if its signature holds. Tested below.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, Limits, Malformed};
use crate::ids::{PublicKey, Signature};
use crate::signing::{BadSignature, Context, SecretKey, push_head, signing_input};

/// `{1: -8}`: the algorithm is EdDSA (RFC 9053, section 2.2). The only protected header allowed.
const PROTECTED: [u8; 3] = [0xa1, 0x01, 0x27];

/// Most bytes that the envelope adds to its payload.
pub const OVERHEAD_BYTES: usize = 1 + 4 + 1 + 9 + 66;

/// A parsed but unverified envelope.
#[derive(Debug)]
pub struct Sign1 {
    payload: Vec<u8>,
    signature: Signature,
}

#[derive(Serialize, Deserialize)]
struct Sign1Wire(ByteBuf, Unprotected, ByteBuf, Signature);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unprotected {}

fn signed_bytes(context: Context, parts: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let aad = signing_input(context, parts);
    let mut out = Vec::with_capacity(payload.len() + aad.len() + 64);
    push_head(&mut out, 4, 4);
    push_head(&mut out, 3, b"Signature1".len());
    out.extend_from_slice(b"Signature1");
    for part in [&PROTECTED[..], &aad, payload] {
        push_head(&mut out, 2, part.len());
        out.extend_from_slice(part);
    }
    out
}

impl SecretKey {
    /// Signs a payload, and `parts` that are not in the envelope. Returns the encoded COSE_Sign1
    /// envelope.
    pub fn sign1(&self, context: Context, parts: &[&[u8]], payload: &[u8]) -> Vec<u8> {
        let signature = self.sign_bytes(&signed_bytes(context, parts, payload));
        let mut out = Vec::with_capacity(payload.len() + OVERHEAD_BYTES);
        push_head(&mut out, 4, 4);
        push_head(&mut out, 2, PROTECTED.len());
        out.extend_from_slice(&PROTECTED);
        push_head(&mut out, 5, 0);
        push_head(&mut out, 2, payload.len());
        out.extend_from_slice(payload);
        push_head(&mut out, 2, Signature::LEN);
        out.extend_from_slice(signature.as_bytes());
        out
    }
}

impl Sign1 {
    /// Parses an envelope of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Malformed`], also for any other protected header.
    pub fn parse(bytes: &[u8], bytes_max: usize) -> Result<Self, Malformed> {
        let limits = Limits {
            bytes_max,
            depth_max: 2,
            items_max: 5,
        };
        let Sign1Wire(protected, Unprotected {}, payload, signature) =
            codec::decode(bytes, &limits)?;
        if protected.as_ref() != PROTECTED {
            return Err(Malformed::Unexpected("protected header".into()));
        }
        Ok(Self {
            payload: payload.into_vec(),
            signature,
        })
    }

    /// Verifies the signature of `key` under `context` and over `parts`. Returns the payload.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(
        self,
        key: &PublicKey,
        context: Context,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, BadSignature> {
        let signed = signed_bytes(context, parts, &self.payload);
        key.verify_bytes(&signed, &self.signature)?;
        Ok(self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (SecretKey, Vec<u8>) {
        let key = SecretKey::from_seed(&[1; 32]);
        let bytes = key.sign1(Context::Package, &[b"part"], b"payload");
        (key, bytes)
    }

    #[test]
    fn signed_envelope_is_canonical_and_verifies() {
        let (key, bytes) = signed();
        assert_eq!(bytes.len(), 1 + 4 + 1 + 8 + 66);
        assert_eq!(
            Sign1::parse(&bytes, 1024)
                .unwrap()
                .verify(&key.public(), Context::Package, &[b"part"])
                .unwrap(),
            b"payload"
        );
    }

    #[test]
    fn verify_refuses_every_flipped_bit() {
        let (key, bytes) = signed();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut bent = bytes.clone();
                bent[place] ^= 1 << bit;
                let held = Sign1::parse(&bent, 1024)
                    .ok()
                    .and_then(|it| it.verify(&key.public(), Context::Package, &[b"part"]).ok());
                assert_eq!(held, None, "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn verify_refuses_another_key_context_or_part_and_parse_an_excess_length() {
        let (key, bytes) = signed();
        let parse = || Sign1::parse(&bytes, 1024).unwrap();
        assert_eq!(
            parse().verify(
                &SecretKey::from_seed(&[2; 32]).public(),
                Context::Package,
                &[b"part"]
            ),
            Err(BadSignature)
        );
        assert_eq!(
            parse().verify(&key.public(), Context::Object, &[b"part"]),
            Err(BadSignature)
        );
        for parts in [&[][..], &[&b"other"[..]], &[b"part", b""]] {
            assert_eq!(
                parse().verify(&key.public(), Context::Package, parts),
                Err(BadSignature)
            );
        }
        assert!(matches!(
            Sign1::parse(&bytes, 10),
            Err(Malformed::TooLong(_))
        ));
    }
}
