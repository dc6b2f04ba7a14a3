//! Signing contexts, secret keys and strict verification.
//!
//! Every signature covers the canonical CBOR array `[context, part, part, …]` (text, then byte strings), so a
//! signature made for one purpose is none for another and parts cannot slide into each other.
//! Never `verify_batch`: it accepts weak keys that `verify_strict` refuses (docs/DECISIONS.md 5).
//! Invariant: a [`SecretKey`] is zeroised when dropped and has no way out but a signature or the sealed vault.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use rand::CryptoRng;
use sha2::Sha512;

use crate::ids::{PeerId, PublicKey, Signature};
use crate::locked::Locked;

/// What a signature or digest is for. Each has its own string, never reused for another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// Digest: a genesis record, whose first 16 bytes are an oid.
    Genesis,
    /// Digest: the commitment to a next key.
    NextKey,
    /// A key event, by the key that it reveals.
    KeyEvent,
    /// A home record, by the identity.
    HomeIdentity,
    /// A home record, by the node (countersignature).
    HomeNode,
    /// An object, by its owner.
    Object,
    /// A package, by its sending node (the `external_aad` of COSE_Sign1).
    Package,
    /// "This onion is served by that node", by the onion's own key.
    OnionBinding,
    /// A solution, by the node that solved it.
    Solution,
    /// A welcome, by the node that admits.
    Welcome,
    /// "My sequence numbers count in this epoch", by the node.
    Epoch,
    /// The input of the puzzle's work function.
    Work,
    /// The input of the puzzle's cheap inner condition.
    InnerWork,
    /// The transcript hash of challenge and solution.
    Transcript,
    /// What is authenticated beside a ticket's sealed part.
    Ticket,
    /// Digest: the key that seals tickets, derived from the onion service's.
    TicketKey,
    /// Digest: what a vault or backup shows of its key, so that a wrong passphrase is told from a changed file.
    KeyCheck,
    /// Digest: the key of one backup, derived from the vault's.
    BackupKey,
}

impl Context {
    /// The string that goes into the signed bytes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Genesis => "postern/1/genesis",
            Self::NextKey => "postern/1/next-key",
            Self::KeyEvent => "postern/1/key-event",
            Self::HomeIdentity => "postern/1/home-identity",
            Self::HomeNode => "postern/1/home-node",
            Self::Object => "postern/1/object",
            Self::Package => "postern/1/package",
            Self::OnionBinding => "postern/1/onion-binding",
            Self::Solution => "postern/1/solution",
            Self::Welcome => "postern/1/welcome",
            Self::Epoch => "postern/1/epoch",
            Self::Work => "postern/1/work",
            Self::InnerWork => "postern/1/inner-work",
            Self::Transcript => "postern/1/transcript",
            Self::Ticket => "postern/1/ticket",
            Self::TicketKey => "postern/1/ticket-key",
            Self::KeyCheck => "postern/1/key-check",
            Self::BackupKey => "postern/1/backup-key",
        }
    }
}

/// The exact bytes that are signed or hashed: canonical CBOR of `[context, part, …]`.
pub fn signing_input(context: Context, parts: &[&[u8]]) -> Vec<u8> {
    let text = context.as_str().as_bytes();
    let mut out = Vec::with_capacity(32 + parts.iter().map(|part| part.len() + 9).sum::<usize>());
    push_head(&mut out, 4, parts.len() + 1);
    push_head(&mut out, 3, text.len());
    out.extend_from_slice(text);
    for part in parts {
        push_head(&mut out, 2, part.len());
        out.extend_from_slice(part);
    }
    out
}

/// A CBOR head in its shortest form (RFC 8949, section 3).
pub(crate) fn push_head(out: &mut Vec<u8>, major: u8, argument: usize) {
    let major = major << 5;
    let wide = argument as u64;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(wide.to_be_bytes());
        }
    }
}

/// A signature that does not verify strictly (RFC 8032 with dalek's `verify_strict`), or a key that is no valid point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad signature")]
pub struct BadSignature;

impl PublicKey {
    /// Verifies a signature over `[context, part, …]`, strictly.
    pub fn verify(
        &self,
        context: Context,
        parts: &[&[u8]],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        self.verify_bytes(&signing_input(context, parts), signature)
    }

