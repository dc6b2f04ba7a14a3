//! Signing contexts, secret keys and strict verification (docs/DECISIONS.md 5).
//!
//! Every signature covers the canonical CBOR array `[context, part, part, …]` (text, then byte
//! strings). A signature made for one purpose is therefore invalid for every other, and bytes
//! cannot move from one part to another. `verify_batch` is not used, because it accepts weak keys
//! that `verify_strict` refuses. Invariant: a [`SecretKey`] is zeroised when dropped, and leaves
//! this module only through [`SecretKey::with_seed`], for the sealed vault and recovery keys.
//! Tested below and in `tests/all/published_vectors.rs`.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use rand::CryptoRng;
use sha2::Sha512;

use crate::ids::{PeerId, PublicKey, Signature};
use crate::locked::Locked;
use crate::protocol::{OBJECT_FORMAT, PROTOCOL_VERSION};

/// Version in the contexts that no other implementation knows.
const LOCAL_FORMAT: u64 = 1;

/// The purpose of a signature or digest. Each has a string of its own, which is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// Digest of a genesis record. Its first 16 bytes are an oid.
    Genesis,
    /// Digest that commits to a next key.
    NextKey,
    /// Signature of a key event, by the key that it reveals.
    KeyEvent,
    /// Signature of a home record, by the identity.
    HomeIdentity,
    /// Countersignature of a home record, by the node.
    HomeNode,
    /// Signature of an address record, by the onion service's key.
    AddressOnion,
    /// Countersignature of an address record, by the node.
    AddressNode,
    /// Digest of which an object's oid is made.
    Oid,
    /// Digest that names a rights list.
    Rights,
    /// Signature of an object, by its owner.
    Object,
    /// Digest of the part of an app's schema that travels.
    Schema,
    /// Signature of a package, by the sending node (in the `external_aad` of COSE_Sign1).
    Package,
    /// Signature that binds an onion address to a node, by the onion key.
    OnionBinding,
    /// Signature of a solution, by the client.
    Solution,
    /// Signature of a welcome, by the server.
    Welcome,
    /// Signature of a node's epoch and sequence number, by the node.
    Epoch,
    /// Input of the puzzle's work function.
    Work,
    /// Input of the puzzle's cheap inner condition.
    InnerWork,
    /// Digest of the handshake transcript: challenge and solution.
    Transcript,
    /// Associated data of a ticket's sealed part.
    Ticket,
    /// Digest that derives the ticket key from the onion key.
    TicketKey,
    /// Digest of a vault's key in the headers of vault and backups, to detect a wrong passphrase.
    KeyCheck,
    /// Digest that derives the key of one backup from the vault's key.
    BackupKey,
}

impl Context {
    /// Returns the string that is part of the signed bytes: `postern/1/object`.
    pub fn text(self) -> String {
        self.composed(OBJECT_FORMAT, PROTOCOL_VERSION)
    }

    /// Returns the string under other versions of stored objects and of the protocol.
    fn composed(self, object_format: u64, protocol: u64) -> String {
        let (version, name) = match self {
            Self::Genesis => (object_format, "genesis"),
            Self::NextKey => (object_format, "next-key"),
            Self::KeyEvent => (object_format, "key-event"),
            Self::HomeIdentity => (object_format, "home-identity"),
            Self::HomeNode => (object_format, "home-node"),
            Self::AddressOnion => (object_format, "address-onion"),
            Self::AddressNode => (object_format, "address-node"),
            Self::Oid => (object_format, "oid"),
            Self::Rights => (object_format, "rights"),
            Self::Object => (object_format, "object"),
            Self::Schema => (object_format, "schema"),
            // Stored, and shown in later sessions.
            Self::Epoch => (object_format, "epoch"),
            Self::Package => (protocol, "package"),
            Self::OnionBinding => (protocol, "onion-binding"),
            Self::Solution => (protocol, "solution"),
            Self::Welcome => (protocol, "welcome"),
            Self::Work => (protocol, "work"),
            Self::InnerWork => (protocol, "inner-work"),
            Self::Transcript => (protocol, "transcript"),
            // Of this implementation alone: tickets, vault and backups.
            Self::Ticket => (LOCAL_FORMAT, "ticket"),
            Self::TicketKey => (LOCAL_FORMAT, "ticket-key"),
            Self::KeyCheck => (LOCAL_FORMAT, "key-check"),
            Self::BackupKey => (LOCAL_FORMAT, "backup-key"),
        };
        format!("postern/{version}/{name}")
    }
}

/// Returns the exact bytes that are signed or hashed: canonical CBOR of `[context, part, …]`.
pub fn signing_input(context: Context, parts: &[&[u8]]) -> Vec<u8> {
    let text = context.text();
    let mut out = Vec::with_capacity(32 + parts.iter().map(|part| part.len() + 9).sum::<usize>());
    push_head(&mut out, 4, parts.len() + 1);
    push_head(&mut out, 3, text.len());
    out.extend_from_slice(text.as_bytes());
    for part in parts {
        push_head(&mut out, 2, part.len());
        out.extend_from_slice(part);
    }
    out
}

