//! Public identifiers. Each has a fixed number of bytes and is encoded as a CBOR byte string.
//!
//! `Debug` and `Display` are for logs. They print only the first characters of a peer id, key or
//! onion address, and the last ones of an object id. `to_hex` and `to_onion_string` return the full
//! text. Invariant: a value of these
//! types has its exact length. Tested below.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha3::{Digest as _, Sha3_256};

/// A text that is not a valid identifier of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {why}")]
pub struct ParseIdError {
    what: &'static str,
    why: &'static str,
}

struct FixedBytes<const N: usize>;

impl<const N: usize> Visitor<'_> for FixedBytes<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of {N} bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes
            .try_into()
            .map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $what:literal, $len:literal, $shown:literal) => {
        fixed_bytes!($(#[$doc])* $name, $what, $len);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = self.to_hex();
                let shown = text.get(..$shown).unwrap_or(&text);
                f.write_str(shown)?;
                if shown.len() < text.len() { f.write_str("…") } else { Ok(()) }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, $what:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Copies a slice of exactly this length. Returns `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Returns the whole value in lower-case hex. Not for logs.
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let fail = |why| ParseIdError { what: $what, why };
                let bytes = HEXLOWER
                    .decode(text.as_bytes())
                    .map_err(|_| fail("not lower-case hex"))?;
                Self::from_slice(&bytes).ok_or(fail(concat!("must be ", $len, " bytes in hex")))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_bytes(FixedBytes::<$len>).map(Self)
            }
        }
    };
}

fixed_bytes!(
    /// Identifies an object on every node (docs/DECISIONS.md 2).
    ///
    /// Has no `Display`: logs contain [`Oid::short`]; the API, the command line and files contain
    /// [`Oid::to_hex`].
    Oid, "object id", 16
);

impl Oid {
    /// Returns `…` and the last 8 digits, for logs. The first digits are a time, and the command
    /// line accepts the last 8.
    pub fn short(&self) -> String {
        let text = self.to_hex();
        format!("…{}", text.get(24..).unwrap_or_default())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({})", self.short())
    }
}

fixed_bytes!(
    /// Identifies one life of a database (docs/DECISIONS.md 2).
    ///
    /// Created with the database. Sequence numbers are comparable only within one epoch.
    Epoch, "epoch", 16, 8
);
fixed_bytes!(
    /// Identifies one start of a node (docs/DECISIONS.md 6).
    ///
    /// A peer with two sessions of one node uses it to tell which start is newer.
    BootId, "boot id", 16, 8
);
fixed_bytes!(
    /// Identifies a node: its first Ed25519 public key, which rotation does not change
    /// (docs/DECISIONS.md 2).
    PeerId, "peer id", 32, 8
);
fixed_bytes!(
    /// An Ed25519 public key (RFC 8032). The bytes may not be a valid point.
    PublicKey, "public key", 32, 8
);
fixed_bytes!(
    /// An Ed25519 signature (RFC 8032). Proves nothing until it is verified.
    Signature, "signature", 64, 8
);
fixed_bytes!(
    /// A SHA-256 digest (FIPS 180-4).
    Digest, "digest", 32, 8
);
fixed_bytes!(
    /// The first 16 bytes of the digest of the part of an app's schema that travels
    /// (docs/PROTOCOL.md 8).
    SchemaDigest, "schema digest", 16, 32
);

impl Digest {
    /// Returns SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

/// The address of an onion service, version 3: its Ed25519 identity key (Tor rend-spec-v3, section
/// 6).
///
/// Encoded as the 32 bytes of the key. `Display` prints the first characters only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OnionAddr(PublicKey);

const ONION_VERSION: u8 = 3;

impl OnionAddr {
    /// Returns the address of the service with this identity key.
    pub const fn from_public_key(key: PublicKey) -> Self {
        Self(key)
    }

    /// Returns the service's identity key.
    pub const fn public_key(&self) -> &PublicKey {
        &self.0
    }

    fn checksum(&self) -> [u8; 2] {
        let [a, b, ..]: [u8; 32] = Sha3_256::new()
            .chain_update(b".onion checksum")
            .chain_update(self.0.0)
            .chain_update([ONION_VERSION])
            .finalize()
            .into();
        [a, b]
    }

    /// Returns the whole address, `<56 characters>.onion`. Not for logs.
    pub fn to_onion_string(&self) -> String {
        let mut bytes = self.0.0.to_vec();
        bytes.extend(self.checksum());
        bytes.push(ONION_VERSION);
        format!("{}.onion", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for OnionAddr {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let fail = |why| ParseIdError {
            what: "onion address",
            why,
        };
        let name = text
            .strip_suffix(".onion")
            .ok_or(fail("it does not end in .onion"))?;
        if name.len() != 56 {
            return Err(fail("a version 3 address has 56 characters before .onion"));
        }
        let bytes = BASE32_NOPAD
            .decode(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| fail("not base32"))?;
        let (key, rest) = bytes.split_first_chunk::<32>().ok_or(fail("too short"))?;
        let address = Self(PublicKey(*key));
        let [a, b] = address.checksum();
        match rest {
            [x, y, ONION_VERSION] if (*x, *y) == (a, b) => Ok(address),
            [_, _, ONION_VERSION] => Err(fail("its checksum is wrong; check for a typing error")),
            _ => Err(fail("not a version 3 address")),
        }
    }
}

impl fmt::Display for OnionAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_onion_string();
        write!(f, "{}….onion", text.get(..6).unwrap_or_default())
    }
}

impl fmt::Debug for OnionAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnionAddr({self})")
    }
}

/// Identifies one operation (a request, a session, a dial, a handshake) in the logs.
///
/// Random, never sent to a peer. Printed as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_printed_in_part_for_logs() {
        let bytes: [u8; 64] = std::array::from_fn(|at| at as u8);
        let first: [u8; 16] = *bytes.first_chunk().unwrap();
        let half: [u8; 32] = *bytes.first_chunk().unwrap();
        let oid = Oid::from_bytes(first);
        assert_eq!((oid.short(), oid.to_hex().len()), ("…0c0d0e0f".into(), 32));
        assert_eq!(format!("{oid:?}"), "Oid(…0c0d0e0f)");
        let shown = [
            Epoch::from_bytes(first).to_string(),
            BootId::from_bytes(first).to_string(),
            PeerId::from_bytes(half).to_string(),
            PublicKey::from_bytes(half).to_string(),
            Digest::from_bytes(half).to_string(),
            Signature::from_bytes(bytes).to_string(),
        ];
        assert_eq!(shown, ["00010203…"; 6]);
        assert_eq!(
            format!("{:?}", PeerId::from_bytes(half)),
            "PeerId(00010203…)"
        );
        // No secret, and equal on all nodes with one schema.
        assert_eq!(SchemaDigest::from_bytes(first).to_string().len(), 32);
    }

    // The Tor Project's published onion service: an address made by another implementation.
    const TORPROJECT: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    #[test]
    fn onion_address_of_the_tor_project_round_trips() {
        let address: OnionAddr = TORPROJECT.parse().unwrap();
        assert_eq!(address.to_onion_string(), TORPROJECT);
    }

    #[test]
    fn mistyped_onion_address_is_refused() {
        let mistyped = TORPROJECT.replacen("2g", "2h", 1);
        let error = mistyped.parse::<OnionAddr>().unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        assert!("short.onion".parse::<OnionAddr>().is_err());
        assert!(
            "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid"
                .parse::<OnionAddr>()
                .is_err()
        );
    }

    #[test]
    fn display_and_debug_print_only_the_first_characters() {
        let address: OnionAddr = TORPROJECT.parse().unwrap();
        let peer = PeerId::from_bytes([0xab; 32]);
        for text in [
            format!("{address}"),
            format!("{address:?}"),
            format!("{peer}"),
            format!("{peer:?}"),
        ] {
            assert!(text.len() < 30, "{text}");
        }
        assert_eq!(peer.to_hex().parse::<PeerId>().unwrap(), peer);
    }
}