    /// Verifies a signature over exact bytes, strictly: small-order keys and non-canonical forms fail.
    pub fn verify_bytes(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(self.as_bytes()).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        key.verify_strict(message, &signature)
            .map_err(|_| BadSignature)
    }
}

/// An Ed25519 secret key. Prints as fixed text, lies in locked memory where the system allows it, is zeroised when dropped.
#[derive(Clone)]
pub struct SecretKey {
    seed: Locked<32>,
    /// A decompressed point is large, and keys are moved about.
    public: Box<VerifyingKey>,
}

impl SecretKey {
    /// A new key from the given source of randomness.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::of(Locked::filled(|seed| rng.fill_bytes(seed)))
    }

    /// The key of a 32-byte seed (RFC 8032's private key).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::of(Locked::copy_of(seed))
    }

    fn of(seed: Locked<32>) -> Self {
        let public = Box::new(VerifyingKey::from(&ExpandedSecretKey::from(&*seed)));
        Self { seed, public }
    }

    /// Hands the seed to `use_it` and nowhere else: for the sealed vault and a recovery key's words.
    pub fn with_seed<R>(&self, use_it: impl FnOnce(&[u8; 32]) -> R) -> R {
        use_it(&self.seed)
    }

    /// Why the seed's memory is not locked, if it is not.
    pub(crate) fn lock_fault(&self) -> Option<&str> {
        self.seed.fault()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.public.to_bytes())
    }

    /// The public half as a node's name: right only for a node's first key.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.public().as_bytes())
    }

    /// Signs `[context, part, …]`.
    pub fn sign(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.sign_bytes(&signing_input(context, parts))
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Signature {
        // What dalek's own SigningKey does, without its copy of the seed outside locked memory. The public key is this
        // seed's by construction: with another one, raw_sign would give the secret away.
        let expanded = ExpandedSecretKey::from(&*self.seed);
        Signature::from_bytes(raw_sign::<Sha512>(&expanded, message, &self.public).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--- secret key ---")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Limits, scan};
    use data_encoding::HEXLOWER;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEXLOWER
            .decode(text.as_bytes())
            .unwrap()
            .try_into()
            .unwrap()
    }

    #[test]
    fn signs_as_rfc_8032_section_7_1_does() {
        // TEST 2: one byte of message.
        let secret = SecretKey::from_seed(&hex(
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        ));
        assert_eq!(
            secret.public().to_hex(),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = secret.sign_bytes(&[0x72]);
        assert_eq!(
            signature.to_hex(),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        secret.public().verify_bytes(&[0x72], &signature).unwrap();
    }

    #[test]
    fn a_signature_holds_for_one_context_and_one_split_of_parts() {
        let key = SecretKey::from_seed(&[7; 32]);
        let signature = key.sign(Context::Object, &[b"ab", b"c"]);
        let public = key.public();
        assert_eq!(
            public.verify(Context::Object, &[b"ab", b"c"], &signature),
            Ok(())
        );
        assert_eq!(
            public.verify(Context::Solution, &[b"ab", b"c"], &signature),
            Err(BadSignature)
        );
        assert_eq!(
            public.verify(Context::Object, &[b"a", b"bc"], &signature),
            Err(BadSignature)
        );
        assert_eq!(
            SecretKey::from_seed(&[8; 32]).public().verify(
                Context::Object,
                &[b"ab", b"c"],
                &signature
            ),
            Err(BadSignature)
        );
    }

    #[test]
    fn a_small_order_key_verifies_nothing() {
        // The identity point: with it, R = identity and s = 0 would pass a lenient check for any message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(
            PublicKey::from_bytes(identity).verify_bytes(b"any", &Signature::from_bytes(signature)),
            Err(BadSignature)
        );
    }

    #[test]
    fn signed_bytes_are_canonical_cbor_at_every_length() {
        for length in [0, 23, 24, 255, 256, 65535, 65536] {
            let input = signing_input(Context::Object, &[&vec![1; length]]);
            scan(
                &input,
                &Limits {
                    bytes_max: usize::MAX,
                    depth_max: 1,
                    items_max: 3,
                },
            )
            .unwrap();
        }
    }

    #[test]
    fn a_secret_key_does_not_print() {
        let key = SecretKey::from_seed(&[7; 32]);
        assert_eq!(format!("{key:?}"), "--- secret key ---");
    }
}