/// Appends a CBOR head in its shortest form (RFC 8949, section 3).
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

/// The signature does not verify strictly (RFC 8032 with dalek's `verify_strict`), or the key is
/// not a valid point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is invalid")]
pub struct BadSignature;

impl PublicKey {
    /// Verifies a signature over `[context, part, …]`, strictly.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(
        &self,
        context: Context,
        parts: &[&[u8]],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        self.verify_bytes(&signing_input(context, parts), signature)
    }

    /// Verifies a signature over exact bytes, strictly: refuses small-order keys and non-canonical
    /// forms.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify_bytes(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(self.as_bytes()).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        key.verify_strict(message, &signature)
            .map_err(|_| BadSignature)
    }
}

/// An Ed25519 secret key.
///
/// In locked memory if the system allows it, and zeroised when dropped. `Debug` prints fixed text.
#[derive(Clone)]
pub struct SecretKey {
    seed: Locked<32>,
    /// Boxed, because a decompressed point is large and keys are moved often.
    public: Box<VerifyingKey>,
}

impl SecretKey {
    /// Generates a key from the given source of randomness.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::of(Locked::filled(|seed| rng.fill_bytes(seed)))
    }

    /// Creates the key of a 32-byte seed (RFC 8032's private key).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::of(Locked::copy_of(seed))
    }

    fn of(seed: Locked<32>) -> Self {
        let public = Box::new(VerifyingKey::from(&ExpandedSecretKey::from(&*seed)));
        Self { seed, public }
    }

    /// Calls `use_it` with the seed: for the sealed vault and the words of a recovery key.
    pub fn with_seed<R>(&self, use_it: impl FnOnce(&[u8; 32]) -> R) -> R {
        use_it(&self.seed)
    }

    /// Returns why the seed's memory is not locked, or `None` if it is.
    pub(crate) fn lock_fault(&self) -> Option<&str> {
        self.seed.fault()
    }

    /// Returns the public key.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.public.to_bytes())
    }

    /// Returns the public key as a peer id. Meaningful only for a node's first key.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.public().as_bytes())
    }

    /// Signs `[context, part, …]`.
    pub fn sign(&self, context: Context, parts: &[&[u8]]) -> Signature {
        self.sign_bytes(&signing_input(context, parts))
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Signature {
        // The same as dalek's SigningKey, but without its copy of the seed outside locked memory.
        // The public key is always this seed's: with another one, raw_sign would reveal the secret
        // key.
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
    fn signature_matches_rfc_8032_section_7_1() {
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
    fn stored_contexts_name_the_object_format_and_session_contexts_the_protocol() {
        let texts = |versions: (u64, u64), contexts: &[Context]| -> Vec<_> {
            let text = |context: &Context| context.composed(versions.0, versions.1);
            contexts.iter().map(text).collect()
        };
        let of = |version: u64, names: &[&str]| -> Vec<_> {
            let text = |name: &&str| format!("postern/{version}/{name}");
            names.iter().map(text).collect()
        };
        use Context::*;
        let stored = [
            Genesis,
            NextKey,
            KeyEvent,
            HomeIdentity,
            HomeNode,
            AddressOnion,
            AddressNode,
            Oid,
            Rights,
            Object,
            Schema,
            Epoch,
        ];
        let names = [
            "genesis",
            "next-key",
            "key-event",
            "home-identity",
            "home-node",
            "address-onion",
            "address-node",
            "oid",
            "rights",
            "object",
            "schema",
            "epoch",
        ];
        assert_eq!(texts((2, 1), &stored), of(2, &names));
        assert_eq!(texts((1, 2), &stored), of(1, &names));
        let session = [
            Package,
            OnionBinding,
            Solution,
            Welcome,
            Work,
            InnerWork,
            Transcript,
        ];
        let names = [
            "package",
            "onion-binding",
            "solution",
            "welcome",
            "work",
            "inner-work",
            "transcript",
        ];
        assert_eq!(texts((2, 1), &session), of(1, &names));
        assert_eq!(texts((1, 2), &session), of(2, &names));
        let local = [Ticket, TicketKey, KeyCheck, BackupKey];
        assert_eq!(texts((2, 2), &local), texts((1, 1), &local));
        assert_eq!(Object.text(), "postern/1/object");
    }

    #[test]
    fn signature_is_valid_for_one_context_and_one_division_into_parts() {
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
    fn verify_refuses_a_small_order_key() {
        // The identity point: R = identity and s = 0 would pass a lenient check for any message.
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
    fn signing_input_is_canonical_cbor_at_every_length() {
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
    fn debug_output_redacts_the_secret_key() {
        let key = SecretKey::from_seed(&[7; 32]);
        assert_eq!(format!("{key:?}"), "--- secret key ---");
    }
}
